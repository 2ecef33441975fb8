"""Tasks on log-probabilities through a scripted server, with a tokenizer of whole words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import Play, Request, Server, answer

from quantlab.endpoint.address import parse
from quantlab.endpoint.prompts import WORDS
from quantlab.endpoint.tasks import TasksWanted, evaluate
from quantlab.progress import Progress
from quantlab.records.endpoint import EndpointRecord, EndpointWorkload

Serve = Callable[[Play], Server]
LIKELY = {"yes": -0.5, "no": -2.0}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "?", *dict.fromkeys((*WORDS, *LIKELY, "is", "isyes", *(f"q{n}" for n in range(6))))]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="<s>", unk_token="?"
    ).save_pretrained(folder)
    return str(folder)


async def _echoes(request: Request, writer: asyncio.StreamWriter) -> None:
    """A word is as likely as the table says, the others -1; what it generates is the word `end`."""
    words = request.json["prompt"].split()
    values = [LIKELY.get(word, -1.0) for word in words] if request.json["echo"] else []
    token_logprobs, top = [*values, -1.0], [{"a": max(value, -0.5)} for value in values] + [{"end": -1.0}]
    if request.json["echo"]:
        token_logprobs[0] = top[0] = None  # type: ignore[call-overload]
        top[len(words)] = {"end": -1.0}
    for place in range(1, len(values)):
        top[place] = {"a": -1.0} if words[place] not in LIKELY else {"a": -0.5}
    choice = {"index": 0, "text": "end", "logprobs": {"token_logprobs": token_logprobs, "top_logprobs": top}}
    await answer(writer, json.dumps({"choices": [choice], "usage": {"completion_tokens": 1}}))


def _evaluate(url: str, path: Path, tokenizer: str) -> tuple[EndpointRecord, list[dict[str, Any]]]:
    load = EndpointWorkload(
        requests=1, prompt_tokens=8, decode_tokens=4, timeout_seconds=20, concurrency=(1,)
    )
    record = EndpointRecord(
        url=f"{url}/v1/completions", api="openai", model="m", started="", client="", workload=load
    )
    return evaluate(
        record, parse(url), None, TasksWanted((str(path),), "embedded", 6, tokenizer, 0), Progress(quiet=True)
    )


def _task(folder: Path, docs: list[dict[str, Any]], **more: Any) -> Path:
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    task = {
        "task": "choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "docs.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{q}}",
    }
    path = folder / "choices.yaml"
    path.write_text(json.dumps(task | more))
    return path


def test_an_empty_choice_has_no_score_and_cannot_win(serve: Serve, tokenizer: str, tmp_path: Path) -> None:
    docs = [{"q": f"q{n} is", "c": ["no", "yes" if n != 2 else ""], "a": 1} for n in range(6)]
    more = {"doc_to_choice": "{{c}}", "doc_to_target": "{{a}}", "metric_list": [{"metric": "acc"}]}
    path = _task(tmp_path, docs, output_type="multiple_choice", **more)
    record, rows = _evaluate(serve(_echoes).url, path, tokenizer)
    outcome = record.tasks["choices"]
    assert record.prompt_logprobs == "offered" and outcome.failure is None and outcome.result is not None
    assert (outcome.result.score.value, outcome.result.score.n) == (1.0, 5)
    assert [item.doc_id for item in outcome.lost] == [2] and "no token of its own" in outcome.lost[0].reason
    assert outcome.truncated is None and {row["doc_id"] for row in rows} == {0, 1, 3, 4, 5}


def test_a_choice_that_merges_with_the_question_is_refused_unasked(
    serve: Serve, tokenizer: str, tmp_path: Path
) -> None:
    """`is` and `yes` without a space make one token: the choice has none of its own, and would score 0.0."""
    docs = [{"q": f"q{n} is", "c": [" no", " yes" if n != 2 else "yes"], "a": 1} for n in range(6)]
    more = {"doc_to_choice": "{{c}}", "doc_to_target": "{{a}}", "metric_list": [{"metric": "acc"}]}
    path = _task(tmp_path, docs, output_type="multiple_choice", target_delimiter="", **more)
    server = serve(_echoes)
    record, rows = _evaluate(server.url, path, tokenizer)
    outcome = record.tasks["choices"]
    assert outcome.result is not None and (outcome.result.score.value, outcome.result.score.n) == (1.0, 5)
    assert [item.doc_id for item in outcome.lost] == [2] and "no token of its own" in outcome.lost[0].reason
    assert {row["doc_id"] for row in rows} == {0, 1, 3, 4, 5}
    prompts = [r.json["prompt"] for r in server.seen if "q2" in r.json["prompt"]]
    assert prompts == ["q2 is no"]


def test_a_whole_text_is_scored_from_its_first_word(serve: Serve, tokenizer: str, tmp_path: Path) -> None:
    docs = [{"q": "", "page": "q1 is yes"}, {"q": "", "page": "no"}]
    metrics = [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
    path = _task(
        tmp_path,
        docs,
        output_type="loglikelihood_rolling",
        doc_to_target="{{page}}",
        metric_list=metrics,
        doc_to_text="",
    )
    record, rows = _evaluate(serve(_echoes).url, path, tokenizer)
    assert record.tasks["choices"].failure is None, record.tasks["choices"].failure
    assert [row["value"] for row in rows if row["metric"] == "loglikelihood"] == [-2.5, -2.0]
