"""A large file is read once per state of it, and never taken for another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quantlab.files import sha256
from quantlab.workspace import contents
from quantlab.workspace.contents import content_sha256


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that was read whole, with a cache of the test's own."""
    found: list[Path] = []
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "SMALL_BYTES", 10)
    monkeypatch.setattr(contents, "sha256", lambda path: found.append(path) or sha256(path))
    return found


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**12))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(bytes(100))
    return path


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_read_once_whatever_its_folder_and_link_are_called(
    file: Path, reads: list[Path]
) -> None:
    folder = file.parent / "folder"
    folder.mkdir()
    file = file.rename(folder / "weights")
    found = content_sha256(file)
    folder.rename(file.parents[1] / "renamed")
    moved = file.parents[1] / "renamed" / "weights"
    assert content_sha256(moved) == content_sha256(moved) == found == sha256(moved) and len(reads) == 1


@pytest.mark.usefixtures("settled")
def test_a_file_in_its_place_and_a_byte_in_it_are_read(file: Path, reads: list[Path]) -> None:
    first, before = content_sha256(file), file.stat()
    file.write_bytes(bytes(99) + b"1")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = content_sha256(file)
    other = file.with_name("other")
    other.write_bytes(bytes(99) + b"2")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert len({first, second, content_sha256(file)}) == len(reads) == 3


def test_a_file_that_was_written_just_now_is_read_again(file: Path, reads: list[Path]) -> None:
    """A write within the same tick of the file system's clock would leave no other change time."""
    content_sha256(file)
    content_sha256(file)
    assert len(reads) == 2


@pytest.mark.usefixtures("settled")
def test_small_files_are_always_read_and_a_damaged_note_is_none(
    file: Path, reads: list[Path], tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"123")
    content_sha256(small)
    content_sha256(small)
    assert reads == [small, small]
    found = content_sha256(file)
    for kept in (tmp_path / "cache" / "hashes").iterdir():
        kept.write_text("{")
    assert content_sha256(file) == found and len(reads) == 4


@pytest.mark.usefixtures("settled")
def test_a_cache_that_cannot_be_written_is_no_failure(file: Path, reads: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert content_sha256(file) == content_sha256(file) == sha256(file) and len(reads) == 2
