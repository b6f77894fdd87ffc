"""Encoders of stage 1, chosen by name in the config."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from adit_model.config import AutoencoderConfig


def build_encoder(config: AutoencoderConfig) -> nn.Module:
    """Build the encoder that ``config.encoder`` names.

    Every encoder maps ``(AtomicBatch, DomainGroups)`` to the mean and the log-variance of the
    latents, each of shape (A, latent_dim).
    """
    if config.encoder == "equivariant":
        from adit_model.network.encoders.equivariant import EquivariantEncoder

        return EquivariantEncoder(config)
    from adit_model.network.encoders.transformer import TransformerEncoder

    return TransformerEncoder(config)
