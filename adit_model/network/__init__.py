"""The two networks: autoencoder and denoiser."""
