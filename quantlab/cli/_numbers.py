"""Refuse nan and infinities on the command line: click's own ranges let nan through, since it is neither
below nor above."""

from __future__ import annotations

import math
from typing import Any

import click


class Finite(click.FloatRange):
    """A float in a range; nan and infinities are refused whatever the range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


SEED = click.IntRange(0, 2**32 - 1)
"""What numpy, torch and lm-eval all take."""
