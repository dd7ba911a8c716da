"""Files are whole or not there, one process writes them; a refusal says which file, what was wrong and what to do."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from remul_md.errors import InputError
from remul_md.files import changed_values, owned, read_json, replace_atomically, save_tensors, write_json

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


HOLDER = """
import sys, time
from pathlib import Path
from remul_md.files import owned
with owned(Path(sys.argv[1]), folder=sys.argv[2] == "folder"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def another_owner(path: Path, *, kind: str = "file") -> Iterator[subprocess.Popen[str]]:
    """Another process that owns a file or a folder; killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), kind], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_one_process_owns_an_output_and_the_other_is_told_who(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / "new" / "run", kind == "folder"
    with another_owner(path, kind=kind) as process:
        monkeypatch.chdir(tmp_path)
        for spelling in (path, Path("new/../new/run")):  # one output, however it is spelt
            told = rf"is being written by process {process.pid} on .+, since 20"
            with pytest.raises(InputError, match=told), owned(spelling, folder=folder):
                pass
        with owned(tmp_path / "new" / "other"):  # its neighbour is free
            pass
    with owned(path, folder=folder):  # the kernel freed it when the owner was killed
        pass
    assert not list(tmp_path.rglob("*.lock"))


def test_the_owner_may_ask_again_but_its_threads_may_not(tmp_path: Path) -> None:
    found: list[str] = []

    def ask() -> None:
        try:
            with owned(tmp_path / "run.traj"):
                found.append("owned twice")
        except InputError as error:
            found.append(str(error))

    with owned(tmp_path / "run.traj"):
        with owned(tmp_path / "run.traj"):
            pass
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert f"is being written by process {os.getpid()}" in found[0]
    assert not list(tmp_path.iterdir())


def test_what_a_killed_owner_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    ours = [".run.json.123-0123abcd.part", ".run.traj.99-deadbeef.part"]
    others = [".run.b.json.123-0123abcd.part", ".other.traj.7-0123abcd.part", ".run.traj.part", "run.traj.part"]
    for name in (*ours, *others):
        (tmp_path / name).write_text("half")
    with owned(tmp_path / "run.traj", also=[tmp_path / "run.json"]):
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, ".run.traj.lock"])


def test_a_file_system_without_locks_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    def refuse(*given: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for name in ("a", "b"):
        with owned(tmp_path / name):
            (tmp_path / name).write_text("written all the same")
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: its file system cannot lock files; see to it that no two processes write one output"
    ]


def test_a_place_that_cannot_be_owned_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), owned(tmp_path / "file" / "run.traj"):
        pass


def test_two_writers_of_one_file_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    """A shared one ends in "No such file": the first to rename takes it away from the other."""
    program = """
import sys
from pathlib import Path
from remul_md.files import replace_atomically
for _ in range(300):
    replace_atomically(Path(sys.argv[1]), 1000 * sys.argv[2].encode())
"""
    path = tmp_path / "one.json"
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), letter]) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_bytes())
        time.sleep(0.001)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {1000 * b"a", 1000 * b"b"}
    assert [file.name for file in tmp_path.iterdir()] == ["one.json"]


def test_a_file_that_did_not_fit_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_atomically(path, b"content")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_file_is_its_content_and_not_its_name() -> None:
    before = {"potential": "A.pt", "potential_sha256": "12", "seed": 3}
    assert changed_values(before, {"potential": "./A.pt", "potential_sha256": "12", "seed": 3}) == []
    changed = changed_values(before, {"potential": "A.pt", "potential_sha256": "13", "seed": 4})
    assert changed == ["potential_sha256 was '12', now '13'", "seed was 3, now 4"]
    assert changed_values({"potential": "A.pt"}, {"potential": "./A.pt"}) == ["potential was 'A.pt', now './A.pt'"]
