"""The state of a run, kept and read back, and metrics that resume without a gap."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.files import written_beside
from remul_md.training.weighting import Weighting

METRICS = "metrics.csv"
SYMMETRY = "symmetry.csv"


@dataclass
class TrainState:
    """What a run has besides its config and its data; all of it goes into the checkpoint."""

    model: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    weighting: Weighting
    step: int = 0
    best_score: float = math.inf
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    n_worse: int = 0
    seconds: float = 0.0

    def to_payload(self, fingerprint: str) -> dict[str, Any]:
        """Plain tensors, numbers and strings."""
        return {
            "fingerprint": fingerprint,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "weighting": self.weighting.state_dict(),
            "best_weights": self.best_weights,
            **{name: getattr(self, name) for name in ("step", "best_score", "best_step", "n_worse", "seconds")},
        }

    def load_payload(self, payload: Mapping[str, Any]) -> None:
        """Take over a checkpoint in place."""
        self.model.load_state_dict(payload["model"])
        self.average.load_state_dict(payload["average"])
        self.optimizer.load_state_dict(payload["optimizer"])
        self.generator.set_state(payload["generator"])
        self.weighting.load_state_dict(payload["weighting"])
        self.best_weights = dict(payload["best_weights"])
        for name in ("step", "best_score", "best_step", "n_worse", "seconds"):
            setattr(self, name, payload[name])


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
            whole_lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
            rows = [row for row in csv.DictReader(whole_lines) if int(row["step"]) <= from_step]
        self._path = path
        # A live TensorBoard reads the newest file of a folder only, so each log has a folder of its own.
        board = folder / "tensorboard" if file_name == METRICS else folder / "tensorboard" / path.stem
        with _disk_errors_named(path):
            with written_beside(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
            self._file = path.open("a", newline="", encoding="utf-8")
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
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
