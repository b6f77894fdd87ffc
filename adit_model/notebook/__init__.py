"""Sampling in a notebook: ASE atoms, tables, pictures."""
