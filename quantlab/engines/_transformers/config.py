"""Read what a checkpoint says of its own quantization."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def quantization_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's own description of its quantization, {} for an unquantized one."""
    config: dict[str, Any] = (
        json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config") or {}
    )
    return config
