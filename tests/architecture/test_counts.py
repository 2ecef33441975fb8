"""Parameters: the hub's totals, what a count says of a model, the cache, and configs that cannot be
counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quantlab.architecture import _meta_count, counts
from quantlab.architecture.counts import count, stated
from quantlab.architecture.estimate import TRUE_BETWEEN, estimate
from quantlab.architecture.parameters import ParameterCount
from quantlab.catalogue.config import known_config, known_configs
from quantlab.errors import QuantlabError

FACTS = Path(__file__).parents[2].parent / "shared" / "facts" / "models.json"
TOTALS = {
    "llama-3.1-8b": (
        8_030_261_248
    ),  # the sum over the repository's safetensors: model list inside the PyPI package llmfit 1.1.17
    "gemma-3-4b": 4_300_079_472,  # the same, vision tower included
    "qwen3.5-27b": 26_895_998_464,  # the text model of the repository's 27,781,427,952
    "deepseek-v3": 671_026_404_352,
    "deepseek-v4-flash": 284_332_230_231,
    "llama-4-scout": 107_769_861_120,
}
TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "tie_word_embeddings": True,
}


def of(alias: str) -> ParameterCount:
    known = known_config(alias)
    assert known is not None
    return count(known.config)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    return tmp_path / "counts"


@pytest.mark.parametrize("alias", TOTALS)
def test_totals_are_the_releases(alias: str) -> None:
    assert of(alias).total == TOTALS[alias]


@pytest.mark.shared
def test_totals_are_those_of_every_worked_example() -> None:
    if not FACTS.is_file():
        pytest.skip("../shared is not beside the checkout")
    checked = 0
    for model in json.loads(FACTS.read_text())["models"]:
        example = model.get("worked_example")
        if not example:
            continue
        found = count(model["config"]) if "counted" in example else of("gemma-3-4b")
        want = example.get("counted", {"total": example["hub_safetensors_total"]["value"]})
        assert found.total == want["total"], model["id"]
        assert found.active == want.get("active_all", found.active), model["id"]
        assert found.active_without_embedding == want.get(
            "active_no_embed", found.active_without_embedding
        ), model["id"]
        checked += 1
    assert checked >= 6


@pytest.mark.parametrize("alias", known_configs())
def test_roles_and_matrices_add_up(alias: str) -> None:
    found = of(alias)
    assert sum(n for role, n in found.by_role.items() if role != "mtp") == found.total
    matrices = sum(m.parameters for m in found.tensors)
    assert matrices + found.vectors + found.by_role.get("vision", 0) == found.total
    assert found.active <= found.total
    assert found.certain
    for matrix in found.tensors:
        assert matrix.how_many % max(1, len(matrix.layers)) == 0, matrix.name


def test_experts_in_one_tensor_are_linears_of_their_own_shape() -> None:
    gpt = {m.name.rpartition(".")[2]: m for m in of("gpt-oss-20b").tensors if m.role == "expert"}
    assert {(m.out_features, m.in_features, m.how_many) for m in gpt.values()} == {(2880, 2880, 32 * 24)}
    scout = {m.name.rpartition(".")[2]: m for m in of("llama-4-scout").tensors if m.role == "expert"}
    assert (scout["gate_proj"].out_features, scout["gate_proj"].in_features) == (8192, 5120)
    assert (scout["down_proj"].out_features, scout["down_proj"].in_features) == (5120, 8192)


@pytest.mark.parametrize(
    ("alias", "active", "experts", "chosen"),
    [
        ("mixtral-8x7b", 12.9e9, 8, 2),
        ("qwen3.5-397b-a17b", 17e9, 512, 10),
        ("gpt-oss-120b", 5.1e9, 128, 4),
        ("llama-4-maverick", 17e9, 128, 1),
    ],
)
def test_active_parameters_are_about_what_the_release_says(
    alias: str, active: float, experts: int, chosen: int
) -> None:
    found = of(alias)
    assert (found.experts, found.experts_per_token) == (experts, chosen)
    assert min(abs(n / active - 1) for n in (found.active, found.active_without_embedding)) < 0.05


def test_layers_for_multi_token_prediction_are_apart() -> None:
    flash, dense = of("deepseek-v4-flash"), of("llama-3.1-8b")
    # the repository holds 290,944,616,402: the count and one such layer
    assert abs(flash.total + flash.by_role["mtp"] - 290_944_616_402) / 290_944_616_402 < 2e-4
    assert "multi-token" in " ".join(flash.doubts)
    assert "mtp" not in dense.by_role


def test_the_vision_tower_is_named_apart_and_not_active() -> None:
    found = of("gemma-3-4b")
    assert found.by_role["vision"] == 419_816_304
    assert found.active == found.total - found.by_role["vision"]


@pytest.mark.slow
def test_a_count_is_made_once_and_then_read(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = count(TINY)
    linears = 2 * (64 * 64 * 2 + 2 * 32 * 64 + 3 * 64 * 96)
    assert found.total == 128 * 64 + linears + 5 * 64
    assert (found.tied, found.head, found.active_without_embedding) == (True, 0, found.total)
    (stored,) = own_cache.iterdir()
    answer = json.loads(stored.read_text())
    monkeypatch.setattr(counts, "_ask", lambda config: pytest.fail("counted again"))
    assert count({**TINY, "torch_dtype": "bfloat16", "quantization_config": {"bits": 4}}) == found
    stored.write_text(stored.read_text()[:40])  # a run that was killed, or another version's file
    monkeypatch.setattr(counts, "_ask", lambda config: answer)
    assert count(TINY) == found
    assert json.loads(stored.read_text()) == answer


@pytest.mark.slow
@pytest.mark.parametrize("alias", ["qwen3.5-0.8b", "gpt-oss-20b"])
def test_what_ships_is_what_is_counted(alias: str) -> None:
    known = known_config(alias)
    assert known is not None
    assert _meta_count.answer(known.config)["count"] == of(alias).model_dump(mode="json")


def test_counting_a_known_model_imports_no_torch() -> None:
    code = (
        "import sys; from quantlab.architecture.counts import count; from quantlab.catalogue.config import"
        " known_config;count(known_config('qwen3.5-27b').config); print('torch' in sys.modules,"
        " 'transformers' in sys.modules)"
    )
    assert subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split() == ["False", "False"]


@pytest.mark.slow
def test_an_unknown_architecture_is_estimated_and_says_so(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_ask", _meta_count.answer)
    found = count({**TINY, "model_type": "nobody_knows_it"})
    assert not found.certain
    assert found.total == count(TINY).total  # an ordinary decoder is what the estimate takes it for
    assert "nobody_knows_it" in found.doubts[0]


KIMI = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "vocab_size": 128,
    "n_group": 1,
    "topk_group": 1,
}
DBRX = {
    "model_type": "dbrx",
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 2,
    "vocab_size": 128,
    "max_seq_len": 64,
    "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0},
}
JETMOE = {
    "model_type": "jetmoe",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "kv_channels": 16,
    "intermediate_size": 96,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 128,
}


def made(config: dict[str, Any]) -> ParameterCount:
    return ParameterCount.model_validate(_meta_count.answer(config)["count"])


@pytest.mark.slow
def test_a_type_that_transformers_knows_by_another_name_is_counted() -> None:
    kimi, deepseek = made({"model_type": "kimi_k2", **KIMI}), made({"model_type": "deepseek_v3", **KIMI})
    assert (kimi.total, kimi.active, kimi.certain) == (deepseek.total, deepseek.active, True)
    assert "Counted as deepseek_v3" in kimi.doubts[0]
    whole = made({"model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2", **KIMI}})
    assert whole.total == kimi.total and not whole.certain and "vision tower" in whole.doubts[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "routed"),
    [(DBRX, 2 * 4 * 3 * 64 * 96), (JETMOE, 2 * (4 * 3 * 64 * 96 + 4 * 2 * 64 * 32))],
    ids=["dbrx", "jetmoe"],
)
def test_experts_in_tensors_of_their_own_are_recognized(config: dict[str, Any], routed: int) -> None:
    found = made(config)
    assert sum(m.parameters for m in found.tensors if m.role == "expert") == routed
    assert (found.experts, found.experts_per_token, found.certain) == (4, 2, True)
    assert found.active == found.total - found.by_role["expert"] + found.by_role["expert"] // 2
    assert found.by_role["router"] >= 2 * 4 * 64
    assert all(
        (m.out_features, m.in_features) == (64, 96)
        for m in found.tensors
        if m.name.endswith((".w2", "mlp.output_linear.*"))
    )


def test_experts_that_were_not_recognized_are_a_doubt() -> None:
    assert _meta_count._unseen({"num_local_experts": 8}, 0, 0)
    assert _meta_count._unseen({"ffn_config": {"moe_num_experts": 8}}, 0, 0)
    assert _meta_count._unseen({}, 100, 0)
    assert not _meta_count._unseen({"num_local_experts": 8}, 100, 8)
    assert not _meta_count._unseen({"num_experts": 0}, 0, 0)


def test_the_estimates_stated_bound_holds_on_the_catalogue() -> None:
    low, high = TRUE_BETWEEN
    for alias in known_configs():
        known, exact = known_config(alias), of(alias)
        assert known is not None
        guess = estimate(known.config, "for a test")
        assert low < (exact.total - exact.by_role.get("vision", 0)) / guess.total < high, alias
        assert low < exact.active / guess.active < high, alias


ZAMBA = {"model_type": "zamba", "hidden_size": 3712, "num_hidden_layers": 76, "num_attention_heads": 16}
MAMBA2 = {"model_type": "mamba2", "hidden_size": 4096, "num_hidden_layers": 64, "vocab_size": 32768}
GEMMA4 = {"model_type": "gemma4_text", "hidden_size": 2304, "num_hidden_layers": 30, "num_attention_heads": 8}
FAR_OFF: tuple[tuple[dict[str, Any], float], ...] = (
    (MAMBA2 | {"num_heads": 128, "head_dim": 64, "n_groups": 8, "state_size": 128}, 7.285e9),
    (ZAMBA | {"num_key_value_heads": 16, "intermediate_size": 14848, "vocab_size": 32000}, 7.232e9),
    (
        GEMMA4
        | {"num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 9216, "vocab_size": 262144}
        | {"tie_word_embeddings": True},
        5.077e9,
    ),
    (
        {"model_type": "starcoder2", "hidden_size": 3072, "num_hidden_layers": 30, "num_attention_heads": 24}
        | {"num_key_value_heads": 2, "intermediate_size": 12288, "vocab_size": 49152},
        3.03e9,
    ),
)
"""Architectures that the estimate was not fitted on, with the totals that transformers builds: the furthest of
80."""


@pytest.mark.parametrize(("config", "total"), FAR_OFF, ids=lambda value: str(value)[:30])
def test_the_estimates_stated_bound_holds_where_nothing_was_fitted(
    config: dict[str, Any], total: float
) -> None:
    low, high = TRUE_BETWEEN
    guess = estimate(config, "for a test")
    assert low < total / guess.total < high and not guess.certain
    assert "between a third of the estimate and twice it" in guess.doubts[0]


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 0},
        {"num_hidden_layers": -1},
        {"vocab_size": "many"},
        {"num_hidden_layers": 10**9},
        {"num_attention_heads": True},
    ],
    ids=["zero", "negative", "text", "a billion layers", "a truth value"],
)
def test_impossible_sizes_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(QuantlabError, match=r"config") as raised:
        count({**TINY, **change})
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_config_that_leaves_out_its_size_is_not_certain(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_ask", _meta_count.answer)
    found = count({"model_type": "llama", "num_hidden_layers": 2, "vocab_size": 128})
    assert not found.certain
    assert "hidden_size" in " ".join(found.doubts)


def test_an_unknown_architecture_without_sizes_is_refused() -> None:
    with pytest.raises(QuantlabError, match="hidden_size"):
        estimate({"model_type": "nobody_knows_it"}, "for a test")


@pytest.mark.slow
def test_a_contradictory_config_is_refused_in_transformers_words(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_ask", _meta_count.answer)
    with pytest.raises(QuantlabError, match="transformers refuses"):
        count(
            {
                "model_type": "qwen3_5_text",
                **{k: v for k, v in TINY.items() if k != "model_type"},
                "layer_types": ["full_attention"],
            }
        )


def test_a_stated_number_is_never_certain() -> None:
    found = stated(72_000_000_000)
    assert (found.total, found.certain, found.tensors) == (72_000_000_000, False, ())
    for total, active in ((0, None), (10, 11), (-5, None)):
        with pytest.raises(QuantlabError, match="cannot be: both are 1 or more"):
            stated(total, active)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "linears"),
    [
        (
            {
                "model_type": "gpt2",
                "n_embd": 48,
                "n_layer": 2,
                "n_head": 4,
                "vocab_size": 100,
                "n_positions": 16,
            },
            2 * 12 * 48 * 48,
        ),
        (
            {
                "model_type": "mamba",
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "vocab_size": 64,
                "state_size": 4,
            },
            None,
        ),
    ],
    ids=["linears that are no Linear", "no attention"],
)
def test_other_kinds_of_model_are_counted(config: dict[str, Any], linears: int | None) -> None:
    found = ParameterCount.model_validate(_meta_count.answer(config)["count"])
    assert found.certain
    if linears is not None:
        assert (
            found.by_role["linear"]
            == sum(m.parameters for m in found.tensors if m.role == "linear")
            == linears
        )
    assert sum(n for role, n in found.by_role.items() if role != "mtp") == found.total
