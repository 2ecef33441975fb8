"""Compare predictions with the records of real runs: the error of a plan.

| quantity | predicted | measured |
|---|---|---|
| tensors | the plan's weight bytes | all bytes of the checkpoint's tensors |
| all files | the plan's checkpoint bytes, with the tokenizer | bytes of all files of the checkpoint: headers and configuration as well |
| resident weights | the plan's weight bytes | weights after loading, by the engine's own account |
| cache | the engine's policy, at the tokens of the last speed run | by the engine's own account |
| peak | weights, cache and the middle of calibration.yaml's overhead | peak of the process above the empty one (on a CPU) |
| decode | the ceiling | median of the repeats, where the device's bandwidth is in the catalogue |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import computed_field

from quantlab import engines
from quantlab.analysis.medians import median
from quantlab.architecture.cache_types import bytes_per_value
from quantlab.architecture.kvcache import cache_bytes
from quantlab.catalogue.gpu import GpuSet, GpuSpec, gpu_called
from quantlab.errors import QuantlabError
from quantlab.frozen import Frozen
from quantlab.names import parse_variant
from quantlab.planning.calibration import calibration
from quantlab.planning.files import checkpoint_bytes
from quantlab.planning.plan import PlannedWorkload
from quantlab.planning.recorded import RecordedModel, recorded_model, reports_without_records, with_records
from quantlab.planning.rig import PlannedVariant, place
from quantlab.planning.weights import weight_bytes
from quantlab.records import MeasureRecord, MemoryRecord, QuantizeRecord, SpeedPoint
from quantlab.workspace.results import read_record

_PEAK = (
    "its overhead is the middle of what the shipped example's records show, so on those its error is the"
    " spread and no test of the forecast"
)

_REPACKED = (
    "llama.cpp on a CPU holds a second copy of the matrices that it repacks for the processor's instructions,"
    " which no plan knows"
)
_ROUNDING = 0.01


class Prediction(Frozen):
    """One predicted quantity and what was measured."""

    model: str
    variant: str
    quantity: str
    unit: str
    predicted: float
    measured: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def error(self) -> float:
        """Prediction over measurement, less 1."""
        return self.predicted / self.measured - 1


class Compared(NamedTuple):
    """All comparisons, and what could not be compared, one sentence each."""

    rows: tuple[Prediction, ...]
    skipped: tuple[str, ...]


def compare(folder: Path, only: str | None = None) -> Compared:
    """Predictions for every record under a folder, such as reports/; `only` names one model.

    Raises QuantlabError where there are no records.
    """
    folders = [place for place in with_records(folder) if only in (None, place.name)]
    for report in reports_without_records(folder, folders):
        if only in (None, report.name):
            raise QuantlabError(
                f"{report} is a report without a record to compare with: run its stages again, or remove it"
            )
    if not folders:
        raise QuantlabError(
            f"{folder} holds no records{f' of {only}' if only else ''}: name reports/ of a workspace, or one"
            " model's folder in it"
        )
    rows: list[Prediction] = []
    skipped: list[str] = []
    for path in folders:
        try:
            model = recorded_model(path)
        except QuantlabError as error:
            skipped.append(f"{path.name}: {error}")
            continue
        for data in sorted(inner for inner in (path / "data").iterdir() if inner.is_dir()):
            rows += _of_variant(model, data, skipped)
    if not rows:
        raise QuantlabError(
            f"nothing under {folder} can be compared:"
            f" {'; '.join(dict.fromkeys(skipped)) or 'no record has a number'}"
        )
    if any(
        row.quantity == "resident weights" and row.variant.startswith("gguf-") and row.error < -_ROUNDING
        for row in rows
    ):
        skipped.append(f"resident weights: {_REPACKED}")
    if any(row.quantity == "peak" for row in rows):
        skipped.append(f"peak: {_PEAK}")
    return Compared(tuple(rows), tuple(dict.fromkeys(skipped)))


def largest_errors(rows: Iterable[Prediction]) -> list[Prediction]:
    """The row with the largest error of each quantity, the largest first."""
    worst: dict[str, Prediction] = {}
    for row in rows:
        if row.quantity not in worst or abs(row.error) > abs(worst[row.quantity].error):
            worst[row.quantity] = row
    return sorted(worst.values(), key=lambda row: -abs(row.error))


def _of_variant(model: RecordedModel, data: Path, skipped: list[str]) -> Iterator[Prediction]:
    variant = parse_variant(data.name)
    given = (model.recipe.variants.get(variant.slug) if model.recipe else None) or {}
    if variant.external:
        skipped.append(
            f"{model.name} {variant.slug}: somebody else's checkpoint, whose settings are not known"
        )
        return
    from quantlab.methods import settings_of

    weights = weight_bytes(model.counted, variant.method, variant.bits, settings_of(variant, given))
    if weights is None:
        return
    quantized = read_record(data / "quantize.json", QuantizeRecord)
    measured = read_record(data / "measure.json", MeasureRecord)
    pairs = [_Pair("tensors", "bytes", weights.bytes_total, quantized.stored_bytes)] if quantized else []
    if quantized and quantized.failure:
        pairs = []
    if measured and measured.memory and measured.speed:
        subject = PlannedVariant(variant.method, variant.bits, weights, model.counted, model.architecture)
        pairs += _of_measurement(model, subject, variant.slug, measured, skipped)
    for quantity, unit, predicted, measurement in pairs:
        if predicted is not None and measurement:
            yield Prediction(
                model=model.name,
                variant=variant.slug,
                quantity=quantity,
                unit=unit,
                predicted=predicted,
                measured=measurement,
            )


class _Pair(NamedTuple):
    """One predicted quantity and its measurement; None where there is none."""

    quantity: str
    unit: str
    predicted: float | None
    measured: float | None


def _of_measurement(
    model: RecordedModel, subject: PlannedVariant, slug: str, measured: MeasureRecord, skipped: list[str]
) -> Iterator[_Pair]:
    """Pairs of memory and speed."""
    memory, speed, weights = measured.memory, measured.speed, subject.weights.bytes_total
    assert memory is not None and speed is not None
    point = next((p for p in reversed(speed.points) if p.failure is None), None)
    files = checkpoint_bytes(weights, subject.method, model.tokenizer)
    yield _Pair("all files", "bytes", files, memory.disk_bytes)
    yield _Pair("resident weights", "bytes", weights, memory.weights_bytes)
    cache_type = _cache_type(memory)
    if cache_type is None:
        skipped.append(
            f"{model.name} {slug}: no formula for its {memory.cache_dtype} cache, so none for its peak and"
            " ceiling"
        )
        return
    cache = _cache(model, measured.engine, cache_type, point) if point else None
    yield _Pair("cache", "bytes", cache, memory.kv_cache_bytes)
    if speed.threads is not None:  # on a CPU
        overhead = _cpu_overhead(measured.engine)
        peak = weights + (cache or 0) + overhead if overhead else None
        yield _Pair("peak", "bytes", peak, memory.peak_process_rss_bytes - memory.empty_process_rss_bytes)
    gpu = gpu_called(measured.device or "")
    if gpu is None:
        skipped.append(
            f"the bandwidth of {measured.device} is not in the catalogue: no ceiling to compare decoding with"
        )
    elif point:
        ceiling = _ceiling(subject, gpu, point, cache_type)
        yield _Pair("decode", "tokens/s", ceiling, _typical(point.decode_tokens_per_second))


def _typical(rates: tuple[float, ...]) -> float | None:
    middle = median(rates)
    return middle.value if middle else None


def _cache(model: RecordedModel, engine: str | None, cache_type: str, point: SpeedPoint) -> int:
    tokens = point.context_tokens + point.prompt_tokens + point.decode_tokens
    policy = engines.load(engine).cache_policy if engine in engines.names() else "exact"
    return cache_bytes(model.architecture, tokens, cache_type, policy).total * point.batch


def _cache_type(memory: MemoryRecord) -> str | None:
    """The type that the engine kept its cache in; None where its values have no fixed size."""
    kind = memory.cache_dtype or ""
    return None if bytes_per_value(kind) is None else kind


def _cpu_overhead(engine: str | None) -> float | None:
    ends = calibration().cpu.overhead_bytes.get(engine or "")
    return sum(ends) / 2 if ends else None


def _ceiling(subject: PlannedVariant, gpu: GpuSpec, point: SpeedPoint, cache_type: str) -> float | None:
    tokens = point.context_tokens + point.prompt_tokens
    workload = PlannedWorkload(context_tokens=tokens, batch=point.batch, cache_dtype=cache_type)
    return place(subject, GpuSet(gpu=gpu, count=1), workload).decode_ceiling_tokens_per_second
