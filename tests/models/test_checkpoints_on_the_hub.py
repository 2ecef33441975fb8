"""A checkpoint named as on the hub is downloaded at its commit; what is not there is refused in one line."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from models.test_source_hub import COMMIT, Hub, hub  # noqa: F401 - a fixture
from safetensors.torch import save

from quantlab.errors import QuantlabError
from quantlab.progress import Progress
from quantlab.run.checkpoints import external_variants, locate

QUIET = Progress(console=StringIO())


def _quantized(hub: Hub) -> None:  # noqa: F811
    config = json.loads(hub.files["config.json"]) | {
        "quantization_config": {"quant_method": "awq", "bits": 4}
    }
    hub.files["config.json"] = json.dumps(config).encode()
    hub.files["model.safetensors"] = save({"model.layers.0.a.qweight": torch.zeros(2, 2, dtype=torch.int32)})


@pytest.mark.parametrize("name", ["org/model", "org/model@main", f"org/model@{COMMIT}"])
def test_a_repository_is_pinned_to_its_commit(name: str, hub: Hub) -> None:  # noqa: F811
    _quantized(hub)
    (variant, settings), *_ = external_variants([name], False, QUIET).items()
    assert (variant.method, variant.bits) == ("awq", 4)
    assert (settings["hub"], settings["revision"]) == ("org/model", COMMIT)
    assert Path(settings["checkpoint"]).name == COMMIT


def test_a_gguf_file_in_a_repository_brings_all_its_parts(hub: Hub) -> None:  # noqa: F811
    parts = [f"q4/m-0000{n}-of-00002.gguf" for n in (1, 2)]
    hub.files |= dict.fromkeys(parts, b"GGUF") | {"other.gguf": b"GGUF"}
    found = locate(f"org/model@main:{parts[0]}", False, QUIET)
    assert (found.hub, found.commit, found.path.name) == ("org/model", COMMIT, "m-00001-of-00002.gguf")
    assert sorted(path.name for path in found.path.parent.iterdir()) == [Path(part).name for part in parts]
    assert "other.gguf" not in hub.fetched


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/model@v2", "org/model has no revision v2"),
        ("org/other", "the hub has no repository org/other"),
        ("org/model:nosuch.gguf", "unknown file of org/model 'nosuch.gguf': known are there.gguf"),
        ("./nosuch", "there is no checkpoint ./nosuch: name a folder or a GGUF file that exists"),
        ("nosuch", "there is no checkpoint nosuch"),
    ],
)
def test_what_is_not_there_is_refused(name: str, said: str, hub: Hub) -> None:  # noqa: F811
    hub.files["there.gguf"] = b"GGUF"
    with pytest.raises(QuantlabError, match=said) as raised:
        locate(name, False, QUIET)
    assert "\n" not in str(raised.value)
