"""Run a script in this process without network: `python -P -m quantlab.methods._gguf._confined SCRIPT
ARGUMENTS...`.

Guaranteed, on every system: a Python call of `socket` that would connect, bind, send to or look up another
machine raises PermissionError, for the process's whole life (an audit hook cannot be taken away), so that no
library downloads anything. On Linux, where the kernel lets this process make a network namespace of its own
(root, or unprivileged user namespaces), C code and child processes have no network either. Not
guaranteed: that files outside the model's folder cannot be read or written. That is why the folder that a
script is given holds no code (clean_copy.py)."""

from __future__ import annotations

import ctypes
import runpy
import sys
from pathlib import Path
from typing import Any

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET of sched.h."""
_ADDRESSED = ("socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg")
_REFUSED = (*_ADDRESSED, "socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname")


def cut_network() -> bool:
    """Leave the network behind; whether the kernel took it away, and not Python alone."""
    sys.addaudithook(_refuse)
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    return any(library.unshare(flags) == 0 for flags in (_NEW_NETWORK, _NEW_USER | _NEW_NETWORK))


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook; local sockets of the file system (AF_UNIX) have a path as their address."""
    if event not in _REFUSED:
        return
    address = arguments[1] if event in _ADDRESSED else None
    if not isinstance(address, str | bytes):
        raise PermissionError(f"no network here: {event} was refused")


if __name__ == "__main__":
    cut_network()
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
