"""Made-up measurements in the present form: a grid of workloads, paired baselines, samples, ceilings. No
number was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from madeup import DEVICE, MODEL, NUMBERS, write_cell, write_recipe

from quantlab import engines
from quantlab.analysis.medians import median, paired_ratio
from quantlab.records import (
    BaselineRun,
    Failure,
    MeasureRecord,
    MemoryRecord,
    Roofline,
    SpeedPoint,
    SpeedRecord,
)
from quantlab.records.measured import Bandwidth, Conditions, GpuCondition, GpuUse, Sample, SampledMemory
from quantlab.workspace.results import read_record, record_path, write_record

GPU = "NVIDIA TEST GPU"
GRID = tuple((batch, context) for batch in (1, 8) for context in (0, 4096))
JITTER = (1.08, 1.03, 1.0, 0.99, 0.95)
WEIGHTS_ABOVE_DISK, CACHE_PER_TOKEN, BANDWIDTH = 1_000_000, 46_080, 20e9
PROMPT, DECODE = 128, 16
FASTER_ON_GPU = 10.0


def decode_rate(slug: str, batch: int, context: int, times: float = 1.0) -> float:
    """Tokens per second over the batch."""
    return times * NUMBERS[slug][4] * batch**0.7 / (1 + context / 8192)


def point(slug: str, batch: int, context: int, times: float = 1.0, **changes: Any) -> SpeedPoint:
    """One workload with its paired baseline; `times` is how much faster than on the made-up CPU."""
    base = "gguf-16" if slug.startswith("gguf") else "baseline-16"
    seconds = tuple(batch * DECODE / decode_rate(slug, batch, context, times) * j for j in JITTER)
    # The baseline drifts with the machine: a ratio of medians would see it, the paired one does not.
    theirs = tuple(batch * DECODE / decode_rate(base, batch, context, times) * j for j in JITTER)
    prefill, their_prefill = (
        tuple(s * (context + PROMPT) / DECODE / 12 for s in some) for some in (seconds, theirs)
    )
    size, tokens = int(NUMBERS[slug][0] * 1e6), batch * (context + PROMPT + DECODE)
    ceiling = batch * BANDWIDTH * times / (size + CACHE_PER_TOKEN * tokens)
    values = {
        "batch": batch,
        "context_tokens": context,
        "prompt_tokens": PROMPT,
        "decode_tokens": DECODE,
        "prefill_seconds": prefill,
        "decode_seconds": seconds,
        "kv_cache_bytes": CACHE_PER_TOKEN * tokens,
        "kv_cache_formula_bytes": CACHE_PER_TOKEN * tokens,
        "state_bytes": 0,
        "roofline": Roofline(
            weight_bytes_per_step=size,
            cache_bytes_per_step=CACHE_PER_TOKEN * tokens,
            tokens_per_second=ceiling,
            share=decode_rate(slug, batch, context, times) / ceiling,
        ),
    }
    if base != slug:
        values |= {
            "baseline_prefill_seconds": their_prefill,
            "baseline_decode_seconds": theirs,
            "decode_ratio": paired_ratio(theirs, seconds),
            "prefill_ratio": paired_ratio(their_prefill, prefill),
        }
    rate = median([batch * DECODE / s for s in seconds])
    return SpeedPoint(**(values | {"decode_rate": rate} | changes))  # type: ignore[arg-type]


def sampled(size: int, on_gpu: bool, step: str = "batch 8, context 4096") -> SampledMemory:
    """Empty at 0.5 GB (0.4 GB on the GPU), then twice the weights above it."""

    def look(what: str, seconds: float, above: int) -> Sample:
        gpus = (
            (
                GpuUse(
                    uuid="GPU-1", name=GPU, tree_bytes=400_000_000 + above, used_bytes=1_000_000_000 + above
                ),
            )
            if on_gpu
            else ()
        )
        host = 500_000_000 + (0 if on_gpu else above)
        return Sample(
            step=what, seconds=seconds, tree_rss_bytes=host + 20_000_000, tree_pss_bytes=host, gpus=gpus
        )

    before = Sample(step="before", seconds=0, tree_rss_bytes=0, tree_pss_bytes=0, gpus=())
    if on_gpu:
        before = before.model_copy(
            update={"gpus": (GpuUse(uuid="GPU-1", name=GPU, tree_bytes=0, used_bytes=600_000_000),)}
        )
    peak = look(step, 9.0, 2 * size)
    return SampledMemory(
        asked_interval_seconds=0.01,
        interval_seconds=0.0104,
        pss_interval_seconds=0.041,
        samples=900,
        before=before,
        empty=look("open", 1.0, 0),
        loaded=look("load", 3.0, size),
        peak=peak,
        steps=(peak,),
        last=look(step, 9.5, size),
    )


def measured(slug: str, device: str = DEVICE, times: float = 1.0, **changes: Any) -> MeasureRecord:
    """A whole record of the grid."""
    size, on_gpu = int(NUMBERS[slug][0] * 1e6), device != DEVICE
    engine = "llama_cpp" if slug.startswith("gguf") else "transformers"
    base, largest = engines.sixteen_bit(engine), CACHE_PER_TOKEN * 8 * (4096 + PROMPT + DECODE)
    memory = MemoryRecord(
        disk_bytes=size,
        weights_bytes=size + WEIGHTS_ABOVE_DISK,
        kv_cache_bytes=largest,
        state_bytes=0,
        cache_dtype="f16" if engine == "llama_cpp" else "bfloat16",
        empty_process_rss_bytes=520_000_000,
        loaded_process_rss_bytes=600_000_000 + size,
        peak_process_rss_bytes=650_000_000 + 2 * size,
        peak_allocated_bytes=2 * size if on_gpu else None,
        peak_reserved_bytes=3 * size if on_gpu else None,
        process_vram_bytes=400_000_000 + 2 * size if on_gpu else None,
    )
    clocks = GpuCondition(uuid="GPU-1", name=GPU, sm_clock_mhz=1900, temperature_celsius=40)
    conditions = Conditions(cpu_mhz=2500.0, load_average=0.5, gpus=(clocks,) if on_gpu else ())
    speed = SpeedRecord(
        kernel="TestKernel",
        dtype="bfloat16",
        threads=2,
        load_seconds=1.7,
        points=tuple(point(slug, batch, context, times) for batch, context in GRID),
        baseline=(
            None
            if slug == base
            else BaselineRun(
                variant=base,
                checkpoint_sha256=base.encode().hex().ljust(64, "0"),
                pairing="alternating",
                kernel="K",
                dtype="bfloat16",
            )
        ),
        before=conditions,
        after=conditions,
        bandwidth=Bandwidth(measured_bytes_per_second=BANDWIDTH * times, copied_bytes=512_000_000, threads=2),
        energy_reason="no energy counter on this device",
    )
    values = {
        "model": MODEL,
        "variant": slug,
        "checkpoint_sha256": slug.encode().hex().ljust(64, "0"),
        "engine": engine,
        "device": device,
        "memory": memory,
        "speed": speed,
        "sampled": sampled(size, on_gpu),
    }
    return MeasureRecord(**(values | changes))  # type: ignore[arg-type]


def write_grid(root: Path, *slugs: str, **recipe: Any) -> None:
    """A workspace whose measurements are in the present form."""
    write_recipe(root)
    path = root / "recipes" / f"{MODEL}.yaml"
    path.write_text(
        yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | recipe), encoding="utf-8"
    )
    for slug in slugs:
        write_cell(root, slug)
        write_record(root, measured(slug))


def change(root: Path, slug: str, **changes: Any) -> MeasureRecord:
    """Change fields of a variant's measurement."""
    record = read_record(record_path(root, MODEL, slug, "measure"), MeasureRecord)
    assert record is not None
    changed = record.model_copy(update=changes)
    write_record(root, changed)
    return changed


def killed(slug: str, **values: Any) -> MeasureRecord:
    """A record of a process that was killed while it loaded."""
    seen = sampled(int(NUMBERS[slug][0] * 1e6), on_gpu=False, step="load")
    failure = Failure(kind="out_of_memory", reason=f"the process was killed (signal 9), {seen.last_words}")
    record = measured(slug, **values)
    return record.model_copy(
        update={"memory": None, "speed": None, "sampled": seen, "died_in": "load", "failure": failure}
    )


def write_elsewhere(root: Path, *slugs: str, device: str = GPU, times: float = FASTER_ON_GPU) -> Path:
    """Another machine's reports/MODEL folder with records of the same checkpoints; the folder."""
    for slug in slugs:
        write_record(root, measured(slug, device, times))
    return root / "reports" / MODEL
