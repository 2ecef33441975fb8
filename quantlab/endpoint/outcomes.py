"""Turn what a task's items were answered into its outcome, and into what a reader of its score must know."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quantlab.endpoint.answers import ItemAnswer
from quantlab.endpoint.client import LONGEST_MESSAGE
from quantlab.errors import CellFailure
from quantlab.evaluation.tasks import AskedTask
from quantlab.records import Failure
from quantlab.records.endpoint import LostItem, TaskOutcome

if TYPE_CHECKING:
    from quantlab.endpoint.models import Collected


def outcome_of(
    task: Any, result: dict[str, Any], collected: Collected
) -> tuple[TaskOutcome, list[dict[str, Any]]]:
    """The result in the evaluate stage's shape, and its samples.

    Answers that are all empty have no result: that is the server's way of answering, and no score of 0."""
    from quantlab.evaluation.answers import answers_of, result_of
    from quantlab.evaluation.samples import rows_of

    answers = answers_of(result, [AskedTask(task.task_name, (task,))])
    rows = [
        row
        for sample in answers.samples[task.task_name]
        for row in rows_of(task.task_name, sample, answers.configs[task.task_name])
    ]
    texts = collected.answers() if task.OUTPUT_TYPE == "generate_until" else None
    failure = _all_empty(texts or [])
    outcome = TaskOutcome(
        result=None if failure else result_of(task.task_name, answers),
        failure=failure,
        lost=tuple(LostItem(doc_id=item, reason=reason) for item, reason in sorted(collected.lost.items())),
        truncated=None if texts is None else sum(text.truncated for text in texts),
        empty=None if texts is None else sum(text.empty for text in texts),
        whole=None if texts is None else sum(not (text.truncated or text.empty) for text in texts),
        reasoning=None if texts is None else sum(text.reasoning for text in texts),
        resumed=collected.kept.taken if collected.kept else 0,
    )
    return outcome, rows


def _all_empty(texts: Sequence[ItemAnswer]) -> Failure | None:
    if not texts or not all(text.empty for text in texts):
        return None
    said = f"all {len(texts)} answers are empty"
    if cut := sum(text.truncated for text in texts):
        said += (
            f", {cut} of them cut at their greatest length: a task file with a larger max_gen_toks leaves"
            " room for reasoning"
        )
    return Failure.of(CellFailure("not_measured", said))


def crash_of(error: Exception) -> TaskOutcome:
    """The outcome of a task whose own code, or lm-eval's, raised something."""
    traceback.print_exception(error)  # into the log of the tasks
    said = " ".join(
        "".join(c if c.isprintable() else " " for c in f"{type(error).__name__}: {error}").split()
    )
    return TaskOutcome(failure=Failure(kind="crashed", reason=said[:LONGEST_MESSAGE]))


def notes_of(outcomes: Mapping[str, TaskOutcome]) -> tuple[str, ...]:
    """What a reader of the tasks' scores must know."""
    return tuple(f"{name}: {note}" for name, outcome in outcomes.items() for note in _notes(outcome))


def _notes(outcome: TaskOutcome) -> list[str]:
    notes = []
    if outcome.lost:
        listed = ", ".join(str(item.doc_id) for item in outcome.lost[:8]) + (
            ", ..." if len(outcome.lost) > 8 else ""
        )
        first, count = outcome.lost[0], f"{len(outcome.lost)} item" + ("s" if len(outcome.lost) > 1 else "")
        notes.append(f"{count} without an answer, in no figure ({listed}); {first.doc_id}: {first.reason}")
    if outcome.resumed:
        notes.append(f"{outcome.resumed} answers are from an earlier run that was interrupted.")
    n = outcome.result.score.n if outcome.result else 0
    if n and outcome.whole == 0:
        notes.append("every answer is cut or empty: the score says more of their length than of the model.")
    if n and outcome.truncated:
        notes.append(
            f"{outcome.truncated} of {n} answers were cut before their end, and scored as they were."
        )
    if n and outcome.empty:
        notes.append(f"{outcome.empty} of {n} answers are empty, and scored as wrong.")
    if n and outcome.reasoning:
        notes.append(f"{outcome.reasoning} of {n} answers came with reasoning text, which is not scored.")
    return notes
