"""Getting a model from the hub, against a small hub on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants as constants
import pytest

from quantlab.errors import QuantlabError
from quantlab.models import check_folder, check_hub, download
from quantlab.progress import Progress
from quantlab.recipe import SourceSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The repository `org/model`, a list of what was asked for, and an error to answer with instead."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.error: tuple[int, str] | None = None
        self.endpoint = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if self.error:
            return self.error[0], {"X-Error-Code": self.error[1], "X-Error-Message": "no"}, b"{}"
        if parts[:4] == ["api", "models", "org", "model"]:
            if "revision" in parts and parts[-1] not in ("main", COMMIT):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            return (
                200,
                {"Content-Type": "application/json"},
                json.dumps(self.listing() if "tree" in parts else self.info()).encode(),
            )
        if parts[:3] == ["org", "model", "resolve"] and "/".join(parts[4:]) in self.files:
            name = "/".join(parts[4:])
            content = self.files[name]
            return 200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, content
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def info(self) -> dict[str, Any]:
        return {
            "id": "org/model",
            "sha": COMMIT,
            "siblings": [{"rfilename": n, "size": len(c)} for n, c in self.files.items()],
        }

    def listing(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
            for n, c in self.files.items()
        ]


@pytest.fixture
def hub(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that serves the whole small model, with a pickle, code and another copy beside it."""
    found = Hub()
    found.files = {path.name: path.read_bytes() for path in model.iterdir()}
    found.files |= {
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"code",
        "original/consolidated.safetensors": b"copy",
        "README.md": b"",
    }
    found.files |= {"tokenizer.json": b"{}", "chat_template.jinja": b"", "merges.txt": b""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            status, headers, content = found.answer(path)
            if self.command == "GET" and "/resolve/" in path:
                found.fetched.append(path.rsplit("/", 1)[-1])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "is_offline_mode", lambda: constants.HF_HUB_OFFLINE, raising=False)
    yield found
    server.shutdown()
    server.server_close()


def get(trust_remote_code: bool = False, revision: str | None = None, repository: str = "org/model") -> Any:
    spec = SourceSpec(hub=repository, revision=revision, trust_remote_code=trust_remote_code)
    return download(spec, Progress(console=StringIO()))


def refused(match: str, **options: Any) -> None:
    with pytest.raises(QuantlabError, match=match) as raised:
        get(**options)
    assert "\n" not in str(raised.value)


def test_a_branch_is_resolved_to_its_commit_and_only_what_is_needed_is_fetched(hub: Hub) -> None:
    found = get(revision="main")
    assert found.commit == COMMIT
    assert {path.name for path in found.folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "merges.txt",
    }
    check_folder(found.folder)


def test_code_is_fetched_only_where_it_is_trusted(hub: Hub) -> None:
    assert (get(trust_remote_code=True).folder / "modeling.py").exists()


def test_a_second_time_nothing_is_fetched(hub: Hub) -> None:
    get()
    hub.fetched.clear()
    get()
    assert hub.fetched == []


def test_a_model_that_needs_remote_code_is_refused_before_its_weights_are_fetched(hub: Hub) -> None:
    hub.files["config.json"] = json.dumps(
        {"model_type": "x", "auto_map": {"AutoModelForCausalLM": "modeling.X"}}
    ).encode()
    refused("org/model needs code of its own repository.*--trust-remote-code")
    assert "model.safetensors" not in hub.fetched


def test_pickle_alone_is_refused_before_it_is_fetched(hub: Hub) -> None:
    del hub.files["model.safetensors"]
    refused("org/model on the hub has its weights only as pickle")
    assert "pytorch_model.bin" not in hub.fetched


def test_no_space_is_said_before_the_weights_are_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantlab.models.disk.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    refused("no space on disk")
    assert "model.safetensors" not in hub.fetched


@pytest.mark.parametrize(
    ("error", "match"),
    [
        ((403, "GatedRepo"), "org/model is gated: .*HF_TOKEN"),
        ((404, "RepoNotFound"), "the hub has no repository org/model.*HF_TOKEN"),
        ((503, ""), "cannot reach the hub .*org/model"),
    ],
    ids=["gated", "not there", "broken hub"],
)
def test_what_the_hub_refuses_is_said_in_one_line(hub: Hub, error: tuple[int, str], match: str) -> None:
    hub.error = error
    refused(match)


def test_a_revision_that_is_not_there_is_named(hub: Hub) -> None:
    refused("org/model has no revision v9", revision="v9")


def test_a_name_that_the_hub_would_not_take_is_refused(hub: Hub) -> None:
    refused("does not take org.mo--del..x as the name of a repository", repository="org/mo--del..x")


def test_without_a_hub_nothing_is_found_and_the_way_out_is_said(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused("cannot reach the hub .*org/model is not on this machine in full.*local folder")


def test_without_a_hub_what_was_downloaded_before_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    before = get(revision="main")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert get(revision="main") == before
    assert get(revision=COMMIT) == before


def test_a_download_that_was_cut_off_does_not_count_as_downloaded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = get(revision="main")
    (before.folder / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused("not on this machine in full", revision="main")


def test_a_look_at_the_hub_fetches_no_weights(hub: Hub) -> None:
    check_hub(SourceSpec(hub="org/model"), Progress(quiet=True))
    assert hub.fetched and not any(name.endswith(".safetensors") for name in hub.fetched)


def test_a_look_at_the_hub_refuses_what_a_download_would(hub: Hub) -> None:
    hub.error = (404, "RepoNotFound")
    with pytest.raises(QuantlabError, match="no repository org/model"):
        check_hub(SourceSpec(hub="org/model"), Progress(quiet=True))


def test_a_quantized_release_is_refused_before_its_weights_are_fetched(hub: Hub) -> None:
    section = {"quant_method": "fp8"}
    hub.files["config.json"] = json.dumps({"model_type": "llama", "quantization_config": section}).encode()
    refused("org/model is quantized already .fp8, by quantization_config")
    assert "model.safetensors" not in hub.fetched
    download(SourceSpec(hub="org/model"), Progress(console=StringIO()), source=False)
    assert "model.safetensors" in hub.fetched
