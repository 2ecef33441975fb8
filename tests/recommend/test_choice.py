"""The choice: limits judged by intervals, a total order, and what would change the answer."""

from __future__ import annotations

import random
import time

import pytest

from quantlab.recommend.choice import choose
from quantlab.recommend.quantity import UNKNOWN, Quantity, exact, judge, unknown
from quantlab.recommend.request import Candidate, ModelRequest

GB = 1e9


def candidate(
    model: str = "m",
    variant: str = "gguf-4",
    drop: tuple[float, float] | None = (0.0, 2.0),
    size: float = 8e9,
    **more: object,
) -> Candidate:
    found = Quantity(sum(drop) / 2, "estimated", *drop, "a band") if drop else UNKNOWN
    fields: dict[str, object] = {
        "device": "rtx",
        "drop_points": found,
        "decode_tokens_per_second": exact(50.0, "measured"),
        "memory_bytes": Quantity(10 * GB, "estimated", 9 * GB, 11 * GB),
        "context_tokens": 32_768,
        "licence": "mit",
        "parameters": int(size),
    }
    return Candidate(model, variant, **{**fields, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "at_most", "at_least"),
    [
        (Quantity(1.0, "measured", 0.5, 1.5), "open", "open"),
        (Quantity(0.5, "measured", 0.2, 1.0), "met", "open"),
        (Quantity(2.0, "measured", 1.1, 3.0), "failed", "met"),
        (Quantity(0.5, "estimated", 0.2, None), "open", "open"),
        (Quantity(2.0, "estimated", 1.1, None), "failed", "met"),
        (Quantity(0.5, "estimated", None, 0.9), "met", "failed"),
        (exact(1.0, "measured"), "met", "met"),
        (UNKNOWN, "open", "open"),
    ],
)
def test_a_limit_is_judged_by_the_whole_interval(found: Quantity, at_most: str, at_least: str) -> None:
    for below, expected in ((True, at_most), (False, at_least)):
        assert judge(found, 1.0, below) == expected


def test_what_certainly_fails_is_rejected_and_what_is_open_is_not() -> None:
    few, some, many = (
        candidate(variant="gguf-8", drop=(0, 0.5)),
        candidate(variant="gguf-4", drop=(0.5, 2)),
        candidate(variant="gguf-2", drop=(8, 15)),
    )
    found = choose(ModelRequest(max_drop_points=1.0), [many, some, few])
    assert [each.candidate for each in found.ranked] == [few, some]
    assert [each.candidate for each in found.rejected] == [many]
    assert found.rejected[0].reasons == ("the drop is not at most 1 point: 8 points to 15 points, estimated",)
    sure = choose(ModelRequest(max_drop_points=1.0, certain=True), [many, some, few])
    assert [each.candidate for each in sure.ranked] == [few]


def test_the_most_able_model_comes_first_and_the_size_decides_where_no_score_is_known() -> None:
    quoted = candidate("small-but-scored", size=1e9, scores={"code": exact(70.0, "estimated", "quoted")})
    better = candidate("scored", size=4e9, scores={"code": exact(80.0, "estimated", "quoted")})
    large, largest = candidate("large", size=70e9), candidate("largest", size=400e9)
    found = choose(ModelRequest(use="code"), [large, quoted, largest, better])
    assert [each.candidate.model for each in found.ranked] == [
        "scored",
        "small-but-scored",
        "largest",
        "large",
    ]
    assert found.ranked[0].reasons[0] == "80.0 % for code, quoted (quoted)"
    assert "ranked by its 400B parameters" in found.ranked[2].reasons[0]
    assert [each.candidate.model for each in choose(ModelRequest(), [large, quoted]).ranked] == [
        "large",
        "small-but-scored",
    ]


def test_of_one_model_the_fewest_open_limits_then_the_smallest_drop_then_speed_then_memory() -> None:
    known = candidate(variant="a", drop=(0.9, 1.0))
    open_ = candidate(variant="b", drop=(0.0, 1.1))
    assert choose(ModelRequest(max_drop_points=1.0), [open_, known]).best == known
    assert choose(ModelRequest(), [known, open_]).best == open_
    endless = candidate(variant="c")._replace(drop_points=Quantity(0.1, "estimated", 0.0, None))
    assert choose(ModelRequest(), [endless, known]).best == known
    fast = candidate(variant="z", decode_tokens_per_second=exact(90.0, "measured"))
    assert choose(ModelRequest(), [candidate(variant="y"), fast]).best == fast
    lean = candidate(variant="z", memory_bytes=exact(1 * GB, "estimated"))
    assert choose(ModelRequest(), [candidate(variant="y"), lean]).best == lean


def test_few_items_do_not_decide_between_variants_that_a_divergence_tells_apart() -> None:
    lucky = candidate(variant="gguf-3", drop=(-5, 4), divergence_nats=exact(0.097, "measured"))
    close = candidate(variant="gguf-8", drop=(-3, 6), divergence_nats=exact(0.0045, "measured"))
    assert choose(ModelRequest(), [lucky, close]).best == close
    certain = candidate(variant="gguf-2", drop=(1, 3), divergence_nats=exact(0.0001, "measured"))
    assert choose(ModelRequest(), [certain, close]).best == close
    unmeasured = candidate(variant="awq-4", drop=(0, 1))
    assert choose(ModelRequest(), [unmeasured, close]).best == close


def test_what_may_not_fit_comes_after_what_does_however_able() -> None:
    tight = candidate("large", size=70e9, memory_bytes=Quantity(23 * GB, "estimated", 23 * GB, 25 * GB))
    found = choose(ModelRequest(max_memory_bytes=24 * GB), [tight, candidate("small")])
    assert [each.candidate.model for each in found.ranked] == ["small", "large"]
    assert [each.limit.name for each in found.ranked[1].open] == ["memory"]


def test_the_order_is_total_whatever_the_order_of_the_candidates() -> None:
    pool = [
        candidate(f"m{i % 3}", f"gguf-{i}", drop=None if i % 2 else (0, 1), device=d)
        for i in range(12)
        for d in ("a", "b")
    ]
    first = [each.candidate for each in choose(ModelRequest(max_drop_points=2), pool).ranked]
    for seed in range(20):
        shuffled = random.Random(seed).sample(pool, len(pool))
        assert [each.candidate for each in choose(ModelRequest(max_drop_points=2), shuffled).ranked] == first


def test_licences_contexts_prices_and_latencies_are_limits() -> None:
    short = candidate("short", context_tokens=8_192)
    closed = candidate("closed", licence="llama4")
    nameless = candidate("nameless", licence=None)
    dear = candidate("dear", dollars_per_million=exact(3.0, "estimated"))
    slow = candidate("slow", first_token_seconds=exact(4.0, "measured"))
    asked = ModelRequest(
        context_tokens=16_384,
        licences=("MIT", "apache-2.0"),
        max_dollars_per_million=1.0,
        max_first_token_seconds=1.0,
    )
    found = choose(asked, [short, closed, nameless, dear, slow, candidate("good")])
    assert [each.candidate.model for each in found.ranked] == ["good"]
    assert {each.candidate.model: each.reasons[0] for each in found.rejected} == {
        "short": "the context is not at least 16,384 tokens: 8,192 tokens, estimated",
        "closed": "its licence is llama4, not MIT or apache-2.0",
        "nameless": "its licence is not known to be MIT or apache-2.0",
        "dear": (
            "the price is not at most 1.00 dollars per million tokens: 3.00 dollars per million tokens,"
            " estimated"
        ),
        "slow": "the first token is not at most 1 s: 4 s, measured",
    }
    assert "the price is not known" in found.ranked[0].reasons


def test_the_smallest_loosening_that_changes_the_answer_is_named() -> None:
    big = candidate("big", size=27e9, memory_bytes=exact(30 * GB, "estimated"))
    bigger = candidate("bigger", size=70e9, memory_bytes=exact(45 * GB, "estimated"))
    small = candidate("small", size=8e9)
    found = choose(ModelRequest(max_memory_bytes=24 * GB), [small, big, bigger])
    assert found.best == small
    assert [(c.limit, c.if_, c.then) for c in found.changes] == [
        ("memory", "30.00 GB were asked for instead of 24.00 GB", big),
    ]


def test_a_measurement_that_would_change_the_answer_is_named() -> None:
    open_, met = candidate("large", size=27e9, drop=(0, 6)), candidate("small", drop=(0, 0.5))
    found = choose(ModelRequest(max_drop_points=1.0), [met, open_])
    assert found.best == open_
    assert found.changes[0] == ("drop", "the drop of large gguf-4 turns out not to be at most 1 point", met)
    alone = choose(ModelRequest(max_drop_points=1.0), [open_])
    assert alone.changes[0].then is None


def test_nothing_left_says_what_is_nearest() -> None:
    found = choose(
        ModelRequest(max_memory_bytes=4 * GB),
        [candidate("a"), candidate("b", memory_bytes=exact(5 * GB, "estimated"))],
    )
    assert found.best is None
    assert found.changes[0].then is not None and found.changes[0].then.model == "b"


def test_what_is_not_known_says_why() -> None:
    found = choose(
        ModelRequest(min_tokens_per_second=30),
        [candidate(decode_tokens_per_second=unknown("no GPU was named"))],
    )
    assert "decoding is not known (no GPU was named)" in found.ranked[0].reasons


def test_a_call_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ModelRequest(
        context_tokens=8_192,
        use="code",
        max_drop_points=1.0,
        max_memory_bytes=24 * GB,
        min_tokens_per_second=30,
    )
    for number in (4, 40, 800):
        pool = [
            candidate(f"m{i // 20}", f"v-{i % 20}", drop=(0, i % 5), size=i * 1e9 + 1) for i in range(number)
        ]
        start = time.perf_counter()
        for _ in range(20):
            assert choose(asked, pool).ranked
        with capsys.disabled():
            print(
                f"\nchoose over {number} candidates: {(time.perf_counter() - start) / 20 * 1e6:,.0f}"
                " microseconds"
            )


def test_what_the_gpus_cannot_share_is_ranked_behind() -> None:
    large, small = (
        candidate("large", size=70e9, not_parallel="7 heads cannot be split over 3 GPUs"),
        candidate("small", size=8e9),
    )
    unsure = candidate("unsure", size=90e9)._replace(memory_bytes=UNKNOWN)
    found = choose(ModelRequest(max_memory_bytes=24 * GB), [unsure, large, small])
    assert [each.candidate.model for each in found.ranked] == ["small", "large", "unsure"]
    assert "ranked behind: 7 heads cannot be split over 3 GPUs" in found.ranked[1].reasons
