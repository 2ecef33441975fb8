"""Tabulate the divergence: its distribution over the tokens, agreement, and by the reference's confidence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.load import VariantRecords
from quantlab.numbers import divergence, fixed, ratio, significant
from quantlab.records import DivergenceRecord, Estimate, SureTokens
from quantlab.reporting.routing import SHARE, is_routed, put_routing, share
from quantlab.reporting.table import Column, Row, Table

PERCENTILES = ("median", "p90", "p95", "p99", "p99.9")
_ESTIMATES = (
    "kl_divergence_nats",
    "top1_agreement",
    "top5_overlap",
    "delta_p",
    "delta_p_rms",
    "log_perplexity_ratio",
)


def divergence_table(comparison: Comparison) -> Table:
    """One row per variant."""
    variants = comparison.variants.values()
    with_rounding = any(variant.nearest.rounded_nats is not None for variant in variants)
    with_routing = is_routed(comparison)
    rows = tuple(_row(variant, with_rounding, with_routing) for variant in variants)
    more = (*((_ROUNDING,) if with_rounding else ()), *((_ROUTING,) if with_routing else ()))
    return Table("divergence", rows, (*_COLUMNS, *more))


def sureness_table(comparison: Comparison) -> Table:
    """One row per variant: its mean divergence in each quarter of the tokens by the reference's entropy.

    A quarter stands under its own bounds: where the reference is equally sure of many tokens, a quarter has
    none and is left out of the records."""
    every = [v.records.divergence.by_entropy for v in comparison.variants.values() if v.records.divergence]
    edges = [_edges(quarter) for quarter in max(every, key=len, default=())]
    rows = []
    for variant in comparison.variants.values():
        row, record = Row({"variant": variant.slug}), variant.records.divergence
        quarters = record.by_entropy if record else ()
        own = {_edges(quarter): quarter for quarter in quarters}
        why = "measured against another reference, whose quarters differ" if own else _why(variant.records)
        for place in range(4):
            quarter = own.get(edges[place]) if place < len(edges) else None
            reason = (
                why
                if place < len(edges) or not edges
                else "no token in this quarter: many have the same entropy"
            )
            _put(
                row,
                f"quarter{place + 1}_kl_divergence_nats",
                quarter.kl_divergence_nats if quarter else None,
                reason,
            )
            _put(
                row, f"quarter{place + 1}_top1_agreement", quarter.top1_agreement if quarter else None, reason
            )
        row.fail(variant.status.failed)
        rows.append(row)
    return Table("sureness", tuple(rows), _quarter_columns(edges))


def _edges(quarter: SureTokens) -> tuple[float, float]:
    return quarter.entropy_from_nats, quarter.entropy_to_nats


def _row(variant: VariantComparison, with_rounding: bool, with_routing: bool) -> Row:
    record, why, other = variant.records.divergence, _why(variant.records), variant.divergence.other_reference
    apart = [f"not compared with the others: {other}"] if other else []
    row = Row({"variant": variant.slug}, notes=(*apart, *variant.records.notes("diverge")))
    for name in _ESTIMATES:
        _put(row, name, getattr(record, name) if record else None, why)
    row.put(
        "kl_divergence_token_standard_error", record.kl_divergence_token_standard_error if record else None
    )
    for name in PERCENTILES:
        _put(row, f"kl_divergence_{name}_nats", _percentile(record, name), why)
    row.put("kl_divergence_max_nats", record.kl_divergence_max_nats if record else None, why)
    row.put("bits_per_byte", record.bits_per_byte if record else None, why)
    row.put("scored_tokens", record.scored_tokens if record else None, why)
    row.put("windows", record.windows if record else None, why)
    if with_rounding:
        nearest = variant.nearest
        row.put("rounding_kl_divergence_nats", nearest.rounded_nats, nearest.reason)
        row.put("rounding_times", nearest.times)
        row.put("suspicious", nearest.suspicion is not None if nearest.rounded_nats is not None else None)
    if with_routing:
        put_routing(row, variant)
    row.fail(variant.status.failed)
    return row


def _percentile(record: DivergenceRecord | None, name: str) -> Estimate | None:
    return record.kl_divergence_percentiles_nats.get(name) if record else None


def _put(row: Row, name: str, estimate: Estimate | None, why: str) -> None:
    row.put(name, estimate.value if estimate else None, why)
    row.put(f"{name}_standard_error", estimate.standard_error if estimate else None)


def _why(variant: VariantRecords) -> str:
    if variant.divergence and not variant.divergence.failure:
        return "not in the record: run diverge again"
    return variant.why_not("diverge")


def _mean(value: float, clustered: float | None, by_token: float | None) -> str:
    return divergence(value, clustered) + (f" ({significant(by_token, 2)})" if by_token is not None else "")


def _rounding(nats: float, times: float | None, suspicious: bool | None) -> str:
    shown = divergence(nats, None) + (f" ({ratio(times)})" if times is not None else "")
    return f"{shown} suspicious" if suspicious else shown


def _pair(name: str) -> tuple[str, str]:
    return name, f"{name}_standard_error"


_COLUMNS = (
    Column("variant", ("variant",), str),
    Column(
        "mean ± clustered (token) standard error",
        (*_pair("kl_divergence_nats"), "kl_divergence_token_standard_error"),
        _mean,
    ),
    *(Column(name, _pair(f"kl_divergence_{name}_nats"), divergence) for name in PERCENTILES),
    Column("max", ("kl_divergence_max_nats",), significant),
    Column("top-1 agreement (%)", _pair("top1_agreement"), share),
    Column("top-5 overlap (%)", _pair("top5_overlap"), share),
    Column("Δp mean (points)", _pair("delta_p"), share),
    Column("Δp RMS (points)", _pair("delta_p_rms"), share),
    Column("ln PPL ratio", _pair("log_perplexity_ratio"), divergence),
    Column("bits per byte", ("bits_per_byte",), partial(fixed, decimals=4)),
)


_ROUNDING = Column(
    "rounding to nearest (variant / it)",
    ("rounding_kl_divergence_nats", "rounding_times", "suspicious"),
    _rounding,
)


_ROUTING = Column("tokens with another set of experts (%)", SHARE, share)


def _quarter_columns(edges: Sequence[tuple[float, float]]) -> tuple[Column, ...]:
    # With a quarter left out the others are no quarters in order any more, and go by their bounds alone.
    names = (
        ("surest quarter", "second quarter", "third quarter", "least sure quarter")
        if len(edges) in (0, 4)
        else ("",) * len(edges)
    )

    def header(place: int) -> str:
        between = f"entropy {fixed(edges[place][0], 2)} to {fixed(edges[place][1], 2)}" if edges else ""
        return ", ".join(part for part in (names[place], between) if part)

    def cell(kl: float, error: float | None, top1: float | None) -> str:
        return divergence(kl, error) + (f" ({fixed(100 * top1, 1)} %)" if top1 is not None else "")

    keys = [
        (*_pair(f"quarter{i + 1}_kl_divergence_nats"), f"quarter{i + 1}_top1_agreement")
        for i in range(len(names))
    ]
    return (
        Column("variant", ("variant",), str),
        *(Column(header(i), key, cell) for i, key in enumerate(keys)),
    )
