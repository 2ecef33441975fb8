"""A tiny Llama whose activations are more than float16 holds, though float16 holds its weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from quantlab.models.tiny import write_tiny_model

_FACTOR = 2.0**17
"""Of what every block adds to the stream: about 65,536 then, and the norms before the layers take it out."""
_ADDS = ("o_proj.weight", "down_proj.weight")


def write_wide(folder: Path, dtype: str = "bfloat16") -> Path:
    """Write it with its weights in a dtype."""
    write_tiny_model("llama", folder)
    path, kind = folder / "model.safetensors", getattr(torch, dtype)
    tensors = {
        name: (tensor.float() * (_FACTOR if name.endswith(_ADDS) else 1.0)).to(kind)
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"dtype": dtype}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
