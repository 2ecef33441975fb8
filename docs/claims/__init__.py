"""Well-known claims about open models, checked by running the planner: `cd docs && python -m claims >
claims.md`.

| file | what it checks |
|---|---|
| figures.py | what the planner and the catalogue say of a model, each in one call |
| models.py | architectures, parameters, contexts, licences, names |
| sizes.py | gigabytes at a width, savings |
| setups.py | which GPUs hold what |
| money.py | prices, the worked example of an article |
| __main__.py | the document |

A figure is `right` within 2 % of the planner's, `near` within 10 %, `wrong` beyond. A claim that nothing here
can check says so."""

from __future__ import annotations

from typing import NamedTuple

RIGHT, NEAR, WRONG, PARTLY, DOUBTED, UNCHECKED = (
    "right",
    "near",
    "wrong",
    "right in part",
    "doubted",
    "not checked",
)
_RIGHT_WITHIN, _NEAR_WITHIN = 0.02, 0.10


class Claim(NamedTuple):
    """One claim and what comes of it."""

    said: str
    found: str
    """What the planner or the catalogue says."""
    verdict: str
    how: str
    """The command or the expression that gives the figures."""


def agree(said: float, found: float) -> str:
    """The verdict on a figure."""
    off = abs(said / found - 1)
    return RIGHT if off <= _RIGHT_WITHIN else NEAR if off <= _NEAR_WITHIN else WRONG


def together(*verdicts: str) -> str:
    """The verdict on several figures said in one breath: the worst, or `right in part` where they differ by
    more than nearness."""
    kinds = set(verdicts)
    if WRONG in kinds:
        return WRONG if kinds == {WRONG} else PARTLY
    return NEAR if NEAR in kinds else RIGHT
