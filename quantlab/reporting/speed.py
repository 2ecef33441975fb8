"""Tabulate speed: one row per variant, device and point (batch, context), medians with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.load import failure_text
from quantlab.comparison.rates import Phase, first_token, per_token
from quantlab.comparison.speeds import PhaseSpeed, PointSpeed
from quantlab.inert import drawn
from quantlab.numbers import percent, significant
from quantlab.records import SpeedPoint, SpeedRecord
from quantlab.records.measured import Median
from quantlab.reporting.ceilings import put_ceiling
from quantlab.reporting.lines import TimedPoint
from quantlab.reporting.places import device_of
from quantlab.reporting.table import Column, Row, Table

PHASES: tuple[Phase, ...] = ("decode", "prefill")
_OPTIONAL = ("ceiling_tokens_per_second", "decode_joules_per_token", "dollars_per_million_tokens")
_NO_ENERGY, _NO_PRICE = "the record has no energy", "the recipe names no price_per_device_hour"


def speed_table(*devices: Comparison) -> Table:
    """Engine by engine, because figures across engines are not compared, and device by device for the same
    reason."""
    rows = tuple(row for each in devices for variant in _by_engine(each) for row in _rows(each, variant))
    return Table("speed", rows, speed_columns(rows))


def _by_engine(comparison: Comparison) -> list[VariantComparison]:
    variants = comparison.variants.values()
    engines = sorted(
        {v.records.measure.engine for v in variants if v.records.measure and v.records.measure.engine}
    )
    place = {engine: n for n, engine in enumerate(engines)}

    def order(variant: VariantComparison) -> int:
        measured = variant.records.measure
        return place.get(measured.engine or "" if measured else "", len(place))

    return sorted(variants, key=order)


def _rows(comparison: Comparison, variant: VariantComparison) -> list[Row]:
    points: tuple[PointSpeed | None, ...] = measured_speeds(variant)
    return [_row(comparison, variant, point) for point in points or (None,)]


def timed_points(*devices: Comparison) -> list[TimedPoint]:
    """Every point that was timed, as plots draw it: in the table's order."""
    timed = []
    for comparison in devices:
        for variant in _by_engine(comparison):
            measured = variant.records.measure
            device, engine = (
                device_of(comparison.records, variant.records),
                measured.engine if measured else None,
            )
            timed += [
                TimedPoint(variant.slug, drawn(device), drawn(str(engine)), at)
                for at in measured_speeds(variant)
            ]
    return timed


def measured_speeds(variant: VariantComparison) -> tuple[PointSpeed, ...]:
    """Every point of a measurement that did not fail as a whole."""
    measured = variant.records.measure
    return variant.speeds if measured and not measured.failure else ()


def _row(comparison: Comparison, variant: VariantComparison, at: PointSpeed | None) -> Row:
    measured, why = variant.records.measure, variant.records.why_not("measure")
    speed, point = measured.speed if measured and not measured.failure else None, at.point if at else None
    device = device_of(comparison.records, variant.records)
    row = Row({"variant": variant.slug, "device": device}, notes=variant.records.notes("measure"))
    row.put("engine", measured.engine if measured else None, why)
    row.put("kernel", speed.kernel if speed else None, why)
    row.put("dtype", speed.dtype if speed else None, why)
    row.put("threads", speed.threads if speed else None, why if speed is None else "the engine does not say")
    for key in ("batch", "context_tokens", "prompt_tokens", "decode_tokens"):
        row.put(key, getattr(point, key) if point else None, why)
    lacking = failure_text(point.failure) if point and point.failure else why
    for phase in PHASES:
        _put_phase(row, phase, at.of(phase) if at else None, lacking)
    _put_median(row, "time_to_first_token_seconds", first_token(point) if point else None, lacking)
    _put_median(row, "time_per_output_token_seconds", per_token(point) if point else None, lacking)
    put_ceiling(row, speed, point, lacking)
    _put_costs(row, speed, point, lacking)
    row.put("load_seconds", speed.load_seconds if speed else None, why)
    row.fail(variant.status.failed)
    return row


def _put_phase(row: Row, phase: Phase, speed: PhaseSpeed | None, lacking: str) -> None:
    rate, ratio = (speed.rate, speed.ratio) if speed else (None, None)
    _put_median(row, f"{phase}_tokens_per_second", rate, lacking)
    row.put(
        f"{phase}_ratio",
        ratio.value if ratio else None,
        (ratio.reason if ratio and rate else None) or lacking,
    )
    row.put(f"{phase}_ratio_low", ratio.low if ratio else None)
    row.put(f"{phase}_ratio_high", ratio.high if ratio else None)
    row.put(f"{phase}_ratio_kind", ratio.kind if ratio else None)
    row.put(f"{phase}_repeats", rate.n if rate else None)


def _put_median(row: Row, key: str, median: Median | None, lacking: str) -> None:
    row.put(key, median.value if median else None, lacking)
    row.put(f"{key}_low", median.low if median else None)
    row.put(f"{key}_high", median.high if median else None)
    row.put(f"{key}_coverage", median.coverage if median else None)


def _put_costs(row: Row, speed: SpeedRecord | None, point: SpeedPoint | None, lacking: str) -> None:
    no_energy = (speed.energy_reason or _NO_ENERGY) if speed and not (point and point.failure) else lacking
    row.put("decode_joules_per_token", point.decode_joules_per_token if point else None, no_energy)
    row.put("prefill_joules_per_token", point.prefill_joules_per_token if point else None, no_energy)
    priced = speed is not None and speed.price_per_device_hour is not None
    no_price = lacking if priced or speed is None or (point and point.failure) else _NO_PRICE
    row.put("dollars_per_million_tokens", point.dollars_per_million_tokens if point else None, no_price)
    row.put("price_per_device_hour", speed.price_per_device_hour if speed else None)


def speed_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Ceiling, energy and cost only where a row has one."""
    optional = {
        "ceiling_tokens_per_second": Column(
            "decode ceiling (tokens/s, share reached)",
            ("ceiling_tokens_per_second", "ceiling_share"),
            _ceiling,
        ),
        "decode_joules_per_token": Column(
            "energy (J/token decoded)", ("decode_joules_per_token",), significant
        ),
        "dollars_per_million_tokens": Column(
            "cost ($/million tokens decoded)", ("dollars_per_million_tokens",), significant
        ),
    }
    shown = [optional[key] for key in _OPTIONAL if any(row.values[key] is not None for row in rows)]
    several = {row.values["threads"] for row in rows} != {None}
    return (
        Column("variant", ("variant",), str),
        Column("engine", ("engine",), str),
        Column("batch", ("batch",), "{:,}".format),
        Column("context (tokens)", ("context_tokens",), "{:,}".format),
        Column("decode (tokens/s, ratio)", _keys("decode"), _spread),
        *shown,
        Column("prefill (tokens/s, ratio)", _keys("prefill"), _spread),
        Column("time to first token (s)", _median_keys("time_to_first_token_seconds"), _interval),
        Column("time per output token (s)", _median_keys("time_per_output_token_seconds"), _interval),
        Column("load (s)", ("load_seconds",), significant),
        Column("kernel", ("kernel",), str),
        Column("dtype", ("dtype",), str),
        *([Column("threads", ("threads",), "{:,}".format)] if several else []),
    )


def absences(rows: Sequence[Row]) -> list[str]:
    """Why a whole column is left out, once for the table."""
    names = dict(zip(_OPTIONAL, ("No ceiling", "No energy per token", "No cost per token"), strict=True))
    sentences = []
    for key, what in names.items():
        if rows and all(row.values[key] is None for row in rows):
            reasons = dict.fromkeys(
                row.missing[key] for row in rows if key in row.missing and row.failed is None
            )
            sentences += [f"{what}: {'; '.join(reasons)}."] if reasons else []
    return [text.replace("..", ".") for text in sentences]


def _keys(phase: str) -> tuple[str, ...]:
    ratio = (f"{phase}_ratio", f"{phase}_ratio_low", f"{phase}_ratio_high", f"{phase}_ratio_kind")
    return (*_median_keys(f"{phase}_tokens_per_second"), *ratio)


def _median_keys(key: str) -> tuple[str, ...]:
    return key, f"{key}_low", f"{key}_high"


def _interval(middle: float, low: float | None, high: float | None) -> str:
    return significant(middle) + (
        f" [{significant(low)}, {significant(high)}]" if low is not None and high is not None else ""
    )


def _spread(
    middle: float,
    low: float | None,
    high: float | None,
    ratio: float | None,
    ratio_low: float | None,
    ratio_high: float | None,
    kind: str | None,
) -> str:
    return _interval(middle, low, high) + (
        f" ({ratio_text(ratio, ratio_low, ratio_high, kind)})" if ratio is not None else ""
    )


def ratio_text(ratio: float, low: float | None, high: float | None, kind: str | None) -> str:
    """A ratio with its interval, and how it was taken where the two did not alternate."""
    interval = f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""
    return f"{ratio:.2f}×{interval}" + ("" if kind in ("paired", None) else f", {kind}")


def _ceiling(ceiling: float, share: float | None) -> str:
    return significant(ceiling) + (f", {percent(share)}" if share is not None else "")
