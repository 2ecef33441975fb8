"""Let auto-round compute what the model computes, with the experts that it takes apart.

auto-round 0.16 takes gpt-oss's experts apart into their gate and up projections while it quantizes, and into
the two halves of what interleaves them when it loads what it saved. It multiplies the output of Llama 4's
experts by the router's score, and not their input; and it knows them inside the release alone, and leaves
them in 16 bits in its text model. The models then compute something else, without a word."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

_WRONG = {
    "gpt_oss": "mixes up the gate and up projections of the experts",
    "llama4_text": "multiplies the output of the experts by the router's score, and not their input,",
}


@functools.cache
def complete_replacements() -> None:
    """Mend auto-round's experts in this process, before it quantizes or loads a model."""
    from auto_round.modeling.fused_moe import gpt_oss, llama4, replace_modules

    known: dict[str, Any] = replace_modules.BUILTIN_MODULES
    known.setdefault("gpt_oss", gpt_oss)
    known.setdefault("llama4_text", llama4)
    block: Any = llama4.SequentialLlama4TextMoe
    begin = block.__init__

    def of_text_model(self: Any, original: Any, config: Any) -> None:
        begin(self, original, SimpleNamespace(text_config=config.get_text_config()))

    block.__init__ = of_text_model
    block.forward = _llama4_experts


def _llama4_experts(self: Any, hidden_states: Any) -> tuple[Any, Any]:
    """A block of Llama 4's experts, as modeling_llama4.py: each token passes the expert that it is routed to,
    times its score."""
    tokens = hidden_states.reshape(-1, self.hidden_dim)
    scores, logits = self.router(tokens)
    out = self.shared_expert(tokens)
    for place, expert in enumerate(self.experts):
        routed = scores[:, place].nonzero().squeeze(-1)
        if routed.numel():
            out = out.index_add(0, routed, expert(tokens[routed] * scores[routed, place, None]))
    return out, logits


def note_for(model_type: str) -> tuple[str, ...]:
    """What a reader of a checkpoint must know of its experts, one sentence."""
    if model_type not in _WRONG:
        return ()
    return (
        f"auto-round 0.16 itself {_WRONG[model_type]} when transformers loads this checkpoint: open it with"
        " quantlab.",
    )
