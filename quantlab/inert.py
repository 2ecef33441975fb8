"""Make texts from outside, such as a record's or a server's, harmless where they are shown.

A terminal acts on control characters and turns text around at bidirectional ones; markdown holds HTML, images
and links; matplotlib reads `$` as mathematics. What would act is shown instead of acted on, and nothing is
left out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # those that turn the direction of text
    "\u200b\u2028\u2029\u2060-\u2065\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # unseen
    "\ud800-\udfff]"  # halves of a pair, which no encoding takes
)
_CODE = re.compile(r"(?<![`\\])(`+)(?!`).+?(?<!`)\1(?!`)")
_SIGN = re.compile(r"\\(?=[!-/:-@\[-`{-~]|$)|&(?=#|\w+;)|<|\||`|(?<=!)\[|(?<=\])[(\[:]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", "`": "&#96;"}
_BLOCK = re.compile(
    r"^[ \t]*\d{1,9}(?=[.)](?:\s|$))|^[ \t]*(?=#{1,6}(?:\s|$)|[-+*](?:\s|$)|>|~~~|=+\s*$|--+\s*$)",
    re.MULTILINE,
)
_SIGNS = "\\`*_~[]<>#|&"


class Markdown(str):
    """Text that is markdown already: what it holds of others was made inert."""

    __slots__ = ()


def plain(text: str) -> str:
    """For a terminal: control characters and those that turn text around are shown as their escapes
    (`\\x1b`)."""
    return _ACTING.sub(lambda match: ascii(match[0])[1:-1], text.replace("\r\n", "\n"))


def plain_json(text: str) -> str:
    """JSON text that means the same and holds no such character itself."""
    return _ACTING.sub(lambda match: json.dumps(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """The same on one line."""
    return plain(" ".join(text.split()))


def markdown(text: str) -> Markdown:
    """For markdown, on one line: emphasis and code stay, while HTML, images, links, table cells and blocks
    cannot begin."""
    line = plain(re.sub(r"\s*[\r\n]\s*", " ", text))
    parts, end = [], 0
    for code in _CODE.finditer(line):
        # Signs count as themselves in code, so code that would need one escaped is shown as text.
        kept = code[0] if _SIGN.sub("", code[0].strip("`")) == code[0].strip("`") else _escaped(code[0])
        parts += [_escaped(line[end : code.start()]), kept]
        end = code.end()
    return Markdown(_unblocked("".join([*parts, _escaped(line[end:])])))


def _escaped(text: str) -> str:
    return _SIGN.sub(lambda match: _ENTITIES.get(match[0]) or f"\\{match[0]}", text)


def literal(text: str) -> str:
    """For markdown, with every sign taken literally, emphasis too; lines stay."""
    return _unblocked("".join(f"\\{sign}" if sign in _SIGNS else sign for sign in plain(text)))


def _unblocked(text: str) -> str:
    return _BLOCK.sub(lambda match: f"{match[0]}\\", text)


def drawn(text: str) -> str:
    """For a plot: without mathematics."""
    return plain(text).replace("$", "\\$")


def console(**options: Any) -> Console:
    """A rich console that prints every text as `plain` has it and takes no markup from it."""
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Inert(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(plain(segment.text), segment.style)

    return Inert(**{"highlight": False, "markup": False, **options})
