"""N-body as a task: how it turns, what is trained, and what is measured in random orientations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from remul_md.studies.nbody.generator import Bodies, rotate_bodies, rotate_body_vectors
from remul_md.symmetry.evaluate import rotated_back, statistics
from remul_md.symmetry.measures import equivariance_norm, equivariance_percent
from remul_md.symmetry.remul import Turn, one_forward_losses, remul_losses
from remul_md.symmetry.rotations import Group, random_rotations
from remul_md.training.config import TrainConfig

MAX_SYSTEMS = 4096  # in one pass without a graph
SYMMETRY_FIGURES = ("percent", "twirled_mse", "spread_mse", "equivariance_norm")
NBODY_TURN: Turn[Bodies, Tensor] = Turn(
    inputs=rotate_bodies, outputs=rotate_body_vectors, first=lambda displacements, n_systems: displacements[:n_systems]
)


@dataclass(frozen=True, kw_only=True)
class NBodyObjective:
    """REMUL for displacements; call it with (model, batch, generator).

    Args:
        n_rotated: rotated orientations of each system and step, K; 0 trains on the data's own orientations alone.
        original: whether the original orientation takes part (alpha > 0).
        group: where the orientations are drawn from.
        one_forward: None, or alpha/(alpha + beta): one orientation of each system, original with this probability.
    """

    n_rotated: int
    original: bool
    group: Group = "SO3"
    one_forward: float | None = None

    @classmethod
    def from_config(cls, config: TrainConfig) -> NBodyObjective:
        """The objective that the options of a run ask for."""
        return cls(
            n_rotated=config.n_rotated if config.beta > 0 else 0,
            original=config.alpha > 0,
            group=config.group,
            one_forward=config.alpha / (config.alpha + config.beta) if config.estimator == "one-forward" else None,
        )

    def __call__(self, model: nn.Module, batch: Bodies, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses by name: mean squared error a coordinate, scalars with a graph."""
        device = batch.positions.device
        drawn = random_rotations(self.n_rotated * len(batch), generator=generator, group=self.group)
        rotations = drawn.view(self.n_rotated, len(batch), 3, 3).to(device, non_blocking=True)
        if self.one_forward is None:
            return remul_losses(
                model,
                batch,
                batch.displacements,
                turn=NBODY_TURN,
                rotations=rotations,
                gap=squared_error,
                original=self.original,
            )
        rotated = torch.rand(len(batch), generator=generator, dtype=torch.float64) >= self.one_forward
        return one_forward_losses(
            model,
            batch,
            batch.displacements,
            turn=NBODY_TURN,
            rotations=rotations[0],
            rotated=rotated.to(device, non_blocking=True),
            probability=self.one_forward,
            gap=squared_error,
        )


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error a coordinate of each system, [B], from two [B, N, 3]."""
    return (prediction - target).square().mean((1, 2))


def predict(model: nn.Module, bodies: Bodies) -> Tensor:
    """Displacements [B, N, 3] without a graph, in passes of bounded memory."""
    with torch.no_grad():
        starts = range(0, len(bodies), MAX_SYSTEMS)
        return torch.cat([model(bodies.select(slice(start, start + MAX_SYSTEMS))) for start in starts])


def mean_squared_error(model: nn.Module, bodies: Bodies) -> float:
    """Mean squared error a coordinate over all systems."""
    return squared_error(predict(model, bodies), bodies.displacements).mean().item()


def symmetry_figures(model: nn.Module, bodies: Bodies, *, n_draws: int, seed: int = 0) -> dict[str, float]:
    """What broken rotation symmetry costs, from `n_draws` Haar rotations of each system.

    Args:
        model: on the device of `bodies`.
        bodies: labelled systems.
        n_draws: rotations of each system, >= 2.
        seed: seed of the rotations, so that methods and steps are compared in the same orientations.
    Returns:
        Those of `SYMMETRY_FIGURES`: "percent", "twirled_mse" and "spread_mse" (T and s2 a coordinate; their sum is the
        mean squared error over orientations), and "equivariance_norm" (E').
    """
    generator = torch.Generator().manual_seed(seed)
    rotations = random_rotations(n_draws * len(bodies), generator=generator).view(n_draws, len(bodies), 3, 3)
    rotations = rotations.to(bodies.positions)
    back = torch.stack(
        rotated_back(lambda systems: predict(model, systems), bodies, turn=NBODY_TURN, rotations=rotations)
    ).double()
    original = predict(model, bodies).double().expand_as(back)
    found = statistics(back.flatten(2), bodies.displacements.double().flatten(1))
    percent = equivariance_percent(found.twirled.cpu().numpy(), found.spread.cpu().numpy())
    n_coordinates = bodies.displacements[0].numel()
    return {
        "percent": percent.value,
        "twirled_mse": found.twirled.mean().item() / n_coordinates,
        "spread_mse": found.spread.mean().item() / n_coordinates,
        "equivariance_norm": equivariance_norm(back, original).item(),
    }
