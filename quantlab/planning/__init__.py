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
| fields.py, layers.py, hybrids.py, architecture.py | `read_architecture(config)`: every layer; families.json has what configs omit |
| schedules.py, _families.py | which layer is of which type where no list says it, and the side process that writes families.json |
| kvcache.py | `cache_bytes(architecture, tokens, dtype, policy)`: the cache, as attention needs it or an engine keeps it |
| formats.py, stored.py | the format that a release is stored in, and its bytes |
| activations.py, calibration.yaml | constants that no formula gives, and the measurements that they come from |
| roofline.py | the decode ceiling |
| rig.py, plan.py, fit.py | `plan_model(config, ...)`: each variant on each set of GPUs, the largest context and batch, verdicts |
| resolve.py, gguf_config.py, sizes.py | `ingredients(name)`: target.py and GGUF files; contexts and sizes as people write them |
| cost.py, bill.py | `compare(...)`: one's own GPUs against an API; the bill of a variant, every assumption with its source |
| evidence.py, losses.py | what was measured here; drops and divergences: measured, interpolated, or published |
| candidates.py | `gather(...)`: every model, method and width, each figure with how it is known |
| choice.py | `choose(request, candidates)`: the ranked answer, and what would change it |
| recommendation.py, serving.py, amounts.py | a choice for a reader; the commands that serve a checkpoint; 5000M, 24GB |
| claims/ | docs/claims.md, made by running the planner |
| against.py, tables.py | predictions beside records; a plan for a terminal |

Bytes are bytes; GB is 10^9 and GiB is 2^30, and names say which. GPUs, prices and models lie in `quantlab.catalogue`.
"""
