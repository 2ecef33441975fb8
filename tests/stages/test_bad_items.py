"""An item or a task that goes wrong is named, and costs no other task its answers; repeats are draws of their
own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lm_eval.tasks import TaskManager
from test_asking import QUIET, MadeUp, N, _ask, _cell, _choices, _sums, _yaml

from quantlab.errors import CellFailure
from quantlab.evaluation.answers import result_of
from quantlab.evaluation.samples import rows_of, write_samples
from quantlab.evaluation.tasks import AskedTask, _load, load_asked
from quantlab.evaluation.tasksets import refusal
from quantlab.records import Failure
from quantlab.stages import evaluate
from quantlab.workspace.items import Items


class Failing(MadeUp):
    """Fails on a batch that holds one of the bad texts, as a library does."""

    def __init__(self, bad: dict[str, Exception]) -> None:
        super().__init__()
        self._bad = bad

    def loglikelihood(self, requests: list[Any], **options: Any) -> list[tuple[float, bool]]:
        for request in requests:
            for text, error in self._bad.items():
                if text in request.args[0]:
                    raise error
        return super().loglikelihood(requests, **options)


class Sampling(MadeUp):
    """Answers with a number out of torch's own stream."""

    asked_for = 0

    def __init__(self, dies_after: int | None = None) -> None:
        super().__init__()
        self._left = dies_after

    def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
        if self._left is not None and self._left < len(requests):
            raise KeyboardInterrupt
        self._left = None if self._left is None else self._left - len(requests)
        self.asked_for += len(requests)
        return [f"#### {torch.randint(10**9, (1,)).item()}" for _ in requests]


def _drawn(folder: Path, **kwargs: Any) -> str:
    docs = [{"question": f"How much is {i} ?", "answer": str(i)} for i in range(N)]
    options = {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "repeats": 4,
    }
    filters = [
        {
            "name": "all",
            "filter": [
                {"function": "take_first_k", "k": 4},
                {"function": "majority_vote"},
                {"function": "take_first"},
            ],
        }
    ]
    options |= {"metric_list": [{"metric": "exact_match"}], "filter_list": filters}
    return _yaml(
        folder, "drawn", docs, generation_kwargs={"until": ["\n\n"], "max_gen_toks": 8} | kwargs, **options
    )


def _responses(found: Any) -> list[tuple[str, ...]]:
    return [tuple(sample["resps"][0]) for sample in found.samples["drawn"]]


@pytest.mark.parametrize("how", [{"temperature": 0.7}, {"temperature": 0.7, "do_sample": True}])
def test_repeats_of_a_sampled_answer_are_draws_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    path, cell = _drawn(tmp_path, **how), _cell(tmp_path, items=N)
    with pytest.raises(
        KeyboardInterrupt
    ):  # killed between the second block and the third: 2.5 items have half of theirs
        _ask(cell, [path], Sampling(dies_after=130), monkeypatch)
    lm = Sampling()
    answers = _responses(_ask(cell, [path], lm, monkeypatch))
    assert lm.asked_for == 4 * N - 128, "what was drawn before the kill is kept"
    assert (
        all(len(set(four)) == 4 for four in answers) and len({a for four in answers for a in four}) == 4 * N
    )
    again = Sampling()
    assert _responses(_ask(cell, [path], again, monkeypatch)) == answers and again.asked_for == 0


def test_repeats_of_a_greedy_answer_are_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cell, lm = _drawn(tmp_path), _cell(tmp_path, items=3), Sampling()
    _ask(cell, [path], lm, monkeypatch)
    again = Sampling()
    assert _responses(_ask(cell, [path], again, monkeypatch)) and again.asked_for == 0


def _tasks(folder: Path) -> list[str]:
    return [_choices(folder, "one"), _choices(folder, "two", first=100)]


def test_one_bad_item_is_named_and_costs_the_other_task_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = _cell(tmp_path, items=N)
    found = _ask(cell, _tasks(tmp_path), Failing({"What is 17?": AssertionError()}), monkeypatch)
    assert list(found.samples) == ["two"] and len(found.samples["two"]) == N
    reason = found.failed["one"].reason
    assert reason.startswith("one: item 17 of one: AssertionError: raise error") and "\n" not in reason
    kept = Items(cell.root, "a" * 64, "one")
    assert len(kept._values) >= 2 * 17, "the answers of the items before it are kept"


def test_the_rest_of_a_bad_items_block_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, paths = _cell(tmp_path, items=N), [_choices(tmp_path, "one")]
    found = _ask(cell, paths, Failing({"What is 3?": RuntimeError("the kernel says no")}), monkeypatch)
    assert found.failed["one"] == Failure(
        kind="crashed",
        reason="one: item 3 of one: RuntimeError: the kernel says no (and 1 more of these 64 requests)",
    )
    lm = MadeUp()
    assert not _ask(cell, paths, lm, monkeypatch).failed
    assert len(lm.asked) == 2 * N - 62, "62 requests of the first 64 are not asked again"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), CellFailure("out_of_memory", "no more"), RuntimeError("CUDA error: device-side assert")],
)
def test_what_would_meet_every_item_ends_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with pytest.raises(type(error)):
        _ask(_cell(tmp_path, items=N), _tasks(tmp_path), Failing({"What is 17?": error}), monkeypatch)


def test_a_text_that_cannot_be_tokenized_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict(MadeUp):
        def tok_encode(self, text: str, **_: Any) -> list[int]:
            if "What is 5?" in text:
                raise ValueError("no such character")
            return super().tok_encode(text)

        def loglikelihood(self, requests: list[Any], **options: Any) -> list[tuple[float, bool]]:
            for request in requests:
                self.tok_encode("".join(request.args))
            return super().loglikelihood(requests)

    monkeypatch.setattr(Strict, "max_length", 4)
    found = _ask(_cell(tmp_path, items=N), [_choices(tmp_path, "one")], Strict(), monkeypatch)
    assert (
        "item 5 of one: its text cannot be tokenized (ValueError: no such character)"
        in found.failed["one"].reason
    )


def test_a_broken_metric_costs_only_its_own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = [
        {"question": f"What is {i}?", "gold": 7 if i == 3 else 0} for i in range(N)
    ]  # there is no choice number 7
    options = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["yes", "no"],
        "doc_to_target": "gold",
    }
    path = _yaml(tmp_path, "wrong", docs, metric_list=[{"metric": "nosuch"}], **options)
    spec = _cell(tmp_path, items=2)
    asked = [
        AskedTask("wrong", (), Failure(kind="crashed", reason="wrong cannot be loaded: KeyError: 'nosuch'"))
    ]
    asked += [
        AskedTask(
            "one",
            tuple(TaskManager(include_defaults=False).load([_choices(tmp_path, "one")])["tasks"].values()),
        )
    ]
    monkeypatch.setattr(evaluate, "load_asked", lambda *_: asked)
    found = evaluate._evaluate(MadeUp(), spec, "a" * 64, "settings", QUIET, {})
    assert list(found.samples) == ["one"] and "cannot be loaded" in found.failed["wrong"].reason
    assert Path(path).is_file()


def test_a_task_whose_file_is_broken_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = _choices(tmp_path, "copa"), tmp_path / "piqa.yaml"
    bad.write_text("task: piqa\ndataset_path: nosuch\noutput_type: nosuch\n")
    from quantlab.evaluation.tasksets import embedded

    monkeypatch.setattr(embedded, "specs", lambda names, folder: [str(bad), good])
    asked = load_asked(_cell(tmp_path, names=("piqa", "copa")).recipe.tasks, tmp_path)
    assert [task.name for task in asked] == ["piqa", "copa"] and asked[1].available == N
    assert asked[0].failure and asked[0].failure.reason.startswith(
        "piqa cannot be loaded: ValueError: Got invalid output_type"
    )


def test_a_task_that_runs_code_is_refused_by_name_and_the_others_are_kept(tmp_path: Path) -> None:
    from quantlab.evaluation.tasksets import embedded

    unsafe = _yaml(
        tmp_path,
        "piqa",
        [{"q": "a"}],
        output_type="generate_until",
        doc_to_text="{{q}}",
        doc_to_target="{{q}}",
        unsafe_code=True,
    )
    manager = TaskManager(include_defaults=False)
    refused = _load(manager, "piqa", unsafe, ())["piqa"]
    assert (
        refused.failure == Failure(kind="unsupported", reason=f"piqa: {refusal(['piqa'])}")
        and refused.available == 0
    )
    assert "tasks: {unsafe: [piqa]}" in refused.failure.reason
    allowed = _load(manager, "piqa", unsafe, ("piqa",))["piqa"]
    assert allowed.failure is None and allowed.runs_code and allowed.available == 1
    assert embedded.unsafe(("piqa",)) == []


def test_unsafe_tasks_of_lm_eval_are_known_by_their_files() -> None:
    from quantlab.evaluation.tasksets import hub

    assert hub.unsafe(("humaneval", "piqa", "mbpp", "arc_easy")) == ["humaneval", "mbpp"]


def test_ties_are_counted_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Rounding(MadeUp):
        def _value(self, text: str) -> float:
            return -1.0 if "What is 1" in text else super()._value(text)

    found = _ask(_cell(tmp_path, items=N), [_choices(tmp_path)], Rounding(), monkeypatch)
    expected = sum(str(i).startswith("1") for i in range(N))
    result = result_of("choices", found)
    others = sum(
        MadeUp()._value(f"What is {i}? yes") == MadeUp()._value(f"What is {i}? no")
        for i in range(N)
        if not str(i).startswith("1")
    )
    assert result.ties == expected + others >= 11
    assert list(evaluate._doubts("choices", result)) == [
        f"{result.ties} of {N} items of choices have more than one best choice: the first counts, as in"
        " lm-eval."
    ]


def test_answers_that_the_limit_cut_are_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cutting(MadeUp):
        truncated: list[bool] = []

        def generate_until(self, requests: list[Any], **options: Any) -> list[str]:
            self.truncated = [int(request.args[0].split()[-2]) % 4 == 0 for request in requests]
            return super().generate_until(requests, **options)

    cell, path = _cell(tmp_path, items=N), _sums(tmp_path)
    for _ in range(2):  # the second time from what was kept
        found = _ask(cell, [path], Cutting(), monkeypatch)
        result = result_of("sums", found)
        assert result.truncated_share == 0.25
        assert list(evaluate._doubts("sums", result)) == [
            f"10 of {N} answers of sums were cut at the limit of tokens, before a stop string."
        ]
    rows = [row for s in found.samples["sums"] for row in rows_of("sums", s, found.configs["sums"])]
    write_samples(tmp_path / "samples.parquet", rows)
    frame = pd.read_parquet(tmp_path / "samples.parquet")
    assert list(frame[frame["truncated"]]["doc_id"]) == list(range(0, N, 4))
    unknown = result_of("sums", _ask(_cell(tmp_path / "other", items=N), [path], MadeUp(), monkeypatch))
    assert unknown.truncated_share is None, "a language model that does not say it is not said to have none"


def test_a_cell_without_one_result_says_why_of_each_task() -> None:
    failed = {name: Failure(kind="unsupported", reason=f"{name}: no") for name in ("one", "two")}
    assert evaluate._nothing(failed).reason == "one: no; two: no"
