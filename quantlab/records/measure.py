"""Define the record of the measure stage: memory and speed."""

from __future__ import annotations

from typing import Literal

from quantlab.frozen import Frozen
from quantlab.records.base import Failure, Record
from quantlab.records.measured import Bandwidth, Conditions, Median, SampledMemory


class MemoryRecord(Frozen):
    """Memory while the checkpoint ran, in bytes. Kinds are never added up.

    What the operating system and the driver saw from outside is in the record's `sampled`.
    """

    disk_bytes: int
    weights_bytes: int | None
    """Weights and buffers resident after loading, by the engine's own account, over all devices; None where
    it counts none."""
    weights_reason: str | None = None
    """Why there is no account of the weights."""
    weights_by_device_bytes: dict[str, int] = {}
    """The same by device (`cpu`, `cuda:0`, `disk`), where the model lies on more than one."""
    kv_cache_bytes: int | None
    """Key-value cache of the largest workload that ran, by the engine's own account; each workload's is in
    its point."""
    state_bytes: int | None = None
    """Recurrent state of the same workload (linear attention, state spaces); 0 for models without."""
    cache_dtype: str | None = None
    """What keys and values are stored in; None where the engine does not say."""
    empty_process_rss_bytes: int
    """Resident memory of the process with its libraries imported, before loading."""
    loaded_process_rss_bytes: int
    peak_process_rss_bytes: int
    """Highest resident memory of the process up to the end of the first run of every workload (VmHWM),
    loading included."""
    peak_allocated_bytes: int | None = None
    """CUDA: highest memory in tensors; None with several devices, whose peaks fall at different moments."""
    peak_reserved_bytes: int | None = None
    """CUDA: highest memory that the caching allocator held; None with several devices."""
    process_vram_bytes: int | None = None
    """CUDA: highest memory of the process tree as the driver sees it (NVML), over all devices at one
    moment."""


class Roofline(Frozen):
    """The ceiling that memory bandwidth sets to a decode.

    tokens/s <= batch × bandwidth / bytes read per step. The compute ceiling is left out: a decode of these
    batch sizes does not reach it, and no peak was measured here."""

    weight_bytes_per_step: int
    """Stored bytes of the weights that one step must read: all but the input embedding (unless the head is
    tied to it), and of a mixture of experts those that a batch touches, experts × (1 - (1 - k/E)^batch)."""
    cache_bytes_per_step: int
    """Key-value cache and state that one step reads, at the middle of the decode."""
    tokens_per_second: float
    share: float | None = None
    """Median decode speed / the ceiling. Above 1 where the weights that are read fit into a cache of the
    processor."""


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
    """The 16-bit variant's of the same engine; sample i was taken right after the variant's sample i where
    the record says that the two alternated."""
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
    """Key-value cache at the end of the decode: the cache's own tensors, or the engine's account of what it
    allocated."""
    kv_cache_formula_bytes: int | None = None
    """Keys and values that attention needs at the end of the decode, layer by layer: in an ordinary layer 2 ×
    key-value heads × head width × tokens × batch × bytes of a value. None for architectures and cache types
    that are not known so well."""
    state_bytes: int | None = None
    """Recurrent state, which does not grow with the context."""
    peak_allocated_bytes: int | None = None
    """CUDA: highest memory in tensors while this point ran; None with several devices."""
    peak_reserved_bytes: int | None = None
    roofline: Roofline | None = None
    prefill_joules_per_token: float | None = None
    """Energy of the device per prompt token, idle power included; None where there is no counter (the record
    says why)."""
    decode_joules_per_token: float | None = None
    """Energy of the device per generated token."""
    dollars_per_million_tokens: float | None = None
    """Of decoding at this batch: price per device hour / tokens per hour × 10^6; None without a price."""

    @property
    def prefill_tokens_per_second(self) -> tuple[float, ...]:
        return tuple(
            self.batch * (self.context_tokens + self.prompt_tokens) / s for s in self.prefill_seconds
        )

    @property
    def decode_tokens_per_second(self) -> tuple[float, ...]:
        return tuple(self.batch * self.decode_tokens / s for s in self.decode_seconds)


Pairing = Literal["alternating", "sequential"]


class BaselineRun(Frozen):
    """The 16-bit variant of the same engine that was timed beside the variant."""

    variant: str
    checkpoint_sha256: str
    pairing: Pairing
    """`alternating`: both loaded, one repeat each in turn. `sequential`: one after the other, because both at
    once do not fit; a drift of the machine between the two is then in the ratio."""
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
