"""Keep what checks found, as each ends: `verification/<device>.json`. What was done with this code, these
libraries and this device is not done again."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from quantlab import __version__
from quantlab.environments.install import asked
from quantlab.environments.versions import installed
from quantlab.errors import QuantlabError
from quantlab.files import write_text
from quantlab.hardware.device import Device
from quantlab.parsing import read_object
from quantlab.records.verification import CheckRecord, Verification, VerifiedGpu
from quantlab.verification.models import described

_PARTS = (".py", ".yaml", ".json", ".txt")
_LONGEST = 60
_PACKAGE = Path(__file__).resolve().parents[1]


def slug_of(device: Device) -> str:
    """The device's name as a file's: `cpu-amd-epyc-2-cores`, `nvidia-h100-80gb-hbm3`."""
    named = device.name if device.places.gpus else f"cpu {device.name}"
    return re.sub(r"[^a-z0-9]+", "-", named.lower()).strip("-")[:_LONGEST].strip("-")


@functools.cache
def code_sha256(package: Path = _PACKAGE) -> str:
    """Hash of quantlab's own files: any change of them makes every check due again."""
    digest = hashlib.sha256()
    for path in sorted(p for p in package.rglob("*") if p.suffix in _PARTS):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def key_of(device: Device) -> str:
    """Hash of all that a check's outcome may depend on: code, libraries, device and driver."""
    said: list[object] = [
        code_sha256(),
        installed(sorted(asked())),
        device.device,
        device.name,
        device.system,
    ]
    said += [device.python, device.cores, sorted({gpu.driver for gpu in device.used_gpus})]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def begin(device: Device) -> Verification:
    """A verification of the device without results."""
    return Verification(
        device=device.name,
        asked=device.device,
        cpu=device.cpu,
        cores=device.cores,
        memory_gib=device.memory_gib,
        gpus=tuple(
            VerifiedGpu(name=gpu.name, memory_bytes=gpu.memory_bytes, driver=gpu.driver)
            for gpu in device.used_gpus
        ),
        system=device.system,
        python=device.python,
        quantlab=__version__,
        code_sha256=code_sha256(),
        versions=installed(sorted(asked())),
        models=described(device),
    )


class State:
    """The results of one device in a file."""

    def __init__(self, file: Path, device: Device) -> None:
        """Raises QuantlabError where the file is not one of this version."""
        self.file, self.key = file, key_of(device)
        self._about = begin(device)
        self._results = {(r.check, r.subject): r for r in _read(file)}
        self._order: dict[tuple[str, str], int] = {}

    def done(self, check: str, subject: str) -> CheckRecord | None:
        """What was found with this code, these libraries and this device; None where it is still to be
        done."""
        found = self._results.get((check, subject))
        current = found is not None and found.key == self.key
        return found if current and found is not None and found.outcome.status != "not_run" else None

    def seconds_before(self, check: str, subject: str) -> float:
        """How long it took last time, whatever was found; 0 where it was never begun."""
        found = self._results.get((check, subject))
        return found.seconds if found else 0.0

    def put(self, result: CheckRecord) -> None:
        """Keep a result, in memory and on disk."""
        self._results[result.check, result.subject] = result
        write_text(self.file, self.verification().model_dump_json(indent=2) + "\n")

    def keep_only(self, wanted: Sequence[tuple[str, str]]) -> None:
        """Forget results of checks that there are no more, and of other code; the rest in this order."""
        self._results = {
            name: self._results[name]
            for name in wanted
            if name in self._results and self._results[name].key == self.key
        }
        self._order = {name: place for place, name in enumerate(wanted)}

    def verification(self) -> Verification:
        """All that is kept, in the order of the checks."""
        results = sorted(self._results.values(), key=lambda r: self._order.get((r.check, r.subject), 0))
        return self._about.model_copy(update={"results": tuple(results)})


def _read(file: Path) -> tuple[CheckRecord, ...]:
    if not file.exists():
        return ()
    try:
        return Verification.model_validate(read_object(file)).results
    except ValidationError:
        raise QuantlabError(
            f"{file} was not written by this version of `quantlab doctor --verify`: move it away, and run"
            " again"
        ) from None
