"""Planning: what a model will need before anything is downloaded. Pure functions; nothing here imports torch.

| file | what it answers |
|---|---|
| target.py | `target(name)`: the config.json behind a name (catalogue, folder, file, hub), its source and its warnings |
| counts.py | `count(config)`: parameters by role, active ones, every matrix with its shape; counts.json has the catalogue's |
| _count.py | the side process that builds the architecture on torch's meta device, and `--catalogue`, which writes counts.json |
| estimate.py | `estimate(config, why)`: the fallback for architectures that cannot be built, never certain |
| weights.py | `weight_bytes(count, method, bits, settings)`: bytes of a checkpoint, scales, zeros and indices included |
| _layouts.py, _scope.py | what each safetensors library stores for a matrix, and which matrices it takes; for weights.py alone |
| _gguf.py, _ggml.py | the same for GGUF: llama.cpp's type of each tensor, and the bytes of a block |

Bytes are bytes; GB is 10^9 and GiB is 2^30, and names say which. GPUs, prices and models lie in `quantlab.catalogue`.
"""
