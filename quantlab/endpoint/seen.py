"""Record a streamed answer's pieces in time, and check the server's count of tokens against them."""

from __future__ import annotations

import time

from quantlab.endpoint.protocols import Ask, Event
from quantlab.records.endpoint import Fault, RequestRecord

_TEMPLATE_TOKENS = 2**14
"""The most that a chat template and a server's own words may add to a prompt."""
_NEARLY = 1.1
_BUNDLED = 0.6
"""Words over tokens: English text has about 0.75 words a token, and a stream of single tokens at most one a
piece."""
_BROKEN_OFF = ("abort", "error", "cancelled")


class Seen:
    """What has been seen of an answer so far."""

    def __init__(self, sent: float) -> None:
        self.sent, self.stage = sent, "no answer yet"
        self.over: float | None = None
        self.events: list[float] = []
        self.tokens = self.payloads = 0
        self._words = 0
        self._before_text = self._at_last_text = 0
        self._reasoned = self._done = self._total = False
        self._last = Event()

    def add(self, event: Event, now: float) -> None:
        """Take in what a payload says."""
        self.payloads += 1
        self.tokens += event.token
        self._words += max(1, event.words) if event.token else 0
        if event.text:
            if not self.events:
                self._before_text = self.tokens - 1
            self._at_last_text = self.tokens
            self.events.append(now - self.sent)
            self.stage = f"after {len(self.events)} events with text"
        before = self._last
        self._reasoned, self._done = self._reasoned or event.reasoning, self._done or event.done
        self._total = self._total or event.total
        self._last = Event(
            finish_reason=event.finish_reason or before.finish_reason,
            prompt_tokens=_latest(before.prompt_tokens, event.prompt_tokens),
            output_tokens=_latest(before.output_tokens, event.output_tokens),
            reasoning_tokens=_latest(before.reasoning_tokens, event.reasoning_tokens),
            seconds={**before.seconds, **event.seconds},
        )

    def missing(self, ask: Ask) -> Fault | None:
        """What a stream that has ended lacks: an end of the answer, any text, or a count that can be true.

        The end is a finish reason; or `[DONE]` after all the tokens that were asked for, or after OpenAI's
        event with the usage of the whole answer, which its reference promises only where nothing was
        interrupted. `[DONE]` alone does not end an answer: llama-cpp-python sends it,
        too, to a request that it interrupts for another one."""
        reason = self._last.finish_reason
        whole = self._done and (self.tokens >= ask.tokens or (self._total and bool(self._last.output_tokens)))
        if reason in _BROKEN_OFF or (reason is None and not whole):
            how = "the stream ended before the answer did"
            if self._done or reason:
                how = "the server broke the answer off" + (f" ({reason})" if reason else "")
            return Fault(kind="dropped", message=f"{how}, {self.stage}")
        if not self.events:
            return Fault(kind="empty", message="a complete answer without any text")
        return self._implausible(ask)

    def _implausible(self, ask: Ask) -> Fault | None:
        claimed, prompt = self._last.output_tokens, self._last.prompt_tokens
        if claimed is not None and not self._possible(claimed, ask):
            said = (
                f"it counts {claimed:,} output tokens where {ask.tokens:,} were asked for and {self.tokens:,}"
                " seen"
            )
            return Fault(kind="implausible", message=said)
        if prompt is not None and prompt > len(ask.prompt.encode()) + _TEMPLATE_TOKENS:
            said = f"it counts {prompt:,} tokens in a prompt of {len(ask.prompt.encode()):,} bytes"
            return Fault(kind="implausible", message=said)
        return None

    def _possible(self, claimed: int, ask: Ask) -> bool:
        """At most what was asked for and the end of text, or what was seen of a server that does not heed the
        limit."""
        return claimed <= max(ask.tokens, self.tokens, self._words) + 1

    def _hidden(self, claimed: int | None) -> int | None:
        """Output tokens outside the time from the first to the last event with text; None where that cannot
        be told."""
        seen, untimed = self.tokens, self.tokens - self._at_last_text + self._before_text
        if claimed is None:
            return untimed
        told = 0 if self._reasoned else min(self._last.reasoning_tokens or 0, claimed)
        rest = claimed - told
        if (
            rest == seen + 1 and self._last.finish_reason == "stop"
        ):  # the end of text, which is counted and has no piece
            return told + untimed + 1
        if rest <= max(seen + 1, _NEARLY * seen):
            return told + untimed if rest >= seen else told
        return told if self._words >= _BUNDLED * rest else None

    def record(self, sent_seconds: float, fault: Fault | None, ask: Ask) -> RequestRecord:
        """The request's record."""
        last, claimed = self._last, self._last.output_tokens
        if not claimed or not self._possible(claimed, ask):
            claimed = None
        return RequestRecord(
            sent_seconds=round(sent_seconds, 6),
            event_seconds=tuple(round(seconds, 6) for seconds in self.events),
            end_seconds=round((self.over or time.perf_counter()) - self.sent, 6),
            prompt_tokens=last.prompt_tokens,
            output_tokens=self.tokens if claimed is None else claimed,
            counted_by="events" if claimed is None else "server",
            hidden_tokens=self._hidden(claimed),
            finish_reason=last.finish_reason,
            server_prompt_seconds=last.seconds.get("prompt"),
            server_decode_seconds=last.seconds.get("decode"),
            server_load_seconds=last.seconds.get("load"),
            fault=fault,
        )


def _latest(before: int | None, now: int | None) -> int | None:
    return before if now is None else now
