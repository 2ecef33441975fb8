"""Define the record of the quantize stage."""

from __future__ import annotations

from quantlab.records.base import Record
from quantlab.records.expert_tokens import ExpertTokens
from quantlab.records.unquantized import Unquantized


class QuantizeRecord(Record):
    """How the checkpoint was made: time, memory, size, and the check of what was saved."""

    seconds: float | None = None
    rehearsal_seconds: float | None = None
    """What the method took on the first layers before; None where there was no rehearsal."""
    peak_rss_bytes: int | None = None
    """Peak resident memory of the quantizing process, its libraries included."""
    peak_device_bytes: int | None = None
    """Peak of the accelerator's memory that the framework allocated; None without one."""
    allocator: str | None = None
    stored_bytes: int | None = None
    """All bytes of the checkpoint's tensors."""
    disk_bytes: int | None = None
    """Bytes of all files of the checkpoint: weights, configuration, and the tokenizer where it is stored with
    them."""
    parameters: int | None = None
    """Parameters of the unquantized model, tied tensors once."""
    bits_per_weight: float | None = None
    """Of the whole model: stored bits / parameters."""
    quantized_bits_per_weight: float | None = None
    """Of the quantized layers alone."""
    quantized_layers: int | None = None
    expected_layers: int | None = None
    unquantized: Unquantized | None = None
    """What was left in 16 or 32 bits, by the checkpoint's tensors; None where it was not counted."""
    quantized_experts: int | None = None
    """Matrices of routed experts among the quantized layers, where they are stored one by one."""
    expert_tokens: ExpertTokens | None = None
    """Calibration tokens that each expert saw; None without experts, or where the library does not say."""
    tensor_types: dict[str, int] = {}
    """How many tensors there are of each stored type."""
    loss_in_memory_nats: float | None = None
    """Mean negative log-likelihood of the check text before the reload; None where the library has no such
    model."""
    loss_reloaded_nats: float | None = None
    loss_tolerance_nats: float | None = None
    collapsed: bool = False
    """Whether the perplexity of the check text is above the vocabulary's size (worse than guessing)."""
