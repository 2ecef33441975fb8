"""Find the tasks whose scoring runs code that a model wrote, in lm-eval's files alone: nothing is imported or
downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


def running_code(spec: str, index: Callable[[], Mapping[str, Any]]) -> list[str]:
    """Names of such tasks among a task, a group's or a tag's members, or what a YAML file holds.

    `index` is lm-eval's: what it knows by name, read only where a name is met."""
    if not spec.endswith(".yaml"):
        return list(_named(spec, index, ()))
    from lm_eval.tasks._yaml_loader import load_yaml

    return list(_of(load_yaml(Path(spec), resolve_func=False), index, ()))


def _named(name: str, index: Callable[[], Mapping[str, Any]], above: tuple[str, ...]) -> Iterator[str]:
    entry = index().get(name)
    if entry is None or name in above:
        return
    if entry.cfg:
        yield from _of(entry.cfg, index, (*above, name))
    else:  # a tag
        for member in sorted(entry.tags):
            yield from _named(member, index, (*above, name))


def _of(
    config: Mapping[str, Any], index: Callable[[], Mapping[str, Any]], above: tuple[str, ...]
) -> Iterator[str]:
    members = config.get("task")
    if isinstance(members, list):
        for member in members:
            if isinstance(member, Mapping):
                yield from _overridden(member, index, above)
            else:
                yield from _named(str(member), index, above)
    elif config.get("unsafe_code"):
        yield str(members)


def _overridden(
    member: Mapping[str, Any], index: Callable[[], Mapping[str, Any]], above: tuple[str, ...]
) -> Iterator[str]:
    """A member that a group changes, which has what it does not change from the task of its name."""
    name = member.get("task")
    entry = index().get(name) if isinstance(name, str) else None
    yield from _of({**((entry.cfg or {}) if entry else {}), **member}, index, above)
