"""The key is in no log, however the tasks end."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantlab.endpoint.secrets import Key
from quantlab.endpoint.writing import masked_log

KEY = "sk-test-0123456789abcdef"


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, SystemExit, RuntimeError])
def test_the_log_is_masked_however_the_tasks_end(error: type[BaseException] | None, tmp_path: Path) -> None:
    try:
        with masked_log(tmp_path, Key(KEY)) as log:
            log.write_text(f"refused: Bearer {KEY}\nmore\n")
            if error:
                raise error
    except BaseException as raised:
        assert type(raised) is error
    assert log.read_text() == "refused: Bearer [key]\nmore\n"


def test_no_log_is_made_where_nothing_was_printed(tmp_path: Path) -> None:
    with masked_log(tmp_path, Key(KEY)) as log:
        pass
    assert not log.exists()
