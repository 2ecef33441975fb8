"""Collect llama.cpp's messages while it works, because its functions return no reasons.

They also go to standard error, as they would by themselves; the stages send that into a log file.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quantlab.environments.install import bring
from quantlab.errors import CellFailure
from quantlab.inert import plain

_DEBUG, _ERROR, _CONTINUED = 1, 4, 5  # ggml.h; llama-cpp-python lists older values


class Messages:
    """The lines of one piece of work, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._errors: list[int] = []

    def add(self, level: int, text: str) -> None:
        if level == _CONTINUED and self.lines:
            self.lines[-1] += text
            return
        self.lines.append(text)
        if level == _ERROR:
            self._errors.append(len(self.lines) - 1)

    def reason(self, default: str, last: bool = False) -> str:
        """The first (or the last) error, without the name of the function that says it."""
        errors = [self.lines[i].strip() for i in self._errors if re.search(r"\w", self.lines[i])]
        if not errors:
            return default
        return re.sub(r"^\w+: (error loading model: |failed to quantize: )?", "", errors[-1 if last else 0])[
            :300
        ]

    def mebibytes(self, what: str) -> int:
        """Bytes that lines like `CPU KV buffer size = 11.25 MiB` add up to; `what` is a regular expression.

        llama.cpp rounds each to a hundredth of a MiB.
        """
        sizes = re.findall(rf"{what} size = +([0-9.]+) MiB", "\n".join(self.lines))
        return round(sum(float(value) for value in sizes) * 2**20)

    def by_device(self, what: str) -> dict[str, int]:
        """The same by the device that the lines name: `cpu` and `cuda:n`."""
        sizes: dict[str, int] = {}
        for name, value in re.findall(rf"(\w+?) {what} size = +([0-9.]+) MiB", "\n".join(self.lines)):
            gpu = re.fullmatch(r"CUDA(\d+)", name)
            place = f"cuda:{gpu[1]}" if gpu else "cpu"
            sizes[place] = sizes.get(place, 0) + round(float(value) * 2**20)
        return sizes


_open: list[Messages] = []


@contextmanager
def messages() -> Iterator[Messages]:
    """Collect what llama.cpp says during the block."""
    _install()
    collected = Messages()
    _open.append(collected)
    try:
        yield collected
    finally:
        _open.remove(collected)


@functools.cache
def llama() -> Any:
    """llama-cpp-python's low-level module. Raises CellFailure where it is missing or does not load."""
    try:
        from llama_cpp import llama_cpp
    except ModuleNotFoundError as error:
        if error.name != "llama_cpp":
            raise
        raise CellFailure(
            "not_installed", f"llama-cpp-python is not installed: {bring('llama-cpp-python')}"
        ) from None
    except (RuntimeError, OSError) as error:
        raise CellFailure(
            "not_installed", f"llama-cpp-python is installed but does not load: {error}"
        ) from error
    llama_cpp.llama_backend_init()
    return llama_cpp


@functools.cache
def _install() -> Any:
    """Register the callback once; the cache keeps it alive, llama.cpp holds only its address."""

    def say(level: int, text: bytes, _: Any) -> None:
        line = text.decode("utf-8", "replace")
        for collected in _open:
            collected.add(level, line)
        if level != _DEBUG:
            sys.stderr.write(plain(line))

    callback = llama().llama_log_callback(say)
    llama().llama_log_set(callback, None)
    return callback
