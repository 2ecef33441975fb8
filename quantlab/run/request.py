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
from quantlab.methods import _foreign as foreign
from quantlab.models.resolved import ResolvedModel, resolve
from quantlab.names import BASELINE, Variant, parse_variant
from quantlab.parsing import read_yaml
from quantlab.progress import Progress
from quantlab.recipe import Recipe, parse_recipe, shipped_recipes
from quantlab.run.forecast import Forecast, forecast


class Request(NamedTuple):
    """A run that can begin."""

    recipe: Recipe
    variants: tuple[str, ...]
    warnings: tuple[str, ...]
    expected: Forecast | None = None
    """What it takes; None where nothing is known of the model's shape, or no device was named."""


def variants_of(method_names: Sequence[str], bits: Sequence[int]) -> list[Variant]:
    """The cross product; a method without --bits at every width that it offers."""
    found = []
    for name in method_names:
        found += [Variant(name, width) for width in bits or methods.load(name).bits]
    return found


def check_possible(wanted: Sequence[Variant]) -> None:
    """Raise QuantlabError for unknown methods, and CellFailure where nothing that was asked for can be done.

    A grid goes on with what can be done; the rest is recorded.
    """
    failures = [failure for variant in wanted if (failure := _failure(variant))]
    if failures and len(failures) == len(wanted):
        raise failures[0]


def _failure(variant: Variant) -> CellFailure | None:
    from quantlab.environments.install import bring_extra

    method = methods.load(variant.method)
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
    checkpoints: Sequence[Path] = (),
    device: Device | None = None,
    engine: str | None = None,
) -> Request:
    """The recipe of a run. `overrides` are keys of the tasks section, `engine` runs what it can read.

    Raises QuantlabError, and CellFailure where nothing that was asked for can be done or fits into the
    device."""
    resolved = resolve(model, trust_remote_code=trust_remote_code)
    base = _base(recipe_file, resolved)
    if "source" not in base or recipe_file is None:
        base["source"] = resolved.spec.model_dump(exclude_defaults=True)
    if trust_remote_code:
        base["source"]["trust_remote_code"] = True
    base["model"] = resolved.slug
    if resolved.entry and resolved.entry.caveat:
        base.setdefault("caveat", resolved.entry.caveat)
    settings = {slug: {} if value is None else value for slug, value in (base.get("variants") or {}).items()}
    places = [path.resolve() for path in checkpoints]
    theirs = {foreign.identify(path, trust_remote_code).slug: {"checkpoint": str(path)} for path in places}
    settings |= theirs
    chosen = [*(wanted or ([] if theirs else settings)), *theirs]
    if not chosen:
        raise QuantlabError("nothing to do: name --method and --bits, or a recipe with variants")
    check_possible([parse_variant(slug) for slug in chosen])
    chosen = _with_sixteen_bit(chosen)
    base["variants"] = {slug: settings.get(slug, {}) for slug in chosen}
    if not isinstance(base.setdefault("tasks", {}), dict):
        raise QuantlabError(
            f"{recipe_file or 'the recipe'}: tasks: must be a mapping such as {{names: [piqa]}}, not"
            f" {base['tasks']!r}"
        )
    base["tasks"] |= overrides
    base |= {} if engine is None else {"engine": engine}
    origin = str(recipe_file or "the default recipe")
    recipe = methods.check_variants(parse_recipe(base, origin), origin)
    tasksets.check_tasks(recipe.tasks.set, recipe.tasks.names)
    tasksets.check_safe(recipe.tasks.set, recipe.tasks.names, recipe.tasks.unsafe)
    if recipe.engine is not None:
        engines.load(recipe.engine)
    expected = forecast(model, recipe, chosen, device, Path.cwd()) if device else None
    _check_source(recipe, resolved)
    return Request(recipe, tuple(chosen), tuple(resolved.warnings), expected)


def _base(recipe_file: Path | None, resolved: ResolvedModel) -> dict[str, Any]:
    """The recipe file that was named, else recipes/MODEL.yaml here, else the shipped one, else the
    default."""
    places = [
        Path("recipes") / f"{resolved.slug}.yaml",
        shipped_recipes() / f"{resolved.slug}.yaml",
        shipped_recipes() / "default.yaml",
    ]
    path = recipe_file or next(p for p in places if p.exists())
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise QuantlabError(f"{path} is no recipe: it must be a YAML mapping")
    for section in ("source", "variants"):
        if not isinstance(data.get(section, {}), dict | None):
            raise QuantlabError(
                f"{path}: {section} is {data[section]!r:.40}, where a mapping belongs: write `{section}:"
                " {...}`"
            )
    return data


def _with_sixteen_bit(chosen: list[str]) -> list[str]:
    """With what the others are compared with: baseline-16, and gguf-16 where there is a GGUF variant."""
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
