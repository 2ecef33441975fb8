"""The help teaches, and reading it imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import Result

from quantlab.cli import main
from quantlab.cli._group import short_help

HEAVY = ("torch", "pandas", "pydantic", "transformers", "numpy", "yaml", "rich", "lm_eval", "dvc")
COMMANDS = main.list_commands(click.Context(main))


def _loaded(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_imports_nothing_heavy_and_no_command() -> None:
    loaded = _loaded(
        "import json, sys\nfrom quantlab.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit as"
        " end:\n    assert end.code == 0\nprint(json.dumps(list(sys.modules)))"
    )
    assert not loaded & set(HEAVY)
    assert {name for name in loaded if name.startswith("quantlab.cli.")} == {
        "quantlab.cli._common",
        "quantlab.cli._group",
    }


def test_importing_every_command_imports_nothing_heavy() -> None:
    imports = "\n".join(f"import quantlab.cli.{name.replace('-', '_')}" for name in COMMANDS)
    assert not _loaded(f"import json, sys\n{imports}\nprint(json.dumps(list(sys.modules)))") & set(HEAVY)


def test_help_names_every_command_with_its_line_and_gives_examples(quantlab: Callable[..., Result]) -> None:
    result = quantlab("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.output
    for part in ("Run:", "Stages", "Examples:", "quantlab run smollm2 --method gguf --bits 4"):
        assert part in result.output
    assert "More:" not in result.output, "a command stands in no section"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_json_and_quiet(
    command: str, quantlab: Callable[..., Result]
) -> None:
    assert short_help(command).endswith(".")
    result = quantlab(command, "--help")
    assert result.exit_code == 0
    for part in (f"Usage: quantlab {command}", "--json", "--quiet"):
        assert part in result.output


def test_no_command_shows_the_help(quantlab: Callable[..., Result]) -> None:
    assert quantlab().output == quantlab("--help").output


def test_the_version_is_printed(quantlab: Callable[..., Result]) -> None:
    from quantlab import __version__

    assert __version__ in quantlab("--version").output


def test_wrong_usage_is_one_line_with_the_nearest_first(refused: Callable[..., str]) -> None:
    assert "unknown command 'lst': known are list, " in refused("lst")
    assert "unknown option '--onlne': known are --online, " in refused("doctor", "--onlne")
    assert "Missing argument" in refused("show")
    assert "unexpected extra argument" in refused("list", "models", "methods")
    assert "unknown option '--verson'" in refused("--verson")
