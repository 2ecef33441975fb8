"""Every text reaches the terminal by way of `say`, `fail` or `inert.console`: a print of its own would let
sequences through."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import quantlab

ROOT = Path(quantlab.__file__).parent
OWN = {
    "cli/_common.py": {"click.echo", "print"},
    "cli/__init__.py": {"click.echo"},
    "inert.py": {"Console"},
    "progress.py": {"Console", "print"},
    # answers of child processes to their parent
    "measuring/sampling_process.py": {"print"},
    "apart/serving.py": {"print"},
    "measuring/worker.py": {"print"},
    "hardware/bandwidth.py": {"print"},
    "architecture/_meta_count.py": {"print"},
    # run by `make install`, which reads it, before there is anything to import
    "environments/llama_build.py": {"print"},
    "methods/_gguf/_convert.py": {"print"},
    # lines that were made inert
    "formats/llama_log.py": {"sys.stderr.write"},
    # the log of a process that ended, into the log of the stage
    "environments/worker.py": {"sys.stderr.write"},
}


def _calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in (
            "click.echo",
            "click.secho",
            "print",
            "Console",
            "sys.stdout.write",
            "sys.stderr.write",
        ):
            yield name


def test_nothing_else_prints() -> None:
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if "claims" not in path.parts:
            assert set(_calls(path)) <= OWN.get(name, set()), name
