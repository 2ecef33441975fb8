"""Candidates: every model, method and width of the catalogue, each figure marked with how it is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantlab.catalogue import entries
from quantlab.catalogue.gpu import parse_gpus
from quantlab.errors import QuantlabError
from quantlab.parsing.amounts import parse_bytes, parse_tokens
from quantlab.planning.fit import PlannedWorkload
from quantlab.recommend.candidates import RELEASED, Hardware, Pool, decode_speed, gather, memory_alone
from quantlab.recommend.choice import choose
from quantlab.recommend.recommendation import serving
from quantlab.recommend.request import Candidate, ModelRequest
from quantlab.records import MeasureRecord, QuantizeRecord, SpeedPoint, SpeedRecord
from quantlab.workspace.results import write_record

POINT = SpeedPoint(
    batch=1,
    context_tokens=0,
    prompt_tokens=16,
    decode_tokens=77,
    prefill_seconds=(1.0,),
    decode_seconds=(1.0,),
)
SPEED = SpeedRecord(kernel="llama.cpp CUDA", dtype="float16", threads=None, load_seconds=1.0, points=(POINT,))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one report: Qwen3.5-9B at 4 and 8 bits, and 4B and 27B at 4 bits, on an RTX 4090."""
    folder = tmp_path_factory.mktemp("reports")
    for model, slugs, parameters in (
        ("qwen3.5-9b", ("gguf-4", "gguf-8", "gguf-4-iq4_xs"), 9),
        ("qwen3.5-4b", ("awq-4",), 4),
        ("stranger", ("gguf-4",), 1),
    ):
        rows = []
        for slug in slugs:
            made = QuantizeRecord(
                model=model, variant=slug, parameters=parameters * 10**9, disk_bytes=6 * 10**9
            )
            write_record(folder, made)
            write_record(
                folder,
                MeasureRecord(model=model, variant=slug, device="NVIDIA GeForce RTX 4090", speed=SPEED),
            )
            wide = 2.0 if slug.endswith("4") else 0.5
            drop = {
                "mean_drop_points": wide / 2,
                "mean_drop_lower_points": -wide,
                "mean_drop_upper_points": wide,
            }
            rows.append({"variant": slug, **drop})
        (folder / "reports" / model / "tables").mkdir()
        (folder / "reports" / model / "tables" / "summary.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def pool(root: Path) -> Pool:
    return gather(root, Hardware(parse_gpus("rtx-4090"), "rtx-4090"), PlannedWorkload(context_tokens=8192))


def find(pool: Pool, model: str, variant: str) -> Candidate:
    return next(c for c in pool.candidates if (c.model, c.variant) == (model, variant))


def test_every_real_model_is_a_candidate_at_every_width(pool: Pool) -> None:
    real = {name for name, entry in entries().items() if entry.exists}
    assert {c.model for c in pool.candidates} | set(pool.left_out) == real | {"stranger"}
    assert "not in the catalogue" in pool.left_out["stranger"]
    assert len({(c.model, c.variant) for c in pool.candidates}) == len(pool.candidates)
    assert {c.variant for c in pool.candidates if c.model == "qwen3.5-27b"} >= {
        "gguf-4",
        "gptq-2",
        "awq-3",
        "fp8-8",
        "baseline-16",
    }


def test_each_figure_says_how_it_is_known(pool: Pool) -> None:
    assert find(pool, "qwen3.5-9b", "gguf-4").drop_points.kind == "measured"
    between = find(pool, "qwen3.5-9b", "gguf-6").drop_points
    assert (between.kind, between.low, between.high) == ("interpolated", -0.5, 2.0)
    assert find(pool, "qwen3.5-27b", "awq-4").drop_points.kind == "estimated"
    assert "smaller sister qwen3.5-4b" in find(pool, "qwen3.5-27b", "awq-4").drop_points.source
    assert find(pool, "qwen3.5-9b", "gguf-4").decode_tokens_per_second[:2] == (77.0, "measured")
    speed = find(pool, "qwen3.5-27b", "gguf-3").decode_tokens_per_second
    assert speed.kind == "estimated" and speed.value is not None and speed.high is not None
    assert speed.value == pytest.approx(0.8 * speed.high) and "roofline" in speed.source


def test_measured_bytes_take_the_place_of_computed_ones(pool: Pool, tmp_path: Path) -> None:
    planned = gather(
        tmp_path, Hardware(parse_gpus("rtx-4090"), "rtx-4090"), PlannedWorkload(context_tokens=8192)
    )
    ours, computed = (find(each, "qwen3.5-9b", "gguf-4").memory_bytes for each in (pool, planned))
    assert "measured in reports/qwen3.5-9b" in ours.source and computed.source == "planned"
    assert ours.value != computed.value
    assert (
        ours.low is not None
        and ours.high is not None
        and computed.low is not None
        and computed.high is not None
    )
    assert ours.high - ours.low == pytest.approx(computed.high - computed.low)


def test_other_settings_at_a_width_are_candidates_where_they_were_measured(pool: Pool) -> None:
    labelled = find(pool, "qwen3.5-9b", "gguf-4-iq4_xs")
    assert labelled.drop_points.kind == "measured" and "measured" in labelled.memory_bytes.source
    assert not [
        c
        for c in pool.candidates
        if c.variant.count("-") > 1 and c.variant != RELEASED and c.model != "qwen3.5-9b"
    ]


def test_a_release_that_is_stored_quantized_is_a_candidate_of_its_own(pool: Pool) -> None:
    stored = {c.model for c in pool.candidates if c.variant == RELEASED}
    assert "deepseek-v4-pro" in stored and "qwen3.5-9b" not in stored
    released, made = find(pool, "deepseek-v4-pro", RELEASED), find(pool, "deepseek-v4-pro", "gguf-8")
    assert released.memory_bytes.value is not None and made.memory_bytes.value is not None
    assert released.memory_bytes.value < made.memory_bytes.value
    assert (
        released.drop_points[:4] == (0.0, "estimated", 0.0, 0.0)
        and "by definition" in released.drop_points.source
    )


def test_a_speed_measured_on_another_device_is_no_speed_of_this_one(root: Path) -> None:
    other = gather(root, Hardware(parse_gpus("h100"), "h100"), PlannedWorkload(context_tokens=8192))
    assert find(other, "qwen3.5-9b", "gguf-4").decode_tokens_per_second.kind == "estimated"
    assert find(other, "qwen3.5-9b", "gguf-4").drop_points.kind == "measured"


def test_without_a_gpu_no_speed_is_known() -> None:
    hardware = memory_alone(parse_bytes("24GB"), "24GB")
    assert hardware.usable_bytes == 24_000_000_000
    assert decode_speed(None, hardware, ()).kind == "unknown"


def test_of_the_fitting_ones_none_is_larger_than_the_gpu(pool: Pool) -> None:
    usable = parse_gpus("rtx-4090").gpu.usable_bytes
    found = choose(ModelRequest(max_memory_bytes=usable, max_drop_points=4.0, certain=True), pool.candidates)
    assert found.ranked
    for each in found.ranked:
        assert each.candidate.memory_bytes.high is not None and each.candidate.memory_bytes.high <= usable
        assert each.candidate.drop_points.high is not None and each.candidate.drop_points.high <= 4.0


@pytest.mark.parametrize(
    ("text", "size"), [("24GB", 24 * 10**9), ("24GiB", 24 * 2**30), (" 1.5 tb", 1_500_000_000_000)]
)
def test_gb_and_gib_are_not_the_same(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["24", "24 bananas", "0GB", "-1GB", "GB", "", "1e999GB"])
def test_memory_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(QuantlabError, match="cannot be an amount of memory"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "tokens"), [("5000M", 5e9), ("5B", 5e9), ("5g", 5e9), ("12", 12.0), ("1.5k", 1500.0)]
)
def test_tokens_are_in_powers_of_1000(text: str, tokens: float) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["0", "many", "-3M", "nan", "inf", "5 Mio"])
def test_no_number_of_tokens_is_refused(text: str) -> None:
    with pytest.raises(QuantlabError, match="cannot be a number of tokens"):
        parse_tokens(text)


def test_a_release_in_its_own_format_is_offered_and_heads_that_do_not_divide_are_said(root: Path) -> None:
    found = gather(root, Hardware(parse_gpus("h100:3"), "3 × h100"), PlannedWorkload(context_tokens=8192))
    assert find(found, "gpt-oss-20b", RELEASED).memory_bytes.value
    assert "cannot be split over 3 GPUs" in find(found, "llama-3.1-8b", "gptq-4").not_parallel
    assert find(found, "llama-3.1-8b", "gguf-4").not_parallel == ""
    served = serving(root, find(found, "llama-3.1-8b", "gptq-4"), None, 8192, 3)
    assert served.command and "--pipeline-parallel-size 3" in served.command
