"""The order of the variants: divergence first, paired drops among those it cannot tell apart."""

from __future__ import annotations

from pathlib import Path

from madeup import MODEL

from quantlab.comparison.compare import compare
from quantlab.comparison.load import ModelRecords, load_model
from quantlab.records import Estimate
from quantlab.reporting.ranking_findings import ranking_findings


def _with(records: ModelRecords, slug: str, value: float, error: float | None) -> None:
    variant = records.variants[slug]
    assert variant.divergence
    changed = variant.divergence.model_copy(
        update={"kl_divergence_nats": Estimate(value=value, standard_error=error, n=64)}
    )
    records.variants[slug] = variant._replace(divergence=changed)


def test_clear_divergences_decide_alone(workspace: Path) -> None:
    records = load_model(workspace, MODEL)
    for slug, value in (("gguf-8", 0.001), ("gptq-4", 0.2), ("awq-4", 0.1)):
        _with(records, slug, value, 1e-5)
    order = [slug for place in compare(records).ranking for slug in place.variants]
    assert order.index("gguf-8") < order.index("awq-4") < order.index("gptq-4")
    assert "baseline-16" not in order and "gguf-16" not in order and "bitsandbytes-4" not in order


def test_where_intervals_meet_the_paired_drop_orders(workspace: Path) -> None:
    records = load_model(workspace, MODEL)
    for slug, value in (("gptq-4", 0.140), ("awq-4", 0.142)):  # drops 5 and 4 points
        _with(records, slug, value, 0.01)
    compared = compare(records)
    place = next(place for place in compared.ranking if "awq-4" in place.variants)
    assert place.variants == ("awq-4", "gptq-4")
    said = list(ranking_findings(compared))
    assert "awq-4 = gptq-4" in said[0] and any(
        "gptq-4 and awq-4 overlap (95 % interval of the KL divergence)" in sentence
        and "not tested" in sentence
        for sentence in said[1:]
    )


def test_without_intervals_the_order_is_by_the_means_and_says_so(workspace: Path) -> None:
    records = load_model(workspace, MODEL)
    _with(records, "awq-4", 0.168, None)
    said = list(ranking_findings(compare(records)))
    assert "Ordered by the mean alone, because fewer than 30 windows give no interval: awq-4." in said[0]
    assert "mean alone" not in next(iter(ranking_findings(compare(load_model(workspace, MODEL)))))


def test_without_drops_no_order_by_drops_is_claimed(workspace: Path) -> None:
    records = load_model(workspace, MODEL)
    for slug in ("baseline-16", "gptq-4", "awq-4"):
        records.variants[slug] = records.variants[slug]._replace(tasks=None, samples=None)
    for slug, value in (("gptq-4", 0.140), ("awq-4", 0.142)):
        _with(records, slug, value, 0.01)
    said = next(text for text in ranking_findings(compare(records)) if text.startswith("gptq-4 and awq-4"))
    assert said.endswith("none has a mean drop to order them by.") and "Ordered by" not in said
