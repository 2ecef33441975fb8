"""A folder that is a model by its files: three small tensors, no weights worth loading."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A whole model in one file: 8 + 12 + 4 parameters."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    tensors = {
        "a": np.zeros((2, 4), np.float32),
        "b": np.zeros((3, 4), np.float16),
        "c": np.zeros(4, np.float32),
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def sharded(model: Path) -> Path:
    """The same model in two files with an index."""
    (model / "model.safetensors").unlink()
    save_file({"a": np.zeros((2, 4), np.float32)}, model / "model-00001-of-00002.safetensors")
    save_file(
        {"b": np.zeros((3, 4), np.float16), "c": np.zeros(4, np.float32)},
        model / "model-00002-of-00002.safetensors",
    )
    places = {
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors",
        "c": "model-00002-of-00002.safetensors",
    }
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return model


@pytest.fixture
def write_config(model: Path) -> Callable[..., None]:
    """Give the model another config.json (or another file's content)."""

    def write(name: str = "config.json", **fields: object) -> None:
        (model / name).write_text(json.dumps(fields))

    return write
