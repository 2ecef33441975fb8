"""A group size that does not divide the rows is refused before quantizing, with those that do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quantlab.errors import CellFailure
from quantlab.stages._groups import require_groups


def _model(folder: Path, kind: str, **fields: Any) -> Path:
    from transformers import AutoConfig

    AutoConfig.for_model(kind, **fields).save_pretrained(folder)
    return folder


def _llama(folder: Path, hidden: int, feed: int) -> Path:
    sizes = {"hidden_size": hidden, "intermediate_size": feed, "num_attention_heads": 4}
    return _model(folder, "llama", **sizes, num_hidden_layers=1, vocab_size=96)


def _refusal(folder: Path, size: int) -> str:
    with pytest.raises(CellFailure) as failure:
        require_groups(folder, False, SimpleNamespace(group_size=size))
    assert failure.value.kind == "not_offered"
    return failure.value.reason


def test_groups_that_divide_every_row_pass(tmp_path: Path) -> None:
    for size in (128, 64, 32, -1, None):
        require_groups(_llama(tmp_path, 256, 512), False, SimpleNamespace(group_size=size))
    require_groups(tmp_path, False, SimpleNamespace())


def test_the_rows_and_the_sizes_that_divide_them_are_named(tmp_path: Path) -> None:
    folder = _llama(tmp_path, 576, 1536)
    assert (
        _refusal(folder, 128) == "groups of 128 do not divide rows of 576: set group_size to 64 or 32 or 16"
    )


def test_rows_that_no_usual_group_divides_send_to_another_method(tmp_path: Path) -> None:
    said = _refusal(_llama(tmp_path, 104, 200), 64)
    assert said == "groups of 64 do not divide rows of 104, 200: use another method"


def test_gpt2s_layers_are_stored_the_other_way_round(tmp_path: Path) -> None:
    folder = _model(tmp_path, "gpt2", n_embd=96, n_layer=1, n_head=4, vocab_size=128, n_inner=256)
    assert _refusal(folder, 64).startswith("groups of 64 do not divide rows of 96: set group_size to 32")
