"""Fill a tiny model with random weights of the sizes that trained ones have.

transformers starts norms at exactly 1, or at 0 where the layer multiplies by 1 + w: what damages norms does
not show there. Here a norm multiplies by a number around 1.5, spread as in trained models with a few large
ones, and linear layers keep the size of what they are given, so that the model's distribution is far from
uniform. Each tensor's numbers depend on its name alone."""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

_NORM_MEDIAN, _NORM_SPREAD = 1.5, 0.4
"""Of the factors by which a norm multiplies, log-normal: 95 % lie between 0.7 and 3.3."""
_LOGIT_SIZE = 2.5
"""Standard deviation of the logits: about 5 of 6.9 nats of entropy at 1,024 tokens."""
_GAIN = 0.5
"""Of linear layers: what a layer adds is small beside the stream that it adds to, as in trained models."""
_HEADS_NORM = re.compile(r"(q|k|query|key)_(layer)?norm")
_HEADS_MEDIAN = {"gemma4_text": 0.28}
"""Its scores are not divided by the root of a head's width."""
_BEHIND_NORM = re.compile(r"post_(attention|feedforward)_layernorm")
_LAST_NORM = re.compile(r"(model|backbone)\.norm\.weight$")
_SMALL = 0.1
"""Of biases, positions and corrections."""
_KEPT = ("A_log", "dt_bias", ".D", "altup", "hc_", "per_dim_scale")
"""Parameters that stay as transformers begins with them: states that decay, and mixing of streams."""
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight")


class _Traits(NamedTuple):
    """What the numbers depend on beside a parameter's name."""

    text: Any
    """The configuration of the language part."""
    behind: bool
    """Whether layers have a norm behind them, as Gemma's."""
    scaled: float
    """By how much the embedding's rows are smaller, because the model multiplies them by the root of its
    width."""


def fill(model: Any, text: Any) -> None:
    """Give every parameter of a model its numbers; `text` is the configuration of its language part."""
    import torch

    names = [name for name, _ in model.named_parameters()]
    scaled = 0.15 if hasattr(model.get_input_embeddings(), "scalar_embed_scale") else 1.0
    traits = _Traits(text, any("post_feedforward_layernorm" in name for name in names), scaled)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not any(kept in name for kept in _KEPT):
                noise = torch.randn(parameter.shape, generator=_generator(name))
                parameter.copy_(_numbers(name, parameter, noise, traits))
            parameter.copy_(parameter.bfloat16())
        for name, buffer in model.named_buffers():
            if name.endswith("tid2eid"):  # the experts of a token, by a table
                buffer.copy_(_table(buffer, int(text.num_local_experts), _generator(name)))
            elif name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn(buffer.shape, generator=_generator(name)) * _SMALL)


def _generator(name: str) -> Any:
    import torch

    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big"))


def _numbers(name: str, parameter: Any, noise: Any, traits: _Traits) -> Any:
    """A parameter's values from standard normal ones."""
    if parameter.ndim == 1:
        return _vector(name, parameter, noise, traits)
    if name.endswith(_EMBEDDINGS):
        return noise * (_head_size(traits) if traits.text.tie_word_embeddings else 1.0)
    if name.endswith("lm_head.weight"):
        return noise * _head_size(traits)
    inputs = traits.text.hidden_size if parameter.ndim == 3 and "conv" not in name else parameter.shape[-1]
    return _GAIN * noise / inputs**0.5


def _vector(name: str, parameter: Any, noise: Any, traits: _Traits) -> Any:
    """Of a norm, factors; stored less 1 where transformers begins at 0, because the layer adds it."""
    begins = parameter[0].item()
    if not name.endswith("weight") or begins not in (0, 1):
        return noise * _SMALL if begins in (0, 1) or name.endswith("bias") else parameter
    return _median(name, traits) * (noise * _NORM_SPREAD).exp() - (1 - begins)


def _median(name: str, traits: _Traits) -> float:
    """Of a norm's factors: small on queries and keys and behind a layer, large before a small head."""
    if _HEADS_NORM.search(name):
        return _HEADS_MEDIAN.get(traits.text.model_type, 0.8)
    if traits.behind and _BEHIND_NORM.search(name):
        return 0.6
    return _NORM_MEDIAN / traits.scaled if _LAST_NORM.search(name) else _NORM_MEDIAN


def _head_size(traits: _Traits) -> float:
    """Of the rows that turn the last norm's output into logits of the wanted size."""
    text = traits.text
    scale = getattr(text, "logits_scaling", 1.0) / getattr(text, "lm_head_multiplier", 1.0)
    return float(_LOGIT_SIZE * traits.scaled * scale / (_NORM_MEDIAN * text.hidden_size**0.5))


def _table(buffer: Any, experts: int, generator: Any) -> Any:
    import torch

    rows = [torch.randperm(experts, generator=generator)[: buffer.shape[1]] for _ in range(buffer.shape[0])]
    return torch.stack(rows).to(buffer.dtype)
