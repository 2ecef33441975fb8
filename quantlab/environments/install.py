"""Compare the distributions that quantlab asks for with those installed, and give the command that installs
the rest."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from quantlab.environments.llama_build import WITH_CUDA, LlamaBuild, without_amx


class RequiredDistribution(NamedTuple):
    """A requirement of quantlab's own metadata."""

    distribution: str
    specifier: str
    """Such as `==2.14.1`, or ''."""
    extras: frozenset[str]
    """The extras that bring it; empty where quantlab always does."""


@functools.cache
def asked() -> dict[str, RequiredDistribution]:
    """Every distribution that quantlab asks for on this system, by name; those for its own development are
    left out."""
    from packaging.requirements import Requirement

    wanted: dict[str, RequiredDistribution] = {}
    distribution = importlib.metadata.distribution("quantlab")
    extras = [
        extra
        for extra in distribution.metadata.get_all("Provides-Extra") or []
        if extra not in ("all", "dev")
    ]
    for requirement in map(Requirement, distribution.requires or []):
        by = {
            extra for extra in extras if requirement.marker and requirement.marker.evaluate({"extra": extra})
        }
        always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if always or by:
            before = wanted[requirement.name].extras if requirement.name in wanted else frozenset()
            wanted[requirement.name] = RequiredDistribution(
                requirement.name, str(requirement.specifier), frozenset() if always else before | by
            )
    return wanted


def fits(distribution: str, version: str) -> bool:
    """Whether an installed version is one that quantlab asks for."""
    from packaging.specifiers import SpecifierSet

    return distribution not in asked() or SpecifierSet(asked()[distribution].specifier).contains(
        version, prereleases=True
    )


def bring_extra(extra: str) -> str:
    """The command that brings an extra: from the folder that quantlab was installed from, else by its
    name."""
    place = _installed_from()
    return f"pip install -e '{place}[{extra}]'" if place else f"pip install 'quantlab[{extra}]'"


def bring(distribution: str) -> str:
    """The command that brings one distribution in the version that quantlab asks for."""
    wanted = asked().get(distribution)
    if wanted and wanted.extras:
        return bring_extra(min(wanted.extras, key=lambda extra: (not distribution.startswith(extra), extra)))
    return f"pip install '{distribution}{wanted.specifier if wanted else ''}'"


def reinstall(distribution: str) -> str:
    """The command that mends one that is installed and broken, without touching what it depends on."""
    wanted = asked().get(distribution)
    what = f"--force-reinstall --no-deps '{distribution}{wanted.specifier if wanted else ''}'"
    if distribution == "llama-cpp-python" and (flags := without_amx(LlamaBuild("", "")).cmake_args):
        return f"CMAKE_ARGS='{flags}' pip install --no-cache-dir {what}"
    return f"pip install {what}"


def cuda_build(version: str | None = None) -> str:
    """The command that builds llama.cpp with CUDA in place of a build without it.

    Without `--no-cache-dir` pip would take the wheel that it built before."""
    name = "llama-cpp-python"
    wanted = f"=={version}" if version else asked()[name].specifier
    return (
        f"CMAKE_ARGS={WITH_CUDA} pip install --force-reinstall --no-deps --no-cache-dir --no-binary {name}"
        f" {name}{wanted}"
    )


def missing(distributions: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are not installed."""
    from quantlab.environments.versions import installed

    have = installed(distributions)
    return tuple(name for name in distributions if name not in have)


def _installed_from() -> str | None:
    text = importlib.metadata.distribution("quantlab").read_text("direct_url.json")
    origin = json.loads(text) if text else {}
    url = urlsplit(origin.get("url", ""))
    if url.scheme != "file" or not origin.get("dir_info", {}).get("editable"):
        return None
    return re.sub(r"^/([A-Za-z]:)", r"\1", unquote(url.path))
