"""Estimate the memory of a forward pass beside weights and cache, with the constants of calibration.yaml."""

from __future__ import annotations

import math

from quantlab.architecture.shape import Architecture
from quantlab.planning.calibration import Activation, calibration


def activation_bytes(
    architecture: Architecture, tokens: int, batch: int = 1, tensor_parallel: int = 1
) -> int:
    """Peak activations of one GPU while a prompt of `tokens` tokens is read, in chunks as engines do, and
    while `batch` sequences are decoded, with the logits of their last tokens alone. The feed-forward's and
    the value heads' channels are split over the GPUs, the hidden state is not."""
    about = calibration().activation
    in_flight = max(min(tokens, about.prefill_tokens), min(batch, about.prefill_tokens))
    logits = batch * math.ceil(architecture.vocab_size / tensor_parallel) * about.logits_bytes_per_entry
    return in_flight * _bytes_per_token(architecture, about, tensor_parallel) + logits


def llama_activation_bytes(architecture: Architecture, tokens: int, batch: int = 1) -> int:
    """llama.cpp's compute buffer on each GPU, which runs its own layers whole: for a chunk of n_ubatch tokens
    the larger of the logits with the last hidden state, and a layer with the mask over `tokens` tokens of
    context."""
    known = calibration()
    about = known.llama_cpp
    in_flight = max(min(tokens, about.prefill_tokens), min(batch, about.prefill_tokens))
    wider = about.bytes_per_element // known.activation.bytes_per_element
    layer = wider * _bytes_per_token(architecture, known.activation, 1) + about.mask_bytes_per_entry * tokens
    return in_flight * max(
        layer, about.bytes_per_element * (architecture.vocab_size + architecture.hidden_size)
    )


def _bytes_per_token(architecture: Architecture, about: Activation, tensor_parallel: int) -> int:
    hidden = architecture.hidden_size
    intermediate = math.ceil((architecture.intermediate_size or 4 * hidden) / tensor_parallel)
    dense = about.bytes_per_element * (
        about.intermediate_tensors * intermediate + about.hidden_tensors * hidden
    )
    values = max((layer.value_channels for layer in architecture.distinct_layers), default=0)
    if not values:
        return dense
    recurrent = (
        about.delta_net_bytes_per_value_channel * values / tensor_parallel
        + about.delta_net_bytes_per_hidden_channel * hidden
    )
    return max(dense, math.ceil(recurrent))
