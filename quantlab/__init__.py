"""Quantize a language model, measure what it saves and what it costs, and report it."""

__version__ = "0.1.0"
