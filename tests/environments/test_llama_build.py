"""llama.cpp is built with CUDA where that can work, without AMX, and a line says what was decided."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantlab.engines._llama import library
from quantlab.environments.install import cuda_build
from quantlab.environments.llama_build import (
    SETTING,
    WITHOUT_AMX,
    LlamaBuild,
    decide,
    find_nvcc,
    has_amx,
    without_amx,
)
from quantlab.errors import CellFailure
from quantlab.formats.llama_log import llama

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def nvcc(tmp_path: Path) -> str:
    """A folder with CUDA's compiler in `bin`."""
    (tmp_path / "bin").mkdir()
    compiler = tmp_path / "bin" / "nvcc"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("setting", "driver", "cmake_args", "said"),
    [
        ({}, True, "-DGGML_CUDA=on", "with CUDA for this machine's GPU"),
        ({}, False, "", "no NVIDIA driver"),
        ({SETTING: "off"}, True, "", "without CUDA: QUANTLAB_CUDA=off"),
        (
            {SETTING: "on"},
            False,
            "-DGGML_CUDA=on -DGGML_NATIVE=OFF -DCMAKE_CUDA_ARCHITECTURES=80;86;89;90;120",
            "with CUDA for the architectures 80;86;89;90;120",
        ),
        ({"CMAKE_ARGS": "-DGGML_CUDA=off"}, True, "-DGGML_CUDA=off", "as CMAKE_ARGS says"),
        ({"CMAKE_ARGS": "-DX=1"}, True, "-DX=1 -DGGML_CUDA=on", "with CUDA for this machine's GPU"),
    ],
)
def test_gpu_row_7_llama_cpp_is_built_with_cuda_where_its_compiler_and_a_driver_are(
    setting: dict[str, str], driver: bool, cmake_args: str, said: str, nvcc: str
) -> None:
    found = decide({"CUDA_HOME": nvcc, **setting}, lambda: driver)
    assert found.cmake_args == cmake_args and said in found.said and "\n" not in found.said


def test_gpu_row_7_without_the_compiler_one_line_says_that_it_was_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quantlab.environments.llama_build.find_nvcc", lambda environment: None)
    for setting in ({}, {SETTING: "on"}):
        found = decide(setting, lambda: True)
        assert found == ("", "llama.cpp is built without CUDA: there is no nvcc here")


def test_gpu_row_7_the_compiler_is_found_on_the_path_too(nvcc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    assert find_nvcc({"PATH": f"{nvcc}/bin"}) == f"{nvcc}/bin/nvcc"
    assert find_nvcc({"PATH": "/nothing"}) is None


def test_gpu_row_7_the_decision_needs_no_library(nvcc: str) -> None:
    """`make install` runs it before anything is installed: an isolated interpreter with no packages."""
    environment = {"PATH": os.environ["PATH"], "CUDA_HOME": nvcc, SETTING: "on"}
    command = [sys.executable, "-I", "-S", str(ROOT / "quantlab/environments/llama_build.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("-DGGML_CUDA=on ") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "amx", "cmake_args"),
    [
        ("", True, WITHOUT_AMX),
        ("-DGGML_CUDA=on", True, f"-DGGML_CUDA=on {WITHOUT_AMX}"),
        ("", False, ""),
        ("-DCMAKE_CXX_FLAGS=-O2", True, "-DCMAKE_CXX_FLAGS=-O2"),
        ("-DGGML_NATIVE=OFF", True, "-DGGML_NATIVE=OFF"),
    ],
)
def test_a_processor_with_amx_gets_a_build_without_it(given: str, amx: bool, cmake_args: str) -> None:
    made = without_amx(LlamaBuild(given, "llama.cpp is built"), lambda: amx)
    assert made.cmake_args == cmake_args
    assert ("without AMX" in made.said) == (WITHOUT_AMX in cmake_args)


def test_the_processor_says_whether_it_has_amx(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t: fpu avx512_vnni amx_tile amx_int8\n")
    (tmp_path / "older").write_text("flags\t: fpu avx512_vnni\n")
    assert has_amx(tmp_path / "cpuinfo")
    assert not has_amx(tmp_path / "older") and not has_amx(tmp_path / "nothing")


def test_the_llama_cpp_that_is_installed_has_no_amx() -> None:
    """Else every quantized product of this machine's llama.cpp would end the process where GCC built it."""
    said = llama().llama_print_system_info().decode()
    assert "AMX_INT8 = 1" not in said


def test_gpu_row_7_the_remedy_does_not_take_the_cached_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    api = SimpleNamespace(
        llama_model_default_params=SimpleNamespace, llama_supports_gpu_offload=lambda: False
    )
    monkeypatch.setattr(library, "llama", lambda: api)
    with pytest.raises(CellFailure, match="built without CUDA") as failure:
        library.Model(Path("f.gguf"), "cuda:0")
    for option in ("--no-cache-dir", "--no-deps", "--force-reinstall", "--no-binary llama-cpp-python"):
        assert option in failure.value.reason and option in cuda_build("0.3.36")
    assert failure.value.kind == "not_installed" and "llama-cpp-python==" in failure.value.reason


def test_gpu_row_7_and_13_make_install_asks_before_it_builds() -> None:
    said = subprocess.run(
        ["make", "--dry-run", "--always-make", "install"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    asks, builds = said.index("quantlab/environments/llama_build.py"), said.index("-e '.[all,dev]'")
    assert asks < builds and "--no-cache-dir llama-cpp-python" in said[asks:builds]


def test_uv_installs_instead_of_pip_where_it_is_named() -> None:
    command = ["make", "--dry-run", "--always-make", "install", "UV=uv"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "uv pip install --python .venv/bin/python -c constraints.txt -e '.[all,dev]'" in said
    assert "bin/pip " not in said


def test_gpu_row_13_the_image_needs_no_gpu_and_takes_nothing_of_the_host() -> None:
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    steps = re.findall(r"^(?:RUN|ENV) .*$", recipe, re.M)
    assert any("QUANTLAB_CUDA=on make install" in step for step in steps)
    assert "MALLOC_CONF" not in recipe  # nothing preloads an allocator that would read it
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in (".venv", "runs", "checkpoints", "models", "references", ".dvc/cache", ".git"):
        assert name in ignored
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    kept = {path.split("/")[0] for path in tracked.stdout.splitlines()}
    assert not kept & {name.rstrip("/") for name in ignored}  # nothing of the project is left out
