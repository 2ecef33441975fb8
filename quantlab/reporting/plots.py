"""Draw every plot of a report, by file name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from textwrap import fill

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.speeds import PointSpeed
from quantlab.comparison.tasks import MeanComparison, TaskComparison
from quantlab.inert import drawn
from quantlab.numbers import fixed, perplexity, points, ratio, significant, unit_for
from quantlab.reporting.accuracy import MEAN
from quantlab.reporting.bars import Bar, Bars, bars_grid_svg, bars_of, bars_svg
from quantlab.reporting.devices import OnDevice, across_devices
from quantlab.reporting.lines import grid_svg
from quantlab.reporting.pareto import pareto_svg
from quantlab.reporting.speed import timed_points

_MOST_DEVICES = 3
_LOG_FROM = 10.0
"""Perplexities stand on a log scale where the largest is this many times the smallest."""


def draw_plots(comparison: Comparison, others: Sequence[Comparison] = ()) -> dict[str, str]:
    """SVG by file name; a plot or panel without a single number is left out."""
    variants = list(comparison.variants.values())
    panels = {
        "quality.svg": _quality(variants),
        "accuracy.svg": _accuracy(comparison),
        "decode.svg": _speeds(variants),
        "memory.svg": _memory(comparison),
    }
    shown = {name: [panel for panel in some if _has_number(panel)] for name, some in panels.items()}
    timed = timed_points(comparison, *others)
    whole = {
        "pareto.svg": pareto_svg(comparison),
        "depth.svg": grid_svg(timed, "context_tokens"),
        "batch.svg": grid_svg(timed, "batch"),
        "devices.svg": _devices(across_devices(comparison, *others)),
    }
    return {name: svg for name, svg in whole.items() if svg} | {
        name: bars_svg(some) for name, some in shown.items() if some
    }


def _has_number(panel: Bars) -> bool:
    return any(value is not None for value in panel.values)


def _bar(variant: VariantComparison, value: float | None, ends: tuple[float, float] | None = None) -> Bar:
    failed = variant.status.failed
    return Bar(variant.slug, value, ends, failed.kind if failed else "not measured")


def _quality(variants: Sequence[VariantComparison]) -> list[Bars]:
    records = [(variant, variant.records.divergence) for variant in variants]
    perplexities = [
        (v, record.perplexity.value if record and record.perplexity else None) for v, record in records
    ]
    known = [value for _, value in perplexities if value]
    wide = bool(known) and max(known) > _LOG_FROM * min(known)
    title = "perplexity (log scale)" if wide else "perplexity"
    nats = [_bar(v, v.divergence.estimate.value if v.divergence.estimate else None) for v in variants]
    return [
        bars_of([_bar(variant, value) for variant, value in perplexities], title, perplexity, log=wide),
        bars_of(nats, "KL divergence (nats/token, log scale)", significant, log=True),
    ]


def _accuracy(comparison: Comparison) -> list[Bars]:
    """The mean, unless one task alone is in points, then task by task."""
    panels = (
        [_drops(comparison, MEAN, lambda variant: variant.mean)]
        if len(comparison.tasks_in_points) != 1
        else []
    )
    for task in (*comparison.tasks, *comparison.failed_tasks):

        def on_task(variant: VariantComparison, task: str = task) -> TaskComparison:
            return variant.tasks[task]

        panels.append(_drops(comparison, task, on_task))
    return panels


def _drops(
    comparison: Comparison, name: str, of: Callable[[VariantComparison], TaskComparison | MeanComparison]
) -> Bars:
    bars = []
    for variant in comparison.variants.values():
        compared = of(variant)
        ends = compared.judged.ninety_five if compared.judged else None
        if not variant.is_baseline:
            bars.append(_bar(variant, compared.drop.points if compared.drop else None, ends))
    return bars_of(bars, f"{drawn(name)}: accuracy drop\n(points, 95 % interval)", points)


def _speeds(variants: Sequence[VariantComparison]) -> list[Bars]:
    """A panel per engine, because figures across engines are not compared."""
    # A variant that never ran has no engine: it stands with the others of its method.
    usual = {variant.method: variant.engine for variant in variants if variant.engine}
    panels = []
    for engine in sorted(set(usual.values())):
        own = [variant for variant in variants if (variant.engine or usual.get(variant.method)) == engine]
        title = f"decoding in {drawn(engine)} (tokens/s, ratio to its 16-bit variant)"
        panels.append(_decoding([(_bar(variant, None), variant.first_speed) for variant in own], title))
    return panels


def _decoding(variants: Iterable[tuple[Bar, PointSpeed | None]], title: str) -> Bars:
    """The ratio stands beside each figure, the ceiling as a tick."""
    bars, marks, beside = [], [], []
    for bar, speed in variants:
        rate, against = (speed.decode.rate, speed.decode.ratio.value) if speed else (None, None)
        roof = speed.point.roofline if speed else None
        bars.append(
            bar._replace(
                value=rate.value if rate else None, ends=_ends(rate.low, rate.high) if rate else None
            )
        )
        marks.append(roof.tokens_per_second if roof else None)
        beside.append(f" ({ratio(against)})" if against is not None else "")
    named = title + (
        "\n| the ceiling of the memory bandwidth" if any(mark is not None for mark in marks) else ""
    )
    return bars_of(bars, named, significant)._replace(marks=tuple(marks), beside=tuple(beside))


def _ends(low: float | None, high: float | None) -> tuple[float, float] | None:
    return (low, high) if low is not None and high is not None else None


def _devices(measurements: Sequence[OnDevice]) -> str | None:
    """A row of panels per engine, a panel per device, at the smallest workload."""
    devices = list(dict.fromkeys(each.device for each in measurements))
    places = {(each.variant.slug, each.device): each for each in measurements}
    lines = []
    for engine in sorted({each.engine for each in measurements if each.engine}):
        slugs = dict.fromkeys(each.variant.slug for each in measurements if each.engine == engine)
        for some in (devices[n : n + _MOST_DEVICES] for n in range(0, len(devices), _MOST_DEVICES)):
            lines.append(
                [
                    _on_device([(slug, places.get((slug, device))) for slug in slugs], engine, device)
                    for device in some
                ]
            )
    lines = [line for line in lines if any(_has_number(panel) for panel in line)]
    return bars_grid_svg(lines) if lines else None


def _on_device(variants: Sequence[tuple[str, OnDevice | None]], engine: str, device: str) -> Bars:
    title = f"{fill(drawn(device), 44)}\ndecoding in {drawn(engine)} (tokens/s, ratio)"
    bars = [
        (_bar(at.variant, None), at.first_speed) if at else (Bar(slug, None), None) for slug, at in variants
    ]
    return _decoding(bars, title)


def _memory(comparison: Comparison) -> list[Bars]:
    variants = list(comparison.variants.values())
    sizes = [saving.bytes for variant in variants for saving in (variant.disk, variant.peak)]
    unit = unit_for(size for size in sizes if size is not None)

    def panel(title: str, byte_counts: Iterable[tuple[VariantComparison, int | None]]) -> Bars:
        bars = [_bar(v, count / unit.bytes if count is not None else None) for v, count in byte_counts]
        return bars_of(bars, title, lambda value: fixed(value, 1 if value < 1000 else 0))

    peak = "on the device (NVML)" if comparison.peak_kind == "process_vram_bytes" else "of the process"
    return [
        panel(f"disk ({unit.name})", [(variant, variant.disk.bytes) for variant in variants]),
        panel(f"peak memory {peak} ({unit.name})", [(variant, variant.peak.bytes) for variant in variants]),
    ]
