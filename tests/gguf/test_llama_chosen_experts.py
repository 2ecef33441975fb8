"""llama.cpp's choices of experts are transformers': groups, a hash table, scores alone, and biases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantlab.analysis.routing import replaced
from quantlab.engines._transformers.experts import watched
from quantlab.engines.llama_cpp import LlamaCppEngine
from quantlab.methods._gguf import converter
from quantlab.models.loading import load_model
from quantlab.models.tiny import write_tiny_model

pytestmark = pytest.mark.slow
IDS = np.random.default_rng(0).integers(3, 1000, 64)
FIRST = 20
FAMILIES = (
    "deepseek_v4",
    *(pytest.param(name, marks=pytest.mark.engines) for name in ("deepseek_v3", "llama4_text", "gpt_oss")),
)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_16_bit_file_sends_tokens_where_transformers_does(family: str, tmp_path: Path) -> None:
    source = write_tiny_model(family, tmp_path / "tiny")
    converter.convert(source, tmp_path / "f16.gguf", tmp_path / "log")
    model: Any = load_model(source, False, dtype=torch.float32).eval()
    with torch.inference_mode(), watched(model) as experts:
        model(input_ids=torch.from_numpy(IDS)[None], use_cache=False)
        expected = experts.take(len(IDS)).by_block
    engine = LlamaCppEngine(tmp_path / "f16.gguf", source, "cpu")
    try:
        found = engine.routed_logits(IDS, FIRST).chosen
    finally:
        engine.close()
    assert found.reason is None and found.by_block.keys() == expected.keys() and expected
    for block, chosen in found.by_block.items():
        assert chosen.shape == (len(IDS) - FIRST, expected[block].shape[1])
        changed = (replaced(expected[block][FIRST:], chosen) > 0).mean()
        assert changed < 0.05, block  # close calls alone


def test_a_model_without_experts_has_none(prepared: Path, open_engine: Any) -> None:
    routed = open_engine(prepared / "f16.gguf").routed_logits(IDS[:32] % 300)
    assert routed.chosen.by_block == {} and routed.chosen.reason is None
