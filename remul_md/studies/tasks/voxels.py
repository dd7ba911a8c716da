"""Densities on a grid, freed of noise by a U-Net: does a convolutional network learn rotations as fast?

Source: the question is that of Shen et al. (2025), arXiv:2512.02303, whose grid and network were not found; the noise
is that of VoxMol (Pinheiro et al. 2023, arXiv:2306.07473), whose 32^3 points at 0.25 Angstrom are the size "paper".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.potentials.potential import resolve_device
from remul_md.studies.jobs import fingerprint_of
from remul_md.studies.lab import CalculatorFactory, Job, Task, columns, validation_errors
from remul_md.studies.learn import course
from remul_md.studies.methods import METHODS, method_options
from remul_md.studies.models.unet import UNet
from remul_md.studies.options import StudyOptions
from remul_md.studies.particles import SYMMETRY_FIGURES
from remul_md.studies.voxels import Grid, Molecules, cube_figures, density, general_figures, rotate_molecules
from remul_md.symmetry.remul import Turn, remul_losses
from remul_md.symmetry.rotations import random_rotations
from remul_md.training.checkpoint import SYMMETRY, read_metrics
from remul_md.training.config import PUBLISHED, TrainConfig
from remul_md.training.fit import fit, new_state
from remul_md.training.schedule import shuffled
from remul_md.training.step_cost import next_step

ELEMENTS = (1, 6, 8)
MEAN = "the mean of the training grids"
WIDTHS_TO_EDGE = 2.0  # an atom so many widths from a face is on the grid
STEPS_TO_VALIDATE = 20
DRAWS = 8
MAX_GRIDS = 32  # in one pass without a graph
# Predictions cannot be held against each other: a grid is rotated exactly by the cube's rotations alone.
KNOWN = tuple(
    name for name, method in METHODS.items() if name in ("plain", "augmentation", "augmentation-2") or method.beta
)
MOLECULE_TURN: Turn[Any, Any] = Turn(inputs=rotate_molecules, outputs=rotate_molecules)


class VoxelOptions(StudyOptions):
    """Options of the task; the defaults are its default size."""

    cases: tuple[str, ...] = Field(("ethanol",), min_length=1, description="molecules")
    models: tuple[str, ...] = Field(("unet",), min_length=1, description="networks")
    methods: tuple[str, ...] = Field(("plain", "augmentation"), min_length=1, description="of training")
    n_train: int = Field(800, ge=1, description="training molecules")
    n_validation: int = Field(200, ge=2, description="validation molecules, the last ones of train split 01")
    n_test: int = Field(500, ge=2, description="test molecules")
    n_watched: int = Field(64, ge=2, description="held-out molecules whose symmetry is measured")
    n_points: int = Field(16, ge=4, description="of the grid along an edge, a multiple of 4")
    spacing: float = Field(0.5, gt=0, description="of the grid, Angstrom")
    atom_width: float = Field(0.45, gt=0, description="standard deviation of the Gaussian of an atom, Angstrom")
    noise: float = Field(0.9, gt=0, description="standard deviation of the noise; an atom is 1 high")
    n_channels: int = Field(16, ge=1, description="of the U-Net on the finest grid")
    n_steps: int = Field(10_000, ge=10, description="optimiser steps at equal steps, and of the reference")
    batch_size: int = Field(16, ge=1, description="molecules a step")
    learning_rate: float = Field(1e-3, gt=0, description="peak of the schedule")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="moving average of the weights; 0: the weights themselves")

    @model_validator(mode="after")
    def _grid_can_be_halved_twice(self) -> VoxelOptions:
        if self.n_points % 4:
            raise ValueError(f"n_points must be a multiple of 4, got {self.n_points}; 16 suits ethanol")
        return self

    @property
    def grid(self) -> Grid:
        """Where the densities stand."""
        return Grid(n=self.n_points, spacing=self.spacing, width=self.atom_width)

    def train_config(self, job: Job) -> TrainConfig:
        """Options of one run."""
        values: dict[str, Any] = {
            "seed": job.seed,
            "n_steps": job.n_steps,
            "batch_size": self.batch_size,
            "optimizer": "adamw",
            "learning_rate": self.learning_rate,
            "warmup_steps": min(100, job.n_steps // 10),
            "weight_decay": 0.0,
            "ema_decay": self.ema_decay,
            "group": "SO3",
            "validate_every": max(1, job.n_steps // STEPS_TO_VALIDATE),
            "device": self.device,
            "monitor_share": 1.0,
            **PUBLISHED,
            **method_options(job.method),
        }
        return TrainConfig(**values)

    def model(self, *, seed: int) -> UNet:
        """An untrained network; the same seed gives all methods the same weights to start from."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return UNet(n_values=len(ELEMENTS), n_channels=self.n_channels)


@dataclass(frozen=True)
class VoxelObjective:
    """REMUL for grids; call it with (model, molecules, generator).

    The atoms are rotated before they become a density, so the labels are exact in all orientations, and noise is drawn
    for each.
    """

    options: VoxelOptions
    config: TrainConfig

    def __call__(self, model: nn.Module, batch: Molecules, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses by name: mean squared error a value, scalars with a graph."""
        grid, config = self.options.grid, self.config
        n_rotated = config.n_rotated if config.beta > 0 else 0
        drawn = random_rotations(n_rotated * len(batch), generator=generator).view(n_rotated, len(batch), 3, 3)
        return remul_losses(
            lambda molecules: model(noisy(density(molecules, grid), self.options.noise, generator)),
            batch,
            batch,
            turn=MOLECULE_TURN,
            rotations=drawn.to(batch.positions.device),
            gap=lambda found, molecules: (found - density(molecules, grid)).square().mean((1, 2, 3, 4)),
            original=config.alpha > 0,
        )


def noisy(clean: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """White noise added to grids; the generator is one of the CPU."""
    return clean + noise * torch.randn(clean.shape, generator=generator).to(clean)


def load(options: VoxelOptions, case: str) -> dict[str, Molecules]:
    """Centred molecules of "train", "validation" and "test", in the orientations that they have in rMD17.

    Raises:
        InputError: a molecule that is larger than the grid in some orientation.
    """
    rows = {
        "train": ("train", np.arange(options.n_train)),
        "validation": ("train", np.arange(1000 - options.n_validation, 1000)),
        "test": ("test", np.arange(options.n_test)),
    }
    found = {}
    for name, (part, chosen) in rows.items():
        frames = read_frames(f"rmd17/{case}/{part}-01").select(chosen)
        positions = torch.from_numpy(frames.positions).view(len(chosen), -1, 3)
        positions = (positions - positions.mean(1, keepdim=True)).float()
        numbers = torch.from_numpy(frames.atomic_numbers).view(len(chosen), -1, 1)
        far, reach = positions.norm(dim=2).max().item(), options.grid.reach
        if far + WIDTHS_TO_EDGE * options.atom_width > reach:
            raise InputError(
                f"{case} has atoms {far:.2f} Angstrom from its centre, the grid ends at {reach:.2f}; give more "
                "n_points or a wider spacing"
            )
        found[name] = Molecules(positions=positions, elements=(numbers == torch.tensor(ELEMENTS)).float())
    return found


class Denoising:
    """Trains and tests the jobs of the task; a `Runner`."""

    def check(self, options: VoxelOptions, job: Job) -> TrainConfig:
        """Refuse a job that cannot be, before anything is read."""
        return options.train_config(job)

    def step(self, options: VoxelOptions, job: Job, study_dir: Path) -> Callable[[], None]:
        """A function that takes the next step of a job, without logs, validation and checkpoints."""
        config, device = options.train_config(job), resolve_device(options.device)
        state = new_state(options.model(seed=job.seed).to(device), config)
        batch_of = shuffled(load(options, job.case)["train"].to(device), config)
        return next_step(state, batch_of, objective=VoxelObjective(options, config), config=config)

    def run(
        self, options: VoxelOptions, job: Job, folder: Path, calculator: CalculatorFactory | None
    ) -> dict[str, Any]:
        """Train and test one job; see `Runner.run`."""
        config, device = options.train_config(job), resolve_device(options.device)
        data = {name: molecules.to(device) for name, molecules in load(options, job.case).items()}
        clean = {name: density(molecules, options.grid) for name, molecules in data.items()}
        held_out = {
            name: noisy(grids, options.noise, torch.Generator().manual_seed(place))
            for place, (name, grids) in enumerate(clean.items())
        }
        watched, model = slice(options.n_watched), options.model(seed=job.seed).to(device)

        def validate(candidate: nn.Module) -> dict[str, float]:
            error = squared_error(candidate, held_out["validation"], clean["validation"])
            return {"validation_mse": error, "score": error}

        def monitor(candidate: nn.Module) -> dict[str, float]:
            grids = held_out["validation"][watched], clean["validation"][watched]
            return cube_figures(lambda each: denoised(candidate, each), *grids, n_draws=DRAWS)

        result = fit(
            model,
            data["train"],
            objective=VoxelObjective(options, config),
            validate=validate,
            validation_columns=("validation_mse",),
            monitor=monitor,
            monitor_columns=SYMMETRY_FIGURES,
            config=config,
            run_dir=folder,
            fingerprint=fingerprint_of(options.decisive, job.case, job.model, config.model_dump(mode="json")),
            resume=True,
            progress=False,
        )
        began, trained = time.perf_counter(), result.model

        def denoise(grids: Tensor) -> Tensor:
            return denoised(trained, grids)

        of_test = held_out["test"][watched], clean["test"][watched]
        figures = {
            **{name: squared_error(trained, held_out[name], clean[name]) for name in ("train", "test")},
            **cube_figures(denoise, *of_test, n_draws=DRAWS),
            **general_figures(denoise, data["test"].select(watched), options.grid, noise=options.noise, n_draws=DRAWS),
        }
        return {
            "n_parameters": sum(p.numel() for p in model.parameters()),
            "best_step": result.best_step,
            "train_seconds": round(result.seconds, 1),
            "test_seconds": round(time.perf_counter() - began, 1),
            "figures": figures,
            "baselines": {
                "nothing there": clean["test"].square().mean().item(),
                MEAN: (clean["test"] - clean["train"].mean(0)).square().mean().item(),
            },
            "zero_error": clean["validation"].square().mean().item(),
            "history": [course(row) for row in read_metrics(folder / SYMMETRY)],
            "learning": validation_errors(folder, "validation_mse"),
        }


def denoised(model: nn.Module, grids: Tensor) -> Tensor:
    """Outputs for grids [B, K, V, V, V] without a graph, in passes of bounded memory."""
    with torch.no_grad():
        return torch.cat([model(part) for part in grids.split(MAX_GRIDS)])


def squared_error(model: nn.Module, grids: Tensor, clean: Tensor) -> float:
    """Mean squared error a value."""
    return (denoised(model, grids) - clean).square().mean().item()


QUICK: dict[str, Any] = {
    "seeds": [0],
    "n_steps": 1000,
    "n_channels": 4,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "n_validation": 64,
    "n_test": 200,
    "n_watched": 16,
}
PAPER: dict[str, Any] = {
    "n_points": 32,
    "spacing": 0.25,
    "atom_width": 0.3,
    "n_channels": 32,
    "batch_size": 128,
    "device": "cuda",
}
MSE = 1e3  # printed x 1e-3
TASK = Task(
    name="voxels",
    title="Densities on a grid",
    options=VoxelOptions,
    sizes={"quick": QUICK, "default": {}, "paper": PAPER},
    cases={name: name for name in ("ethanol", "benzene", "malonaldehyde")},
    models={"unet": "U-Net"},
    methods=KNOWN,
    runner=Denoising(),
    errors=("test", "rotated"),
    error_label="mean squared error a value x 1e-3",
    learned_below=MEAN,  # under this noise half the error of an empty grid is out of reach for long
    tables={
        "Mean squared error a value of the grid, x 1e-3": {
            **columns(
                {
                    "train": "train",
                    "test": "test",
                    "rotated": "all orientations",
                    "spread": "s², rotations of the cube",
                },
                scale=MSE,
            ),
            **columns({"percent": "percent, rotations of the cube", "equivariance_norm": "E', rotations of the cube"}),
            **columns(
                {"general_percent": "percent, all rotations, interpolated", "floor_percent": "of which interpolation"}
            ),
        }
    },
)
