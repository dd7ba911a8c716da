"""Reading back the state of a run, and metrics that resume without a gap."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from remul_md.errors import InputError

METRICS = "metrics.csv"
SYMMETRY = "symmetry.csv"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as plain tensors and numbers; nothing in it is executed.

    Raises:
        InputError: missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no checkpoint; start the run without --resume")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise InputError(f"{path}: is damaged or no checkpoint of remul-md ({type(error).__name__})") from error
    if not isinstance(payload, dict):
        raise InputError(f"{path}: holds a {type(payload).__name__}, expected a checkpoint")
    return payload


class MetricsLog:
    """One row a log line in a CSV file, the same numbers in TensorBoard.

    Args:
        folder: run directory.
        columns: names of the numbers, "step" first.
        from_step: rows after this step are cut off, because a resumed run writes them again.
        file_name: of the CSV file.
    Raises:
        InputError: the disk is full or the folder cannot be written.
    """

    def __init__(self, folder: Path, *, columns: list[str], from_step: int, file_name: str = METRICS) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._columns = columns
        path = folder / file_name
        rows: list[dict[str, str]] = []
        if from_step > 0 and path.is_file():
            # A kill may leave a half-written last line, in which "30" can be what is left of "300": it goes.
            whole_lines = path.read_text().rpartition("\n")[0].splitlines()
            rows = [row for row in csv.DictReader(whole_lines) if int(row["step"]) <= from_step]
        self._path = path
        # A live TensorBoard reads the newest file of a folder only, so each log has a folder of its own.
        board = folder / "tensorboard" if file_name == METRICS else folder / "tensorboard" / path.stem
        with _disk_errors_named(path):
            temporary = path.with_name(f".{file_name}.part")
            with temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
            temporary.replace(path)
            self._file = path.open("a", newline="")
            self._writer = csv.DictWriter(self._file, columns, restval="")
            self._board = SummaryWriter(str(board), purge_step=from_step + 1 if from_step else None)

    def write(self, row: Mapping[str, float | int]) -> None:
        """Append one row; a column that is not given stays empty.

        Raises:
            InputError: the disk is full.
        """
        with _disk_errors_named(self._path):
            self._writer.writerow(row)
            self._file.flush()
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Close both files."""
        with _disk_errors_named(self._path):
            self._file.close()
            self._board.close()


@contextmanager
def _disk_errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error}); free space or choose another folder, then go on with --resume"
        ) from error


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of `metrics.csv` or `symmetry.csv`; empty fields are left out."""
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
