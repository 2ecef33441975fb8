"""From safetensors to GGUF with llama.cpp's own convert_hf_to_gguf.py, in a process of its own.

The script is taken from the source archive of the pinned llama-cpp-python, so that it is of the same commit as the
library that reads the file; or from the llama.cpp checkout that the environment variable QUANTLAB_LLAMA_CPP names.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from quantlab.errors import CellFailure, QuantlabError

REQUIREMENT = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
SCRIPT = "convert_hf_to_gguf.py"


def llama_cpp_source() -> Path:
    """The folder of llama.cpp's sources. Raises QuantlabError where they cannot be had."""
    named = os.environ.get("QUANTLAB_LLAMA_CPP")
    if named:
        if not (Path(named) / SCRIPT).is_file():
            raise QuantlabError(f"QUANTLAB_LLAMA_CPP={named} has no {SCRIPT}: name a llama.cpp checkout, or unset it")
        return Path(named)
    from quantlab.models.pypi import fetch

    return fetch(REQUIREMENT, SHA256, source=True) / "vendor" / "llama.cpp"


def convert(source: Path, target: Path, log: Path, outtype: str = "f16") -> None:
    """Write the model in the folder `source` (safetensors, config, tokenizer) as one GGUF file at `target`.

    `outtype` is f32, f16 or bf16; the converter's output is appended to `log`. Multi-token prediction heads are left
    out, because no engine here uses them. Raises CellFailure("unsupported") with the converter's last line where it
    does not know the model, and leaves no partial file.
    """
    scripts = llama_cpp_source()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".partial-{target.name}-") as folder:
        partial = Path(folder) / target.name
        code, said = _run(scripts, source, partial, log, outtype, ["--no-mtp"])
        if code and "not supported for" in said:
            code, said = _run(scripts, source, partial, log, outtype, [])
        if code or not partial.is_file():
            raise CellFailure("unsupported", f"llama.cpp cannot convert this model: {_reason(said)}")
        partial.replace(target)


def _run(scripts: Path, source: Path, target: Path, log: Path, outtype: str, more: list[str]) -> tuple[int, str]:
    # An older or newer `gguf` package may be installed: the converter works with the one of its own commit only.
    path = os.pathsep.join(filter(None, [str(scripts / "gguf-py"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(scripts / SCRIPT), str(source), "--outfile", str(target), "--outtype", outtype, *more]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(done.stdout)
    return done.returncode, done.stdout


def _reason(said: str) -> str:
    """The last line that is no progress bar, without the logger's prefix."""
    lines = [line.split("\r")[-1].strip() for line in said.splitlines()]
    line = next((line for line in reversed(lines) if line and not line.startswith("Writing:")), "it said nothing")
    return line.removeprefix("ERROR:hf-to-gguf:")[:300]
