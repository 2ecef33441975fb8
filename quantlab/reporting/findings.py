"""The first paragraph: sentences made from the numbers, each no stronger than the sample carries.

Thresholds are those named here and are printed with the sentence. A divergence counts as below one where the upper
end of its 95 % interval is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantlab import engines, numbers
from quantlab.comparison.frontier import pareto_frontier, pareto_points
from quantlab.comparison.load import BASELINE, ModelRecords
from quantlab.comparison.noise import MINIMUM_WINDOWS, upper
from quantlab.comparison.ranking import ranking_findings
from quantlab.comparison.references import against_another
from quantlab.names import parse_variant
from quantlab.numbers import listing
from quantlab.records import Estimate
from quantlab.reporting.drop_findings import drop_findings
from quantlab.reporting.table import Row, Table

KL_THRESHOLDS_NATS = (0.01, 0.1)


def findings(records: ModelRecords, summary: Table) -> list[str]:
    """The sentences, in the order in which a reader chooses."""
    found = [
        _counts(records, summary.rows),
        *_smallest(records, summary),
        *ranking_findings(records, summary.rows),
        *_noise(records, summary.rows),
        _frontier(summary),
    ]
    return [
        sentence
        for sentence in [*found, *drop_findings(records, summary.rows), _collapsed(summary.rows), _speeds(summary.rows)]
        if sentence
    ]


def _counts(records: ModelRecords, rows: Sequence[Row]) -> str:
    failed = [row for row in rows if row.failed]
    devices = sorted({r.device for v in records.variants.values() for r in v.records.values() if r.device and not r.failure})
    where = f" on {listing(devices)}" if devices else ""
    measured = len(rows) - len(failed)
    text = f"{measured} variant{'s' if measured != 1 else ''} of {records.model} {'were' if measured != 1 else 'was'} measured{where}."
    reasons = [f"{_slug(row)} ({row.failed.kind})" for row in failed if row.failed]
    return text + (f" Without a result: {listing(reasons)}." if reasons else "")


def _noise(records: ModelRecords, rows: Sequence[Row]) -> Iterable[str]:
    quantized = [row for row in rows if row.values["distinguishable"] is not None]
    hidden = [_slug(row) for row in quantized if row.values["distinguishable"] is False]
    if hidden:
        yield f"Not distinguishable from the unquantized model's own numerical noise in the same engine: {listing(hidden)}."
    elif quantized:
        yield f"Every quantized variant that has a noise floor ({len(quantized)}) diverges measurably from the unquantized model."
    else:
        yield "No variant can be compared with a noise floor, because none was measured in its engine and dtype."


def _smallest(records: ModelRecords, summary: Table) -> Iterable[str]:
    sizes = {_slug(row): row for row in _quantized(summary.rows) if row.number("disk_bytes") is not None}
    odd = against_another(records)
    estimates = {slug: kl for slug in sizes if slug not in odd and (kl := _divergence(records, slug))}
    if not estimates:
        return
    unit = numbers.unit_for(row.number("disk_bytes") or 0 for row in sizes.values())
    parts = []
    for threshold in KL_THRESHOLDS_NATS:
        below = [slug for slug, kl in estimates.items() if upper(kl) < threshold]
        best = min(below, key=lambda slug: sizes[slug].number("disk_bytes") or 0, default=None)
        below_it = f"below {threshold:g} nats per token"
        parts.append(f"{_size(sizes[best], unit)} is the smallest {below_it}" if best else f"no quantized variant is {below_it}")
    few = min(kl.n for kl in estimates.values()) < MINIMUM_WINDOWS
    how = "By the mean alone (the windows are too few for an interval)" if few else "By the upper end of the 95 % interval"
    yield f"{how} of the KL divergence, {', and '.join(parts)}."


def _frontier(summary: Table) -> str:
    front = [p.variant for p in pareto_frontier(pareto_points(summary)) if parse_variant(p.variant).bits < 16]
    return f"By the measured means no variant is both smaller and closer than {listing(front)}." if front else ""


def _collapsed(rows: Sequence[Row]) -> str:
    fallen = [row for row in rows if row.values["status"] == "collapsed"]
    named = [f"{_slug(row)} (perplexity {numbers.perplexity(p)})" if (p := row.number("perplexity")) else _slug(row) for row in fallen]
    return f"Collapsed, worse than guessing on the check text: {listing(named)}." if named else ""


def _speeds(rows: Sequence[Row]) -> str:
    parts = []
    for engine, slug in engines.with_sixteen_bit():
        ratios = [r for row in _quantized(rows) if row.values["engine"] == engine and (r := row.number("decode_ratio")) is not None]
        if ratios:
            low, high = numbers.fixed(min(ratios), 2), numbers.fixed(max(ratios), 2)
            parts.append(f"{low}{f' to {high}' if high != low else ''} times {slug}'s speed in {engine}")
    return f"Decoding runs at {listing(parts)}; figures of different engines are not compared." if parts else ""


def _quantized(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if isinstance(bits := row.values["bits"], int) and bits < 16]


def _divergence(records: ModelRecords, slug: str) -> Estimate | None:
    record = records.variants[slug].divergence
    return record.kl_divergence_nats if record and not records.variants[slug].failure else None


def _size(row: Row, unit: numbers.ByteUnit) -> str:
    saving = row.number("disk_saving")
    saved = f", {numbers.percent(saving)} less than {BASELINE}" if saving is not None else ""
    return f"**{_slug(row)}** ({unit.text(row.number('disk_bytes') or 0)} {unit.name}{saved})"


def _slug(row: Row) -> str:
    return str(row.values["variant"])
