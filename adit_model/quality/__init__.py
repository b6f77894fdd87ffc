"""Whether a structure is sound, new, stable, and what was asked for."""
