"""Pure functions on numbers: no files, no torch, tested without a model."""
