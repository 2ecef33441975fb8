"""Measure memory and speed: the engine in a worker process, clock and sampler outside it."""
