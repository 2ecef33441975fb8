"""Run llama.cpp for its engine."""
