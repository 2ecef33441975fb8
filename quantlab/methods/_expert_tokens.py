"""Read how many calibration tokens each expert saw out of GPTQModel's log, quant_log.csv."""

from __future__ import annotations

import collections
import csv
import re
from pathlib import Path

from quantlab.records import ExpertTokens

_DOWN = re.compile(r"\.experts\.(\d+)\.(down_proj|w2|linear_2)$")
"""The projection that reads an expert's own tokens; AWQ logs the whole block's for the others."""
_RAW = "activation_raw_tokens"
"""AWQ's own column for the tokens that reached a projection; its `samples` are those that it kept."""
_FEW_ARE = "GPTQModel rounds them to nearest"


def read_expert_tokens(log: Path, calibration_tokens: int) -> ExpertTokens | None:
    """The tokens by block and expert; None for a model without experts, or without a log."""
    if not log.is_file():
        return None
    blocks: dict[int, dict[int, int]] = collections.defaultdict(dict)
    rounded = 0
    with log.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            expert = _DOWN.search(row.get("module") or "")
            if expert and (row.get("layer") or "").isdigit():
                blocks[int(row["layer"])][int(expert[1])] = _count(row.get(_RAW) or row.get("samples"))
                rounded += "fallback" in (row.get("loss") or "")
    if not blocks:
        return None
    by_block = {
        block: tuple(tokens.get(expert, 0) for expert in range(max(tokens) + 1))
        for block, tokens in sorted(blocks.items())
    }
    return ExpertTokens(
        calibration_tokens=calibration_tokens, by_block=by_block, few_are=_FEW_ARE, rounded=rounded
    )


def _count(text: str | None) -> int:
    """A number of tokens; the library writes none where an expert was left to plain rounding."""
    try:
        return int(float(text or 0))
    except ValueError:
        return 0
