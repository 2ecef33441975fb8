"""Check what is installed and what works on this machine, and print the commands that install what is
missing; with --verify, prove it by running everything."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from quantlab.cli._common import Context, Ending, common, say
from quantlab.cli._numbers import Finite
from quantlab.cli._stage import device_option
from quantlab.cli._verify import verify_machine
from quantlab.errors import QuantlabError

if TYPE_CHECKING:
    from quantlab.environments.health import Health

TOOLS = {"git": "git", "c++": "g++"}
"""Programs, and the Debian package of each; llama-cpp-python and GPTQModel's CPU kernels are compiled on this
machine."""
WITHOUT_NVCC = (
    "GPTQ, AWQ and auto-round run by Triton's or torch's kernels, and llama.cpp is built without CUDA;"
    " install the CUDA toolkit of torch's CUDA version"
)
MARKS = {"works": "ok", "installed": "ok", "other version": "!!", "missing": "--", "broken": "!!"}


@click.command()
@click.option("--quick", is_flag=True, help="Check versions only; import nothing.")
@click.option("--online", is_flag=True, help="Also check that the model hub answers.")
@click.option(
    "--verify", is_flag=True, help="Run every method and engine on the device, and check its figures."
)
@device_option
@click.option(
    "--minutes",
    type=Finite(0, 1e6, min_open=True),
    default=None,
    help="With --verify: begin nothing that would not fit into this time. Default: 10.",
)
@click.option(
    "--check",
    "checks",
    multiple=True,
    help="With --verify: only this check, or its subjects that begin so, such as engine or variant:wide/.",
)
@click.option("--again", is_flag=True, help="With --verify: do again what was done before.")
@common
def command(
    ctx: Context,
    quick: bool,
    online: bool,
    verify: bool,
    device: str | None,
    minutes: float | None,
    checks: tuple[str, ...],
    again: bool,
) -> dict[str, Any] | Ending:
    """Check what is installed and what works on this machine, and print the commands that install what is
    missing.

    Imports every library once, each in its own process, which takes up to a minute. The exit code is 0,
    whatever is found.

    With --verify the machine proves itself instead: on random models made on the spot every method and
    engine that is there quantizes, saves, reloads, measures, diverges and generates, and memory, speed,
    energy and kernels are checked. The results go to verification/DEVICE.json and DEVICE.md in the current
    folder. What was done with this code and these libraries is not done again, so a run that ended in time
    goes on where it stopped. The exit code is 1 if a check failed.

    \b
    quantlab doctor --verify --minutes 30
    quantlab doctor --verify --device cuda:0 --check engine --check variant:wide/

    With --json: machine, gpus, tools (name, path, fix; nvcc where there is a GPU, and what is not there
    without it), libraries (distribution, version, state, detail, fix), methods and
    engines (name, ready, lacks), environments (name, title, needs, version, state, path, install), disk
    (place, path, free_bytes), hub (null without --online), fixes (the commands, in order); with
    --verify: device, versions, models, results (check, subject, outcome (status,
    reason, figures, facts), seconds, finished) and what else the file holds."""
    if verify:
        if quick or online:
            raise QuantlabError("--verify runs everything itself: leave --quick and --online out")
        return verify_machine(ctx, device, 10 if minutes is None else minutes, checks, again)
    if device or minutes or checks or again:
        raise QuantlabError("--device, --minutes, --check and --again belong to --verify: add it")
    if not (ctx.quiet or quick):
        say("importing every library once, each in its own process; this takes up to a minute", err=True)
    libraries = _libraries(quick)
    checked: dict[str, Any] = {
        **_machine(),
        "tools": _tools(),
        "libraries": [library._asdict() for library in libraries],
        **_ready(libraries),
        "environments": _environments(),
        "disk": _disk(),
        "hub": _hub() if online else None,
    }
    checked["fixes"] = _fixes(checked)
    if not ctx.json:
        _print(checked)
    return checked


def _machine() -> dict[str, Any]:
    from quantlab.hardware.device import find

    device = find("cpu")
    machine = {
        "system": device.system,
        "python": device.python,
        "cpu": device.cpu,
        "cores": device.cores,
        "memory_gib": device.memory_gib,
    }
    return {"machine": machine, "gpus": [gpu.model_dump() for gpu in device.gpus]}


def _tools() -> list[dict[str, Any]]:
    """Programs and where they are; CUDA's compiler where there is a GPU."""
    from quantlab.environments.llama_build import find_nvcc
    from quantlab.hardware.device import gpus

    tools: list[dict[str, Any]] = []
    for name, package in TOOLS.items():
        path = shutil.which(name)
        tools.append({"name": name, "path": path, "fix": None if path else f"apt-get install {package}"})
    if gpus():
        tools.append({"name": "nvcc", "path": find_nvcc(os.environ), "fix": None, "without": WITHOUT_NVCC})
    return tools


def _libraries(quick: bool) -> list[Health]:
    from quantlab.environments.health import check
    from quantlab.environments.install import asked
    from quantlab.processors import cores

    # what needs an environment of its own is not missing from this one
    here = [part for part in _parts() if not part.apart]
    deciding = {name for part in here for name in part.requires} | {"lm-eval", "datasets", "dvc"}
    names = sorted(deciding | {name for name, wanted in asked().items() if wanted.extras})
    light = sorted(set(asked()) - set(names))
    with ThreadPoolExecutor(max_workers=min(4, cores())) as pool:
        health_of_deciding = list(pool.map(lambda name: check(name, not quick), names))
    return health_of_deciding + [
        health for health in (check(name, False) for name in light) if health.state != "installed"
    ]


class _Part(NamedTuple):
    """A method or an engine, and what it needs installed."""

    kind: str
    name: str
    summary: str
    requires: tuple[str, ...]
    apart: bool
    """Whether it needs an environment of its own."""
    install: str | None = None
    """The command that makes that environment."""


def _parts() -> list[_Part]:
    from quantlab import engines, methods

    parts = [
        _Part("methods", m.name, m.summary, m.requires, False) for m in map(methods.load, methods.names())
    ]
    for name in engines.names():
        engine = engines.load(name)
        parts.append(_Part("engines", name, engine.summary, engine.requires, engine.apart, engine.install))
    return parts


def _ready(libraries: list[Health]) -> dict[str, list[dict[str, Any]]]:
    from quantlab import engines

    bad = {library.distribution for library in libraries if library.state in ("missing", "broken")}
    rows: dict[str, list[dict[str, Any]]] = {"methods": [], "engines": []}
    for part in _parts():
        lacks = (
            list(engines.load(part.name).lacks())
            if part.apart
            else [required for required in part.requires if required in bad]
        )
        row = {"name": part.name, "ready": not lacks, "lacks": lacks, "summary": part.summary}
        rows[part.kind].append(row | ({"install": part.install} if part.apart else {}))
    return rows


def _environments() -> list[dict[str, Any]]:
    """Environments of their own, whether they are made or not."""
    from quantlab.environments import locked

    return [
        {
            "name": one.name,
            "title": one.title,
            "needs": one.needs,
            "version": one.version,
            "state": one.state,
            "path": str(one.folder),
            "install": f"quantlab install {one.name}",
        }
        for one in map(locked.load, locked.names())
    ]


def _disk() -> list[dict[str, Any]]:
    from quantlab.files import cache_folder

    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    places = {"this folder": Path.cwd(), "quantlab's cache": cache_folder(), "the hub's cache": hub}
    return [
        {"place": place, "path": str(path), "free_bytes": shutil.disk_usage(_existing(path)).free}
        for place, path in places.items()
    ]


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _hub() -> dict[str, Any]:
    import urllib.error
    import urllib.request

    import huggingface_hub.constants as constants

    endpoint = str(constants.ENDPOINT)
    try:
        with urllib.request.urlopen(endpoint, timeout=10):
            return {"endpoint": endpoint, "reachable": True, "error": None}
    except urllib.error.HTTPError:  # an answer, whatever it says
        return {"endpoint": endpoint, "reachable": True, "error": None}
    except OSError as error:
        return {"endpoint": endpoint, "reachable": False, "error": str(error)}


def _fixes(checked: dict[str, Any]) -> list[str]:
    from quantlab.environments.install import cuda_build

    commands = [row["fix"] for row in (*checked["tools"], *checked["libraries"]) if row["fix"]]
    llama = next(
        (row for row in checked["libraries"] if row["distribution"] == "llama-cpp-python" and row["version"]),
        None,
    )
    if checked["gpus"] and llama and "without GPU offload" in llama["detail"]:
        commands.append(cuda_build(llama["version"]))
    return list(dict.fromkeys(commands))


def _print(checked: dict[str, Any]) -> None:
    machine = checked["machine"]
    say(f"{machine['system']}, Python {machine['python']}; {machine['cpu']}, {machine['memory_gib']} GiB")
    for gpu in checked["gpus"]:
        say(
            f"cuda:{gpu['index']}  {gpu['name']}, {gpu['memory_bytes'] / 2**30:.0f} GiB, driver"
            f" {gpu['driver']}, {gpu['uuid']}"
        )
    if not checked["gpus"]:
        say("no NVIDIA GPU found by the driver")
    say("\nLibraries")
    for row in checked["libraries"]:
        state = row["state"] + (f": {row['detail']}" if row["detail"] else "")
        say(f"  {MARKS[row['state']]}  {row['distribution']:<18}{row['version'] or '':<12}{state}")
    for row in checked["tools"]:
        lacking = f"missing: {row['without']}" if row.get("without") else "missing"
        say(f"  {'ok' if row['path'] else '--'}  {row['name']:<30}{row['path'] or lacking}")
    for kind in ("methods", "engines"):
        say(f"\n{kind.capitalize()}")
        for row in checked[kind]:
            state = row["summary"] if row["ready"] else "lacks " + ", ".join(row["lacks"])
            state += f": {row['install']}" if row.get("install") and not row["ready"] else ""
            say(f"  {'ok' if row['ready'] else '--'}  {row['name']:<18}{state}")
    say("\nEnvironments of their own")
    for row in checked["environments"]:
        done, where = row["state"] == "ready", f"{row['title']}, in {row['path']}"
        needs = f", needs {row['needs']}" if row["needs"] else ""
        state = where if done else f"{row['title']}{needs}, {row['state']}: {row['install']}"
        say(f"  {'ok' if done else '--'}  {row['name']:<18}{row['version']:<12}{state}")
    say("\nDisk")
    for row in checked["disk"]:
        say(f"  {row['free_bytes'] / 1e9:8.1f} GB free  {row['place']}: {row['path']}")
    if checked["hub"]:
        say(
            f"\nHub {checked['hub']['endpoint']}:"
            f" {'reachable' if checked['hub']['reachable'] else 'not reachable: ' + checked['hub']['error']}"
        )
    say("\nTo fix it, run:" if checked["fixes"] else "\nNothing is missing.")
    for line in checked["fixes"]:
        say(f"  {line}")
