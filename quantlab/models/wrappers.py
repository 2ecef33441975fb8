"""Recognise a multimodal release, and name the class that loads a model's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

PLAIN_TEXT: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qwen2_vl_text": ("qwen2", {}),
    "qwen2_5_vl_text": ("qwen2", {}),
    "qwen3_vl_text": ("qwen3", {}),
    "qwen3_vl_moe_text": ("qwen3_moe", {"norm_topk_prob": True}),
}
"""Text parts without a causal class of their own, the type that they equal on text, and what its
configuration has to say for it: each of the three positions of their rotary embedding is then the token's."""


class Parts(NamedTuple):
    """Modules of a model by name."""

    body: str
    """The language model's embedding and layers stand in it."""
    head: str
    towers: tuple[str, ...]
    """Beside the language model; none in a model that is text alone."""


def parts_of(model: Any) -> Parts:
    """Where the language model stands in a transformers model, and what stands beside it."""
    modules = {id(module): name for name, module in model.named_modules()}
    body = modules[id(model.get_input_embeddings())].rpartition(".")[0]
    head = modules[id(model.get_output_embeddings())]
    towers = _beside(model, body.split("."), head) if is_release(model.config.to_dict()) else ()
    return Parts(body, head, tuple(sorted(towers)))


def is_tied(model: Any) -> bool:
    """Whether a model's output head is its embedding."""
    tied: bool = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return tied


def _beside(model: Any, way: list[str], head: str) -> Iterator[str]:
    """The modules along the way to the language model that are no part of it."""
    for depth in range(len(way)):
        parent = ".".join(way[:depth])
        for name, _ in model.get_submodule(parent).named_children():
            whole = f"{parent}.{name}".lstrip(".")
            if name != way[depth] and whole != head:
                yield whole


def is_release(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a language model with towers around it."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING or _releases(kind) is None:
        return False
    return "text_config" in CONFIG_MAPPING[kind].sub_configs


def runs(kind: str) -> bool:
    """Whether transformers has a class of this type that continues a text."""
    return kind in _causal() or _releases(kind) is not None


def auto_class(config: Mapping[str, Any], trust_remote_code: bool = False) -> Any:
    """The automatic class that loads a folder with this config.json: a release's own where it has towers."""
    import transformers

    kind = str(config.get("model_type"))
    own_code = trust_remote_code and "AutoModelForCausalLM" in (config.get("auto_map") or {})
    if own_code or (kind in _causal() and not is_release(config)):
        return transformers.AutoModelForCausalLM
    return getattr(transformers, _releases(kind) or "AutoModelForCausalLM")


def class_name(kind: str) -> str | None:
    """The class that loads a text model of this type; None where there is none."""
    from transformers.models.auto import modeling_auto

    names: Mapping[str, str] = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return _causal().get(kind) or names.get(kind)


def _causal() -> Mapping[str, str]:
    from transformers.models.auto import modeling_auto

    names: Mapping[str, str] = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return names


def _releases(kind: str) -> str | None:
    """The automatic class of multimodal models that knows the type."""
    from transformers.models.auto import modeling_auto

    if kind in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return "AutoModelForImageTextToText"
    return "AutoModelForMultimodalLM" if kind in modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES else None
