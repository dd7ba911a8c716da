"""Flow matching of conformers: how fast does a network that nothing constrains learn that a molecule has no up?

Noise x0 is carried to a conformer x1 along x_t = (1 - t) x0 + t x1, at the velocity x1 - x0, which is the label. Noise
and time are drawn anew in every step, and once for all held-out conformers. Lengths in Angstrom. Letters: B systems, N
atoms, padding included.

Source: the question is that of Shen et al. (2025), arXiv:2512.02303, whose data and network were not found; straight
paths as Lipman et al. (2023), arXiv:2210.02747.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from remul_md.datasets import read_frames
from remul_md.structures.topology import bond_angles, bond_kinds, bond_lengths, bond_pairs, bonded_chains
from remul_md.studies.lab import Column, columns
from remul_md.studies.learn import ParticleOptions, Particles, ParticleTask, Splits
from remul_md.studies.models.flow import FlowTransformer
from remul_md.studies.particles import TokenObjective, Tokens, predict
from remul_md.training.config import TrainConfig

if TYPE_CHECKING:
    from remul_md.structures.frames import Frames

ELEMENTS = (1, 6, 8)
MOLECULES = ("ethanol", "salicylic", "aspirin", "benzene", "malonaldehyde", "naphthalene", "toluene")
ALL = "all"
CLOUD = "a Gaussian cloud"
N_BINS = 4  # of the time
N_REAL = 4  # test conformers behind a distribution for each sample
PARTS = tuple(f"t{number}" for number in range(N_BINS))


class FlowOptions(ParticleOptions):
    """Options of the task; the defaults are its default size."""

    cases: tuple[str, ...] = Field(("ethanol", "salicylic", "aspirin", ALL), min_length=1, description="molecules")
    methods: tuple[str, ...] = Field(("plain", "augmentation"), min_length=1, description="of training")
    n_train: int = Field(800, ge=1, description="training conformers of each molecule")
    n_validation: int = Field(200, ge=N_BINS, description="of each molecule, the last ones of train split 01")
    n_test: int = Field(1000, ge=N_BINS, description="test conformers of each molecule")
    noise: float = Field(1.0, gt=0, description="standard deviation of a coordinate of the noise, Angstrom")
    n_steps: int = Field(
        10_000, ge=10, description="optimiser steps at equal steps, and of the reference at equal time"
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak of the schedule")
    n_samples: int = Field(200, ge=2, description="conformers made by the trained flow")
    n_flow_steps: int = Field(50, ge=1, description="midpoint steps of the flow")

    def model(self, kind: str, example: Tokens, *, seed: int) -> nn.Module:
        """An untrained network; the same seed gives all methods the same weights to start from."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return FlowTransformer(
                n_elements=len(ELEMENTS), width=self.width, n_layers=self.n_layers, n_heads=self.n_heads
            )


def clean(frames: Frames, *, n_places: int) -> Tokens:
    """Conformers at the end of their path, centred: t = 1 and no target, with places that are empty."""
    n = len(frames)
    positions, scalars = torch.zeros(n, n_places, 3), torch.zeros(n, n_places, len(ELEMENTS) + 1)
    for row in range(n):
        x, z = torch.from_numpy(frames.frame_positions(row)), torch.from_numpy(frames.frame_numbers(row))
        positions[row, : len(x)] = (x - x.mean(0)).float()
        scalars[row, : len(x), :-1] = (z.unsqueeze(1) == torch.tensor(ELEMENTS)).float()
    scalars[..., -1] = 1.0
    empty = torch.zeros(n, n_places, 3)
    return Tokens(
        scalars=scalars,
        positions=positions,
        velocities=empty,
        pairs=torch.zeros(n, n_places, n_places, 0),
        targets=empty,
    )


def ends(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Noise x0 and conformer x1 of places on a path, both [B, N, 3]."""
    time = tokens.scalars[..., -1:]
    return tokens.positions - time * tokens.targets, tokens.positions + (1.0 - time) * tokens.targets


def on_path(tokens: Tokens, *, noise: float, generator: torch.Generator, times: Tensor | None = None) -> Tokens:
    """The conformers of `tokens` at other places: noise of zero mean over the atoms is drawn, and the time.

    Args:
        tokens: anywhere on a path.
        noise: standard deviation of a coordinate before the mean is taken off, Angstrom.
        generator: of both, on the CPU.
        times: given ones, [B]; None: uniform in [0, 1).
    """
    _, conformers = ends(tokens)
    real = tokens.scalars[..., :-1].sum(2, keepdim=True)
    start = noise * torch.randn(conformers.shape, generator=generator).to(conformers) * real
    start = (start - start.sum(1, keepdim=True) / real.sum(1, keepdim=True)) * real
    time = (torch.rand(len(tokens), generator=generator) if times is None else times).to(conformers).view(-1, 1, 1)
    scalars = torch.cat([tokens.scalars[..., :-1], time.expand(*conformers.shape[:2], 1)], dim=2)
    velocity = conformers - start
    return replace(tokens, scalars=scalars, positions=start + time * velocity, targets=velocity)


@dataclass(frozen=True)
class FlowObjective:
    """REMUL on paths that are drawn anew; call it with (model, batch, generator)."""

    options: FlowOptions
    config: TrainConfig
    early: bool = False

    def __call__(self, model: nn.Module, batch: Tokens, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses by name: mean squared error of a component of the velocity, scalars with a graph."""
        drawn = on_path(batch, noise=self.options.noise, generator=generator)
        return TokenObjective(self.config, early=self.early)(model, drawn, generator)


def parts_of_time(tokens: Tokens) -> dict[str, NDArray[np.int64]]:
    """Indices of the systems in each quarter of the time."""
    quarter = (N_BINS * tokens.scalars[:, 0, -1]).long().clamp(max=N_BINS - 1).cpu().numpy()
    return {name: np.flatnonzero(quarter == number) for number, name in enumerate(PARTS)}


def molecules_of(case: str) -> tuple[str, ...]:
    """The molecules of a case."""
    return MOLECULES if case == ALL else (case,)


def load(options: FlowOptions, case: str, seed: int) -> Splits:
    """Conformers in the orientations that they have in rMD17; test paths are the same for every seed.

    Held-out conformers stand at times that are spread evenly, in a random order.
    """
    sets = {part: [read_frames(f"rmd17/{name}/{part}-01") for name in molecules_of(case)] for part in ("train", "test")}
    n_places = max(int(frames.n_atoms.max()) for each in sets.values() for frames in each)
    of_train, of_validation = np.arange(options.n_train), np.arange(-options.n_validation, 0)

    def chosen(part: str, rows: NDArray[np.int64], *, of: Sequence[int]) -> Tokens:
        parts = [clean(frames.select(rows % len(frames)), n_places=n_places) for frames in sets[part]]
        joined = Tokens(**{name: torch.cat([getattr(each, name) for each in parts]) for name in vars(parts[0])})
        n, generator = len(joined), torch.Generator().manual_seed(int(np.random.default_rng(of).integers(2**62)))
        mixed = joined.select(torch.randperm(n, generator=generator).numpy())
        times = (torch.randperm(n, generator=generator) + 0.5) / n
        return on_path(mixed, noise=options.noise, generator=generator, times=times)

    return Splits(
        train=chosen("train", of_train, of=[1, seed]),
        validation=chosen("train", of_validation, of=[2, seed]),
        tests={"test": chosen("test", np.arange(options.n_test), of=[0])},
    )


def baselines(tokens: Tokens) -> dict[str, float]:
    """Mean squared error a component of what needs no learning; places of padding count as 0.

    The Gaussian is the best velocity if conformers were clouds of the same width: c(t) x_t, the same in all
    orientations.
    """
    start, end = ends(tokens)
    time, real = tokens.scalars[..., -1:], tokens.scalars[..., :-1].sum()
    s2, d2 = (float(x.square().sum() / (3.0 * real)) for x in (start, end))
    slope = (time * d2 - (1.0 - time) * s2) / ((1.0 - time) ** 2 * s2 + time**2 * d2)
    return {
        "velocity of 0": tokens.targets.square().mean().item(),
        CLOUD: (slope * tokens.positions - tokens.targets).square().mean().item(),
    }


def flowed(model: nn.Module, start: Tokens, *, n_steps: int) -> Tensor:
    """Positions [B, N, 3] at t = 1 of systems that start at t = 0, by midpoint steps."""
    step, x = 1.0 / n_steps, start.positions

    def velocity(time: float, at: Tensor) -> Tensor:
        scalars = torch.cat([start.scalars[..., :-1], torch.full_like(start.scalars[..., -1:], time)], dim=2)
        return predict(model, replace(start, scalars=scalars, positions=at))

    for number in range(n_steps):
        time = number * step
        middle = x + 0.5 * step * velocity(time, x)
        x = x + step * velocity(time + 0.5 * step, middle)
    return x


def geometry(positions: Tensor, scalars: Tensor) -> tuple[dict[str, NDArray[np.float64]], list[tuple[str, ...]]]:
    """Bond lengths, angles and distances of all pairs, each of all molecules, and which bonds each molecule has.

    Bonds are read from the distances, because atoms of an element can change places in a flow.
    """
    found: dict[str, list[NDArray[np.float64]]] = {"bond": [], "angle": [], "distance": []}
    kinds = []
    for x, one_hot in zip(positions.double().cpu(), scalars[..., :-1].cpu(), strict=True):
        there = one_hot.sum(1) > 0
        atoms, numbers = x[there].numpy(), np.array(ELEMENTS)[one_hot[there].argmax(1).numpy()]
        pairs = bond_pairs(numbers, atoms)
        found["bond"].append(bond_lengths(atoms, pairs))
        found["angle"].append(bond_angles(atoms, bonded_chains(pairs, length=3)))
        found["distance"].append(torch.pdist(x[there]).numpy())
        kinds.append(tuple(sorted(bond_kinds(numbers, pairs))))
    return {name: np.concatenate(values) for name, values in found.items()}, kinds


def sample_figures(options: FlowOptions, model: nn.Module, splits: Splits) -> dict[str, float]:
    """How far conformers of the flow are from those of the test set.

    Returns:
        Wasserstein distances of bond lengths and of the distances of all pairs, Angstrom, and of angles, degrees, and
        the percentage of conformers whose bonds are those of a molecule of the data. Where no bond is found, its
        distances are left out.
    """
    from scipy.stats import wasserstein_distance

    test = splits.tests["test"].to(next(model.parameters()).device)
    chosen = test.select(np.arange(options.n_samples) % len(test))
    none = torch.zeros(len(chosen))
    start = on_path(chosen, noise=options.noise, generator=torch.Generator().manual_seed(0), times=none)
    made, kinds = geometry(flowed(model, start, n_steps=options.n_flow_steps), start.scalars)
    fewer = test.select(slice(N_REAL * options.n_samples))
    real, known = geometry(ends(fewer)[1], fewer.scalars)
    return {
        **{
            f"{name}_wasserstein": float(wasserstein_distance(made[name], real[name]))
            for name in real
            if len(made[name]) and len(real[name])
        },
        "right_bonds": 100.0 * sum(kind in {*known} for kind in kinds) / len(kinds),
    }


QUICK: dict[str, Any] = {
    "cases": ["ethanol", ALL],
    "seeds": [0],
    "n_steps": 5000,
    "width": 64,
    "n_layers": 3,
    "batch_size": 32,
    "n_test": 200,
    "n_draws": 20,
    "n_draw_systems": 100,
}
PAPER: dict[str, Any] = {"width": 512, "n_layers": 10, "batch_size": 128, "learning_rate": 3e-4, "device": "cuda"}
_PARTICLES: Particles[FlowOptions] = Particles(
    load=load, baselines=baselines, objective=FlowObjective, strata=parts_of_time, further=sample_figures
)
TASK = ParticleTask(
    name="flow",
    title="Flow matching of conformers",
    options=FlowOptions,
    sizes={"quick": QUICK, "default": {}, "paper": PAPER},
    cases={**{name: name for name in MOLECULES}, ALL: "seven molecules together"},
    models={"transformer": "transformer"},
    runner=_PARTICLES,
    errors=("test", "rotated"),
    error_label="mean squared error of the velocity, Å²",
    learned_below=CLOUD,  # noise that no network can know is most of the error
    tables={
        "Mean squared error of a component of the velocity, Å²": {
            **columns({"train": "train", "test": "test", "rotated": "all orientations"}),
            **columns({"spread": "s²", "equivariance_norm": "E'", "percent": "percent"}),
        },
        "By the time of the flow": {
            f"{figure}_{part}": Column(label=f"{label}, t {number / N_BINS:g} to {(number + 1) / N_BINS:g}")
            for figure, label in (("rotated", "error"), ("percent", "percent"))
            for number, part in enumerate(PARTS)
        },
        "Conformers made by the flow, Wasserstein distance to the test set": {
            **columns({"bond_wasserstein": "bond lengths, Å", "angle_wasserstein": "angles, degrees"}),
            **columns({"distance_wasserstein": "all distances, Å", "right_bonds": "right bonds, %"}),
        },
    },
)
