"""Run checks one after the other, the most valuable first, each in a process of its own that is ended in
time."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from quantlab import processes
from quantlab.errors import QuantlabError, unknown
from quantlab.files import write_text
from quantlab.hardware.device import Device
from quantlab.outside import memory_kills
from quantlab.records.verification import CheckRecord, Outcome, Verification
from quantlab.verification import checks
from quantlab.verification.contract import Check, Subject, not_applicable
from quantlab.verification.ending import ending_of
from quantlab.verification.page import page
from quantlab.verification.state import State, slug_of

_KEPT = "logs"
_KEY = ".key"
Told = Callable[[CheckRecord, bool], None]


class Due(NamedTuple):
    """A check of one subject."""

    check: Check
    subject: Subject

    @property
    def name(self) -> tuple[str, str]:
        """As its record is named."""
        return self.check.name, self.subject.name


class Verified(NamedTuple):
    """What came of a run."""

    verification: Verification
    json_file: Path
    page_file: Path


def due(device: Device) -> list[Due]:
    """Every check of every subject, the most valuable first."""
    every = [
        Due(check, subject)
        for check in map(checks.load, checks.names())
        for subject in check.subjects(device)
    ]
    return sorted(every, key=lambda one: one.subject.rank)


def chosen(every: Sequence[Due], only: Sequence[str]) -> list[Due]:
    """Those that are named: by their check (`engine`), or by how their subjects begin (`variant:wide/`); all
    where nothing is named.

    Raises QuantlabError for a name that there is not."""
    for name in only:
        if name.partition(":")[0] not in checks.names():
            raise unknown("check", name.partition(":")[0], checks.names())
        if not any(_named(one, name) for one in every):
            raise QuantlabError(f"no subject of that check on this device begins so: {name}")
    return [one for one in every if not only or any(_named(one, name) for name in only)]


def _named(one: Due, name: str) -> bool:
    check, _, subject = name.partition(":")
    return one.check.name == check and one.subject.name.startswith(subject)


def verify(
    folder: Path,
    device: Device,
    minutes: float,
    only: Sequence[str] = (),
    again: bool = False,
    told: Told = lambda result, kept: None,
) -> Verified:
    """Do the checks that are due within the time, and write `<device>.json` and `<device>.md` into the
    folder.

    `told` hears of each result, and whether it is one that was kept. Raises QuantlabError."""
    ends = time.monotonic() + 60 * minutes
    slug = slug_of(device)
    every, state = due(device), State(folder / f"{slug}.json", device)
    wanted = chosen(every, only)
    state.keep_only([one.name for one in every])
    work = _work_folder(folder / f"{slug}.work", state.key)
    page_file = folder / f"{slug}.md"
    for one in wanted:
        before = state.done(*one.name)
        result = before if before and not again else _do(one, device, work, ends, state)
        if before and result.outcome.status == "not_run":
            result = before
        if result is not before:
            state.put(result)
            write_text(page_file, page(state.verification()))
        told(result, result is before)
    if all(state.done(*one.name) for one in every):
        _tidy(work)
    write_text(page_file, page(state.verification()))
    return Verified(state.verification(), state.file, page_file)


def _do(one: Due, device: Device, work: Path, ends: float, state: State) -> CheckRecord:
    """Do the check, where it applies and fits into the time that is left."""
    began = time.monotonic()
    before = state.seconds_before(*one.name)
    outcome = _not_begun(one, before, ends - began)
    seconds = before
    if outcome is None:
        outcome = _in_a_process(one, device, work, ends - began)
        seconds = time.monotonic() - began
    return CheckRecord(
        check=one.check.name,
        subject=one.subject.name,
        key=state.key,
        outcome=outcome,
        seconds=seconds,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _not_begun(one: Due, before: float, left: float) -> Outcome | None:
    """Why the check is not begun; None where it is. `before` is how long it took last time."""
    if one.subject.why_not:
        return not_applicable(one.subject.why_not)
    needed = min(max(one.check.usual_seconds, before), one.check.limit_seconds)
    if left >= needed:
        return None
    return Outcome(
        status="not_run", reason=f"time: it takes about {needed:.0f} s, {max(left, 0):.0f} s were left"
    )


def _in_a_process(one: Due, device: Device, work: Path, left: float) -> Outcome:
    """Run the check in a child and read what it left; it is ended at its own limit or the run's."""
    seconds = min(one.check.limit_seconds, left)
    log = work / "logs" / f"{one.check.name}-{one.subject.name.replace('/', '-') or 'all'}.log"
    said = work / "outcome.json"
    said.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    job = {"check": one.check.name, "subject": one.subject.name, "device": device.device, "seconds": seconds}
    job |= {"root": str(work), "said": str(said)}
    command = [sys.executable, "-P", "-m", "quantlab.verification", json.dumps(job)]
    kills = memory_kills()
    with log.open("w", encoding="utf-8") as file:
        try:
            code = processes.run(command, timeout=seconds, stdout=file, stderr=file).returncode
        except subprocess.TimeoutExpired:
            if seconds < one.check.limit_seconds:
                return Outcome(
                    status="not_run", reason=f"time: ended after {seconds:.0f} s, all that were left"
                )
            return Outcome(status="failed", reason=f"it took more than its {seconds:.0f} s and was ended")
    return ending_of(code, said, log, kills)


def _work_folder(work: Path, key: str) -> Path:
    """The checks' workspace; one of other code or libraries is made anew."""
    known = work / _KEY
    if work.exists() and (not known.exists() or known.read_text(encoding="utf-8") != key):
        shutil.rmtree(work)
    write_text(known, key)
    return work


def _tidy(work: Path) -> None:
    """Remove models and checkpoints when nothing is left to be done; the logs stay."""
    for path in work.iterdir():
        if path.is_dir() and path.name != _KEPT:
            shutil.rmtree(path)
