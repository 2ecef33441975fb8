"""Recommend a model and a variant, and compute its cost."""
