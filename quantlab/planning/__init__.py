"""Planning: what a model will need before anything is downloaded. Pure functions; nothing here imports torch.

| file | what it answers |
|---|---|
| target.py | `target(name)`: the config.json behind a name (catalogue, folder, file, hub), its source and its warnings |
| counts.py | `count(config)`: parameters by role, active ones, every matrix with its shape |
| _count.py | the side process that builds the architecture on torch's meta device, and `--catalogue`, which writes what ships |
| weights.py | `weight_bytes(count, method, bits, settings)`: bytes of a checkpoint, scales, zeros and indices included |
| _gptqmodel.py, _bitsandbytes.py, _gguf.py | the storage layouts of the libraries, used by weights.py alone |

Bytes are bytes; GB is 10^9 and GiB is 2^30, and names say which. GPUs, prices and models lie in `quantlab.catalogue`.
"""
