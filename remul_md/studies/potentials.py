"""A job of a task whose networks are potentials: train as `remul-md train` does, evaluate, and run dynamics.

Errors in meV/Angstrom and meV. The potential of every job lies in its folder, for measurements on finished runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from pydantic import Field

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.errors import InputError
from remul_md.potentials.potential import load_potential, resolve_device
from remul_md.studies.lab import CalculatorFactory, Column, Job, Task, columns, validation_errors
from remul_md.studies.methods import ALL_GROUP, method_options
from remul_md.studies.options import Names, StudyOptions
from remul_md.training.checkpoint import SYMMETRY, read_metrics
from remul_md.training.config import PUBLISHED, RunConfig, validated_config
from remul_md.training.step_cost import training_step
from remul_md.training.train import POTENTIAL, train_potential

if TYPE_CHECKING:
    from remul_md.structures.frames import Frames

# Label, and the options of the model section; every value of `model.symmetry` can have a row.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "relaxed": ("relaxed transformer", {"symmetry": "relaxed"}),
    "exact": ("exact transformer", {"symmetry": "exact"}),
    "none": ("plain transformer", {"symmetry": "none"}),
    "painn": ("PaiNN (equivariant)", {"kind": "painn"}),
}
POTENTIAL_METHODS = (*ALL_GROUP, "torque")
STEPS_TO_VALIDATE = 20
ERRORS = ("force_mae_original", "force_mae_rotated")
# Figures of `Accuracy` under their own names.
ACCURACY_TABLE = {
    "Errors in meV/Å and meV": columns(
        {
            "force_mae_original": "force MAE, original",
            "force_mae_rotated": "force MAE, rotated",
            "energy_mae_rotated": "energy MAE, rotated",
            "rotational_error": "rotational error",
            "rotational_spread": "spread",
            "equivariance_norm": "E'",
            "equivariance_percent": "percent",
            "direction_load": "direction load",
            "force_mae_exact": "force MAE, raw directions cut",
        }
    )
}


class PotentialOptions(StudyOptions):
    """What all tasks of potentials are asked: networks, training, and the test. The recipe is that of `train`."""

    axis: ClassVar[tuple[float, float, float] | None] = None  # of the methods that turn about one, and of the figures

    models: Names = tuple(MODELS)
    n_steps: int = Field(8000, ge=10, description="optimiser steps at equal steps, and of the reference at equal time")
    n_validation: int = Field(50, ge=1, description="frames that choose the weights, in rotated orientations")
    batch_size: int = Field(8, ge=1, description="frames a step; each is seen in one or two orientations")
    width: int = Field(128, ge=1, description="of the transformer")
    n_layers: int = Field(3, ge=1, description="of the transformer")
    n_heads: int = Field(8, ge=1, description="of the transformer")
    painn_width: int = Field(128, ge=1, description="of the equivariant control")
    optimizer: Literal["muon", "adamw"] = Field("muon", description="of all methods")
    weight_decay: float = Field(0.05, ge=0, description="of all methods")
    learning_rate: float = Field(6e-3, gt=0, description="peak of the schedule, transformer")
    painn_learning_rate: float = Field(6e-3, gt=0, description="peak of the schedule, equivariant control")
    n_test: int = Field(1000, ge=2, description="test frames")
    n_draws: int = Field(8, ge=2, description="rotations of each test frame")
    compile: bool = Field(False, description="compile training steps; not those of the gradual method")

    def run_config(self, job: Job, data: dict[str, Any]) -> RunConfig:
        """Options of one run: the recipe of the demo, in all but what the method changes.

        Args:
            job: which.
            data: the data section.
        Raises:
            InputError: sizes that do not fit, as `RunConfig`.
        """
        steps, model, is_painn = job.n_steps, MODELS[job.model][1], job.model == "painn"
        sizes = {"width": self.width, "n_layers": self.n_layers, "n_heads": self.n_heads}
        model = model | ({"width": self.painn_width} if is_painn else sizes)
        options = method_options(job.method, axis=self.axis)
        train = {
            "seed": job.seed,
            "n_steps": steps,
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            "weight_decay": self.weight_decay,
            "learning_rate": self.painn_learning_rate if is_painn else self.learning_rate,
            "warmup_steps": min(200, steps // 10),
            "validate_every": max(1, steps // STEPS_TO_VALIDATE),
            "device": self.device,
            # GradNorm needs a gradient of each loss, the compiled step has one of their sum.
            "compile": self.compile and options.get("weighting") != "gradual",
            "monitor_share": 1.0,  # the steps are never thinned out: methods are compared at the same ones
            **PUBLISHED,
            **({"group": "SO3"} if "axis" in options else {}),
            **options,
        }
        data = {"n_validation": self.n_validation, **data}
        return validated_config({"data": data, "model": model, "train": train}, origin=job.name)


Q = TypeVar("Q", bound=PotentialOptions)


@dataclass(frozen=True, kw_only=True)
class Potentials(Generic[Q]):
    """What a task of potentials says of itself; a `Runner`.

    Args:
        data: (options, case, folder of the study) -> the data section of a run, without the validation frames.
        test: the same -> labelled test frames.
        dynamics: (options, job, folder of the run, calculator) -> further figures, or None.
    """

    data: Callable[[Q, str, Path], dict[str, Any]]
    test: Callable[[Q, str, Path], Frames]
    dynamics: Callable[[Q, Job, Path, CalculatorFactory | None], dict[str, Any]] | None = None

    def check(self, options: Q, job: Job) -> RunConfig:
        """Refuse a job that cannot be, before anything is read."""
        return options.run_config(job, self.data(options, job.case, Path("STUDY")))

    def step(self, options: Q, job: Job, study_dir: Path) -> Callable[[], None]:
        """A function that takes the next step of a job, without logs, validation and checkpoints."""
        return training_step(options.run_config(job, self.data(options, job.case, study_dir)))

    def run(self, options: Q, job: Job, folder: Path, calculator: CalculatorFactory | None) -> dict[str, Any]:
        """Train, test and run one potential; see `Runner.run`."""
        config = options.run_config(job, self.data(options, job.case, folder.parent))
        trained = train_potential(config, run_dir=folder, resume=True, progress=False)
        metrics = trained.provenance.metrics
        frames = self.test(options, job.case, folder.parent)
        if frames.forces is None:
            raise InputError(f"{frames.name}: the test frames have no forces")
        potential = load_potential(folder / POTENTIAL, device=resolve_device(options.device))
        accuracy = evaluate_potential(potential, frames, n_draws=options.n_draws, axis=options.axis)
        return {
            "n_parameters": sum(p.numel() for p in trained.model.parameters()),
            "best_step": metrics["best_step"],
            "train_seconds": round(trained.provenance.seconds, 1),
            "figures": {name: accuracy.to_json()[name] for table in ACCURACY_TABLE.values() for name in table}
            | ({} if self.dynamics is None else self.dynamics(options, job, folder, calculator)),
            "baselines": {"forces of 0": 1000.0 * float(np.abs(frames.forces).mean())},
            "zero_error": 1e6 * float(np.square(frames.forces).mean()),
            "history": [
                {
                    "step": row["step"],
                    "percent": row["forces_percent"],
                    "error": row["forces_T"] + row["forces_s2"],
                    "equivariance_norm": row["forces_equivariance_norm"],
                }
                for row in read_metrics(folder / SYMMETRY)
            ],
            "learning": validation_errors(folder, "validation_force_mae"),
        }


@dataclass(frozen=True, kw_only=True)
class PotentialTask(Task[Q]):
    """A task of potentials; networks, methods, errors and tables are these, if it says nothing else."""

    models: Mapping[str, str] = field(default_factory=lambda: {name: label for name, (label, _) in MODELS.items()})
    exact: frozenset[str] = frozenset({"exact", "painn"})
    methods: tuple[str, ...] = POTENTIAL_METHODS
    errors: tuple[str, ...] = ERRORS
    error_label: str = "force MAE, meV/Å"
    tables: Mapping[str, Mapping[str, Column]] = field(default_factory=lambda: ACCURACY_TABLE)
