"""Build the record's points: memory, time, cost and share of the ceiling of each workload."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from quantlab.analysis.medians import median, paired_ratio
from quantlab.architecture.cache_formula import CacheFormula, cache_formula
from quantlab.architecture.roofline import WeightReads, measured_roofline
from quantlab.catalogue.gpu import gpu_called
from quantlab.errors import CellFailure
from quantlab.hardware.bandwidth import measured_bandwidth
from quantlab.hardware.device import Device
from quantlab.measuring.memory import Held
from quantlab.measuring.speed import Timings, Turns
from quantlab.measuring.timing import Timed
from quantlab.records import Roofline, SpeedPoint
from quantlab.records.measured import Bandwidth, Median
from quantlab.workspace.cell import Cell


class Ceilings(NamedTuple):
    """What the roofline and the cache's formula need."""

    bandwidth: Bandwidth | None
    reason: str | None
    config: dict[str, Any]
    """The model's config.json."""


def ceilings_of(cell: Cell, device: Device) -> Ceilings:
    """The device's bandwidth, measured now where the workspace does not know it."""
    config = json.loads((cell.prepared.weights / "config.json").read_text(encoding="utf-8"))
    try:
        return Ceilings(_with_quoted(measured_bandwidth(cell.root, device), device), None, config)
    except CellFailure as error:
        return Ceilings(None, error.reason, config)


def _with_quoted(bandwidth: Bandwidth, device: Device) -> Bandwidth:
    """With the data sheet's figure beside it, where the model runs on one GPU that the catalogue has."""
    spec = gpu_called(device.name) if len(device.places.gpus) == 1 else None
    if spec is None:
        return bandwidth
    source = spec.source.get("bandwidth_gb_per_second") or spec.source.get("spec", "the catalogue")
    return bandwidth.model_copy(
        update={"quoted_bytes_per_second": spec.bandwidth_gb_per_second * 1e9, "quoted_source": source}
    )


def points(
    held: Sequence[Held], timed: Timed, price: float | None, ceilings: Ceilings, about: dict[str, Any]
) -> list[SpeedPoint]:
    """One for each workload, those that failed as well. `about` is what the worker said of its engine."""
    paired = timed.baseline is not None and timed.baseline.pairing == "alternating"
    engine = _Engine(
        cache_formula(ceilings.config, about["cache_dtype"]),
        WeightReads(**about["reads"]),
        about.get("parallel", 1),
    )
    return [_point(h, timed.turns.get(h.work), paired, price, ceilings.bandwidth, engine) for h in held]


class _Engine(NamedTuple):
    """What the measured engine reads in a decode."""

    cache: CacheFormula | None
    weights: WeightReads
    gpus: int
    """GPUs that read their part of every layer at the same time; 1 where a model is split by layers, which
    are read in turn."""


def _point(
    held: Held,
    turns: Turns | None,
    paired: bool,
    price: float | None,
    bandwidth: Bandwidth | None,
    engine: _Engine,
) -> SpeedPoint:
    work, formula = held.work, engine.cache
    point = SpeedPoint(
        batch=work.batch,
        context_tokens=work.context,
        prompt_tokens=work.prompt,
        decode_tokens=work.decode,
        failure=held.failure or (turns.variant.failure if turns else None),
        kv_cache_bytes=held.kv_cache_bytes,
        kv_cache_formula_bytes=(
            formula.keys_and_values(work.length + work.decode, work.batch) if formula else None
        ),
        state_bytes=held.state_bytes,
        peak_allocated_bytes=held.peak_allocated_bytes,
        peak_reserved_bytes=held.peak_reserved_bytes,
    )
    if turns is None or not turns.variant.repeats:
        return point
    rate = _rate(turns.variant, decode=True)
    cost = None if price is None or rate is None else price / (3600 * rate.value) * 1e6
    return point.model_copy(
        update=_speeds(turns.variant)
        | (_beside_baseline(turns, paired) if turns.baseline else {})
        | {"roofline": _roofline(point, rate, bandwidth, engine), "dollars_per_million_tokens": cost}
    )


def _speeds(timings: Timings) -> dict[str, Any]:
    prefill, decode = (
        tuple(getattr(t, name) for t in timings.repeats) for name in ("prefill_seconds", "decode_seconds")
    )
    return {
        "prefill_seconds": prefill,
        "decode_seconds": decode,
        "prefill_rate": _rate(timings, decode=False),
        "decode_rate": _rate(timings, decode=True),
        "time_to_first_token": median(prefill),
        "time_per_output_token": median([seconds / timings.work.decode for seconds in decode]),
        "prefill_joules_per_token": timings.joules_per_token(decode=False),
        "decode_joules_per_token": timings.joules_per_token(decode=True),
    }


def _rate(timings: Timings, decode: bool) -> Median | None:
    work = timings.work
    if decode:
        return median([work.batch * work.decode / t.decode_seconds for t in timings.repeats])
    return median([work.batch * work.length / t.prefill_seconds for t in timings.repeats])


def _beside_baseline(turns: Turns, paired: bool) -> dict[str, Any]:
    """The 16-bit variant's samples; the ratio of speeds is the inverse of the ratio of times."""
    variant, baseline = turns.variant.repeats, turns.baseline.repeats if turns.baseline else ()
    ratios = {
        f"{name}_ratio": paired_ratio(
            [getattr(t, f"{name}_seconds") for t in baseline],
            [getattr(t, f"{name}_seconds") for t in variant],
        )
        for name in ("prefill", "decode")
    }
    return {
        "baseline_prefill_seconds": tuple(t.prefill_seconds for t in baseline),
        "baseline_decode_seconds": tuple(t.decode_seconds for t in baseline),
        "baseline_failure": turns.baseline.failure if turns.baseline else None,
    } | (ratios if paired else {})


def _roofline(
    point: SpeedPoint, rate: Median | None, bandwidth: Bandwidth | None, engine: _Engine
) -> Roofline | None:
    """The cache is read up to the token that is computed: in the middle of the decode as many tokens as then
    are in it."""
    weights = engine.weights.per_step(point.batch)
    if bandwidth is None or weights is None:
        return None
    before = point.context_tokens + point.prompt_tokens
    if engine.cache:
        cache = engine.cache.read_per_step(before, point.decode_tokens, point.batch, engine.gpus)
    else:  # as many bytes of each token as the measured cache has
        share = (before + point.decode_tokens / 2) / (before + point.decode_tokens)
        cache = round((point.kv_cache_bytes or 0) * share) + (point.state_bytes or 0)
    speed = bandwidth.measured_bytes_per_second * engine.gpus
    return measured_roofline(point.batch, weights, cache, speed, rate.value if rate else None)
