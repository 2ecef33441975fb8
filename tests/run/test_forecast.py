"""What a run will take, before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from quantlab.cli import main
from quantlab.errors import CellFailure
from quantlab.hardware import device
from quantlab.hardware.device import Device
from quantlab.recipe import Recipe, SourceSpec
from quantlab.records import QuantizeRecord, TaskRecord
from quantlab.run.forecast import forecast
from quantlab.workspace.results import write_record

VARIANTS = ("baseline-16", "gptq-8", "gptq-4")
IN_PLACE = ("baseline-16", "bitsandbytes-8", "bitsandbytes-4")


def machine(gib: int) -> Device:
    return Device(
        device="cpu",
        name="a machine",
        cpu="a machine",
        cores=2,
        memory_gib=gib,
        system="Linux",
        python="3.11",
    )


def recipe() -> Recipe:
    return Recipe(
        model="llama",
        source=SourceSpec(hub="meta-llama/Llama-3.1-8B"),
        variants={slug: {} for slug in (*VARIANTS, *IN_PLACE)},
    )


def test_what_fits_is_not_spoken_of(tmp_path: Path) -> None:
    found = forecast("llama-3.1-8b", recipe(), VARIANTS, machine(64), tmp_path)
    assert found is not None
    assert not found.too_large
    assert found.disk_bytes == pytest.approx(9.25e9 + 5.73e9, rel=0.01)
    assert "not known yet" in found.lines()[-1]


def test_a_variant_that_cannot_fit_is_named_where_others_fit(tmp_path: Path) -> None:
    found = forecast("llama-3.1-8b", recipe(), IN_PLACE, machine(8), tmp_path)
    assert found is not None
    assert set(found.too_large) == {"baseline-16", "bitsandbytes-8"}
    assert found.too_large["bitsandbytes-8"].kind == "does_not_fit"
    assert "bitsandbytes-8 needs at least 9." in found.lines()[1]


def test_gpu_row_5_what_cannot_be_made_is_named_before_the_download(tmp_path: Path) -> None:
    """gptq-4 of 8B runs in 8 GiB, and is made from 16 GB that GPTQModel holds in memory."""
    both = (*IN_PLACE, "gptq-4")
    found = forecast("llama-3.1-8b", recipe(), both, machine(8), tmp_path)
    assert found is not None and "bitsandbytes-4" not in found.too_large
    assert "quantizing needs at least 15.0 GiB of the machine's memory" in found.too_large["gptq-4"].reason


def test_where_nothing_fits_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CellFailure, match=r"gptq-4 needs at least 6.* GiB of memory, a machine has 2.0 GiB"):
        forecast("llama-3.1-8b", recipe(), VARIANTS, machine(2), tmp_path)


def test_the_refusal_comes_before_the_hub_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(device, "find", lambda _: machine(2))
    result = CliRunner().invoke(main, ["run", "llama-3.1-8b", "--method", "gptq", "--bits", "4"])
    assert result.exit_code == 2
    assert result.stderr.startswith("quantlab: gptq-4 needs at least")
    assert list(tmp_path.iterdir()) == []


def test_time_comes_from_records_of_the_same_device(tmp_path: Path) -> None:
    parameters = 8_030_261_248
    for slug in VARIANTS:
        write_record(
            tmp_path,
            QuantizeRecord(
                model="sister", variant=slug, device="a machine", seconds=100.0, parameters=parameters // 2
            ),
        )
        write_record(tmp_path, TaskRecord(model="sister", variant=slug, device="a machine", seconds=20.0))
    found = forecast("llama-3.1-8b", recipe(), VARIANTS, machine(64), tmp_path)
    assert found is not None
    assert found.seconds == pytest.approx(3 * 120 * 2)
    assert "12 minutes" in found.lines()[-1]
    other = Device(**{**machine(64).model_dump(), "name": "another"})
    elsewhere = forecast("llama-3.1-8b", recipe(), VARIANTS, other, tmp_path)
    assert elsewhere is not None
    assert elsewhere.seconds is None


def test_where_the_shape_is_not_known_nothing_is_said(tmp_path: Path) -> None:
    assert forecast("no/such-model", recipe(), VARIANTS, machine(64), tmp_path) is None
