"""Print docs/claims.md: `cd docs && python -m claims > claims.md`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from claims import Claim, models, money, setups, sizes

HEAD = """# Well-known claims, checked by the planner

What is said of open models in articles and comparisons, beside what `quantlab plan`, `quantlab cost` and the catalogue
say. This page is made by running them (`cd docs && python -m claims > claims.md`), and a test keeps it true.

A figure is `right` within 2 % of the planner's, `near` within 10 % and `wrong` beyond; sums of money are right to the
dollar or wrong. `right in part` is what holds for some of the figures or under a condition that the claim leaves out.
`doubted` is a price for which the catalogue names sources that say otherwise, `not checked` what neither the planner nor
the catalogue can know. GB are 10⁹ bytes and GiB 2³⁰; memory is that of one
sequence of 8,192 tokens in bfloat16, with the lowest and the highest overhead per GPU that is quoted. A fit that is
computed so is no measurement.
"""


def sections() -> dict[str, list[Claim]]:
    """Every claim by its section."""
    return {
        "How the models are built": list(models.architectures()),
        "Parameters": list(models.sizes()),
        "Contexts": list(models.contexts()),
        "Licences": list(models.licences()),
        "Names and scores": list(models.names()),
        "Gigabytes": list(sizes.gigabytes_at_a_width()),
        "What quantization saves": list(sizes.savings()),
        "Which GPUs hold what": list(setups.setups()),
        "The worked example": list(money.worked_example()),
        "Prices": list(money.prices()),
    }


def document() -> str:
    """The page."""
    found = sections()
    counts = Counter(claim.verdict for claims in found.values() for claim in claims)
    total = (
        f"{sum(counts.values())} claims:"
        f" {', '.join(f'{count} {verdict}' for verdict, count in sorted(counts.items()))}."
    )
    return "\n".join([HEAD, total, "", *(_section(title, claims) for title, claims in found.items())])


def _section(title: str, claims: Iterable[Claim]) -> str:
    lines = [
        f"## {title}",
        "",
        "| what is said | what the planner says | verdict | how |",
        "|:---|:---|:---|:---|",
    ]
    lines += [f"| {' | '.join(_plain(cell) for cell in claim)} |" for claim in claims]
    return "\n".join([*lines, ""])


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|")


if __name__ == "__main__":
    print(document(), end="")
