"""Which layer is of which type where config.json does not say: the rules equal the layouts of transformers'
config classes."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.architecture.fields import families
from quantlab.architecture.schedules import DEPTHS, expand, fit
from quantlab.architecture.shape import read_architecture

_SIZES: dict[str, Any] = {
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 1000,
    "num_hidden_layers": 24,
}
_OTHER_DEPTHS = (17, 36, 50)
"""None of the depths that the rules were derived at."""


def _read(family: str, **fields: Any) -> Any:
    return read_architecture({"model_type": family, **_SIZES, **fields})


@pytest.mark.parametrize(
    ("family", "kinds"),
    [
        ("cwm", {"full": 6, "sliding": 18}),
        ("afmoe", {"sliding": 18, "full": 6}),
        ("beam", {"sliding": 20, "full": 4}),
        ("flint", {"full": 8, "sliding": 16}),
        ("laguna", {"full": 24}),
        ("dots1", {"full": 24}),
        ("modernbert-decoder", {"full": 8, "sliding": 16}),
        ("olmo_hybrid", {"delta_net": 18, "full": 6}),
        ("granitemoehybrid", {"mamba": 24}),
        ("kimi_linear", {"mamba": 19, "mla": 5}),
        ("lfm3", {"conv": 13, "full": 6, "sliding": 5}),
        ("minimax", {"full": 12, "mamba": 12}),
        ("gemma3_text", {"sliding": 20, "full": 4}),
    ],
)
def test_the_class_lays_out_what_config_json_does_not_list(family: str, kinds: dict[str, int]) -> None:
    found = _read(family)
    assert (found.kinds, found.certain) == (kinds, True)


def test_a_field_sets_the_period() -> None:
    assert _read("afmoe", global_attn_every_n_layers=8).kinds == {"sliding": 21, "full": 3}
    assert _read("gemma3_text", sliding_window_pattern=2).kinds == {"sliding": 12, "full": 12}
    assert _read("qwen3_next", full_attention_interval=6).kinds == {"delta_net": 20, "full": 4}
    assert _read("modernbert-decoder", global_attn_every_n_layers=2).layers[0].kind == "full"


def test_layers_slide_from_the_named_one_on() -> None:
    assert _read("dots1", max_window_layers=20).kinds == {"full": 20, "sliding": 4}
    assert _read("qwen2", max_window_layers=20).kinds == {"full": 24}
    assert _read("qwen2", max_window_layers=20, use_sliding_window=True, sliding_window=64).kinds == {
        "full": 20,
        "sliding": 4,
    }


def test_a_window_of_both_directions_is_halved() -> None:
    assert {layer.window for layer in _read("modernbert-decoder", local_attention=96).layers} == {None, 48}


def test_a_state_that_is_not_known_is_the_largest_where_nothing_is_listed() -> None:
    bare, listed = _read("bailing_hybrid"), _read("bailing_hybrid", layer_types=["linear_attention"] * 24)
    assert (bare.kinds, bare.certain) == ({"mla": 24}, False)
    assert (listed.kinds, listed.certain) == ({"none": 24}, False)


@pytest.mark.parametrize(
    ("family", "fields"),
    [("qwen2_moe", {"use_sliding_window": True, "sliding_window": 64}), ("nemotron_h", {})],
)
def test_a_layout_without_a_rule_is_read_as_the_largest_and_says_so(
    family: str, fields: dict[str, Any]
) -> None:
    found = _read(family, **fields)
    assert (found.kinds, found.certain) == ({"full": 24}, False)
    assert any("does not list its layers' types" in doubt for doubt in found.doubts)


def test_lists_of_older_configs_are_read() -> None:
    assert _read("lfm2", full_attn_idxs=[2, 5]).kinds == {"conv": 22, "full": 2}
    old = _read("minimax_text_01", attn_type_list=[0, 0, 0, 0, 0, 0, 0, 1] * 3)
    assert (old.kinds, old.layers[7].kind) == ({"mamba": 21, "full": 3}, "full")


def test_fit_finds_the_shortest_rule_and_refuses_what_has_none() -> None:
    wanted = {"period": ["a", "b", "b"], "first": ["c"], "last": ["d"]}
    assert fit({n: expand(wanted, n) for n in DEPTHS}) == wanted
    assert fit({n: ["a"] * (n // 2) + ["b"] * (n - n // 2) for n in DEPTHS}) == {}


@pytest.mark.slow
def test_every_layout_equals_the_class_s_own() -> None:
    from transformers import CONFIG_MAPPING

    from quantlab.architecture._families import layout

    compared = set()
    for name, family in families().items():
        if not family.get("schedule"):
            continue
        for depth in _OTHER_DEPTHS:
            own = layout(CONFIG_MAPPING[name], depth)
            assert own is not None, name
            assert expand(family["schedule"], depth) == own, (name, depth)
            bare, listed = (
                _read(name, num_hidden_layers=depth),
                _read(name, num_hidden_layers=depth, layer_types=own),
            )
            if not any("it is left out" in doubt for doubt in listed.doubts):
                assert bare.layers == listed.layers, (name, depth)
                compared.add(name)
    assert len(compared) > 45


@pytest.mark.slow
def test_a_class_with_a_layout_has_a_rule_or_says_that_it_has_none() -> None:
    from transformers import CONFIG_MAPPING

    from quantlab.architecture._families import layout

    assert [
        name
        for name, family in families().items()
        if "schedule" not in family and layout(CONFIG_MAPPING[name], 24)
    ] == []


@pytest.mark.slow
def test_defaults_are_those_of_the_classes() -> None:
    from transformers import CONFIG_MAPPING

    from quantlab.architecture._families import defaults

    for name, family in families().items():
        assert {k: v for k, v in family.items() if k not in ("schedule", "checked")} == defaults(
            CONFIG_MAPPING[name]
        ), name
