"""Show and free disk space."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.errors import QuantlabError
from quantlab.inert import plain

if TYPE_CHECKING:
    from quantlab.cli._usage import Usage


@click.command()
@click.option(
    "--checkpoints", is_flag=True, help="Remove the checkpoints, here and in runs/, and DVC's copies of them."
)
@click.option(
    "--cache", is_flag=True, help="Remove DVC's cache, work in progress, and quantlab's cache of downloads."
)
@click.option(
    "--all", "everything", is_flag=True, help="Remove every folder listed. Recipes, reports and records stay."
)
@click.option("--yes", "-y", is_flag=True, help="Remove without asking.")
@common
def command(ctx: Context, checkpoints: bool, cache: bool, everything: bool, yes: bool) -> dict[str, Any]:
    """Show how much disk space this workspace and quantlab's cache take, and free it.

    Without an option it only lists. Recipes, reports and records, of this machine or merged from another, are
    never removed. The next run that needs something that was removed makes or downloads it again, but for
    environments: `quantlab install` does.

    With --json: {"folders": [{"name", "path", "what", "bytes", "freed_bytes"}], "total_bytes", "removed":
    [names], "freed_bytes"}; to remove something under --json add --yes."""
    from quantlab.cli._usage import remove, total_bytes, usage
    from quantlab.files import cache_folder

    root, downloads = Path.cwd(), cache_folder()
    folders = usage(root, downloads)
    if not ctx.json:
        _print(folders, total_bytes(one.path for one in folders))
    chosen = [one for one in folders if _is_chosen(one.name, checkpoints, cache, everything)]
    result = {
        "folders": [{**one._asdict(), "path": str(one.path)} for one in folders],
        "total_bytes": total_bytes(one.path for one in folders),
        "removed": [],
        "freed_bytes": 0,
    }
    if not (checkpoints or cache or everything):
        return result
    if not chosen and not ctx.json:
        say("nothing to remove")
    if not chosen or not _agreed(ctx, chosen, yes):
        return result
    freed = remove(chosen, root, downloads)
    if not ctx.json:
        say(f"removed {', '.join(one.name for one in chosen)}: {freed / 1e6:,.1f} MB freed")
    return {**result, "removed": [one.name for one in chosen], "freed_bytes": freed}


def _is_chosen(name: str, checkpoints: bool, cache: bool, everything: bool) -> bool:
    last = name.rsplit("/", 1)[-1]
    downloads = name.startswith("cache/") and last != "environments"  # no run makes these again by itself
    cached = downloads or name.endswith(".dvc/cache") or last == ".quantlab"
    return everything or (checkpoints and last == "checkpoints") or (cache and cached)


def _agreed(ctx: Context, chosen: list[Usage], yes: bool) -> bool:
    if yes:
        return True
    if ctx.json or not sys.stdin.isatty():
        raise QuantlabError("nothing was removed: no terminal to ask at; add --yes to remove without asking")
    return click.confirm(plain(f"Remove {', '.join(str(one.path) for one in chosen)}?"))


def _print(folders: list[Usage], total: int) -> None:
    if not folders:
        say("nothing to show: this folder is not a quantlab workspace, and quantlab's cache is empty")
        return
    width = max(len(one.name) for one in folders)
    say(f"{'':{width}}        size   freed if removed alone")
    for one in folders:
        say(f"{one.name:{width}}  {one.bytes / 1e6:>9,.1f} MB  {one.freed_bytes / 1e6:>9,.1f} MB  {one.what}")
    say(f"{'total':{width}}  {total / 1e6:>9,.1f} MB, files with several names counted once")
