"""Checks run by value, each in a process that ends in time; what is done is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantlab.errors import QuantlabError
from quantlab.hardware.device import Device
from quantlab.records.verification import CheckRecord, Outcome, Verification
from quantlab.verification import checks, running, state
from quantlab.verification.running import chosen, due, verify


def results(found: Verification) -> dict[str, Outcome]:
    return {result.subject: result.outcome for result in found.results}


def times(folder: Path, subject: str) -> int:
    (work,) = folder.glob("*.work")
    return len((work / f"ran-{subject}").read_text().split())


def test_a_check_of_another_package_is_found_and_the_most_valuable_is_first(
    watcher: str, cpu: Device
) -> None:
    assert watcher in checks.names()
    ranks = [one.subject.rank for one in due(cpu)]
    assert ranks == sorted(ranks)
    assert due(cpu)[0].subject.name == "absent"
    named = chosen(due(cpu), ["watcher:pass", "watcher:comp"])
    assert [one.subject.name for one in named] == ["complains", "passes"]


@pytest.mark.parametrize(
    ("name", "said"), [("wacher", "unknown check 'wacher': known are"), ("watcher:x", "begins so")]
)
def test_an_unknown_name_is_refused(watcher: str, cpu: Device, name: str, said: str) -> None:
    with pytest.raises(QuantlabError, match=said):
        chosen(due(cpu), [name])


@pytest.mark.parametrize(
    ("subject", "status", "reason"),
    [
        ("passes", "passed", ""),
        ("complains", "failed", "it is not so"),
        ("refuses", "failed", "unsupported: the library refuses it"),
        ("lacks", "not_applicable", "a library is missing"),
        ("misused", "failed", "nobody can use it so"),
        ("raises", "failed", "crashed: RuntimeError: broken in watcher.py"),
        ("dies", "failed", "its process died of SIGSEGV"),
        ("is_ended", "not_run", "its process was ended from outside (SIGTERM); the next run tries it again"),
    ],
)
def test_however_a_check_ends_it_has_an_outcome(
    watcher: str, cpu: Device, tmp_path: Path, subject: str, status: str, reason: str
) -> None:
    found = verify(tmp_path, cpu, 1, [f"watcher:{subject}"]).verification
    outcome = results(found)[subject]
    assert outcome.status == status
    assert outcome.reason.startswith(reason) and bool(outcome.reason) == (status != "passed")


def test_a_check_that_hangs_is_ended_at_its_own_limit(watcher: str, cpu: Device, tmp_path: Path) -> None:
    found = verify(tmp_path, cpu, 1, ["sleeper"]).verification
    assert results(found)["long"].status == "failed"
    assert "more than its 2 s" in results(found)["long"].reason
    assert 2 < found.results[0].seconds < 30


def test_a_check_that_the_time_ends_is_not_run_and_begun_again_where_it_fits(
    watcher: str, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = running._in_a_process
    monkeypatch.setattr(running, "_in_a_process", lambda *given: whole(*given[:3], 1.5))
    found = verify(tmp_path, cpu, 1, ["watcher:hangs"]).verification
    assert results(found)["hangs"] == Outcome(
        status="not_run", reason="time: ended after 2 s, all that were left"
    )
    # it took 1.5 seconds at least, so it is not begun where one is left
    (one,) = chosen(due(cpu), ["watcher:hangs"])
    assert running._not_begun(one, found.results[0].seconds, 1.0) is not None
    assert running._not_begun(one, found.results[0].seconds, 100.0) is None


def test_what_would_not_fit_is_not_run(watcher: str, cpu: Device, tmp_path: Path) -> None:
    found = verify(tmp_path, cpu, 0.1 / 60, ["watcher:passes"]).verification
    assert results(found)["passes"].status == "not_run"
    assert not list(tmp_path.glob("*.work/ran-*"))


def test_what_is_known_not_to_apply_starts_no_process(watcher: str, cpu: Device, tmp_path: Path) -> None:
    found = verify(tmp_path, cpu, 1, ["watcher:absent"]).verification
    assert results(found)["absent"] == Outcome(status="not_applicable", reason="it is not here")
    assert not list(tmp_path.glob("*.work/logs"))


def test_what_was_done_with_this_code_is_not_done_again(
    watcher: str, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, bool]] = []

    def tell(result: CheckRecord, kept: bool) -> None:
        told.append((result.subject, kept))

    wanted = ["watcher:passes", "watcher:complains"]
    verify(tmp_path, cpu, 1, wanted[:1], told=tell)
    verify(tmp_path, cpu, 1, wanted, told=tell)
    assert told == [("passes", False), ("complains", False), ("passes", True)]
    assert times(tmp_path, "passes") == 1
    verify(tmp_path, cpu, 1, wanted[:1], again=True)
    assert times(tmp_path, "passes") == 2
    monkeypatch.setattr(state, "key_of", lambda device: "of other libraries")
    found = verify(tmp_path, cpu, 1, wanted[:1]).verification
    assert times(tmp_path, "passes") == 1, "the workspace of other libraries is made anew"
    assert set(results(found)) == {"passes"}, "what other libraries gave is not shown"


def test_a_run_that_was_killed_goes_on_where_it_stopped(
    watcher: str, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = running._in_a_process

    def killed(one: running.Due, *rest: object) -> Outcome:
        if one.subject.name == "complains":
            raise KeyboardInterrupt
        return whole(one, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(running, "_in_a_process", killed)
    wanted = ["watcher:lacks", "watcher:complains"]  # in the order of their ranks
    with pytest.raises(KeyboardInterrupt):
        verify(tmp_path, cpu, 1, wanted)
    (file,) = tmp_path.glob("*.json")
    assert [r["subject"] for r in json.loads(file.read_text())["results"]] == ["lacks"]
    assert "watcher lacks" in file.with_suffix(".md").read_text()
    monkeypatch.undo()


def test_doing_it_again_in_too_short_a_time_loses_nothing(watcher: str, cpu: Device, tmp_path: Path) -> None:
    verify(tmp_path, cpu, 1, ["watcher:passes"])
    found = verify(tmp_path, cpu, 0.01 / 60, ["watcher:passes"], again=True).verification
    assert results(found)["passes"].status == "passed"


def test_neither_folders_nor_the_host_are_in_what_is_kept(watcher: str, cpu: Device, tmp_path: Path) -> None:
    import platform

    done = verify(tmp_path, cpu, 1, ["watcher:says_places", "watcher:raises"])
    for file in (done.json_file, done.page_file):
        text = file.read_text()
        assert "see a.log" in text or "broken in watcher.py" in text
        assert not any(place in text for place in (str(tmp_path), str(Path.home()) + "/", "/tests/"))
        assert len(platform.node()) <= 2 or platform.node() not in text.split()


def test_the_workspace_goes_when_nothing_is_left_and_the_logs_stay(
    watcher: str, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(tmp_path, cpu, 1, ["watcher:passes"])
    (work,) = tmp_path.glob("*.work")
    (work / "made").mkdir()
    verify(tmp_path, cpu, 1, ["watcher:passes"])
    assert (work / "made").exists(), "other checks have not been done yet"
    monkeypatch.setattr(running, "due", _only_passes)
    verify(tmp_path, cpu, 1)
    assert not (work / "made").exists() and (work / "logs").is_dir()


def _only_passes(device: Device) -> list[running.Due]:
    check = checks.load("watcher")
    return [running.Due(check, one) for one in check.subjects(device) if one.name == "passes"]
