"""The bar: on a terminal often, in a file now and then, nothing where none is wanted."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from remul_md.progress import progress_bar, update_untimed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "seconds"), [(Terminal(), 0.2), (io.StringIO(), 10.0)])
def test_how_often_it_writes(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, seconds: float) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bar(shown=True, total=7, initial=2, unit="frame", desc="label") as bar:
        assert bar.mininterval == seconds
        bar.update(5)
    assert "label: 100%" in stream.getvalue()
    assert "7/7" in stream.getvalue()


def test_nothing_is_written_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bar(shown=False, total=7, unit="frame") as bar:
        bar.update(7)
    assert stream.getvalue() == ""


def test_it_counts_what_it_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress_bar(range(3, 8), shown=True, unit="batch")) == [3, 4, 5, 6, 7]
    assert "5/5" in stream.getvalue()


def test_a_step_that_compiled_does_not_spoil_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of our own: two minutes for the first unit, a tenth of a second for each after it."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    clock = [0.0]
    with progress_bar(shown=True, total=1000, unit="step") as bar:
        bar._time, bar.start_t, bar.last_print_t = (lambda: clock[0]), 0.0, 0.0
        clock[0] = 120.0
        update_untimed(bar)
        for _ in range(49):
            clock[0] += 0.1
            bar.update()
        told = bar.format_dict
        assert bar.n == 50
        assert told["elapsed"] == pytest.approx(4.9)
        left = re.search(r"<(\d+):(\d+)", str(bar))
        assert left is not None
        assert 80 <= 60 * int(left[1]) + int(left[2]) <= 110  # 950 steps
    with progress_bar(shown=False, total=9, unit="step") as bar:
        update_untimed(bar)


def test_there_is_no_other_bar() -> None:
    package = Path(__file__).parents[1] / "remul_md"
    made = re.compile(r"\btqdm\(|\btrange\(")
    files = [path for path in package.rglob("*.py") if made.search(path.read_text(encoding="utf-8"))]
    assert files == [package / "progress.py"]
