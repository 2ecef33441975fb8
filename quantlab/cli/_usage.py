"""Measure the disk space that a workspace and quantlab's cache take, and free it.

Only these folders are ever removed. Recipes, reports, pipeline files and records, here or merged from another
machine (imported/), are never touched, nothing behind a symbolic link is, and files that DVC's cache and
the workspace share by hard links are counted once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from quantlab.errors import QuantlabError

CHECKPOINTS = "checkpoints"
DVC_CACHE = ".dvc/cache"
FOLDERS = {
    CHECKPOINTS: "quantized checkpoints",
    "models": "prepared sources, F16 GGUF, token ids",
    "references": "outputs of the unquantized models",
    DVC_CACHE: "DVC's copies of stage outputs, the records too",
    ".quantlab": "unfinished work that a run resumes from",
    "logs": "logs of the libraries",
}
CACHE_FOLDERS = {
    "pypi": "unpacked archives of the package index",
    "environments": "environments that `quantlab install` made",
}


class Usage(NamedTuple):
    """One folder on the disk."""

    name: str
    path: Path
    what: str
    bytes: int
    """Every file once, however many names it has."""
    freed_bytes: int
    """What removing this folder alone would free."""


class _File(NamedTuple):
    path: Path
    key: tuple[int, int]
    bytes: int
    links: int


def is_workspace(root: Path) -> bool:
    """Tell whether a folder has quantlab's pipeline. In any other, folders of these names belong to somebody
    else."""
    pipeline = root / "dvc.yaml"
    return pipeline.is_file() and "quantlab" in pipeline.read_text(encoding="utf-8", errors="replace")


def workspaces(root: Path) -> list[Path]:
    """List the folder itself if it is a workspace, and the workspaces that runs made in it."""
    return [folder for folder in (root, *sorted((root / "runs").glob("*"))) if is_workspace(folder)]


def folders(root: Path, cache: Path) -> dict[str, tuple[Path, str]]:
    """Find every folder that takes space, by the name that it is listed under."""
    listed = {}
    for workspace in workspaces(root):
        before = "" if workspace == root else f"{workspace.relative_to(root).as_posix()}/"
        listed.update({before + name: (workspace / name, what) for name, what in FOLDERS.items()})
    listed.update({f"cache/{name}": (cache / name, what) for name, what in CACHE_FOLDERS.items()})
    return {
        name: (path, what) for name, (path, what) in listed.items() if path.is_dir() and not path.is_symlink()
    }


def usage(root: Path, cache: Path) -> list[Usage]:
    """Measure the space that each folder takes."""
    return [Usage(name, path, what, *_bytes(path)) for name, (path, what) in folders(root, cache).items()]


def total_bytes(paths: Iterable[Path]) -> int:
    """Add up all files below the folders; a file with several names counts once."""
    return sum({file.key: file.bytes for path in paths for file in _files(path)}.values())


def _bytes(path: Path) -> tuple[int, int]:
    files = list(_files(path))
    names = Counter(file.key for file in files)
    once = {file.key: file for file in files}
    return sum(f.bytes for f in once.values()), sum(f.bytes for f in once.values() if names[f.key] >= f.links)


def _files(path: Path) -> Iterator[_File]:
    for file in path.rglob("*"):
        if file.is_symlink() or not file.is_file():
            continue
        stat = file.stat()
        yield _File(file, (stat.st_dev, stat.st_ino), stat.st_size, stat.st_nlink)


def remove(chosen: Iterable[Usage], root: Path, cache: Path) -> int:
    """Remove folders and return the bytes that it freed. Raises QuantlabError, before anything is removed,
    where it is not safe."""
    selected = list(chosen)
    for one in selected:
        _require_ours(one.path, root, cache)
        if one.path.parts[-2:] == (".dvc", "cache"):
            _require_no_links_into(one.path)
    before = sum(one.bytes for one in selected)
    twins = list(_cached_twins(selected))
    freed = _freed(selected, twins)
    for one in selected:
        shutil.rmtree(one.path)
    for twin in twins:
        twin.unlink(missing_ok=True)
    return min(freed, before)


def _freed(selected: list[Usage], twins: list[Path]) -> int:
    files = [file for one in selected for file in _files(one.path)]
    names = Counter(file.key for file in files)
    names.update((s.st_dev, s.st_ino) for s in (twin.stat() for twin in twins))
    return sum(
        file.bytes for file in {file.key: file for file in files}.values() if names[file.key] >= file.links
    )


def _cached_twins(selected: list[Usage]) -> Iterator[Path]:
    """Find the names that DVC's cache has for the files of removed checkpoints. Unless these are removed too,
    no space is freed."""
    chosen = {one.path for one in selected}
    for one in selected:
        cache = one.path.parent / DVC_CACHE
        if one.path.name == CHECKPOINTS and cache.is_dir() and not cache.is_symlink() and cache not in chosen:
            keys = {file.key for file in _files(one.path)}
            yield from (file.path for file in _files(cache) if file.key in keys)


def _require_ours(path: Path, root: Path, cache: Path) -> None:
    inside = path.resolve().is_relative_to(root.resolve()) or path.resolve().is_relative_to(cache.resolve())
    if path.is_symlink() or not inside:
        raise QuantlabError(
            f"{path} points outside the workspace and was not removed: remove its target by hand"
        )


def _require_no_links_into(cache: Path) -> None:
    workspace = cache.parents[1]
    for folder in ("reports", "imported", *FOLDERS):
        for path in (workspace / folder).rglob("*"):
            if path.is_symlink() and folder != DVC_CACHE and path.resolve().is_relative_to(cache.resolve()):
                raise QuantlabError(
                    f"{path} is a link into {cache}, whose removal would lose it: run `dvc config cache.type"
                    " copy` and `dvc checkout --relink` in that folder first"
                )
