"""Prove on this machine that quantlab works: `quantlab doctor --verify`.

A check is a file of `checks/`. `running` starts each in a process of its own, keeps what came of it as soon
as it ends, and stops in time; `bench` is the workspace of random models that the checks share."""
