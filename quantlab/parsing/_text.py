"""Read text files of bounded size, and check a file before its content is read."""

from __future__ import annotations

import stat
from pathlib import Path

from quantlab.errors import QuantlabError

TEXT_BYTES = 64 * 2**20
"""No file that people or quantlab write as text is larger; the index of the largest releases has 10 MB."""
DEEPEST = 64
"""Levels of mappings and lists in one another; records and configs have fewer than ten."""
LONGEST_NUMBER = 40
"""Digits and signs of a number: tokenizers' `model_max_length` has 31."""


def read_bytes(path: Path, most_bytes: int = TEXT_BYTES) -> bytes:
    """A file's bytes. Raises QuantlabError for anything but a file of at most so many bytes."""
    try:
        # looked at before it is opened: opening a pipe waits for whoever writes into it
        if not stat.S_ISREG(kind := path.stat().st_mode):
            what = "a folder" if stat.S_ISDIR(kind) else "a pipe or a device"
            raise QuantlabError(f"{path} is {what}, where a file belongs: name the file itself")
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise QuantlabError(f"there is no file {path}: name one that exists") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or str(error)
        raise QuantlabError(f"{_short(path)} cannot be read: {why}") from None
    if len(data) > most_bytes:
        raise QuantlabError(f"{path} is too large: more than {most_bytes:,} bytes, which no such file has")
    return data


def read_text(path: Path, most_bytes: int = TEXT_BYTES) -> str:
    """A UTF-8 file's text, a byte order mark left out. Raises QuantlabError, also for what is not UTF-8."""
    return decode(read_bytes(path, most_bytes), str(path))


def decode(raw: bytes, origin: str) -> str:
    """Bytes as UTF-8. Raises QuantlabError with the line of the first byte that is none."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise refused(
            origin, line, f"byte 0x{raw[error.start]:02x} is not UTF-8", "save it as UTF-8"
        ) from None


def refused(origin: str, line: int | None, why: str, mend: str = "") -> QuantlabError:
    """The error for one place of a file."""
    where = f"{origin}, line {line}" if line is not None else origin
    return QuantlabError(f"{where}: {why}" + (f": {mend}" if mend else ""))


def trouble_with_text(text: str) -> str | None:
    """What is wrong with a text that neither a name nor a file can hold; None where nothing is."""
    if "\0" in text:
        return "a text with a NUL character"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "half of a surrogate pair (\\ud800 to \\udfff)"
    return None


def as_path(text: str) -> Path:
    """A path that the user wrote, `~` expanded. Raises QuantlabError for one that no file system can hold."""
    whole = text.encode(errors="replace")
    if "\0" in text or len(whole) > 4095 or any(len(part) > 255 for part in whole.split(b"/")):
        raise QuantlabError(
            f"{text[:60]!r}... names no file or folder: it is too long ({len(whole):,} bytes), or has a NUL"
            " in it"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise QuantlabError(f"{text} names no folder: {error}; write the whole path") from None


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:100]}...{text[-60:]}"
