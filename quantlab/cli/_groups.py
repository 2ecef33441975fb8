"""Gather related options of a command into one typed value, so that a command takes few parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]
Option = Callable[[Command], Command]


def grouped(parameter: str, make: Callable[..., Any], *options: Option) -> Option:
    """Add options to a command and pass their values, put together by `make`, as one parameter."""
    names = _named_by(options)

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def with_group(*args: Any, **values: Any) -> Any:
            group = make(**{name: values.pop(name) for name in names})
            return function(*args, **values, **{parameter: group})

        command: Command = with_group
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _named_by(options: tuple[Option, ...]) -> tuple[str, ...]:
    """Read the names of the parameters that the options make."""

    def nothing() -> None: ...

    for option in options:
        option(nothing)
    parameters: list[click.Parameter] = vars(nothing)["__click_params__"]
    return tuple(str(parameter.name) for parameter in parameters)


def context_option(default: str = "8k") -> Option:
    """`--context`, for commands that plan memory."""
    return click.option(
        "--context",
        default=default,
        show_default=True,
        help="Tokens in the cache of each sequence: 8192, 32k (32 × 1024) or 1M.",
    )


def batch_option(default: int | None, explained: str = "") -> Option:
    """`--batch`, for commands that plan memory."""
    return click.option(
        "--batch",
        type=click.IntRange(min=1, max=2**24),
        default=default,
        show_default=default is not None,
        help=f"Sequences at the same time.{explained}",
    )
