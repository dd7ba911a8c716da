"""The bar: on a terminal often, in a file now and then, nothing where none is wanted."""

from __future__ import annotations

import io

import pytest

from remul_md.progress import progress_bar


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
