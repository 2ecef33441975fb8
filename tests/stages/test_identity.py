"""What env/models/<model>.json says of a source, and that convert does not start from another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from quantlab.errors import QuantlabError
from quantlab.files import sha256, write_text
from quantlab.progress import Progress
from quantlab.recipe import Recipe, parse_recipe
from quantlab.stages import convert, probe
from quantlab.stages._identity import identity
from quantlab.workspace.checkpoint import model_files
from quantlab.workspace.prepared import Gguf, Prepared, Source

EMBEDDED = {"calibration": {}, "evaluation": {}}


def recipe(source: dict[str, object], **sections: object) -> Recipe:
    return parse_recipe({"model": "m", "source": source, **sections}, "m")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "weights"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(bytes(50))
    (made / "notes.md").write_text("of no consequence")
    return made


def prepare(root: Path, folder: Path, kind: str = "folder", revision: str | None = None) -> Prepared:
    found = Prepared(root, "m")
    about = Source(
        model="m", kind=kind, name="m", revision=revision, weights=str(folder), files=model_files(folder), parameters=1,
        dtype="float32", vocabulary=8,
    )  # fmt: skip
    write_text(found.source_folder / "source.json", about.model_dump_json())
    return found


def test_a_folder_is_its_files(folder: Path, tmp_path: Path) -> None:
    found = identity(tmp_path, recipe({"path": str(folder)}))
    assert (
        list(found["source"]["files"]) == ["config.json", "model.safetensors"] and found["evaluation"] == {}
    )
    (folder / "notes.md").write_text("still of none")
    assert identity(tmp_path, recipe({"path": str(folder)})) == found
    before = (folder / "model.safetensors").stat()
    (folder / "model.safetensors").write_bytes(bytes(49) + b"1")
    os.utime(folder / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert identity(tmp_path, recipe({"path": str(folder)})) != found


def test_a_gguf_file_and_a_text_are_their_hash(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("some text")
    given = recipe(
        {"path": str(folder / "model.safetensors")},
        evaluation={"text": "text.txt", "windows": 1, "length": 16},
    )
    found = identity(tmp_path, given)
    assert found["source"] == {"sha256": sha256(folder / "model.safetensors")}
    assert found["evaluation"] == {"bytes": 9, "sha256": sha256(tmp_path / "text.txt")}
    (tmp_path / "text.txt").unlink()
    with pytest.raises(QuantlabError, match=r"the evaluation text .*text.txt is not there"):
        identity(tmp_path, given)


def test_what_is_pinned_is_named_by_its_pin(tmp_path: Path) -> None:
    assert identity(tmp_path, recipe({"hub": "a/b", "revision": "c" * 40})) == {
        "source": {"hub": "a/b", "revision": "c" * 40},
        **EMBEDDED,
    }
    package = {"pypi": "a==1", "file": "x.gguf", "sha256": "0" * 64}
    assert identity(tmp_path, recipe(dict(package)))["source"] == package


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_source_that_is_gone_is_as_it_was_prepared(kind: str, folder: Path, tmp_path: Path) -> None:
    """So that nothing that was made from it is removed."""
    path = folder if kind == "folder" else folder / "model.safetensors"
    given = recipe({"path": str(path)})
    before = identity(tmp_path, given)
    prepare(tmp_path, folder, kind, sha256(folder / "model.safetensors"))
    folder.rename(tmp_path / "elsewhere")
    assert identity(tmp_path, given) == before
    assert identity(tmp_path / "another", given)["source"] == {}


def test_the_probe_writes_it(folder: Path, tmp_path: Path) -> None:
    write_text(
        tmp_path / "recipes" / "m.yaml", yaml.safe_dump({"model": "m", "source": {"path": str(folder)}})
    )
    probe.run(tmp_path, "cpu", ["m"])
    assert sha256(folder / "model.safetensors") in (tmp_path / "env" / "models" / "m.json").read_text()


def test_convert_refuses_a_source_that_is_not_the_prepared_one(folder: Path, tmp_path: Path) -> None:
    prepare(tmp_path, folder)
    (folder / "model.safetensors").write_bytes(bytes(49) + b"1")
    with pytest.raises(QuantlabError, match=r"model.safetensors is not what it was when m was prepared"):
        convert.run(tmp_path, "m", tmp_path / "log", Progress(quiet=True))
    assert not (tmp_path / "models" / "m" / "gguf").exists()


def test_convert_refuses_a_source_that_changed_while_it_was_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, folder)

    def replace(*_: object) -> Gguf:
        (folder / "model.safetensors").write_bytes(bytes(49) + b"1")
        return Gguf()

    monkeypatch.setattr(convert, "_make", replace)
    with pytest.raises(QuantlabError, match="is not what it was when m was prepared"):
        convert.run(tmp_path, "m", tmp_path / "log", Progress(quiet=True))
    assert not (tmp_path / "models" / "m" / "gguf").exists()


def test_a_gguf_that_is_not_the_converted_one_is_refused(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, "m")
    write_text(prepared.gguf_folder / "f16.gguf", "weights")
    write_text(prepared.gguf_folder / "gguf.json", Gguf(files=model_files(tmp_path)).model_dump_json())
    prepared.require_gguf()  # older than the field
    from quantlab.workspace.checkpoint import entry_of

    about = Gguf(files={"f16.gguf": entry_of(prepared.gguf_folder / "f16.gguf")})
    write_text(prepared.gguf_folder / "gguf.json", about.model_dump_json())
    prepared.require_gguf()
    write_text(prepared.gguf_folder / "f16.gguf", "Weights")
    with pytest.raises(QuantlabError, match=r"f16.gguf is not what was converted"):
        prepared.require_gguf()


def test_another_tokenizer_is_noticed_where_the_weights_do_not_matter(folder: Path, tmp_path: Path) -> None:
    prepared = prepare(tmp_path, folder)
    (folder / "model.safetensors").write_bytes(b"elsewhere by now")
    prepared.require_unchanged(weights=False)
    (folder / "config.json").write_text("{ }")
    with pytest.raises(QuantlabError, match=r"config.json is not what it was"):
        prepared.require_unchanged(weights=False)
