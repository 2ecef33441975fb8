"""Verify checkpoints in this process: a fresh one imports torch and the quantizer's library again for each
variant. Whole runs verify in fresh processes, as users' do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantlab.stages import _reload, _verify


def reload_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load checkpoints again in this process."""

    def here(checkpoint: Any, device: str, token_ids: Any, dense: bool, root: Path) -> Any:
        return _reload.reload(checkpoint, device, token_ids, dense)

    monkeypatch.setattr(_verify, "reload_apart", here)
