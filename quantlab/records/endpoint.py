"""Define the record of an endpoint: every request, and the figures computed from them.

| figure | definition | the field's name |
|---|---|---|
| time to first token | from sending the request to its first event with text | TTFT (vLLM's benchmark, GuideLLM) |
| time per output token | (last event - first event) / (output tokens - 1), one per request, without hidden tokens | TPOT (vLLM) |
| inter-token latency | time between one event with text and the next, all requests together | ITL (vLLM) |
| latency | from sending the request to its last event with text | E2EL (vLLM) |
| request throughput | good requests / duration | |
| output throughput | output tokens of good requests / duration | |

The duration of a level runs from its first request to its last answer. GuideLLM's TPOT, latency / output
tokens with the first one included, is another figure and not here. Only good requests count in any of them.
"""

from __future__ import annotations

from typing import Literal

from quantlab.frozen import Frozen
from quantlab.records.base import Failure
from quantlab.records.evaluate import TaskResult
from quantlab.records.measured import Median

SCHEMA_VERSION = 1
FaultKind = Literal[
    "unreachable",  # no connection: nobody listens, or the name is not known
    "timeout",  # not finished in the time that one request may take
    "unauthorized",  # 401, 403
    "not_found",  # 404
    "rate_limited",  # 429
    "rejected",  # another 4xx
    "server_error",  # 5xx
    "redirected",  # 3xx: not followed, because the key would go with it
    "dropped",  # the stream ended before the answer did
    "malformed",  # what came is not the protocol
    "error_in_stream",  # the server began to answer and then sent an error
    "empty",  # a complete answer without any text
    "implausible",  # the server counts more tokens than were asked for or seen
]


class Fault(Frozen):
    """Why a request is not a good one."""

    kind: FaultKind
    message: str
    status: int | None = None
    """HTTP status, where there was one."""


class RequestRecord(Frozen):
    """One request. Times in seconds; those of a faulty one are what was seen until then."""

    sent_seconds: float
    """When it was sent, since the level began."""
    event_seconds: tuple[float, ...] = ()
    """When each event with text came, since it was sent. Events that came in one piece share a time."""
    end_seconds: float
    """When it was over, since it was sent."""
    prompt_tokens: int | None = None
    """By the server's own count; None where it did not say."""
    output_tokens: int | None = None
    """By the server's own count, else the number of events that stand for a token (see `counted_by`)."""
    counted_by: Literal["server", "events"] = "events"
    hidden_tokens: int | None = 0
    """Output tokens by the server's count that came in no event, such as reasoning that it keeps to itself;
    None where it cannot be told whether there are any, and then there is no time per output token."""
    uncounted_tokens: int = 0
    """Tokens of the server's total that it counts neither in the prompt nor in the output (reasoning, as Grok
    and Gemini count it): in no figure."""
    finish_reason: str | None = None
    server_prompt_seconds: float | None = None
    """What the server says the prompt took (Ollama's prompt_eval_duration, llama.cpp's timings.prompt_ms)."""
    server_decode_seconds: float | None = None
    """What the server says the output tokens took (Ollama's eval_duration, llama.cpp's timings.predicted_ms)."""
    server_load_seconds: float | None = None
    """Ollama: what it says loading the model took; 0 or little where it was loaded."""
    server_prompt_tokens_per_second: float | None = None
    """The server's own account: Ollama's prompt_eval_count / prompt_eval_duration, llama.cpp's
    timings.prompt_per_second, which is without what came from its cache."""
    server_decode_tokens_per_second: float | None = None
    """The server's own account: Ollama's eval_count / eval_duration, llama.cpp's
    timings.predicted_per_second, which is tokens after the first / predicted_ms."""
    fault: Fault | None = None


class Distribution(Frozen):
    """Percentiles in seconds, each by linear interpolation between samples.

    A percentile is None where the samples cannot bound it: the largest of n lies above it with probability 1
    - p^n, which must be at least 0.95 (p50: 5 samples, p90: 29, p95: 59, p99: 299; Wilks 1941)."""

    n: int
    mean: float
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    median: Median | None = None
    """The median with its interval, where the samples are one per request. None for gaps between tokens:
    those of one request are not independent."""


class LevelSummary(Frozen):
    """What the good requests of a level come to."""

    good: int
    faults: dict[str, int]
    """How many of each kind."""
    duration_seconds: float
    requests_per_second: float
    output_tokens_per_second: float | None
    """None where no request was good."""
    output_tokens: int
    """Of good requests: these are in the throughput."""
    lost_tokens: int
    """Of faulty requests, received before the fault: these are not."""
    time_to_first_token: Distribution | None
    time_per_output_token: Distribution | None
    inter_token_latency: Distribution | None
    latency: Distribution | None
    prompt_tokens: Median | None
    """Tokens per prompt by the server's count."""
    output_tokens_per_request: Median | None
    server_prompt_tokens_per_second: Median | None = None
    """The server's own account, see RequestRecord."""
    server_decode_tokens_per_second: Median | None = None
    """The server's own account, see RequestRecord."""


class Level(Frozen):
    """One concurrency: so many requests under way at any time, each followed at once by the next (a closed
    loop)."""

    concurrency: int
    warmup: tuple[RequestRecord, ...]
    """One per worker, before the clock; in no figure."""
    requests: tuple[RequestRecord, ...]
    summary: LevelSummary
    client_cpu_share: float
    """CPU time of the client's thread / duration. Near 1 the client itself is the limit."""
    stopped: str | None = None
    """Why not all requests were sent."""


class LostItem(Frozen):
    """An item of a task that has no answer, and is in no figure of the task."""

    doc_id: int
    reason: str


class TaskOutcome(Frozen):
    """One lm-eval task through the endpoint."""

    result: TaskResult | None = None
    failure: Failure | None = None
    lost: tuple[LostItem, ...] = ()
    """Items that were asked and not answered well; the others are in `result`."""
    truncated: int | None = None
    """Answers in `result` that were cut at their greatest length, or within reasoning; None where nothing is
    generated."""
    empty: int | None = None
    """Answers without any text, up to the first stop string and beside reasoning; None where nothing is
    generated. Where all are, there is no result."""
    whole: int | None = None
    """Answers that are neither cut nor empty; None where nothing is generated."""
    resumed: int = 0
    """Answers from an earlier run that was interrupted."""
    reasoning: int | None = None
    """Answers in `result` with reasoning text, which is not scored; None where nothing is generated."""


class EndpointWorkload(Frozen):
    """What was asked for."""

    requests: int
    """Per level, without the warm-up; a level with more than half as many under way at once has twice its
    concurrency."""
    prompt_tokens: int
    decode_tokens: int
    timeout_seconds: float
    concurrency: tuple[int, ...]


class EndpointRecord(Frozen):
    """A served endpoint as a client saw it."""

    schema_version: int = SCHEMA_VERSION
    url: str
    """Of the endpoint that the requests went to."""
    api: Literal["openai", "ollama"]
    model: str
    server: str | None = None
    """What the server calls itself."""
    started: str
    """UTC."""
    client: str
    """The machine that the requests came from."""
    versions: dict[str, str] = {}
    workload: EndpointWorkload
    seed: int = 0
    """Of the prompts' words."""
    nonce: str = ""
    """Of this run alone: it decides the first words of every prompt, so that no earlier run's prompt is in a
    cache."""
    prompt_words: int | None = None
    """Words per prompt, chosen so that the server counts about the tokens asked for."""
    prompt_tokens_counted: bool = False
    """Whether the server counted the tokens of two prompts that the words were chosen by."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server takes the length of an answer by."""
    ignores_end: bool = False
    """Whether the server was asked to go on past the model's end of text, so that all answers have the same
    length."""
    asks_usage: bool = True
    """Whether the server was asked to count tokens at the end of its streams (`stream_options`)."""
    levels: tuple[Level, ...] = ()
    tasks: dict[str, TaskOutcome] = {}
    prompt_logprobs: str | None = None
    """Whether the server gives log-probabilities of a prompt's own tokens: `offered`, or why not; None: not
    asked."""
    fault: Fault | None = None
    """Why there is no level: what the first request met."""
    notes: tuple[str, ...] = ()
