"""Compute statistics on numbers: pure functions, no files, no torch, tested without a model."""
