"""Find the files that a GGUF model is split into: llama.cpp names them NAME-00001-of-00003.gguf."""

from __future__ import annotations

import re
from pathlib import Path

from quantlab.errors import QuantlabError

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def part_names(name: str) -> tuple[str, ...]:
    """The names of all parts, by the name of one of them; the name itself where it is of no part."""
    split = _NAME.fullmatch(name)
    if not split:
        return (name,)
    stem, count = split["stem"], int(split["count"])
    return tuple(f"{stem}-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1))


def parts_of(path: Path) -> tuple[Path, ...]:
    """Every file of the model that a GGUF file begins: the file itself where it is whole.

    Raises QuantlabError where a part is missing, or another part than the first is named."""
    split = _NAME.fullmatch(path.name)
    if not split:
        return (path,)
    parts = tuple(path.with_name(name) for name in part_names(path.name))
    count = len(parts)
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise QuantlabError(
            f"{path} is one of {count} parts, and {missing[0]} is not beside it: download every part into one"
            " folder"
        )
    if int(split["number"]) != 1:
        raise QuantlabError(
            f"{path} is part {int(split['number'])} of {count}: name the first, {parts[0].name}"
        )
    return parts
