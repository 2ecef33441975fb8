"""Every option of every command that takes a number takes a finite one."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest

from quantlab.cli import main
from quantlab.cli._numbers import Finite

COMMANDS = main.list_commands(click.Context(main))


def _options(name: str) -> list[click.Option]:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


FLOATS = [
    (name, option)
    for name in COMMANDS
    for option in _options(name)
    if isinstance(option.type, click.types.FloatParamType)
]


def test_they_are_found() -> None:
    assert {(name, option.opts[0]) for name, option in FLOATS} >= {
        ("check", "--max-drop"),
        ("cost", "--power-price"),
        ("endpoint", "--timeout"),
    }


@pytest.mark.parametrize(
    ("name", "option"), FLOATS, ids=[f"{name}{option.opts[0]}" for name, option in FLOATS]
)
def test_none_takes_nan_infinity_or_less_than_nothing(name: str, option: click.Option) -> None:
    assert isinstance(option.type, Finite)
    for text in ("nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-1", "-1e-9", "x", ""):
        with pytest.raises(click.BadParameter):
            option.type.convert(text, option, None)


@pytest.mark.parametrize(
    "line",
    [
        "check . --max-drop nan",
        "recommend --vram 24GB --max-drop nan",
        "recommend --vram 24GB --min-speed inf",
        "cost smollm2 gptq-4 --gpu h100 --tokens-per-month 5M --price-per-hour inf",
        "cost smollm2 gptq-4 --gpu h100 --tokens-per-month 5M --input-share nan",
        "cost smollm2 gptq-4 --gpu h100 --tokens-per-month 5M --hours nan",
        "cost smollm2 gptq-4 --gpu h100 --tokens-per-month nan",
        "recommend --vram nanGB",
        "plan smollm2 --context nan",
        "endpoint http://127.0.0.1:1 --timeout nan",
    ],
)
def test_it_is_one_line_and_code_2(refused: Callable[..., str], line: str) -> None:
    assert refused(*line.split())
