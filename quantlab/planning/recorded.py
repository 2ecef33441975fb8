"""Find the models that have records, with what a prediction of them needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.architecture.counts import count
from quantlab.architecture.parameters import ParameterCount
from quantlab.architecture.shape import Architecture, read_architecture
from quantlab.errors import QuantlabError
from quantlab.formats.json_file import read_object
from quantlab.models.ingredients import ingredients
from quantlab.planning.files import TokenizerBytes, tokenizer_bytes
from quantlab.recipe import Recipe, read_recipe


class RecordedModel(NamedTuple):
    """A model that has records."""

    name: str
    folder: Path
    recipe: Recipe | None
    architecture: Architecture
    counted: ParameterCount
    tokenizer: TokenizerBytes
    """Counted where the prepared model is still there."""


def with_records(folder: Path) -> list[Path]:
    places = {
        path.parents[2]
        for path in folder.resolve().rglob("data/*/*.json")
        if path.stem in ("measure", "quantize")
    }
    return sorted(places)


def reports_without_records(folder: Path, with_records: list[Path]) -> list[Path]:
    """Folders that are reports, by their data/ or report.md, and have no record that a plan can be compared
    with."""
    root = folder.resolve()
    reports = {
        path.parent for name in ("data", "report.md") for path in (*root.glob(name), *root.glob(f"*/{name}"))
    }
    return sorted(reports - set(with_records))


def recorded_model(folder: Path) -> RecordedModel:
    root = next((parent.parent for parent in folder.parents if parent.name == "reports"), folder)
    recipe = _recipe(root, folder.name)
    source = _prepared(root, folder.name)
    config = _config(source, folder.name)
    architecture = read_architecture(config)
    return RecordedModel(
        folder.name,
        folder,
        recipe,
        architecture,
        count(config),
        tokenizer_bytes(architecture.vocab_size, source),
    )


def _recipe(root: Path, name: str) -> Recipe | None:
    from quantlab.recipe import shipped_recipes

    paths = (root / "recipes" / f"{name}.yaml", shipped_recipes() / f"{name}.yaml")
    return next((read_recipe(path) for path in paths if path.is_file()), None)


def _prepared(root: Path, name: str) -> Path | None:
    """The folder of the model as it was prepared."""
    prepared = root / "models" / name / "source"
    about = prepared / "source.json"
    weights = prepared / read_object(about).get("weights", ".") if about.is_file() else prepared
    return weights if (weights / "config.json").is_file() else None


def _config(prepared: Path | None, name: str) -> Mapping[str, Any]:
    """Of the prepared model, else the catalogue's. Raises QuantlabError where there is neither."""
    if prepared:
        config: Mapping[str, Any] = read_object(prepared / "config.json")
        return config
    known = ingredients(name).config
    if known is None:
        raise QuantlabError(
            "its architecture is not known: the prepared model is not there, and the catalogue has none of"
            " that name"
        )
    return known
