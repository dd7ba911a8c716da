"""Ways of training a force field on rMD17: accuracy, symmetry, and dynamics of each potential."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from remul_md.analysis.trajectory import analyze_trajectory
from remul_md.datasets import read_frames
from remul_md.datasets.structure_source import read_structure
from remul_md.dynamics import MDOptions, SimulationStopped, run_md
from remul_md.errors import InputError
from remul_md.studies.lab import CalculatorFactory, Job, columns
from remul_md.studies.options import Names
from remul_md.studies.potentials import (
    ACCURACY_TABLE,
    ERRORS,
    POTENTIAL_METHODS,
    PotentialOptions,
    Potentials,
    PotentialTask,
)
from remul_md.training.run_folder import POTENTIAL

if TYPE_CHECKING:
    from remul_md.structures.frames import Frames

TRAJECTORY = "nve.traj"


class ForceFieldOptions(PotentialOptions):
    """Options of the task; the defaults are its default size."""

    cases: Names = Field(("ethanol", "aspirin", "salicylic"), description="molecules of rMD17")
    methods: Names = POTENTIAL_METHODS
    n_train: int = Field(950, ge=1, description="training frames")
    nve_ps: float = Field(5.0, gt=0, description="length of the NVE run of each potential")
    equilibrate_ps: float = Field(2.0, ge=0, description="Langevin dynamics before it")
    temperature_K: float = Field(300.0, gt=0, description="of the NVE run")

    @model_validator(mode="after")
    def _dynamics_are_possible(self) -> ForceFieldOptions:
        self.md_options(seed=0)
        return self

    def md_options(self, *, seed: int) -> MDOptions:
        """Options of the NVE run of each potential."""
        return MDOptions(
            temperature_K=self.temperature_K, length_ps=self.nve_ps, equilibrate_ps=self.equilibrate_ps, seed=seed
        )


def data(options: ForceFieldOptions, case: str, study_dir: Path) -> dict[str, Any]:
    """Train split 01."""
    return {"molecule": case, "n_train": options.n_train}


def test(options: ForceFieldOptions, case: str, study_dir: Path) -> Frames:
    """The first frames of test split 01."""
    return read_frames(f"rmd17/{case}/test-01").select(range(options.n_test))


def dynamics(
    options: ForceFieldOptions, job: Job, folder: Path, calculator: CalculatorFactory | None
) -> dict[str, Any]:
    """NVE with the potential in `folder`, from the first test frame: drift, momenta, rotational error along it.

    A molecule that falls apart is a result too: "nve" then says when.
    """
    assert calculator is not None
    atoms = read_structure(f"rmd17/{job.case}/test-01:0")
    atoms.calc = calculator(str(folder / POTENTIAL))
    output, outcome = folder / TRAJECTORY, "whole"
    try:
        run_md(atoms, options.md_options(seed=job.seed), output=output, resume=True, progress=False)
    except SimulationStopped as stop:
        outcome = f"broke at {stop.time_ps:.2g} ps of {stop.phase}"
    try:
        found = analyze_trajectory(output, atoms=atoms, n_draws=options.n_draws).to_json()
    except InputError:
        if outcome == "whole":
            raise
        return {"nve": outcome}  # it broke before the first frame of the trajectory
    drift, interval = found["drift_meV_per_atom_ps"], found["drift_ci95"]
    beside = "" if interval is None else " [{:+.4f}, {:+.4f}]".format(*interval)
    return {
        "nve": outcome,
        "drift": None if drift is None else f"{drift:+.4f}{beside}",
        "temperature": found["temperature_K"],
        "angular_momentum_change": found["angular_momentum_change"],
        "rotational_error_along": found["rotational_error"],
        "angle_swept": found["angle_swept_deg"],
    }


QUICK: dict[str, Any] = {
    "cases": ["ethanol"],
    "models": ["relaxed", "exact", "painn"],
    "methods": ["plain", "augmentation", "augmentation-2", "remul-1", "recipe"],
    "seeds": [0],
    "n_steps": 1000,
    "n_test": 200,
    "nve_ps": 1.0,
    "equilibrate_ps": 0.5,
}
TASK = PotentialTask(
    name="force-field",
    title="Force fields",
    options=ForceFieldOptions,
    sizes={"quick": QUICK, "default": {}},
    cases={
        name: name for name in ("ethanol", "aspirin", "salicylic", "benzene", "malonaldehyde", "naphthalene", "toluene")
    },
    runner=Potentials(data=data, test=test, dynamics=dynamics),
    dynamics=True,
    ratio=ERRORS,
    tables={
        **ACCURACY_TABLE,
        "NVE with each potential": columns(
            {
                "nve": "NVE",
                "drift": "drift [95 %], meV/atom/ps",
                "temperature": "mean temperature, K",
                "angular_momentum_change": "angular momentum, change",
                "rotational_error_along": "rotational error along it, meV/Å",
                "angle_swept": "rotated by, degrees",
            }
        ),
    },
)
