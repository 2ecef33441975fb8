"""Give every command `--json` and `--quiet`, and turn how it ends into one line and an exit code.

A command is written as `f(ctx: Context, **options)` under `@common`. It prints for a person with `say` unless
`ctx.json` is set, and returns what `--json` prints: a mapping or a pydantic model.

| ending | stderr | stdout under `--json` | exit code |
|---|---|---|---|
| done | | the command's object | 0 |
| QuantlabError, CellFailure, wrong usage | `quantlab: ...`, one line | `{"error": {"kind": ..., "message": ...}}` | 2 |
| SIGINT, SIGTERM, SIGHUP | `quantlab: interrupted by SIGTERM` | the same, kind `interrupted` | 130, 143, 129 |
| a bug in quantlab | the traceback | the same, kind `bug` | 1 |

`kind` is `usage`, `interrupted`, `bug` or one of `quantlab.errors.FailureKind`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO, TypeVar

import click

from quantlab.errors import CellFailure, QuantlabError
from quantlab.inert import one_line, plain, plain_json
from quantlab.outside import disk_full
from quantlab.processes import Ended, end_with_dvc, ended_by_signals

QUIET = "QUANTLAB_QUIET"
"""Set in the environment of the stages that a quiet command runs."""
F = TypeVar("F", bound=Callable[..., Any])


class Context(NamedTuple):
    """The output that the user asked for."""

    json: bool
    """Print one JSON object on stdout, and nothing else there."""
    quiet: bool
    """Show no progress."""


class Ending(NamedTuple):
    """The result of a command with an exit code of its own, such as a gate that does not pass."""

    value: Any
    code: int


def common(function: Callable[..., Any]) -> Callable[..., None]:
    """Give a command `--json` and `--quiet`, and turn how it ends into output and an exit code (the module's
    table)."""

    @click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else there."
    )
    @click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, quiet: bool, **options: Any) -> None:
        ctx = Context(as_json, quiet or bool(os.environ.get(QUIET)))
        with ending(as_json), ended_by_signals(), _clean_stdout(as_json) as stdout:
            end_with_dvc()
            result = function(ctx, *args, **options)
            value, code = result if isinstance(result, Ending) else (result, 0)
            if as_json:
                print(to_json(value), file=stdout, flush=True)
            if code:
                raise SystemExit(code)

    return command


def say(text: str = "", *, mark: str = "", err: bool = False, nl: bool = True, **style: Any) -> None:
    """Print text for a person, control characters as their escapes; `mark` comes before it and is printed as it
    is."""
    click.echo(mark + (click.style(plain(text), **style) if style else plain(text)), err=err, nl=nl)


def to_json(value: Any) -> str:
    """Format a mapping, a list or a pydantic model as JSON. Raises ValueError for NaN and infinity."""
    return plain_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump_json"):
        return json.loads(value.model_dump_json())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


@contextlib.contextmanager
def ending(as_json: bool) -> Iterator[None]:
    """Turn an exception of the block into a message and an exit code; a bug keeps its traceback."""
    stdout = sys.stdout
    try:
        yield
    except CellFailure as error:
        fail(error.kind, str(error), 2, as_json, stdout)
    except QuantlabError as error:
        fail("usage", str(error), 2, as_json, stdout)
    except Ended as error:
        fail("interrupted", str(error), error.exit_code, as_json, stdout)
    except KeyboardInterrupt:
        fail("interrupted", "interrupted", 130, as_json, stdout)
    except OSError as error:
        kind, said = _of_the_disk(error)
        if kind == "bug":
            if as_json:
                _print_error(kind, said, stdout)
            raise
        fail(kind, said, 2, as_json, stdout)
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:  # a bug: a script still gets its one object, and the traceback goes on its way
        if as_json:
            _print_error("bug", f"{type(error).__name__}: {error}", stdout)
        raise


def _of_the_disk(error: OSError) -> tuple[str, str]:
    """Classify an error of the file system, and word it for a person."""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return (
            "usage",
            (
                f"{error.filename or 'a file'} cannot be used: {error.strerror}; work in a folder that you"
                " may write to"
            ),
        )
    full = disk_full(error)
    return (full.kind, str(full)) if full else ("bug", f"{type(error).__name__}: {error}")


def fail(kind: str, message: str, code: int, as_json: bool, stdout: TextIO | None = None) -> NoReturn:
    """Say one line on stderr (and the error object on stdout under `--json`), then leave with the code."""
    line = one_line(message)
    print(f"quantlab: {line}", file=sys.stderr, flush=True)
    if as_json:
        _print_error(kind, line, stdout or sys.stdout)
    raise SystemExit(code)


def _print_error(kind: str, message: str, stdout: TextIO) -> None:
    print(to_json({"error": {"kind": kind, "message": message}}), file=stdout, flush=True)


@contextlib.contextmanager
def _clean_stdout(as_json: bool) -> Iterator[TextIO]:
    """Yield the real stdout; under `--json` send everything else that prints, C code and child processes
    included, to stderr."""
    if not as_json:
        yield sys.stdout
        return
    sys.stdout.flush()
    own, python_stdout = os.dup(1), sys.stdout
    real = _stream_of(python_stdout, own)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield real
    finally:
        real.flush()
        os.dup2(own, 1)
        os.close(own)


def _stream_of(stdout: TextIO, descriptor: int) -> TextIO:
    """A stream onto a copy of stdout's descriptor, or stdout itself where it is not a file (a test's buffer)."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if stdout.fileno() == 1:
            return os.fdopen(descriptor, "w", encoding="utf-8", closefd=False)
    return stdout
