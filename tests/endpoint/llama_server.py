"""llama.cpp's own server, as the package xllamacpp builds it: `python llama_server.py GGUF PORT`.

One thread: several that spin at their barriers on cores which others use, too, cost a hundred times that."""

from __future__ import annotations

import sys


def main(model: str, port: int) -> None:
    """Serve a GGUF file with two requests at a time, and count under /metrics."""
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path, options.model_alias, options.port = model, {"smollm2"}, port
    options.n_ctx, options.n_parallel, options.cpuparams.n_threads = 4096, 2, 1
    options.cpuparams_batch.n_threads = 1
    options.endpoint_metrics = True
    server = xllamacpp.Server(options)
    print(server.listening_address, flush=True)
    sys.stdin.read()  # until the tests end, however they do


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
