"""Help the vLLM engine."""
