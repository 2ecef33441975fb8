"""Answers are kept as they come: a run that was killed asks only what is left, a finished one leaves nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asked import Serve, chat, record_of, right, said_in, score_of
from click.testing import CliRunner
from servers import ITEMS, Play, Request, Server, answer, good_chat, openai

from quantlab.cli import main
from quantlab.endpoint import asking
from quantlab.endpoint.address import parse
from quantlab.endpoint.asking import Job, ask_all
from quantlab.endpoint.keeping import KeptAnswers
from quantlab.endpoint.secrets import Key
from quantlab.endpoint.tasks import TasksWanted, evaluate
from quantlab.progress import Progress
from quantlab.records.endpoint import EndpointRecord

KEY = "sk-0123456789abcdef"
SHORT = [
    "--requests",
    "2",
    "--concurrency",
    "1",
    "--prompt-tokens",
    "20",
    "--decode-tokens",
    "4",
    "--timeout",
    "20",
]


def _asked(server: Server) -> list[str]:
    return sorted(said_in(r) for r in server.seen if r.method == "POST" and "stream" not in r.json)


@pytest.mark.slow
def test_a_killed_run_asks_only_what_is_left(
    serve: Serve, task_file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth item hangs, and the process is killed meanwhile; then the same command is given again."""
    hangs = True

    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        if "stream" in request.json:
            await good_chat(request, writer)
        elif hangs and said_in(request) == "3":
            await asyncio.sleep(60)
        else:
            await right(request, writer)

    server = serve(openai(play))
    command = [sys.executable, "-c", "from quantlab.cli import main; main()", "endpoint", server.url, *SHORT]
    command += ["--tasks", task_file(), "--items", str(ITEMS), "--out", "out", "--json"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, env=environment)
    items = tmp_path / "out" / ".quantlab" / "items"
    for _ in range(600):
        if sum(len(path.read_text().splitlines()) for path in items.rglob("*.jsonl")) == 3:
            break
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    assert first.wait(20) == -signal.SIGKILL
    hangs, before = False, _asked(server)
    assert before == ["0", "1", "2", "3"]

    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(main, command[3:], catch_exceptions=False).stdout
    record = EndpointRecord.model_validate_json(said)
    assert _asked(server) == sorted([*before, "3", "4", "5"])
    assert score_of(record.tasks["numbers"]) == (1.0, 6) and record.tasks["numbers"].resumed == 3
    assert "numbers: 3 answers are from an earlier run that was interrupted." in record.notes
    assert not (tmp_path / "out" / ".quantlab").exists()


def _evaluate(
    server: Server, path: str, folder: Path, key: Key | None = None, **changes: Any
) -> EndpointRecord:
    record = record_of(server.url, **changes)
    wanted = TasksWanted((path,), "embedded", ITEMS, None, 0)
    kept = KeptAnswers(folder, record, key)
    return evaluate(record, parse(server.url), key, wanted, Progress(quiet=True), kept=kept)[0]


def test_a_finished_run_leaves_nothing_and_asks_anew(
    serve: Serve, task_file: Callable[..., str], tmp_path: Path
) -> None:
    server = serve(right)
    for times in (1, 2):
        record = _evaluate(server, task_file(), tmp_path / "out")
        assert score_of(record.tasks["numbers"]) == (1.0, 6) and record.tasks["numbers"].resumed == 0
        assert len(_asked(server)) == times * ITEMS and not (tmp_path / "out" / ".quantlab").exists()


def _dying(after: int, say: Callable[[Request], str]) -> Play:
    answered = list[int]()

    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(answered) >= after:
            writer.transport.abort()
        else:
            answered.append(1)
            await answer(writer, say(request))

    return play


def test_what_a_server_answered_before_it_died_is_kept(
    serve: Serve, task_file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked no more after 16 connections that ended; the same command asks the others."""
    monkeypatch.setattr(asking, "BACKOFF_SECONDS", 0.001)
    docs = "".join(json.dumps({"q": f"say {n}", "a": str(n)}) + "\n" for n in range(40))
    path = task_file()
    (tmp_path / "docs.jsonl").write_text(docs)
    dead = serve(_dying(5, lambda request: chat(said_in(request))))
    wanted = TasksWanted((path,), "embedded", 40, None, 0)

    def run(url: str) -> EndpointRecord:
        record = record_of(dead.url, 1)
        kept = KeptAnswers(tmp_path / "out", record, None)
        return evaluate(record, parse(url), None, wanted, Progress(quiet=True), kept=kept)[0]

    lost = run(dead.url).tasks["numbers"].lost
    assert len(lost) == 35 and [item.reason.startswith("not asked") for item in lost].count(True) == 19
    assert lost[-1].reason == "not asked: the last 16 requests had no answer"
    alive = serve(right)
    record = run(alive.url)
    assert score_of(record.tasks["numbers"]) == (1.0, 40) and record.tasks["numbers"].resumed == 5
    assert len(alive.seen) == 35 and not (tmp_path / "out" / ".quantlab").exists()


def test_what_could_not_be_scored_is_not_kept_and_a_key_is_in_no_file(serve: Serve, tmp_path: Path) -> None:
    record, url = record_of("http://h"), serve(_dying(9, lambda request: json.dumps({"n": KEY}))).url
    kept = KeptAnswers(tmp_path, record, Key(KEY)).of("numbers")
    from quantlab.errors import CellFailure

    def read(said: dict[str, Any]) -> str:
        if len(list(tmp_path.rglob("*.jsonl"))):
            raise CellFailure("not_measured", "no text")
        return str(said["n"])

    server = asking.Server(url, None, 5)
    found = ask_all(server, [Job({"a": 1}, read), Job({"a": 2}, read)], lambda: None, kept)
    assert found[0] == KEY and isinstance(found[1], CellFailure)
    (path,) = tmp_path.rglob("*.jsonl")
    assert len(path.read_text().splitlines()) == 1 and KEY not in path.read_text()


def test_the_same_question_asked_twice_has_two_answers(serve: Serve, tmp_path: Path) -> None:
    counts = iter(range(10))
    url = serve(_dying(9, lambda request: json.dumps({"n": next(counts)}))).url
    jobs = [Job({"a": 1}, lambda said: said["n"])] * 2 + [Job({"a": 2}, lambda said: said["n"])]
    for _ in range(2):
        kept = KeptAnswers(tmp_path, record_of("http://h"), None).of("numbers")
        assert ask_all(asking.Server(url, None, 5), jobs, lambda: None, kept) == [0, 1, 2]
    assert kept.taken == 3 and next(counts) == 3


@pytest.mark.parametrize("change", [{"model": "other"}, {"server": "vLLM 2"}])
def test_another_models_answers_are_not_taken(change: dict[str, str], serve: Serve, tmp_path: Path) -> None:
    record, url = record_of("http://h"), serve(_dying(9, lambda request: '{"n": 1}')).url
    jobs = [Job({"a": 1}, lambda said: said["n"])]
    for each in (record, record.model_copy(update=change)):
        kept = KeptAnswers(tmp_path, each, None).of("numbers")
        assert ask_all(asking.Server(url, None, 5), jobs, lambda: None, kept) == [1] and kept.taken == 0
