"""From a name to a config: aliases, folders, files, names that no release bears, and what is none of
these."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantlab.errors import QuantlabError
from quantlab.models.resolved import resolve
from quantlab.models.target import target

CONFIG = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2}


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own catalogue, empty, and an empty current folder."""
    path = tmp_path / "models.yaml"
    path.write_text("")
    monkeypatch.setenv("QUANTLAB_MODELS", str(path))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return path


@pytest.mark.parametrize(
    "name", ["qwen3.5-27b", "Qwen3.5-27B", "Qwen/Qwen3.5-27B"], ids=["alias", "other case", "repository"]
)
def test_a_model_of_the_catalogue_needs_no_hub(name: str) -> None:
    found = target(name)
    assert found.slug == "qwen3.5-27b"
    assert found.config is not None
    assert found.config["num_hidden_layers"] == 64
    assert "aiconfigurator" in found.source
    assert found.parameters().total == 26_895_998_464


@pytest.mark.parametrize(
    ("name", "total", "near"),
    [
        ("qwen3.5-72b", 72e9, "qwen3.5-27b"),
        ("qwen3.5-7b", 7e9, "qwen3.5-9b"),
        ("Llama 4 8B", 8e9, "llama-3.1-8b"),
    ],
)
def test_a_name_that_no_release_bears_is_itself_with_a_warning(name: str, total: float, near: str) -> None:
    found = target(name)
    assert (found.slug, found.config) == ("-".join(name.lower().split()), None)
    assert near in found.warnings[0]
    counted = found.parameters()
    assert (counted.total, counted.certain) == (total, False)
    with pytest.raises(QuantlabError, match="no release"):
        resolve(name)  # `quantlab run` has nothing to download


def test_a_name_without_a_size_cannot_be_counted() -> None:
    with pytest.raises(QuantlabError, match=r"deepseek-v3\.5"):
        target("deepseek-v3.5").parameters()


def test_a_folder_and_a_file_are_read() -> None:
    Path("My Model").mkdir()
    Path("My Model/config.json").write_text(json.dumps(CONFIG))
    Path("other.json").write_text(json.dumps(CONFIG))
    for name, slug in (
        ("./My Model", "my-model"),
        ("My Model/config.json", "my-model"),
        ("other.json", "other"),
    ):
        found = target(name)
        assert (found.slug, found.config) == (slug, CONFIG)


def test_the_users_file_points_an_alias_elsewhere(own: Path) -> None:
    (own.parent / "weights").mkdir()
    (own.parent / "weights/config.json").write_text(json.dumps(CONFIG))
    own.write_text("qwen3.5-27b: {path: weights}\nqwen3.5-72b: {path: weights}\n")
    assert target("qwen3.5-27b").config == CONFIG
    assert target("qwen3.5-72b").config == CONFIG


@pytest.mark.parametrize("content", ["[1]", "{", "\xff"], ids=["a list", "cut off", "no JSON"])
def test_a_file_that_is_no_config_is_refused(content: str) -> None:
    Path("config.json").write_text(content, encoding="latin-1")
    with pytest.raises(QuantlabError, match=r"config\.json") as raised:
        target("./config.json")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["./nothing", "nothing-like-it", "empty", "org/never-downloaded"])
def test_what_is_nowhere_is_refused_in_one_line(name: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(QuantlabError) as raised:
        target(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["nosuch/config.json", "./nosuch", "/nosuch/model", "nosuch.gguf"])
def test_a_path_that_does_not_exist_is_no_name_for_a_hub(name: str) -> None:
    with pytest.raises(QuantlabError, match="does not exist") as caught:
        target(name)
    assert "hub" not in str(caught.value)
