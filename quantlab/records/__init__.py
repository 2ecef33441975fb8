"""The records: one immutable, versioned JSON result per stage and cell.

A quantity that was not measured is None, and `failure` (or a note) says why; there are no stand-in numbers.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from quantlab.bounds import impossible
from quantlab.errors import CellFailure, FailureKind
from quantlab.frozen import Frozen as Frozen
from quantlab.records.measured import Bandwidth, Conditions, Median, SampledMemory

SCHEMA_VERSION = 1


class Failure(Frozen):
    """Why a cell has no number."""

    kind: FailureKind
    reason: str

    @staticmethod
    def of(error: CellFailure) -> Failure:
        return Failure(kind=error.kind, reason=error.reason)


class Estimate(Frozen):
    """A mean with its uncertainty."""

    value: float
    standard_error: float | None
    """None where the sample is too small for one."""
    n: int
    """How many independent units (windows, items) it was estimated from."""


class SureTokens(Frozen):
    """Divergence on the tokens at which the reference was about equally sure."""

    entropy_from_nats: float
    """Of the reference's distribution."""
    entropy_to_nats: float
    tokens: int
    kl_divergence_nats: Estimate
    top1_agreement: Estimate


class Record(Frozen):
    """What every record says of itself."""

    schema_version: int = SCHEMA_VERSION
    stage_version: int | None = None
    """Of the stage that wrote it, raised when its numbers get another meaning; None where the record is older than the field."""
    model: str
    variant: str
    checkpoint_sha256: str | None = None
    """Hash of the checkpoint's manifest; None where there is no checkpoint."""
    settings_sha256: str | None = None
    """Of the stage's part of the recipe as it was when the stage began; None where the record is older than the field."""
    engine: str | None = None
    device: str | None = None
    """The device in words, such as `AMD EPYC (2 cores)` or `NVIDIA H100 80GB HBM3`."""
    versions: dict[str, str] = {}
    failure: Failure | None = None
    notes: tuple[str, ...] = ()
    """What a reader of the number must know, one sentence each."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if why := impossible(self):
            raise ValueError(why)
        return self


class QuantizeRecord(Record):
    """How the checkpoint was made: time, memory, size, and the check of what was saved."""

    seconds: float | None = None
    peak_rss_bytes: int | None = None
    """Peak resident memory of the quantizing process, its libraries included."""
    peak_device_bytes: int | None = None
    """Peak of the accelerator's memory that the framework allocated; None without one."""
    allocator: str | None = None
    stored_bytes: int | None = None
    """All bytes of the checkpoint's tensors."""
    disk_bytes: int | None = None
    """Bytes of all files of the checkpoint: weights, configuration, and the tokenizer where it is stored with them."""
    parameters: int | None = None
    """Parameters of the unquantized model, tied tensors once."""
    bits_per_weight: float | None = None
    """Of the whole model: stored bits / parameters."""
    quantized_bits_per_weight: float | None = None
    """Of the quantized layers alone."""
    quantized_layers: int | None = None
    expected_layers: int | None = None
    tensor_types: dict[str, int] = {}
    """How many tensors there are of each stored type."""
    loss_in_memory_nats: float | None = None
    """Mean negative log-likelihood of the check text before the reload; None where the library has no such model."""
    loss_reloaded_nats: float | None = None
    loss_tolerance_nats: float | None = None
    collapsed: bool = False
    """Whether the perplexity of the check text is above the vocabulary's size (worse than guessing)."""


class MemoryRecord(Frozen):
    """Memory while the checkpoint ran, in bytes. Kinds are never added up.

    What the operating system and the driver saw from outside is in the record's `sampled`.
    """

    disk_bytes: int
    weights_bytes: int
    """Weights and buffers resident after loading, by the engine's own account, over all devices."""
    weights_by_device_bytes: dict[str, int] = {}
    """The same by device (`cpu`, `cuda:0`, `disk`), where the model lies on more than one."""
    kv_cache_bytes: int | None
    """Key-value cache of the largest workload that ran, by the engine's own account; each workload's is in its point."""
    state_bytes: int | None = None
    """Recurrent state of the same workload (linear attention, state spaces); 0 for models without."""
    cache_dtype: str | None = None
    """What keys and values are stored in; None where the record is older than the field."""
    empty_process_rss_bytes: int
    """Resident memory of the process with its libraries imported, before loading."""
    loaded_process_rss_bytes: int
    peak_process_rss_bytes: int
    """Highest resident memory of the process up to the end of the first run of every workload (VmHWM), loading included."""
    peak_allocated_bytes: int | None = None
    """CUDA: highest memory in tensors; None with several devices, whose peaks fall at different moments."""
    peak_reserved_bytes: int | None = None
    """CUDA: highest memory that the caching allocator held; None with several devices."""
    process_vram_bytes: int | None = None
    """CUDA: highest memory of the process tree as the driver sees it (NVML), over all devices at one moment."""


class Roofline(Frozen):
    """The ceiling that memory bandwidth sets to a decode.

    tokens/s <= batch × bandwidth / bytes read per step. The compute ceiling is left out: a decode of these batch sizes
    does not reach it, and no peak was measured here.
    """

    weight_bytes_per_step: int
    """Stored bytes of the weights that one step must read: all but the input embedding (unless the head is tied to it),
    and of a mixture of experts those that a batch touches, experts × (1 - (1 - k/E)^batch)."""
    cache_bytes_per_step: int
    """Key-value cache and state that one step reads, at the middle of the decode."""
    tokens_per_second: float
    share: float | None = None
    """Median decode speed / the ceiling. Above 1 where the weights that are read fit into a cache of the processor."""


class SpeedPoint(Frozen):
    """Speed at one batch size and context depth; every timing in seconds, in the order taken."""

    batch: int
    context_tokens: int
    """Tokens before the prompt, in the same prefill."""
    prompt_tokens: int
    decode_tokens: int
    prefill_seconds: tuple[float, ...] = ()
    """Also the time to first token, with nothing queued: its last logits give the first token."""
    decode_seconds: tuple[float, ...] = ()
    """Time from the first to the last of `decode_tokens` tokens after the first."""
    failure: Failure | None = None
    """Why it did not run, or not as often as it should: repeats that were taken before it stay."""
    baseline_prefill_seconds: tuple[float, ...] = ()
    """The 16-bit variant's of the same engine; sample i was taken right after the variant's sample i where the record
    says that the two alternated."""
    baseline_decode_seconds: tuple[float, ...] = ()
    baseline_failure: Failure | None = None
    """Why the 16-bit variant has no timing at this point, or fewer of them, though the variant has."""
    prefill_rate: Median | None = None
    """Prefill tokens per second: batch × (context + prompt) / prefill time."""
    decode_rate: Median | None = None
    """Decode tokens per second, over the batch: batch × decode_tokens / decode time."""
    time_to_first_token: Median | None = None
    """Seconds."""
    time_per_output_token: Median | None = None
    """Seconds per token of one sequence: decode time / decode_tokens."""
    prefill_ratio: Median | None = None
    """Variant's speed / the 16-bit variant's, of paired repeats; None where the two did not alternate."""
    decode_ratio: Median | None = None
    kv_cache_bytes: int | None = None
    """Key-value cache at the end of the decode: the cache's own tensors, or the engine's account of what it allocated."""
    kv_cache_formula_bytes: int | None = None
    """Keys and values that attention needs at the end of the decode, layer by layer: in an ordinary layer 2 × key-value heads
    × head width × tokens × batch × bytes of a value. None for architectures and cache types that are not known so well."""
    state_bytes: int | None = None
    """Recurrent state, which does not grow with the context."""
    peak_allocated_bytes: int | None = None
    """CUDA: highest memory in tensors while this point ran; None with several devices."""
    peak_reserved_bytes: int | None = None
    roofline: Roofline | None = None
    prefill_joules_per_token: float | None = None
    """Energy of the device per prompt token, idle power included; None where there is no counter (the record says why)."""
    decode_joules_per_token: float | None = None
    """Energy of the device per generated token."""
    dollars_per_million_tokens: float | None = None
    """Of decoding at this batch: price per device hour / tokens per hour × 10^6; None without a price."""

    @property
    def prefill_tokens_per_second(self) -> tuple[float, ...]:
        return tuple(self.batch * (self.context_tokens + self.prompt_tokens) / s for s in self.prefill_seconds)

    @property
    def decode_tokens_per_second(self) -> tuple[float, ...]:
        return tuple(self.batch * self.decode_tokens / s for s in self.decode_seconds)


Pairing = Literal["alternating", "sequential"]


class BaselineRun(Frozen):
    """The 16-bit variant of the same engine that was timed beside the variant."""

    variant: str
    checkpoint_sha256: str
    pairing: Pairing
    """`alternating`: both loaded, one repeat each in turn. `sequential`: one after the other, because both at once do not
    fit; a drift of the machine between the two is then in the ratio."""
    kernel: str
    dtype: str


class SpeedRecord(Frozen):
    """Speed on the device, raw samples kept."""

    kernel: str
    dtype: str
    threads: int | None
    load_seconds: float
    points: tuple[SpeedPoint, ...]
    baseline: BaselineRun | None = None
    baseline_reason: str | None = None
    """Why no 16-bit variant ran beside this one; None where one did, or where this is one."""
    before: Conditions | None = None
    """The device just before the timed repeats."""
    after: Conditions | None = None
    """And just after them."""
    bandwidth: Bandwidth | None = None
    bandwidth_reason: str | None = None
    """Why there is no measured bandwidth, and so no roofline."""
    energy_source: str | None = None
    """Which counter gave the joules; None without one."""
    energy_reason: str | None = None
    """Why there are no joules, or with a counter why some workloads have none."""
    price_per_device_hour: float | None = None
    """Dollars, from the recipe; for all devices that the measurement used together."""


class MeasureRecord(Record):
    """The measure stage's result."""

    memory: MemoryRecord | None = None
    speed: SpeedRecord | None = None
    sampled: SampledMemory | None = None
    """There where the process died as well: its last look and step say how far it came."""
    died_in: str | None = None
    """The step in which the process died; None where it did not."""


class DivergenceRecord(Record):
    """Quality against the reference on the same token ids, second half of each window scored."""

    windows: int = 0
    window_tokens: int = 0
    scored_tokens: int = 0
    text_bytes: int = 0
    """UTF-8 bytes of the scored tokens."""
    dtype: str | None = None
    dense: bool = False
    """Whether weight-only quantized layers ran as dense layers dequantized once."""
    dense_check_nats: float | None = None
    """Mean divergence on one window between the dense layers and the real kernel."""
    perplexity: Estimate | None = None
    """Standard error by the delta method, clustered by window."""
    reference_perplexity: Estimate | None = None
    kl_divergence_nats: Estimate | None = None
    """Mean over scored tokens, full vocabulary; standard error clustered by window."""
    kl_divergence_token_standard_error: float | None = None
    """As llama.cpp prints it, tokens taken as independent."""
    kl_divergence_percentiles_nats: dict[str, Estimate] = {}
    """median, p90, p95, p99, p99.9 over the scored tokens."""
    kl_divergence_max_nats: float | None = None
    top1_agreement: Estimate | None = None
    """Share of tokens with the same most likely token."""
    top5_overlap: Estimate | None = None
    """Mean share of the reference's five most likely tokens that are among the variant's."""
    delta_p: Estimate | None = None
    """Mean of Q(x) - P(x), x the text's next token."""
    delta_p_rms: Estimate | None = None
    log_perplexity_ratio: Estimate | None = None
    """ln(PPL_Q / PPL_P), paired by token."""
    bits_per_byte: float | None = None
    """Of the scored text under the variant."""
    by_entropy: tuple[SureTokens, ...] = ()
    """Quarters of the tokens by the reference's entropy, the surest first."""
    reference_sha256: str | None = None
    """Of the reference's own description: records that name different ones were measured against different things."""
    reference_dtype: str | None = None


class Look(Frozen):
    """Where `evaluate --until-decided` ended a task."""

    number: int
    """1 for the first look."""
    of: int
    items: int
    available: int
    quantile: float
    """Of the normal distribution: this look's boundary, 1.645 where there is one look alone."""
    verdict: str
    reason: str


class TaskResult(Frozen):
    """One lm-eval task on one checkpoint."""

    metric: str
    """The metric that the comparison uses (lm-eval's `acc_norm` where the task has it, else `acc`, ...)."""
    score: Estimate
    metrics: dict[str, float]
    """Every metric that lm-eval reported for it."""
    task_version: str
    fewshot: int
    chance: float | None = None
    filter: str = "none"
    """lm-eval's filter whose answers these are."""
    available: int | None = None
    """Items that the task has, of which `score.n` were asked."""
    answer_tokens: Estimate | None = None
    """Mean tokens of a generated answer's text; None where nothing is generated."""
    truncated_share: float | None = None
    """Share of the items of which the limit on tokens ended a generated answer, before a stop string or an end token; None
    where nothing is generated, or where it is not known."""
    ties: int | None = None
    """Items with more than one best choice, of which lm-eval takes the first; None where there are no choices, or the
    record is older than the field."""
    look: Look | None = None
    """None where all items of the recipe were asked at once."""


class TaskRecord(Record):
    """The evaluate stage's result; per-sample results lie beside it in samples.parquet."""

    tasks: dict[str, TaskResult] = {}
    failed: dict[str, Failure] = {}
    """Tasks that have no result, though others of the cell do."""
    scored_in: str | None = None
    """What log-likelihoods were computed in, in words; None where the record is older than the field."""
    seed: int | None = None
    chat_template: bool = False
    dense: bool = False
    seconds: float | None = None


class PartLoss(Frozen):
    """What one part of the quantized model costs alone."""

    part: str
    """Name of the module, or `the rest` for everything outside the blocks."""
    kl_divergence_nats: Estimate


class SensitivityRecord(Record):
    """The sensitivity stage's result: each part of the quantized model swapped alone into the unquantized one."""

    granularity: Literal["block", "linear"] = "block"
    windows: int = 0
    window_tokens: int = 0
    dtype: str | None = None
    whole: Estimate | None = None
    """Mean divergence with every part swapped."""
    parts: tuple[PartLoss, ...] = ()
    seconds: float | None = None
    nothing_swapped_nats: float | None = None
    """Mean divergence of the unquantized model from its own reference here: parts below it cannot be told."""
    reference_sha256: str | None = None
    """Of the reference's own description, as in the divergence record."""
    reference_dtype: str | None = None


StageName = Literal["quantize", "measure", "divergence", "tasks", "sensitivity"]
RECORDS: dict[StageName, type[Record]] = {
    "quantize": QuantizeRecord,
    "measure": MeasureRecord,
    "divergence": DivergenceRecord,
    "tasks": TaskRecord,
    "sensitivity": SensitivityRecord,
}
