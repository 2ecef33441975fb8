"""The tables of divergence in full: its distribution over the tokens, agreement, and where the reference was sure."""

from __future__ import annotations

from functools import partial

from quantlab.records import DivergenceRecord, Estimate
from quantlab.reporting.load import ModelRecords, VariantRecords
from quantlab.reporting.numbers import divergence, fixed, significant
from quantlab.reporting.status import status_of
from quantlab.reporting.table import Column, Row, Table

PERCENTILES = ("median", "p90", "p95", "p99", "p99.9")
_ESTIMATES = ("kl_divergence_nats", "top1_agreement", "top5_overlap", "delta_p", "delta_p_rms", "log_perplexity_ratio")


def divergence_table(records: ModelRecords) -> Table:
    """One row per variant."""
    return Table("divergence", tuple(_row(variant) for variant in records.variants.values()), _COLUMNS)


def sureness_table(records: ModelRecords) -> Table:
    """One row per variant: its mean divergence in each quarter of the tokens by the reference's entropy."""
    rows, edges = [], {}
    for variant in records.variants.values():
        row, quarters = Row({"variant": variant.slug}), variant.divergence.by_entropy if variant.divergence else ()
        for place in range(4):
            quarter = quarters[place] if place < len(quarters) else None
            if quarter:
                edges[place] = (quarter.entropy_from_nats, quarter.entropy_to_nats)
            _put(row, f"quarter{place + 1}_kl_divergence_nats", quarter.kl_divergence_nats if quarter else None, _why(variant))
            _put(row, f"quarter{place + 1}_top1_agreement", quarter.top1_agreement if quarter else None, _why(variant))
        row.fail(status_of(variant).failed)
        rows.append(row)
    return Table("sureness", tuple(rows), _quarter_columns(edges))


def _row(variant: VariantRecords) -> Row:
    found, why = variant.divergence, _why(variant)
    row = Row({"variant": variant.slug}, notes=variant.notes("divergence"))
    for name in _ESTIMATES:
        _put(row, name, getattr(found, name) if found else None, why)
    row.put("kl_divergence_token_standard_error", found.kl_divergence_token_standard_error if found else None)
    for name in PERCENTILES:
        _put(row, f"kl_divergence_{name}_nats", _percentile(found, name), why)
    row.put("kl_divergence_max_nats", found.kl_divergence_max_nats if found else None, why)
    row.put("bits_per_byte", found.bits_per_byte if found else None, why)
    row.put("scored_tokens", found.scored_tokens if found else None, why)
    row.put("windows", found.windows if found else None, why)
    row.fail(status_of(variant).failed)
    return row


def _percentile(found: DivergenceRecord | None, name: str) -> Estimate | None:
    return found.kl_divergence_percentiles_nats.get(name) if found else None


def _put(row: Row, name: str, estimate: Estimate | None, why: str) -> None:
    row.put(name, estimate.value if estimate else None, why)
    row.put(f"{name}_standard_error", estimate.standard_error if estimate else None)


def _why(variant: VariantRecords) -> str:
    if variant.divergence and not variant.divergence.failure:
        return "the record is of an earlier version that did not measure it: run diverge again"
    return variant.why_not("divergence")


def _share(value: float, standard_error: float | None = None) -> str:
    return f"{fixed(100 * value, 2)}" + (f" ± {fixed(100 * standard_error, 2)}" if standard_error is not None else "")


def _mean(value: float, clustered: float | None, by_token: float | None) -> str:
    return divergence(value, clustered) + (f" ({significant(by_token, 2)})" if by_token is not None else "")


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
    Column("top-1 agreement (%)", _pair("top1_agreement"), _share),
    Column("top-5 overlap (%)", _pair("top5_overlap"), _share),
    Column("Δp mean (points)", _pair("delta_p"), _share),
    Column("Δp RMS (points)", _pair("delta_p_rms"), _share),
    Column("ln PPL ratio", _pair("log_perplexity_ratio"), divergence),
    Column("bits per byte", ("bits_per_byte",), partial(fixed, decimals=4)),
)


def _quarter_columns(edges: dict[int, tuple[float, float]]) -> tuple[Column, ...]:
    names = ("surest", "second", "third", "least sure")

    def header(place: int) -> str:
        low, high = edges.get(place, (None, None))
        between = f", entropy {fixed(low, 2)} to {fixed(high, 2)}" if low is not None and high is not None else ""
        return f"{names[place]} quarter{between}"

    def cell(kl: float, error: float | None, top1: float | None) -> str:
        return divergence(kl, error) + (f" ({fixed(100 * top1, 1)} %)" if top1 is not None else "")

    columns = [Column(header(i), (*_pair(f"quarter{i + 1}_kl_divergence_nats"), f"quarter{i + 1}_top1_agreement"), cell) for i in range(4)]
    return (Column("variant", ("variant",), str), *columns)
