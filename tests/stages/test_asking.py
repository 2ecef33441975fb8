"""What is asked of lm-eval's tasks and what is kept of its answers, on made-up tasks and a made-up language
model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from quantlab.errors import QuantlabError
from quantlab.evaluation.answers import Answers, result_of
from quantlab.evaluation.samples import metric_of, rows_of, write_samples
from quantlab.evaluation.tasks import AskedTask, choose_items
from quantlab.progress import Progress
from quantlab.recipe import Recipe, SourceSpec, TasksSpec
from quantlab.stages import evaluate
from quantlab.workspace.cell import Cell

QUIET = Progress(quiet=True)
N = 40


class MadeUp(LM):
    """Log-likelihoods from a hash of the request, texts that repeat the prompt's last word; a token is a
    word."""

    max_length, max_gen_toks = 64, 8

    def __init__(self, likelihood: float | None = None) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []
        self._likelihood = likelihood

    def tok_encode(self, text: str, **_: Any) -> list[int]:
        return [len(word) for word in text.split()]

    def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        self.asked += [request.args for request in requests]
        return [(self._value("".join(request.args)), False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
        return [self._value(request.args[0]) for request in requests]

    def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
        return [f"so it is\n#### {request.args[0].split()[-2]}" for request in requests]

    def _value(self, text: str) -> float:
        digest = hashlib.sha256(text.encode()).digest()
        return self._likelihood if self._likelihood is not None else -1.0 - digest[0] / 64


def _yaml(folder: Path, name: str, docs: list[dict[str, Any]], **config: Any) -> str:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    base = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(folder / f"{name}.jsonl")}},
    }
    base |= {
        "validation_split": "validation",
        "test_split": "validation",
        "fewshot_split": "validation",
        "metadata": {"version": 1},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(base | config))
    return str(path)


def _choices(folder: Path, name: str = "choices", first: int = 0) -> str:
    docs = [{"question": f"What is {i + first}?", "gold": i % 2} for i in range(N)]
    metrics = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    options = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["yes", "no"],
        "doc_to_target": "gold",
    }
    return _yaml(folder, name, docs, metric_list=metrics, **options)


def _sums(folder: Path) -> str:
    regexes = [("strict-match", "#### (\\d+)"), ("flexible-extract", "(\\d+)")]
    filters = [
        {"name": n, "filter": [{"function": "regex", "regex_pattern": r}, {"function": "take_first"}]}
        for n, r in regexes
    ]
    docs = [{"question": f"How much is {i} ?", "answer": str(i if i % 4 else i + 1)} for i in range(N)]
    options = {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "filter_list": filters,
    }
    metrics = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    return _yaml(
        folder,
        "sums",
        docs,
        metric_list=metrics,
        generation_kwargs={"until": ["\n\n"], "max_gen_toks": 8},
        **options,
    )


def _pages(folder: Path) -> str:
    docs = [{"page": " ".join(["word"] * (20 + 10 * i))} for i in range(N)]
    metrics = [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
    return _yaml(
        folder,
        "pages",
        docs,
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{page}}",
        metric_list=metrics,
    )


def _cell(root: Path, **tasks: Any) -> Cell:
    recipe = Recipe(
        model="small", source=SourceSpec(path="nowhere"), tasks=TasksSpec(**{"names": ("any",), **tasks})
    )
    (root / "recipes").mkdir(parents=True, exist_ok=True)
    (root / "recipes" / "small.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return Cell(root, "small", "baseline-16")


def _ask(
    cell: Cell,
    paths: list[str],
    lm: LM,
    monkeypatch: pytest.MonkeyPatch,
    group: str | None = None,
    **sizes: int,
) -> Answers:
    def load(*_: Any) -> list[AskedTask]:
        loaded = [
            task
            for path in paths
            for task in TaskManager(include_defaults=False).load([path])["tasks"].values()
        ]
        return (
            [AskedTask(group, tuple(loaded))]
            if group
            else [AskedTask(task.task_name, (task,)) for task in loaded]
        )

    monkeypatch.setattr(evaluate, "load_asked", load)
    return evaluate._evaluate(lm, cell, "a" * 64, "settings", QUIET, sizes)


def test_examples_do_not_depend_on_which_items_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _choices(tmp_path)
    prompts = {}
    for items in (8, 20, N):
        lm, cell = MadeUp(), _cell(tmp_path / str(items), items=items, fewshot=2)
        found = _ask(cell, [path], lm, monkeypatch)
        prompts[items] = {s["doc_id"]: s["arguments"][0][0] for s in found.samples["choices"]}
        assert len(lm.asked) == 2 * items and found.fewshot == {"choices": 2}
        assert all(
            f"What is {doc}?" in prompt and prompt.count("What is") == 3
            for doc, prompt in prompts[items].items()
        )
        assert all(prompt.count(f"What is {doc}?") == 1 for doc, prompt in prompts[items].items()), (
            "an item is no example of itself"
        )
    assert prompts[8].items() < prompts[20].items() < prompts[N].items()


def test_more_items_ask_only_the_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lm, cell = _choices(tmp_path), MadeUp(), _cell(tmp_path, items=10, fewshot=2)
    _ask(cell, [path], lm, monkeypatch)
    _ask(cell, [path], lm, monkeypatch, choices=25)
    assert len(lm.asked) == 2 * 25 and len(set(lm.asked)) == 2 * 25


def test_all_items_have_the_examples_of_lm_evals_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.evaluator import simple_evaluate

    path, cell = _choices(tmp_path), _cell(tmp_path, items=7, fewshot=3)
    (task,) = TaskManager(include_defaults=False).load([path])["tasks"].values()
    theirs = simple_evaluate(
        MadeUp(),
        tasks=[task],
        num_fewshot=3,
        bootstrap_iters=0,
        fewshot_random_seed=cell.recipe.seed,
        task_manager=TaskManager(include_defaults=False),
    )
    whole = {s["doc_id"]: s["prompt_hash"] for s in theirs["samples"]["choices"]}
    ours = {
        s["doc_id"]: s["prompt_hash"] for s in _ask(cell, [path], MadeUp(), monkeypatch).samples["choices"]
    }
    assert len(ours) == 7 and ours.items() < whole.items()


def test_one_filter_is_compared_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _sums(tmp_path)
    for wanted, expected in (({}, "strict-match"), ({"sums": "flexible-extract"}, "flexible-extract")):
        found = _ask(_cell(tmp_path, items=None, filters=wanted), [path], MadeUp(), monkeypatch)
        result = result_of("sums", found, None)
        assert (result.score.n, result.filter, result.metric) == (N, expected, "exact_match")
        assert result.score.value == pytest.approx(0.75) and result.metrics[
            "exact_match,strict-match"
        ] == pytest.approx(0.75)
        assert result.answer_tokens and result.answer_tokens.value == 5.0  # so it is #### N
    with pytest.raises(QuantlabError, match="strict-match"):
        _ask(_cell(tmp_path, items=None, filters={"sums": "strict"}), [path], MadeUp(), monkeypatch)


def test_perplexities_of_the_whole_set_keep_each_documents_likelihood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, cell = MadeUp(), _cell(tmp_path, items=None)
    found = _ask(cell, [_pages(tmp_path)], lm, monkeypatch)
    result = result_of("pages", found, None)
    each = [lm._value(" ".join(["word"] * (20 + 10 * i))) for i in range(N)]
    assert result.metric == "loglikelihood" and result.score.value == pytest.approx(sum(each) / N)
    assert result.metrics["word_perplexity"] > 1 and found.notes == (), "windows cut nothing"
    rows = [row for s in found.samples["pages"] for row in rows_of("pages", s, found.configs["pages"])]
    assert len(rows) == N and {row["metric"] for row in rows} == {"loglikelihood"}


def test_a_group_counts_as_one_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [_choices(tmp_path, "one"), _choices(tmp_path, "two", 100)]
    cell = _cell(tmp_path, items=30)
    found = _ask(cell, paths, MadeUp(), monkeypatch, group="both")
    result = result_of("both", found, None)
    assert (result.score.n, result.available) == (30, 2 * N)
    by = pd.Series([s["subtask"] for s in found.samples["both"]]).value_counts()
    assert set(by.index) == {"one", "two"} and by.sum() == 30
    assert (
        result.score.value == pytest.approx(sum(s["acc"] for s in found.samples["both"]) / 30)
        and result.chance == 0.5
    )
    assert result.metrics["acc"] == pytest.approx(result.score.value)
    write_samples(
        cell.data_folder / "samples.parquet",
        [row for s in found.samples["both"] for row in rows_of("both", s, found.configs["both"])],
    )
    frame = pd.read_parquet(cell.data_folder / "samples.parquet")
    assert not frame.duplicated(["subtask", "doc_id", "metric"]).any() and set(frame["task"]) == {"both"}


def test_a_figure_of_the_whole_set_that_is_no_number_is_left_out() -> None:
    samples = [{"acc": 1.0, "metrics": ["acc"], "filter": "none", "answer_tokens": None, "truncated": None}]
    common: dict[str, Any] = {
        "configs": {"a": {}},
        "versions": {"a": "1"},
        "fewshot": {"a": 0},
        "available": {"a": 1},
        "notes": (),
    }
    found = Answers(
        samples={"a": samples},
        metrics={"a": {"acc": 1.0, "bleu": float("nan"), "ter": float("inf"), "word_perplexity": 1e200}},
        **common,
    )
    assert result_of("a", found).metrics == {"acc": 1.0}


def test_items_beyond_the_context_are_counted_by_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a choice is one word: context and continuation of 65 words fit, because the last is no input
    docs = [{"question": " ".join(["word"] * (60 + i)), "gold": 0} for i in range(8)]
    options = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["yes", "no"],
        "doc_to_target": "gold",
    }
    path = _yaml(tmp_path, "long", docs, metric_list=[{"metric": "acc"}], **options)
    found = _ask(_cell(tmp_path, items=None), [path], MadeUp(), monkeypatch)
    assert found.notes == ("3 items of long are longer than the model's context and were cut from the left.",)
    prompts = [{"question": " ".join(["word"] * (54 + i)), "answer": "1"} for i in range(4)]
    options = {"output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}"}
    path = _yaml(
        tmp_path,
        "talk",
        prompts,
        metric_list=[{"metric": "exact_match"}],
        generation_kwargs={"until": ["."], "max_gen_toks": 8},
        **options,
    )
    found = _ask(_cell(tmp_path, items=None), [path], MadeUp(), monkeypatch)
    assert found.notes == ("1 items of talk are longer than the model's context and were cut from the left.",)


@pytest.mark.parametrize("likelihood", [float("nan"), float("-inf")])
def test_a_likelihood_that_is_no_number_names_the_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, likelihood: float
) -> None:
    cell = _cell(tmp_path, items=3)
    failure = _ask(cell, [_choices(tmp_path)], MadeUp(likelihood), monkeypatch).failed["choices"]
    assert failure.kind == "broken_checkpoint" and "not a finite number" in failure.reason
    assert f"item {choose_items(N, 3, cell.recipe.seed)[0]} of choices" in failure.reason


def test_the_metric_is_one_that_each_item_has() -> None:
    assert metric_of({"metrics": ["bleu", "acc"], "bleu": ("a", "b"), "acc": 1.0}) == "acc"
    assert metric_of({"metrics": ["bleu"], "bleu": ("a", "b")}) is None
    assert metric_of({"metrics": ["f1", "exact_match"], "f1": 0.5, "exact_match": 0.0}) == "exact_match"
