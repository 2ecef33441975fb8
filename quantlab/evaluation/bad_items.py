"""Describe in one line why an item of a task failed, and separate that from failures of the whole cell."""

from __future__ import annotations

import traceback
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from quantlab.errors import CellFailure, FailureKind, QuantlabError
from quantlab.outside import as_failure

_OF_THE_CELL: tuple[FailureKind, ...] = (
    "not_installed",
    "does_not_fit",
    "out_of_memory",
    "disk_full",
    "killed",
)
_LONGEST = 200


def is_of_the_cell(error: Exception) -> bool:
    """Whether an error would meet every other item too: no memory, a device that is lost, a mistake of the
    user's."""
    failure = as_failure(error)
    if failure is not None:
        return failure.kind in _OF_THE_CELL
    return isinstance(error, QuantlabError | OSError) or "CUDA error" in str(error)


def failure_of(error: Exception, where: str, why: str | None = None) -> CellFailure:
    """The failure of one task; the traceback of what nobody expected goes to the stage's log."""
    if isinstance(error, CellFailure):
        return CellFailure(error.kind, f"{where}: {error.reason}")
    traceback.print_exception(error)
    return CellFailure("unsupported" if why else "crashed", f"{where}: {why or in_words(error)}")


def in_words(error: Exception) -> str:
    """An exception on one line; an assertion without a message shows what it asserts."""
    frames = traceback.extract_tb(error.__traceback__)
    text = " ".join(str(error).split()) or (frames[-1].line if frames else "") or ""
    return f"{type(error).__name__}: {text}"[:_LONGEST]


def reason_of(lm: Any, kind: str, request: Any) -> str | None:
    """Why a language model cannot take a request, where its lengths say so: at a context's edge lm-eval
    asserts, and names no item."""
    longest = int(lm.max_length)
    if kind == "generate_until":
        limit = int(normalize_gen_kwargs(request.args[1], lm.max_gen_toks)["max_gen_toks"])
        fits = limit < longest
        return (
            None
            if fits
            else (
                f"{limit:,} tokens of an answer are asked for, the model's context has {longest:,}: ask for"
                " fewer"
            )
        )
    if kind == "loglikelihood":
        context, continuation = str(request.args[0]), str(request.args[1])
        try:
            whole, before = (
                lm.tok_encode(context + continuation),
                lm.tok_encode(context.rstrip()) if context else [],
            )
        except Exception as error:  # a tokenizer may raise anything, and what it says is the reason
            return f"its text cannot be tokenized ({in_words(error)})"
        tokens = len(whole) - len(before)
        if tokens < 1:
            return "a choice has no tokens of its own"
        if tokens > longest:
            return f"a choice has {tokens:,} tokens, the model's context {longest:,}"
    return None
