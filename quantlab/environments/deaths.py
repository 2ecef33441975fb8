"""Say how a process ended, with a remedy where one is known."""

from __future__ import annotations

import signal

from quantlab.environments.install import reinstall


def ending(code: int) -> str:
    """How a process ended by itself with this code (minus the signal); with a remedy where one is known."""
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name
    if name != "SIGILL":
        return f"died of {name}"
    return (
        f"died of {name}: a library was built for instructions that this processor does not run; where it is"
        f" llama.cpp, {reinstall('llama-cpp-python')} builds it for this one"
    )
