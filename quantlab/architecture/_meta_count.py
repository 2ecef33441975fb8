"""Build an architecture on torch's meta device in a child process, and count its parameters.

`python -m quantlab.architecture._meta_count < config.json` prints one line of JSON: {"count": {...}}, or
{"unknown": reason} for an architecture that transformers does not have, or {"refused": reason} for a config
that it refuses. `python -m quantlab.architecture._meta_count --catalogue` counts every model of the catalogue
anew and writes what ships."""

from __future__ import annotations

import collections
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from quantlab.architecture.fields import EXPERT_COUNTS, KNOWN_AS, experts_of
from quantlab.architecture.parameters import Matrix, ParameterCount, Role

_IRRELEVANT = (
    "quantization_config",
    "auto_map",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "transformers_version",
    "architectures",
)
_NOT_TEXT = re.compile(
    r"(^|\.)(vision|visual|audio|image|multi_modal|multimodal|mm_|embed_vision|embed_audio|sam_|siglip|patch_merg)"
)
_ROUTERS = ("router", "gate", "shared_expert_gate")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_SAME_SIZES = ("kimi_k2", "kimi_k25", "baichuan", "internlm2", "yi")
"""Of the model types that transformers does not know: those whose config gives its sizes by the names of the
one that it knows."""
_SIZES = {"hidden_size": True, "num_hidden_layers": True, "num_attention_heads": False, "vocab_size": False}
"""Keys that decide the size, and whether a config without them is another model than the user means."""


class Piece(NamedTuple):
    """One tensor of the model."""

    role: Role
    module: str
    parameters: int
    matrices: tuple[tuple[str, int, int, int], ...] = ()
    """Name, out_features, in_features, how many: an expert tensor holds several."""
    bias: bool = False
    fused: bool = False


class NoSuchArchitectureError(Exception):
    """transformers has no language model of this kind."""


def build(config: Mapping[str, Any]) -> Any:
    """The model on the meta device. Raises NoSuchArchitectureError, or whatever transformers raises for a
    config that it refuses."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config, _ = known_by(config)
    if config.get("model_type") not in CONFIG_MAPPING:
        raise NoSuchArchitectureError(
            f"transformers has no architecture {config.get('model_type', 'without model_type')!r}"
        )
    import torch
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForSeq2SeqLM,
    )

    given = {key: value for key, value in config.items() if key not in _IRRELEVANT and key != "model_type"}
    made = AutoConfig.for_model(config["model_type"], **given)
    # AutoModelForCausalLM drops vision towers without a word
    several = (AutoModelForImageTextToText, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModel)
    kinds = (
        several
        if made.get_text_config() is not made
        else (AutoModelForCausalLM, AutoModelForImageTextToText, *several[2:])
    )
    for kind in kinds:
        if type(made) in kind._model_mapping:
            with torch.device("meta"):
                return kind.from_config(made)
    raise NoSuchArchitectureError(f"transformers builds no language model of {config['model_type']!r}")


def known_by(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """The config under the model type that transformers has for it, and what a reader must know of that. Of a
    Kimi with a vision tower the language model alone is known."""
    kind, nested, said = config.get("model_type"), _nested(config), []
    if kind == "kimi_k25" and nested:
        said.append(
            "Only its language model is counted, not its vision tower: transformers has no class for it."
        )
        config, kind = nested, nested.get("model_type") or kind
    if kind in _SAME_SIZES:
        said.append(f"Counted as {KNOWN_AS[kind]}, whose architecture it has: transformers has no {kind}.")
        config = {**config, "model_type": KNOWN_AS[kind]}
    return config, said


def pieces(model: Any) -> Iterator[Piece]:
    """Every parameter, tied ones once."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    hidden = model.config.get_text_config().hidden_size
    seen: set[int] = set()
    for name, module in model.named_modules():
        for key, tensor in module._parameters.items():
            if tensor is None or id(tensor) in seen:
                continue
            seen.add(id(tensor))
            yield _piece(name, module, key, tensor, embedding, head, hidden)


def buffers(model: Any) -> tuple[int, int]:
    """Elements and bytes of the buffers that are saved with the model: routers' corrections, tables of
    hashes."""
    kept = {
        id(b): b
        for m in model.modules()
        for n, b in m._buffers.items()
        if b is not None and n not in m._non_persistent_buffers_set
    }.values()
    return sum(b.numel() for b in kept), sum(b.numel() * b.element_size() for b in kept)


def _piece(name: str, module: Any, key: str, tensor: Any, embedding: Any, head: Any, hidden: int) -> Piece:
    from torch import nn

    size, last = tensor.numel(), name.rpartition(".")[2]
    bias = getattr(module, "bias", None) is not None
    if _NOT_TEXT.search(name):
        return Piece("vision", name, size)
    if module is embedding or module is head:
        role: Role = "embedding" if module is embedding else "head"
        return Piece(role, name, size, ((name, *tensor.shape, 1),) if tensor.dim() == 2 else ())
    if name.endswith("router.layer") and tensor.dim() == 2:
        return Piece("router", name, size, ((name, *tensor.shape, 1),), bias)
    held = _several(module)
    if held and tensor.dim() in (2, 3) and not (tensor.dim() == 2 and key == "weight"):
        of_one = tensor.dim() == 3 or tensor.shape[0] % held == 0
        return Piece(
            "expert", name, size, tuple(_of_several(name, key, tensor, held)) if of_one else (), fused=True
        )
    if "expert" in last and tensor.dim() == 3:
        return Piece(
            "expert", name, size, tuple(_of_experts(f"{name}.*", key, module, tensor, hidden)), fused=True
        )
    if re.search(r"\bexperts(\.\d+)?(\.|$)", name) and "shared" not in name:
        matrix = ((name, *tensor.shape, 1),) if tensor.dim() == 2 and key == "weight" else ()
        return Piece("expert", name, size, matrix, bias)
    if (
        last in _ROUTERS
        and tensor.dim() == 2
        and min(tensor.shape) < hidden
        and key == "weight"
        and "mlp.gate_proj" not in name
    ):
        return Piece("router", name, size, ((name, *tensor.shape, 1),), bias)
    if type(module).__name__ == "Conv1D" and tensor.dim() == 2:  # GPT-2's linear, stored (in, out)
        return Piece("linear", name, size, ((name, tensor.shape[1], tensor.shape[0], 1),), bias)
    if isinstance(module, nn.Linear) and tensor.dim() == 2:
        return Piece("linear", name, size, ((name, *tensor.shape, 1),), bias)
    if "norm" in type(module).__name__.lower():
        return Piece("norm", name, size)
    return Piece("router" if last in _ROUTERS else "other", name, size)


def _several(module: Any) -> int:
    """How many experts a module holds that is named after them by its class alone: JetMoE's ParallelExperts
    (n, out, in) and DBRX's ExpertGLU (n × channels, hidden); 0 for any other."""
    if not re.search(r"ParallelExperts$|ExpertGLU$", type(module).__name__):
        return 0
    return int(getattr(module, "num_experts", 0) or getattr(module, "moe_num_experts", 0))


def _of_several(name: str, key: str, tensor: Any, n: int) -> Iterator[tuple[str, int, int, int]]:
    rows, columns = tensor.shape[-2:]
    if tensor.dim() == 3:
        yield f"{name}.*", rows, columns, n
    elif key == "w2":  # of the second projection the transpose is used
        yield f"{name}.*.{key}", columns, rows // n, n
    else:
        yield f"{name}.*.{key}", rows // n, columns, n


def _of_experts(
    name: str, key: str, module: Any, tensor: Any, hidden: int
) -> Iterator[tuple[str, int, int, int]]:
    """The matrices in a tensor of all experts: (experts, out, in), or (experts, in, out) where the module
    says so."""
    n, rows, columns = tensor.shape
    transposed = getattr(module, "is_transposed", None)
    if transposed is None:
        transposed = (
            (rows == hidden and columns != hidden) if "up" in key else (columns == hidden and rows != hidden)
        )
    out, into = (columns, rows) if transposed else (rows, columns)
    if "gate_up" in key:  # methods and file formats take the two apart
        yield f"{name}.gate_proj", out // 2, into, n
        yield f"{name}.up_proj", out // 2, into, n
    else:
        yield f"{name}.{key}", out, into, n


def count_model(model: Any, config: Mapping[str, Any]) -> ParameterCount:
    """What a built model consists of."""
    found = list(pieces(model))
    text = model.config.get_text_config()
    by_role: collections.Counter[Role] = collections.Counter()
    for piece in found:
        by_role[piece.role] += piece.parameters
    matrices = _gather(found)
    experts = max((m.how_many // max(1, len(m.layers)) for m in matrices if m.role == "expert"), default=0)
    chosen = experts_of(text).per_token if experts else 0
    total = sum(by_role.values())
    active = (
        total
        - by_role["vision"]
        - by_role["expert"]
        + (by_role["expert"] * chosen // experts if experts else 0)
    )
    unseen = _unseen(config, by_role["expert"], experts)
    mtp, remark = _mtp(found, text, config)
    if mtp:
        by_role["mtp"] = mtp
    doubts = [*known_by(config)[1], *_defaults(config, text), *remark, *unseen]
    if experts and not chosen:
        doubts.append("The config does not say how many experts a token uses: active counts none of them.")
    tied = by_role["head"] == 0
    return ParameterCount(
        architecture=type(model).__name__,
        total=total,
        active=active,
        active_without_embedding=active - (0 if tied else by_role["embedding"]),
        embedding=by_role["embedding"],
        head=by_role["head"],
        tied=tied,
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        query_per_kv=_query_per_kv(text),
        model_type=str(config.get("model_type")),
        experts=experts,
        experts_per_token=chosen,
        by_role=dict(by_role),
        tensors=tuple(matrices),
        vectors=total - by_role["vision"] - sum(m.parameters for m in matrices),
        certain=not (_missing(config, text) or (experts and not chosen) or unseen or _without_tower(config)),
        buffers=buffers(model)[0],
        buffer_bytes=buffers(model)[1],
        doubts=tuple(doubts),
    )


def _gather(found: list[Piece]) -> list[Matrix]:
    """Equal matrices as one, with the layers that they stand in."""
    groups: dict[tuple[Any, ...], tuple[int, set[int]]] = {}
    for piece in found:
        for name, out, into, n in piece.matrices:
            layer = _BLOCK.search(name)
            key = (piece.role, re.sub(r"\.\d+(?=\.|$)", ".*", name), out, into, piece.bias, piece.fused)
            many, layers = groups.get(key, (0, set()))
            groups[key] = (many + n, layers | ({int(layer[1])} if layer else set()))
    return [
        Matrix(
            role=role,
            name=name,
            out_features=out,
            in_features=into,
            how_many=many,
            layers=tuple(sorted(layers)),
            bias=bias,
            fused=fused,
        )
        for (role, name, out, into, bias, fused), (many, layers) in groups.items()
    ]


def _mtp(found: list[Piece], text: Any, config: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Layers for multi-token prediction: each the model's last layer, a projection of two hidden states to
    one, three norms."""
    inner = _nested(config) or config
    keys = ("mtp_num_hidden_layers", "num_nextn_predict_layers", "num_mtp_modules")
    many = next((int(v) for key in keys if (v := inner.get(key, config.get(key)))), 0)
    if not many:
        return 0, []
    sizes: collections.Counter[int] = collections.Counter()
    for piece in found:
        if piece.role != "vision" and (block := _BLOCK.search(f"{piece.module}.")):
            sizes[int(block[1])] += piece.parameters
    # DeepSeek V4's own layer for it has no compressor: its smallest layer with experts is the nearest (0.1 %)
    routed = {int(m[1]) for p in found if p.role == "expert" and (m := _BLOCK.search(f"{p.module}."))}
    layer = (
        min(sizes[i] for i in routed)
        if inner.get("compress_ratios") and routed
        else sizes[text.num_hidden_layers - 1]
    )
    each = layer + 2 * text.hidden_size**2 + 3 * text.hidden_size
    said = (
        f"The release has {many} more layer{'s' * (many > 1)} for multi-token prediction, about"
        f" {each * many / 1e9:.2f}B parameters by the shapes of its other layers; no total here has them, and"
        " a release's files do."
    )
    return each * many, [said]


def _unseen(config: Mapping[str, Any], parameters: int, experts: int) -> list[str]:
    """Where the config has experts, or a tensor is theirs, and their matrices were not found."""
    inner = config.get("ffn_config")
    given = {**config, **(_nested(config) or {}), **(inner if isinstance(inner, Mapping) else {})}
    named = max((int(v) for key in EXPERT_COUNTS if isinstance(v := given.get(key), int)), default=0)
    if experts or not (parameters or named > 1):
        return []
    return [
        "Which matrices are experts was not recognized in this architecture: the active parameters and"
        " variants' bytes are not certain."
    ]


def _without_tower(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "kimi_k25" and _nested(config) is not None


def _nested(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else None


def _defaults(config: Mapping[str, Any], text: Any) -> list[str]:
    missing = _missing(config, text, every=True)
    if not missing:
        return []
    taken = ", ".join(f"{key} {getattr(text, key)}" for key in missing)
    return [f"The config leaves out what transformers has defaults for: {taken}."]


def _missing(config: Mapping[str, Any], text: Any, every: bool = False) -> list[str]:
    """Sizes that the config does not give. A nested text config often leaves out defaults, and its releases
    mean them."""
    nested = _nested(config)
    given = {**config, **(nested or {})}
    names = {key: text.attribute_map.get(key, key) for key in _SIZES if hasattr(text, key)}
    absent = [key for key, other in names.items() if key not in given and other not in given]
    return absent if every else [key for key in absent if _SIZES[key] and nested is None]


def _query_per_kv(text: Any) -> int:
    heads, kv = getattr(text, "num_attention_heads", None), getattr(text, "num_key_value_heads", None)
    return int(heads) // int(kv) if isinstance(heads, int) and isinstance(kv, int) and kv > 0 else 1


def answer(config: Mapping[str, Any]) -> dict[str, Any]:
    """The count, or why there is none."""
    try:
        model = build(config)
    except NoSuchArchitectureError as error:
        return {"unknown": str(error)}
    except Exception as error:
        return {"refused": " ".join(str(error).split())[:300] or type(error).__name__}
    return {"count": count_model(model, config).model_dump(mode="json")}


def write_catalogue() -> None:
    """Count every model of the catalogue and write counts.json beside its configs."""
    from quantlab.architecture.counts import SHIPPED, config_key
    from quantlab.catalogue.config import known_config, known_configs
    from quantlab.files import write_text

    rows = {}
    for alias in known_configs():
        known = known_config(alias)
        assert known is not None
        made = answer(known.config)
        assert "count" in made, f"{alias}: {made}"
        rows[config_key(known.config)] = made["count"]
        print(f"{alias:24} {made['count']['total']:>18,}", file=sys.stderr)
    write_text(
        SHIPPED,
        "{\n"
        + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in rows.items())
        + "\n}\n",
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--catalogue"]:
        write_catalogue()
    else:
        print(json.dumps(answer(json.load(sys.stdin))))
