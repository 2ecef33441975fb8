"""Command lines that ask for what is not there or means nothing: each is refused on one line, and nothing is
written."""

from __future__ import annotations

import pytest
from bounded import Attempt, assert_refused

LONG = "x" * 250
PLAN, RECOMMEND = ("plan", "llama-3.1-8b"), ("recommend",)
COST = ("cost", "deepseek-v4-flash", "gptq-4", "--gpu", "h100:8", "--tokens-per-month", "5M")
RUN = ("run", "./tiny", "--no-run", "--method", "gguf", "--bits", "4")


def _each(command: tuple[str, ...], option: str, values: dict[str, str]) -> list[tuple[tuple[str, ...], str]]:
    return [((*command, option, value), said) for value, said in values.items()]


GPUS = {
    "": "names no GPU",
    "h100:": "write the count as a whole number above 0",
    "h100:0": "write the count as a whole number above 0",
    "h100:-1": "write the count",
    "h100:1.5": "write the count",
    "h100:2:3": "write the count",
    "0xh100": "write the count|unknown GPU",
    "h100:9999999": "write the count",
    ":2": "names no GPU",
    "nosuch": "unknown GPU",
    LONG: "unknown GPU",
}
CONTEXTS = {
    "": "cannot be a context",
    "0": "cannot be a context",
    "-1": "cannot be a context",
    "1.5": "cannot be a context",
    "nan": "cannot be a context",
    "inf": "cannot be a context",
    "32q": "cannot be a context",
    "٣٢": "cannot be a context",
    "99999999999999M": "cannot be a context.*at most",
    "9" * 400: "cannot be a context",
}
NUMBERS = {
    "nan": "finite",
    "inf": "finite|range",
    "-1": "range",
    "": "not a valid float",
    "x": "not a valid float",
}
LINES: list[tuple[tuple[str, ...], str]] = [
    (("nosuch",), "unknown command 'nosuch'"),
    (("plan",), "name a MODEL"),
    (("plan", ""), "name a MODEL|unknown model"),
    (("plan", " "), "name a MODEL"),
    (("plan", "x" * 300), "too long"),
    (("plan", "x" * 5000), "too long"),
    (("plan", "/" + "x" * 300), "too long"),
    (("plan", "./nothing"), "does not exist"),
    (("plan", "nothing.gguf"), "does not exist"),
    (("plan", "nothing.json"), "does not exist"),
    (("plan", "../../etc"), "does not exist|no config.json"),
    (("plan", "/dev/null"), "no config.json|cannot name a model"),
    (("plan", "/proc"), "has no config.json"),
    (("plan", "llama-3.1-8b", "more"), "unexpected extra argument"),
    (("plan", "llama-3.1-8b", "--nosuch"), "unknown option"),
    (("plan", "smollm2@main"), "has no revisions"),
    *_each(PLAN, "--context", CONTEXTS),
    *_each(PLAN, "--gpu", GPUS),
    *_each(
        PLAN,
        "--batch",
        {"0": "range", "-1": "range", "1.5": "not a valid int", "9" * 30: "range", "nan": "not a valid int"},
    ),
    *_each(
        PLAN,
        "--methods",
        {
            "": "names no method",
            ",": "names no method",
            " , ": "names no method",
            "gptq-99": "gptq does not offer 99 bits",
            "gptq-0": "gptq does not offer 0 bits",
            "nosuch": "unknown method",
            "nosuch-4": "unknown method",
            "gptq-": "unknown method|is not a variant",
            LONG: "unknown method",
        },
    ),
    *_each(PLAN, "--cache-dtype", {"": "cache", "nosuch": "nosuch", LONG: "cache"}),
    *_each(PLAN, "--policy", {"": "policy", "nosuch": "nosuch"}),
    *_each(
        ("plan",),
        "--against",
        {"nosuch": "nosuch", "recipes/tiny.yaml": "tiny.yaml", "recipes": "recipes", LONG * 2: "."},
    ),
    *_each(
        RECOMMEND,
        "--vram",
        {
            "": "cannot be an amount of memory",
            " ": "cannot be an amount of memory",
            "24": "cannot be an amount of memory",
            "GB": "cannot be an amount of memory",
            "0GB": "cannot be an amount of memory",
            "-1GB": "cannot be an amount of memory",
            "nanGB": "cannot be an amount of memory",
            "24XB": "cannot be an amount of memory",
            "999999999999999999TB": "cannot be an amount of memory.*at most",
            LONG: "cannot be an amount of memory",
        },
    ),
    *_each(
        RECOMMEND,
        "--gpu",
        {
            "": "names no GPU",
            "h100:": "write the count",
            "h100:0": "write the count",
            "nosuch": "unknown GPU",
        },
    ),
    *_each(
        RECOMMEND,
        "--context",
        {"": "cannot be a context", "0": "cannot be a context", "99999999999999M": "cannot be a context"},
    ),
    *_each(RECOMMEND, "--max-drop", NUMBERS),
    *_each(RECOMMEND, "--min-speed", NUMBERS | {"0": "range"}),
    *_each(RECOMMEND, "--top", {"0": "range", "-1": "range", "x": "not a valid int"}),
    *_each(RECOMMEND, "--use", {"": "is not one of", "nosuch": "is not one of"}),
    *_each(RECOMMEND, "--license", {"": "unknown licence", "nosuch": "unknown licence"}),
    (("recommend", "--vram", "24GB", "--gpu", "h100"), "not both"),
    (("recommend", "--vram", "", "--gpu", "h100"), "not both|cannot be an amount"),
    *_each(
        COST,
        "--tokens-per-month",
        {
            "": "cannot be a number of tokens",
            "0": "cannot be a number",
            "nan": "cannot be a number",
            "-5M": "cannot be a number",
            "1e9": "cannot be a number",
        },
    ),
    *_each(COST, "--input-share", {"nan": "finite|range", "1.1": "range", "-0.1": "range"}),
    *_each(COST, "--cached-share", {"nan": "finite|range", "2": "range"}),
    *_each(COST, "--price-per-hour", NUMBERS),
    *_each(COST, "--purchase-price", NUMBERS),
    *_each(COST, "--depreciation-months", NUMBERS | {"0": "range"}),
    *_each(COST, "--power-kw", {"nan": "finite|range", "inf": "finite|range"}),
    *_each(COST, "--power-price", {"nan": "finite|range", "inf": "finite|range"}),
    *_each(COST, "--hosting", {"nan": "finite|range", "inf": "finite|range"}),
    *_each(COST, "--hours", {"nan": "finite|range", "inf": "finite|range", "0": "range"}),
    *_each(COST, "--utilisation", {"nan": "finite|range", "0": "range", "1.5": "range"}),
    *_each(COST, "--throughput", {"nan": "finite|range", "inf": "finite|range", "0": "range"}),
    *_each(COST, "--prefill-throughput", {"nan": "finite|range", "inf": "finite|range"}),
    *_each(COST, "--efficiency", {"nan": "finite|range", "0": "range"}),
    *_each(COST, "--context", {"": "cannot be a context", "99999999999999M": "cannot be a context"}),
    *_each(COST, "--batch", {"0": "range", "9" * 30: "range"}),
    *_each(COST, "--against-api", {"": "unknown API|API", "nosuch": "nosuch"}),
    *_each(COST, "--gpu", {"": "names no GPU", "h100:": "write the count"}),
    (
        ("cost", "deepseek-v4-flash", "gptq-99", "--gpu", "h100", "--tokens-per-month", "5M"),
        "does not offer 99 bits",
    ),
    (
        ("cost", "deepseek-v4-flash", "nosuch-4", "--gpu", "h100", "--tokens-per-month", "5M"),
        "unknown method",
    ),
    (
        ("cost", "deepseek-v4-flash", "", "--gpu", "h100", "--tokens-per-month", "5M"),
        "is not a variant|unknown method",
    ),
    (("run", ""), "name a MODEL"),
    (("run", "nosuch"), "unknown model"),
    (("run", "x" * 300), "too long"),
    (("run", "a/" + "x" * 300), "cannot name a model|too long"),
    (("run", "./nothing"), "the file or folder .* does not exist"),
    (("run", "./tiny", "--no-run", "--bits", "4"), "--bits needs --method"),
    (("run", "./tiny", "--no-run", "--method", "gptq", "--bits", "99"), "gptq does not offer 99 bits"),
    (("run", "./tiny", "--no-run", "--method", "gptq", "--bits", "-4"), "range"),
    (("run", "./tiny", "--no-run", "--method", "gptq", "--bits", "x"), "not a valid int"),
    (("run", "./tiny", "--no-run", "--method", "nosuch"), "unknown method"),
    (("run", "./tiny", "--no-run", "--method", ""), "unknown method"),
    (("run", "./tiny", "--no-run", "--variant", ""), "is not a variant"),
    (("run", "./tiny", "--no-run", "--variant", "gptq"), "is not a variant"),
    (("run", "./tiny", "--no-run", "--variant", "GPTQ-4"), "is not a variant"),
    (("run", "./tiny", "--no-run", "--variant", "gptq-4-../x"), "is not a variant"),
    (("run", "./tiny", "--no-run", "--variant", f"gguf-4-{LONG}"), "too long"),
    *_each(
        RUN,
        "--tasks",
        {
            "": "name at least one task",
            ",": "name at least one task",
            "piqa,,": "name at least one task",
            "nosuch": "unknown task",
        },
    ),
    *_each(
        RUN,
        "--limit",
        {"0": "range", "-1": "range", "9" * 30: "range", "nan": "not a valid int", "": "not a valid int"},
    ),
    *_each(RUN, "--engine", {"": "unknown engine", "nosuch": "unknown engine"}),
    *_each(
        RUN,
        "--device",
        {
            "": "unknown device",
            "nosuch": "unknown device",
            "cuda:99": "there is no cuda:99",
            "cuda:0,0": "twice",
            "cuda:" + "9" * 300: "no cuda|unknown device",
        },
    ),
    *_each(
        RUN,
        "--recipe",
        {
            "nosuch.yaml": "there is no file nosuch.yaml",
            "recipes": "is a folder",
            "": "there is no file|is a folder",
            "/dev/zero": "a pipe or a device",
        },
    ),
    *_each(
        RUN,
        "--checkpoint",
        {
            "nosuch": "there is no checkpoint nosuch",
            "recipes": "no config.json",
            "recipes/tiny.yaml": "a GGUF file with",
            "tiny": "is not quantized",
        },
    ),
    *_each(
        RUN,
        "--workspace",
        {
            "recipes/tiny.yaml": "is a file",
            "recipes/tiny.yaml/x": "cannot write in|cannot be used",
            "/proc/x": "cannot write in|cannot be used",
            "/sys/x": "cannot write in|cannot be used",
            f"{LONG}{LONG}": "too long",
        },
    ),
    (("show", "gptq-4"), "unknown variant in this workspace"),
    (("show", "nonsense"), "is not a variant"),
    (("show", f"gguf-4-{LONG}"), "too long"),
    (("show", "gguf-4", "--model", "nosuch"), "unknown model in this workspace"),
    (("show", "gguf-4", "--workspace", "recipes/tiny.yaml"), "is a file"),
    (("show", "gguf-4", "--workspace", "own"), "is not a workspace"),
    (("check", "nosuch", "--max-drop", "1"), "does not exist"),
    (("check", "own", "--max-drop", "1"), "own"),
    (("check", "recipes/tiny.yaml", "--max-drop", "1"), "is a file"),
    (("check", "own"), "Missing option"),
    (("list", "nosuch"), "unknown list"),
    (("list", ""), "unknown list"),
    (("report", "--model", "nosuch"), "nosuch"),
    (("report", "--model", "../x"), "cannot name a model"),
    (("report", "--model", LONG), "too long"),
    (("report", "--model", ""), "cannot name a model"),
    (("merge", "nosuch"), "does not exist"),
    (("merge", "own"), "own"),
    (("diff", "tiny", "gguf-4", "gguf-2"), "no checkpoints of"),
    (("diff", "../x", "gguf-4", "gguf-2"), "cannot name a model"),
    (("diff", LONG, "gguf-4", "gguf-2"), "too long"),
    (("sensitivity", "tiny", "--method", "gptq", "--bits", "4"), "no checkpoints of"),
    (("clean", "--all", "--yes", "--nosuch"), "unknown option"),
    (("probe", "--device", "nosuch"), "unknown device"),
    (("probe", "--device", "cuda:99"), "there is no cuda:99"),
    (("prepare", "--model", "nosuch"), "no recipes/nosuch.yaml"),
    (("prepare", "--model", LONG), "too long"),
    (("convert", "--model", "nosuch"), "there is no|nosuch"),
    (("reference", "--model", "nosuch"), "there is no|nosuch"),
    *[
        ((stage, "--model", model, "--variant", variant), said)
        for stage in ("quantize", "measure", "diverge", "evaluate")
        for model, variant, said in (
            ("nosuch", "gguf-4", "no recipes/nosuch.yaml"),
            ("tiny", "nonsense", "is not a variant"),
            ("../x", "gguf-4", "cannot name a model"),
            (LONG, "gguf-4", "too long"),
        )
    ],
    (("measure", "--model", "tiny", "--variant", "gguf-4", "--device", "nosuch"), "unknown device"),
    (("endpoint", ""), "quantlab: "),
    (("endpoint", "nonsense://x"), "quantlab: "),
    (("endpoint", "http://"), "quantlab: "),
    (("endpoint", "http://127.0.0.1:99999"), "quantlab: "),
    (("endpoint", "http://127.0.0.1:9", "--concurrency", ""), "quantlab: "),
    (("endpoint", "http://127.0.0.1:9", "--concurrency", "0"), "quantlab: "),
    (("endpoint", "http://127.0.0.1:9", "--concurrency", "9" * 30), "quantlab: "),
]


def _name(line: tuple[tuple[str, ...], str]) -> str:
    text = " ".join(part if len(part) < 40 else f"{part[:6]}...{len(part)}" for part in line[0])
    return (text or "nothing").encode("ascii", "backslashreplace").decode()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param(*each, id=_name(each), marks=[pytest.mark.quick] * (n % 3 == 0))
        for n, each in enumerate(LINES)
    ],
)
def test_a_command_line_is_refused(tried: Attempt, line: tuple[str, ...], said: str) -> None:
    assert_refused(tried(*line), said)
