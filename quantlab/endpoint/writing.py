"""Write the record of an endpoint, with the key in none of the files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantlab.endpoint.address import Address
from quantlab.endpoint.report import markdown
from quantlab.endpoint.secrets import Key, redact
from quantlab.files import write_json, write_text
from quantlab.records.endpoint import EndpointRecord

LOG = "tasks.log"
"""What lm-eval prints."""


def folder_for(address: Address, model: str) -> Path:
    """`reports/endpoints/<host>-<port>--<model>`, names reduced to letters, digits, dots and hyphens."""
    return Path("reports", "endpoints", f"{_plain(address.origin.partition('//')[2])}--{_plain(model)}")


def write(
    folder: Path, record: EndpointRecord, samples: list[dict[str, Any]], key: Key | None
) -> EndpointRecord:
    """Write endpoint.json, endpoint.md and, where tasks were run, samples.parquet; each whole or not at all.

    Returns the record as it was written, with the key masked wherever the server sent it back.
    """
    safe = EndpointRecord.model_validate(redact(record.model_dump(mode="json"), key))
    write_json(folder / "endpoint.json", safe.model_dump(mode="json"))
    write_text(folder / "endpoint.md", markdown(safe))
    if samples:
        from quantlab.evaluation.samples import write_samples

        write_samples(folder / "samples.parquet", redact(samples, key))
    return safe


@contextmanager
def masked_log(folder: Path, key: Key | None) -> Iterator[Path]:
    """The log of what lm-eval prints, with the key masked in it however the tasks end, an interrupt
    included."""
    log = folder / LOG
    try:
        yield log
    finally:
        if log.is_file():
            write_text(log, redact(log.read_text(encoding="utf-8", errors="replace"), key))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip(".-")[:80] or "unnamed"
