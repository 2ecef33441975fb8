"""Write a workspace: a folder with the shipped dvc.yaml, the recipes it uses, and the cells it was asked for.

It holds no pipeline logic: DVC decides what to run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from quantlab import engines, methods, processes
from quantlab.errors import QuantlabError
from quantlab.files import write_text
from quantlab.formats import GGUF
from quantlab.names import BASELINE, cell_name, parse_variant
from quantlab.parsing import read_yaml
from quantlab.progress import Progress
from quantlab.recipe import Recipe
from quantlab.records import BY_DVC
from quantlab.run import leftovers, tracking
from quantlab.run.mending import discard_damaged

_SHIPPED = Path(__file__).with_name("dvc.yaml")
_DVC = """[cache]
    type = "reflink,hardlink,symlink"
[core]
    analytics = false
    no_scm = true
"""
LOCK = ".quantlab.lock"
"""Held by a run from before it writes the recipe until DVC has ended."""


class Workspace:
    """One folder in which DVC works."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def recipe(self, model: str) -> Recipe | None:
        """The recipe of a model that is already there, None where it is not. Raises QuantlabError."""
        path = self.root / "recipes" / f"{model}.yaml"
        return methods.checked_recipe(path) if path.exists() else None

    def params(self) -> dict[str, Any]:
        """What params.yaml says."""
        path = self.root / "params.yaml"
        params = read_yaml(path) if path.exists() else {}
        if trouble := _trouble_with_params(params):
            raise QuantlabError(f"{path}: {trouble}; mend it, or name another folder with --workspace")
        return {"device": "auto", "models": [], "gguf_models": [], "cells": {}} | (params or {})

    @contextmanager
    def held(self, say: Callable[[str], None]) -> Iterator[None]:
        """Keep other runs out of the workspace, its recipe and cells until the block ends; wait for one that
        works there.

        Raises QuantlabError where the folder cannot be written.
        """
        leftovers.require_writable(self.root)
        lock = FileLock(self.root / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(
                f"another `quantlab run` works in {self.root}: waiting until it ends (or name another folder"
                " with --workspace)"
            )
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def add(self, recipe: Recipe, variants: Sequence[str], device: str) -> None:
        """Write the shipped pipeline, the recipe and the cells; cells that are there already stay.

        Another model's recipe that lacks what the pipeline tracks gets its defaults written out.

        Raises QuantlabError where a variant is there with other settings.
        """
        leftovers.tidy(self.root)
        there = self.recipe(recipe.model)
        merged = recipe if there is None else _merge(there, recipe)
        params = self.params()
        params["device"] = device
        params["models"] = sorted({*params["models"], recipe.model})
        params["cells"] |= {
            cell_name(recipe.model, slug): {"model": recipe.model, "variant": slug} for slug in variants
        }
        params["cells"] = {
            name: _cell(cell["model"], cell["variant"], params["cells"])
            for name, cell in params["cells"].items()
        }
        params["gguf_models"] = sorted(
            {cell["model"] for cell in params["cells"].values() if cell["from"] == GGUF}
        )
        recipes = self._incomplete(read_yaml(_SHIPPED), params) | {recipe.model: merged}
        self._initialize()
        for model, written in recipes.items():
            write_text(self.root / "recipes" / f"{model}.yaml", _yaml(_written(written)))
        write_text(self.root / "params.yaml", _yaml(params))

    def _incomplete(self, pipeline: Any, params: dict[str, Any]) -> dict[str, Recipe]:
        """The recipes here that lack what a pipeline tracks."""
        recipes = {model: self.recipe(model) for model in params["models"]}
        return {
            model: recipe
            for model, recipe in recipes.items()
            if recipe
            and tracking.missing(pipeline, params, model, read_yaml(self.root / "recipes" / f"{model}.yaml"))
        }

    def _initialize(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_SHIPPED, self.root / "dvc.yaml")
        if not (self.root / ".dvc").is_dir():
            self._dvc("init", "--no-scm", "--quiet")
            write_text(self.root / ".dvc" / "config", _DVC)

    def _dvc(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "dvc", *arguments],
            cwd=self.root,
            env=environment() | {"DVC_NO_ANALYTICS": "1"},  # the configuration that says so is not there yet
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise QuantlabError(
                f"dvc {arguments[0]} failed in {self.root}:"
                f" {' '.join((done.stderr or done.stdout).split())[:300]}"
            )

    def reproduce(self, model: str, variants: Sequence[str], quiet: bool) -> int:
        """Run the stages of the cells, then the report; DVC's output goes to standard error. Returns DVC's
        exit code."""
        for damaged in discard_damaged(self.root, model, variants):
            Progress().say(f"quantlab: {damaged} was changed after it was made: it is made again")
        targets = [f"{stage.name}@{cell_name(model, slug)}" for slug in variants for stage in BY_DVC]
        code = self._repro(["--keep-going", *targets], quiet)
        if not (self.root / "reports" / model / "data").is_dir():
            return code or 1
        # the report depends on the whole data folder: asked for by name without -s it would run every cell
        # there is
        return self._repro(["--single-item", f"report@{model}"], quiet) or code

    def _repro(self, arguments: Sequence[str], quiet: bool) -> int:
        command = [sys.executable, "-P", "-m", "dvc", "repro", *(["--quiet"] if quiet else []), *arguments]
        chosen = environment() | ({"QUANTLAB_QUIET": "1"} if quiet else {})
        try:
            return processes.run(command, cwd=self.root, env=chosen, stdout=sys.stderr.fileno()).returncode
        finally:
            leftovers.tidy(self.root)


def _trouble_with_params(params: Any) -> str | None:
    """Say what is wrong with the content of a params.yaml; None if nothing is."""
    if not isinstance(params, dict | None):
        return "it must be a mapping of device, models and cells"
    models, cells = (params or {}).get("models") or [], (params or {}).get("cells") or {}
    if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
        return "models must be a list of names"
    if not isinstance(cells, dict) or not all(isinstance(cell, dict) for cell in cells.values()):
        return "cells must be a mapping of names to {model: ..., variant: ...}"
    named = (cell.get(key) for cell in cells.values() for key in ("model", "variant"))
    return None if all(isinstance(name, str) for name in named) else "a cell lacks its model or its variant"


def environment() -> dict[str, str]:
    """The environment with the interpreter's folder first on PATH, so that the stages find this quantlab."""
    return dict(os.environ) | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    }


def _cell(model: str, slug: str, cells: Container[str]) -> dict[str, str]:
    """What dvc.yaml reads of a cell.

    `from` is what the method starts from, `beside` what its speed is measured beside, `after` whose answers
    its own are compared with, which must be there first."""
    variant = parse_variant(slug)
    method = methods.load(variant.method)
    start = "source" if variant.external else method.starts_from
    sixteen = engines.load(engines.engine_for(method.format)).sixteen_bit
    alone = slug == sixteen or cell_name(model, sixteen) not in cells
    beside = f"models/{model}/{start}" if alone else f"checkpoints/{model}/{sixteen}/manifest.json"
    first = slug == BASELINE or cell_name(model, BASELINE) not in cells
    after = f"models/{model}/text" if first else f"reports/{model}/data/{BASELINE}/tasks.json"
    return {
        "model": model,
        "variant": slug,
        "method": variant.method,
        "from": start,
        "beside": beside,
        "after": after,
    }


def _merge(there: Recipe, new: Recipe) -> Recipe:
    """The new recipe with the variants of both. Raises QuantlabError for one variant with two settings."""
    for slug in set(there.variants) & set(new.variants):
        if there.variants[slug] != new.variants[slug]:
            raise QuantlabError(
                f"{slug} is in this workspace with other settings ({there.variants[slug]}): give the new one"
                f" a label, such as {slug}-new, or name another folder with --workspace"
            )
    if there.source != new.source:
        raise QuantlabError(
            f"{new.model} is in this workspace from another source: name another folder with --workspace"
        )
    return new.model_copy(update={"variants": there.variants | new.variants})


def _written(recipe: Recipe) -> dict[str, Any]:
    """A recipe with every default written out: DVC tracks the sections by name, and later defaults may
    differ."""
    return recipe.model_dump(mode="json") | {"source": recipe.source.model_dump(exclude_defaults=True)}


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
