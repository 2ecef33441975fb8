"""Another vocabulary is refused before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantlab.errors import CellFailure
from quantlab.reference.comparable import require_same_vocabulary
from quantlab.workspace.checkpoint import Checkpoint, Manifest


def _checkpoint(folder: Path, vocabulary: int) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": vocabulary}))
    return Checkpoint(folder, Manifest(model="small", variant="gptq-4", method="gptq", bits=4))


def test_the_size_in_the_config_is_compared(tmp_path: Path) -> None:
    require_same_vocabulary(_checkpoint(tmp_path, 100), 100, 128)  # a head padded to 128 rows
    for other in (99, 101):
        with pytest.raises(CellFailure, match=f"the vocabulary has {other} tokens, the reference's 100"):
            require_same_vocabulary(_checkpoint(tmp_path, other), 100, 100)


def test_a_gguf_files_embedding_is_compared(tmp_path: Path) -> None:
    import numpy as np
    from gguf import GGUFWriter

    pytest.importorskip("llama_cpp")
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((100, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    manifest = Manifest(
        model="small",
        variant="gguf-4",
        method="gguf",
        bits=4,
        format="gguf",
        files={"model.gguf": {"bytes": 1, "sha256": ""}},
    )
    require_same_vocabulary(Checkpoint(tmp_path, manifest), 100, 100)
    with pytest.raises(CellFailure, match="the vocabulary has 100 tokens, the reference's 128"):
        require_same_vocabulary(Checkpoint(tmp_path, manifest), 100, 128)
