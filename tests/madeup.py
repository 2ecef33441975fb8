"""A workspace of made-up records. No number here was measured: they only look like a small model's, so that
plots are as full."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from quantlab.names import parse_variant
from quantlab.records import (
    DivergenceRecord,
    Estimate,
    Failure,
    MeasureRecord,
    MemoryRecord,
    QuantizeRecord,
    SpeedPoint,
    SpeedRecord,
    SureTokens,
    TaskRecord,
    TaskResult,
)
from quantlab.workspace.results import write_record

MODEL = "test-data"
PARAMETERS = 134_515_008
# variant: (MB on disk, KL divergence, perplexity, answers that go wrong of 100, decode tokens/s)
NUMBERS = {
    "baseline-16": (269.1, 0.0011, 27.31, 0, 21.5),
    "gguf-16": (271.0, 0.0000004, 27.30, 0, 30.2),
    "gguf-8": (144.8, 0.0045, 27.42, 1, 51.0),
    "gguf-4": (105.5, 0.0368, 28.33, 2, 58.7),
    "gguf-3": (93.5, 0.097, 30.02, 4, 60.1),
    "gguf-2": (88.2, 0.297, 37.9, 7, 61.4),
    "gptq-8": (168.5, 0.0013, 27.33, 0, 4.1),
    "gptq-4": (114.6, 0.142, 32.4, 5, 9.8),
    "gptq-3": (101.1, 0.71, 59.4, 9, 3.4),
    "gptq-2": (91.4, 5.61, 5637.0, 24, 2.9),
    "awq-4": (112.9, 0.168, 33.1, 4, 8.8),
    "bitsandbytes-8": (168.2, 0.021, 27.9, 2, 12.0),
}
FAILED = {
    "bitsandbytes-4": "the reloaded checkpoint gives logits that are not finite | 210 layers",
    "awq-2": "awq does not offer 2 bits: it has 4, 3",
}
DEVICE = "TEST CPU (2 cores)"
_LLAMA_DTYPE = (
    "float32 (8-bit activations inside quantized products), float16 cache",
    "float32, float16 cache",
)


def write_cell(
    root: Path, slug: str, items: int = 100, tasks: tuple[str, ...] = ("piqa", "arc_easy")
) -> None:
    """All records of one measured variant."""
    megabytes, kl, perplexity, wrong, speed = NUMBERS[slug]
    variant, size = parse_variant(slug), int(megabytes * 1e6)
    engine = "llama_cpp" if variant.method == "gguf" else "transformers"
    base = {
        "model": MODEL,
        "variant": slug,
        "checkpoint_sha256": slug.encode().hex().ljust(64, "0"),
        "device": DEVICE,
    }
    ran = {**base, "engine": engine, "versions": {"transformers": "5.23.0"}}
    write_record(
        root,
        QuantizeRecord(
            **base,
            seconds=45.2 + wrong,
            peak_rss_bytes=933_000_000 + size,
            allocator="glibc",
            stored_bytes=size,
            disk_bytes=size,
            parameters=PARAMETERS,
            bits_per_weight=8 * size / PARAMETERS,
            quantized_bits_per_weight=variant.bits + 0.5 if variant.bits < 16 else None,
            quantized_layers=210 if variant.bits < 16 else 0,
            expected_layers=210 if variant.bits < 16 else 0,
            tensor_types={"F32": 61, f"Q{variant.bits}": 211},
            loss_in_memory_nats=np.log(perplexity),
            loss_reloaded_nats=np.log(perplexity),
            collapsed=perplexity > 5000,
            notes=(
                (f"{slug}: 180 of 272 tensors fell back to another type.",)
                if engine == "llama_cpp" and variant.bits < 8
                else ()
            ),
        ),
    )
    write_record(root, _measure(ran, size, speed))
    write_record(root, _divergence(ran, kl, perplexity))
    _write_tasks(root, ran, wrong, items, tasks)


def write_failure(root: Path, slug: str, reason: str, kind: str = "not_offered") -> None:
    """What is left of a variant that was not quantized."""
    failure = Failure(kind=kind, reason=reason)  # type: ignore[arg-type]
    later = Failure(kind="not_measured", reason=f"not quantized: {reason}")
    base = {"model": MODEL, "variant": slug}
    write_record(root, QuantizeRecord(**base, failure=failure))
    for record in (
        MeasureRecord(**base, failure=later),
        DivergenceRecord(**base, failure=later),
        TaskRecord(**base, failure=later),
    ):
        write_record(root, record)


def _measure(ran: dict[str, object], size: int, speed: float) -> MeasureRecord:
    jitter = (1.08, 1.03, 1.0, 0.99, 0.95)
    point = SpeedPoint(
        batch=1,
        context_tokens=0,
        prompt_tokens=128,
        decode_tokens=16,
        prefill_seconds=tuple(128 / (12 * speed) * j for j in jitter),
        decode_seconds=tuple(16 / speed * j for j in jitter),
    )
    memory = MemoryRecord(
        disk_bytes=size,
        weights_bytes=size + 1_000_000,
        kv_cache_bytes=5_898_240,
        empty_process_rss_bytes=520_000_000,
        loaded_process_rss_bytes=600_000_000 + size,
        peak_process_rss_bytes=650_000_000 + 2 * size,
    )
    return MeasureRecord(
        **ran,  # type: ignore[arg-type]
        memory=memory,
        speed=SpeedRecord(
            kernel="TorchTestKernel", dtype="bfloat16", threads=2, load_seconds=1.7, points=(point,)
        ),
    )


def _divergence(ran: dict[str, object], kl: float, perplexity: float) -> DivergenceRecord:
    return DivergenceRecord(
        **ran,  # type: ignore[arg-type]
        windows=32,
        window_tokens=512,
        scored_tokens=8160,
        text_bytes=34_000,
        dtype="bfloat16" if ran["engine"] == "transformers" else _LLAMA_DTYPE[ran["variant"] == "gguf-16"],
        perplexity=Estimate(value=perplexity, standard_error=perplexity * 0.03, n=32),
        reference_perplexity=Estimate(value=27.30, standard_error=0.8, n=32),
        kl_divergence_nats=Estimate(value=kl, standard_error=kl * 0.06, n=32),
        kl_divergence_token_standard_error=kl * 0.03,
        kl_divergence_percentiles_nats={
            name: Estimate(value=kl * times, standard_error=kl * times * 0.1 if times < 4 else None, n=32)
            for name, times in (("median", 0.4), ("p90", 2.5), ("p95", 4.0), ("p99", 9.0), ("p99.9", 30.0))
        },
        kl_divergence_max_nats=kl * 50,
        top1_agreement=Estimate(value=1 - min(0.9, kl), standard_error=0.005, n=32),
        top5_overlap=Estimate(value=1 - min(0.9, kl / 2), standard_error=0.004, n=32),
        delta_p=Estimate(value=-kl / 10, standard_error=kl / 100, n=32),
        delta_p_rms=Estimate(value=kl**0.5 / 5, standard_error=kl**0.5 / 100, n=32),
        log_perplexity_ratio=Estimate(value=float(np.log(perplexity / 27.30)), standard_error=0.002, n=32),
        bits_per_byte=float(np.log2(perplexity)) * 8160 / 34_000,
        by_entropy=tuple(_quarter(i, kl) for i in range(4)),
    )


def _quarter(place: int, kl: float) -> SureTokens:
    value = Estimate(value=kl * (0.2, 0.6, 1.2, 2.0)[place], standard_error=kl * 0.1, n=32)
    agreement = Estimate(value=max(0.1, 0.99 - 0.2 * place), standard_error=0.01, n=32)
    return SureTokens(
        entropy_from_nats=1.5 * place,
        entropy_to_nats=1.5 * place + 1.5,
        tokens=2040,
        kl_divergence_nats=value,
        top1_agreement=agreement,
    )


def _write_tasks(root: Path, ran: dict[str, object], wrong: int, items: int, tasks: tuple[str, ...]) -> None:
    results, frames = {}, []
    for place, task in enumerate(tasks):
        values = np.array([1.0] * (items * 6 // 10) + [0.0] * (items - items * 6 // 10))
        values[: wrong + place * (wrong > 2)] = 0.0
        values[-(wrong // 2) or items :] = 1.0
        error = float(values.std(ddof=1) / np.sqrt(items))
        results[task] = TaskResult(
            metric="acc_norm",
            score=Estimate(value=float(values.mean()), standard_error=error, n=items),
            metrics={"acc_norm": float(values.mean())},
            task_version="1.0",
            fewshot=0,
            chance=0.5 if task == "piqa" else 0.25,
        )
        frames += [
            pd.DataFrame({"task": task, "doc_id": range(items), "metric": metric, "value": found})
            for metric, found in (("acc", np.zeros(items)), ("acc_norm", values))
        ]
    path = write_record(root, TaskRecord(**ran, tasks=results, seed=1234))  # type: ignore[arg-type]
    samples = pd.concat(frames, ignore_index=True)
    samples["doc_hash"] = [
        f"{task}-{doc}" for task, doc in zip(samples["task"], samples["doc_id"], strict=True)
    ]
    samples.assign(target="0", response="[]").to_parquet(path.with_name("samples.parquet"))


def write_recipe(root: Path) -> None:
    """A recipe that names the model's made-up source."""
    recipe = {
        "model": MODEL,
        "description": "TEST DATA: no number of this report was measured",
        "caveat": "These records were made up by a test.",
        "source": {"hub": "nobody/nothing", "revision": "0" * 40},
    }
    path = root / "recipes" / f"{MODEL}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")


def write_workspace(root: Path) -> None:
    """Thirteen variants, two of them failed."""
    write_recipe(root)
    for slug in NUMBERS:
        write_cell(root, slug)
    write_failure(root, "bitsandbytes-4", FAILED["bitsandbytes-4"], "broken_checkpoint")
    write_failure(root, "awq-2", FAILED["awq-2"])
