"""Write prompts of about a given number of tokens, each different from its first word on, also from other
runs.

Servers cache the beginning of a prompt, so a prompt that they saw before has a shorter time to first token
than a new one. The words are drawn at random from a short list, so the text means nothing."""

from __future__ import annotations

import random

_TEXT = (
    "time year people way day man thing woman life child world school state family student group country"
    " problem hand part place case week company system program question work government number night point"
    " home water room mother area money story fact month lot right study book eye job word business issue"
    " side kind head house service friend father power hour game line end member law car city community name"
    " president team minute idea kid body information back parent face others level office door health person"
    " art war history party result change morning reason research girl guy moment air teacher force education"
    " foot boy age policy process music market sense nation plan college interest death experience effect use"
    " class control field development role effort rate heart drug show leader light voice wife police mind"
    " price report decision"
)
WORDS = tuple(_TEXT.split())


_FEWEST, _MOST = 0.5, 12.0
"""Tokens a word, of any tokenizer: the words have 3 to 11 letters and a space."""
_HEAD_WORDS = 4
"""1.6 × 10^9 beginnings, which two runs or two prompts have alike by chance alone."""


def prompt(words: int, index: int, seed: int = 0, nonce: str = "") -> str:
    """The prompt of an index: the same words for the same index and seed, but for the first four, which the
    nonce decides as well."""
    words = max(1, words)
    head, rest = random.Random(f"{nonce}/{seed}/{index}"), random.Random(f"{seed}/{index}")
    drawn = [head.choice(WORDS) for _ in range(min(_HEAD_WORDS, words))] + [
        rest.choice(WORDS) for _ in range(words - _HEAD_WORDS)
    ]
    return " ".join(drawn)


def probe_words(tokens: int) -> tuple[int, int]:
    """Two lengths in words to be counted, both surely shorter than what is asked for."""
    return max(4, tokens // 8), max(8, tokens // 2)


def words_for(tokens: int, counted: tuple[tuple[int, int], tuple[int, int]]) -> int:
    """How many words make so many tokens, by a line through two (words, tokens) that the server counted.

    The line's height at 0 is what a chat template and a begin token add.
    """
    (words_a, tokens_a), (words_b, tokens_b) = counted
    slope = (tokens_b - tokens_a) / (words_b - words_a)
    if not _FEWEST <= slope <= _MOST:  # the server counts only what its cache did not have, or anything
        return tokens
    return max(1, round((tokens - (tokens_a - slope * words_a)) / slope))
