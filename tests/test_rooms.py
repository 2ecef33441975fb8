"""The order of the rooms, as docs/architecture.md says it: arrows point down, no circle, and names stay in
their rooms."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from quantlab import engines, methods

ROOT = Path(__file__).resolve().parents[1]
ROOMS = tuple(
    re.findall(r"^- `(\w+)/`: ", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.M)
)
FILES = {
    path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "quantlab").rglob("*.py"))
}
ABOUT_DISTRIBUTIONS = ("installed", "version", "import_module", "find_spec", "bring", "missing")
"""Calls whose words are names of packages of the index, some of which are engines' and methods' too."""
OTHER_MEANINGS = {
    "architecture/cache_types.py": "types of the key-value cache",
    "architecture/cache_formula.py": (
        "ways in which a cache is kept, named after the library that began with each"
    ),
    "architecture/kvcache.py": "ways in which a cache is kept, named after the library that began with each",
    "architecture/release.py": "what a release's config.json calls its format",
    "endpoint/discovery.py": "what a server calls itself in `owned_by`",
    "environments/health.py": "modules of distributions",
    "formats/__init__.py": "the format of a file",
    "formats/llama_log.py": "the module of a distribution",
    "formats/quantization.py": "what a release's files call its format",
    "models/gguf_file.py": "the module of a distribution",
    "verification/run_variant.py": "what a device multiplies in",
}
"""Files where a word that is a method's or an engine's name means something else."""


class Arrow(NamedTuple):
    """An import between two modules of quantlab."""

    start: str
    end: str
    line: int


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def arrows() -> Iterator[Arrow]:
    for path, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quantlab"):
                for name in node.names:
                    inner = f"{node.module}.{name.name}"
                    yield Arrow(module_of(path), inner if inner in MODULES else str(node.module), node.lineno)
            elif isinstance(node, ast.Import):
                yield from (
                    Arrow(module_of(path), a.name, node.lineno)
                    for a in node.names
                    if a.name.startswith("quantlab")
                )


def floor(module: str) -> int:
    """How far down a module stands; what is no room is on the lowest floor, and the package's face on the
    highest."""
    parts = module.split(".")
    return ROOMS.index(parts[1]) if len(parts) > 1 and parts[1] in ROOMS else len(ROOMS)


def test_every_folder_is_a_room_that_is_described() -> None:
    folders = {
        path.name for path in (ROOT / "quantlab").iterdir() if path.is_dir() and list(path.glob("*.py"))
    }
    assert folders - set(ROOMS) <= {"parsing"} and set(ROOMS) <= folders


def test_arrows_point_down() -> None:
    up = [
        f"{a.start}:{a.line} -> {a.end}"
        for a in arrows()
        if a.start != "quantlab" and floor(a.start) > floor(a.end)
    ]
    assert not up


def test_modules_make_no_circle() -> None:
    """Of imports at any depth, so that no import has to hide inside a function; a package's face is part of
    it."""
    below: dict[str, set[str]] = {}
    for arrow in arrows():
        if (
            arrow.start != arrow.end
            and not arrow.end.startswith(f"{arrow.start}.")
            and not arrow.start.startswith(f"{arrow.end}.")
        ):
            below.setdefault(arrow.start, set()).add(arrow.end)
    left = dict(below)
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"one of these imports another that imports it: {sorted(left)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "quantlab")))
def test_no_methods_or_engines_name_stands_outside_its_room(path: Path) -> None:
    inside = str(path.relative_to(ROOT / "quantlab"))
    if inside.split("/")[0] in ("methods", "engines") or inside in OTHER_MEANINGS:
        return
    names = {*methods.names(), *engines.names()}
    parents = {child: node for node in ast.walk(FILES[path]) for child in ast.iter_child_nodes(node)}
    said = [node for node in ast.walk(FILES[path]) if isinstance(node, ast.Constant) and node.value in names]
    assert not [
        f"line {node.lineno}: {node.value!r}" for node in said if not _names_a_distribution(node, parents)
    ]


def _names_a_distribution(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.Call):
            return ast.unparse(node.func).rpartition(".")[2] in ABOUT_DISTRIBUTIONS
    return False
