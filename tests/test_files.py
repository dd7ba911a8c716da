"""JSON files: whole or not there, and every refusal says which file, what was wrong and what to do."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import stat
from pathlib import Path

import pytest
import torch

from remul_md.errors import InputError
from remul_md.files import read_json, save_tensors, write_json

HINT = "take another file"


def test_what_is_written_reads_back_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "figures.json"
    content = {"b": 1.25, "a": [1, None, "é"], "nested": {"x": True}}
    write_json(path, content, hint=HINT)
    assert read_json(path, hint=HINT) == content
    assert list(read_json(path, hint=HINT)) == ["b", "a", "nested"]
    assert path.read_text().endswith("}\n")
    assert [file.name for file in path.parent.iterdir()] == ["figures.json"]  # nothing temporary is left


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_no_json_are_refused_and_the_old_file_stays(tmp_path: Path, value: float) -> None:
    path = tmp_path / "figures.json"
    write_json(path, {"x": 1.0}, hint=HINT)
    message = re.escape(f"{path}: is not written, JSON knows no NaN and no infinity") + f".*{HINT}"
    with pytest.raises(InputError, match=message):
        write_json(path, {"x": value}, hint=HINT)
    assert json.loads(path.read_text()) == {"x": 1.0}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "figures.json", tmp_path):
        with pytest.raises(InputError, match=re.escape(f"{path}: cannot be written") + f".*{HINT}"):
            write_json(path, {"x": 1}, hint=HINT)


def test_a_device_is_written_to_and_not_replaced() -> None:
    write_json(Path("/dev/null"), {"x": 1}, hint=HINT)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read as JSON .*No such file"),
        ('{"x": ', "cannot be read as JSON .*Expecting value"),
        ("[1, 2]", "holds a list, expected a JSON object"),
        ("\x80", "cannot be read as JSON"),
    ],
)
def test_what_is_no_object_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "figures.json"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=re.escape(f"{path}: ") + message + f".*; {HINT}"):
        read_json(path, hint=HINT)


def test_an_interrupt_while_tensors_are_saved_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`copyreg._slotnames`, on the way of every pickled object, ends in a bare `except`: one Ctrl-C in hundreds."""
    save, handler = torch.save, signal.getsignal(signal.SIGINT)

    def interrupted(*given: object) -> None:
        with contextlib.suppress(BaseException):  # as it stands there
            signal.raise_signal(signal.SIGINT)
        save(*given)

    save_tensors(tmp_path / "weights.pt", {"weights": torch.zeros(3)})
    before = (tmp_path / "weights.pt").read_bytes()
    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_tensors(tmp_path / "weights.pt", {"weights": torch.ones(4)})
    assert (tmp_path / "weights.pt").read_bytes() == before
    assert signal.getsignal(signal.SIGINT) is handler
