"""Prediction of structures from a formula, and completion of partial structures."""
