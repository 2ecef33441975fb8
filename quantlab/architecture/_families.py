"""Write families.json from transformers' config classes: `python -m quantlab.architecture._families`.

`checked` is not derived here: it is kept as it was, for it says that real cache tensors were compared.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantlab.architecture.fields import families
from quantlab.architecture.schedules import DEPTHS, expand, fit

# fmt: off
KEYS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "num_key_value_heads", "head_dim", "global_head_dim",
    "num_global_key_value_heads", "sliding_window", "max_position_embeddings", "kv_lora_rank", "qk_rope_head_dim", "index_head_dim",
    "index_topk", "attention_chunk_size", "tie_word_embeddings", "linear_num_key_heads", "linear_num_value_heads",
    "linear_key_head_dim", "linear_value_head_dim", "linear_conv_kernel_dim", "num_experts_per_tok", "moe_intermediate_size",
    "use_sliding_window", "max_window_layers", "multi_query", "num_kv_shared_layers", "attention_k_eq_v", "sliding_window_pattern",
    "conv_L_cache", "mamba_n_heads", "mamba_d_state", "mamba_d_head", "mamba_n_groups", "mamba_d_conv", "mamba_expand", "mamba_d_ssm",
    "mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel", "attn_layer_period", "attn_layer_offset",
    "linear_head_dim", "linear_num_heads",
)
# fmt: on
_UNLIKELY = (
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "hidden_size",
    "vocab_size",
    "num_attention_heads",
)
_LISTS = ("layer_types", "layers_block_type", "full_attn_idxs", "block_types")


def defaults(config_class: Any) -> dict[str, Any]:
    """Plain values that the class gives to KEYS, by their usual names."""
    own = {f.name: f.default for f in dataclasses.fields(config_class)}
    values = {key: own.get(key, own.get(config_class.attribute_map.get(key, key))) for key in KEYS}
    if values["sliding_window"] is None:  # some classes compute it
        values["sliding_window"] = _computed(config_class, "sliding_window")
    return {key: value for key, value in values.items() if isinstance(value, bool | int | float | str)}


def _computed(config_class: Any, key: str) -> int | None:
    try:
        value = getattr(config_class(), key, None)
    except Exception:  # each class refuses in its own way
        return None
    return value if isinstance(value, int) and value > 0 else None


def layout(config_class: Any, depth: int, **fields: Any) -> list[str] | None:
    """The class's own layer_types for so many layers; None where it has none, or refuses the fields."""
    key = config_class.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    try:
        types = getattr(config_class(**{key: depth}, **fields), "layer_types", None)
    except Exception:  # each class refuses in its own way
        return None
    return list(types) if types else None


def rule(config_class: Any) -> dict[str, Any] | None:
    """The rule of schedules.py for the class; {} where it has a layout that no rule describes, None where it
    has none."""
    layouts = {depth: layout(config_class, depth) for depth in DEPTHS}
    known = {depth: types for depth, types in layouts.items() if types}
    if not known:
        named = {f.name for f in dataclasses.fields(config_class)}
        return {} if named & set(_LISTS) and "attention_layers" not in named else None
    if _slides_from(config_class):
        return {"period": ["full_attention"], "from_layer": "max_window_layers"}
    made = fit(known) if len(known) == len(DEPTHS) else {}
    if not made:
        return {}
    knobs = dict(_knobs(config_class, known))
    every = next((key for key in knobs if _is_length(config_class, made, key)), None)
    others = {key: usual for key, usual in knobs.items() if key != every}
    return made | ({"every": every} if every else {}) | ({"knobs": others} if others else {})


def _slides_from(config_class: Any) -> bool:
    """Whether layers from max_window_layers on slide, if use_sliding_window (where there is one) and
    sliding_window are given."""
    named = {f.name for f in dataclasses.fields(config_class)}
    if "max_window_layers" not in named:
        return False
    on = {"sliding_window": 16} | ({"use_sliding_window": True} if "use_sliding_window" in named else {})
    right = [["full_attention"] * k + ["sliding_attention"] * (24 - k) for k in (0, 3, 10)]
    return [layout(config_class, 24, **on, max_window_layers=k) for k in (0, 3, 10)] == right


def _is_length(config_class: Any, made: Mapping[str, Any], key: str) -> bool:
    lengths = (2, 3, 5, 7)
    return all(
        layout(config_class, depth, **{key: k}) == expand(made, depth, k)
        for k in lengths
        for depth in (24, 31)
    )


def _knobs(config_class: Any, known: Mapping[int, list[str]]) -> Iterator[tuple[str, Any]]:
    """Fields that change the layout, with their defaults: those of the class, and those that it takes out of
    its kwargs."""
    own = {f.name: f.default for f in dataclasses.fields(config_class)}
    source = inspect.getsource(config_class.__post_init__) if "__post_init__" in vars(config_class) else ""
    loose = dict.fromkeys(re.findall(r"kwargs\.(?:pop|get)\(\s*[\"'](\w+)", source))
    for key, value in (loose | own).items():
        if key in _UNLIKELY or key == config_class.attribute_map.get(
            "num_hidden_layers", "num_hidden_layers"
        ):
            continue
        for other in _others(value):
            changed = {depth: layout(config_class, depth, **{key: other}) for depth in (24, 96)}
            if any(types and types != known[depth] for depth, types in changed.items()):
                yield key, value if isinstance(value, bool | int | str) else None
                break


def _others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 1, 0]
    return [3, True, [0, 3], [0, 1] * 48] if value is None or value is dataclasses.MISSING else []


def write(path: Path) -> None:
    """families.json, one line per model type."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from quantlab.files import write_text

    before = json.loads(path.read_text(encoding="utf-8"))
    lines = []
    for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        if name not in CONFIG_MAPPING or not dataclasses.is_dataclass(CONFIG_MAPPING[name]):
            continue
        row = defaults(CONFIG_MAPPING[name])
        made = rule(CONFIG_MAPPING[name])
        row |= {"schedule": made} if made is not None else {}
        row |= {"checked": True} if families().get(name, {}).get("checked") else {}
        lines.append(f"    {json.dumps(name)}: {json.dumps(row)}")
    about = json.dumps(before["about"])
    write_text(path, f'{{\n  "about": {about},\n  "families": {{\n' + ",\n".join(lines) + "\n  }\n}\n")


if __name__ == "__main__":
    import transformers

    transformers.logging.set_verbosity_error()
    write(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("families.json"))
