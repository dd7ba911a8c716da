"""Ethanol in a uniform electric field, a world with one axis: taught the right group, the wrong one, or none.

What the wrong group costs, and what a network that cannot break the symmetry is left with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from remul_md.datasets import read_frames, write_frames
from remul_md.labels.calculated import calculate_labels
from remul_md.labels.field import in_random_orientations
from remul_md.labels.sources import label_source
from remul_md.studies.lab import CalculatorFactory
from remul_md.studies.methods import ABOUT_AXIS
from remul_md.studies.options import Names
from remul_md.studies.potentials import POTENTIAL_METHODS, PotentialOptions, Potentials, PotentialTask

if TYPE_CHECKING:
    from remul_md.structures.frames import Frames

SEEDS = {"train": 1, "test": 2}  # of the orientations
CASES = ("0", "0.1", "0.5", "1")


class FieldOptions(PotentialOptions):
    """Options of the task; the defaults are its default size."""

    axis: ClassVar[tuple[float, float, float] | None] = (0.0, 0.0, 1.0)

    cases: Names = Field(("0.5",), description="field along z, V/Angstrom")
    models: Names = ("relaxed", "exact")
    methods: Names = (
        *("plain", "augmentation-axis", "augmentation", "remul-0.1-axis", "remul-1-axis", "remul-10-axis"),
        *("remul-0.1", "remul-1", "remul-10"),
    )
    n_steps: int = Field(4000, ge=10, description="optimiser steps at equal steps, and of the reference at equal time")
    n_train: int = Field(900, ge=1, description="training frames, each in a random orientation")
    n_orientations: int | None = Field(None, ge=1, description="training and validation frames in so few orientations")
    n_validation: int = Field(100, ge=1, description="frames that choose the weights, rotated about the field")
    n_test: int = Field(333, ge=2, description="test frames, each in a random orientation")


def labels(study_dir: Path, case: str, part: str) -> Path:
    """File of the labels of a field."""
    return study_dir / f"labels-{case}-{part}.npz"


def prepare(options: FieldOptions, study_dir: Path, calculator: CalculatorFactory | None = None) -> None:
    """Label rMD17 geometries in random orientations by GFN2-xTB in the field; what is there is kept.

    Raises:
        InputError: tblite is not installed.
    """
    numbers = {"train": options.n_train + options.n_validation, "test": options.n_test}
    for case in options.cases:
        source = label_source("xtb", field_V_per_A=(0.0, 0.0, float(case)))
        for part, n in numbers.items():
            file = labels(study_dir, case, part)
            if file.is_file():
                continue
            frames = read_frames(f"rmd17/ethanol/{part}-01", with_labels=False).select(range(n))
            partial = file.with_name(f"labels-{case}-{part}-partial.npz")
            few = options.n_orientations if part == "train" else None
            rotated = in_random_orientations(frames, seed=SEEDS[part], n_orientations=few)
            done = calculate_labels(rotated, source, partial=partial)
            write_frames(done.frames, file, provenance=done.provenance)
            partial.unlink(missing_ok=True)


def data(options: FieldOptions, case: str, study_dir: Path) -> dict[str, Any]:
    """The training labels."""
    return {"source": str(labels(study_dir, case, "train")), "n_train": options.n_train}


def test(options: FieldOptions, case: str, study_dir: Path) -> Frames:
    """The test labels."""
    return read_frames(labels(study_dir, case, "test"))


QUICK: dict[str, Any] = {
    "methods": ["plain", "augmentation-axis", "augmentation", "remul-1-axis"],
    "seeds": [0],
    "n_steps": 500,
    "n_train": 400,
    "n_validation": 50,
    "n_test": 100,
}
TASK = PotentialTask(
    name="field",
    title="Ethanol in an electric field",
    options=FieldOptions,
    sizes={"quick": QUICK, "default": {}},
    cases={name: f"ethanol in a field of {name} V/Å along z" for name in CASES},
    methods=(*POTENTIAL_METHODS, *ABOUT_AXIS),
    runner=Potentials(data=data, test=test),
    prepare=prepare,
    notes=dict.fromkeys(CASES, "Rotated figures, percent and E' are those of rotations about the field."),
)
