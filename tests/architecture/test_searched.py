"""A damaged list of layers' widths is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.architecture.searched import count_searched
from quantlab.errors import QuantlabError

_ATTENTION = {"n_heads_in_group": 2}


def _config(*blocks: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 100, "num_hidden_layers": len(blocks)}
    return {"model_type": "nemotron-nas", "block_configs": list(blocks), **sizes}


def test_a_layer_of_known_widths() -> None:
    counted = count_searched(_config({"attention": _ATTENTION, "ffn": {"ffn_mult": 4.0}}))
    # inner 2 * 4 * 64 / 3 = 170, up to 256; key-value heads 4 / 2
    assert counted.total == 2 * 100 * 64 + 3 * 64 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 256 * 64


@pytest.mark.parametrize(
    "block", [None, {"ffn": {}}, {"ffn": {"ffn_mult": "4"}}, {"ffn": {"ffn_mult": 1e300}}]
)
def test_a_damaged_layer_is_refused(block: Any) -> None:
    with pytest.raises(QuantlabError, match="block_configs"):
        count_searched(_config(block))
