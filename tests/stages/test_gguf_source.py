"""A GGUF file as MODEL: what transformers drops of it is found by running the file with llama.cpp."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hand_made_gguf import HEAD, tensors, write_tiny_gguf

from quantlab.errors import CellFailure, QuantlabError
from quantlab.methods._gguf import logits_apart
from quantlab.progress import Progress
from quantlab.stages import _gguf_source

QUIET = Progress(quiet=True)
PASSAGES = ["the quick brown fox jumps over the lazy dog " * 10]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp in this process, and a text of its own."""
    from quantlab.models import text

    here = logits_apart.logits_here
    monkeypatch.setattr(logits_apart, "logits_apart", lambda model, ids, log: here(model, ids))
    monkeypatch.setattr(text, "embedded_passages", lambda purpose: PASSAGES)


def _imported(tmp_path: Path, weights: Any, **fields: Any) -> tuple[str, ...]:
    (tmp_path / "dense").mkdir()
    file = write_tiny_gguf(tmp_path / "tiny.gguf", weights, **fields)
    return _gguf_source.from_gguf(file, tmp_path / "dense", tmp_path / "log", QUIET)


def test_a_file_that_is_imported_whole_is_at_the_noise_floor(tmp_path: Path) -> None:
    *_, compared = _imported(tmp_path, tensors())
    assert float(compared.partition(" by ")[2].split()[0]) < 1e-3, compared


@pytest.mark.parametrize("lost", ["linear", "llama3", "bias"])
def test_what_transformers_drops_is_refused_with_both_figures(tmp_path: Path, lost: str) -> None:
    weights = tensors(biases=lost == "bias")
    if lost == "llama3":
        weights["rope_freqs.weight"] = np.geomspace(1, 8, HEAD // 2).astype(np.float32)
    with pytest.raises(QuantlabError, match="becomes another model") as raised:
        _imported(tmp_path, weights, scaling="linear" if lost == "linear" else None)
    said = str(raised.value)
    named = {"linear": "(linear, factor 8)", "llama3": "rope_freqs.weight", "bias": "biases (blk.0.attn_"}
    assert named[lost] in said and "at most 0.05" in said
    assert float(said.partition(" by ")[2].split()[0]) > 0.1


@pytest.mark.parametrize("name", ["blk.1.ffn_up.weight", "blk.0.attn_q.weight", "output_norm.weight"])
def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    weights = tensors()
    del weights[name]
    with pytest.raises(QuantlabError, match="missing"):
        _imported(tmp_path, weights)


def test_where_llama_cpp_cannot_run_the_file_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise CellFailure("unsupported", "llama.cpp does not run this model")

    monkeypatch.setattr(logits_apart, "logits_apart", fails)
    assert "was not checked: llama.cpp does not run this model." in _imported(tmp_path, tensors())[-1]


def test_the_child_process_gives_the_same_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    file, ids = write_tiny_gguf(tmp_path / "tiny.gguf", tensors()), np.arange(3, 35)
    apart = logits_apart.logits_apart(file, ids, tmp_path / "log")
    assert np.array_equal(apart, logits_apart.logits_here(file, ids))
    file.write_bytes(b"GGUF")
    with pytest.raises(CellFailure, match="cannot load"):
        logits_apart.logits_apart(file, ids, tmp_path / "log")


def _split(tmp_path: Path) -> Path:
    """The first part of three."""
    write_tiny_gguf(tmp_path / "parts.gguf", tensors(), tensors_in_a_part=8)
    return tmp_path / "parts-00001-of-00003.gguf"


def test_a_split_file_is_the_model_that_it_was_before(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    first = _split(tmp_path)
    (tmp_path / "whole").mkdir()
    (tmp_path / "joined").mkdir()
    whole = write_tiny_gguf(tmp_path / "whole.gguf", tensors())
    for file, folder in ((whole, tmp_path / "whole"), (first, tmp_path / "joined")):
        *_, compared = _gguf_source.from_gguf(file, folder, tmp_path / "log", QUIET)
        assert float(compared.partition(" by ")[2].split()[0]) < 1e-3
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "joined"))
    assert one.keys() == other.keys() and all(bool((one[n] == other[n]).all()) for n in one)
    assert [path.name for path in (tmp_path / "joined").glob("*.gguf")] == []


def test_every_part_is_hashed_counted_and_checked(tmp_path: Path) -> None:
    from quantlab.formats.gguf import stored_tensors
    from quantlab.methods._foreign import identify, weight_files
    from quantlab.models import check_gguf
    from quantlab.workspace.contents import gguf_sha256

    first = _split(tmp_path)
    check_gguf(first)
    assert sorted(tensor.name for tensor in stored_tensors(first)) == sorted(tensors())
    assert list(weight_files(first)) == [f"parts-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    named, hashed = identify(first), gguf_sha256(first)
    last = tmp_path / "parts-00003-of-00003.gguf"
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    assert identify(first) != named and gguf_sha256(first) != hashed
    last.unlink()
    with pytest.raises(
        QuantlabError, match=r"one of 3 parts, and parts-00003-of-00003.gguf is not beside it"
    ):
        check_gguf(first)


def test_another_part_than_the_first_is_refused(tmp_path: Path) -> None:
    from quantlab.models import check_gguf

    _split(tmp_path)
    with pytest.raises(QuantlabError, match=r"part 2 of 3: name the first, parts-00001-of-00003.gguf"):
        check_gguf(tmp_path / "parts-00002-of-00003.gguf")
    renamed = (tmp_path / "parts-00001-of-00003.gguf").rename(tmp_path / "renamed.gguf")
    with pytest.raises(QuantlabError, match="says that it is part 1 of 3"):
        check_gguf(renamed)
