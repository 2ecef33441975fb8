"""A check that another package brings: each subject ends in another way."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from quantlab.errors import CellFailure, QuantlabError
from quantlab.records.verification import Outcome
from quantlab.verification.contract import Check, Context, Subject, judged

WAYS = (
    "passes",
    "complains",
    "refuses",
    "lacks",
    "misused",
    "raises",
    "dies",
    "hangs",
    "says_places",
    "is_ended",
)


def run(context: Context) -> Outcome:
    with (context.root / f"ran-{context.subject}").open("a", encoding="utf-8") as file:
        file.write("once\n")
    figures = {"counted_seconds": 1.5}
    if context.subject == "complains":
        return judged(["it is not so"], figures)
    if context.subject == "refuses":
        raise CellFailure("unsupported", "the library refuses it")
    if context.subject == "lacks":
        raise CellFailure("not_installed", "a library is missing")
    if context.subject == "misused":
        raise QuantlabError("nobody can use it so")
    if context.subject == "raises":
        raise RuntimeError(f"broken in {Path(__file__).resolve()}")
    if context.subject == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if context.subject == "is_ended":
        os.kill(os.getpid(), signal.SIGTERM)
    if context.subject == "hangs":
        time.sleep(60)
    if context.subject == "says_places":
        return judged(
            [f"see {context.root / 'logs' / 'a.log'}"], figures, {"home": str(Path.home() / "x.so")}
        )
    return judged([], figures)


CHECK = Check(
    name="watcher",
    proves="a process ends as it ends",
    run=run,
    subjects=lambda device: [
        Subject("absent", 1, "it is not here"),
        *(Subject(way, 1000 - place) for place, way in enumerate(WAYS)),
    ],
    usual_seconds=0.5,
)


def sleep(context: Context) -> Outcome:
    (context.root / "pid").write_text(str(os.getpid()))
    time.sleep(600)
    return judged([], {})


SLEEPER = Check(
    name="sleeper",
    proves="a process is ended",
    run=sleep,
    subjects=lambda device: [Subject("long", 2000)],
    usual_seconds=0.5,
    limit_seconds=2,
)
