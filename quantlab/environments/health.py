"""Check whether a distribution works: installed, in the version that quantlab asks for, and importable.

The import runs in a child process: a broken library can crash it, and a large one takes seconds.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from typing import Literal, NamedTuple

State = Literal["works", "installed", "other version", "missing", "broken"]
MODULES = {"llama-cpp-python": "llama_cpp", "nvidia-ml-py": "pynvml", "pyyaml": "yaml"}
NOT_IMPORTED = ("cmeel-mimalloc",)
"""Distributions without a module: their files are used."""
FACTS = {
    "torch": (
        """
if not m.version.cuda:
    fact = "built without CUDA"
elif m.cuda.is_available():
    fact = f"CUDA {m.version.cuda} and a GPU that it can use"
else:
    fact = f"CUDA {m.version.cuda}, no GPU that it can use"
"""
    ),
    "llama_cpp": (
        """
fact = "offloads to a GPU" if m.llama_supports_gpu_offload() else "built without GPU offload"
"""
    ),
}
"""By module: lines of the child's script that set `fact`, one more thing to report of the imported module
`m`."""
_CHILD = """
import importlib, json, sys
fact = ""
try:
    m = importlib.import_module(sys.argv[1])
FACT
    said = {"fact": fact}
except ModuleNotFoundError as error:
    said = {"lacks": error.name, "error": str(error)}
except BaseException as error:  # whatever a broken library raises is the answer
    said = {"error": f"{type(error).__name__}: {error}"}
print("\\n" + json.dumps(said), flush=True)
"""


class Health(NamedTuple):
    """How one distribution stands."""

    distribution: str
    version: str | None
    state: State
    detail: str = ""
    fix: str | None = None
    """The command that mends it."""


def check(distribution: str, import_it: bool = True, timeout_seconds: float = 180) -> Health:
    """How a distribution stands; without `import_it` only its version is looked at."""
    from quantlab.environments.install import asked, bring, fits, reinstall
    from quantlab.environments.versions import installed

    version = installed([distribution]).get(distribution)
    if version is None:
        return Health(distribution, None, "missing", fix=bring(distribution))
    module = MODULES.get(distribution, distribution.replace("-", "_"))
    fact = ""
    if import_it and distribution not in NOT_IMPORTED:
        fact, trouble = _try_import(module, timeout_seconds)
        if trouble:
            return Health(
                distribution, version, "broken", trouble, _fix_of(trouble) or reinstall(distribution)
            )
    if not fits(distribution, version):
        detail = f"quantlab asks for {asked()[distribution].specifier}" + (f"; {fact}" if fact else "")
        return Health(distribution, version, "other version", detail, bring(distribution))
    return Health(distribution, version, "works" if import_it else "installed", fact)


def _fix_of(trouble: str) -> str | None:
    _, named, module = trouble.partition("needs the module ")
    return f"pip install {module.split(',')[0].split('.')[0].replace('_', '-')}" if named else None


def _try_import(module: str, timeout_seconds: float) -> tuple[str, str]:
    """What the module says of itself, and what is wrong with it (one of the two is '')."""
    script = _CHILD.replace("FACT\n", textwrap.indent(FACTS.get(module, ""), "    "))
    command = [sys.executable, "-P", "-c", script, module]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired:
        return "", f"importing it took more than {timeout_seconds:g} s"
    try:
        report = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"code {done.returncode}"
        return "", f"importing it ended the process with {how}"
    if "lacks" in report:
        own = report["lacks"] == module
        return (
            "",
            (
                f"its module {module} is not there"
                if own
                else f"it needs the module {report['lacks']}, which is not installed"
            ),
        )
    return report.get("fact", ""), " ".join(report.get("error", "").split())[:200]
