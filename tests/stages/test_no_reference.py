"""A reference that cannot be computed on a device is a recorded failure, and the next device tries again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quantlab.errors import CellFailure
from quantlab.files import write_text
from quantlab.hardware.device import Device, Gpu, find
from quantlab.progress import Progress
from quantlab.reference import store
from quantlab.reference.store import INFO, NoReference, Reference, ReferenceInfo, folder_of
from quantlab.run.retries import retry_transient
from quantlab.stages import reference

QUIET = Progress(quiet=True)


def _card(name: str, gib: float, device: str = "cuda:0") -> Device:
    card = Gpu(index=0, uuid="GPU-0", name=name, memory_bytes=int(gib * 2**30), driver="580")
    places = {"device": device, "name": name if device == "cuda:0" else f"{name} + a processor"}
    return find("cpu").model_copy(update=places | {"gpus": (card,), "cpu": "a processor"})


def test_gpu_row_14_a_reference_that_does_not_fit_is_a_row(workspace: Path) -> None:
    made = reference.run(workspace, "small", _card("a card", 0.0001), QUIET)
    assert isinstance(made, NoReference) and made.failure.kind == "does_not_fit"
    assert made.failure.reason.startswith("the unquantized model in bfloat16 needs at least")
    with pytest.raises(
        CellFailure, match="there is no reference: does_not_fit: the unquantized model"
    ) as why:
        Reference(folder_of(workspace, "small"))
    assert why.value.kind == "not_measured"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_gpu_row_14_running_out_of_memory_is_one_too(
    error: Exception, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(reference, "_compute", full)
    made = reference.run(workspace, "small", find("cpu"), QUIET)
    assert isinstance(made, NoReference) and made.failure.kind == "out_of_memory"
    assert [path.name for path in folder_of(workspace, "small").iterdir()] == [INFO]


def test_gpu_row_14_a_fault_keeps_its_traceback(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(reference, "_compute", broken)
    with pytest.raises(ZeroDivisionError):
        reference.run(workspace, "small", find("cpu"), QUIET)


def test_gpu_row_14_the_next_run_tries_again(tmp_path: Path) -> None:
    write_text(tmp_path / "params.yaml", "models: [m]\ncells: {}\n")
    path = tmp_path / "references" / "m" / INFO
    failure = {"kind": "does_not_fit", "reason": "the card is small"}
    write_text(path, json.dumps({"schema_version": 3, "failure": failure, "device": "a card"}) + "\n")
    before = path.read_bytes()
    [retry] = retry_transient(tmp_path)
    assert str(retry) == "reference@m is tried again: does_not_fit: the card is small"
    assert path.read_bytes() != before  # DVC sees another file


@pytest.fixture
def head_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stored reference, by where it and its head were computed; gives where the head is applied."""
    used: list[str] = []
    monkeypatch.setattr(store, "_require_stored", lambda *_: None)
    monkeypatch.setattr(store, "load_head", lambda _path, _spec, device: used.append(device))
    monkeypatch.setattr(store, "find", lambda _: _card("a card", 1).model_copy(update={"device": "cpu"}))

    def applied(info: dict[str, Any], device: Device) -> tuple[str, tuple[str, ...]]:
        fields: dict[str, Any] = dict.fromkeys(("evaluation_sha256", "source_sha256"), "")
        fields |= {"hidden_sha256": "", "head_sha256": "", "revision": None, "versions": {}, "head": {}}
        fields |= {"windows": 1, "length": 1, "hidden_size": 1, "vocabulary": 1, "head_max_difference": 0.0}
        fields |= {"head_divergence_nats": 0.0, "bytes_per_scored_token": 0.0}
        fields |= {"dtype": "bfloat16", "requested_dtype": "auto"}
        write_text(tmp_path / INFO, ReferenceInfo(**fields | info).model_dump_json())
        found = Reference(tmp_path, device)
        return used[-1], found.notes

    return applied


def test_gpu_row_22_a_model_over_gpu_and_memory_has_its_head_on_the_gpu(head_on: Any) -> None:
    spread = {"device": "a card + a processor", "head_device": "a card"}
    assert head_on(spread, _card("a card", 1)) == ("cuda:0", ())
    assert head_on(spread, _card("a card", 1, "cuda:0,cpu")) == ("cuda:0", ())
    place, notes = head_on(spread, _card("another card", 1))
    assert place == "cpu" and "head ran on a card and is applied on a processor" in notes[0]


def test_gpu_row_22_older_references_say_one_device(head_on: Any) -> None:
    assert head_on({"device": "a card"}, _card("a card", 1)) == ("cuda:0", ())
    assert head_on({"device": "a processor"}, _card("a card", 1)) == ("cpu", ())
