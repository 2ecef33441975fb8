"""Processes that begin with the libraries imported: a server that has imported them, and nothing else, copies
itself for each.

A stage's own process spends most of its time with a tiny model on imports. The copy is as fresh as a new
interpreter: the server never loads a model nor a library that quantizes."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantlab import processes

_BEGIN = processes.run


def serve(path: Path) -> int:
    """Start the server on a socket's path in a copy of this process; its process number."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(16)
    pid = os.fork()
    if pid:
        listening.close()
        return pid
    processes.end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            os._exit(_handle(connection))
        connection.close()


def use(path: Path) -> None:
    """Let `processes.run` of this process, and of those that it starts, begin `python -m` at the server."""

    def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "-m" not in command or set(options) - {"env"}:
            return _BEGIN(command, **options)
        return subprocess.CompletedProcess(command, _ask(path, command, options.get("env", os.environ)))

    processes.run = run


def _ask(path: Path, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Have the server run the command with this process's output; its exit code."""
    job = {"argv": list(command), "env": dict(environment), "folder": str(Path.cwd()), "server": str(path)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        socket.send_fds(connection, [len(body := json.dumps(job).encode()).to_bytes(8, "big")], [1, 2])
        connection.sendall(body)
        return int(connection.makefile("r").readline() or -signal.SIGKILL)


def _handle(connection: socket.socket) -> int:
    """Copy this process for one command, end the copy where the asker ends, and send its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, outputs, *_ = socket.recv_fds(connection, 8, 2)
    job = json.loads(connection.makefile("rb").read(int.from_bytes(size, "big")))
    pid = os.fork()
    if pid == 0:
        connection.close()
        os._exit(_act(job, outputs))
    threading.Thread(target=_end_with, args=(connection, pid), daemon=True).start()
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return 0


def _end_with(connection: socket.socket, pid: int) -> None:
    """Kill a process when the other side of the connection is gone."""
    select.select([connection], [], [])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _act(job: Mapping[str, Any], outputs: Sequence[int]) -> int:
    """Run `python -m MODULE ARGUMENTS` here; its exit code."""
    processes.end_with_parent()
    os.setsid()
    for place, one in enumerate(outputs, start=1):
        os.dup2(one, place)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["folder"])
    use(Path(job["server"]))
    module = job["argv"].index("-m") + 1
    sys.argv = ["", *job["argv"][module + 1 :]]
    try:
        runpy.run_module(job["argv"][module], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return _flushed(end.code if isinstance(end.code, int) else 1)
    except BaseException:  # as the interpreter does: a traceback, and 1
        traceback.print_exc()
        return _flushed(1)
    return _flushed(0)


def _flushed(code: int) -> int:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError):
            stream.flush()
    return code


def stop(pid: int) -> None:
    """End the server."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
