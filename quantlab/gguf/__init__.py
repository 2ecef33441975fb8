"""llama.cpp: converting to GGUF, the importance matrix, quantizing, and running a GGUF file in this process."""
