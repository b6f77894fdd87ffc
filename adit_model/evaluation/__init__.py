"""Evaluation of a set of samples: a row for each structure, a summary, a report."""
