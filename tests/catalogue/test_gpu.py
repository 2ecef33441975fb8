"""GPUs: sources, names, counts, units, and the user's own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantlab.catalogue.gpu import GpuSpec, find_gpu, gpu_called, gpus, parse_gpus
from quantlab.errors import QuantlabError


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own list, empty, and an empty current folder."""
    path = tmp_path / "own.yaml"
    path.write_text("")
    monkeypatch.setenv("QUANTLAB_GPUS", str(path))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return path


def test_every_figure_has_its_source_and_estimates_are_marked() -> None:
    for name, gpu in gpus().items():
        assert gpu.source.get("spec"), name
        assert gpu.usable_estimated == ("usable_gib" not in gpu.source), name
        # a GB is 10^9 bytes or, on cards that say 80 and mean it, a GiB: never more; macOS keeps a quarter
        assert (
            (0.74 if name.startswith("apple") else 0.9) * gpu.memory_gb * 1e9
            < gpu.usable_bytes
            <= gpu.memory_gb * 2**30
        ), name
        assert set(gpu.tflops) <= {"bf16", "fp8", "int8", "fp4"}, name


def test_no_two_gpus_share_a_name() -> None:
    names = [name for gpu in gpus().values() for name in (gpu.name, *gpu.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("said", "name", "count"),
    [
        ("h100", "h100-sxm-80gb", 1),
        ("h100:8", "h100-sxm-80gb", 8),
        ("2xRTX 4090", "rtx-4090", 2),
        ("NVIDIA GeForce RTX 5090", "rtx-5090", 1),
        ("4090", "rtx-4090", 1),
        ("A100_40GB:3", "a100-sxm-40gb", 3),
        ("MI300X", "mi300x", 1),
    ],
)
def test_names_are_found_as_people_write_them(said: str, name: str, count: int) -> None:
    found = parse_gpus(said)
    assert (found.gpu.name, found.count) == (name, count)


def test_known_figures() -> None:
    h100 = find_gpu("h100")
    assert (h100.memory_gb, h100.usable_gib, h100.bandwidth_gb_per_second, h100.power_watts) == (
        80,
        79.25,
        3350,
        700,
    )
    assert h100.usable_bytes == int(79.25 * 2**30)
    assert h100.tflops["bf16"] == 989


@pytest.mark.parametrize("said", ["h100:0", "h100:-1", "h100:many", "0xh100", "h100:1.5"])
def test_a_count_that_is_none_is_refused(said: str) -> None:
    with pytest.raises(QuantlabError, match="above 0"):
        parse_gpus(said)


def test_an_unknown_gpu_lists_the_nearest_first() -> None:
    with pytest.raises(QuantlabError) as raised:
        find_gpu("rtx-5080")
    assert str(raised.value).split("known are ")[1].startswith("rtx-5090")
    assert "\n" not in str(raised.value)


def test_the_users_file_adds_and_replaces(own: Path) -> None:
    own.write_text(
        "h100-sxm-80gb: {memory_gb: 80, bandwidth_gb_per_second: 3000, aliases: [h100]}\n"
        "My Card: {memory_gb: 10, bandwidth_gb_per_second: 99}\n"
    )
    assert find_gpu("h100").bandwidth_gb_per_second == 3000
    mine = find_gpu("my card")
    assert mine.usable_estimated
    assert mine.usable_gib < 10
    Path("gpus.yaml").write_text("my-card: {memory_gb: 20, bandwidth_gb_per_second: 99}\n")
    assert find_gpu("My-Card").memory_gb == 20


@pytest.mark.parametrize(
    "text",
    [
        "- a\n- b\n",
        "mine: {memory_gb: -1, bandwidth_gb_per_second: 9}\n",
        "mine: {memory_gb: 24}\n",
        "mine: 3\n",
        "a: [\n",
    ],
)
def test_a_file_that_is_no_list_of_gpus_is_refused_by_name(text: str, own: Path) -> None:
    own.write_text(text)
    with pytest.raises(QuantlabError, match=r"own\.yaml") as raised:
        gpus()
    assert "\n" not in str(raised.value)


DRIVERS = {
    "NVIDIA H100 80GB HBM3": "h100-sxm-80gb",
    "NVIDIA H100 SXM5 80GB": "h100-sxm-80gb",
    "NVIDIA H100 PCIe": "h100-pcie-80gb",
    "H100 PCIe": "h100-pcie-80gb",
    "NVIDIA H200": "h200-sxm-141gb",
    "NVIDIA B200": "b200-sxm-180gb",
    "NVIDIA A100-SXM4-80GB": "a100-sxm-80gb",
    "A100-SXM4-80GB": "a100-sxm-80gb",
    "NVIDIA A100-SXM4-40GB": "a100-sxm-40gb",
    "A100-SXM4-40GB": "a100-sxm-40gb",
    "NVIDIA L40S": "l40s",
    "NVIDIA L4": "l4",
    "NVIDIA A10": "a10",
    "NVIDIA GeForce RTX 5090": "rtx-5090",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "GeForce RTX 4090": "rtx-4090",
    "NVIDIA GeForce RTX 3090": "rtx-3090",
    "GeForce RTX 3090": "rtx-3090",
    "AMD Instinct MI300X": "mi300x",
    "AMD Instinct MI300X OAM": "mi300x",
    "AMD_Instinct_MI300X_OAM": "mi300x",
}
OTHERS = (
    "NVIDIA H100 NVL",
    "NVIDIA H100 96GB HBM3",
    "NVIDIA H100 80GB HBM2e",
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    "NVIDIA H800",
    "NVIDIA H20",
    "NVIDIA H200 NVL",
    "NVIDIA GH200 480GB",
    "NVIDIA GH200 144G HBM3e",
    "NVIDIA GB200",
    "NVIDIA GB10",
    "NVIDIA B300 SXM6 AC",
    "NVIDIA A100-PCIE-40GB",
    "NVIDIA A100 80GB PCIe",
    "NVIDIA A100-SXM-64GB",
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    "NVIDIA A100-PG509-200",
    "GRID A100-40C",
    "NVIDIA A100X",
    "NVIDIA A800-SXM4-80GB",
    "NVIDIA L40",
    "NVIDIA L40G",
    "NVIDIA L40S-48Q",
    "NVIDIA A10G",
    "NVIDIA A10-24Q",
    "NVIDIA A16",
    "NVIDIA A2",
    "NVIDIA A30",
    "NVIDIA A40",
    "Tesla T4",
    "Tesla V100-SXM2-16GB",
    "NVIDIA GeForce RTX 5090 D",
    "NVIDIA GeForce RTX 5090 Laptop GPU",
    "NVIDIA GeForce RTX 4090 D",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA GeForce RTX 3090 Ti",
    "NVIDIA GeForce RTX 4080 SUPER",
    "NVIDIA RTX 6000 Ada Generation",
    "NVIDIA RTX A6000",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
    "NVIDIA TITAN RTX",
    "Quadro RTX 8000",
    "AMD Instinct MI300A",
    "AMD Instinct MI325X",
    "AMD Instinct MI250X",
    "AMD Radeon RX 7900 XTX",
)
"""As drivers name them, and none of them is in the catalogue."""
NO_SINGLE_GPU = (
    "2 × NVIDIA A10",
    "NVIDIA A10 + AMD EPYC (8 cores)",
    "NVIDIA H100 80GB HBM3 + NVIDIA L4",
    "AMD EPYC (2 cores)",
    "",
)


@pytest.mark.parametrize(("driver", "name"), DRIVERS.items())
def test_a_drivers_name_finds_its_gpu(driver: str, name: str) -> None:
    assert getattr(gpu_called(driver), "name", None) == name
    assert getattr(gpu_called(driver.upper()), "name", None) == name


@pytest.mark.parametrize("driver", [*OTHERS, *NO_SINGLE_GPU])
def test_another_card_is_not_taken_for_one_of_the_catalogue(driver: str) -> None:
    assert gpu_called(driver) is None


def test_a_card_of_the_users_own_is_found_too(own: Path) -> None:
    own.write_text("h100-nvl: {memory_gb: 94, bandwidth_gb_per_second: 3900}\n")
    assert getattr(gpu_called("NVIDIA H100 NVL"), "name", None) == "h100-nvl"
    assert getattr(gpu_called("NVIDIA H100 80GB HBM3"), "name", None) == "h100-sxm-80gb"


@pytest.mark.parametrize(
    ("name", "usable_gib"),
    [("apple-m4-16gb", 11.84), ("apple-m4-pro-64gb", 48.0), ("apple-m4-max-128gb", 107.5)],
)
def test_apples_usable_memory_is_what_macos_lets_the_gpu_use(name: str, usable_gib: float) -> None:
    assert gpus()[name].usable_gib == usable_gib


def test_an_apple_chip_of_ones_own_is_usable_to_three_quarters() -> None:
    mine = GpuSpec.model_validate({"name": "apple-m5-32gb", "memory_gb": 32, "bandwidth_gb_per_second": 150})
    assert mine.usable_gib == 24.0 and mine.usable_estimated
