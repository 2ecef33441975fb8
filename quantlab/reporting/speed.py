"""The speed table: one row per variant and point (batch, context), medians with the whole spread of the repeats."""

from __future__ import annotations

from statistics import median

from quantlab.records import SpeedPoint
from quantlab.reporting.load import ModelRecords, VariantRecords, failure_text
from quantlab.reporting.numbers import significant
from quantlab.reporting.rates import comparable, rate, same_point
from quantlab.reporting.status import status_of
from quantlab.reporting.table import Column, Row, Table


def speed_table(records: ModelRecords) -> Table:
    """Engine by engine, because figures across engines are not compared."""
    engines = sorted({v.measure.engine for v in records.variants.values() if v.measure and v.measure.engine})
    place = {engine: n for n, engine in enumerate(engines)}
    order = sorted(records.variants.values(), key=lambda v: place.get(v.measure.engine or "" if v.measure else "", len(place)))
    return Table("speed", tuple(row for variant in order for row in _rows(records, variant)), _COLUMNS)


def _rows(records: ModelRecords, variant: VariantRecords) -> list[Row]:
    speed = variant.measure.speed if variant.measure and not variant.measure.failure else None
    points: tuple[SpeedPoint | None, ...] = tuple(speed.points) if speed else ()
    return [_row(records, variant, point) for point in points or (None,)]


def _row(records: ModelRecords, variant: VariantRecords, point: SpeedPoint | None) -> Row:
    measured, why = variant.measure, variant.why_not("measure")
    speed = measured.speed if measured and not measured.failure else None
    row = Row({"variant": variant.slug}, notes=variant.notes("measure"))
    row.put("engine", measured.engine if measured else None, why)
    row.put("kernel", speed.kernel if speed else None, why)
    row.put("dtype", speed.dtype if speed else None, why)
    row.put("threads", speed.threads if speed else None, why)
    for key in ("batch", "context_tokens", "prompt_tokens", "decode_tokens"):
        row.put(key, getattr(point, key) if point else None, why)
    base = comparable(records, variant)
    theirs = same_point(base.record, point) if base.record and point else None
    lacking = failure_text(point.failure) if point and point.failure else why
    for phase in ("prefill", "decode"):
        ours, other = (rate(getattr(p, f"{phase}_tokens_per_second")) if p else None for p in (point, theirs))
        row.put(f"{phase}_tokens_per_second", ours.median if ours else None, lacking)
        row.put(f"{phase}_lowest", ours.low if ours else None)
        row.put(f"{phase}_highest", ours.high if ours else None)
        reason = base.reason or "not compared: the 16-bit variant did not run this point"
        row.put(f"{phase}_ratio", ours.median / other.median if ours and other else None, reason if ours else lacking)
        row.put(f"{phase}_repeats", ours.repeats if ours else None)
    first = median(point.prefill_seconds) if point and point.prefill_seconds else None
    row.put("time_to_first_token_seconds", first, lacking)
    row.put("load_seconds", speed.load_seconds if speed else None, why)
    row.fail(status_of(variant).failed)
    return row


def _spread(middle: float, low: float | None, high: float | None, ratio: float | None) -> str:
    spread = f" [{significant(low)}, {significant(high)}]" if low is not None and high is not None else ""
    return f"{significant(middle)}{spread}" + (f" ({ratio:.2f}×)" if ratio is not None else "")


def _keys(phase: str) -> tuple[str, ...]:
    return f"{phase}_tokens_per_second", f"{phase}_lowest", f"{phase}_highest", f"{phase}_ratio"


_COLUMNS = (
    Column("variant", ("variant",), str),
    Column("engine", ("engine",), str),
    Column("batch", ("batch",), "{:,}".format),
    Column("context (tokens)", ("context_tokens",), "{:,}".format),
    Column("decode (tokens/s, ratio)", _keys("decode"), _spread),
    Column("prefill (tokens/s, ratio)", _keys("prefill"), _spread),
    Column("time to first token (s)", ("time_to_first_token_seconds",), significant),
    Column("load (s)", ("load_seconds",), significant),
    Column("kernel", ("kernel",), str),
    Column("dtype", ("dtype",), str),
    Column("threads", ("threads",), "{:,}".format),
)
