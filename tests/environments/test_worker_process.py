"""A worker of another interpreter: obeyed over pipes and files, and neither its death nor its silence hangs."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from quantlab.environments import worker
from quantlab.environments.worker import WorkerProcess
from quantlab.errors import CellFailure

HERE = Path(__file__).parent
Start = Callable[..., WorkerProcess]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that finds the test's commands; of this environment it was not told."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={HERE} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def start(python: Path) -> Iterator[Start]:
    made: list[WorkerProcess] = []

    def begin(**environment: str) -> WorkerProcess:
        made.append(WorkerProcess("the library", python, "obedient", dict(os.environ) | environment))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def test_a_command_goes_over_with_its_arrays_and_comes_back_with_others(start: Start) -> None:
    one = start()
    for _ in range(2):
        reply = one.ask("add", {"numbers": np.arange(4, dtype=np.float32)}, more=0.5)
        assert reply.values == {"sum": 6.5}
        assert (
            np.array_equal(reply.arrays["twice"], [0, 2, 4, 6]) and reply.arrays["twice"].dtype == np.float32
        )
    assert [path.name for path in one._folder.iterdir()] == ["log"]  # every array was taken away


def test_what_it_prints_is_no_answer_and_ends_in_the_log(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    one = start()
    one.ask("say", text="hello")
    assert one.ask("add", {"numbers": np.ones(1)}, more=0).values == {"sum": 1.0}
    one.close()
    assert "hello on standard output\nhello\n" in capfd.readouterr().err and not one._folder.exists()


def test_it_is_told_nothing_of_this_environment(start: Start) -> None:
    told = start(PYTHONPATH="/ours", VIRTUAL_ENV="/ours", FOR_IT="yes").ask("where").values
    assert told["environment"]["FOR_IT"] == "yes" and "VIRTUAL_ENV" not in told["environment"]
    assert "/ours" not in told["path"] and str(HERE) in told["path"]


@pytest.mark.parametrize(
    ("do", "kind", "reason"),
    [
        ("refuse", "unsupported", "no such layer"),
        ("run_out_of_memory", "out_of_memory", "cannot take 7 bytes"),
        ("stumble", "crashed", "the library: ValueError: a fault of the library"),
    ],
)
def test_a_failure_of_a_command_is_the_cells_and_the_worker_stays(
    start: Start, do: str, kind: str, reason: str
) -> None:
    one = start()
    with pytest.raises(CellFailure) as failure:
        one.ask(do)
    assert (failure.value.kind, failure.value.reason) == (kind, reason)
    assert one.ask("add", {"numbers": np.ones(2)}, more=0).values == {"sum": 2.0}


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (signal.SIGILL, "crashed", "the library died of SIGILL (die); its last words: the last words of the"),
        (signal.SIGKILL, "killed", "the library was killed"),
    ],
)
def test_a_death_is_told_with_the_last_lines(start: Start, number: int, kind: str, said: str) -> None:
    one = start()
    with pytest.raises(CellFailure) as failure:
        one.ask("die", number=number)
    assert failure.value.kind == kind and said in failure.value.reason
    with pytest.raises(CellFailure, match="ended before, so 'add' was not asked"):
        one.ask("add")


@pytest.mark.parametrize(
    ("text", "kind"), [("CUDA error: out of memory", "out_of_memory"), ("assertion failed", "crashed")]
)
def test_an_end_that_the_library_chose_is_told_by_its_words(start: Start, text: str, kind: str) -> None:
    with pytest.raises(CellFailure, match="ended with code 3") as failure:
        start().ask("leave", text=text)
    assert failure.value.kind == kind and text in failure.value.reason


def test_a_worker_that_hangs_is_ended(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "IDLE_SECONDS", 2.0)
    one, began = start(), time.monotonic()
    one.ask("add", {"numbers": np.ones(1)}, more=0)
    with pytest.raises(
        CellFailure, match=r"used no processor for 2 s and did not answer \(sleep\)"
    ) as failure:
        one.ask("sleep", seconds=600)
    assert "waiting for a lock" in failure.value.reason and time.monotonic() - began < 60
    assert not psutil.pid_exists(one._process.pid)


def test_a_worker_that_works_is_given_its_time_and_no_more(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "IDLE_SECONDS", 1.2)
    monkeypatch.setenv("QUANTLAB_WORKER_SECONDS", "3")
    one = start()
    one.ask("work", seconds=2)
    with pytest.raises(CellFailure, match="took more than 3 s"):
        one.ask("work", seconds=600)


def test_its_memory_is_counted(start: Start) -> None:
    one = start()
    one.ask("add", {"numbers": np.ones(1)}, more=0)
    now, peak = one.resident()
    assert 5e6 < now <= peak < 5e8
    one.close()
    assert one.resident() == (0, 0)
