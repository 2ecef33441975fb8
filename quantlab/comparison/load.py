"""Load all records of a model, its per-item results, its recipe and the device.

Every table and plot is made from this value alone. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from quantlab import engines, methods
from quantlab.errors import FailureKind, QuantlabError
from quantlab.names import BASELINE as BASELINE
from quantlab.names import Variant, parse_variant
from quantlab.parsing import read_object
from quantlab.recipe import Recipe
from quantlab.records import (
    STAGES,
    DivergenceRecord,
    Failure,
    MeasureRecord,
    QuantizeRecord,
    Record,
    SensitivityRecord,
    StageName,
    TaskRecord,
)
from quantlab.workspace.prepared import Prepared, Source, Text
from quantlab.workspace.results import as_stale, is_stale, read_record, variants_in

RECIPE = "recipe.yaml"
"""The recipe's copy beside a report, so that the folder can be judged wherever it is."""
_MOST_ROWS = 50_000_000
SAMPLE_COLUMNS = ("task", "doc_id", "doc_hash", "metric", "value")


class VariantRecords(NamedTuple):
    """What is known of one variant; None where a stage left no record."""

    variant: Variant
    quantize: QuantizeRecord | None
    measure: MeasureRecord | None
    divergence: DivergenceRecord | None
    tasks: TaskRecord | None
    sensitivity: SensitivityRecord | None
    samples: pd.DataFrame | None
    """Per-item results, one row per item and metric: SAMPLE_COLUMNS and more."""

    @property
    def slug(self) -> str:
        return self.variant.slug

    @property
    def records(self) -> dict[StageName, Record]:
        """The records that there are, by stage."""
        stages: dict[StageName, Record | None] = {
            "quantize": self.quantize,
            "measure": self.measure,
            "diverge": self.divergence,
            "evaluate": self.tasks,
            "sensitivity": self.sensitivity,
        }
        return {stage: record for stage, record in stages.items() if record is not None}

    @property
    def failure(self) -> Failure | None:
        """Why there is no checkpoint to measure; None where there is one."""
        return self.quantize.failure if self.quantize else None

    def notes(self, *stages: StageName) -> tuple[str, ...]:
        """What the records of these stages say that a reader must know."""
        return tuple(
            dict.fromkeys(
                note for stage in stages if stage in self.records for note in self.records[stage].notes
            )
        )

    def why_not(self, stage: StageName) -> str:
        """Why a number of this stage is missing, in words."""
        record = self.records.get(stage)
        failure = self.failure or (record.failure if record else None)
        if failure:
            return failure_text(failure)
        return f"the {stage} stage left no such number" if record else f"the {stage} stage has left no record"


def why_no_task(variant: VariantRecords, task: str) -> str:
    """Why a variant has no result of a task, in words."""
    failed = variant.tasks.failed.get(task) if variant.tasks and not variant.failure else None
    return failure_text(failed) if failed else variant.why_not("evaluate")


class ModelRecords(NamedTuple):
    """Everything that a report is made from."""

    model: str
    recipe: Recipe
    device: dict[str, Any]
    """env/device.json; empty where there is none."""
    source: Source | None
    """The pinned source as it was prepared; None where this workspace does not hold it."""
    text: Text | None
    """Provenance of the token ids; None where this workspace does not hold it."""
    reference: dict[str, Any]
    """references/<model>/reference.json; empty where this workspace does not hold it."""
    variants: dict[str, VariantRecords]
    """By slug: the baseline first, then by method and from most to fewest bits."""

    def sixteen_bit(self, engine: str | None) -> VariantRecords | None:
        """The 16-bit variant of an engine where it has records."""
        return self.variants.get(engines.sixteen_bit(engine) or "")


def kind_words(kind: FailureKind) -> str:
    """A kind of failure as a reader says it."""
    return "not supported" if kind == "unsupported" else kind.replace("_", " ")


def failure_text(failure: Failure) -> str:
    """A failure on one line: its kind and its reason."""
    reason = " ".join(failure.reason.split())
    words = kind_words(failure.kind)
    return reason if reason.startswith(words) else f"{words}: {reason}"


def load_model(root: Path, model: str) -> ModelRecords:
    """Read all records of a model. Raises QuantlabError where there are none or one is not readable."""
    recipe = methods.checked_recipe(root / "recipes" / f"{model}.yaml")
    data = root / "reports" / model / "data"
    variants = _variants(data, model, recipe)
    about, reference = (
        _json(root / path)
        for path in (Path("env") / "device.json", Path("references") / model / "reference.json")
    )
    prepared = Prepared(root, model)
    return ModelRecords(
        model=model,
        recipe=recipe,
        device=about,
        reference=reference if "vocabulary" in reference else {},
        source=prepared.source() if (prepared.source_folder / "source.json").is_file() else None,
        text=prepared.text() if (prepared.text_folder / "text.json").is_file() else None,
        variants=variants,
    )


def load_report(folder: Path) -> ModelRecords:
    """The records of any folder with a report's `data/`, wherever it was copied to; what its workspace knows
    beside them is left out.

    The recipe is `recipes/<model>.yaml` of the folder or one above it, else the `recipe.yaml` that the report
    stage writes beside the report. Raises QuantlabError where either is missing."""
    folder = folder.resolve()
    if not (folder / "data").is_dir():
        raise QuantlabError(
            f"{folder} holds no data/ with records: name the reports/MODEL folder that `quantlab run`"
            " printed, or a copy of it"
        )
    above = (place / "recipes" / f"{folder.name}.yaml" for place in (folder, *folder.parents))
    path = next((p for p in (*above, folder / RECIPE) if p.is_file()), None)
    if path is None:
        raise QuantlabError(
            f"{folder} has neither a recipes/{folder.name}.yaml above it nor a {RECIPE} in it: run `quantlab"
            " report` again"
        )
    recipe = methods.checked_recipe(path)
    variants = _variants(folder / "data", recipe.model, recipe)
    for record in (record for variant in variants.values() for record in variant.records.values()):
        if record.model != recipe.model:
            raise QuantlabError(
                f"{folder} holds a record of {record.model[:80]!r} of {record.variant}, though its recipe is"
                f" {recipe.model}'s"
            )
    return ModelRecords(recipe.model, recipe, {}, None, None, {}, variants)


def _variants(data: Path, model: str, recipe: Recipe) -> dict[str, VariantRecords]:
    variants = {slug: without_stale(load_variant(data / slug, slug), recipe) for slug in variants_in(data)}
    if not variants:
        raise QuantlabError(
            f"there are no records of {model} under {data}: run a stage such as measure first"
        )
    return variants


def _json(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}


def load_variant(folder: Path, slug: str, with_samples: bool = True) -> VariantRecords:
    """The records in a variant's folder. Raises QuantlabError where one is not readable."""
    samples = folder / "samples.parquet"
    return VariantRecords(
        variant=parse_variant(slug),
        quantize=read_record(folder / STAGES["quantize"].file, QuantizeRecord),
        measure=read_record(folder / STAGES["measure"].file, MeasureRecord),
        divergence=read_record(folder / STAGES["diverge"].file, DivergenceRecord),
        tasks=read_record(folder / STAGES["evaluate"].file, TaskRecord),
        sensitivity=read_record(folder / STAGES["sensitivity"].file, SensitivityRecord),
        samples=_read_samples(samples) if with_samples and samples.exists() else None,
    )


def without_stale(variant: VariantRecords, recipe: Recipe) -> VariantRecords:
    """The variant with every record that was made with other settings than the recipe's replaced by a failure
    that says so."""
    kept = variant._asdict()
    stale: dict[str, Any] = {
        field: as_stale(record)
        for field, record in kept.items()
        if isinstance(record, Record) and is_stale(record, recipe)
    }
    samples = None if variant.tasks and is_stale(variant.tasks, recipe) else variant.samples
    return variant._replace(**stale | {"samples": samples})


def _read_samples(path: Path) -> pd.DataFrame:
    frame = _frame(path)
    lacking = [column for column in SAMPLE_COLUMNS if column not in frame.columns]
    if lacking:
        raise QuantlabError(f"{path} lacks the columns {', '.join(lacking)}: run the evaluate stage again")
    for column, is_kind, kind in _SAMPLE_KINDS:
        if column in frame.columns and not (is_kind(frame[column]) or frame.empty):
            raise QuantlabError(
                f"{path}: the column {column} does not hold {kind}: run the evaluate stage again"
            )
    return frame


def _frame(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if file.metadata.num_rows > _MOST_ROWS:
            raise QuantlabError(
                f"{path} says that it has {file.metadata.num_rows:,} rows, which no evaluation has"
            )
        return pd.DataFrame(file.read().to_pandas())
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
        raise QuantlabError(
            f"{path} cannot be read: {' '.join(str(error).split())[:200]}: run the evaluate stage again"
        ) from None


def _whole(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_integer_dtype(column) and column.notna().all())


def _numeric(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))


def _texts(column: pd.Series[Any]) -> bool:
    return all(isinstance(value, str) for value in column.dropna().unique()) if _flat(column) else False


def _flat(column: pd.Series[Any]) -> bool:
    """Whether no value is a list or a struct, which cannot be compared."""
    return all(isinstance(value, str | int | float | None) for value in column)


_SAMPLE_KINDS: tuple[tuple[str, Callable[[pd.Series[Any]], bool], str], ...] = (
    *(
        (name, _texts, "texts")
        for name in ("task", "subtask", "doc_hash", "prompt_hash", "metric", "answer", "cluster")
    ),
    ("doc_id", _whole, "whole numbers"),
    ("value", _numeric, "numbers"),
)
