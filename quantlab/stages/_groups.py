"""Refuse a group size that does not divide the model's rows, before hours are spent on quantizing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantlab.errors import CellFailure

_USUAL = (128, 64, 32, 16)
_SMALLEST_ROW = 32
"""Columns; smaller layers are gates, which every library leaves alone."""


def require_groups(weights: Path, trust_remote_code: bool, settings: Any) -> None:
    """Raise CellFailure where groups of the settings' size do not divide the rows of every linear layer."""
    size = getattr(settings, "group_size", None)
    if not size or size < 0:
        return
    rows = set(_rows(weights, trust_remote_code))
    odd = sorted(columns for columns in rows if columns % size)
    if not odd:
        return
    fitting = [group for group in _USUAL if not any(columns % group for columns in rows) and group != size]
    instead = f"set group_size to {' or '.join(map(str, fitting))}" if fitting else "use another method"
    raise CellFailure(
        "not_offered", f"groups of {size} do not divide rows of {', '.join(map(str, odd))}: {instead}"
    )


def _rows(weights: Path, trust_remote_code: bool) -> Iterator[int]:
    """Columns of every linear layer but the head, Conv1D (GPT-2's, stored the other way round) among them."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from quantlab.models.loading import build_on_meta, load_config

    model = build_on_meta(load_config(weights, trust_remote_code), trust_remote_code)
    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            columns = int(module.weight.shape[1 if isinstance(module, nn.Linear) else 0])
            if columns >= _SMALLEST_ROW:
                yield columns
