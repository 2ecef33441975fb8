"""The vLLM engine over a stand-in that records what it is asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from stand_in_vllm import LLM, Tokenizer, install, open_engine

from quantlab import engines
from quantlab.apart.vllm_text import require_finite
from quantlab.engines._vllm import load
from quantlab.errors import CellFailure, QuantlabError
from quantlab.models import loading


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    return install(monkeypatch)


def test_the_cache_that_a_variant_asks_for_is_vllms_or_refused(fake: type[LLM]) -> None:
    open_engine(), open_engine(cache="fp8")
    assert [made.arguments.get("kv_cache_dtype") for made in fake.made] == [None, "fp8"]
    with pytest.raises(CellFailure, match="no quanto4 cache") as failure:
        open_engine(cache="quanto4")
    assert failure.value.kind == "unsupported" and len(fake.made) == 2


def test_it_is_loaded_without_what_would_make_a_figure_wrong(fake: type[LLM]) -> None:
    engine = open_engine()
    given = fake.made[0].arguments
    assert (given["model"], given["tokenizer"], given["tensor_parallel_size"]) == ("weights", "tokenizer", 1)
    assert given["enable_prefix_caching"] is False and given["trust_remote_code"] is False
    assert given["load_format"] == "safetensors" and "enforce_eager" not in given
    around = load.environment(load.places_of("cuda:0"))
    assert around["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0" and "CUDA_VISIBLE_DEVICES" not in around
    assert (engine.dtype, engine.cache_dtype, engine.context_tokens, engine.kernel) == (
        "bfloat16",
        "bfloat16",
        64,
        "vLLM: LinearMethod × 4",
    )
    assert engine.resident() == (500, 600)


@pytest.mark.parametrize(
    ("device", "before", "visible", "parallel"),
    [
        ("cuda:0,1", None, None, 2),
        ("cuda:1", None, "1", 1),
        ("cuda:2,0", None, "2,0", 2),
        ("cuda:1", "GPU-a,GPU-b", "GPU-b", 1),
        ("cuda:0", "3,4", "3", 1),
        ("cpu", None, None, 1),
    ],
)
def test_it_sees_the_gpus_that_were_asked_for(
    device: str,
    before: str | None,
    visible: str | None,
    parallel: int,
    fake: type[LLM],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if before:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    assert load.environment(load.places_of(device)).get("CUDA_VISIBLE_DEVICES") == visible
    opened = open_engine(device)
    assert fake.made[0].arguments["tensor_parallel_size"] == parallel == opened.parallel


@pytest.mark.parametrize("device", ["cuda:0,cpu", "cuda:0,disk", "cpu,disk"])
def test_it_runs_on_gpus_or_on_a_cpu(device: str, fake: type[LLM]) -> None:
    with pytest.raises(CellFailure, match="runs on GPUs or on a CPU") as failure:
        open_engine(device)
    assert failure.value.kind == "unsupported"


def test_on_a_cpu_nothing_is_compiled_and_threads_are_counted(fake: type[LLM]) -> None:
    engine = open_engine("cpu")
    given = fake.made[0].arguments
    assert given["enforce_eager"] is True and "gpu_memory_utilization" not in given
    assert isinstance(engine.threads, int) and open_engine().threads is None


def test_a_missing_vllm_is_recorded_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(load, "gpus", lambda: ())
    with pytest.raises(CellFailure) as failure:
        engines.load("vllm").open_device([])
    assert failure.value.kind == "not_installed"
    assert failure.value.reason == "vLLM is not installed: quantlab install vllm"
    monkeypatch.setattr(load, "gpus", lambda: ("a card",))
    with pytest.raises(CellFailure, match="quantlab install vllm --cpu"):
        engines.load("vllm").open_device([])
    assert engines.load("vllm").lacks() == ("vllm",) and engines.load("vllm").versions("cpu") == {}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Unknown quantization method: bitsandbytes.\nMust be one of ['awq']", "unsupported"),
        ("No available memory for the cache blocks", "does_not_fit"),
    ],
)
def test_what_vllm_refuses_is_recorded_in_its_words(
    said: str, kind: str, fake: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "refusal", ValueError(said))
    with pytest.raises(CellFailure) as failure:
        open_engine()
    assert (
        failure.value.kind == kind
        and said.split("\n")[0] in failure.value.reason
        and "\n" not in failure.value.reason
    )


def test_a_prefill_ends_with_the_first_token_of_every_sequence_and_a_decode_with_as_many_more(
    fake: type[LLM],
) -> None:
    engine = open_engine()
    core = fake.made[0].llm_engine
    engine.prefill(np.arange(20).reshape(2, 10))
    assert fake.made[0].steps == 1 and [r.made for r in core.requests.values()] == [1, 1]
    assert [r.prompt["prompt_token_ids"] for r in core.requests.values()] == [
        list(range(10)),
        list(range(10, 20)),
    ]
    params = next(iter(core.requests.values())).params
    assert (params.temperature, params.ignore_eos, params.max_tokens) == (0, True, 54)
    engine.decode(8)
    assert fake.made[0].steps == 9 and [r.made for r in core.requests.values()] == [9, 9]
    engine.prefill(np.arange(10).reshape(1, 10))
    assert len(core.aborted) == 2 and len(core.requests) == 1  # an empty cache each time


def test_sequences_that_the_cache_does_not_hold_at_once_are_refused(fake: type[LLM]) -> None:
    """vLLM would put some off and read them again later: another workload's speed."""
    engine = open_engine()
    with pytest.raises(CellFailure, match="51 sequences of 20 tokens are more than the 1,600") as failure:
        engine.prefill(np.zeros((51, 20), np.int64))  # two blocks of 16 each
    assert failure.value.kind == "does_not_fit"
    engine.prefill(np.zeros((49, 20), np.int64))
    with pytest.raises(CellFailure, match="49 sequences of 36 tokens"):
        engine.decode(16)


def test_a_decode_past_the_context_is_refused(fake: type[LLM]) -> None:
    engine = open_engine()
    engine.prefill(np.arange(60).reshape(1, 60))
    with pytest.raises(CellFailure, match="the context is full"):
        engine.decode(8)
    with pytest.raises(CellFailure, match="leaves no room"):
        engine.prefill(np.zeros((1, 64), np.int64))


def test_sequences_that_were_read_later_have_as_many_tokens_at_the_end(
    fake: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "budget", 1)
    engine = open_engine()
    engine.prefill(np.zeros((3, 8), np.int64))
    made = [r.made for r in fake.made[0].llm_engine.requests.values()]
    assert made == [3, 2, 1]
    engine.decode(4)
    assert [r.made for r in fake.made[0].llm_engine.requests.values()] == [7, 6, 5]  # four steps


def test_logits_are_the_log_probabilities_of_every_position_over_the_whole_vocabulary(
    fake: type[LLM],
) -> None:
    engine = open_engine()
    rows = engine.logits(np.array([3, 1, 4, 1, 5], np.int64))
    assert rows.dtype == np.float32 and np.array_equal(rows, fake.made[0].rows[:5])
    [(prompts, params)] = fake.made[0].asked
    assert prompts == [{"prompt_token_ids": [3, 1, 4, 1, 5]}]
    assert (params.prompt_logprobs, params.logprobs, params.max_tokens) == (-1, -1, 1)


def test_log_probabilities_that_are_no_numbers_are_no_words_left_out(fake: type[LLM]) -> None:
    """They go on as they are, and whoever compares them names the window."""
    engine = open_engine()
    fake.made[0].rows[1, 4] = np.nan
    assert np.isnan(engine.logits(np.array([3, 1, 4], np.int64))[1, 4])


@pytest.mark.parametrize("nats", [float("nan"), float("-inf")])
def test_an_answer_whose_log_probability_is_no_number_is_refused(nats: float) -> None:
    require_finite(SimpleNamespace(cumulative_logprob=-3.0))
    require_finite(SimpleNamespace())
    with pytest.raises(CellFailure, match="the log-probability of an answer is not finite"):
        require_finite(SimpleNamespace(cumulative_logprob=nats))


def test_memory_is_what_the_workers_say_and_the_blocks_that_are_held(fake: type[LLM]) -> None:
    engine = open_engine("cuda:0,1")
    engine.prefill(np.zeros((2, 20), np.int64))
    memory = engine.memory()
    assert memory.weights_bytes == 2000 and memory.by_device == {"cuda:0": 1000, "cuda:1": 1000}
    assert memory.kv_cache_bytes == 2 * 3200 * (2 * 32) // 1600  # 20 tokens are two blocks of 16
    assert [engines.load("vllm").cached_tokens(20, device) for device in ("cuda:0", "cpu")] == [32, 128]


def test_a_decode_reads_the_weights_of_every_worker_and_the_experts_that_the_config_names(
    fake: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SimpleNamespace(num_local_experts=8, num_experts_per_tok=2)
    config = SimpleNamespace(get_text_config=lambda decoder: text)
    monkeypatch.setattr(loading, "load_config", lambda *_: config)
    assert open_engine("cuda:0,1").weight_reads() == (1800, 160, 8, 2)


def test_texts_are_read_here_and_their_tokens_scored_there(fake: type[LLM]) -> None:
    engine = open_engine()
    rows = fake.made[0].rows
    answers = engine.language_model(2)._loglikelihood_tokens(
        [(("a", "b"), [1, 4], [5, 6]), (None, [1], [9]), (None, [1, 2, 3], [int(rows[2].argmax())])]
    )
    assert answers[0][0] == pytest.approx(float(rows[1][5] + rows[2][6]), abs=1e-6)
    assert answers[1] == (pytest.approx(float(rows[0][9]), abs=1e-6), bool(rows[0].argmax() == 9))
    assert answers[2][1] is True
    asked = [[prompt["prompt_token_ids"] for prompt in prompts] for prompts, _ in fake.made[0].asked]
    assert asked == [[[1, 4, 5, 6], [1, 9]], [[1, 2, 3, int(rows[2].argmax())]]]  # two at a time


def test_a_text_longer_than_the_context_loses_its_beginning(fake: type[LLM]) -> None:
    engine = open_engine()
    engine.language_model(1)._loglikelihood_tokens([(None, list(range(5, 11)) * 20, [3])])
    [(prompts, params)] = fake.made[0].asked
    ids = prompts[0]["prompt_token_ids"]
    assert len(ids) == 63 and ids[-2:] == [10, 3] and params.max_tokens == 1  # and one that vLLM makes: 64


def test_the_tokenizer_is_loaded_once(fake: type[LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(loading, "load_tokenizer", lambda path, _: loaded.append(str(path)) or Tokenizer())
    engine = open_engine()
    assert engine.language_model(1) is engine.language_model(4) and loaded == ["tokenizer"]


def test_it_is_chosen_only_by_name() -> None:
    assert engines.engine_for("safetensors") == "transformers" and engines.engine_for("gguf") == "llama_cpp"
    assert engines.engine_for("safetensors", "vllm") == "vllm"
    with pytest.raises(QuantlabError, match="reads no gguf checkpoints: use llama_cpp"):
        engines.engine_for("gguf", "vllm")
    with pytest.raises(QuantlabError, match="unknown engine"):
        engines.engine_for("safetensors", "vlm")
    assert all(set(e.runs_by_default) <= set(e.formats) for e in map(engines.load, engines.names()))
