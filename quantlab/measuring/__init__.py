"""How memory and speed are measured: the engine in a worker process, the clock and the sampler outside it."""
