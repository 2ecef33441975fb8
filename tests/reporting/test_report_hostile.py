"""Records of somebody else: whatever their texts hold, nothing of it acts in the report, a plot or a
terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from hostile import ATTACK, write_hostile_cell
from madeup import MODEL, write_failure, write_recipe
from markdown_it import MarkdownIt
from markdown_it.token import Token

from quantlab.cli import main
from quantlab.inert import plain
from quantlab.records import STAGES
from quantlab.stages.report import run
from quantlab.workspace.results import record_path

SLUGS = ("baseline-16", "gguf-16", "gguf-4", "gptq-4")
CRASHED = "awq-4"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace, and what was merged into it, in which every text is an attack; with its report."""
    root = tmp_path_factory.mktemp("attacked")
    write_recipe(root)
    for slug in SLUGS:
        write_hostile_cell(root, slug)
        samples = record_path(root, MODEL, slug, "evaluate").with_name("samples.parquet")
        pd.read_parquet(samples).replace({"metric": {"acc_norm": ATTACK}}).to_parquet(samples)
    write_failure(root, CRASHED, ATTACK, "crashed")
    there = root / "imported" / "gpu" / MODEL
    for slug in SLUGS:
        folder = there / "data" / slug
        folder.mkdir(parents=True)
        for stage in (stage for stage in STAGES.values() if stage.merged):
            folder.joinpath(stage.file).write_bytes(record_path(root, MODEL, slug, stage.name).read_bytes())
    (there / "device.json").write_text(json.dumps({"name": ATTACK, "device": ATTACK}))
    recipe = yaml.safe_load((root / "recipes" / f"{MODEL}.yaml").read_text())
    recipe |= {"description": ATTACK, "caveat": ATTACK, "source": {"hub": ATTACK, "revision": ATTACK}}
    recipe["tasks"] = {"names": ["piqa", "arc_easy", ATTACK]}
    (root / "recipes" / f"{MODEL}.yaml").write_text(yaml.safe_dump(recipe))
    for path, about in (
        ("env/device.json", {"name": ATTACK, "cpu": ATTACK}),
        (f"references/{MODEL}/reference.json", {}),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(json.dumps(about))
    run(root, MODEL)
    return root


def _tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text):
        yield token
        yield from token.children or []


def test_no_html_image_or_link_of_theirs_is_in_the_report(attacked: Path) -> None:
    text = (attacked / "reports" / MODEL / "report.md").read_text(encoding="utf-8")
    assert text.count("alert(1)") > 100
    assert "<" not in text and plain(text) == text
    found = list(_tokens(text))
    assert not [token for token in found if token.type.startswith(("html", "fence", "code_block"))]
    images = {token.attrs["src"] for token in found if token.type == "image"}
    links = {token.attrs["href"] for token in found if token.type == "link_open"}
    assert images and all(re.fullmatch(r"plots/\w+\.svg", str(src)) for src in images)
    assert links and all(re.fullmatch(r"(tables/(\w+\.(csv|json))?|data/)", str(href)) for href in links)


def test_their_texts_make_no_heading_and_no_column(attacked: Path) -> None:
    text = (attacked / "reports" / MODEL / "report.md").read_text(encoding="utf-8")
    found = list(_tokens(text))
    headings = [found[n + 1].content for n, token in enumerate(found) if token.type == "heading_open"]
    assert headings and not [title for title in headings if title.startswith("evil")]
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table.splitlines()}) == 1


def test_plots_are_plain_drawings(attacked: Path) -> None:
    drawings = list((attacked / "reports" / MODEL / "plots").glob("*.svg"))
    assert drawings
    for path in drawings:
        elements = [(each.tag.rpartition("}")[2], each) for each in ElementTree.parse(path).iter()]
        assert not {kind for kind, _ in elements} & {"script", "foreignObject", "a"}
        # a heat map is a raster inside the file
        images = [
            each.get("{http://www.w3.org/1999/xlink}href", "") for kind, each in elements if kind == "image"
        ]
        assert all(source.startswith("data:image/png;base64,") for source in images)
        assert plain(path.read_text()) == path.read_text()


@pytest.mark.parametrize(
    "line",
    [
        f"check reports/{MODEL} --max-drop 1",
        f"report --model {MODEL}",
        *(f"show {slug}" for slug in (*SLUGS, CRASHED)),
        f"merge reports/{MODEL} --model {MODEL}",
        f"plan --against reports/{MODEL}",
        "recommend --vram 24GB",
        "list models",
        "show nosuch-4",
        f"check reports/{MODEL} --max-drop 1 --task nosuch",
    ],
)
@pytest.mark.parametrize("form", ["", " --json"])
def test_no_sequence_of_theirs_reaches_the_terminal(
    attacked: Path, monkeypatch: pytest.MonkeyPatch, line: str, form: str
) -> None:
    monkeypatch.chdir(attacked)
    done = CliRunner().invoke(main, (line + form).split(), color=True)
    assert done.exit_code in (0, 1, 2) and (
        done.exception is None or isinstance(done.exception, SystemExit)
    ), done.exception
    own = re.sub(r"\x1b\[\d{1,2}m", "", done.output)
    assert own and plain(own) == own
