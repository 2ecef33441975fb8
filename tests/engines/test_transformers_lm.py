"""The transformers engine's language model: float32 log-probabilities, named token ids, and which answers the
limit cut."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance

from quantlab.engines.transformers import ENGINE, TransformersEngine, computes_in_float32
from quantlab.errors import CellFailure
from quantlab.evaluation.bad_items import reason_of

WORDS, CONTEXT = 64, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bfloat16 Llama of 64 words, whose tokenizer knows six words more."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    place = tmp_path_factory.mktemp("llama")
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": WORDS,
    }
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(
            **sizes, max_position_embeddings=CONTEXT, eos_token_id=2, bos_token_id=1, initializer_range=0.5
        )
    )
    model.to(torch.bfloat16).save_pretrained(place)
    raw = Tokenizer(
        models.WordLevel(
            {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, WORDS + 6)}, "<unk>"
        )
    )
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>").save_pretrained(
        place
    )  # a text shows all others
    return place


def _checkpoint(folder: Path) -> Any:
    manifest = SimpleNamespace(trust_remote_code=False, settings={})
    return SimpleNamespace(weights=folder, tokenizer=folder, manifest=manifest, require_weights=lambda: None)


def _asked(kind: str, *arguments: Any) -> list[Instance]:
    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


def _pairs() -> list[Instance]:
    return _asked(
        "loglikelihood",
        *(
            (f"w{i} w{i + 1}", " " + " ".join(f"w{(7 * i + j) % 50 + 3}" for j in range(6)))
            for i in range(3, 23)
        ),
    )


def test_log_probabilities_and_their_sum_are_float32s_whatever_the_model_computes_in(folder: Path) -> None:
    engine = TransformersEngine(folder, folder, "cpu")
    assert engine.dtype == "bfloat16" and engine.scored_in == "bfloat16, log-probabilities in float32"
    lm = engine.language_model(1)  # the shapes of the products below: bfloat16 kernels round by shape
    for request, (value, _) in zip(_pairs(), lm.loglikelihood(_pairs(), disable_tqdm=True), strict=True):
        context, continuation = (lm.tok_encode(text) for text in request.args)
        ids = torch.tensor([(context + continuation)[:-1]])
        with torch.inference_mode():
            rows = engine.model(ids).logits[0, len(context) - 1 :].float().log_softmax(-1)
        assert value == pytest.approx(
            float(rows.gather(1, torch.tensor(continuation)[:, None]).sum()), abs=1e-4
        )


def test_a_plain_checkpoint_is_scored_in_float32_where_that_is_asked(folder: Path) -> None:
    engine = ENGINE.open_checkpoint(_checkpoint(folder), "cpu", float32=True)
    assert engine.model.dtype == torch.float32 and engine.scored_in == "float32"
    assert ENGINE.open_checkpoint(_checkpoint(folder), "cpu").model.dtype == torch.bfloat16
    values = [value for value, _ in engine.language_model(4).loglikelihood(_pairs(), disable_tqdm=True)]
    assert not any(4 * value == round(4 * value) for value in values)


def test_which_kernels_take_float32() -> None:
    eight, four = ({"quant_method": "bitsandbytes", f"load_in_{bits}bit": True} for bits in (8, 4))
    assert (
        computes_in_float32({}, "cpu")
        and computes_in_float32(eight, "cpu")
        and computes_in_float32(four, "cuda:0")
    )
    assert not computes_in_float32(four, "cpu")
    assert not any(computes_in_float32({"quant_method": name}, "cuda:0") for name in ("gptq", "awq", "fp8"))


def test_a_token_beyond_the_embedding_is_one_line(folder: Path) -> None:
    lm = TransformersEngine(folder, folder, "cpu").language_model(2)
    with pytest.raises(
        CellFailure,
        match="token 68 is beyond the 64 rows of the embedding: the tokenizer is not this model's",
    ):
        lm.loglikelihood(_asked("loglikelihood", ("w3 w68", " w4")), disable_tqdm=True)
    with pytest.raises(CellFailure, match="token 66 is beyond"):
        lm.generate_until(
            _asked("generate_until", ("w66", {"until": [], "max_gen_toks": 2})), disable_tqdm=True
        )


ENDS = list(range(2, 20))


def _generating(folder: Path, batch_size: int) -> Any:
    """A language model that a third of the words end an answer of."""
    engine = TransformersEngine(folder, folder, "cpu")
    engine.model.generation_config.eos_token_id = ENDS
    return engine.language_model(batch_size)


def _is_cut(lm: Any, text: str, limit: int) -> bool:
    """By the words alone: each is a token, but for the tokenizer's own end."""
    ids = lm.tok_encode(text)
    return len(ids) == limit and not set(ids) & set(ENDS)


def test_an_answer_is_cut_where_neither_a_stop_string_nor_an_end_token_came(folder: Path) -> None:
    lm = _generating(folder, 3)
    prompts = [f"w{i} w{i + 5}" for i in range(3, 43)]
    free = lm.generate_until(
        _asked("generate_until", *((p, {"until": [], "max_gen_toks": 3}) for p in prompts)), disable_tqdm=True
    )
    cut = [_is_cut(lm, text, 3) for text in free]
    assert lm.truncated == cut and set(cut) == {True, False}
    stop = free[cut.index(True)].split()[1]
    lm.generate_until(
        _asked("generate_until", *((p, {"until": [stop], "max_gen_toks": 3}) for p in prompts)),
        disable_tqdm=True,
    )
    assert lm.truncated == [c and stop not in text for c, text in zip(cut, free, strict=True)] != cut


def test_copies_of_one_request_keep_their_order(folder: Path) -> None:
    lm = _generating(folder, 2)
    asked = _asked(
        "generate_until",
        *[("w3 w4", {"until": [], "max_gen_toks": 3, "do_sample": True, "temperature": 5.0})] * 20,
    )
    torch.manual_seed(1)
    texts = lm.generate_until(asked, disable_tqdm=True)
    assert lm.truncated == [_is_cut(lm, text, 3) for text in texts] and set(lm.truncated) == {True, False}


@pytest.mark.parametrize(
    ("kind", "arguments", "reason"),
    [
        (
            "loglikelihood",
            ("w3", " " + "w4 " * (CONTEXT + 1)),
            f"a choice has {CONTEXT + 1} tokens, the model's context {CONTEXT}",
        ),
        ("loglikelihood", ("w3 w4", ""), "a choice has no tokens of its own"),
        (
            "generate_until",
            ("w3", {"until": [], "max_gen_toks": CONTEXT}),
            f"{CONTEXT} tokens of an answer are asked for",
        ),
    ],
)
def test_what_lm_eval_asserts_at_the_contexts_edge_has_a_reason(
    folder: Path, kind: str, arguments: Any, reason: str
) -> None:
    lm = TransformersEngine(folder, folder, "cpu").language_model(1)
    (request,) = _asked(kind, arguments)
    with pytest.raises(AssertionError):
        getattr(lm, kind)([request], disable_tqdm=True)
    assert reason in (reason_of(lm, kind, request) or "")


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("loglikelihood", ("w3", " " + "w4 " * CONTEXT)),
        ("loglikelihood", ("w3 " * 40, " w4")),
        ("generate_until", ("w3 " * 40, {"until": [], "max_gen_toks": CONTEXT - 1})),
    ],
)
def test_what_just_fits_is_answered(folder: Path, kind: str, arguments: Any) -> None:
    lm = TransformersEngine(folder, folder, "cpu").language_model(1)
    (request,) = _asked(kind, arguments)
    assert len(getattr(lm, kind)([request], disable_tqdm=True)) == 1 and reason_of(lm, kind, request) is None


def test_an_answer_from_logits_that_are_no_numbers_is_refused_by_its_token(folder: Path) -> None:
    engine = TransformersEngine(folder, folder, "cpu")
    engine.model.generation_config.eos_token_id = None
    lm = engine.language_model(2)
    asked = _asked("generate_until", *((f"w{i} w{i + 5}", {"until": [], "max_gen_toks": 4}) for i in (3, 4)))
    assert len(lm.generate_until(asked, disable_tqdm=True)) == 2

    def spoil(_module: Any, _given: Any, out: Any) -> None:
        calls.append(1)
        if len(calls) % 4 == 3:
            out.logits[1, :, 5] = float("nan")

    for ask in (
        lambda: lm.generate_until(asked, disable_tqdm=True),
        lambda: engine.generate(["w3 w8", "w4 w9"], 4),
    ):
        calls: list[int] = []
        hook = engine.model.register_forward_hook(spoil)
        with pytest.raises(CellFailure, match="logits are not finite at token 3 of an answer"):
            ask()
        hook.remove()
