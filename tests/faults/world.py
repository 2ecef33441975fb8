"""The folder in which every fault is tried: a model, a recipe, a workspace with a report, the user's own
catalogue files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

Content = str | bytes | Mapping[str, Any] | list[Any] | None
"""Of a file: text, bytes, or a value to be written as JSON or YAML by the file's name; None for a folder in
its place."""
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
TOKENIZER = {
    "version": "1.0",
    "model": {"type": "BPE", "vocab": {chr(97 + n): n for n in range(26)}, "merges": []},
}
RECIPE: dict[str, Any] = {
    "model": "tiny",
    "source": {"path": "tiny"},
    "variants": {"baseline-16": {}, "gguf-4": {}},
}
OWN = {"QUANTLAB_MODELS": "models.yaml", "QUANTLAB_GPUS": "gpus.yaml", "QUANTLAB_PRICES": "prices.yaml"}


class World(NamedTuple):
    """Where a fault is tried."""

    root: Path
    environment: Mapping[str, str]

    @staticmethod
    def make(root: Path, store: Path) -> World:
        (root / "recipes").mkdir(parents=True)
        (root / "own").mkdir()
        shutil.copytree(_model(store), root / "tiny")
        (root / "recipes" / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
        for name in OWN.values():
            (root / "own" / name).write_text("")
        own = {variable: str(root / "own" / name) for variable, name in OWN.items()}
        return World(root, own | {"QUANTLAB_CACHE": str(root / "cache"), "COLUMNS": "200"})

    def write(self, files: Mapping[str, Content]) -> None:
        for name, content in files.items():
            write(self.root / name, content)


def write(path: Path, content: Content) -> None:
    """One file of the world, whatever was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))


def _model(store: Path) -> Path:
    folder = store / "tiny"
    if not folder.exists():
        from safetensors.numpy import save_file

        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        save_file(tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def tensors() -> dict[str, Any]:
    """The weights that CONFIG asks for, all zero."""
    layer, shapes = "model.layers.0", {"model.embed_tokens.weight": (32, 16), "model.norm.weight": (16,)}
    shapes |= {f"{layer}.self_attn.{name}_proj.weight": (16, 16) for name in "qo"}
    shapes |= {f"{layer}.self_attn.{name}_proj.weight": (8, 16) for name in "kv"}
    shapes |= {f"{layer}.mlp.{name}_proj.weight": (32, 16) for name in ("gate", "up")}
    shapes |= {f"{layer}.mlp.down_proj.weight": (16, 32)}
    shapes |= {f"{layer}.{name}_layernorm.weight": (16,) for name in ("input", "post_attention")}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
