"""`improve.json`: what a run of `remul-md improve` was asked and what it has done, written after each stage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remul_md.errors import InputError
from remul_md.files import changed_values, read_json
from remul_md.outputs import check_no_input, make_way, write_figures
from remul_md.training.improve_report import PAGE, PICTURE, write_page

STATE, POTENTIAL, COMPARED, MEMBERS = "improve.json", "potential.pt", "compared.part", "members"


class ImproveState:
    """What is done, in `improve.json`: an entry for each round, to which each stage adds what it found."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder, self.content = folder, content

    @classmethod
    def begun(
        cls, folder: Path, asked: Mapping[str, Any], *, resume: bool, overwrite: bool, inputs: Any
    ) -> ImproveState:
        """That of an interrupted run, or of a new one, whose file is written."""
        files = [folder / name for name in (STATE, POTENTIAL, PAGE, PICTURE, MEMBERS, COMPARED)]
        present = [path for path in (*files, *sorted(folder.glob("round-*"))) if path.exists()]
        check_no_input([folder / POTENTIAL], inputs)
        make_way(present, resume=resume, overwrite=overwrite, inputs=inputs, option="--run-dir")
        if overwrite or not present:
            state = cls(folder, {"asked": dict(asked), "ended": "", "level": None, "rounds": []})
            state.write()
            return state
        if not (folder / STATE).is_file():
            raise InputError(f"{folder}: holds files of a run but no {STATE}; give a new --run-dir")
        content = read_json(folder / STATE, hint="give a new --run-dir")
        # The length of the runs and the budget may grow; everything else decides what was done so far.
        grown = {"budget_labels", "until_ps", "max_rounds"}
        now = {key: value for key, value in asked.items() if key not in grown}
        if changed := changed_values(content.get("asked", {}), now):
            raise InputError(f"{folder}: was begun with other options: {'; '.join(changed)}; use a new --run-dir")
        before = content["asked"]["until_ps"]
        if before > asked["until_ps"]:
            least = f"{asked['until_ps']:g} ps"
            raise InputError(
                f"{folder}: its runs had to hold {before:g} ps, {least} are asked for; give as much, or a new --run-dir"
            )
        if content["ended"]:  # the round that was the last one goes on
            last = content["rounds"][-1]
            if asked["until_ps"] > before:
                last.pop("runs", None)
            if not last.get("geometries"):
                last.pop("geometries", None)
        content |= {"asked": dict(asked), "ended": ""}
        return cls(folder, content)

    def write(self, *, runs_are_new: bool = False) -> None:
        """Write the file and the page; its picture, which shows the runs alone, where these are new."""
        write_figures(self.folder / STATE, self.content, hint="choose another --run-dir")
        if self.rows():
            write_page(self.folder, self.content, draw=runs_are_new)

    def rows(self) -> list[dict[str, Any]]:
        """The entries of all rounds that have begun."""
        return list(self.content["rounds"])

    def of_round(self, number: int) -> dict[str, Any]:
        """The entry of a round, which may be new."""
        if number == len(self.content["rounds"]):
            self.content["rounds"].append({"round": number, "seconds": {}})
        entry: dict[str, Any] = self.content["rounds"][number]
        return entry


class Clock:
    """Adds the seconds of a block to those of a stage."""

    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self.seconds, self.stage = seconds, stage

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *failure: object) -> None:
        self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + time.perf_counter() - self.started
