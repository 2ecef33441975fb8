"""Answers of a checkpoint: the same tokens from both engines, chat templates, logits that are not finite."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quantlab.errors import CellFailure
from quantlab.evaluation.generation import GeneratedAnswer, answer, generate, read_prompts
from quantlab.hardware.device import find
from quantlab.names import parse_variant
from quantlab.progress import Progress
from quantlab.workspace.checkpoint import Manifest, list_files, write_manifest

pytestmark = pytest.mark.slow
PROMPTS = ["the quick", "a cat sleeps near the warm", "dreams of small grey", "over", "mice jump"]
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system role') }}{%"
    " endif %}<{{ message.role }}> {{ message.content }}\n{% endfor %}{% if add_generation_prompt"
    " %}<assistant> {% endif %}"
)


def cell_of(folder: Path, slug: str, **manifest: Any) -> Any:
    folder.mkdir()
    if slug.startswith("gguf"):
        (folder / "model.gguf").hardlink_to(manifest.pop("file"))
    variant = parse_variant(slug)
    about = Manifest(
        model="tiny",
        variant=slug,
        method=variant.method,
        bits=variant.bits,
        files=list_files(folder),
        **manifest,
    )
    checkpoint = write_manifest(folder, about)
    return SimpleNamespace(
        variant=variant, checkpoint=lambda: checkpoint, recipe=SimpleNamespace(engine=None)
    )


def test_both_engines_answer_with_the_same_tokens(prepared: Path, source: Path, tmp_path: Path) -> None:
    cells = [
        cell_of(tmp_path / "b", "baseline-16", weights=str(source), tokenizer=str(source)),
        cell_of(tmp_path / "g", "gguf-16", format="gguf", tokenizer=str(source), file=prepared / "f16.gguf"),
    ]
    dense, gguf = (generate(cell, find("cpu"), PROMPTS, 12, Progress(quiet=True)) for cell in cells)
    assert gguf == dense and len(gguf) == len(PROMPTS)
    for made in gguf:
        assert len(made.token_ids) == 12 if not made.ended else len(made.token_ids) < 12


def test_an_answer_goes_to_its_end_token_or_to_the_limit() -> None:
    def decode(ids: list[int], skip_special_tokens: bool) -> str:
        return " ".join(map(str, ids))

    made = [[5, 6, 2, 2], [5, 6, 7, 8], [2]]
    engine: Any = SimpleNamespace(generate=lambda prompts, tokens: made, end_ids=lambda: {2})
    assert answer(engine, SimpleNamespace(decode=decode), ["a", "b", "c"], 4) == [
        GeneratedAnswer("5 6", (5, 6), True),
        GeneratedAnswer("5 6 7 8", (5, 6, 7, 8), False),
        GeneratedAnswer("", (), True),
    ]


def test_the_shipped_prompts_are_there() -> None:
    assert len(read_prompts(None)) >= 5


def test_chat_templates_are_those_of_hflm(prepared: Path, dense: Any, source: Path, open_engine: Any) -> None:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = TEMPLATE
    hflm, lm = (
        HFLM(pretrained=dense, tokenizer=tokenizer, batch_size=1),
        open_engine(prepared / "f16.gguf").language_model(1),
    )
    lm.tokenizer.chat_template = TEMPLATE
    system, user, begun = ({"role": role, "content": role} for role in ("system", "user", "assistant"))
    for history, prompt in (
        ([user], True),
        ([user, begun], False),
        ([system, user], True),
        ([user, begun, user], True),
    ):
        assert lm.apply_chat_template(history, prompt) == hflm.apply_chat_template(history, prompt)
    assert (
        lm.apply_chat_template([system, user]) == "<user> user\n<assistant> "
    )  # a template without a system role
    assert (
        lm.chat_template(True) == hflm.chat_template(True) == TEMPLATE
        and lm.tokenizer_name == hflm.tokenizer_name
    )
    said = lm.apply_chat_template([user])
    assert lm.tok_encode(said) == hflm.tok_encode(said)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_name_the_prompt_and_the_token(
    wrong: float, prepared: Path, open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = open_engine(prepared / "f16.gguf").language_model(2)
    from quantlab.engines._llama.library import Context

    run, calls = Context.run, []

    def breaks(self: Context, batch: Any) -> Any:
        rows = run(self, batch).copy()
        calls.append(len(rows))
        if len(calls) == 4:  # two prompts, then one token of each, then the second token
            rows[1, 7] = wrong
        return rows

    monkeypatch.setattr(Context, "run", breaks)
    with pytest.raises(
        CellFailure, match=r"not finite at token 3 of the answer to the prompt that ends with 'the lazy dog'"
    ) as raised:
        lm.continuations(["the quick", "the lazy dog"], 5)
    assert raised.value.kind == "broken_checkpoint"
