"""Bytes of checkpoints: those that the committed example really has, published sizes, and what stays in 16
bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantlab import methods
from quantlab.architecture.counts import count, stated
from quantlab.architecture.parameters import ParameterCount
from quantlab.architecture.weight_bytes import WeightBytes
from quantlab.catalogue.config import known_config, known_configs
from quantlab.errors import QuantlabError
from quantlab.names import Variant, parse_variant
from quantlab.planning.weights import weight_bytes
from quantlab.recipe import read_recipe
from quantlab.records import QuantizeRecord

ROOT = Path(__file__).parents[2]
EXAMPLE = sorted((ROOT / "reports/examples/smollm2/data").glob("*/quantize.json"))
PAIRS = [(name, bits) for name in methods.names() for bits in methods.load(name).bits]


def of(alias: str) -> ParameterCount:
    known = known_config(alias)
    assert known is not None
    return count(known.config)


def planned(alias: str, method: str, bits: int, **settings: Any) -> WeightBytes:
    found = weight_bytes(of(alias), method, bits, methods.settings_of(Variant(method, bits), settings))
    assert found is not None
    return found


def test_the_example_has_checkpoints_of_most_methods() -> None:
    assert {parse_variant(path.parent.name).method for path in EXAMPLE} >= {
        "awq",
        "baseline",
        "bitsandbytes",
        "gguf",
        "gptq",
    }


@pytest.mark.parametrize("path", EXAMPLE, ids=lambda path: path.parent.name)
def test_the_examples_checkpoints_have_the_planned_bytes(path: Path) -> None:
    record = QuantizeRecord.model_validate_json(path.read_text())
    variant = parse_variant(record.variant)
    settings = methods.settings_in(read_recipe(ROOT / "recipes/smollm2.yaml"), variant)
    found = weight_bytes(of("smollm2"), variant.method, variant.bits, settings)
    assert found is not None
    assert record.stored_bytes is not None
    # only bitsandbytes' descriptions of its types, a few bytes each, have no fixed length
    assert abs(found.bytes_total - record.stored_bytes) <= (
        0.00001 * record.stored_bytes if variant.method == "bitsandbytes" else 0
    )
    assert found.bits_per_weight == pytest.approx(record.bits_per_weight, rel=1e-5)
    if record.quantized_bits_per_weight is None:
        assert found.quantized_bits_per_weight is None
    else:
        assert found.quantized_bits_per_weight == pytest.approx(record.quantized_bits_per_weight, rel=1e-5)


@pytest.mark.parametrize(
    ("file_type", "bits_per_weight"),
    [("Q2_K", 3.159), ("Q3_K_S", 3.643), ("Q4_K_M", 4.894), ("Q5_K_M", 5.704)],
)
def test_an_8b_has_the_bits_that_llama_cpp_publishes(file_type: str, bits_per_weight: float) -> None:
    """llama.cpp, tools/quantize/README.md: Llama 3.1 8B."""
    assert planned("llama-3.1-8b", "gguf", 4, type=file_type).bits_per_weight == pytest.approx(
        bits_per_weight, abs=0.001
    )


def test_a_published_70b_awq_has_the_planned_bytes() -> None:
    assert planned("llama-3.1-70b", "awq", 4).bytes_total == pytest.approx(
        39.77e9, rel=1e-3
    )  # the files of a release


@pytest.mark.parametrize("alias", known_configs())
def test_every_method_has_bytes_for_every_model_and_fewer_bits_are_fewer_bytes(alias: str) -> None:
    model, sizes = of(alias), {}
    for method, bits in PAIRS:
        found = weight_bytes(model, method, bits)
        assert found is not None
        assert found.bytes_total == found.bytes_quantized + found.bytes_unquantized
        assert 0 <= found.expert_bytes <= found.bytes_total
        assert (found.expert_bytes > 0) == (model.experts > 0)
        sizes[method, bits] = found.bytes_total
    for method in methods.names():
        widths = [sizes[method, bits] for bits in sorted(methods.load(method).bits)]
        assert widths == sorted(widths)
        assert len(set(widths)) == len(widths)
    assert sizes["baseline", 16] == 2 * model.total + model.buffer_bytes


def test_a_method_without_the_width_has_no_bytes() -> None:
    assert weight_bytes(of("smollm2"), "awq", 2) is None
    with pytest.raises(QuantlabError, match="unknown method"):
        weight_bytes(of("smollm2"), "gtpq", 4)


def test_a_gguf_type_without_known_blocks_is_refused() -> None:
    with pytest.raises(QuantlabError, match="TQ1_0"):
        planned("smollm2", "gguf", 2, type="TQ1_0")


def test_smaller_groups_take_more_bytes_and_a_whole_row_the_fewest() -> None:
    sizes = [planned("llama-3.1-8b", "gptq", 4, group_size=size).bytes_total for size in (32, 64, 128, -1)]
    assert sizes == sorted(sizes, reverse=True)


def test_double_quantization_saves_about_what_its_paper_says() -> None:
    """Dettmers et al. 2023: 0.37 bits per weight."""
    with_, without = (
        planned("llama-3.1-8b", "bitsandbytes", 4, double_quantization=d).quantized_bits_per_weight
        for d in (True, False)
    )
    assert with_ is not None
    assert without is not None
    assert without - with_ == pytest.approx(0.373, abs=0.002)


def test_small_gates_of_linear_attention_stay_in_sixteen_bits_under_gptq() -> None:
    model = of("qwen3.5-27b")
    gates = sum(m.parameters for m in model.tensors if m.name.endswith(("in_proj_a", "in_proj_b")))
    linears = model.by_role["linear"]
    found = planned("qwen3.5-27b", "gptq", 4)
    assert found.bytes_unquantized == 2 * (model.total - linears + gates)


def test_experts_stay_in_sixteen_bits_under_bitsandbytes_and_it_says_so() -> None:
    found, baseline = planned("mixtral-8x7b", "bitsandbytes", 4), planned("mixtral-8x7b", "baseline", 16)
    assert found.expert_bytes == baseline.expert_bytes
    assert found.bytes_total > 0.9 * baseline.bytes_total
    assert any("Experts stay" in note for note in found.notes)


def test_a_group_that_does_not_divide_the_rows_is_named() -> None:
    assert any("576" in note for note in planned("smollm2", "gptq", 4).notes)
    assert planned("smollm2", "gptq", 4, group_size=32).notes == ()


def test_a_stated_number_takes_another_models_bits_and_says_so() -> None:
    found = weight_bytes(stated(72_000_000_000), "gptq", 4)
    assert found is not None
    assert found.how == "analogy"
    assert found.bits_per_weight == planned("llama-3.1-70b", "gptq", 4).bits_per_weight
    assert found.bytes_total == round(72e9 * found.bits_per_weight / 8)
    assert "llama-3.1-70b" in found.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4])
def test_bitsandbytes_stores_a_tiny_model_of_experts_as_planned(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, MixtralConfig

    from quantlab.architecture._meta_count import answer
    from quantlab.formats import stored

    sizes = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 512,
    }
    config = MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=4)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "source")
    loading = BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
    )
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "source", quantization_config=loading, device_map={"": "cpu"}, dtype=torch.bfloat16
    )
    model.save_pretrained(tmp_path / "packed")
    real = sum(t.bytes for t in stored.safetensors(tmp_path / "packed"))
    counted = ParameterCount.model_validate(answer(config.to_dict())["count"])
    found = weight_bytes(counted, "bitsandbytes", bits)
    assert found is not None
    assert abs(found.bytes_total - real) < 20 * 8  # the descriptions' lengths
