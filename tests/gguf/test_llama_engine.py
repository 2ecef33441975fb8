"""The llama.cpp engine and its lm-eval language model against transformers and HFLM on the same tiny
weights."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_llama import TEXT

from quantlab import engines
from quantlab.analysis.divergence import scored, window_values
from quantlab.engines._hf_lm import TransformersLM
from quantlab.engines._llama.library import Model, assign
from quantlab.errors import CellFailure
from quantlab.formats.llama_log import llama
from quantlab.workspace.checkpoint import Manifest, list_files, write_manifest

pytestmark = pytest.mark.slow


@pytest.fixture
def hflm(dense: Any, source: Path) -> Any:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    return HFLM(pretrained=dense, tokenizer=AutoTokenizer.from_pretrained(source), batch_size=4)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


def test_the_engine_has_the_protocols_shape(prepared: Path, source: Path) -> None:
    folder = prepared.parent / "checkpoint"
    folder.mkdir()
    (folder / "model.gguf").hardlink_to(prepared / "f16.gguf")
    manifest = Manifest(
        model="tiny",
        variant="gguf-16",
        method="gguf",
        bits=16,
        format="gguf",
        tokenizer=str(source),
        files=list_files(folder),
    )
    checkpoint = write_manifest(folder, manifest)
    assert engines.engine_for("gguf") == "llama_cpp"
    engine = engines.load("llama_cpp").open_checkpoint(checkpoint, "cpu")
    assert all(hasattr(engine, name) for name in engines.OpenCheckpoint.__annotations__)
    assert engine.memory().weights_bytes > 0 and engine.memory().kv_cache_bytes == 0
    engine.close()


@pytest.mark.parametrize("batch", [1, 3])
def test_decoding_is_greedy_and_each_sequence_stands_alone(
    batch: int, prepared: Path, dense: Any, token_ids: NDArray[np.int64], open_engine: Any
) -> None:
    import torch

    prompts, steps = token_ids[:batch, :40], 6
    engine = open_engine(prepared / "f16.gguf")
    for _ in range(2):  # the second prefill starts from an empty cache
        engine.prefill(prompts)
        engine.decode(2)
        engine.decode(steps - 2)
    made = np.concatenate([engine._history[:, 40:], engine._next[:, None]], axis=1)
    ids = torch.from_numpy(prompts)
    with torch.inference_mode():
        for _ in range(steps + 1):
            ids = torch.cat([ids, dense(ids).logits[:, -1:].argmax(-1)], dim=1)
    assert made.tolist() == ids[:, 40:].tolist()


def test_the_cache_grows_with_the_run_and_is_what_the_architecture_needs(
    prepared: Path, token_ids: NDArray[np.int64], open_engine: Any
) -> None:
    engine = open_engine(prepared / "f16.gguf")
    per_token = 2 * 2 * 2 * 64 * 2  # keys and values, layers, heads, width, bytes of a float16
    for prompt, decode, cells in ((100, 10, 256), (120, 140, 512)):
        engine.prefill(token_ids[:1, :prompt].repeat(1 + prompt // 128, axis=1))
        engine.decode(decode)
        assert engine.memory().kv_cache_bytes == pytest.approx(cells * per_token, abs=0.01 * 2**20)


def test_a_decode_beyond_the_cells_goes_on_as_before(
    prepared: Path, token_ids: NDArray[np.int64], open_engine: Any
) -> None:
    engine, judge = open_engine(prepared / "f16.gguf"), open_engine(prepared / "f16.gguf")
    engine.prefill(token_ids[:1, :100])
    engine.decode(100)
    engine.decode(80)
    history = engine._history[0]
    assert history.shape == (280,) and (history[:100] == token_ids[0, :100]).all()
    logits = judge.logits(history)[99:-1]
    # greedy but for numerical ties, which the model's random weights have
    behind = logits.max(axis=1) - logits[np.arange(180), history[100:]]
    assert behind.max() < 0.01 < np.median(logits.std(axis=1))


def test_rows_that_nobody_reads_are_left_out(
    prepared: Path, quantized: Callable[..., Path], token_ids: NDArray[np.int64], open_engine: Any
) -> None:
    engines_, first = [open_engine(file) for file in (prepared / "f16.gguf", quantized(4))], scored(128).start
    whole, late = ([engine.logits(token_ids[0], start) for engine in engines_] for start in (0, first))
    assert late[0].shape == (64, whole[0].shape[1])
    np.testing.assert_allclose(late[1], whole[1][first:], atol=1e-4)
    for some, every in zip(
        window_values(*late, token_ids[0]), window_values(*whole, token_ids[0]), strict=True
    ):
        np.testing.assert_allclose(some, every, atol=1e-4)


def requests() -> list[tuple[str, str]]:
    """Questions with several choices of one and more tokens, an empty context, a trailing space, one that is
    too long."""
    words, random_ = TEXT.split(), random.Random(1)
    found = []
    for _ in range(8):
        context = " ".join(random_.choices(words, k=random_.randint(1, 20)))
        found += [
            (context, " " + " ".join(random_.choices(words, k=random_.randint(1, 5)))) for _ in range(3)
        ]
    return [
        *found,
        ("the quick", " b"),
        ("the quick", " d"),
        ("", "warm stove"),
        ("the quick ", "brown"),
        (TEXT * 4, " and mice"),
        ("é", " ü fox"),
    ]


def test_log_likelihoods_are_those_of_hflm(prepared: Path, hflm: Any, open_engine: Any) -> None:
    asked = instances("loglikelihood", requests())  # type: ignore[arg-type]
    expected = hflm.loglikelihood(asked)
    engine = open_engine(prepared / "f16.gguf")
    for batch_size in (1, 8):
        got = engine.language_model(batch_size).loglikelihood(asked)
        assert [greedy for _, greedy in got] == [greedy for _, greedy in expected]
        np.testing.assert_allclose([value for value, _ in got], [value for value, _ in expected], atol=0.05)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_answers_are_those_of_the_same_weights_in_transformers_but_for_ties(
    dtype: str, prepared: Path, source: Path, open_engine: Any
) -> None:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype).eval()
    hflm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(source), batch_size=4)
    words, random_ = TEXT.split(), random.Random(2)
    contexts = [" ".join(random_.choices(words, k=random_.randint(3, 12))) for _ in range(40)]
    asked = instances(
        "loglikelihood",
        [
            (c, " " + " ".join(random_.choices(words, k=random_.randint(1, 4))))
            for c in contexts
            for _ in "abc"
        ],
    )
    ours, theirs = (
        np.array([value for value, _ in lm.loglikelihood(asked)]).reshape(40, 3)
        for lm in (open_engine(prepared / "f16.gguf").language_model(8), hflm)
    )
    margins = np.diff(np.sort(theirs, axis=1), axis=1)[:, -1]
    other = ours.argmax(axis=1) != theirs.argmax(axis=1)
    assert np.median(margins) > 0.5  # most questions are no ties
    assert other.mean() <= 0.05 and (margins[other] < 0.05).all()


def test_a_greedy_continuation_is_said_to_be_one(prepared: Path, hflm: Any, open_engine: Any) -> None:
    lm = open_engine(prepared / "f16.gguf").language_model(2)
    engine = open_engine(prepared / "f16.gguf")
    context = lm.tok_encode("the lazy dog")
    engine.prefill(np.array([context]))
    engine.decode(4)
    continuation = [*engine._history[0, len(context) :].tolist(), int(engine._next[0])]
    other = [*continuation[:-1], (continuation[-1] + 1) % 300]
    pairs = [(None, context, continuation), (None, context, other), (None, context, continuation[:1])]
    got = lm._loglikelihood_tokens(pairs)
    assert (
        [greedy for _, greedy in got]
        == [True, False, True]
        == [greedy for _, greedy in hflm._loglikelihood_tokens(pairs)]
    )
    assert got[0][0] > got[1][0]


def test_rolling_log_likelihoods_are_those_of_hflm(prepared: Path, hflm: Any, open_engine: Any) -> None:
    asked = instances("loglikelihood_rolling", [(TEXT,), (TEXT * 8,)])
    got = open_engine(prepared / "f16.gguf").language_model(4).loglikelihood_rolling(asked)
    np.testing.assert_allclose(got, hflm.loglikelihood_rolling(asked), atol=0.05, rtol=1e-4)


def test_generations_are_those_of_hflm(prepared: Path, hflm: Any, open_engine: Any) -> None:
    contexts = ["the quick", "a cat sleeps near the warm", "dreams of small grey", "over"]
    settings: list[dict[str, Any]] = [
        {"until": ["\n"], "max_gen_toks": 12},
        {"until": "e", "max_gen_toks": 20},
        {"until": [], "max_gen_toks": 1},
    ]
    asked = instances("generate_until", [(context, s) for s in settings for context in contexts])
    ours = open_engine(prepared / "f16.gguf").language_model(3)
    assert ours.generate_until(asked) == hflm.generate_until(asked)
    theirs = TransformersLM(hflm.model, hflm.tokenizer, 4, "cpu")
    theirs.generate_until(asked)
    assert ours.truncated == theirs.truncated and any(ours.truncated)


def test_tokens_are_those_of_hflm(prepared: Path, hflm: Any, open_engine: Any) -> None:
    lm = open_engine(prepared / "f16.gguf").language_model(1)
    for text in ("the quick", "<s>the quick", " fox", ""):
        assert lm.tok_encode(text) == hflm.tok_encode(text)
        assert lm.tok_encode(text, add_special_tokens=False) == hflm.tok_encode(
            text, add_special_tokens=False
        )
    assert (lm.eot_token_id, lm.prefix_token_id, lm.max_length) == (
        hflm.eot_token_id,
        hflm.prefix_token_id,
        hflm.max_length,
    )


def test_sampling_is_refused(prepared: Path, open_engine: Any) -> None:
    lm = open_engine(prepared / "f16.gguf").language_model(1)
    with pytest.raises(CellFailure, match="greedily"):
        lm.generate_until(instances("generate_until", [("the", {"do_sample": True, "temperature": 1.0})]))


def test_a_field_that_the_library_lacks_is_not_set_in_silence() -> None:
    with pytest.raises(AssertionError, match="no field use_mmap"):
        assign(llama().llama_model_default_params(), use_mmap=True)


def test_a_gpu_without_a_build_for_it_is_not_installed(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama(), "llama_supports_gpu_offload", lambda: False)
    with pytest.raises(CellFailure, match="GGML_CUDA") as raised:
        Model(prepared / "f16.gguf", "cuda:0")
    assert raised.value.kind == "not_installed"


def test_the_kernel_says_what_multiplies(
    prepared: Path, quantized: Callable[..., Path], open_engine: Any
) -> None:
    plain, four = open_engine(prepared / "f16.gguf"), open_engine(quantized(4, type="Q4_0"))
    assert plain.kernel.startswith("llama.cpp CPU (") and "8-bit" not in plain.dtype and "8-bit" in four.dtype


def test_a_quantized_cache_is_smaller_and_diverges(
    prepared: Path, source: Path, token_ids: NDArray[np.int64]
) -> None:
    from quantlab.engines.llama_cpp import LlamaCppEngine

    found = {}
    for cache in ("f16", "q8_0", "q4_0"):
        engine = LlamaCppEngine(prepared / "f16.gguf", source, "cpu", cache=cache)
        engine.prefill(token_ids[:1])
        engine.decode(4)
        found[cache] = (engine.memory().kv_cache_bytes, engine.logits(token_ids[0]))
        assert engine.cache_dtype == cache and cache.replace("f16", "float16") in engine.dtype
        engine.close()
    values = 256 * 2 * 2 * 2 * 64  # cells, layers, keys and values, heads, width
    for cache, bits in (("f16", 16), ("q8_0", 8.5), ("q4_0", 4.5)):
        assert found[cache][0] == pytest.approx(values * bits / 8, abs=0.01 * 2**20)
    away = {cache: float(np.abs(logits - found["f16"][1]).mean()) for cache, (_, logits) in found.items()}
    assert 0 == away["f16"] < away["q8_0"] < away["q4_0"]


def test_what_a_decode_reads_is_the_file_without_the_embedding(prepared: Path, open_engine: Any) -> None:
    from quantlab.formats.gguf import stored_tensors

    tensors = {tensor.name: tensor.bytes for tensor in stored_tensors(prepared / "f16.gguf")}
    reads = open_engine(prepared / "f16.gguf").weight_reads()
    assert (
        "output.weight" in tensors
        and reads.always_bytes == sum(tensors.values()) - tensors["token_embd.weight"]
    )
    assert (reads.expert_bytes, reads.experts, reads.experts_per_token) == (0, 0, 0)


def test_experts_of_a_file_are_counted_apart() -> None:
    from quantlab.engines._llama.inside import reads_of
    from quantlab.formats.gguf import StoredTensor

    shapes = {
        "token_embd.weight": (64, 320, 1, 1),
        "blk.0.ffn_up_exps.weight": (64, 32, 8, 1),
        "blk.0.attn_q.weight": (64, 64, 1, 1),
    }
    tensors = [
        StoredTensor(name, "F16", 2 * int(np.prod(shape)), int(np.prod(shape)), shape)
        for name, shape in shapes.items()
    ]
    reads = reads_of(tensors, "2")  # without an output.weight the head is the embedding
    assert reads == (2 * 64 * 320 + 2 * 64 * 64, 2 * 64 * 32 * 8, 8, 2)
