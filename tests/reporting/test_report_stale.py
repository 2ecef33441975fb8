"""A record that was made with other settings than the recipe's is never shown as one of this recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from madeup import MODEL, write_workspace

from quantlab.comparison.compare import compare
from quantlab.comparison.gate import judge
from quantlab.comparison.load import VariantRecords, load_model, load_report
from quantlab.comparison.status import status_of
from quantlab.names import parse_variant
from quantlab.recipe import read_recipe
from quantlab.records import STAGES, Record
from quantlab.reporting.cautions import cautions
from quantlab.stages import report
from quantlab.workspace.results import made_with, read_record, record_path, write_record

SLUG = "gptq-4"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Records that say with which settings they were made."""
    write_workspace(tmp_path)
    recipe = read_recipe(tmp_path / "recipes" / f"{MODEL}.yaml")
    for folder in (tmp_path / "reports" / MODEL / "data").iterdir():
        for stage, (_, kind, *_rest) in STAGES.items():
            record: Record | None = read_record(record_path(tmp_path, MODEL, folder.name, stage), kind)
            if record:
                write_record(tmp_path, made_with(record, recipe))
    return tmp_path


def change(root: Path, section: str, **values: object) -> None:
    path = root / "recipes" / f"{MODEL}.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe[section] = (recipe.get(section) or {}) | values
    path.write_text(yaml.safe_dump(recipe))


def stale(variant: VariantRecords) -> set[str]:
    return {
        stage
        for stage, record in variant.records.items()
        if record.failure and record.failure.kind == "stale"
    }


def test_what_was_made_with_this_recipe_is_current(workspace: Path) -> None:
    assert not any(stale(variant) for variant in load_model(workspace, MODEL).variants.values())


def test_another_variant_in_the_recipe_makes_nothing_stale(workspace: Path) -> None:
    change(workspace, "variants", **{"gguf-5": {}})
    assert not any(stale(variant) for variant in load_model(workspace, MODEL).variants.values())


@pytest.mark.parametrize(
    ("section", "values", "stages"),
    [
        ("tasks", {"items": 6}, {"evaluate"}),
        ("measure", {"repeats": 9}, {"measure"}),
        ("variants", {SLUG: {"group_size": 32}}, {"quantize"}),
    ],
)
def test_what_was_made_with_other_settings_is_named_and_its_numbers_are_left_out(
    workspace: Path, section: str, values: dict[str, object], stages: set[str]
) -> None:
    change(workspace, section, **values)
    records = load_model(workspace, MODEL)
    variant = records.variants[SLUG]
    assert stale(variant) == stages and (variant.samples is None) == (stages == {"evaluate"})
    reason = status_of(variant).reason
    assert (
        reason is not None
        and reason.startswith("stale: made with other settings (")
        and "than the recipe has now: run" in reason
    )
    assert f"{SLUG} ({', '.join(stages)})" in cautions(compare(records))[0]
    text = report.run(workspace, MODEL).read_text()
    assert "stale: made with other settings" in text


def test_one_variant_asked_anew_is_not_compared_with_answers_of_other_settings(workspace: Path) -> None:
    """As a second run leaves it that asked one variant with another --limit."""
    report.run(workspace, MODEL)
    change(workspace, "tasks", items=6)
    recipe = read_recipe(workspace / "recipes" / f"{MODEL}.yaml")
    fresh = read_record(record_path(workspace, MODEL, SLUG, "evaluate"), STAGES["evaluate"].record)
    assert fresh is not None
    write_record(workspace, made_with(fresh, recipe))
    records = load_report(workspace / "reports" / MODEL)
    assert [
        slug
        for slug, variant in records.variants.items()
        if parse_variant(slug).bits < 16 and not stale(variant)
    ][:1] == [SLUG]
    judged = judge(compare(records), 100.0, (), (SLUG, "gptq-3"), allow_undecided=True)
    assert [(j.verdict, j.passed) for j in judged] == [("not measured", False)] * 2
