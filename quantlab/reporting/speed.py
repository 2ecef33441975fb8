"""The speed table: one row per variant, device and point (batch, context), medians with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.comparison.load import ModelRecords, VariantRecords, failure_text
from quantlab.comparison.rates import Phase, first_token, per_token, rate, speed_ratio
from quantlab.comparison.status import status_of
from quantlab.numbers import percent, significant
from quantlab.records import SpeedPoint, SpeedRecord
from quantlab.records.measured import Median
from quantlab.reporting.ceilings import put_ceiling
from quantlab.reporting.places import device_of
from quantlab.reporting.table import Column, Row, Table

PHASES: tuple[Phase, ...] = ("decode", "prefill")
_OPTIONAL = ("ceiling_tokens_per_second", "decode_joules_per_token", "dollars_per_million_tokens")
_NO_ENERGY, _NO_PRICE = "the record is older than this figure", "the recipe names no price_per_device_hour"


def speed_table(*devices: ModelRecords) -> Table:
    """Engine by engine, because figures across engines are not compared, and device by device for the same reason."""
    rows = tuple(row for records in devices for variant in _by_engine(records) for row in _rows(records, variant))
    return Table("speed", rows, speed_columns(rows))


def _by_engine(records: ModelRecords) -> list[VariantRecords]:
    engines = sorted({v.measure.engine for v in records.variants.values() if v.measure and v.measure.engine})
    place = {engine: n for n, engine in enumerate(engines)}
    return sorted(records.variants.values(), key=lambda v: place.get(v.measure.engine or "" if v.measure else "", len(place)))


def _rows(records: ModelRecords, variant: VariantRecords) -> list[Row]:
    speed = variant.measure.speed if variant.measure and not variant.measure.failure else None
    points: tuple[SpeedPoint | None, ...] = tuple(speed.points) if speed else ()
    return [_row(records, variant, point) for point in points or (None,)]


def _row(records: ModelRecords, variant: VariantRecords, point: SpeedPoint | None) -> Row:
    measured, why = variant.measure, variant.why_not("measure")
    speed = measured.speed if measured and not measured.failure else None
    row = Row({"variant": variant.slug, "device": device_of(records, variant)}, notes=variant.notes("measure"))
    row.put("engine", measured.engine if measured else None, why)
    row.put("kernel", speed.kernel if speed else None, why)
    row.put("dtype", speed.dtype if speed else None, why)
    row.put("threads", speed.threads if speed else None, why if speed is None else "the engine does not say")
    for key in ("batch", "context_tokens", "prompt_tokens", "decode_tokens"):
        row.put(key, getattr(point, key) if point else None, why)
    lacking = failure_text(point.failure) if point and point.failure else why
    for phase in PHASES:
        _put_phase(row, records, variant, point, phase, lacking)
    _put_median(row, "time_to_first_token_seconds", first_token(point) if point else None, lacking)
    _put_median(row, "time_per_output_token_seconds", per_token(point) if point else None, lacking)
    put_ceiling(row, speed, point, lacking)
    _put_costs(row, speed, point, lacking)
    row.put("load_seconds", speed.load_seconds if speed else None, why)
    row.fail(status_of(variant).failed)
    return row


def _put_phase(row: Row, records: ModelRecords, variant: VariantRecords, point: SpeedPoint | None, phase: Phase, lacking: str) -> None:
    ours = rate(point, phase) if point else None
    _put_median(row, f"{phase}_tokens_per_second", ours, lacking)
    ratio = speed_ratio(records, variant, point, phase) if point else None
    row.put(f"{phase}_ratio", ratio.value if ratio else None, (ratio.reason if ratio and ours else None) or lacking)
    row.put(f"{phase}_ratio_low", ratio.low if ratio else None)
    row.put(f"{phase}_ratio_high", ratio.high if ratio else None)
    row.put(f"{phase}_ratio_kind", ratio.kind if ratio else None)
    row.put(f"{phase}_repeats", ours.n if ours else None)


def _put_median(row: Row, key: str, found: Median | None, lacking: str) -> None:
    row.put(key, found.value if found else None, lacking)
    row.put(f"{key}_low", found.low if found else None)
    row.put(f"{key}_high", found.high if found else None)
    row.put(f"{key}_coverage", found.coverage if found else None)


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
            "decode ceiling (tokens/s, share reached)", ("ceiling_tokens_per_second", "ceiling_share"), _ceiling
        ),
        "decode_joules_per_token": Column("energy (J/token decoded)", ("decode_joules_per_token",), significant),
        "dollars_per_million_tokens": Column("cost ($/million tokens decoded)", ("dollars_per_million_tokens",), significant),
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
    found = []
    for key, what in names.items():
        if rows and all(row.values[key] is None for row in rows):
            reasons = dict.fromkeys(row.missing[key] for row in rows if key in row.missing and row.failed is None)
            found += [f"{what}: {'; '.join(reasons)}."] if reasons else []
    return [text.replace("..", ".") for text in found]


def _keys(phase: str) -> tuple[str, ...]:
    ratio = (f"{phase}_ratio", f"{phase}_ratio_low", f"{phase}_ratio_high", f"{phase}_ratio_kind")
    return (*_median_keys(f"{phase}_tokens_per_second"), *ratio)


def _median_keys(key: str) -> tuple[str, ...]:
    return key, f"{key}_low", f"{key}_high"


def _interval(middle: float, low: float | None, high: float | None) -> str:
    return significant(middle) + (f" [{significant(low)}, {significant(high)}]" if low is not None and high is not None else "")


def _spread(
    middle: float,
    low: float | None,
    high: float | None,
    ratio: float | None,
    ratio_low: float | None,
    ratio_high: float | None,
    kind: str | None,
) -> str:
    return _interval(middle, low, high) + (f" ({ratio_text(ratio, ratio_low, ratio_high, kind)})" if ratio is not None else "")


def ratio_text(ratio: float, low: float | None, high: float | None, kind: str | None) -> str:
    """A ratio with its interval, and how it was taken where the two did not alternate."""
    interval = f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""
    return f"{ratio:.2f}×{interval}" + ("" if kind in ("paired", None) else f", {kind}")


def _ceiling(ceiling: float, share: float | None) -> str:
    return significant(ceiling) + (f", {percent(share)}" if share is not None else "")
