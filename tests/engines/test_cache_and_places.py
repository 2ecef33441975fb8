"""The transformers engine's cache types and places: a tiny model whose bytes can be counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from quantlab.engines._transformers import placement as _placement
from quantlab.engines._transformers.cache import new_cache
from quantlab.engines.transformers import TransformersEngine
from quantlab.errors import CellFailure

LAYERS, HEADS, WIDTH, VOCABULARY = 3, 2, 16, 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama in float32, its head not tied, with any tokenizer."""
    path = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY,
    }
    config = LlamaConfig(
        **sizes,
        num_hidden_layers=LAYERS,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ids() -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, VOCABULARY, (2, 100))


def _engine(folder: Path, **settings: Any) -> TransformersEngine:
    return TransformersEngine(folder, folder, settings.pop("device", "cpu"), **settings)


def test_an_fp8_cache_has_a_quarter_of_float32s_bytes(folder: Path, ids: NDArray[np.int64]) -> None:
    held = []
    for cache in (None, "fp8"):
        engine = _engine(folder, cache=cache)
        engine.prefill(ids)
        engine.decode(5)
        held.append(engine.memory().kv_cache_bytes)
        assert engine.cache_dtype == (cache or "float32") and engine.memory().state_bytes == 0
    whole = 2 * LAYERS * HEADS * WIDTH * ids.shape[0] * (ids.shape[1] + 5) * 4
    assert held[0] == whole and whole / 4 <= held[1] <= whole / 4 + 2 * LAYERS * 8  # a scale for each


def test_logits_go_through_the_quantized_cache(folder: Path, ids: NDArray[np.int64]) -> None:
    plain, small = _engine(folder), _engine(folder, cache="fp8")
    exact, found = plain.logits(ids[0]), small.logits(ids[0])
    assert found.shape == exact.shape
    first = np.abs(found[:32] - exact[:32]).max()
    later = np.abs(found[32:] - exact[32:]).max()
    assert first < 1e-4 < later < np.abs(exact).max()
    # the same keys and values that a decode reads: the logits of the last token are those after a prefill in
    # chunks
    assert (found.argmax(-1) == exact.argmax(-1)).mean() > 0.7


@pytest.mark.parametrize(("cache", "package"), [("hqq4", "hqq"), ("quanto4", "optimum-quanto")])
def test_a_missing_package_is_named_when_the_checkpoint_opens(folder: Path, cache: str, package: str) -> None:
    from transformers.utils import is_hqq_available, is_optimum_quanto_available

    if {"hqq": is_hqq_available(), "optimum-quanto": is_optimum_quanto_available()}[package]:
        pytest.skip(f"{package} is installed")
    with pytest.raises(CellFailure, match=f"pip install {package}") as raised:
        _engine(folder, cache=cache)
    assert raised.value.kind == "not_installed" and new_cache(None, None) is None


def test_what_does_not_fit_lies_on_the_disk_and_gives_the_same(
    folder: Path, ids: NDArray[np.int64], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = 4 * (2 * 64 * 64 + 2 * 64 * HEADS * WIDTH + 3 * 64 * 128 + 2 * 64)
    limit = 4 * 2 * VOCABULARY * 64 + 2 * layer
    monkeypatch.setattr(_placement, "_limits", lambda device: {"cpu": limit})
    engine, whole = _engine(folder, device="cpu,disk"), _engine(folder)
    places = engine.memory().by_device
    assert set(places) == {"cpu", "disk"} and places["disk"] >= layer and not whole.memory().by_device
    assert sum(places.values()) == pytest.approx(whole.memory().weights_bytes, rel=0.01)
    assert np.allclose(engine.logits(ids[0]), whole.logits(ids[0]), atol=1e-4)
    engine.prefill(ids)
    engine.decode(2)
    assert (
        engine.memory().kv_cache_bytes == 2 * LAYERS * HEADS * WIDTH * ids.shape[0] * (ids.shape[1] + 2) * 4
    )


def test_the_disk_is_used_only_where_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_placement, "_limits", lambda device: {"cpu": 100_000})
    monkeypatch.setattr(
        _placement,
        "parse_places",
        lambda device: type("P", (), {"several": True, "disk": False, "first": "cpu"})(),
    )
    with pytest.raises(CellFailure, match="name more places") as raised:
        _engine(folder, device="cpu")
    assert raised.value.kind == "does_not_fit"


def test_what_a_decode_reads(folder: Path) -> None:
    engine = _engine(folder)
    tensors = dict(engine.model.named_parameters())
    embedding = tensors["model.embed_tokens.weight"].nbytes
    assert engine.weight_reads().always_bytes == engine.memory().weights_bytes - embedding
    engine.model.lm_head.weight = engine.model.model.embed_tokens.weight  # tied: the whole of it is the head
    assert engine.weight_reads().always_bytes == engine.memory().weights_bytes


def test_experts_are_counted_apart(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    from quantlab.engines._transformers.inside import reads_of

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 64,
    }
    model = MixtralForCausalLM(
        MixtralConfig(**sizes, num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2)
    )
    reads = reads_of(model)
    assert (reads.experts, reads.experts_per_token) == (
        4,
        2,
    ) and reads.expert_bytes == 2 * 4 * 3 * 32 * 64 * 4
    assert reads.per_step(1) == reads.always_bytes + reads.expert_bytes // 2


def test_recurrent_states_are_no_key_value_cache() -> None:
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    from quantlab.engines._transformers.cache import cache_bytes

    sizes = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "vocab_size": 64,
    }
    linear = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    }
    layers = {
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "mlp_only_layers": [0, 1],
        "num_experts": 0,
    }
    model = Qwen3NextForCausalLM(Qwen3NextConfig(**sizes, **linear, **layers)).eval()
    held = []
    with torch.inference_mode():
        for length in (20, 40):
            held.append(
                cache_bytes(model(torch.zeros((1, length), dtype=torch.long), use_cache=True).past_key_values)
            )
    assert (
        held[0].kv_cache_bytes == 2 * 1 * 32 * 20 * 4 and held[1].kv_cache_bytes == 2 * held[0].kv_cache_bytes
    )
    assert held[0].state_bytes == held[1].state_bytes >= 4 * 16 * 16 * 4
