"""Do one check and leave its outcome: the child process of `quantlab.verification.running`."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from quantlab.errors import CellFailure, QuantlabError
from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.outside import as_failure
from quantlab.records.verification import Outcome
from quantlab.verification import checks
from quantlab.verification.contract import Context
from quantlab.verification.ending import outcome_of


def main(job: dict[str, Any]) -> None:
    """Run the check that the job names."""
    context = Context(find(job["device"]), Path(job["root"]), job["seconds"], job["subject"])
    write_text(Path(job["said"]), outcome(job["check"], context).model_dump_json())


def outcome(check: str, context: Context) -> Outcome:
    """What the check found, or why it could not."""
    try:
        return checks.load(check).run(context)
    except CellFailure as error:
        traceback.print_exc()
        return outcome_of(error.kind, error.reason)
    except QuantlabError as error:
        traceback.print_exc()
        return Outcome(status="failed", reason=str(error))
    except Exception as error:  # a library may raise anything, and the other checks go on
        traceback.print_exc()
        failure = as_failure(error)
        if failure:
            return outcome_of(failure.kind, failure.reason)
        return outcome_of("crashed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a library's threads must not keep a process that has nothing left to do
