"""An output takes the place of no input, of nothing that others made, and of costly things only when told to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from remul_md.errors import InputError
from remul_md.outputs import (
    GENERATOR,
    check_existing,
    check_no_input,
    check_reports,
    make_way,
    save_picture,
    write_figures,
    write_text,
)


def figure() -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(1.0, 1.0))
    FigureCanvasAgg(drawn)
    drawn.add_subplot().plot([0, 1], [3, 2])
    return drawn


def test_reports_of_every_format_replace_their_own_kind_only(tmp_path: Path) -> None:
    page = f'<html><head><meta name="generator" content="{GENERATOR}"></head></html>'
    writers = {
        "a.json": lambda path: write_figures(path, {"x": 1.0}),
        "a.html": lambda path: write_text(path, page),
        "a.md": lambda path: write_text(path, "| table |\n"),
        "a.png": lambda path: save_picture(figure(), path),
        "a.svg": lambda path: save_picture(figure(), path),
        "a.pdf": lambda path: save_picture(figure(), path),
    }
    for name, write in writers.items():
        path = tmp_path / "new" / name
        write(path)
        write(path)  # in the place of the one before
        check_reports(path)
        path.write_bytes(b"notes of a user, who also has remul-md ")
        with pytest.raises(InputError, match="not written as a report"):
            write(path)
        assert path.read_bytes().startswith(b"notes")
        for other in ("a.h5md", "a.traj", "a.pt"):  # whatever stands there
            (tmp_path / other).write_bytes(b"- of UlmASE-Trajectory")
            with pytest.raises(InputError, match="was not written as a report"):
                check_reports(tmp_path / other)
    figure_of_others = tmp_path / "others.png"
    figure().savefig(figure_of_others)
    with pytest.raises(InputError, match="was not written as a report"):
        save_picture(figure(), figure_of_others)
    with pytest.raises(InputError, match=r"\.png, \.svg, \.pdf"):
        check_reports(picture=tmp_path / "a.jpeg")


def test_the_record_of_a_run_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished", "versions": {"remul-md": "0.1.0"}}))
    with pytest.raises(InputError, match="was not written as a report"):
        write_figures(tmp_path / "run.json", {"x": 1})


def test_an_input_is_known_under_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data.xyz"
    data.write_text("frames")
    (tmp_path / "link.xyz").symlink_to(data)
    os.link(data, tmp_path / "hard.xyz")
    for source in ("data.xyz", "./data.xyz", str(data), "link.xyz", "hard.xyz", "data.xyz:3"):
        with pytest.raises(InputError, match=r"is read by this command \(as .*(data|link|hard).xyz\)"):
            check_no_input([data], [None, "ethanol", source])
    check_no_input([tmp_path / "other.xyz"], [data, "ethanol", "rmd17/ethanol/test-01:3"])


def test_reports_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is named for two outputs"):
        check_reports(tmp_path / "a.html", None, tmp_path / "sub" / ".." / "a.html")
    with pytest.raises(InputError, match="is a folder"):
        check_reports(tmp_path)
    check_reports(None, Path("/dev/null"))


def test_costly_outputs_are_gone_on_with_or_replaced_when_told_to(tmp_path: Path) -> None:
    run, board = tmp_path / "run.traj", tmp_path / "tensorboard"
    board.mkdir()
    for path in (run, board / "events", tmp_path / "mine.txt"):
        path.write_text("work of a week")
    with pytest.raises(InputError, match=r"run\.traj' exists already; .*--resume.*--overwrite"):
        make_way([run, board], resume=False, overwrite=False)
    with pytest.raises(InputError, match="give one of them"):
        make_way([], resume=True, overwrite=True)
    with pytest.raises(InputError, match=r"exists already; replace it \(--overwrite\)"):
        check_existing([run], resume=None, overwrite=False)
    with pytest.raises(InputError, match="is read by this command"):
        make_way([run, board], resume=False, overwrite=True, inputs=[board / "events"])
    make_way([run, board], resume=True, overwrite=False)
    assert run.read_text() == (board / "events").read_text() == "work of a week"
    make_way([run, board], resume=False, overwrite=True, inputs=[tmp_path / "mine.txt"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
