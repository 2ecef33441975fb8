"""Find the variants measured against another reference: divergences from different references are never
compared."""

from __future__ import annotations

from collections import Counter

from quantlab.comparison.load import BASELINE, ModelRecords


def against_another(records: ModelRecords) -> dict[str, str]:
    """By variant, why its divergence is not compared: its reference is not the one of the baseline, or of
    most."""
    named = {
        slug: (v.divergence.reference_sha256, v.divergence.reference_dtype)
        for slug, v in records.variants.items()
        if v.divergence and v.divergence.kl_divergence_nats and not v.divergence.failure
    }
    if len({sha256 for sha256, _ in named.values()}) < 2:
        return {}
    usual = named.get(BASELINE) or Counter(named.values()).most_common(1)[0][0]
    return {
        slug: f"its reference is {_text(*reference)}, not {_text(*usual)}"
        for slug, reference in named.items()
        if reference[0] != usual[0]
    }


def _text(sha256: str | None, dtype: str | None) -> str:
    return f"`{sha256[:12]}`" + (f" in {dtype}" if dtype else "") if sha256 else "not named"
