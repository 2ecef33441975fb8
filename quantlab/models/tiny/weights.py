"""Fill a tiny model with random weights of the sizes that trained ones have.

transformers starts norms at exactly 1, or at 0 where the layer multiplies by 1 + w: what damages norms does
not show there. Here a norm multiplies by a number around 1.5, spread as in trained models with a few large
ones, and linear layers keep the size of what they are given, so that the model's distribution is far from
uniform. Each tensor's numbers depend on its name alone."""

from __future__ import annotations

import hashlib
from typing import Any

_NORM_MEDIAN, _NORM_SPREAD = 1.5, 0.4
"""Of the factors by which a norm multiplies, log-normal: 95 % lie between 0.7 and 3.3."""
_LOGIT_SIZE = 2.5
"""Standard deviation of the logits: about 5 of 6.9 nats of entropy at 1,024 tokens."""
_SMALL = 0.1
"""Of biases, positions and corrections."""
_KEPT = ("A_log", "dt_bias", ".D", "altup", "hc_", "per_dim_scale")
"""Parameters that stay as transformers begins with them: states that decay, and mixing of streams."""
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight")


def fill(model: Any, text: Any) -> None:
    """Give every parameter of a model its numbers; `text` is the configuration of its language part."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not any(kept in name for kept in _KEPT):
                noise = torch.randn(parameter.shape, generator=_generator(name))
                parameter.copy_(_numbers(name, parameter, noise, text))
            parameter.copy_(parameter.bfloat16())
        for name, buffer in model.named_buffers():
            if name.endswith("tid2eid"):  # the experts of a token, by a table
                buffer.copy_(_table(buffer, int(text.num_local_experts), _generator(name)))
            elif name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn(buffer.shape, generator=_generator(name)) * _SMALL)


def _generator(name: str) -> Any:
    import torch

    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big"))


def _numbers(name: str, parameter: Any, noise: Any, text: Any) -> Any:
    """A parameter's values from standard normal ones."""
    if parameter.ndim == 1:
        return _vector(name, parameter, noise)
    if name.endswith(_EMBEDDINGS):
        return noise * (_head_size(text) if text.tie_word_embeddings else 1.0)
    if name.endswith("lm_head.weight"):
        return noise * _head_size(text)
    inputs = text.hidden_size if parameter.ndim == 3 and "conv" not in name else parameter.shape[-1]
    return noise / inputs**0.5


def _vector(name: str, parameter: Any, noise: Any) -> Any:
    """Of a norm, factors; stored less 1 where transformers begins at 0, because the layer adds it."""
    begins = parameter[0].item()
    if not name.endswith("weight") or begins not in (0, 1):
        return noise * _SMALL if begins in (0, 1) or name.endswith("bias") else parameter
    return _NORM_MEDIAN * (noise * _NORM_SPREAD).exp() - (1 - begins)


def _head_size(text: Any) -> float:
    """Of the rows that turn the last norm's output into logits of the wanted size."""
    scale = getattr(text, "logits_scaling", 1.0) / getattr(text, "lm_head_multiplier", 1.0)
    return float(_LOGIT_SIZE * scale / (_NORM_MEDIAN * text.hidden_size**0.5))


def _table(buffer: Any, experts: int, generator: Any) -> Any:
    import torch

    rows = [torch.randperm(experts, generator=generator)[: buffer.shape[1]] for _ in range(buffer.shape[0])]
    return torch.stack(rows).to(buffer.dtype)
