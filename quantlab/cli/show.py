"""Show a variant's settings, checkpoint and records in this workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.errors import QuantlabError, unknown


@click.command()
@click.argument("variant")
@click.option(
    "--model",
    default=None,
    help="Show this model alone. Default: every model of the workspace that has the variant.",
)
@click.option(
    "--workspace",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="The workspace. Default: the current folder.",
)
@click.option("--verify", is_flag=True, help="Hash every weight file and compare it with the manifest.")
@common
def command(ctx: Context, variant: str, model: str | None, workspace: Path, verify: bool) -> dict[str, Any]:
    """Show a variant's settings, checkpoint and records in this workspace.

    VARIANT is method-bits or method-bits-label, such as gptq-4.

    With --json: {"variant": ..., "models": [{"model", "settings", "manifest", "records"}]}; settings is null
    if the recipe lacks the variant, manifest if there is no checkpoint; records holds the measurements by
    stage."""
    from quantlab.names import parse_variant

    parse_variant(variant)
    known = _variants_of_models(workspace)
    if not known:
        raise QuantlabError(_nothing_here(workspace))
    if model is not None and model not in known:
        raise unknown("model in this workspace", model, known)
    having = [name for name, variants in known.items() if variant in variants and model in (None, name)]
    if not having:
        raise unknown(
            "variant in this workspace",
            variant,
            {slug for name, slugs in known.items() if model in (None, name) for slug in slugs},
        )
    models = [_known_of(workspace, name, variant) for name in having]
    if verify:
        from quantlab.workspace.checkpoint import read_checkpoint

        for name in having:
            read_checkpoint(workspace / "checkpoints" / name / variant).verify_files()
    if not ctx.json:
        _print(variant, models)
        if verify:
            say("verified: every weight file has the hash in the manifest")
    return {"variant": variant, "models": models}


def _variants_of_models(root: Path) -> dict[str, set[str]]:
    """Find every model of a workspace, and the variants that its recipe, a checkpoint or a record names."""
    from quantlab.methods import checked_recipe

    known: dict[str, set[str]] = {}
    for path in sorted((root / "recipes").glob("*.yaml")):
        recipe = checked_recipe(path)
        known.setdefault(recipe.model, set()).update(recipe.variants)
    for pattern in ("checkpoints/*/*/manifest.json", "reports/*/data/*/*.json"):
        for path in root.glob(pattern):
            model = path.relative_to(root).parts[1]
            known.setdefault(model, set()).add(path.parent.name)
    return known


def _nothing_here(root: Path) -> str:
    runs = sorted(str(path.parent) for path in (root / "runs").glob("*/recipes"))
    here = (
        f"workspaces in it: {', '.join(runs)}; choose one with --workspace"
        if runs
        else "change to one, or make one with `quantlab run MODEL --method M --bits B`"
    )
    return f"{root.resolve()} is not a workspace: it has no recipes, checkpoints or records; {here}"


def _known_of(root: Path, model: str, variant: str) -> dict[str, Any]:
    from quantlab.records import STAGES
    from quantlab.workspace.checkpoint import MANIFEST, read_checkpoint
    from quantlab.workspace.results import read_record, record_path

    folder = root / "checkpoints" / model / variant
    checkpoint = read_checkpoint(folder) if (folder / MANIFEST).is_file() else None
    records = {
        name: read_record(record_path(root, model, variant, name), stage.record)
        for name, stage in STAGES.items()
    }
    return {
        "model": model,
        "settings": _settings(root, model, variant),
        "manifest": checkpoint.manifest.model_dump(mode="json") if checkpoint else None,
        "records": {stage: record.model_dump(mode="json") for stage, record in records.items() if record},
    }


def _settings(root: Path, model: str, variant: str) -> dict[str, Any] | None:
    from quantlab.methods import checked_recipe, settings_in
    from quantlab.names import parse_variant

    for path in sorted((root / "recipes").glob("*.yaml")):
        recipe = checked_recipe(path)
        if recipe.model == model and variant in recipe.variants:
            settings: dict[str, Any] = settings_in(recipe, parse_variant(variant)).model_dump(mode="json")
            return settings
    return None


def _print(variant: str, models: list[dict[str, Any]]) -> None:
    from quantlab.cli._describe import lines

    for row in models:
        say(f"{row['model']}--{variant}", bold=True)
        say("settings (recipe and defaults of the method)" if row["settings"] else "no settings")
        say("\n".join(lines(row["settings"] or {}, none="default")), nl=bool(row["settings"]))
        if row["manifest"]:
            say("checkpoint (manifest)")
            say(
                "\n".join(
                    lines(
                        {k: v for k, v in row["manifest"].items() if k not in ("model", "variant", "files")}
                    )
                )
            )
            for name, entry in row["manifest"]["files"].items():
                say(f"    {name}  {entry['bytes'] / 1e6:,.1f} MB  sha256 {entry['sha256'][:16]}...")
        else:
            say("no checkpoint")
        for stage, record in row["records"].items():
            say(f"measured: {stage}")
            say(
                "\n".join(
                    lines(
                        {k: v for k, v in record.items() if k not in ("model", "variant", "schema_version")}
                    )
                )
            )
        say("" if row["records"] else "nothing measured\n", nl=False)
