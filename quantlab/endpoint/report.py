"""Write the record of an endpoint as markdown."""

from __future__ import annotations

from quantlab.inert import literal, one_line
from quantlab.numbers import fixed, significant
from quantlab.records.endpoint import Distribution, EndpointRecord, Level, TaskOutcome
from quantlab.records.measured import Median

_NONE = "–"


def markdown(record: EndpointRecord) -> str:
    """The page: what was measured, a table of the levels, the tasks, and what a reader must know."""
    load = record.workload
    least = "at least " if any(len(level.requests) > load.requests for level in record.levels) else ""
    parts = [
        f"# {_cell(record.model)} at {_cell(record.url)}",
        (
            f"{_server(record)}Measured {record.started} from {_cell(record.client)}; {least}{load.requests}"
            f" requests per concurrency, about {load.prompt_tokens} prompt tokens, {load.decode_tokens}"
            f" tokens asked for, at most {load.timeout_seconds:g} s each."
        ),
    ]
    if record.fault:
        parts.append(
            f"**Not measured**: {record.fault.kind.replace('_', ' ')}: {_cell(record.fault.message)}"
        )
    if record.levels:
        parts += [_table(_HEADS, [_row(level) for level in record.levels]), _MEANING]
    if any(level.summary.faults for level in record.levels):
        parts.append(_table(("Concurrency", "Fault", "Requests", "The first one's message"), _faults(record)))
    if record.tasks:
        parts.append(
            _table(("Task", "Metric", "Score", "Items", "Cut answers", "Empty answers"), _tasks(record))
        )
    parts += ["\n".join(f"- {_cell(note)}" for note in record.notes)] if record.notes else []
    return "\n\n".join(parts) + "\n"


_HEADS = (
    "At once",
    "Good / sent",
    "TTFT ms",
    "p90",
    "p95",
    "p99",
    "TPOT ms",
    "p90",
    "p95",
    "p99",
    "ITL p50 ms",
    "p99",
    "Latency s",
    "p90",
    "Requests/s",
    "Output tokens/s",
    "Prompt tokens",
    "Output tokens",
)
_MEANING = (
    "TTFT: time to first token. TPOT: (last - first token) / (tokens - 1) per request. ITL: between one"
    " event and the next. Medians with their interval in brackets (95 % from 6 requests on). Only good"
    f" requests count; {_NONE} where there are too few for a percentile. The clock is the client's, network"
    " and queue included."
)


def _server(record: EndpointRecord) -> str:
    return f"Server: {_cell(record.server)}. " if record.server else ""


def _row(level: Level) -> tuple[str, ...]:
    s = level.summary
    ttft, tpot, itl, latency = (
        s.time_to_first_token,
        s.time_per_output_token,
        s.inter_token_latency,
        s.latency,
    )
    rate = _NONE if s.output_tokens_per_second is None else significant(s.output_tokens_per_second)
    return (
        str(level.concurrency),
        f"{s.good} / {len(level.requests)}",
        *(_median(ttft, 1e3), *_tail(ttft, 1e3)),
        *(_median(tpot, 1e3), *_tail(tpot, 1e3)),
        *(_time(itl.p50 if itl else None, 1e3), _time(itl.p99 if itl else None, 1e3)),
        *(_median(latency, 1), _time(latency.p90 if latency else None, 1)),
        significant(s.requests_per_second) if s.good else _NONE,
        rate,
        _count(s.prompt_tokens),
        _count(s.output_tokens_per_request),
    )


def _median(d: Distribution | None, scale: float) -> str:
    if d is None or d.median is None:
        return _NONE
    return (
        f"{significant(scale * d.median.value)} [{significant(scale * d.median.low)},"
        f" {significant(scale * d.median.high)}]"
    )


def _tail(d: Distribution | None, scale: float) -> tuple[str, str, str]:
    return (_time(d.p90, scale), _time(d.p95, scale), _time(d.p99, scale)) if d else (_NONE, _NONE, _NONE)


def _time(seconds: float | None, scale: float) -> str:
    return _NONE if seconds is None else significant(scale * seconds)


def _count(m: Median | None) -> str:
    return fixed(m.value, 0) if m else _NONE


def _faults(record: EndpointRecord) -> list[tuple[str, ...]]:
    rows = list[tuple[str, ...]]()
    for level in record.levels:
        for kind, count in level.summary.faults.items():
            first = next(r.fault for r in level.requests if r.fault and r.fault.kind == kind)
            rows.append((str(level.concurrency), kind.replace("_", " "), str(count), _cell(first.message)))
    return rows


def _tasks(record: EndpointRecord) -> list[tuple[str, ...]]:
    rows = list[tuple[str, ...]]()
    for name, outcome in record.tasks.items():
        if outcome.result:
            score = outcome.result.score
            error = "" if score.standard_error is None else f" ± {fixed(100 * score.standard_error, 1)}"
            items = f"{score.n} of {score.n + len(outcome.lost)}" if outcome.lost else str(score.n)
            rows.append(
                (
                    _cell(name),
                    _cell(outcome.result.metric),
                    f"{fixed(100 * score.value, 1)}{error} %{_unsound(outcome)}",
                    items,
                    _share(outcome.truncated, score.n),
                    _share(outcome.empty, score.n),
                )
            )
        else:
            reason = outcome.failure.reason if outcome.failure else "not measured"
            rows.append((_cell(name), _NONE, _cell(reason), _NONE, _NONE, _NONE))
    return rows


def _unsound(outcome: TaskOutcome) -> str:
    """What a score of answers says that are none: more of the limit on their length than of the model."""
    n = outcome.result.score.n if outcome.result else 0
    return " (every answer cut or empty)" if n and outcome.whole == 0 else ""


def _share(count: int | None, n: int) -> str:
    return _NONE if count is None else f"{fixed(100 * count / n, 1)} %"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text of a server's in a table: one line, nothing that markdown or a terminal would take for its own."""
    return literal(one_line(text))
