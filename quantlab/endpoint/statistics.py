"""Compute the figures of a level of requests; records/endpoint.py defines them."""

from __future__ import annotations

import collections
import itertools
import statistics
from collections.abc import Iterable, Sequence

from quantlab.analysis.medians import median
from quantlab.records.endpoint import Distribution, LevelSummary, RequestRecord

_SURE = 0.95


def percentile(samples: Sequence[float], share: float) -> float | None:
    """The value below which this share of the samples lies; None where there are too few (see
    Distribution)."""
    n = len(samples)
    if n == 0 or 1 - share**n < _SURE:
        return None
    ordered, place = sorted(samples), share * (n - 1)
    low = int(place)
    high = min(low + 1, n - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def distribution(samples: Sequence[float], independent: bool = True) -> Distribution | None:
    """Percentiles of samples; None where there are none."""
    if not samples:
        return None
    return Distribution(
        n=len(samples),
        mean=statistics.fmean(samples),
        p50=percentile(samples, 0.5),
        p90=percentile(samples, 0.9),
        p95=percentile(samples, 0.95),
        p99=percentile(samples, 0.99),
        median=median(samples) if independent else None,
    )


def time_per_output_token(request: RequestRecord) -> float | None:
    """Seconds per token after the first; None for fewer than two tokens or events, or where some may be
    hidden."""
    if request.hidden_tokens is None:
        return None
    tokens = (request.output_tokens or 0) - request.hidden_tokens
    if tokens < 2 or len(request.event_seconds) < 2:
        return None
    return (request.event_seconds[-1] - request.event_seconds[0]) / (tokens - 1)


def summarize(requests: Sequence[RequestRecord], duration_seconds: float) -> LevelSummary:
    """What the requests of a level come to; faulty ones are counted and in no other figure."""
    good = [r for r in requests if r.fault is None]
    tokens = sum(r.output_tokens or 0 for r in good)
    gaps = [b - a for r in good for a, b in itertools.pairwise(r.event_seconds)]
    return LevelSummary(
        good=len(good),
        faults=dict(sorted(collections.Counter(r.fault.kind for r in requests if r.fault).items())),
        duration_seconds=duration_seconds,
        requests_per_second=len(good) / duration_seconds,
        output_tokens_per_second=tokens / duration_seconds if good else None,
        output_tokens=tokens,
        lost_tokens=sum(r.output_tokens or 0 for r in requests if r.fault),
        time_to_first_token=distribution([r.event_seconds[0] for r in good]),
        time_per_output_token=distribution(_known(time_per_output_token(r) for r in good)),
        inter_token_latency=distribution(gaps, independent=False),
        latency=distribution([r.event_seconds[-1] for r in good]),
        prompt_tokens=median(_known(r.prompt_tokens for r in good)),
        output_tokens_per_request=median(_known(r.output_tokens for r in good)),
        server_prompt_tokens_per_second=median(_known(r.server_prompt_tokens_per_second for r in good)),
        server_decode_tokens_per_second=median(_known(r.server_decode_tokens_per_second for r in good)),
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
