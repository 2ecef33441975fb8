"""Decide how llama.cpp is built, before anything is installed: with CUDA or not, and never with AMX.

`python quantlab/environments/llama_build.py` prints the CMAKE_ARGS of the build, and a line about each
decision to standard error. It needs Python's standard library alone, because `make install` runs it before
the package is there."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

WITH_CUDA = "-DGGML_CUDA=on"
ARCHITECTURES = "80;86;89;90;120"
"""Of NVIDIA's GPUs, for an image that is built where there is no GPU to ask: A100, RTX 30, RTX 40, H100 and
H200, RTX 50."""
SETTING = "QUANTLAB_CUDA"
WITHOUT_AMX = "-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8"
"""GCC 12's intrinsic for the tiles' configuration lets the compiler drop what was written into it, and every
quantized product ends the process with SIGILL (llama.cpp's pull request 26954, open in August 2026)."""
_DRIVER = "libcuda.so.1"


class LlamaBuild(NamedTuple):
    """How llama.cpp is built."""

    cmake_args: str
    said: str
    """One line: what was decided, and why."""


def has_driver(library: str = _DRIVER) -> bool:
    """Whether NVIDIA's driver library can be loaded: a build with CUDA does not load without it."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def find_nvcc(environment: Mapping[str, str]) -> str | None:
    """CUDA's compiler: on the path, where CUDA_HOME or CUDA_PATH says, or where NVIDIA's packages put it."""
    folders = [environment[name] for name in ("CUDA_HOME", "CUDA_PATH") if environment.get(name)]
    for folder in (*folders, "/usr/local/cuda"):
        compiler = Path(folder) / "bin" / "nvcc"
        if compiler.is_file():
            return str(compiler)
    return shutil.which("nvcc", path=environment.get("PATH"))


def decide(environment: Mapping[str, str], driver: Callable[[], bool] = has_driver) -> LlamaBuild:
    """With CUDA where its compiler and NVIDIA's driver are here; `QUANTLAB_CUDA=on` or `off` decides
    otherwise.

    `on` is for an image that is built without a GPU: it compiles for the usual architectures instead of the
    GPU of this machine. CMAKE_ARGS that are set already are kept, and decide alone where they name
    GGML_CUDA."""
    given, wish = environment.get("CMAKE_ARGS", ""), environment.get(SETTING, "auto").lower()
    if "GGML_CUDA" in given:
        return LlamaBuild(given, f"llama.cpp is built as CMAKE_ARGS says: {given}")
    if wish == "off":
        return LlamaBuild(given, f"llama.cpp is built without CUDA: {SETTING}=off")
    compiler = find_nvcc(environment)
    if compiler is None:
        return LlamaBuild(given, "llama.cpp is built without CUDA: there is no nvcc here")
    if wish == "on":
        portable = f"{WITH_CUDA} -DGGML_NATIVE=OFF -DCMAKE_CUDA_ARCHITECTURES={ARCHITECTURES}"
        said = f"llama.cpp is built with CUDA for the architectures {ARCHITECTURES}, by {compiler}"
        return LlamaBuild(f"{given} {portable}".strip(), f"{said}: this takes long")
    if not driver():
        said = (
            f"llama.cpp is built without CUDA: there is {compiler}, but no NVIDIA driver ({_DRIVER});"
            f" {SETTING}=on builds it nevertheless"
        )
        return LlamaBuild(given, said)
    said = f"llama.cpp is built with CUDA for this machine's GPU, by {compiler}: this takes long"
    return LlamaBuild(f"{given} {WITH_CUDA}".strip(), said)


def has_amx(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has Intel's tiles of 8-bit integers, which a build for this machine would use."""
    try:
        return " amx_int8" in cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def without_amx(build: LlamaBuild, amx: Callable[[], bool] = has_amx) -> LlamaBuild:
    """The same build without AMX where the processor has it, unless CMAKE_ARGS say something of compilers'
    flags or of a build that is not for this machine."""
    own = any(word in build.cmake_args for word in ("_FLAGS", "amx", "AMX", "GGML_NATIVE=OFF"))
    if own or not amx():
        return build
    said = f"{build.said}\nllama.cpp is built without AMX: GCC breaks it, and the process would die of SIGILL"
    return LlamaBuild(f"{build.cmake_args} {WITHOUT_AMX}".strip(), said)


if __name__ == "__main__":
    decided = without_amx(decide(os.environ))
    print(decided.said, file=sys.stderr)
    print(decided.cmake_args)
