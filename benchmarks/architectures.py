"""Every method on a tiny model of every family: what works, what is refused and by whom, and what is wrong.

    python benchmarks/architectures.py run [--families llama,gpt_oss] [--variants gguf-4] [--again failed]
    python benchmarks/architectures.py run --cells llama:gguf-4,gpt_oss:gptq-4
    python benchmarks/architectures.py write        # docs/architectures.md from the results

Each cell goes through the stages quantize (with its check), diverge, evaluate (4 items) and a generation, in
processes of its own with a time limit. One line per cell is appended to the results, and a cell that this
version of the code has done is not done again. `--lock` names a file to hold while a family runs."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.update(TORCHDYNAMO_DISABLE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))
import _architectures_table
import _cells
import _warm

from quantlab.files import write_json
from quantlab.models.tiny import families

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "architectures.jsonl"
ROOMS = ("analysis", "engines", "formats", "methods", "models", "reference", "stages")
SECONDS = 300.0
LIBRARIES = (
    *("torch", "transformers", "transformers.quantizers.auto", "lm_eval", "datasets"),
    *("bitsandbytes", "torchao.quantization", "torch._inductor.compile_fx", "triton", "optimum"),
)
"""What every loading of a model imports anyway; none changes another's classes, nor begins a thread."""


def code_version() -> str:
    """A hash of the rooms that a cell's outcome depends on."""
    digest = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((ROOT / "quantlab" / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def read_results(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The last line of each cell; a family's own stands under the variant ''."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["family"], row["variant"]): row for row in rows}


def run(arguments: argparse.Namespace) -> None:
    """Run the cells that are missing, family by family."""
    cells, version = cells_of(arguments), code_version()
    for library in (*LIBRARIES, "quantlab.stages.reference"):
        importlib.import_module(library)  # once for all the children
    arguments.work.mkdir(parents=True, exist_ok=True)
    warm = arguments.work / f"warm-{os.getpid()}"
    server = _warm.serve(warm)
    _warm.use(warm)  # in the children too, which are copies
    try:
        run_families(arguments, cells, version)
    finally:
        _warm.stop(server)
        warm.unlink(missing_ok=True)


def cells_of(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The variants that are asked for, by family."""
    if arguments.cells:
        cells: dict[str, list[str]] = {}
        for cell in arguments.cells.split(","):
            name, _, variant = cell.partition(":")
            cells.setdefault(name, []).append(variant)
        return cells
    known = [name for name, family in families().items() if not family.unavailable]
    chosen = arguments.families.split(",") if arguments.families else known
    variants = arguments.variants.split(",") if arguments.variants else list(_cells.VARIANTS)
    return dict.fromkeys(chosen, variants)


def run_families(arguments: argparse.Namespace, cells: dict[str, list[str]], version: str) -> None:
    """Run the cells of each family that are wanted, and append what came of them."""
    for name, variants in cells.items():
        before = read_results(arguments.results)
        missing = [v for v in variants if wanted(before.get((name, v)), version, arguments.again)]
        if not missing:
            continue
        with held(arguments.lock):
            root = arguments.work / name
            shared = before.get((name, ""), {})
            if (
                shared.get("code") != version
                or (shared.get("gguf") == "not asked for" and any(v.startswith("gguf") for v in missing))
                or not shared.get("rounded")
                or not (root / "said.json").exists()
            ):
                shared = child(root, SECONDS, "family", name, " ".join(missing))
                append(arguments.results, {"family": name, "variant": "", "code": version} | shared)
            for variant in missing if shared.get("rounded") else ():
                cell = child(root, arguments.seconds, "cell", name, variant)
                append(arguments.results, {"family": name, "variant": variant, "code": version} | cell)


def wanted(before: dict[str, Any] | None, version: str, again: str) -> bool:
    """Whether a cell has to run: never done, done by other code, or asked for again."""
    if before is None or again == "all":
        return True
    return "nats" not in before if again == "failed" else before["code"] != version


def child(root: Path, seconds: float, what: str, *arguments: str) -> dict[str, Any]:
    """What a process came to that this one, with its libraries imported, is copied into; ended after so many
    seconds, with its own children."""
    root.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    said = root / "said.json"
    said.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=act, args=(root, said, what, *arguments))
    process.start()
    process.join(seconds)
    spent = {"seconds": round(time.monotonic() - began, 1)}
    if process.is_alive():
        os.killpg(int(process.pid or 0), signal.SIGKILL)
        process.join()
        return {"kind": "time", "reason": f"not done within {seconds:.0f} s"} | spent
    if not said.exists():
        return {"kind": "crashed", "reason": f"ended with code {process.exitcode}; see child.log"} | spent
    found: dict[str, Any] = json.loads(said.read_text(encoding="utf-8"))
    return found | spent


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a line, and show it."""
    line = json.dumps(row)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(line, flush=True)


@contextlib.contextmanager
def held(lock: Path | None) -> Iterator[None]:
    """Hold a lock's file, where one is named."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def act(root: Path, said: Path, what: str, name: str, variant: str = "") -> None:
    """What a child does: a family's preparation for these variants, or one cell; its outcome as JSON."""
    from quantlab.errors import CellFailure, QuantlabError

    os.setsid()
    os.chdir(root)
    log = os.open(root / "child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        if what == "family":
            found = _cells.prepare_family(root, name, "gguf" in variant)
            found["rounded"] = _cells.round_family(root, name)
        else:
            found = _cells.run_cell(root, name, variant)
    except (CellFailure, QuantlabError) as error:
        found = {"stage": "prepare", "kind": getattr(error, "kind", "refused"), "reason": str(error)}
    except Exception as error:  # a library may raise anything: its traceback is in the log
        traceback.print_exc()
        found = {"stage": "prepare", "kind": "crashed", "reason": f"{type(error).__name__}: {error}"[:300]}
    write_json(said, found)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--cells", default="")
    runs.add_argument("--families", default="")
    runs.add_argument("--variants", default="")
    runs.add_argument("--again", choices=("changed", "failed", "all"), default="changed")
    runs.add_argument("--results", type=Path, default=RESULTS)
    runs.add_argument("--work", type=Path, default=ROOT / "runs" / "architectures")
    runs.add_argument("--lock", type=Path, default=None)
    runs.add_argument("--seconds", type=float, default=SECONDS)
    runs.set_defaults(do=run)
    writes = commands.add_parser("write")
    writes.add_argument("--results", type=Path, default=RESULTS)
    writes.add_argument("--target", type=Path, default=ROOT / "docs" / "architectures.md")
    writes.set_defaults(do=lambda a: a.target.write_text(_architectures_table.page(read_results(a.results))))
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
