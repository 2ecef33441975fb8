"""Count what a config.json describes: layers, parameters, cache, bytes, roofline. The only place that counts
them.

| file | what it holds |
|---|---|
| fields.py | reading a config.json: nested parts, the names that fields have, families.json for what it leaves out |
| shape.py | `read_architecture(config)`: the model's shape; layers.py, hybrids.py and schedules.py say what each layer is |
| release.py | the format that a release is stored in |
| gguf_header.py, gguf_model.py, gguf_layers.py | `read_gguf(path)`: the model of a GGUF file from its own tensors |
| searched.py | models whose config gives the widths of each layer |
| parameters.py | the types of a count: matrices by role, name and shape, and their totals |
| counts.py | `count(config)`: the exact count, from counts.json, the user's cache folder or the side process _meta_count.py |
| estimate.py | `estimate(config, why)`: the fallback for architectures that cannot be built, never certain |
| weight_bytes.py | bytes of a checkpoint's tensors, put together from what each matrix takes |
| cache_types.py | types of the key-value cache and their bytes per value |
| kvcache.py | `cache_bytes(architecture, ...)`: the cache as attention needs it or as an engine keeps it |
| cache_formula.py | the cache beside which a measured one is set |
| roofline.py | bytes that a decoding step reads, and the tokens per second that bandwidth allows |
| _meta_count.py, _families.py | the side processes that write counts.json and families.json |
"""
