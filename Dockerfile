# quantlab on a CUDA machine. This image was never built by its authors, who have no Docker engine: it is written from
# the steps of the README, and what no GPU has verified is listed there.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

RUN apt-get update && apt-get install -y --no-install-recommends \
      build-essential ca-certificates cmake git libjemalloc2 make ninja-build python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /quantlab
COPY . .

# llama.cpp with CUDA; the other libraries find CUDA when they run
ENV CMAKE_ARGS="-DGGML_CUDA=on"
RUN make install

# GPTQ and AWQ on a CPU allocate and free large tensors all the time: jemalloc keeps them
ENV MALLOC_CONF="dirty_decay_ms:-1,muzzy_decay_ms:-1" PATH="/quantlab/.venv/bin:$PATH"

# docker run --gpus all IMAGE make demo        docker run --gpus all IMAGE make test
CMD ["make", "demo"]
