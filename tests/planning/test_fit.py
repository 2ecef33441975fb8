"""Fit: what follows from the parts, and relations between rigs, methods and workloads."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.architecture.counts import count, stated
from quantlab.architecture.shape import read_architecture
from quantlab.catalogue.config import known_config
from quantlab.catalogue.gpu import GpuSet, GpuSpec, find_gpu, parse_gpus
from quantlab.errors import QuantlabError
from quantlab.planning.activations import activation_bytes, llama_activation_bytes
from quantlab.planning.calibration import calibration
from quantlab.planning.fit import ModelPlan, PlannedWorkload, RigPlan, plan_model, wanted_variants
from quantlab.planning.plan_tables import by_size, notes, rig_tables
from quantlab.planning.rig import tensor_parallel_sizes
from quantlab.planning.roofline import decode_ceiling, weight_reads
from quantlab.planning.weights import weight_bytes


def config(alias: str) -> dict[str, Any]:
    found = known_config(alias)
    assert found is not None
    return found.config


def plan(alias: str, rig: str, *methods: str, **workload: Any) -> ModelPlan:
    return plan_model(
        config(alias),
        name=alias,
        rigs=[parse_gpus(rig)],
        methods=methods,
        workload=PlannedWorkload(**workload),
    )


def only(found: ModelPlan) -> RigPlan:
    (variant,) = found.variants
    (rig,) = variant.rigs
    return rig


def test_a_total_is_the_sum_of_its_parts() -> None:
    rig = only(plan("llama-3.1-8b", "rtx-4090", "gptq-4", batch=3))
    assert rig.total_bytes == rig.weights_bytes + rig.cache_bytes + rig.activation_bytes + rig.overhead_bytes
    assert rig.total_high_bytes - rig.total_bytes == rig.overhead_high_bytes - rig.overhead_bytes
    assert rig.cache_bytes == 3 * 1_073_741_824


@pytest.mark.parametrize(
    ("alias", "rig", "variant", "verdict"),
    [
        ("llama-3.1-8b", "rtx-4090", "gptq-4", "fits"),
        ("llama-3.1-70b", "h100", "baseline-16", "no"),
        ("llama-3.1-70b", "h100:4", "baseline-16", "fits"),
        ("deepseek-v4-pro", "h100:8", "gptq-4", "no"),
    ],
)
def test_verdicts_that_nobody_doubts(alias: str, rig: str, variant: str, verdict: str) -> None:
    found = only(plan(alias, rig, variant))
    assert found.verdict == verdict
    assert (found.spare_bytes >= 0) == found.fits


def test_the_largest_context_and_batch_fit_and_the_next_do_not() -> None:
    rig = only(plan("llama-3.1-8b", "rtx-4090", "gptq-8", context_tokens=32768))
    assert 32768 < rig.largest_context_tokens < 131072

    def verdict(tokens: int, batch: int) -> str:
        return only(plan("llama-3.1-8b", "rtx-4090", "gptq-8", context_tokens=tokens, batch=batch)).verdict

    assert verdict(rig.largest_context_tokens, 1) == verdict(32768, rig.largest_batch) == "fits"
    assert verdict(rig.largest_context_tokens + 1, 1) == "tight"
    assert verdict(32768, rig.largest_batch + 1) != "fits"


def test_the_smallest_set_is_the_smallest() -> None:
    found = plan_model(config("llama-3.1-70b"), name="l", methods=["baseline", "gptq-4"])
    for variant in found.variants:
        for rig in variant.rigs:
            assert rig.verdict == "fits"
            if rig.gpus > 1:
                half = plan("llama-3.1-70b", f"{rig.gpu}:{rig.gpus // 2}", variant.slug)
                assert only(half).verdict != "fits"
    sizes = {variant.slug: {rig.gpu: rig.gpus for rig in variant.rigs} for variant in found.variants}
    assert all(sizes["gptq-4"][gpu] <= size for gpu, size in sizes["baseline-16"].items())


def test_sets_divide_the_heads() -> None:
    assert tensor_parallel_sizes(read_architecture(config("qwen3.5-27b"))) == (1, 2, 4, 8)  # 24 heads
    assert tensor_parallel_sizes(read_architecture(config("smollm2"))) == (1,)  # 9 heads
    assert (
        only(plan("smollm2", "h100:2", "gptq-4"))
        .notes[0]
        .startswith("9 attention heads cannot be split over 2 GPUs")
    )


def test_ceilings_of_the_worked_examples() -> None:
    assert only(
        plan("llama-3.1-8b", "h100", "baseline-16")
    ).decode_ceiling_tokens_per_second == pytest.approx(208, abs=1)
    assert only(plan("qwen3.5-27b", "rtx-5090", "gptq-4")).decode_ceiling_tokens_per_second == pytest.approx(
        113, abs=1
    )


def test_batches_share_the_weights_until_arithmetic_is_the_limit() -> None:
    one, eight, many = (
        only(plan("llama-3.1-8b", "b200", "baseline-16", batch=b, context_tokens=64)) for b in (1, 8, 4096)
    )
    assert (
        one.decode_ceiling_tokens_per_second
        and eight.decode_ceiling_tokens_per_second
        and many.decode_ceiling_tokens_per_second
    )
    assert (
        one.decode_ceiling_tokens_per_second
        < eight.decode_ceiling_tokens_per_second
        < 8 * one.decode_ceiling_tokens_per_second
    )
    peak = 2250e12 / (2 * count(config("llama-3.1-8b")).active_without_embedding)
    assert many.decode_ceiling_tokens_per_second <= peak * 1.0001


def test_experts_that_no_token_passes_are_not_read() -> None:
    counted = count(config("mixtral-8x7b"))
    weights = weight_bytes(counted, "baseline", 16)
    assert weights is not None
    reads = weight_reads(weights, counted)
    one, many = reads.per_step(1), reads.per_step(1000)
    assert one == pytest.approx(2 * counted.active_without_embedding, rel=1e-3)
    assert many == pytest.approx(weights.bytes_total - weights.embedding_bytes, rel=1e-6)


def test_a_ceiling_by_hand() -> None:
    h100 = find_gpu("h100")
    assert decode_ceiling(3.35e12, 0, 1, 1, h100, 1, None) == pytest.approx(1)
    assert decode_ceiling(3.35e12, 0, 1, 1, h100, 2, None) == pytest.approx(2)
    assert decode_ceiling(0, 0, 1, 10**12, h100, 1, 1e12) == pytest.approx(0.5)


def test_activations_agree_with_what_was_measured() -> None:
    measured = {"llama-3.1-8b": 0.98e9, "qwen3.5-27b": 2.97e9, "qwen3.5-397b-a17b": 3.8e9}
    for alias, expected in measured.items():
        assert activation_bytes(read_architecture(config(alias)), 8192) == pytest.approx(
            expected, rel=0.02
        ), alias
    assert "8,192" in calibration().activation.source


def test_a_name_without_a_config_is_planned_from_its_size() -> None:
    found = plan_model(
        None,
        name="qwen3.5-72b",
        counted=stated(72 * 10**9),
        rigs=[parse_gpus("h100")],
        methods=["gptq-4", "baseline"],
    )
    gptq, baseline = (variant.rigs[0] for variant in found.variants)
    assert not found.certain
    assert found.cache_bytes_per_sequence is None
    assert (gptq.verdict, baseline.verdict) == ("unknown", "no")


def test_a_name_without_a_config_has_the_smallest_sets_that_hold_its_weights() -> None:
    planned = plan_model(None, name="qwen3.5-72b", counted=stated(72 * 10**9), methods=["gptq-4", "baseline"])
    sets = {
        f"{variant.method}-{variant.bits}": {rig.gpu: rig.gpus for rig in variant.rigs}
        for variant in planned.variants
    }
    assert sets["gptq-4"]["h100-sxm-80gb"] == 1 and sets["baseline-16"]["h100-sxm-80gb"] == 2
    assert all("before its cache: 1 × " in by_size(variant.rigs) for variant in planned.variants)


def test_a_quantized_release_says_so() -> None:
    found = plan_model(
        config("llama-3.1-8b") | {"quantization_config": {"quant_method": "fp8"}},
        name="l",
        methods=["gptq-4"],
        place_gpus=False,
    )
    assert found.stored_as == "fp8 (8 bits)"
    assert any("fp8" in warning for warning in found.warnings)


def test_contexts_beyond_the_models_own_are_warned_of() -> None:
    found = plan("llama-3.1-8b", "h100", "gptq-4", context_tokens=10**15)
    assert any("131,072" in warning for warning in found.warnings)
    assert only(found).verdict == "no"


def test_methods_and_variants_are_named_alike() -> None:
    assert [v.slug for v in wanted_variants(["gptq", "awq-4", "gptq-4"])] == [
        "gptq-8",
        "gptq-4",
        "gptq-3",
        "gptq-2",
        "awq-4",
    ]
    assert len(wanted_variants([])) > 15
    (variant,) = plan("llama-3.1-8b", "h100", "awq-2").variants
    assert variant.weight_bytes is None
    assert "does not offer 2 bits" in variant.reason


@pytest.mark.parametrize(
    "workload",
    [
        {"context_tokens": 0},
        {"batch": 0},
        {"context_tokens": -1},
        {"cache_dtype": "int1"},
        {"policy": "none"},
    ],
)
def test_workloads_that_are_none_are_refused(workload: dict[str, Any]) -> None:
    with pytest.raises(QuantlabError):
        plan("llama-3.1-8b", "h100", "gptq-4", **workload)


def test_unknown_methods_are_refused() -> None:
    for name in ("gtpq", "gtpq-4", "gptq-"):
        with pytest.raises(QuantlabError):
            wanted_variants([name])


def test_llama_cpp_reserves_what_its_logs_name() -> None:
    shape = read_architecture(config("llama-3.1-8b"))
    assert llama_activation_bytes(shape, 8192) == 258.5 * 2**20
    assert llama_activation_bytes(shape, 262_144) >= 768 * 2**20
    assert llama_activation_bytes(shape, 100) < llama_activation_bytes(shape, 512)


def test_an_8_gb_card_is_not_refused_a_model_that_it_runs() -> None:
    card = GpuSpec(name="card", memory_gb=8, usable_gib=8e9 / 2**30, bandwidth_gb_per_second=1)
    found = plan_model(
        config("llama-3.1-8b"), name="l", rigs=[GpuSet(card, 1)], methods=["gguf-4", "gguf-5", "gguf-6"]
    )
    assert [variant.rigs[0].verdict for variant in found.variants] == ["fits", "tight", "no"]


def test_gpus_that_work_in_turn_are_no_faster_than_one() -> None:
    one, two = (only(plan("llama-3.1-8b", rig, "gguf-4")) for rig in ("h100", "h100:2"))
    assert one.decode_ceiling_tokens_per_second == two.decode_ceiling_tokens_per_second
    assert two.cache_bytes * 2 == one.cache_bytes and two.activation_bytes == one.activation_bytes
    assert not any("attention heads" in note for note in only(plan("llama-3.1-8b", "h100:3", "gguf-4")).notes)


def test_the_share_that_vllm_takes_is_judged_apart() -> None:
    assert only(plan("llama-3.1-8b", "h100", "gptq-4")).fits_vllm_share is True
    assert only(plan("llama-3.1-70b", "h100", "gptq-8")).fits_vllm_share is False
    assert only(plan("llama-3.1-8b", "h100", "gguf-4")).fits_vllm_share is None
    assert only(plan("llama-3.1-70b", "h100", "baseline-16")).fits_vllm_share is None
    said = [line for line in notes(plan("llama-3.1-70b", "h100", "gptq-8")) if "vLLM uses 0.92" in line]
    assert len(said) == 1 and "too large for that: gptq-8 on 1 × h100-sxm-80gb" in said[0]


def test_gpus_that_cannot_share_the_heads_hold_whole_layers() -> None:
    one, two, three = (only(plan("llama-3.1-8b", rig, "gptq-4")) for rig in ("h100", "h100:2", "h100:3"))
    assert three.not_parallel and two.not_parallel is None
    assert three.decode_ceiling_tokens_per_second == one.decode_ceiling_tokens_per_second
    assert two.decode_ceiling_tokens_per_second and one.decode_ceiling_tokens_per_second
    assert two.decode_ceiling_tokens_per_second > 1.5 * one.decode_ceiling_tokens_per_second
    assert any("32 attention heads cannot be split over 3 GPUs" in note for note in three.notes)


def test_a_table_names_the_overhead_of_each_engine() -> None:
    (table,) = rig_tables(plan("llama-3.1-8b", "h100", "gguf-4", "gptq-4"))
    assert "an overhead of 1.8–3.5 or 0.3–1.0 in llama.cpp;" in str(table.title)
