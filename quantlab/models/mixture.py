"""Mix the calibration text from several texts, and keep it apart from the evaluation text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.errors import QuantlabError
from quantlab.formats.json_file import parse_json
from quantlab.models.text import Windows, cut, passages_of
from quantlab.models.tokenizer import check_template
from quantlab.parsing import read_text
from quantlab.recipe import CalibrationSpec, MixedSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHARED_TOKENS = 16
"""A run of so many tokens in both texts is the same text: about a dozen words."""
SHARED_SHARE = 0.01
"""Of the evaluation text's runs; names, dates and quotations alone stay far below."""
_TEXT_BYTES = 2 * 2**30


def calibration_windows(spec: CalibrationSpec, tokenizer: Any, base: Path) -> tuple[Windows, ...]:
    """The windows of each text of the mixture, by its share.

    Raises QuantlabError where a text cannot be read or is too short, or the tokenizer lacks the chat template
    that is asked for."""
    counts = _counts([part.share for part in spec.parts], spec.windows)
    parts = []
    for part, count in zip(spec.parts, counts, strict=True):
        texts, provenance = _texts(part, tokenizer, base)
        token_ids = cut(texts, "calibration", count, spec.length, tokenizer)
        share = f"{count} of {spec.windows} windows: " if spec.mix else ""
        parts.append(Windows(token_ids, f"{share}{provenance}"))
    return tuple(parts)


def _counts(shares: Sequence[float], windows: int) -> list[int]:
    """Whole windows of each share that sum up to all: what is left goes to the largest remainders. Raises
    QuantlabError where a share comes to none."""
    exact = [share * windows / sum(shares) for share in shares]
    counts = [math.floor(number) for number in exact]
    most = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for i in most[: windows - sum(counts)]:
        counts[i] += 1
    if 0 in counts:
        raise QuantlabError(
            f"calibration.mix: a share of {shares[counts.index(0)]:g} of {windows} windows is less than one:"
            " ask for more windows, or leave that text out"
        )
    return counts


def interleaved(parts: Sequence[Windows]) -> Windows:
    """All windows in an order in which every beginning has the shares of the whole: methods may take the
    first few."""
    import numpy as np

    counts = [len(part.token_ids) for part in parts]
    places = sorted(((k + 0.5) / count, i, k) for i, count in enumerate(counts) for k in range(count))
    rows = [parts[i].token_ids[k] for _, i, k in places]
    return Windows(np.stack(rows), "; ".join(part.provenance for part in parts))


def _texts(part: MixedSpec, tokenizer: Any, base: Path) -> tuple[Iterator[str], str]:
    """The texts to be joined, and where they come from."""
    if part.text.endswith(".jsonl"):
        messages, provenance = _lines(base / part.text), part.text
    else:
        passages, provenance = passages_of(part.text, "calibration", base)
        pieces = [p for text in passages for p in (text.split("\n\n") if part.chat_template else [text])]
        messages = [[{"role": "user", "content": piece}] for piece in pieces if piece.strip()]
    if not part.chat_template:
        return ("\n".join(m["content"] for m in talk) + "\n\n" for talk in messages), provenance
    check_template(tokenizer, "the calibration text's model")
    rendered = (str(tokenizer.apply_chat_template(talk, tokenize=False)) for talk in messages)
    return rendered, f"{provenance}, through the chat template"


def _lines(path: Path) -> list[list[dict[str, str]]]:
    """The talks of a file of JSON lines. Raises QuantlabError where a line is not one."""
    talks = []
    for number, line in enumerate(read_text(path, _TEXT_BYTES).splitlines(), 1):
        if line.strip():
            talks.append(_talk(line, f"{path}, line {number}"))
    return talks


def _talk(line: str, where: str) -> list[dict[str, str]]:
    try:
        said = parse_json(line.encode())
        if "messages" not in said:
            return [{"role": "user", "content": str(said["text"])}]
        return [{"role": str(m["role"]), "content": str(m["content"])} for m in said["messages"]]
    except (ValueError, KeyError, TypeError) as error:
        raise QuantlabError(
            f"{where}: write a JSON object with `text`, or with `messages` of `role` and `content`"
        ) from error


def require_apart(calibration: Sequence[Windows], evaluation: Windows) -> None:
    """Raise QuantlabError where the evaluation text stands in a calibration text: a method that has seen it
    looks better there than it is."""
    import numpy as np

    length = min(SHARED_TOKENS, *(len(part.token_ids[0]) - 1 for part in (*calibration, evaluation)))
    asked = np.unique(_runs(evaluation.token_ids, length))
    for part in calibration:
        shared = float(np.isin(asked, _runs(part.token_ids, length)).mean()) if len(asked) else 0.0
        if shared > SHARED_SHARE:
            raise QuantlabError(
                f"{shared:.0%} of the evaluation text's runs of {length} tokens stand in the"
                f" calibration text too ({part.provenance}): a method that has seen them looks better than it"
                " is; name another text for one of the two"
            )


def _runs(token_ids: NDArray[np.int64], length: int) -> NDArray[np.uint64]:
    """A hash of every run of tokens within a window but its first, which may be BOS."""
    import numpy as np

    runs = np.lib.stride_tricks.sliding_window_view(token_ids[:, 1:].astype(np.uint64), length, axis=1)
    hashes = np.zeros(runs.shape[:2], dtype=np.uint64)
    for place in range(length):  # a polynomial modulo 2^64
        hashes = hashes * np.uint64(6364136223846793005) + runs[..., place] + np.uint64(1)
    return hashes.reshape(-1)
