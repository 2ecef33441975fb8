"""Every test that the page of silent cases names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| (?!case|:)(.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_each_case_has_its_test_and_each_test_is_there() -> None:
    rows = ROW.findall((ROOT / "docs" / "silent_cases.md").read_text(encoding="utf-8"))
    assert len(rows) > 30
    for case, said, tests in rows:
        assert said and NAMED.findall(tests), case
        for file, name in NAMED.findall(tests):
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{case}: {file}::{name}"
