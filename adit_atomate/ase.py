"""Sampling in a notebook, constructed as one constructs an ASE calculator."""

from adit_model.notebook.sampler import ADiTSampler, Latents

__all__ = ["ADiTSampler", "Latents"]
