"""Complete what GPTQModel knows of a family's layers, before it loads a model."""

from __future__ import annotations

_DENSE = ("gate_proj:0:in=x", "up_proj:0:in=x", "down_proj:1")
"""A dense feed-forward layer, in GPTQModel's words."""


def complete_trees() -> None:
    """Let GPTQModel 7.7 find the dense blocks between Llama 4's blocks of experts (Maverick has every other
    one dense); it stops at them otherwise."""
    from gptqmodel.models.definitions.llama4 import Llama4QModel, Llama4TextQModel

    for kind in (Llama4QModel, Llama4TextQModel):
        kind.layer_modules_strict = False
        block = kind.module_tree[-1]
        block["feed_forward:moe"] = {"": _DENSE, **block["feed_forward:moe"]}
