"""Check a request of `quantlab run` before any download, and turn it into a recipe and its cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quantlab import engines, methods
from quantlab.environments.versions import installed
from quantlab.errors import CellFailure, QuantlabError
from quantlab.evaluation import tasksets
from quantlab.hardware.device import Device
from quantlab.models.resolved import ResolvedModel, resolve
from quantlab.names import BASELINE, Variant, parse_variant
from quantlab.parsing import read_yaml
from quantlab.progress import Progress
from quantlab.recipe import Recipe, parse_recipe, shipped_recipes
from quantlab.run.checkpoints import external_variants
from quantlab.run.forecast import Forecast, forecast


class RunRequest(NamedTuple):
    """A checked run: a recipe and the variants to make of it."""

    recipe: Recipe
    variants: tuple[str, ...]
    warnings: tuple[str, ...]
    expected: Forecast | None = None
    """The memory, disk space and time that it takes; None if the model's shape is not known, or no device was
    named."""


def variants_of(method_names: Sequence[str], bits: Sequence[int]) -> list[Variant]:
    """Combine every method with every width; without widths, take all that a method offers."""
    variants = []
    for name in method_names:
        method = methods.load(name)
        if not method.bits:
            raise CellFailure("not_offered", methods.only_reads(method))
        variants += [Variant(name, width) for width in bits or method.bits]
    return variants


def check_possible(wanted: Sequence[Variant]) -> None:
    """Raise QuantlabError for unknown methods, and CellFailure if none of the variants can be made.

    If some can be made, the others fail later and are recorded.
    """
    failures = [failure for variant in wanted if (failure := _failure(variant))]
    if failures and len(failures) == len(wanted):
        raise failures[0]


def _failure(variant: Variant) -> CellFailure | None:
    from quantlab.environments.install import bring_extra

    method = methods.load(variant.method)
    if not variant.external and not method.bits:
        return CellFailure("not_offered", methods.only_reads(method))
    if not variant.external and variant.bits not in method.bits:
        return CellFailure(
            "not_offered",
            f"{variant.method} does not offer {variant.bits} bits: use {' or '.join(map(str, method.bits))}",
        )
    missing = sorted(set(method.requires) - set(installed(method.requires)))
    if missing and method.extra:
        return CellFailure(
            "not_installed",
            f"{variant.method} needs {', '.join(missing)}, which is not installed:"
            f" {bring_extra(method.extra)}",
        )
    return None


def build(
    model: str,
    wanted: Sequence[str],
    recipe_file: Path | None,
    overrides: dict[str, Any],
    trust_remote_code: bool = False,
    checkpoints: Sequence[str] = (),
    device: Device | None = None,
    engine: str | None = None,
    rehearsal: bool = True,
) -> RunRequest:
    """Make the recipe of a run. `overrides` are keys of its section `tasks`; `engine` is the engine of the
    checkpoints that it can read; without `rehearsal` a large model's first layers are not tried before.

    Raises QuantlabError for a request that is wrong, and CellFailure if nothing of it can be done or fits
    into the device."""
    resolved = resolve(model, trust_remote_code=trust_remote_code)
    base = _base(recipe_file, resolved)
    _fill_source(base, resolved, recipe_file, trust_remote_code)
    chosen = _fill_variants(base, wanted, checkpoints, trust_remote_code)
    _override(base, overrides, engine, recipe_file)
    if not rehearsal:
        base["rehearsal_above_parameters"] = None
    recipe = _checked(base, recipe_file)
    expected = forecast(model, recipe, chosen, device, Path.cwd()) if device else None
    _check_source(recipe, resolved)
    return RunRequest(recipe, tuple(chosen), tuple(resolved.warnings), expected)


def _fill_source(
    base: dict[str, Any], resolved: ResolvedModel, recipe_file: Path | None, trust_remote_code: bool
) -> None:
    """Set the recipe's model and source. A recipe file that the user named keeps its own source."""
    if "source" not in base or recipe_file is None:
        base["source"] = resolved.spec.model_dump(exclude_defaults=True)
    if trust_remote_code:
        base["source"]["trust_remote_code"] = True
    base["model"] = resolved.slug
    if resolved.entry and resolved.entry.caveat:
        base.setdefault("caveat", resolved.entry.caveat)


def _fill_variants(
    base: dict[str, Any], wanted: Sequence[str], checkpoints: Sequence[str], trust_remote_code: bool
) -> list[str]:
    """Set the recipe's variants: those asked for, others' checkpoints, and the 16-bit ones. Raises
    QuantlabError if there are none, and CellFailure if none can be made."""
    settings = {slug: {} if value is None else value for slug, value in (base.get("variants") or {}).items()}
    external = {
        variant.slug: given
        for variant, given in external_variants(checkpoints, trust_remote_code, Progress()).items()
    }
    settings |= external
    chosen = [*(wanted or ([] if external else settings)), *external]
    if not chosen:
        raise QuantlabError("nothing to do: name --method and --bits, or a recipe with variants")
    check_possible([parse_variant(slug) for slug in chosen])
    chosen = _with_sixteen_bit(chosen)
    base["variants"] = {slug: settings.get(slug, {}) for slug in chosen}
    return chosen


def _override(
    base: dict[str, Any], overrides: dict[str, Any], engine: str | None, recipe_file: Path | None
) -> None:
    """Set what the command line says of tasks and engine. Raises QuantlabError."""
    if not isinstance(base.setdefault("tasks", {}), dict):
        raise QuantlabError(
            f"{recipe_file or 'the recipe'}: tasks: must be a mapping such as {{names: [piqa]}}, not"
            f" {base['tasks']!r}"
        )
    base["tasks"] |= overrides
    if engine is not None:
        base["engine"] = engine


def _checked(base: dict[str, Any], recipe_file: Path | None) -> Recipe:
    """Parse the recipe. Raises QuantlabError, for unknown tasks and engines too."""
    origin = str(recipe_file or "the default recipe")
    recipe = methods.check_variants(parse_recipe(base, origin), origin)
    tasksets.check_tasks(recipe.tasks.set, recipe.tasks.names)
    tasksets.check_safe(recipe.tasks.set, recipe.tasks.names, recipe.tasks.unsafe)
    if recipe.engine is not None:
        engines.load(recipe.engine)
    return recipe


def _base(recipe_file: Path | None, resolved: ResolvedModel) -> dict[str, Any]:
    """Read the recipe file that was named, else recipes/MODEL.yaml here, else the shipped one, else the
    default."""
    places = [
        Path("recipes") / f"{resolved.slug}.yaml",
        shipped_recipes() / f"{resolved.slug}.yaml",
        shipped_recipes() / "default.yaml",
    ]
    path = recipe_file or next(p for p in places if p.exists())
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise QuantlabError(f"{path} is not a recipe: it must be a YAML mapping")
    for section in ("source", "variants"):
        if not isinstance(data.get(section, {}), dict | None):
            raise QuantlabError(
                f"{path}: {section} is {data[section]!r:.40}, where a mapping belongs: write `{section}:"
                " {...}`"
            )
    return data


def _with_sixteen_bit(chosen: list[str]) -> list[str]:
    """Add the 16-bit variants that the others are compared with: baseline-16, and gguf-16 for GGUF."""
    run_by = {engines.engine_for(methods.load(parse_variant(slug).method).format) for slug in chosen}
    needed = list(
        dict.fromkeys(slug for name, slug in engines.with_sixteen_bit() if slug == BASELINE or name in run_by)
    )
    return [*needed, *(slug for slug in dict.fromkeys(chosen) if slug not in needed)]


def _check_source(recipe: Recipe, resolved: ResolvedModel) -> None:
    """Refuse what cannot be quantized before it is downloaded or loaded."""
    from quantlab import models as source

    spec, here = recipe.source, Path.cwd()
    parameters = resolved.entry.parameters if resolved.entry else None
    if spec.path:
        path = Path(spec.path).expanduser()
        if path.is_dir():
            source.check_folder(path, spec.trust_remote_code)
            source.check_tokenizer([file.name for file in path.iterdir()], str(path))
            source.check_windows(recipe, source.positions_of(source.read_config(path)))
            parameters = source.parameters(path)
        else:
            source.check_gguf(path)
    elif spec.hub:
        parameters = source.check_hub(spec, Progress()) or parameters
    if parameters:
        bits = sum(
            parse_variant(slug).bits
            for slug in recipe.variants
            if methods.load(parse_variant(slug).method).changes_weights
        )
        source.require_disk(here, source.disk_needed_bytes(parameters, bits))
