"""Room on the disk is asked for before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantlab.errors import QuantlabError
from quantlab.models import disk_needed_bytes, require_disk


def test_needs_are_parameters_times_bits_with_a_quarter_of_room() -> None:
    assert disk_needed_bytes(8_000_000_000, 4) == 5_000_000_000
    assert disk_needed_bytes(3, 3) == 2


def test_a_folder_that_does_not_exist_yet_is_asked_for_its_parents_disk(tmp_path: Path) -> None:
    require_disk(tmp_path / "not" / "yet", 1)
    with pytest.raises(
        QuantlabError, match=r"no space on disk: about 1000000000\.0 GB are needed .*quantlab clean"
    ) as raised:
        require_disk(tmp_path / "not" / "yet", 10**18)
    assert "\n" not in str(raised.value)
