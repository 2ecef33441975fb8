"""Define the record of the diverge stage: quality against the reference."""

from __future__ import annotations

from quantlab.frozen import Frozen
from quantlab.records.base import Estimate, Record


class SureTokens(Frozen):
    """Divergence on the tokens at which the reference was about equally sure."""

    entropy_from_nats: float
    """Of the reference's distribution."""
    entropy_to_nats: float
    tokens: int
    kl_divergence_nats: Estimate
    top1_agreement: Estimate


class RoundToNearest(Frozen):
    """What plain rounding to nearest loses at the variant's width, and the variant on the same windows."""

    bits: int
    group_size: int
    """Columns that share a scale; 0 or less for a whole row."""
    symmetric: bool
    """Without zero points."""
    windows: int
    """The first ones of the evaluation text."""
    kinds: tuple[str, ...]
    """The kinds of layers that were rounded: those that the checkpoint has quantized."""
    kl_divergence_nats: float
    """Of the unquantized model with these layers rounded, in bfloat16."""
    variant_kl_divergence_nats: float


class RoutingChanges(Frozen):
    """Scored tokens of a mixture that the variant sends to other experts than the unquantized model does.

    Compared are the sets of chosen experts, after groups, hash tables and biases."""

    experts: int
    """Of a block, routed ones alone."""
    experts_per_token: int
    changed_token_share: Estimate
    """Of the scored tokens, those whose set of experts differs by one or more; mean over the blocks,
    standard error clustered by window."""
    replaced_expert_share: Estimate
    """Of the experts that the tokens pass, those that are not the unquantized model's; mean over the
    blocks."""
    changed_token_share_by_block: dict[int, float]


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
    round_to_nearest: RoundToNearest | None = None
    """None above 4 bits, and where it was not measured."""
    round_to_nearest_reason: str | None = None
    """Why it was not measured; None where it was, and above 4 bits."""
    routing_changes: RoutingChanges | None = None
    """None for a model without experts, and where it was not measured."""
    routing_changes_reason: str | None = None
    """Why it was not measured; None where it was, and for a model without experts."""
    reference_sha256: str | None = None
    """Of the reference's own description: records that name different ones were measured against different
    things."""
    reference_dtype: str | None = None
