"""When does freedom pay? Networks with more and less symmetry built in, by the number of frames: does the gap close?

The labels are GFN2-xTB's, of which there is no end: short walks at 500 K from rMD17 geometries of ethanol.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from remul_md.datasets import read_frames
from remul_md.labels.sampling import sample_labels
from remul_md.labels.sources import label_source
from remul_md.studies.lab import CalculatorFactory
from remul_md.studies.options import Names
from remul_md.studies.potentials import ERRORS, PotentialOptions, Potentials, PotentialTask

if TYPE_CHECKING:
    from remul_md.structures.frames import Frames

TEMPERATURE_K = 500.0
SEEDS = {"train": 1, "test": 2}
CASES = ("200", "2000", "20000", "50000")


class FreedomOptions(PotentialOptions):
    """Options of the task; the defaults are its default size."""

    cases: Names = Field(("200", "2000", "20000"), description="training frames")
    models: Names = ("relaxed", "exact")
    methods: Names = ("augmentation", "remul-1")
    n_validation: int = Field(200, ge=1, description="frames that choose the weights, in rotated orientations")


def labels(study_dir: Path, part: str) -> Path:
    """File of the test labels, or of those of a number of training frames."""
    return study_dir / f"labels-{part}.npz"


def prepare(options: FreedomOptions, study_dir: Path, calculator: CalculatorFactory | None = None) -> None:
    """Sample and label geometries around the two halves of rMD17's split; goes on where it was stopped.

    A smaller set is the beginning of a larger one.

    Raises:
        InputError: tblite is not installed.
    """
    source = label_source("xtb")
    wanted = {case: ("train", int(case) + options.n_validation) for case in options.cases}
    for name, (part, n) in {**wanted, "test": ("test", options.n_test)}.items():
        sample_labels(
            read_frames(f"rmd17/ethanol/{part}-01", with_labels=False),
            source,
            n_labels=n,
            temperature_K=TEMPERATURE_K,
            seed=SEEDS[part],
            path=labels(study_dir, name),
        )


def data(options: FreedomOptions, case: str, study_dir: Path) -> dict[str, Any]:
    """The labels of this many training frames; the check that finds wrong units is not for our own."""
    return {"source": str(labels(study_dir, case)), "n_train": int(case), "allow_implausible": True}


def test(options: FreedomOptions, case: str, study_dir: Path) -> Frames:
    """Labels around other geometries than those of training, the same for all cases."""
    return read_frames(labels(study_dir, "test"), allow_implausible=True)


QUICK: dict[str, Any] = {"cases": ["200", "2000"], "seeds": [0], "n_steps": 800, "n_test": 200}
TASK = PotentialTask(
    name="freedom",
    title="When does freedom pay?",
    options=FreedomOptions,
    sizes={"quick": QUICK, "default": {}},
    cases={name: f"ethanol, GFN2-xTB, {name} training frames" for name in CASES},
    runner=Potentials(data=data, test=test),
    prepare=prepare,
    errors=(ERRORS[1], ERRORS[0]),
)
