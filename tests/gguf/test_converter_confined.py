"""The converter runs no code of the model's folder, has no network, and its death is an outcome of the
cell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quantlab.errors import CellFailure
from quantlab.methods._gguf import converter, importance_apart
from quantlab.methods._gguf._child import run_child
from quantlab.methods._gguf.clean_copy import clean_copy
from quantlab.progress import Progress

EVIL = (
    "from pathlib import"
    " Path\nPath(__file__).resolve().parent.joinpath('MARKER').touch()\nPath({marker!r}).touch()\nclass Evil:"
    " ...\n"
)


@pytest.fixture
def planted(source: Path, tmp_path: Path) -> Path:
    """The tiny Llama under a family for which the converter trusts the folder, with code that leaves a
    marker."""
    folder = tmp_path / "tiny-llama"
    shutil.copytree(source, folder)
    for name, fields in {
        "config.json": {"architectures": ["LLaDAModelLM"], "auto_map": {"AutoConfig": "evil.Evil"}},
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}},
    }.items():
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | fields))
    (folder / "evil.py").write_text(EVIL.format(marker=str(tmp_path / "marker")))
    return folder


@pytest.mark.slow
def test_the_converter_itself_runs_no_code_of_the_folder(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(CellFailure):  # the tiny tokenizer is not one that llama.cpp knows for it
        converter.convert(planted, tmp_path / "m.gguf", tmp_path / "log")
    assert "LLaDA" in (tmp_path / "log").read_text()
    assert not list(tmp_path.rglob("[Mm][Aa][Rr][Kk][Ee][Rr]"))


@pytest.mark.slow
def test_the_same_folder_runs_its_code_where_it_is_trusted(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the test above would show nothing."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(CellFailure):
        converter.convert(planted, tmp_path / "m.gguf", tmp_path / "log", trust_remote_code=True)
    assert (tmp_path / "marker").exists()


def test_the_clean_copy_has_the_data_and_no_code(planted: Path, tmp_path: Path) -> None:
    (planted / "weights.bin").write_bytes(b"\x80\x04")
    copy = clean_copy(planted, tmp_path / "copy")
    kept, left_out = {p.name for p in copy.iterdir()}, {"evil.py", "weights.bin"}
    assert kept == {p.name for p in planted.iterdir()} - left_out and copy.name == planted.name
    assert (copy / "model.safetensors").resolve() == planted / "model.safetensors"
    assert not any("auto_map" in path.read_text() for path in copy.glob("*.json"))
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (planted, copy))
    assert before == after | {"auto_map": {"AutoConfig": "evil.Evil"}}


NETWORK = """
import socket, sys
for name in ("connect", "look up"):
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1]))) if name == "connect" else socket.getaddrinfo("localhost", 80)
        print(name, "worked")
    except PermissionError as error:
        print(name, error)
one, other = socket.socketpair()
one.send(b"x")
print("a pair of local sockets:", other.recv(1))
"""


def test_a_confined_script_reaches_no_other_address(tmp_path: Path) -> None:
    import socket

    (tmp_path / "script.py").write_text(NETWORK)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        command = [
            sys.executable,
            "-P",
            "-m",
            "quantlab.methods._gguf._confined",
            str(tmp_path / "script.py"),
            port,
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split(" no network")[0] for line in said] == [
        "connect",
        "look up",
        "a pair of local sockets: b'x'",
    ]


@pytest.mark.parametrize(
    ("script", "kind", "match"),
    [
        ("import os; os.abort()", "crashed", "died of SIGABRT"),
        (
            "print('CUDA: Out Of Memory', flush=True); import os; os.abort()",
            "out_of_memory",
            "died of SIGABRT",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed", "signal 9"),
        ("import time; time.sleep(60)", "crashed", "did not end within 1 s"),
    ],
    ids=["abort", "abort for want of memory", "killed", "hangs"],
)
def test_a_childs_death_is_an_outcome(script: str, kind: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(CellFailure, match=match) as raised:
        run_child(
            "the child",
            [sys.executable, "-c", script],
            tmp_path / "log",
            1.0 if "sleep" in script else 60.0,
            os.environ,
        )
    assert raised.value.kind == kind


def test_a_childs_own_words_and_no_earlier_ones_come_back(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    ended = run_child(
        "the child", [sys.executable, "-c", "print('now'); exit(3)"], tmp_path / "log", 60.0, os.environ
    )
    assert ended == (3, "now\n") and (tmp_path / "log").read_text() == "before\nnow\n"


def test_the_importance_matrix_of_no_model_is_a_failure(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    import numpy as np

    np.save(tmp_path / "ids.npy", np.zeros((1, 16), np.int64))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(CellFailure, match=r"cannot load m\.gguf"):
        importance_apart.compute_apart(
            tmp_path / "m.gguf",
            tmp_path / "ids.npy",
            tmp_path / "i.gguf",
            tmp_path / "log",
            Progress(quiet=True),
        )
