"""What was measured here: the figures of the reports in and below a folder, by model, variant and device.

Read from each report's tables/summary.json, which the report stage makes from the records; a report without one is left
out, and a variant that failed has no figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from pydantic import ValidationError

from quantlab.catalogue.gpu import GpuSpec
from quantlab.errors import QuantlabError
from quantlab.names import parse_variant
from quantlab.parsing import read_json
from quantlab.planning.choice import Quantity, exact
from quantlab.records import MeasureRecord, SpeedPoint

PATTERNS = ("reports/*/tables/summary.json", "runs/*/reports/*/tables/summary.json", "reports/examples/*/tables/summary.json")
_T975 = 1.96
"""For the interval of a divergence, whose standard error is of 30 windows or more."""


class Throughput(NamedTuple):
    """The most tokens per second that were measured, whatever the batch and context."""

    decode_tokens_per_second: float
    prefill_tokens_per_second: float | None
    batch: int
    context_tokens: int


class Measured(NamedTuple):
    """One variant in one report."""

    model: str
    variant: str
    device: str | None
    """In words, as the driver names it."""
    source: str
    """The report's folder."""
    drop_points: Quantity | None
    """Mean over the report's tasks with its 95 % interval."""
    divergence_nats: Quantity | None
    decode_tokens_per_second: Quantity | None
    """At the smallest batch and context of the report."""
    parameters: int | None
    disk_bytes: int | None = None
    """Of all files of the checkpoint."""
    throughput: Throughput | None = None


def local_evidence(root: Path) -> tuple[Measured, ...]:
    """Every measured variant of the reports of a folder and of the runs in it."""
    paths = sorted({path for pattern in PATTERNS for path in root.glob(pattern)})
    return tuple(found for path in paths for row in _rows(path) if (found := _measured(row, path.parents[1], root)))


def measured_at(evidence: Iterable[Measured], model: str, variant: str) -> list[Measured]:
    """The figures of one variant of one model; several reports may have some."""
    return [each for each in evidence if (each.model, each.variant) == (model, variant)]


def is_gpu(device: str | None, gpu: GpuSpec, known: Iterable[GpuSpec]) -> bool:
    """Whether a device in a driver's words is this kind of GPU: the kind of which most words are in its name."""
    words = set(re.findall(r"[a-z0-9]+", (device or "").lower()))
    if "laptop" in words:
        return False
    best = max(((_matched(spec, words), spec.name) for spec in known), default=(0, ""))
    return best[0] > 0 and best[1] == gpu.name


def _matched(spec: GpuSpec, words: set[str]) -> int:
    """How many words the longest of its names shares, all of which must be there."""
    names = [set(re.findall(r"[a-z0-9]+", name.lower())) for name in (spec.name, *spec.aliases)]
    return max((len(name) for name in names if name and name <= words), default=0)


def _rows(path: Path) -> Sequence[dict[str, Any]]:
    try:
        rows = read_json(path)
    except QuantlabError:
        return []
    return [row for row in rows if isinstance(row, dict) and _is_variant(row.get("variant"))] if isinstance(rows, list) else []


def _is_variant(slug: object) -> bool:
    try:
        parse_variant(str(slug))
    except QuantlabError:
        return False
    return True


def _measured(row: dict[str, Any], report: Path, root: Path) -> Measured | None:
    slug = str(row["variant"])
    if row.get("status") == "failed":
        return None
    source = str(report.relative_to(root))
    measure, made = (_record(report, slug, stage) for stage in ("measure", "quantize"))
    drop = _interval(row, "mean_drop_points", "mean_drop_lower_points", "mean_drop_upper_points", source)
    nats, error = row.get("kl_divergence_nats"), row.get("kl_divergence_standard_error")
    spread = _T975 * error if isinstance(error, int | float) else None
    divergence = None
    if isinstance(nats, int | float):
        low, high = (max(0.0, nats - spread), nats + spread) if spread is not None else (None, None)
        divergence = Quantity(float(nats), "measured", low, high, source)
    speed = row.get("decode_tokens_per_second")
    return Measured(
        model=report.name,
        variant=slug,
        device=measure.get("device"),
        source=source,
        drop_points=drop,
        divergence_nats=divergence,
        decode_tokens_per_second=exact(float(speed), "measured", source) if isinstance(speed, int | float) else None,
        parameters=made.get("parameters"),
        disk_bytes=row.get("disk_bytes"),
        throughput=_throughput(measure),
    )


def _throughput(measure: dict[str, Any]) -> Throughput | None:
    if not measure.get("speed"):
        return None
    points = [point for point in _points(measure) if point.decode_tokens_per_second]
    if not points:
        return None
    best = max(points, key=lambda point: median(point.decode_tokens_per_second))
    prefill = max((median(p.prefill_tokens_per_second) for p in points if p.prefill_tokens_per_second), default=None)
    return Throughput(median(best.decode_tokens_per_second), prefill, best.batch, best.context_tokens)


def _points(measure: dict[str, Any]) -> tuple[SpeedPoint, ...]:
    try:
        speed = MeasureRecord.model_validate(measure).speed
    except ValidationError:
        return ()
    return speed.points if speed else ()


def _interval(row: dict[str, Any], value: str, lower: str, upper: str, source: str) -> Quantity | None:
    found = [row.get(key) for key in (value, lower, upper)]
    if not isinstance(found[0], int | float):
        return None
    low, high = (float(end) if isinstance(end, int | float) else None for end in found[1:])
    return Quantity(float(found[0]), "measured", low, high, source)


def _record(report: Path, slug: str, stage: str) -> dict[str, Any]:
    path = report / "data" / slug / f"{stage}.json"
    try:
        found = read_json(path)
    except QuantlabError:
        return {}
    return found if isinstance(found, dict) else {}
