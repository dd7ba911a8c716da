"""What the tasks of moving particles share: `Tokens`, how they turn, the losses, and what is measured of a network.

A network sees scalars, positions and velocities of N particles and gives their displacements. Lengths are those of the
task, no Angstrom. Letters: B systems, N particles, S scalars, P features of a pair, G orientations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from remul_md.symmetry.evaluate import rotated_back, statistics
from remul_md.symmetry.measures import equivariance_norm, equivariance_percent
from remul_md.symmetry.remul import Turn, one_forward_losses, remul_losses
from remul_md.symmetry.rotations import random_rotations
from remul_md.training.config import TrainConfig

# Of tokens in one pass without a graph: tensors that stay in the caches and are not given back to the system between
# two operations; at seven times as many, EGNN takes two and a half times as long. A GPU needs many to be busy.
MAX_PAIRS = {"cpu": 2**15, "cuda": 2**22}
SYMMETRY_FIGURES = ("percent", "twirled", "spread", "equivariance_norm")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """Systems of N particles: what a network sees, and what it is to say.

    Args:
        scalars: what does not turn, such as masses, [B, N, S].
        positions: [B, N, 3].
        velocities: [B, N, 3].
        pairs: what does not turn of particles i and j, such as a bond, [B, N, N, P]; P may be 0.
        targets: label, how far each particle moves (or where it goes), [B, N, 3].
    """

    scalars: Tensor
    positions: Tensor
    velocities: Tensor
    pairs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return int(self.positions.shape[0])

    def select(self, indices: NDArray[Any] | slice) -> Tokens:
        """The systems with these indices, in this order."""
        rows = indices if isinstance(indices, slice) else torch.from_numpy(indices).to(self.positions.device)
        return Tokens(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def to(self, device: torch.device | str) -> Tokens:
        """The same systems on another device."""
        return Tokens(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def rotate_tokens(tokens: Tokens, rotations: Tensor) -> Tokens:
    """G rotated copies of all systems in one, orientation-major: rotations [G, B, 3, 3]; scalars do not turn."""
    n_copies = rotations.shape[0]
    return Tokens(
        scalars=tokens.scalars.repeat(n_copies, 1, 1),
        positions=rotate_each(tokens.positions, rotations),
        velocities=rotate_each(tokens.velocities, rotations),
        pairs=tokens.pairs.repeat(n_copies, 1, 1, 1),
        targets=rotate_each(tokens.targets, rotations),
    )


def rotate_each(vectors: Tensor, rotations: Tensor) -> Tensor:
    """Vectors [B, N, 3] in G orientations, [G * B, N, 3], orientation-major; dtype is kept."""
    return torch.einsum("gbij,bnj->gbni", rotations.to(vectors), vectors).flatten(0, 1)


TOKEN_TURN: Turn[Tokens, Tensor] = Turn(
    inputs=rotate_tokens, outputs=rotate_each, first=lambda outputs, n_systems: outputs[:n_systems]
)


@dataclass(frozen=True)
class TokenObjective:
    """REMUL for particles, as the options of a run say it; call it with (model, batch, generator).

    Args:
        config: of the run.
        early: before `config.equivariance_from`: the first orientation and its labels, nothing else.
    """

    config: TrainConfig
    early: bool = False

    def __call__(self, model: nn.Module, batch: Tokens, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses by name: mean squared error a coordinate, scalars with a graph."""
        config, device, n = self.config, batch.positions.device, len(batch)
        n_first = int(config.alpha > 0 and config.first_orientation == "random")
        n_rotated = config.n_rotated if config.beta > 0 and not self.early else 0
        drawn = random_rotations((n_first + n_rotated) * n, generator=generator, group=config.group, axis=config.axis)
        rotations = drawn.view(n_first + n_rotated, n, 3, 3).to(device, non_blocking=True)
        terms: dict[str, Any] = {
            "predict": model,
            "inputs": batch,
            "targets": batch.targets,
            "turn": TOKEN_TURN,
            "gap": squared_error,
        }
        if config.estimator == "paired":
            return remul_losses(
                **terms,
                rotations=rotations[n_first:],
                consistency_target="label" if self.early else config.consistency_target,
                original=config.alpha > 0,
                first_rotations=rotations[0] if n_first else None,
            )
        probability = config.alpha / (config.alpha + config.beta)
        rotated = torch.rand(n, generator=generator, dtype=torch.float64) >= probability
        return one_forward_losses(
            **terms, rotations=rotations[0], rotated=rotated.to(device, non_blocking=True), probability=probability
        )


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error a coordinate of each system, [B], from two [B, N, 3]."""
    return (prediction - target).square().mean((1, 2))


def predict(model: nn.Module, tokens: Tokens) -> Tensor:
    """Outputs [B, N, 3] without a graph, in passes of bounded memory."""
    n_pairs = MAX_PAIRS.get(tokens.positions.device.type, MAX_PAIRS["cuda"])
    n = max(1, n_pairs // tokens.positions.shape[1] ** 2)
    with torch.no_grad():
        return torch.cat([model(tokens.select(slice(start, start + n))) for start in range(0, len(tokens), n)])


def mean_squared_error(model: nn.Module, tokens: Tokens) -> float:
    """Mean squared error a coordinate over all systems."""
    return squared_error(predict(model, tokens), tokens.targets).mean().item()


def without_learning(tokens: Tokens, *, straight: str, time: float = 1.0) -> dict[str, float]:
    """Mean squared error a coordinate of standing still, and of flying on for `time`, which is called `straight`."""
    beside = tokens.targets - time * tokens.velocities
    return {"no motion": tokens.targets.square().mean().item(), straight: beside.square().mean().item()}


def symmetry_figures(
    model: nn.Module, tokens: Tokens, *, n_draws: int, seed: int = 0, axis: Sequence[float] | None = None
) -> dict[str, float]:
    """What broken rotation symmetry costs, from `n_draws` random rotations of each system.

    Args:
        model: on the device of `tokens`.
        tokens: labelled systems.
        n_draws: rotations of each system, >= 2.
        seed: seed of the rotations, so that methods and steps are compared in the same orientations.
        axis: rotations about it only; None: of SO(3).
    Returns:
        Those of `SYMMETRY_FIGURES`: "percent", "twirled" and "spread" (T and s2 a coordinate; their sum is the mean
        squared error over orientations), and "equivariance_norm" (E').
    """
    generator = torch.Generator().manual_seed(seed)
    rotations = random_rotations(n_draws * len(tokens), generator=generator, axis=axis)
    rotations = rotations.view(n_draws, len(tokens), 3, 3).to(tokens.positions)
    back = torch.stack(
        rotated_back(lambda systems: predict(model, systems), tokens, turn=TOKEN_TURN, rotations=rotations)
    ).double()
    original = predict(model, tokens).double().expand_as(back)
    found = statistics(back.flatten(2), tokens.targets.double().flatten(1))
    percent = equivariance_percent(found.twirled.cpu().numpy(), found.spread.cpu().numpy())
    n_coordinates = tokens.targets[0].numel()
    return {
        "percent": percent.value,
        "twirled": found.twirled.mean().item() / n_coordinates,
        "spread": found.spread.mean().item() / n_coordinates,
        "equivariance_norm": equivariance_norm(back, original).item(),
    }


def rescaled(figures: Mapping[str, float], length: float) -> dict[str, float]:
    """Figures of `symmetry_figures` where lengths were given in units of `length`."""
    powers = {"percent": 0, "twirled": 2, "spread": 2, "equivariance_norm": 1}
    return {name: value * length ** powers[name] for name, value in figures.items()}
