"""Record what this machine is, what is installed, the version of each metric, and each model's source.

It always runs and takes a second (on a GPU some more, while torch opens it in another process): it imports no
torch, and reads a source's large files only where they are not those that it read before. Every later stage
depends on the file of `env/` that could change its outcome, so nothing measured elsewhere or under other
versions passes for a result of this run."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quantlab import engines, methods
from quantlab.environments.versions import installed
from quantlab.files import write_json, write_text
from quantlab.hardware.device import Device, find
from quantlab.hardware.target import require_usable
from quantlab.recipe import read_recipe
from quantlab.records import SCHEMA_VERSION, STAGES
from quantlab.stages._identity import identity


def run(root: Path, device: str = "auto", models: Iterable[str] = ()) -> Device:
    """Write env/device.json, env/methods/*.json, env/stages/*.json and env/models/*.json.

    Raises QuantlabError for a device that is not there or that torch cannot use, and a recipe or a source
    that cannot be read."""
    machine = require_usable(find(device))
    sources = {model: identity(root, read_recipe(root / "recipes" / f"{model}.yaml")) for model in models}
    folder = root / "env"
    write_text(folder / "device.json", machine.model_dump_json(indent=2) + "\n")
    for name in methods.names():
        write_json(folder / "methods" / f"{name}.json", method_versions(name))
    for stage, version in stage_versions().items():
        write_json(folder / "stages" / f"{stage}.json", version)
    for model, source in sources.items():
        write_json(folder / "models" / f"{model}.json", source)
    return machine


def method_versions(name: str) -> dict[str, Any]:
    """What decides a method's checkpoints: its libraries' versions, None for one that is not installed."""
    required = methods.load(name).requires
    have = installed(required)
    return {
        "method": name,
        "quantize": STAGES["quantize"].version,
        "versions": {r: have.get(r) for r in required},
    }


def stage_versions() -> dict[str, dict[str, Any]]:
    """What decides each measuring stage's numbers; the versions of libraries by engine."""
    running = {name: engines.load(name).versions() for name in engines.names()}
    divergence = importlib.import_module("quantlab.analysis.divergence").METRICS_VERSION
    return {
        "measure": {"schema": SCHEMA_VERSION, "version": STAGES["measure"].version, "versions": running},
        "diverge": {
            "schema": SCHEMA_VERSION,
            "version": STAGES["diverge"].version,
            "metrics": divergence,
            "versions": running,
        },
        "evaluate": {
            "schema": SCHEMA_VERSION,
            "version": STAGES["evaluate"].version,
            "versions": running | {"lm-eval": installed(["lm-eval"])},
        },
    }
