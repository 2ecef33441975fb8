"""`quantlab merge`: what comes in, what is refused with nothing written, and that names never become
paths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from quantlab.errors import QuantlabError
from quantlab.records import (
    STAGES,
    BaselineRun,
    DivergenceRecord,
    Failure,
    MeasureRecord,
    SpeedRecord,
    TaskRecord,
)
from quantlab.workspace.imported import imports
from quantlab.workspace.merge import merge
from quantlab.workspace.merge_device import device_slug
from quantlab.workspace.results import write_record

HERE, THERE, SHA = "TEST CPU", "TEST GPU 80GB", "ab" * 32
Refused = Callable[..., str]


def record(
    variant: str = "bitsandbytes-4", device: str | None = THERE, sha: str | None = SHA, **values: Any
) -> MeasureRecord:
    return MeasureRecord(
        model="tiny", variant=variant, device=device, checkpoint_sha256=sha, engine="transformers", **values
    )


@pytest.fixture
def measured(workspace: Path) -> Path:
    """The workspace with this device's measurement of one variant."""
    write_record(workspace, record(device=HERE))
    return workspace


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Another machine's report of the same checkpoint."""
    root = tmp_path / "other"
    write_record(root, record())
    write_record(
        root, DivergenceRecord(model="tiny", variant="bitsandbytes-4", device=THERE, checkpoint_sha256=SHA)
    )
    write_record(
        root, TaskRecord(model="tiny", variant="bitsandbytes-4", device=THERE, checkpoint_sha256=SHA)
    )
    folder = root / "reports" / "tiny"
    (folder / "report.md").write_text("the other machine's")
    (folder / "data" / "bitsandbytes-4" / "samples.parquet").write_bytes(b"never read")
    return folder


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def untouched(workspace: Path, refuse: Callable[[], str]) -> str:
    """The refusal's line; nothing may have been written, not even a folder."""
    before = set(workspace.rglob("*"))
    said = refuse()
    assert set(workspace.rglob("*")) == before
    return said


def test_records_come_in_under_the_devices_slug(
    measured: Path, report: Path, quantlab: Callable[..., Result]
) -> None:
    said = json.loads(quantlab("merge", str(report), "--json").stdout)
    assert said["device"] == THERE
    assert said["records"] == {"bitsandbytes-4": ["measure", "diverge", "evaluate"]}
    assert set(files(measured / "imported")) == {
        "test-gpu-80gb/tiny/device.json",
        *(
            f"test-gpu-80gb/tiny/data/bitsandbytes-4/{name}.json"
            for name in ("measure", "diverge", "evaluate")
        ),
    }
    (found,) = imports(measured, "tiny")
    brought = found.variants["bitsandbytes-4"].measure
    assert (found.name, brought) == (THERE, record(stage_version=STAGES["measure"].version))


@pytest.mark.parametrize("what", ["report", "data"])
def test_a_copy_anywhere_will_do(
    measured: Path, report: Path, tmp_path: Path, quantlab: Callable[..., Result], what: str
) -> None:
    copy = tmp_path / "artifact"
    (report if what == "report" else report / "data").rename(copy)
    done = quantlab("merge", str(copy))
    assert done.exit_code == 0, done.output
    assert "quantlab report --model tiny" in done.stdout


def test_the_same_again_changes_nothing_and_others_are_added(
    measured: Path, report: Path, tmp_path: Path
) -> None:
    merge(measured, report, "tiny")
    before = files(measured)
    merge(measured, report, "tiny")
    assert files(measured) == before
    write_record(measured, record("baseline-16", HERE))
    write_record(tmp_path / "third", record("baseline-16"))
    merge(measured, tmp_path / "third" / "reports" / "tiny", "tiny")
    (found,) = imports(measured, "tiny")
    assert set(found.variants) == {"bitsandbytes-4", "baseline-16"}
    assert not list((measured / "imported").rglob(".partial-*"))


def test_another_checkpoint_is_refused(measured: Path, report: Path, refused: Refused) -> None:
    write_record(measured, record("baseline-16", HERE))
    write_record(report.parents[1], record("baseline-16", sha="cd" * 32))
    said = untouched(measured, lambda: refused("merge", str(report)))
    assert (
        "measure record of baseline-16 is of another checkpoint (cdcdcdcdcdcd) than this workspace's"
        " (abababababab)" in said
    )


@pytest.mark.parametrize(
    ("partner", "is_here", "comes_in"),
    [(SHA, True, True), ("cd" * 32, True, False), ("cd" * 32, False, True)],
)
def test_a_ratio_against_another_16_bit_variant_is_refused(
    measured: Path, report: Path, refused: Refused, partner: str, is_here: bool, comes_in: bool
) -> None:
    """Where the 16-bit variant is not here there is nothing to compare with."""
    if is_here:
        write_record(measured, record("baseline-16", HERE))
    beside = BaselineRun(
        variant="baseline-16", checkpoint_sha256=partner, pairing="alternating", kernel="k", dtype="float32"
    )
    write_record(
        report.parents[1],
        record(
            speed=SpeedRecord(kernel="k", dtype="d", threads=2, load_seconds=1, points=(), baseline=beside)
        ),
    )
    if comes_in:
        assert merge(measured, report, "tiny").records
    else:
        said = untouched(measured, lambda: refused("merge", str(report)))
        assert (
            "bitsandbytes-4 was timed beside another baseline-16 (cdcdcdcdcdcd) than this workspace's"
            " (abababababab)" in said
        )


def test_one_record_of_another_checkpoint_keeps_all_out(
    measured: Path, report: Path, refused: Refused
) -> None:
    write_record(
        report.parents[1], TaskRecord(model="tiny", variant="bitsandbytes-4", checkpoint_sha256="cd" * 32)
    )
    assert "evaluate record" in untouched(measured, lambda: refused("merge", str(report)))


def test_a_checkpoint_that_is_not_here_cannot_be_compared(
    measured: Path, report: Path, refused: Refused
) -> None:
    write_record(report.parents[1], record("baseline-16"))
    assert "no checkpoint and no record of baseline-16 here" in untouched(
        measured, lambda: refused("merge", str(report))
    )


def test_a_number_without_a_checkpoint_is_refused_and_a_failure_without_one_is_not(
    measured: Path, report: Path, refused: Refused
) -> None:
    write_record(report.parents[1], record(sha=None))
    assert "none named" in untouched(measured, lambda: refused("merge", str(report)))
    failure = Failure(kind="does_not_fit", reason="it needs 100 GB")
    write_record(report.parents[1], record(sha=None, failure=failure))
    merge(measured, report, "tiny")
    (found,) = imports(measured, "tiny")
    brought = found.variants["bitsandbytes-4"].measure
    assert brought is not None and brought.failure == failure


def test_another_version_is_refused(measured: Path, report: Path, refused: Refused) -> None:
    path = report / "data" / "bitsandbytes-4" / "measure.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    assert "has schema version 99, this quantlab reads 1" in untouched(
        measured, lambda: refused("merge", str(report))
    )


@pytest.mark.parametrize(
    ("stage", "version"), [("measure", None), ("measure", 1), ("divergence", 1), ("tasks", 99)]
)
def test_a_record_of_another_version_of_its_stage_is_refused(
    measured: Path, report: Path, refused: Refused, stage: str, version: int | None
) -> None:
    path = report / "data" / "bitsandbytes-4" / f"{stage}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stage_version": version}))
    assert "of its stage, this quantlab reads" in untouched(measured, lambda: refused("merge", str(report)))


MEMORY = {"disk_bytes": 1, "weights_bytes": 1, "kv_cache_bytes": 1} | dict.fromkeys(
    ("empty_process_rss_bytes", "loaded_process_rss_bytes", "peak_process_rss_bytes"), 1
)
POINT = {"batch": 1, "context_tokens": 0, "prompt_tokens": 8, "decode_tokens": 8}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"memory": MEMORY | {"disk_bytes": 10**39}},
            "memory.disk_bytes is a number of 40 digits, which cannot be",
        ),
        ({"memory": MEMORY | {"disk_bytes": 10**400}}, "digits"),
        ({"memory": MEMORY | {"weights_bytes": -1}}, "memory.weights_bytes is -1, which cannot be"),
        ({"speed": {"load_seconds": 1e308, "points": []}}, "speed.load_seconds is 1e+308, which cannot be"),
        (
            {"speed": {"load_seconds": 1, "points": [POINT | {"decode_seconds": [1e-300]}]}},
            "decode_seconds.0 is 1e-300, which cannot be",
        ),
        (
            {"speed": {"load_seconds": 1, "points": [POINT | {"decode_seconds": [0]}]}},
            "decode_seconds.0 is 0, which cannot be",
        ),
        (
            {"speed": {"load_seconds": 1, "points": [POINT | {"decode_tokens": 10**12}]}},
            "decode_tokens is 1e+12, which cannot be",
        ),
        ({"device": "x" * 200_000}, "device has 200,000 characters"),
    ],
)
def test_what_no_machine_can_have_measured_does_not_come_in(
    measured: Path, report: Path, refused: Refused, change: dict[str, Any], said: str
) -> None:
    path = report / "data" / "bitsandbytes-4" / "measure.json"
    if "speed" in change:
        change["speed"] |= {"kernel": "k", "dtype": "d", "threads": 2}
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    line = untouched(measured, lambda: refused("merge", str(report), "--model", "tiny"))
    assert said in line and len(line) < 600


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe", b"[" * 100_000, b'{"model": "tiny", "model": "tiny"}', None]
)
def test_a_damaged_record_does_not_come_in(
    measured: Path, report: Path, refused: Refused, raw: bytes | None
) -> None:
    path = report / "data" / "bitsandbytes-4" / "divergence.json"
    path.unlink()
    path.mkdir() if raw is None else path.write_bytes(raw)
    assert "divergence.json" in untouched(measured, lambda: refused("merge", str(report), "--model", "tiny"))


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, '{"schema_version": 1, "x": 1e999}', '{"a": 1, "a": 2}', None]
)
@pytest.mark.parametrize("name", ["device.json", "data/bitsandbytes-4/measure.json"])
def test_what_is_merged_and_damaged_is_named_and_left_out(
    measured: Path, report: Path, name: str, text: str | None
) -> None:
    merge(measured, report, "tiny")
    merge(measured, report, "tiny", "another device")
    path = measured / "imported" / "test-gpu-80gb" / "tiny" / name
    path.unlink()
    path.mkdir() if text is None else path.write_text(text)
    left_out: list[str] = []
    assert [found.name for found in imports(measured, "tiny", left_out)] == ["another device"]
    (sentence,) = left_out
    assert (
        sentence.startswith("What was merged into imported/test-gpu-80gb/tiny is left out: ")
        and "\n" not in sentence
    )
    with pytest.raises(QuantlabError):
        imports(measured, "tiny")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"schema_version": 1, "nonsense": true}', '{"schema_version": 1, "x": NaN}', '{"x": 1e999}'],
)
def test_what_is_no_record_is_refused(measured: Path, report: Path, refused: Refused, text: str) -> None:
    (report / "data" / "bitsandbytes-4" / "measure.json").write_text(text)
    assert "measure.json" in untouched(measured, lambda: refused("merge", str(report), "--model", "tiny"))


def test_a_variant_that_is_not_known_here_is_refused(measured: Path, report: Path, refused: Refused) -> None:
    write_record(report.parents[1], record("gptq-4"))
    said = untouched(measured, lambda: refused("merge", str(report)))
    assert "unknown variant of tiny in this workspace 'gptq-4': known are" in said


def test_the_same_device_is_refused_unless_told(measured: Path, report: Path, refused: Refused) -> None:
    write_record(report.parents[1], record(device=HERE))
    said = untouched(measured, lambda: refused("merge", str(report)))
    assert "--device-name" in said
    assert "give another" in untouched(
        measured, lambda: refused("merge", str(report), "--device-name", "test cpu!")
    )
    merge(measured, report, "tiny", "the other TEST CPU")
    assert imports(measured, "tiny")[0].name == "the other TEST CPU"


def test_one_name_holds_one_device(measured: Path, report: Path, refused: Refused) -> None:
    merge(measured, report, "tiny", "mine")
    write_record(report.parents[1], record(device="TEST GPU 24GB"))
    assert "holds records of TEST GPU 80GB" in untouched(
        measured, lambda: refused("merge", str(report), "--device-name", "mine")
    )


def test_records_of_several_devices_are_refused(measured: Path, report: Path, refused: Refused) -> None:
    write_record(measured, record("baseline-16", HERE))
    write_record(report.parents[1], record("baseline-16", "TEST GPU 24GB"))
    assert "several devices (TEST GPU 24GB, TEST GPU 80GB)" in untouched(
        measured, lambda: refused("merge", str(report))
    )


def test_records_of_another_model_are_refused(measured: Path, report: Path, refused: Refused) -> None:
    assert "no recipe of other here" in refused("merge", str(report), "--model", "other")
    (measured / "recipes" / "other.yaml").write_text("model: other\nsource: {path: weights}\n")
    assert "is a record of 'tiny', not of other" in untouched(
        measured, lambda: refused("merge", str(report), "--model", "other")
    )


def test_a_folder_without_records_is_refused(measured: Path, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no records" in refused("merge", str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "a/../../b", "..", "x\n# heading", "`rm`"])
def test_a_devices_name_never_becomes_a_path(measured: Path, report: Path, tmp_path: Path, name: str) -> None:
    write_record(report.parents[1], record(device=name))
    outside = {path for path in tmp_path.rglob("*") if "imported" not in path.parts}
    try:
        merged = merge(measured, report, "tiny")
    except QuantlabError as error:
        assert name == ".." and "letters and digits" in str(error)
        return
    assert merged.folder.parent.parent == measured / "imported"
    assert "\n" not in imports(measured, "tiny")[0].name and "`" not in imports(measured, "tiny")[0].name
    assert {path for path in tmp_path.rglob("*") if "imported" not in path.parts} == outside


@pytest.mark.parametrize("folder", ["..hidden", "bits;and-4", "UPPER-4"])
def test_a_variants_folder_never_becomes_a_path(
    measured: Path, report: Path, refused: Refused, folder: str
) -> None:
    (report / "data" / "bitsandbytes-4").rename(report / "data" / folder)
    assert "is not a variant" in untouched(measured, lambda: refused("merge", str(report)))


def test_slugs() -> None:
    assert device_slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert device_slug("2 × NVIDIA A10 + AMD EPYC (8 cores)") == "2-nvidia-a10-amd-epyc-8-cores"
    with pytest.raises(QuantlabError, match="cannot name a device"):
        device_slug("***")
