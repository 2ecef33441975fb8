"""Windows are compared once, survive a kill, name what is not finite, and take no memory that grows with the
text."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from quantlab.analysis.divergence import WindowValues, scored, summarize, summarize_columns, window_values
from quantlab.errors import CellFailure, QuantlabError
from quantlab.progress import Progress
from quantlab.stages.diverge import compare
from quantlab.workspace.columns import Columns, Shape

WINDOWS, LENGTH, VOCABULARY = 5, 16, 40
TOKENS = len(range(LENGTH)[scored(LENGTH)])
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, VOCABULARY, (WINDOWS, LENGTH))
THEIRS, OURS = (RANDOM.normal(size=(WINDOWS, LENGTH, VOCABULARY)).astype(np.float32) for _ in range(2))


def _columns(root: Path) -> Columns:
    return Columns(root, "c" * 64, "divergence", "k", Shape(6, WINDOWS, TOKENS))


class _Variant:
    """Gives each window's logits and remembers which were asked for; dies at one of them where told."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.dies_at = dies_at

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        window = next(i for i in range(WINDOWS) if (IDS[i] == ids).all())
        if window == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append(window)
        return OURS[window]


def _compare(done: Columns, variant: object, theirs: np.ndarray = THEIRS) -> None:
    with Progress(quiet=True).step("") as step:
        compare(lambda i: theirs[i], variant, IDS, done, step)  # type: ignore[arg-type]


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    first, second = _Variant(dies_at=3), _Variant()
    with pytest.raises(KeyboardInterrupt):
        _compare(_columns(tmp_path), first)
    _compare(_columns(tmp_path), second)
    assert (first.asked, second.asked) == ([0, 1, 2], [3, 4])
    whole = WindowValues(*_columns(tmp_path).read())
    expected = [window_values(THEIRS[i], OURS[i], IDS[i]) for i in range(WINDOWS)]
    for column, values in zip(whole, zip(*expected, strict=True), strict=True):
        np.testing.assert_array_equal(column, np.stack(values).astype(np.float32))
    for ours, theirs in zip(summarize_columns(whole), summarize(expected), strict=True):
        if isinstance(ours, float):
            assert ours == pytest.approx(theirs, rel=1e-6)
    assert summarize_columns(whole).kl.value == pytest.approx(summarize(expected).kl.value, rel=1e-12)


def test_a_window_torn_by_a_kill_is_computed_again_and_a_file_cut_off_begins_anew(tmp_path: Path) -> None:
    _compare(_columns(tmp_path), _Variant())
    done = _columns(tmp_path)
    content, again = done.path.read_bytes(), _Variant()
    torn = done.read().copy()
    torn[3:, 2] = np.nan  # three columns of window 3 had been written
    np.save(done.path, torn)
    _compare(_columns(tmp_path), again)
    assert again.asked == [2] and done.path.read_bytes() == content
    done.path.write_bytes(content[: len(content) // 2])
    again = _Variant()
    _compare(_columns(tmp_path), again)
    assert again.asked == list(range(WINDOWS)) and done.path.read_bytes() == content


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_names_the_window_and_whose_it_is(bad: float, tmp_path: Path) -> None:
    broken = THEIRS.copy()
    broken[3, 0, 7] = bad  # in the half that is not scored
    with pytest.raises(
        QuantlabError,
        match="the unquantized model's logits of window 4 of the evaluation text are not finite",
    ):
        _compare(_columns(tmp_path / "a"), _Variant(), broken)
    ours = OURS.copy()
    ours[1, 2, 3] = bad
    with pytest.raises(CellFailure, match="the logits of window 2 of the evaluation text are not finite"):
        _compare(
            _columns(tmp_path / "b"),
            lambda ids: ours[next(i for i in range(WINDOWS) if (IDS[i] == ids).all())],
        )


def test_logits_so_far_apart_that_their_divergence_is_infinite_are_refused(tmp_path: Path) -> None:
    ours = OURS[0].copy()
    ours[LENGTH // 2, :2] = 3e38, -3e38
    with (
        pytest.raises(CellFailure, match="the divergence in window 1 of the evaluation text is not finite"),
        np.errstate(all="ignore"),
    ):
        _compare(_columns(tmp_path), lambda _: ours)


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CellFailure, match="the vocabulary has 39 tokens, the reference's 40"):
        _compare(_columns(tmp_path), lambda _: OURS[0][:, :-1])


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from quantlab.analysis import clustered
from quantlab.analysis.divergence import WindowValues, summarize_columns
from quantlab.workspace.columns import Columns, Shape
from quantlab.hardware.memory import process_memory
from quantlab.progress import Progress
from quantlab.stages.diverge import compare

clustered.RESAMPLES = 3  # each frees what it took
windows, length, vocabulary = int(sys.argv[2]), 512, 32
ids = np.random.default_rng(0).integers(0, vocabulary, (windows, length))
done = Columns(Path(sys.argv[1]), "c" * 64, "divergence", "k", Shape(6, windows, length - 1 - length // 2))
logits = lambda seed: np.random.default_rng(seed).normal(size=(length, vocabulary)).astype(np.float32)
with Progress(quiet=True).step("") as step:
    compare(logits, lambda row: logits(int(row.sum())), ids, done, step)
before = process_memory().peak_rss_bytes
found = summarize_columns(WindowValues(*done.read()))
print(before, process_memory().peak_rss_bytes, found.tokens)
"""


def test_memory_grows_by_less_than_60_bytes_per_scored_token(tmp_path: Path) -> None:
    def peaks(windows: int) -> tuple[int, int, int]:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / str(windows)), str(windows)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        before, after, tokens = map(int, re.findall(r"\d+", found))
        return before, after, tokens

    few, many = peaks(400), peaks(1600)
    growth = (many[1] - few[1]) / (many[2] - few[2])
    assert growth < 60, f"{growth:.1f} bytes per scored token"
