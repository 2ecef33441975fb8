"""Each stage's part of a recipe is what dvc.yaml tracks, and its hash changes with nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from quantlab.errors import QuantlabError
from quantlab.files import write_text
from quantlab.recipe import Recipe, parse_recipe, read_recipe
from quantlab.run.workspace import Workspace
from quantlab.workspace.tracked import TRACKED, require_same_settings, settings_sha256

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("prepare", "reference", "quantize", "measure", "diverge", "evaluate")
BASE: dict[str, Any] = {
    "model": "m",
    "source": {"path": "p"},
    "variants": {"gptq-4": {}},
    "tasks": {"names": ["piqa"], "items": 5},
}


def recipe(**changes: Any) -> Recipe:
    return parse_recipe(BASE | changes, "m")


def test_the_table_is_what_dvc_yaml_tracks() -> None:
    tracked: dict[str, tuple[str, ...]] = {}
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        for entry in stage.get("do", stage).get("params") or []:
            for place, keys in entry.items():
                assert place.startswith("recipes/${item")
                tracked[name] = (
                    *tracked.get(name, ()),
                    *(key.replace("${item.model}", "${item}") for key in keys),
                )
    assert tracked == dict(TRACKED)


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"variants": {"gptq-4": {}, "gguf-4": {}}}, ()),
        ({"variants": {"gptq-4": {"group_size": 64}}}, ("quantize",)),
        ({"tasks": {"names": ["piqa"], "items": 6}}, ("evaluate",)),
        ({"comparison": {"margin_points": 2.0}}, ("evaluate",)),
        ({"measure": {"repeats": 2}}, ("measure",)),
        ({"seed": 2}, ("quantize", "evaluate")),
        ({"engine": "vllm"}, ("measure", "diverge", "evaluate")),
        ({"reference": {"dtype": "float32"}}, ("reference",)),
        ({"evaluation": {"windows": 2, "length": 64}}, ("prepare",)),
        ({"source": {"path": "q"}}, ("prepare",)),
        ({"description": "of no consequence", "caveat": "none"}, ()),
    ],
)
def test_only_the_stages_that_read_it_are_of_other_settings(
    changes: dict[str, Any], stages: tuple[str, ...]
) -> None:
    before, after = recipe(), recipe(**changes)
    assert {
        s for s in STAGES if settings_sha256(before, s, "gptq-4") != settings_sha256(after, s, "gptq-4")
    } == set(stages)


def test_a_recipe_read_again_has_the_same_settings_as_the_one_that_a_run_wrote(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    found = []
    for _ in range(2):
        workspace.add(recipe(), ["gptq-4"], "cpu")
        written = read_recipe(tmp_path / "recipes" / "m.yaml")
        found.append([settings_sha256(written, stage, "gptq-4") for stage in STAGES])
    assert found[0] == found[1]


def test_a_stage_that_dvc_gives_no_settings_has_no_hash() -> None:
    assert settings_sha256(recipe(), "sensitivity", "gptq-4") is None


def test_prepare_and_reference_refuse_a_recipe_that_was_changed_meanwhile(tmp_path: Path) -> None:
    write_text(
        tmp_path / "recipes" / "m.yaml", yaml.safe_dump(BASE | {"reference": {"dtype": "float32"}, "seed": 2})
    )
    require_same_settings(tmp_path, recipe(), "prepare")
    with pytest.raises(QuantlabError, match=r"changed while reference of m ran \(one of reference\)"):
        require_same_settings(tmp_path, recipe(), "reference")
