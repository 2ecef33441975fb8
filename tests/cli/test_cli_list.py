"""`quantlab list`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from quantlab import engines, methods
from quantlab.environments import install


def _rows(result: Result, what: str) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    rows: list[dict[str, object]] = json.loads(result.stdout)[what]
    return rows


def test_every_method_is_listed_with_its_widths(quantlab: Callable[..., Result]) -> None:
    rows = _rows(quantlab("list", "methods", "--json"), "methods")
    assert {str(row["name"]): row["bits"] for row in rows} == {
        name: list(methods.load(name).bits) for name in methods.names()
    }


def test_every_engine_is_listed(quantlab: Callable[..., Result]) -> None:
    rows = _rows(quantlab("list", "engines", "--json"), "engines")
    assert [row["name"] for row in rows] == list(engines.names())


def test_a_missing_library_comes_with_the_command_that_brings_it(
    quantlab: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "quantlab.environments.versions.installed",
        lambda names: {name: "1" for name in names if name != "bitsandbytes"},
    )
    rows = {row["name"]: row for row in _rows(quantlab("list", "methods", "--json"), "methods")}
    assert rows["bitsandbytes"]["installed"] is False
    assert rows["bitsandbytes"]["install"] == install.bring_extra("bitsandbytes")
    assert rows["baseline"]["installed"] is True
    assert "pip install" in quantlab("list", "methods").stdout


def test_models_say_where_they_are_and_which_names_no_release_bears(quantlab: Callable[..., Result]) -> None:
    rows = {row["name"]: row for row in _rows(quantlab("list", "models", "--json"), "models")}
    assert rows["qwen3.5-27b"]["where"] == "Qwen/Qwen3.5-27B"
    assert "nearest: qwen3.5-27b" in str(rows["qwen3.5-72b"]["where"])
    shown = quantlab("list", "models").stdout
    assert all(str(name) in shown for name in rows)


def test_an_unknown_list_is_refused(refused: Callable[..., str]) -> None:
    assert "known are models, " in refused("list", "modls")


def test_commands_that_bring_a_library_pin_what_quantlab_asks_for() -> None:
    assert install.bring("torch") == f"pip install 'torch{install.asked()['torch'].specifier}'"
    assert install.bring("gguf") == install.bring_extra("gguf")
    assert "--no-deps" in install.reinstall("torch")
    assert "pytest" not in install.asked()
