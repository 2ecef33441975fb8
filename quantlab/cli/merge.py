"""Add another machine's records of the same checkpoints, for a report that shows both devices."""

from __future__ import annotations

from pathlib import Path

import click

from quantlab.cli._common import Context, common, say


@click.command()
@click.argument(
    "source", metavar="DIR_OR_REPORT", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--device-name", help="Name of the other device in reports here. Default: the name in its records."
)
@click.option("--model", help="The model's name, as in recipes/MODEL.yaml. Default: the name in the records.")
@common
def command(ctx: Context, source: Path, device_name: str | None, model: str | None) -> object:
    """Add another machine's records of this workspace's checkpoints.

    DIR_OR_REPORT is the other machine's reports/MODEL folder, its data folder, or a copy of either, such as
    an unpacked artifact. The records (measure.json, and divergence.json and tasks.json where they are) go to
    imported/DEVICE/MODEL/. DVC does not track that folder: run `quantlab report --model MODEL` to write the
    report again. From then on every report of this workspace shows both devices.

    Refused, with nothing written: records of a checkpoint that is not this workspace's, records timed beside
    another 16-bit checkpoint, records of another version of quantlab, records of a variant that this
    workspace does not have, and records of the same device unless --device-name gives it another name.
    Repeating a merge changes nothing; merging other variants of the same device adds them.

    \b
    quantlab merge ../from-the-h100/reports/smollm2
    quantlab merge artifact/ --device-name "RTX 4090 at 300 W"

    With --json: {"model", "device", "folder", "records": {VARIANT: [STAGE, ...]}}.
    """
    from quantlab.names import check_model_name
    from quantlab.workspace.merge import merge
    from quantlab.workspace.merge_source import data_folder, model_of

    name = check_model_name(model) if model else model_of(data_folder(source))
    root = _workspace(name)
    merged = merge(root, source, name, device_name)
    if not ctx.json:
        for variant, stages in merged.records.items():
            say(f"{variant}: {', '.join(stages)}")
        where = "" if root == Path.cwd() else f"cd {root.relative_to(Path.cwd())} && "
        say(f"{merged.device}: {len(merged.records)} variants in {merged.folder.relative_to(root)}")
        say(f"to show both devices: {where}quantlab report --model {name}")
    return {
        "model": name,
        "device": merged.device,
        "folder": str(merged.folder),
        "records": {variant: list(stages) for variant, stages in merged.records.items()},
    }


def _workspace(model: str) -> Path:
    """The current folder where it has the model's recipe, else the run of that name. Raises QuantlabError."""
    from quantlab.errors import QuantlabError

    for root in (Path.cwd(), Path.cwd() / "runs" / model):
        if (root / "recipes" / f"{model}.yaml").is_file():
            return root
    raise QuantlabError(
        f"no recipe of {model} here or in runs/{model}: run `quantlab merge` in the workspace that"
        " quantized it"
    )
