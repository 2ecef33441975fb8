"""End processes together: a signal, or the death of the parent, ends the children and theirs too."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

GRACE_SECONDS = 4.0
"""From the request to end until SIGKILL: `docker stop` waits ten seconds for everything."""
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Ended(KeyboardInterrupt):
    """A signal that asks the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise Ended in the block for the first SIGINT, SIGTERM or SIGHUP; later ones do not disturb what then
    ends.

    A signal that is ignored (`nohup`) stays ignored. Outside the main thread signals are left as they are.
    """
    usual = (signal.SIG_DFL, signal.default_int_handler)
    signals = [signal.Signals[name] for name in SIGNALS if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signals}
    taken = [number for number in signals if before[number] in usual]

    def end(number: int, frame: FrameType | None) -> None:
        for one in taken:
            signal.signal(one, signal.SIG_IGN)
        raise Ended(number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the system send this process a signal when its parent ends, even of SIGKILL (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number))


def end_with_dvc() -> None:
    """The same for a stage that DVC runs, so that no stage outlives its pipeline; not for a command of a
    person's shell."""
    if "DVC_STAGE" in os.environ and "QUANTLAB_STAGE" not in os.environ:
        os.environ["QUANTLAB_STAGE"] = os.environ[
            "DVC_STAGE"
        ]  # a quantlab that a stage runs has another parent
        end_with_parent(signal.SIGTERM)
        if _is_orphan():  # it ended while this process began, too early for the system to tell
            raise Ended(signal.SIGTERM)


def _is_orphan() -> bool:
    """Whether the process that looks after orphans is the parent now, and is not DVC itself (the first one of
    a container)."""
    import psutil

    try:
        parent = psutil.Process(os.getppid())
        return (parent.pid == 1 or parent.name() == "systemd") and "dvc" not in " ".join(parent.cmdline())
    except psutil.Error:
        return False


def run(
    command: Sequence[str], timeout: float | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of a child that ends, with all that it started, when this process is interrupted or
    killed, or after `timeout` seconds. Raises subprocess.TimeoutExpired then."""
    with subprocess.Popen(command, preexec_fn=child_begins(), **options) as process:
        try:
            said, error = process.communicate(timeout=timeout)
        except BaseException:  # also an interrupt: no child may outlive it; raised again
            end_tree(process.pid)
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, error)


def child_begins() -> Callable[[], None] | None:
    """What a new child does first, for `preexec_fn`: it asks to end with this process."""
    if _LIBC is None:
        return None
    prctl, number = _LIBC.prctl, int(signal.SIGKILL)
    return lambda: prctl(_PR_SET_PDEATHSIG, number)


def end_tree(pid: int) -> None:
    """End a process and all that it started: asked first, the parent before its children, then killed."""
    import psutil

    try:
        top = psutil.Process(pid)
        tree = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for number in (signal.SIGTERM, signal.SIGCONT):
        for process in tree:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
    _, left = psutil.wait_procs(tree, timeout=GRACE_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=GRACE_SECONDS)
