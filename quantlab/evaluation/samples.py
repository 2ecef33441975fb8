"""Read lm-eval's logged items as the values that a paired comparison needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.errors import unknown
from quantlab.evaluation.clusters import cluster_of
from quantlab.files import folder_beside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = {
    "task": "str",
    "subtask": "str",
    "doc_id": "int64",
    "doc_hash": "str",
    "prompt_hash": "str",
    "metric": "str",
    "value": "float64",
    "target": "str",
    "response": "str",
    "answer": "str",
    "cluster": "str",
    "answer_tokens": "Int64",
    "truncated": "boolean",
}
LOG_LIKELIHOOD = "loglikelihood"
"""A document's log-likelihood in nats, of tasks whose own metrics are perplexities of the whole set."""
_PERPLEXITIES = ("word_perplexity", "byte_perplexity", "bits_per_byte")
_COMPARED = ("acc_norm", "exact_match", "acc")
"""The metric that a comparison uses, the first of these that the task has; else the first that each item has
a value of."""

Sample = dict[str, Any]


def of_filter(samples: Sequence[Sample], task: str, wanted: str | None) -> list[Sample]:
    """The samples under one of lm-eval's filters, the task's first where none is named. Raises
    QuantlabError."""
    there = list(dict.fromkeys(str(s["filter"]) for s in samples))
    if wanted is not None and wanted not in there:
        raise unknown(f"filter of {task}", wanted, there)
    return [_with_likelihood(s) for s in samples if s["filter"] == (wanted or there[0])]


def _with_likelihood(sample: Sample) -> Sample:
    likelihood = next((sample[m] for m in _PERPLEXITIES if m in sample), None)
    if not isinstance(likelihood, tuple | list):
        return sample
    return {**sample, LOG_LIKELIHOOD: float(likelihood[0]), "metrics": [LOG_LIKELIHOOD, *sample["metrics"]]}


def metric_of(sample: Sample) -> str | None:
    """The metric that a comparison uses; None where the task has only figures of the whole set, such as
    BLEU."""
    known = [str(m) for m in sample["metrics"] if is_number(sample[m])]
    return next((m for m in _COMPARED if m in known), known[0] if known else None)


def is_number(value: Any) -> bool:
    """Whether an item has this value of its own."""
    return isinstance(value, int | float)


def choices_of(sample: Sample) -> int:
    """How many answers a multiple-choice item has; lm-eval asks each twice for the mutual information."""
    return len(sample["arguments"]) // (2 if "acc_mutual_info" in sample["metrics"] else 1)


def answer_of(sample: Sample, metric: str | None, config: Mapping[str, Any]) -> str:
    """What the model answered: the index of the choice that the metric takes, else the filtered response."""
    responses = sample["filtered_resps"]
    if config.get("output_type") != "multiple_choice":
        return json.dumps(responses[0] if len(responses) == 1 else responses, default=str)
    return str(int(_likelihoods(sample, metric, config).argmax()))


def is_tied(sample: Sample, metric: str | None, config: Mapping[str, Any]) -> bool:
    """Whether a multiple-choice item has more than one best choice by the metric; the first of them is
    taken."""
    likelihoods = _likelihoods(sample, metric, config)
    return int((likelihoods == likelihoods.max()).sum()) > 1


def _likelihoods(sample: Sample, metric: str | None, config: Mapping[str, Any]) -> NDArray[np.float64]:
    """Of each choice as the metric compares them: `acc_norm` divides by the length in characters, as lm-eval
    does."""
    import numpy as np

    delimiter = str(config.get("target_delimiter", " "))
    asked = sample["arguments"][: choices_of(sample)]
    lengths = [max(1, len(str(arguments[1]).removeprefix(delimiter))) for arguments in asked]
    likelihoods = np.array(
        [float(response[0]) for response in sample["filtered_resps"][: len(lengths)]], dtype=np.float64
    )
    return likelihoods / np.array(lengths) if metric == "acc_norm" else likelihoods


def answer_tokens(
    sample: Sample, count: Callable[[str], int] | None, config: Mapping[str, Any]
) -> int | None:
    """Tokens of a generated answer's text, before any filter; None where nothing is generated or they cannot
    be counted."""
    return (
        count(str(sample["resps"][0][0])) if count and config.get("output_type") == "generate_until" else None
    )


def rows_of(task: str, sample: Sample, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per metric that the item has a value of."""
    metrics = [str(m) for m in sample["metrics"] if is_number(sample[m])]
    common = {
        "task": task,
        "subtask": sample["subtask"],
        "doc_id": int(sample["doc_id"]),
        "doc_hash": str(sample["doc_hash"]),
        "prompt_hash": str(sample["prompt_hash"]),
        "target": str(sample["target"]),
        "response": json.dumps(sample["filtered_resps"], default=str),
        "cluster": cluster_of(sample),
        "answer_tokens": sample["answer_tokens"],
        "truncated": sample.get("truncated"),
    }
    return [
        common | {"metric": m, "value": float(sample[m]), "answer": answer_of(sample, m, config)}
        for m in metrics
    ]


def write_samples(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write samples.parquet whole; with no rows it still has its columns."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)
    with folder_beside(path) as folder:
        frame.to_parquet(folder / path.name, index=False)
        (folder / path.name).replace(path)
