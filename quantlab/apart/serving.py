"""Obey commands: a line of JSON each on standard input, answered by a line of JSON.

`{"do": NAME, "arrays": {name: path}, ...}` calls that method of the module's `Commands` with the arrays and
the rest as keywords; it returns values, or values and arrays. The answer is `{"values": ..., "arrays": ...}`,
`{"failure": {"kind", "reason"}}` for what can be expected to go wrong, or `{"bug": ...}` with a traceback in
the log. What libraries print goes to the log."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from quantlab.apart.arrays import put, take
from quantlab.outside import as_failure

_LONGEST = 300


def obey(commands: Any, line: str, folder: Path) -> dict[str, Any]:
    """Carry out one command. Its answer's arrays are files in the folder."""
    command: dict[str, Any] = json.loads(line)
    try:
        given = take(command.pop("arrays", {}))
        made = getattr(commands, command.pop("do"))(**given, **command)
        values, arrays = made if isinstance(made, tuple) else (made, {})
        return {"values": values or {}, "arrays": put(folder, "reply", arrays)}
    except Exception as error:  # a library may raise anything; the process stays, and the other side decides
        traceback.print_exc()
        failure = as_failure(error)
        if failure is None:
            return {"bug": f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}"}
        return {"failure": {"kind": failure.kind, "reason": failure.reason}}


def main(module: str, log: Path) -> None:
    """Obey the module's `Commands` until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(target, stream)
    commands = importlib.import_module(module).Commands()
    for line in sys.stdin:
        print(json.dumps(obey(commands, line, log.parent)), file=answers)
    os._exit(0)  # a library's threads must not keep a process that has nothing left to do
