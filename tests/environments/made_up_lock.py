"""A lock of made-up distributions, and an installer of a few lines of Python that writes them as pip does."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

from quantlab.environments.installers import Installer
from quantlab.environments.locked import Locked, read

LOCK = """
# for: A made-up library
# imports: library
# with dependencies: library

library==2.0
helper==1.5 ; python_version >= '3'
elsewhere==9.0 ; sys_platform == 'never'
small_part==0.1
"""
SITE = "lib/python3.11/site-packages"
_MAKE = f"""
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder / "bin").mkdir(parents=True)
(folder / "{SITE}").mkdir(parents=True)
(folder / "pyvenv.cfg").write_text("home = nowhere")
python = folder / "bin" / "python"
python.write_text(f'#!/bin/sh\\nPYTHONPATH={{folder}}/{SITE} exec {sys.executable} "$@"\\n')
python.chmod(0o755)
"""
_INSTALL = """
import os, pathlib, sys
python, *options, _, file = sys.argv[1:]
site = pathlib.Path(python).parents[1] / "lib/python3.11/site-packages"
for line in pathlib.Path(file).read_text().split():
    with open(os.environ["ASKED"], "a") as asked:
        print(line, *options, file=asked)
    name, version = line.split("==")
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    if name == os.environ.get("BREAKS_OFF_AT"):
        sys.exit("the line was cut")
    (site / f"{name}.py").write_text(os.environ.get("CODE_OF_" + name, "whole = True"))
    (info / "RECORD").touch()
"""


def lock(text: str = LOCK) -> Locked:
    return read("library", textwrap.dedent(text))


def installer(asked: Path, **more: str) -> Installer:
    """It notes what it is asked to install, one line each with the options."""
    return Installer(
        "stand-in",
        [sys.executable, "-c", _MAKE],
        [sys.executable, "-c", _INSTALL, "{python}"],
        dict(os.environ) | {"ASKED": str(asked)} | more,
    )
