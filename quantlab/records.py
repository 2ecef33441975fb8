"""The records: one immutable, versioned JSON result per stage and cell.

A quantity that was not measured is None, and `failure` (or a note) says why; there are no stand-in numbers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from quantlab.errors import CellFailure, FailureKind

SCHEMA_VERSION = 1


class Frozen(BaseModel):
    """A value that is never changed and has no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


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
    model: str
    variant: str
    checkpoint_sha256: str | None = None
    """Hash of the checkpoint's manifest; None where there is no checkpoint."""
    engine: str | None = None
    device: str | None = None
    """The device in words, such as `AMD EPYC (2 cores)` or `NVIDIA H100 80GB HBM3`."""
    versions: dict[str, str] = {}
    failure: Failure | None = None
    notes: tuple[str, ...] = ()
    """What a reader of the number must know, one sentence each."""


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
    """All bytes of the checkpoint's weight files."""
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
    """Memory while the checkpoint ran, in bytes. Kinds are never added up."""

    disk_bytes: int
    weights_bytes: int
    """Weights and buffers resident after loading, by the engine's own account."""
    kv_cache_bytes: int | None
    """Key-value cache at the end of the speed run, by the engine's own account."""
    empty_process_rss_bytes: int
    """Resident memory of the process with its libraries imported, before loading."""
    loaded_process_rss_bytes: int
    peak_process_rss_bytes: int
    """Highest resident memory of the process up to the end of the speed run (VmHWM), loading included."""
    peak_allocated_bytes: int | None = None
    """CUDA: highest memory in tensors."""
    peak_reserved_bytes: int | None = None
    """CUDA: highest memory that the caching allocator held."""
    process_vram_bytes: int | None = None
    """CUDA: memory of the process as the driver sees it (NVML)."""


class SpeedPoint(Frozen):
    """Speed at one batch size and context depth; every timing in seconds, in the order taken."""

    batch: int
    context_tokens: int
    """Tokens before the prompt, in the same prefill."""
    prompt_tokens: int
    decode_tokens: int
    prefill_seconds: tuple[float, ...] = ()
    decode_seconds: tuple[float, ...] = ()
    """Time from the first to the last of `decode_tokens` tokens after the first."""
    failure: Failure | None = None

    @property
    def prefill_tokens_per_second(self) -> tuple[float, ...]:
        return tuple(self.batch * (self.context_tokens + self.prompt_tokens) / s for s in self.prefill_seconds)

    @property
    def decode_tokens_per_second(self) -> tuple[float, ...]:
        return tuple(self.batch * self.decode_tokens / s for s in self.decode_seconds)


class SpeedRecord(Frozen):
    """Speed on the device, raw samples kept."""

    kernel: str
    dtype: str
    threads: int | None
    load_seconds: float
    points: tuple[SpeedPoint, ...]


class MeasureRecord(Record):
    """The measure stage's result."""

    memory: MemoryRecord | None = None
    speed: SpeedRecord | None = None


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
    look: Look | None = None
    """None where all items of the recipe were asked at once."""


class TaskRecord(Record):
    """The evaluate stage's result; per-sample results lie beside it in samples.parquet."""

    tasks: dict[str, TaskResult] = {}
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
