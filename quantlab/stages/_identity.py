"""Hash what a model is made from into `env/models/<model>.json`, on which `prepare` and all later stages
depend.

A model saved into the same folder, a GGUF file or a text under the same name are then another source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError
from quantlab.formats import GGUF
from quantlab.recipe import Recipe, SourceSpec
from quantlab.workspace.checkpoint import entry_of, model_files
from quantlab.workspace.contents import gguf_sha256
from quantlab.workspace.prepared import Prepared


def identity(root: Path, recipe: Recipe) -> dict[str, Any]:
    """The source's and the texts' files with their hashes. Raises QuantlabError where a file cannot be
    read."""
    try:
        source = _source(root, recipe.model, recipe.source)
        mixed = [_text(root, part.text, "calibration") for part in recipe.calibration.parts]
        calibration = {"mix": mixed} if recipe.calibration.mix else mixed[0]
        evaluation = _text(root, recipe.evaluation.text, "evaluation")
        return {"source": source, "calibration": calibration, "evaluation": evaluation}
    except OSError as error:
        raise QuantlabError(f"the source of {recipe.model} cannot be read: {error}") from None


def _source(root: Path, model: str, spec: SourceSpec) -> dict[str, Any]:
    """What is pinned by a commit or an archive's hash is named by it: its content cannot be another."""
    if spec.path is None:
        named = {"hub", "revision", "pypi", "file", "parts", "sha256"}
        return spec.model_dump(mode="json", include=named, exclude_none=True)
    path = (root / Path(spec.path).expanduser()).resolve()
    if path.is_dir():
        return {"files": {name: entry.model_dump() for name, entry in model_files(path).items()}}
    if path.is_file():
        return {"sha256": gguf_sha256(path)}
    return _as_prepared(Prepared(root, model))


def _as_prepared(prepared: Prepared) -> dict[str, Any]:
    """Of a source that is not there now: as it was when it was prepared, so that nothing made from it is
    thrown away."""
    if not (prepared.source_folder / "source.json").is_file():
        return {}  # prepare says what is missing
    source = prepared.source()
    if source.kind == GGUF:
        return {"sha256": source.revision}
    files = (source.release or source).files
    return {"files": {name: entry.model_dump() for name, entry in files.items()}}


def _text(root: Path, text: str, purpose: str) -> dict[str, Any]:
    if text == "embedded":
        return {}
    path = root / text
    if not path.is_file():
        raise QuantlabError(f"the {purpose} text {path} is not there: name a UTF-8 text file or 'embedded'")
    return entry_of(path).model_dump()
