"""The endpoint command: what it refuses, what it writes, and that a key is in nothing of it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

sys.path.insert(0, str(Path(__file__).parents[1] / "endpoint"))
from servers import MODELS, Request, Server, answer, begin, chat_event, good_chat, openai, piece

KEY = "sk-test-0123456789abcdef"
SHORT = (
    "--requests",
    "4",
    "--concurrency",
    "1,2",
    "--prompt-tokens",
    "20",
    "--decode-tokens",
    "4",
    "--timeout",
    "20",
)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(openai(good_chat))
    yield made
    made.close()


def test_a_measurement_is_written_and_printed(
    quantlab: Callable[..., Result], server: Server, here: Path
) -> None:
    result = quantlab("endpoint", server.url, *SHORT, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    folder = here / "reports" / "endpoints" / f"127.0.0.1-{server.port}--tiny"
    assert record == json.loads((folder / "endpoint.json").read_text())
    assert [level["summary"]["good"] for level in record["levels"]] == [4, 4]
    assert "| 2 | 4 / 4 |" in (folder / "endpoint.md").read_text()
    assert sorted(p.name for p in folder.iterdir()) == ["endpoint.json", "endpoint.md"]


def test_the_page_is_what_a_person_sees(quantlab: Callable[..., Result], server: Server, here: Path) -> None:
    result = quantlab("endpoint", server.url, *SHORT, "--out", "mine", "-q")
    assert result.exit_code == 0
    assert result.stdout.startswith((here / "mine" / "endpoint.md").read_text())


def test_a_server_that_is_down_is_recorded_and_ends_with_code_2(
    quantlab: Callable[..., Result], server: Server, here: Path
) -> None:
    server.close()
    result = quantlab("endpoint", server.url, *SHORT, "--model", "tiny", "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "not_measured" and "unreachable" in error["message"]
    record = json.loads((here / f"reports/endpoints/127.0.0.1-{server.port}--tiny/endpoint.json").read_text())
    assert record["fault"]["kind"] == "unreachable" and record["levels"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("http://u:hunter22@h",), "credentials"),
        (("u:hunter22@h:80/v1",), "credentials"),
        (("hunter22:x",), "only http and https"),
        (("http://h", "u:hunter22@h"), "one URL is expected"),
        (("http://h", "--key-env", "hunter22"), "is empty"),
        (("ftp://h",), "only http and https"),
        *(
            (("http://h", "--timeout", wrong), "timeout")
            for wrong in ("nan", "inf", "-inf", "1e308", "-1", "x")
        ),
        *(
            (("http://h", option, wrong), option)
            for option in ("--requests", "--prompt-tokens", "--decode-tokens", "--items", "--seed")
            for wrong in ("nan", "inf", "-1", "1e3", "9" * 30, "")
        ),
        (("http://h", "--concurrency", "nan"), "write numbers"),
        (("http://h", "--concurrency", "9" * 30), "write numbers"),
        (("http://h", "--concurrency", ""), "write numbers"),
        (("http://h", "--concurrency", "1,x"), "write numbers"),
        (("http://h", "--concurrency", "0"), "write numbers"),
        (("http://h", "--key-env", "NO_SUCH_VARIABLE"), "is empty"),
        (("http://h", "--timeout", "0"), "timeout"),
        (("http://h", "--api", "grpc"), "grpc"),
        (("http://h/v1/completions", "--api", "ollama"), "change one of them"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], said: str, refused: Callable[..., str]) -> None:
    line = refused("endpoint", *arguments)
    assert said in line and "hunter22" not in line


def test_several_models_are_listed(refused: Callable[..., str]) -> None:
    async def two(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, '{"data": [{"id": "b-model"}, {"id": "a-model"}]}')

    server = Server(two)
    assert "a-model, b-model" in refused("endpoint", server.url)
    server.close()


@pytest.mark.parametrize("how", ["good", "refusing", "error", "models", "malformed", "header"])
def test_a_key_that_the_server_sends_back_is_written_nowhere(
    how: str,
    quantlab: Callable[..., Result],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Servers that put what they were sent into everything that they answer."""
    caplog.set_level(0)

    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        said = request.headers.get("authorization", "")
        if request.path == "/v1/models":
            await answer(
                writer, json.dumps({"data": [{"id": f"model {said}"}]}) if how == "models" else MODELS
            )
        elif how == "refusing":
            await answer(writer, json.dumps({"error": {"message": f"{'x' * 190} {said} is no key"}}), 401)
        elif how == "header":
            await answer(writer, "", 302, more=f"Location: http://elsewhere/{said}\r\n")
        elif how == "malformed":
            await begin(writer)
            await piece(writer, f"data: {'y' * 60} {said}\n\n")
        elif how == "error":
            await begin(writer)
            await piece(
                writer, chat_event(f" {said}") + f'data: {{"error": {{"message": "{said} failed"}}}}\n\n'
            )
        else:
            await begin(writer)
            await piece(
                writer,
                "".join(chat_event(f" {said}", finish=f"stop {said}") for _ in range(4)) + "data: [DONE]\n\n",
            )

    server = Server(echo)
    monkeypatch.setenv("MY_KEY", KEY)
    shown = []
    for form in ((), ("--json",)):
        result = quantlab("endpoint", server.url, *SHORT, "--key-env", "MY_KEY", "--out", "out", *form)
        shown.append(result.output + result.stderr + repr(result.exception))
    server.close()
    assert any(r.headers.get("authorization") == f"Bearer {KEY}" for r in server.seen)
    written = [p for p in here.rglob("*") if p.is_file()]
    assert len(written) == 2
    for text in (*shown, *(p.read_text() for p in written), *(str(p) for p in written), caplog.text):
        assert not any(KEY[i : i + 8] in text for i in range(3, len(KEY) - 7)), (
            "a part of the key was written"
        )
    record = json.loads((here / "out" / "endpoint.json").read_text())
    assert (record["fault"] is None) == (how in ("good", "models"))


@pytest.mark.slow
def test_tasks_through_a_server_that_sends_the_key_back(
    quantlab: Callable[..., Result], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generative task over a scripted server; its answers have the key in them, and no file has."""
    (here / "docs.jsonl").write_text('{"q": "say it", "a": "x"}\n{"q": "say more", "a": "y"}\n')
    task = {
        "task": "say",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(here / "docs.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
    }
    (here / "say.yaml").write_text(json.dumps(task))

    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.json.get("stream"):
            await good_chat(request, writer)
        else:
            said = (
                "x"
                if request.json["messages"][0]["content"] == "say it"
                else request.headers["authorization"]
            )
            await answer(writer, json.dumps({"choices": [{"index": 0, "message": {"content": said}}]}))

    server = Server(openai(echo))
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = quantlab(
        "endpoint", server.url, *SHORT, "--key-env", "MY_KEY", "--tasks", "say.yaml", "--out", "out", "--json"
    )
    server.close()
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)["tasks"]["say"]
    assert (
        outcome["failure"] is None
        and outcome["result"]["score"]["value"] == 0.5
        and outcome["result"]["score"]["n"] == 2
    )
    import pandas as pd

    written = pd.read_parquet(here / "out" / "samples.parquet").to_json()
    assert "[key]" in written and KEY not in written
    for path in (p for p in (here / "out").rglob("*") if p.is_file()):
        assert KEY.encode() not in path.read_bytes()
    assert KEY not in result.output


def test_a_task_that_there_is_not_is_refused_before_anything_is_asked(
    refused: Callable[..., str], server: Server
) -> None:
    assert "no task file nope.yaml" in refused("endpoint", server.url, "--tasks", "nope.yaml")
    assert server.seen == []


UNSAFE = "unsafe_code: true"
FILES = {
    "itself": f"{{task: a, {UNSAFE}}}",
    "included": "{include: unsafe_base, task: a}",
    "member": f"{{group: g, task: [{{task: a}}, {{task: b, {UNSAFE}}}]}}",
    "of_lm_eval": "{group: g, task: [piqa, humaneval]}",
    "changed": "{group: g, task: [{task: mbpp, num_fewshot: 0}]}",
}


@pytest.mark.parametrize("how", FILES)
def test_a_task_that_runs_the_models_code_is_refused_before_anything_is_sent(
    how: str, refused: Callable[..., str], server: Server, here: Path
) -> None:
    (here / "unsafe_base").write_text(UNSAFE)
    (here / "task.yaml").write_text(FILES[how])
    (here / "other.yaml").write_text("{task: other}")
    line = refused("endpoint", server.url, "--tasks", "other.yaml,task.yaml")
    name = {"member": "b", "of_lm_eval": "humaneval", "changed": "mbpp"}.get(how, "a")
    assert f"scoring {name} runs code that the model wrote" in line and "--tasks" in line
    assert server.seen == []


@pytest.mark.parametrize("name", ["humaneval_instruct", "humaneval_infilling"])
def test_so_is_lm_evals_own_and_a_group_of_them(
    name: str, refused: Callable[..., str], server: Server
) -> None:
    assert "runs code that the model wrote" in refused("endpoint", server.url, "--tasks", f"piqa,{name}")
    assert server.seen == []
