"""llama.cpp's own tools, built once from the source that the installed llama-cpp-python vendors, into
quantlab's cache.

About five minutes on two cores for the first one; cmake and a C++ compiler are needed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from quantlab.files import cache_folder
from quantlab.methods._gguf.converter import llama_cpp_source
from quantlab.processors import cores

ENVIRONMENT = os.environ | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "active")}
OPTIONS = (
    *(
        "-DCMAKE_BUILD_TYPE=Release",
        "-DLLAMA_OPENSSL=OFF",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        "-DLLAMA_BUILD_TOOLS=ON",
    ),
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "SERVER", "APP")),
)


def build(tool: str) -> Path:
    """The path of a tool, such as llama-perplexity or llama-bench."""
    source = llama_cpp_source()
    folder = cache_folder() / "llama-tools" / source.parent.parent.name
    binary = folder / "bin" / tool
    if not binary.exists():
        subprocess.run(
            ["cmake", "-S", str(source), "-B", str(folder), *OPTIONS], check=True, stdout=subprocess.DEVNULL
        )
        subprocess.run(
            ["cmake", "--build", str(folder), "--target", tool, "-j", str(cores())],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return binary
