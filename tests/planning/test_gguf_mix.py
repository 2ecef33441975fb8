"""The type of every tensor in every GGUF mix is the one that the installed llama.cpp gives it."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest

from quantlab.architecture.estimate import estimate
from quantlab.formats import ggml as _ggml
from quantlab.formats.gguf_types import FILE_TYPES
from quantlab.methods._gguf import planned as _gguf

gguf = pytest.importorskip("gguf", exc_type=ImportError)
pytest.importorskip("llama_cpp", exc_type=ImportError)

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 17,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": False,
}
MODELS = {
    "four queries per key": LLAMA,
    "two queries per key, tied": (
        LLAMA | {"num_key_value_heads": 4, "tie_word_embeddings": True, "num_hidden_layers": 16}
    ),
    "odd rows": LLAMA | {"hidden_size": 288, "num_attention_heads": 9, "num_key_value_heads": 3},
    "rows of 48": (
        LLAMA
        | {
            "hidden_size": 48,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "num_hidden_layers": 3,
        }
    ),
    "70B": LLAMA | {"num_hidden_layers": 80, "vocab_size": 64},
    "eight experts": (
        LLAMA
        | {
            "model_type": "mixtral",
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 9,
        }
    ),
    "four experts": (
        LLAMA
        | {
            "model_type": "mixtral",
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 9,
        }
    ),
}
NAMES = {
    "embed_tokens": "token_embd",
    "lm_head": "output",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
} | {
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
TYPES = [name for name in FILE_TYPES if _ggml.known(name) and name not in ("F32", "F16", "BF16")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from planning.gguf_files import write

    folder = tmp_path_factory.mktemp("gguf")
    return {name: write(folder / f"{i}.gguf", config) for i, (name, config) in enumerate(MODELS.items())}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("file_type", TYPES)
def test_every_tensor_gets_llama_cpps_type(model: str, file_type: str, files: dict[str, Path]) -> None:
    from planning.gguf_files import dry_run

    planned: collections.Counter[tuple[str, str]] = collections.Counter()
    for part in _gguf.parts(estimate(MODELS[model], "an ordinary decoder"), file_type):
        if part.matrix.role != "router" and part.kind != "F16":  # llama.cpp leaves rows of 48 as they are
            name = NAMES[part.matrix.name.rpartition(".")[2]] + (
                "_exps" if part.matrix.role == "expert" else ""
            )
            planned[name, part.kind] += 1
    assert planned == dry_run(files[model], file_type)


def test_the_sizes_of_blocks_are_those_of_the_gguf_package() -> None:
    sizes = {kind.name: size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert {name: sizes[name] for name in _ggml.BLOCKS} == _ggml.BLOCKS
