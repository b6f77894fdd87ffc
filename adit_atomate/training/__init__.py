"""Training as jobs."""
