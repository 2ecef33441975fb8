"""A full disk and a kill are what they are, whatever a library makes of them, and are tried again."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import pytest

from quantlab import outside
from quantlab.errors import TRANSIENT, CellFailure
from quantlab.outside import as_failure, disk_full, ended_from_outside


def _wrapped() -> CellFailure:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise CellFailure("unsupported", "GPTQModel: cannot save") from error
    except CellFailure as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        CellFailure(
            "unsupported", "llama.cpp cannot convert this model: OSError: [Errno 28] No space left on device"
        ),
        CellFailure("unsupported", "llama.cpp cannot quantize to Q8_0: basic_ios::clear: iostream error"),
        RuntimeError(
            'Error while serializing: I/O error: Os { code: 28, kind: StorageFull, message: "No space left on'
            ' device" }'
        ),
        OSError("4096 requested and 1024 written"),
        RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
        _wrapped(),
    ],
)
def test_a_full_disk_is_no_property_of_the_cell(error: Exception) -> None:
    failure = as_failure(error)
    assert failure and failure.kind == "disk_full" and failure.kind in TRANSIENT
    assert failure.reason.startswith("the disk was full: ") and failure.reason.endswith(
        "; the next run tries it again"
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, "No such file"),
        CellFailure("unsupported", "no such layer"),
        ValueError("shapes"),
    ],
)
def test_other_errors_are_not_of_the_disk(error: Exception) -> None:
    assert disk_full(error) is None


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        ((3, 3), "from outside (signal 9; the operating system counts no kill for want of memory)"),
        ((3, 4), "by the operating system (signal 9), for want of memory"),
        ((None, None), "by the operating system (signal 9), most likely for want of memory"),
    ],
)
def test_a_kill_is_told_from_one_for_want_of_memory(
    counted: tuple[int | None, int | None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "memory_kills", lambda: counted[1])
    failure = ended_from_outside(-signal.SIGKILL, counted[0], tmp_path)
    assert failure and failure.kind == "killed" and said in failure.reason


def test_a_crash_is_not_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(
        ended_from_outside(-number, 0, tmp_path) is None
        for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
    )
    assert ended_from_outside(1, 0, tmp_path) is None
    monkeypatch.setattr(outside, "nearly_full", lambda folder: True)
    failure = ended_from_outside(-signal.SIGBUS, 0, tmp_path)
    assert failure and failure.kind == "disk_full"
