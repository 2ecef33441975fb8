"""quantlab: quantize a language model, measure what it saves and what it costs, report it."""

__version__ = "0.1.0"
