"""Whatever stands in a config.json, it is read or refused in one line."""

from __future__ import annotations

import copy
import random
from typing import Any

from quantlab.architecture.kvcache import POLICIES, cache_bytes
from quantlab.architecture.shape import read_architecture
from quantlab.catalogue.config import known_config, known_configs
from quantlab.errors import QuantlabError

_MUTATIONS = 300
_VALUES: tuple[Any, ...] = (
    *(
        None,
        0,
        -1,
        1,
        3,
        10**9,
        10**30,
        1.5,
        float("nan"),
        True,
        False,
        "",
        "x",
        "LLG",
        [],
        [1],
        [[1]],
        [None],
        {},
        {"a": 1},
        {"a": ["b"]},
    ),
    *(
        [8, 8],
        ["full_attention"],
        {"config_groups": {"W8A8": ["Linear"]}},
        {"config_groups": {"g": {"weights": {"num_bits": "four"}}}},
    ),
    *({"bits": 4, "modules_to_not_convert": 5}, {"quant_method": ["a"], "bits": {}}, {"full_attn_layers": 3}),
)
_LIKELY = (
    "quantization_config",
    "compress_ratios",
    "layer_types",
    "linear_attn_config",
    "attn_type_list",
    "full_attn_idxs",
    "moe_topk",
)


def _mutated(config: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    inner = changed["text_config"] if isinstance(changed.get("text_config"), dict) else changed
    for key in draw.sample([*inner, *_LIKELY], draw.choice((1, 1, 2, 4))):
        if draw.random() < 0.2:
            inner.pop(key, None)
        else:
            inner[key] = draw.choice(_VALUES)
    return changed


def test_mutated_configs_are_read_or_refused_in_one_line() -> None:
    draw = random.Random(20)
    configs = [known.config for alias in sorted(known_configs()) if (known := known_config(alias))]
    read = refused = 0
    for _ in range(_MUTATIONS):
        config = _mutated(dict(draw.choice(configs)), draw)
        try:
            found = read_architecture(config)
            for policy in POLICIES:
                assert cache_bytes(found, 5000, "bfloat16", policy).total >= 0
            read += 1
        except QuantlabError as error:
            assert "\n" not in str(error)
            refused += 1
    assert read > 50
    assert refused > 20
