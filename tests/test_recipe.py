"""Recipes: what is wrong with one is said on one line, with its place and the valid names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from quantlab import methods
from quantlab.errors import QuantlabError
from quantlab.names import parse_variant
from quantlab.recipe import parse_recipe, read_recipe, shipped_recipes

GOOD: dict[str, Any] = {"model": "m", "source": {"path": "/m"}, "variants": {"gptq-4": {"group_size": 32}}}


def test_settings_are_the_methods_own() -> None:
    assert methods.settings_in(parse_recipe(GOOD, "r"), parse_variant("gptq-4")).group_size == 32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variants": {"gptq-4": {"group": 32}}}, "variants.gptq-4: group: .*settings of gptq: group_size"),
        ({"variants": {"gptq-4": {"group_size": "big"}}}, "group_size: .*integer"),
        ({"variants": {"qptg-4": {}}}, "unknown method 'qptg': known are gptq"),
        ({"varaints": {}}, "varaints: Extra inputs"),
        ({"tasks": {"items": 0}}, "tasks.items: .*greater than or equal to 1"),
        ({"source": {"path": "/m", "hub": "a/b"}}, "exactly one of hub, path and pypi"),
        ({"measure": {"batch": []}}, "batch sizes"),
        ({"model": "../m"}, "cannot name a model"),
    ],
)
def test_what_is_wrong_is_said_on_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(QuantlabError, match=said) as error:
        methods.check_variants(parse_recipe(GOOD | change, "r.yaml"), "r.yaml")
    assert "\n" not in str(error.value) and str(error.value).startswith("r.yaml")


@pytest.mark.parametrize("text", ["[1", "just words", "\x00"])
def test_a_file_that_is_no_recipe_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(QuantlabError):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    "path", [p for p in sorted(shipped_recipes().glob("*.yaml")) if p.stem != "default"], ids=lambda p: p.stem
)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.variants and path.stem.startswith(recipe.model)


def test_the_default_recipe_fits_any_model() -> None:
    default = yaml.safe_load((shipped_recipes() / "default.yaml").read_text())
    assert parse_recipe(default | {"model": "m", "source": {"path": "/m"}}, "default").variants == {}
