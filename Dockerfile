# quantlab on a CUDA machine. This image was never built by its authors, who have no Docker engine: it is written from
# the steps of the README, and what no GPU has verified is listed there. It is built without a GPU.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

RUN apt-get update && apt-get install -y --no-install-recommends \
      build-essential ca-certificates cmake git make ninja-build python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /quantlab
# .dockerignore keeps the host's .venv, checkpoints and runs out
COPY . .

# llama.cpp with CUDA for the usual architectures, although no GPU is here to ask (quantlab/environments/llama_build.py). The
# driver's library comes from the host when the container runs; the toolkit's stub stands for it while it is linked.
RUN QUANTLAB_CUDA=on make install

ENV PATH="/quantlab/.venv/bin:$PATH"

# docker run --gpus all IMAGE make test        docker compose run --rm quantlab quantlab run ...
CMD ["make", "demo"]
