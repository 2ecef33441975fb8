"""A recipe has every key that dvc.yaml tracks, or the probe says which are missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from quantlab.cli import main
from quantlab.errors import QuantlabError
from quantlab.recipe import parse_recipe
from quantlab.run.tracking import check_recipes
from quantlab.run.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def _recipe(model: str, *variants: str) -> dict[str, object]:
    return {"model": model, "source": {"path": "weights"}, "variants": {slug: {} for slug in variants}}


def _write(root: Path, model: str, recipe: dict[str, object]) -> Path:
    path = root / "recipes" / f"{model}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two models, each with a variant."""
    made = Workspace(tmp_path)
    for model in ("one", "two"):
        made.add(parse_recipe(_recipe(model, "gguf-4"), model), ["gguf-4"], "cpu")
    return made


def test_a_run_writes_every_key_and_so_does_the_demo(workspace: Workspace) -> None:
    check_recipes(workspace.root)
    check_recipes(ROOT)


def test_the_probe_names_what_a_recipe_lacks_and_what_to_write(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace.root / "recipes" / "two.yaml"
    kept = yaml.safe_load(path.read_text())
    del kept["engine"], kept["comparison"], kept["variants"]["gguf-4"]
    path.write_text(yaml.safe_dump(kept))
    monkeypatch.chdir(workspace.root)
    result = CliRunner().invoke(main, ["probe", "--device", "cpu"])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and not (workspace.root / "env").exists()
    assert (
        "recipes/two.yaml lacks variants.gguf-4, engine, comparison, which dvc.yaml tracks" in result.stderr
    )
    lines = [part for number, part in enumerate(result.stderr.split("`")) if number % 2]
    assert lines == ["variants: {gguf-4: {}}", "engine: null", "comparison: {margin_points: 1.0}"]
    path.write_text(
        yaml.safe_dump(kept | {key: value for line in lines for key, value in yaml.safe_load(line).items()})
    )
    assert CliRunner().invoke(main, ["probe", "--device", "cpu"]).exit_code == 0


def test_a_recipe_without_a_source_and_one_that_is_not_there(workspace: Workspace) -> None:
    path = _write(
        workspace.root,
        "one",
        {key: value for key, value in _recipe("one", "gguf-4").items() if key != "source"},
    )
    with pytest.raises(
        QuantlabError,
        match=r"lacks source, calibration.*`source: \.\.\.`, `calibration: \{text: embedded, windows: 32",
    ):
        check_recipes(workspace.root)
    path.unlink()
    with pytest.raises(QuantlabError, match=r"no file .*one\.yaml"):
        check_recipes(workspace.root)


def test_a_folder_without_a_pipeline_is_not_checked(tmp_path: Path) -> None:
    check_recipes(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    check_recipes(tmp_path)


def test_adding_one_model_completes_an_older_recipe_of_another(workspace: Workspace) -> None:
    """The pipeline of an older quantlab did not track `engine` and `comparison`."""
    there = yaml.safe_load((workspace.root / "recipes/two.yaml").read_text())
    old = {key: value for key, value in there.items() if key not in ("engine", "comparison")} | {"seed": 7}
    _write(workspace.root, "two", old)
    whole = (workspace.root / "recipes/one.yaml").read_text() + "# by hand\n"
    (workspace.root / "recipes/one.yaml").write_text(whole)
    workspace.add(parse_recipe(_recipe("three", "gguf-4"), "three"), ["gguf-4"], "cpu")
    check_recipes(workspace.root)
    two = yaml.safe_load((workspace.root / "recipes/two.yaml").read_text())
    assert two["seed"] == 7 and two["engine"] is None and two["comparison"] == {"margin_points": 1.0}
    assert (workspace.root / "recipes/one.yaml").read_text() == whole  # it lacked nothing
