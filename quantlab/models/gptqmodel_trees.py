"""Complete what GPTQModel 7.7 knows of the families' layers, before it loads a model."""

from __future__ import annotations

import functools
from typing import Any

_DENSE = ("gate_proj:0:in=x", "up_proj:0:in=x", "down_proj:1")
"""A dense feed-forward layer, in GPTQModel's words."""
_FEED_FORWARD = ("gate_proj:0", "up_proj:0", "down_proj:1")
_EXPERTS = {"#": _FEED_FORWARD}


@functools.cache
def complete_trees() -> None:
    """Let GPTQModel quantize and load families whose classes in transformers 5 it does not know, or knows by
    older names."""
    _llama4()
    _glm4_moe()
    _granitemoehybrid()
    _nemotron_h()
    _kimi_linear()
    _mistral4()


def _llama4() -> None:
    """Maverick has a dense block between its blocks of experts, where GPTQModel stops."""
    from gptqmodel.models.definitions.llama4 import Llama4QModel, Llama4TextQModel

    for kind in (Llama4QModel, Llama4TextQModel):
        kind.layer_modules_strict = False
        block = kind.module_tree[-1]
        block["feed_forward:moe"] = {"": _DENSE, **block["feed_forward:moe"]}


def _glm4_moe() -> None:
    """The routers of transformers 5 choose the experts themselves; the blocks that take the classes' place
    expect their scores."""
    from defuser.modeling.unfused_moe.glm4_moe import LinearGlm4MoeMoE
    from defuser.modeling.unfused_moe.glm4_moe_lite import LinearGlm4MoeLiteMoE

    def chosen(_: Any, routed: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        _, weights, indices = routed
        return indices, weights

    for block in (LinearGlm4MoeMoE, LinearGlm4MoeLiteMoE):
        block.route_tokens_to_experts = chosen


def _granitemoehybrid() -> None:
    """Its experts have the names of all others in transformers 5, and its mamba layers need no patch to
    multiply by packed weights."""
    from gptqmodel.models.definitions.granitemoehybrid import GraniteMoeHybridQModel
    from gptqmodel.models.moe_lifecycle import GateUpDownMoELifecycleHooks

    GraniteMoeHybridQModel.require_monkeypatch = False
    GraniteMoeHybridQModel.moe_lifecycle_hooks = GateUpDownMoELifecycleHooks()
    block = GraniteMoeHybridQModel.module_tree[-1]
    block["block_sparse_moe:moe:?"] = {"router": ("router:!",), "experts": _EXPERTS}


def _nemotron_h() -> None:
    """Its body has another name in transformers 5, and a block may be a mixture."""
    from gptqmodel.models.definitions.nemotron_h import NemotronHQModel

    NemotronHQModel.require_monkeypatch = False
    NemotronHQModel.dynamic_expert_index = "n_routed_experts"
    NemotronHQModel.pre_lm_head_norm_module = "model.norm_f"
    NemotronHQModel.module_tree = [
        "model",
        "layers",
        "#",
        {
            "norm": ("norm:!",),
            "mixer:moe": {
                "": (
                    "q_proj:0",
                    "k_proj:0",
                    "v_proj:0",
                    "o_proj:1",
                    "in_proj:2",
                    "out_proj:3",
                    "up_proj:4",
                    "down_proj:5",
                ),
                "gate": ("gate:!",),
                "experts": {"#": ("up_proj:0", "down_proj:1")},
                "shared_experts": ("up_proj:0", "down_proj:1"),
            },
        },
    ]


def _kimi_linear() -> None:
    """It knows neither its layers nor how to take its experts apart."""
    from gptqmodel.models.base import BaseQModel
    from gptqmodel.models.moe_lifecycle import GateUpDownMoELifecycleHooks

    block = {
        "input_layernorm": ("input_layernorm:!",),
        "self_attn": (
            *("q_proj:0", "k_proj:0", "v_proj:0", "kv_a_proj_with_mqa:0", "kv_b_proj:1", "o_proj:2"),
        ),
        "post_attention_layernorm": ("post_attention_layernorm:!",),
        "mlp:moe": {
            "": _FEED_FORWARD,
            "gate": ("gate:!",),
            "experts": _EXPERTS,
            "shared_experts": _FEED_FORWARD,
        },
    }
    facts = {
        "layer_modules_strict": False,
        "dynamic_expert_index": "num_experts",
        "pre_lm_head_norm_module": "model.norm",
        "moe_lifecycle_hooks": GateUpDownMoELifecycleHooks(),
        "module_tree": ["model", "layers", "#", block],
    }
    _add("kimi_linear", type("KimiLinearQModel", (BaseQModel,), facts))


def _mistral4() -> None:
    """Its layers are DeepSeek V3's; transformers lists its text model among those that see."""
    from gptqmodel.models.definitions.deepseek_v3 import DeepSeekV3QModel
    from transformers import AutoModelForImageTextToText

    facts = {"loader": AutoModelForImageTextToText}
    _add("mistral4", type("Mistral4QModel", (DeepSeekV3QModel,), facts))


def _add(model_type: str, kind: type) -> None:
    """Let GPTQModel know a family, and take its experts apart."""
    from defuser import model_registry
    from gptqmodel.models import auto

    known = {"min_transformers_version": model_registry.MIN_SUPPORTED_TRANSFORMERS_VERSION}
    model_registry.MODEL_CONFIG[model_type] = known
    auto.MODEL_MAP[model_type] = kind
    auto.SUPPORTED_MODELS.append(model_type)
