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
from collections.abc import Mapping
from typing import Any

from quantlab.architecture._meta_build import NoSuchArchitectureError, build, known_by, nested_config
from quantlab.architecture.fields import EXPERT_COUNTS, MTP_COUNTS, attribute, experts_of, keys_of
from quantlab.architecture.meta_pieces import Piece, buffers, pieces
from quantlab.architecture.parameters import Matrix, ParameterCount, Role

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_WITHOUT_MTP = ("minimax_m2",)
"""Model types whose releases leave out the layers for multi-token prediction that their configs name."""
_SIZES = {"hidden_size": True, "num_hidden_layers": True, "num_attention_heads": False, "vocab_size": False}
"""Keys that decide the size, and whether a config without them is another model than the user means."""


def count_model(model: Any, config: Mapping[str, Any]) -> ParameterCount:
    """What a built model consists of."""
    parts = list(pieces(model))
    text = model.config.get_text_config()
    by_role = _by_role(parts)
    matrices = _gather(parts)
    experts = max((m.how_many // max(1, len(m.layers)) for m in matrices if m.role == "expert"), default=0)
    chosen = experts_of(text, nested_config(config) or config).per_token if experts else 0
    total = sum(by_role.values())
    routed = by_role["expert"] * chosen // experts if experts else 0
    active = total - by_role["vision"] - by_role["expert"] + routed
    mtp, remark = _mtp(parts, text, config)
    if mtp:
        by_role["mtp"] = mtp
    unsaid = _unseen(config, by_role["expert"], experts)
    if experts and not chosen:
        unsaid.append("The config does not say how many experts a token uses: active counts none of them.")
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
        query_per_kv=_query_per_kv(text, nested_config(config) or config),
        model_type=str(config.get("model_type")),
        experts=experts,
        experts_per_token=chosen,
        by_role=dict(by_role),
        tensors=tuple(matrices),
        vectors=total - by_role["vision"] - sum(m.parameters for m in matrices),
        certain=not (_missing(config, text) or unsaid or _without_tower(config)),
        buffers=buffers(model)[0],
        buffer_bytes=buffers(model)[1],
        doubts=(*known_by(config)[1], *_defaults(config, text), *remark, *unsaid),
    )


def _by_role(parts: list[Piece]) -> collections.Counter[Role]:
    """Add up the parameters of each role."""
    sums: collections.Counter[Role] = collections.Counter()
    for piece in parts:
        sums[piece.role] += piece.parameters
    return sums


def _gather(parts: list[Piece]) -> list[Matrix]:
    """Equal matrices as one, with the layers that they stand in."""
    groups: dict[tuple[Any, ...], tuple[int, set[int]]] = {}
    for piece in parts:
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


def _mtp(parts: list[Piece], text: Any, config: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Layers for multi-token prediction: each the model's last layer, a projection of two hidden states to
    one, three norms."""
    inner = nested_config(config) or config
    many = next((int(v) for key in MTP_COUNTS if (v := inner.get(key, config.get(key)))), 0)
    if not many:
        return 0, []
    if config.get("model_type") in _WITHOUT_MTP:
        return 0, [
            f"The config names {many} layers for multi-token prediction: the releases' files have none."
        ]
    sizes: collections.Counter[int] = collections.Counter()
    for piece in parts:
        if piece.role != "vision" and (block := _BLOCK.search(f"{piece.module}.")):
            sizes[int(block[1])] += piece.parameters
    # DeepSeek V4's own layer for it has no compressor: its smallest layer with experts is the nearest (0.1 %)
    routed = {int(m[1]) for p in parts if p.role == "expert" and (m := _BLOCK.search(f"{p.module}."))}
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
    given = {**config, **(nested_config(config) or {}), **(inner if isinstance(inner, Mapping) else {})}
    named = max((int(v) for key in EXPERT_COUNTS if isinstance(v := given.get(key), int)), default=0)
    if experts or not (parameters or named > 1):
        return []
    return [
        "Which matrices are experts was not recognized in this architecture: the active parameters and"
        " variants' bytes are not certain."
    ]


def _without_tower(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "kimi_k25" and nested_config(config) is not None


def _defaults(config: Mapping[str, Any], text: Any) -> list[str]:
    missing = _missing(config, text, every=True)
    if not missing:
        return []
    taken = ", ".join(f"{key} {getattr(text, key)}" for key in missing)
    return [f"The config leaves out what transformers has defaults for: {taken}."]


def _missing(config: Mapping[str, Any], text: Any, every: bool = False) -> list[str]:
    """Sizes that the config does not give. A nested text config often leaves out defaults, and its releases
    mean them."""
    nested = nested_config(config)
    given = {**config, **(nested or {})}
    names = {key: text.attribute_map.get(key, key) for key in _SIZES if hasattr(text, key)}
    absent = [
        key for key, other in names.items() if not any(name in given for name in (other, *keys_of(key)))
    ]
    return absent if every else [key for key in absent if _SIZES[key] and nested is None]


def _query_per_kv(text: Any, written: Mapping[str, Any]) -> int:
    """Of an ordinary layer, where layers differ."""
    heads, kv = (
        attribute(text, key) or written.get(key) for key in ("num_attention_heads", "num_key_value_heads")
    )
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
