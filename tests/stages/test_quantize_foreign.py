"""Somebody else's checkpoint counts only with the model's own tokenizer and vocabulary."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantlab.errors import CellFailure
from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.methods._foreign import identify
from quantlab.progress import Progress
from quantlab.stages import prepare, quantize
from quantlab.workspace.cell import Cell

pytestmark = pytest.mark.slow
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def root(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of its own, for its recipe is changed here."""
    found = tmp_path_factory.mktemp("foreign")
    recipe = yaml.safe_load((workspace / "recipes" / "small.yaml").read_text())
    write_text(found / "recipes" / "small.yaml", yaml.safe_dump(recipe))
    prepare.run(found, "small", QUIET)
    quantize.run(Cell(found, "small", "bitsandbytes-8"), find("cpu"), QUIET)
    return found


def _foreign(root: Path, name: str, change: Any) -> Cell:
    """The cell of a copy of the quantized checkpoint, tokenizer included, with a change."""
    made, folder = Cell(root, "small", "bitsandbytes-8").checkpoint_folder, root / name
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("manifest.json"))
    for path in Cell(root, "small", "bitsandbytes-8").prepared.weights.glob("tokenizer*"):
        shutil.copy(path, folder)
    change(folder)
    slug, path = identify(folder).slug, root / "recipes" / "small.yaml"
    recipe = yaml.safe_load(path.read_text())
    write_text(
        path, yaml.safe_dump(recipe | {"variants": recipe["variants"] | {slug: {"checkpoint": str(folder)}}})
    )
    return Cell(root, "small", slug)


def _edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_with_the_models_own_tokenizer_it_counts(root: Path) -> None:
    cell = _foreign(root, "same", lambda _: None)
    record = quantize.run(cell, find("cpu"), QUIET)
    assert record.loss_reloaded_nats is not None and not any("tokenizer" in note for note in record.notes)


def test_with_two_words_changed_about_it_does_not(root: Path) -> None:
    def swap(content: dict[str, Any]) -> None:
        words = content["model"]["vocab"]
        common = [word for word in words if len(word) > 2 and not word.startswith("<")][:40]
        values = [words[word] for word in common]
        words.update(zip(common, values[::-1], strict=True))

    cell = _foreign(root, "swapped", lambda folder: _edit(folder / "tokenizer.json", swap))
    with pytest.raises(
        CellFailure, match=r"gives other token ids than the model's for [0-9]+ of 300 passages"
    ):
        quantize.run(cell, find("cpu"), QUIET)
    assert not cell.checkpoint_folder.exists()


def test_with_a_smaller_vocabulary_it_does_not(root: Path) -> None:
    cell = _foreign(
        root,
        "smaller",
        lambda folder: _edit(folder / "config.json", lambda c: c.update(vocab_size=c["vocab_size"] - 8)),
    )
    with pytest.raises(CellFailure, match=r"the vocabulary has .* they cannot be compared"):
        quantize.run(cell, find("cpu"), QUIET)
