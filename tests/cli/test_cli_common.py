"""How commands end: one JSON object or one line, and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from quantlab.cli._common import Context, common, to_json
from quantlab.errors import CellFailure, QuantlabError
from quantlab.processes import Ended
from quantlab.records import Estimate


def command(raises: BaseException | None = None, returns: Any = None) -> click.Command:
    """A command that prints, then returns or raises."""

    @click.command()
    @click.option("--name", default="n")
    @common
    def run(ctx: Context, name: str) -> Any:
        click.echo(f"noise for {name}, quiet {ctx.quiet}")
        if raises:
            raise raises
        return returns

    return run


def invoke(found: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(found, list(arguments))


def test_json_is_the_only_thing_on_stdout() -> None:
    result = invoke(
        command(returns={"a": Estimate(value=1.5, standard_error=None, n=3), "b": Path("x")}),
        "--json",
        "--quiet",
    )
    assert json.loads(result.stdout) == {"a": {"value": 1.5, "standard_error": None, "n": 3}, "b": "x"}
    assert result.stderr == "noise for n, quiet True\n"
    assert result.exit_code == 0


def test_without_json_the_result_is_not_printed() -> None:
    assert invoke(command(returns={"a": 1}), "--name", "m").stdout == "noise for m, quiet False\n"


def test_a_record_alone_is_an_object() -> None:
    result = invoke(command(returns=Estimate(value=2.0, standard_error=0.5, n=9)), "--json")
    assert json.loads(result.stdout) == {"value": 2.0, "standard_error": 0.5, "n": 9}


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (QuantlabError("wrong:\n  mend it"), "usage", 2),
        (CellFailure("does_not_fit", "wrong: mend it"), "does_not_fit", 2),
    ],
    ids=["mistake", "failure"],
)
def test_what_the_user_can_mend_is_one_line_and_code_2(error: Exception, kind: str, code: int) -> None:
    result = invoke(command(error))
    assert (result.exit_code, result.stderr) == (code, "quantlab: wrong: mend it\n")
    scripted = invoke(command(error), "--json")
    assert scripted.exit_code == code
    assert json.loads(scripted.stdout) == {"error": {"kind": kind, "message": "wrong: mend it"}}


def test_an_interrupt_is_code_130() -> None:
    result = invoke(command(KeyboardInterrupt()), "--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["error"]["kind"] == "interrupted"


def test_a_bug_keeps_its_traceback_and_a_script_gets_its_object() -> None:
    result = invoke(command(KeyError("k")), "--json")
    assert isinstance(result.exception, KeyError)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["kind"] == "bug"


def test_a_number_that_json_cannot_say_is_a_bug_and_not_printed_as_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"a": float("nan")})


def test_what_children_and_c_code_print_goes_to_stderr() -> None:
    code = """
import os, click
from quantlab.cli._common import common

@click.command()
@common
def run(ctx):
    os.system("echo child"); os.write(1, b"raw"); print("python")
    return {"a": 1}

run(["--json"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"a": 1}
    for part in ("child", "raw", "python"):
        assert part in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(28, "No space left on device"),
            "the disk was full: [Errno 28] No space left on device; the next run tries it again",
        ),
        (
            OSError(30, "Read-only file system", "env"),
            "env cannot be used: Read-only file system; work in a folder that you may write to",
        ),
    ],
)
def test_a_disk_that_takes_nothing_is_one_line(error: OSError, said: str) -> None:
    result = invoke(command(raises=error))
    assert result.exit_code == 2 and result.stderr == f"quantlab: {said}\n"


def test_a_signal_has_its_exit_code() -> None:
    result = invoke(command(raises=Ended(15)), "--json")
    assert result.exit_code == 143
    assert json.loads(result.stdout) == {
        "error": {"kind": "interrupted", "message": "interrupted by SIGTERM"}
    }
