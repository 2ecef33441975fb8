"""A stored reference that was truncated or changed is not compared with, and neither is another text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from quantlab.errors import QuantlabError
from quantlab.files import sha256, write_json
from quantlab.hardware.device import find
from quantlab.reference.head import Head, HeadSpec
from quantlab.reference.store import HEAD, HIDDEN, INFO, Reference, ReferenceInfo
from quantlab.workspace.prepared import Prepared, Text

WINDOWS, LENGTH, WIDTH, VOCABULARY = 3, 8, 16, 32


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    hidden = np.random.default_rng(0).standard_normal((WINDOWS, LENGTH, WIDTH)).astype(np.float32)
    np.save(tmp_path / HIDDEN, hidden)
    Head(torch.ones(VOCABULARY, WIDTH), None, HeadSpec()).save(tmp_path / HEAD)
    info = ReferenceInfo(
        dtype="float32",
        requested_dtype="auto",
        device=find("cpu").name,
        head=HeadSpec(),
        windows=WINDOWS,
        length=LENGTH,
        hidden_size=WIDTH,
        evaluation_sha256="",
        source_sha256="",
        hidden_sha256=hashlib.sha256(hidden.tobytes()).hexdigest(),
        head_sha256=sha256(tmp_path / HEAD),
        vocabulary=VOCABULARY,
        revision=None,
        versions={},
        head_max_difference=0.0,
        head_divergence_nats=0.0,
        bytes_per_scored_token=0.0,
    )
    (tmp_path / INFO).write_text(info.model_dump_json())
    return tmp_path


def test_what_was_stored_is_read(stored: Path) -> None:
    assert Reference(stored).logits(2).shape == (LENGTH, VOCABULARY)


def test_a_reference_without_a_hash_of_its_head_is_refused(stored: Path) -> None:
    info = ReferenceInfo.model_validate_json((stored / INFO).read_text())
    (stored / INFO).write_text(info.model_dump_json(exclude={"head_sha256"}))
    with pytest.raises(QuantlabError, match="of another version"):
        Reference(stored)


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (HIDDEN, lambda path: path.write_bytes(path.read_bytes()[:-1])),
        (HIDDEN, lambda path: path.write_bytes(path.read_bytes()[:100])),
        (HIDDEN, lambda path: path.write_bytes(b"")),
        (HIDDEN, lambda path: path.write_bytes(path.read_bytes() + b"x")),
        (HIDDEN, lambda path: _flip(path, -5)),
        (HIDDEN, lambda path: np.save(path, np.load(path).astype(np.float64))),
        (HIDDEN, lambda path: np.save(path, np.load(path).reshape(LENGTH, WINDOWS, WIDTH))),
        (HIDDEN, lambda path: path.unlink()),
        (HEAD, lambda path: _flip(path, -5)),
        (HEAD, lambda path: path.write_bytes(path.read_bytes()[:-1])),
        (HEAD, lambda path: path.unlink()),
    ],
    ids=[
        "last byte",
        "in the header",
        "empty",
        "longer",
        "a bit",
        "type",
        "shape",
        "gone",
        "head: a bit",
        "head: last byte",
        "head: gone",
    ],
)
def test_what_was_changed_is_refused(stored: Path, name: str, change: Callable[[Path], None]) -> None:
    change(stored / name)
    with pytest.raises(
        QuantlabError,
        match=f"{name} is not what `quantlab reference` stored .*run `quantlab reference` again",
    ):
        Reference(stored)


@pytest.mark.parametrize(
    "change",
    [lambda raw: raw[:-1], lambda raw: raw[:20], lambda raw: b"", lambda raw: raw[:-1] + b"\1", None],
)
def test_token_ids_that_were_changed_are_refused(
    tmp_path: Path, change: Callable[[bytes], bytes] | None
) -> None:
    prepared, ids = Prepared(tmp_path, "small"), np.arange(32).reshape(2, 16)
    prepared.text_folder.mkdir(parents=True)
    path, digest = prepared.text_folder / "evaluation.npy", hashlib.sha256(ids.tobytes()).hexdigest()
    np.save(path, ids)
    text = Text(
        calibration="", evaluation="", calibration_sha256="", evaluation_sha256=digest, bos_token_id=None
    )
    write_json(prepared.text_folder / "text.json", text.model_dump())
    assert (prepared.token_ids("evaluation") == ids).all()
    path.write_bytes(change(path.read_bytes())) if change else path.unlink()
    with pytest.raises(QuantlabError, match=r"evaluation\.npy is not what `quantlab prepare` wrote"):
        prepared.token_ids("evaluation")
