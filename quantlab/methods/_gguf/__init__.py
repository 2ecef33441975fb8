"""Convert and quantize GGUF files for the gguf method."""
