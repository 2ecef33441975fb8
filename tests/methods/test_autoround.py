"""auto-round's schemes: every width at every group that a recipe may set."""

from __future__ import annotations

import pytest

from quantlab.methods.autoround import METHOD, Settings, scheme

schemes = pytest.importorskip("auto_round.schemes")


@pytest.mark.parametrize("bits", METHOD.bits)
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_a_scheme_is_the_preset_where_there_is_one(bits: int, group_size: int) -> None:
    made = scheme(bits, group_size)
    assert (made.bits, made.group_size, made.sym, made.data_type, made.act_bits) == (
        bits,
        group_size,
        True,
        "int",
        16,
    )
    names = [f"W{bits}A16G{group_size}", *([f"W{bits}A16"] if group_size == 128 else [])]
    presets = [schemes.PRESET_SCHEMES[name] for name in names if name in schemes.PRESET_SCHEMES]
    assert presets and all(preset == made for preset in presets)


def test_the_default_group_is_128() -> None:
    assert Settings().group_size == 128
