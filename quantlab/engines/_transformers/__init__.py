"""Help the transformers engine."""
