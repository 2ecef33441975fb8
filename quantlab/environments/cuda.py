"""Decide whether llama.cpp is built with CUDA, before anything is installed.

`python quantlab/environments/cuda.py` prints the CMAKE_ARGS of the build, and one line about the decision to
standard error. It needs Python's standard library alone, because `make install` runs it before the package is
there."""

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
_DRIVER = "libcuda.so.1"


class CudaBuild(NamedTuple):
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


def decide(environment: Mapping[str, str], driver: Callable[[], bool] = has_driver) -> CudaBuild:
    """With CUDA where its compiler and NVIDIA's driver are here; `QUANTLAB_CUDA=on` or `off` decides
    otherwise.

    `on` is for an image that is built without a GPU: it compiles for the usual architectures instead of the
    GPU of this machine. CMAKE_ARGS that are set already are kept, and decide alone where they name
    GGML_CUDA."""
    given, wish = environment.get("CMAKE_ARGS", ""), environment.get(SETTING, "auto").lower()
    if "GGML_CUDA" in given:
        return CudaBuild(given, f"llama.cpp is built as CMAKE_ARGS says: {given}")
    if wish == "off":
        return CudaBuild(given, f"llama.cpp is built without CUDA: {SETTING}=off")
    compiler = find_nvcc(environment)
    if compiler is None:
        return CudaBuild(given, "llama.cpp is built without CUDA: there is no nvcc here")
    if wish == "on":
        portable = f"{WITH_CUDA} -DGGML_NATIVE=OFF -DCMAKE_CUDA_ARCHITECTURES={ARCHITECTURES}"
        said = f"llama.cpp is built with CUDA for the architectures {ARCHITECTURES}, by {compiler}"
        return CudaBuild(f"{given} {portable}".strip(), f"{said}: this takes long")
    if not driver():
        said = (
            f"llama.cpp is built without CUDA: there is {compiler}, but no NVIDIA driver ({_DRIVER});"
            f" {SETTING}=on builds it nevertheless"
        )
        return CudaBuild(given, said)
    said = f"llama.cpp is built with CUDA for this machine's GPU, by {compiler}: this takes long"
    return CudaBuild(f"{given} {WITH_CUDA}".strip(), said)


if __name__ == "__main__":
    decided = decide(os.environ)
    print(decided.said, file=sys.stderr)
    print(decided.cmake_args)
