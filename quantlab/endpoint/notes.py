"""Write the notes of an endpoint's record: what a reader of its figures must know, one sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.endpoint.client import Client
from quantlab.endpoint.protocols import CUT
from quantlab.records.endpoint import EndpointWorkload, Level, RequestRecord

LEAST_PER_WORKER = 2
"""Requests of a level per request under way: with fewer than one there would never be as many under way as it
says."""
_BUSY_CLIENT = 0.7
_OFF_TARGET = 0.1


def notes_of(levels: Sequence[Level], load: EndpointWorkload, counted: bool) -> list[str]:
    """The notes of the levels measured so far; `counted` says whether the server counts prompt tokens."""
    good = [request for level in levels for request in level.requests if not request.fault]
    return [
        *_on_counting(good),
        *_on_hidden_tokens(good),
        *_on_prompts(good, load, counted),
        *_on_short_answers(good, load),
        *_on_levels(levels, load),
    ]


def notes_on_connections(client: Client) -> list[str]:
    if client.closes:
        return [
            "The server ends connections that it promised to keep: every request makes its own, and that is"
            " in the time to first token."
        ]
    if not client.gave_up_waiting:
        return []
    return [
        "The server leaves streams open after their last event: connections are made anew, and that is in the"
        " time to first token."
    ]


def _on_counting(good: Sequence[RequestRecord]) -> list[str]:
    if any(r.counted_by == "events" for r in good):
        return [
            "The server did not count output tokens: events were counted, and one may carry several tokens."
        ]
    if any(
        len(r.event_seconds) < 0.9 * ((r.output_tokens or 0) - r.hidden_tokens)
        for r in good
        if r.hidden_tokens is not None
    ):
        return [
            "Events carry more than one token: inter-token latency is the time between events, not between"
            " tokens."
        ]
    return []


def _told_hidden(request: RequestRecord) -> bool:
    """Whether more than the end of text came in no event."""
    return (request.hidden_tokens or 0) > 1


def _on_hidden_tokens(good: Sequence[RequestRecord]) -> list[str]:
    notes = []
    unknown, hidden = sum(r.hidden_tokens is None for r in good), [r for r in good if _told_hidden(r)]
    if beside := sum(r.uncounted_tokens > 0 for r in good):
        notes.append(
            f"{beside} of {len(good)} answers have tokens in the server's total that it counts in neither"
            " prompt nor output (reasoning): they are in no figure."
        )
    if unknown:
        notes.append(
            f"{unknown} of {len(good)} answers have more tokens by the server's count than their events show "
            "(hidden reasoning, or several tokens in an event): they have no time per output token."
        )
    if hidden:
        notes.append(
            f"{len(hidden)} of {len(good)} answers have tokens that came in no event with text: the time per"
            " output token is without them, the throughput with them."
        )
    return notes


def _on_prompts(good: Sequence[RequestRecord], load: EndpointWorkload, counted: bool) -> list[str]:
    if good and all(r.prompt_tokens is None for r in good):
        sized = (
            f"about {load.prompt_tokens} tokens by its count of two others"
            if counted
            else f"{load.prompt_tokens} words"
        )
        return [f"The server's streams do not count prompt tokens: prompts have {sized}."]
    if any(
        abs((r.prompt_tokens or 0) - load.prompt_tokens) > max(4, _OFF_TARGET * load.prompt_tokens)
        for r in good
    ):
        return [f"Prompts are not of the {load.prompt_tokens} tokens asked for: see the table."]
    return []


def _on_short_answers(good: Sequence[RequestRecord], load: EndpointWorkload) -> list[str]:
    short = sum((r.output_tokens or 0) < load.decode_tokens and r.finish_reason not in CUT for r in good)
    if not short:
        return []
    return [
        f"{short} of {len(good)} answers are shorter than {load.decode_tokens} tokens: the model ended them."
    ]


def _on_levels(levels: Sequence[Level], load: EndpointWorkload) -> list[str]:
    notes = [f"Concurrency {lv.concurrency}: {lv.stopped}." for lv in levels if lv.stopped]
    notes += [
        f"Concurrency {lv.concurrency}: {LEAST_PER_WORKER * lv.concurrency} requests instead of"
        f" {load.requests}, so that as many are under way."
        for lv in levels
        if LEAST_PER_WORKER * lv.concurrency > load.requests
    ]
    if len(levels) < len(load.concurrency):
        skipped = ", ".join(str(c) for c in load.concurrency[len(levels) :])
        why = "it was interrupted" if levels[-1].summary.good else "the level before had no good answer"
        notes.append(f"Concurrency {skipped} was not measured: {why}.")
    notes += [
        f"Concurrency {lv.concurrency}: this client used {lv.client_cpu_share:.0%} of a core and may itself"
        " be the limit."
        for lv in levels
        if lv.summary.good and lv.client_cpu_share > _BUSY_CLIENT
    ]
    return notes
