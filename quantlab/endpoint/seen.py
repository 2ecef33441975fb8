"""Record a streamed answer's pieces in time, and check the server's count of tokens against them."""

from __future__ import annotations

import time

from quantlab.endpoint.protocols import BROKEN_OFF, Ask, Event
from quantlab.records.endpoint import Fault, RequestRecord

_TEMPLATE_TOKENS = 2**14
"""The most that a chat template and a server's own words may add to a prompt."""
_NEARLY = 1.1
_BUNDLED = 0.6
"""Words over tokens that explain them: English text has about 0.75 words a token. A stream of single tokens
has at most one word a piece, so that pieces of one word explain no more tokens than there are pieces."""


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
        self._counts = 0
        self._last_count: int | None = None
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
        if event.output_tokens is not None:
            self._counts, self._last_count = self._counts + 1, self.payloads
        self._last = Event(
            finish_reason=event.finish_reason or before.finish_reason,
            prompt_tokens=_latest(before.prompt_tokens, event.prompt_tokens),
            output_tokens=_latest(before.output_tokens, event.output_tokens),
            reasoning_tokens=_latest(before.reasoning_tokens, event.reasoning_tokens),
            uncounted_tokens=_latest(before.uncounted_tokens, event.uncounted_tokens),
            seconds={**before.seconds, **event.seconds},
            rates={**before.rates, **event.rates},
        )

    def missing(self, ask: Ask) -> Fault | None:
        """What a stream that has ended lacks: an end of the answer, any text, or a count that can be true.

        The end is a finish reason; or `[DONE]` after all the tokens that were asked for, or after the usage
        of the whole answer, which OpenAI's reference promises only where nothing was interrupted. `[DONE]`
        alone does not end an answer: llama-cpp-python sends it, too, to a request that it interrupts for
        another one."""
        reason = self._last.finish_reason
        whole = self._done and (self.tokens >= ask.tokens or self._counted_at_the_end())
        if reason in BROKEN_OFF or (reason is None and not whole):
            how = "the stream ended before the answer did"
            if self._done or reason:
                how = "the server broke the answer off" + (f" ({reason})" if reason else "")
            return Fault(kind="dropped", message=f"{how}, {self.stage}")
        if not self.events:
            return Fault(kind="empty", message="a complete answer without any text")
        return self._implausible(ask)

    def _counted_at_the_end(self) -> bool:
        """Whether the usage is the whole answer's: it came in OpenAI's event without choices, or only in the
        event before `[DONE]`, where others with text had none."""
        alone = self._counts == 1 and self._last_count == self.payloads - 1 and len(self.events) > 1
        return bool(self._last.output_tokens) and (self._total or alone)

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
        beside = self._reasoned or self._last.uncounted_tokens
        told = 0 if beside else min(self._last.reasoning_tokens or 0, claimed)
        rest = claimed - told
        if (
            rest == seen + 1 and self._last.finish_reason == "stop"
        ):  # the end of text, which is counted and has no piece
            return told + untimed + 1
        if rest <= max(seen + 1, _NEARLY * seen):
            return told + untimed if rest >= seen else told
        return told if self._words >= max(_BUNDLED * rest, _NEARLY * seen) else None

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
            uncounted_tokens=last.uncounted_tokens or 0,
            finish_reason=last.finish_reason,
            server_prompt_seconds=last.seconds.get("prompt"),
            server_decode_seconds=last.seconds.get("decode"),
            server_load_seconds=last.seconds.get("load"),
            server_prompt_tokens_per_second=last.rates.get("prompt"),
            server_decode_tokens_per_second=last.rates.get("decode"),
            fault=fault,
        )


def _latest(before: int | None, now: int | None) -> int | None:
    return before if now is None else now
