"""Config.json files as they are found: nested, abridged, quantized, wrong."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.architecture.shape import read_architecture
from quantlab.errors import QuantlabError

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


def test_a_plain_config_is_read_with_certainty() -> None:
    found = read_architecture(LLAMA)
    assert found.kinds == {"full": 4}
    assert (
        found.layers[0].kv_heads,
        found.layers[0].key_dim,
        found.max_context,
        found.certain,
        found.doubts,
    ) == (2, 64, 2048, True, ())


def test_absent_key_value_heads_are_the_attention_heads() -> None:
    assert read_architecture({k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}).kv_heads == 8


def test_a_nested_text_config_is_read_with_what_stands_beside_it() -> None:
    outer = {
        "model_type": "llava",
        "text_config": LLAMA,
        "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 64},
    }
    found = read_architecture(outer)
    assert found.model_type == "llama"
    assert found.stored and (found.stored.method, found.stored.bits, found.stored.group_size) == (
        "gptq",
        4,
        64,
    )


def test_a_text_config_without_a_type_takes_the_outer_one() -> None:
    inner = {k: v for k, v in LLAMA.items() if k != "model_type"} | {"head_dim": 64, "sliding_window": 128}
    found = read_architecture({"model_type": "gemma3", "text_config": inner})
    assert (found.model_type, found.kinds) == ("gemma3_text", {"sliding": 4})


def test_an_unknown_architecture_is_a_guess_and_says_so() -> None:
    found = read_architecture(LLAMA | {"model_type": "novel_net"})
    assert not found.certain
    assert "novel_net" in found.doubts[0]
    assert found.kinds == {"full": 4}


def test_an_unknown_kind_of_layer_is_a_guess_and_says_so() -> None:
    found = read_architecture(
        LLAMA | {"layer_types": ["full_attention", "holographic", "full_attention", "full_attention"]}
    )
    assert not found.certain
    assert any("holographic" in doubt for doubt in found.doubts)


def test_names_of_older_configs_are_known() -> None:
    found = read_architecture(
        {"model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 100, "n_positions": 128}
    )
    assert (found.hidden_size, len(found.layers), found.max_context, found.kv_heads) == (64, 3, 128, 4)


@pytest.mark.parametrize(
    ("config", "stored"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ("fp8", 8)),
        ({"quant_method": "mxfp4"}, ("mxfp4", 4)),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ("bitsandbytes", 4)),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 128}, ("awq", 4)),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}},
            },
            ("compressed-tensors", 4),
        ),
    ],
)
def test_quantized_releases_are_recognized(config: dict[str, Any], stored: tuple[str, int]) -> None:
    found = read_architecture(LLAMA | {"quantization_config": config}).stored
    assert found and (found.method, found.bits) == stored


def test_a_quantized_release_of_unknown_width_is_a_doubt() -> None:
    found = read_architecture(LLAMA | {"quantization_config": {"quant_method": "secret"}})
    assert found.stored is None
    assert any("secret" in doubt for doubt in found.doubts)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": -3}, "num_hidden_layers is -3"),
        ({"num_hidden_layers": 10**8}, "num_hidden_layers"),
        ({"hidden_size": 10**15}, "hidden_size"),
        ({"hidden_size": "large"}, "hidden_size is 'large'"),
        ({"hidden_size": 512.5}, "whole number"),
        ({"hidden_size": float("nan")}, "hidden_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"num_key_value_heads": 3}, "cannot be divided by num_key_value_heads"),
        ({"num_key_value_heads": 16}, "cannot be divided by num_key_value_heads"),
        ({"num_attention_heads": 7, "num_key_value_heads": 7}, "cannot be divided by num_attention_heads"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 elements"),
        ({"layer_types": "full_attention"}, "a list"),
        ({"num_experts": 4, "num_experts_per_tok": 9}, "more than its 4 experts"),
    ],
)
def test_missing_and_contradictory_fields_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(QuantlabError) as caught:
        read_architecture(LLAMA | change)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{}, [], None, "llama", {"text_config": {}}])
def test_what_is_no_config_is_refused(config: Any) -> None:
    with pytest.raises(QuantlabError):
        read_architecture(config)


_GEMMA = {
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "model_type": "gemma3_text",
    "num_hidden_layers": 34,
    "sliding_window": 1024,
}


def test_sizes_that_a_config_leaves_out_are_its_class_s_and_named() -> None:
    found = read_architecture({"model_type": "gemma3", "text_config": _GEMMA})
    assert (found.attention_heads, found.kv_heads, found.layers[0].key_dim, found.vocab_size) == (
        8,
        4,
        256,
        262208,
    )
    assert (found.kinds, found.certain) == ({"sliding": 29, "full": 5}, True)
    assert sum("leaves out" in doubt for doubt in found.doubts) == 2
    large = _GEMMA | {
        "num_hidden_layers": 62,
        "hidden_size": 5376,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
    }
    assert read_architecture({"model_type": "gemma3", "text_config": large}).vocab_size == 262208


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers"])
def test_a_config_of_its_own_without_width_or_depth_is_no_model_s(key: str) -> None:
    short = {k: v for k, v in LLAMA.items() if k != key}
    with pytest.raises(QuantlabError, match=f"lacks {key}"):
        read_architecture(short)
    assert read_architecture({"model_type": "llava", "text_config": short}).certain


def test_an_unknown_architecture_has_no_sizes_to_take() -> None:
    with pytest.raises(QuantlabError, match="lacks vocab_size"):
        read_architecture({k: v for k, v in LLAMA.items() if k != "vocab_size"} | {"model_type": "novel_net"})


def test_experts_of_a_token_may_differ_between_layers() -> None:
    config = LLAMA | {"model_type": "hunyuan_v1_moe", "num_experts": 16}
    equal, mixed = (
        read_architecture(config | {"moe_topk": chosen}) for chosen in ([8, 8, 8, 8], [1, 8, 8, 4])
    )
    assert (equal.experts_per_token, mixed.experts_per_token) == (8, 8)
    assert [any("differs between layers" in doubt for doubt in found.doubts) for found in (equal, mixed)] == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "compressed-tensors", "config_groups": {"W8A8": ["Linear"]}},
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": "four"}}},
        },
    ],
)
def test_groups_that_do_not_give_bits_are_a_doubt(quantization: dict[str, Any]) -> None:
    found = read_architecture(LLAMA | {"quantization_config": quantization})
    assert found.stored is None
    assert any("to how many bits" in doubt for doubt in found.doubts)


def test_a_list_of_modules_that_is_none_is_a_doubt() -> None:
    config = {"quant_method": "gptq", "bits": 4, "modules_to_not_convert": 5}
    found = read_architecture(LLAMA | {"quantization_config": config})
    assert found.stored and found.stored.kept == ()
    assert any("is 5: it is read as empty" in doubt for doubt in found.doubts)
    one = read_architecture(
        LLAMA | {"quantization_config": config | {"modules_to_not_convert": "lm_head"}}
    ).stored
    assert one and one.kept == ("lm_head",)


def test_ratios_that_are_no_numbers_are_a_guess() -> None:
    found = read_architecture(LLAMA | {"compress_ratios": [[1]] * 4})
    assert (found.kinds, found.certain) == ({"full": 4}, False)
