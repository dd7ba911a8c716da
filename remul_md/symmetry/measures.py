"""What imperfect symmetry costs: one name, one formula.

With K independent Haar draws f_k = g_k^-1 f(g_k x) and their mean m, for each frame

    s2 = sum |f_k - m|^2 / (K - 1)        the loss due to broken symmetry
    T  = |m - y|^2 - s2 / K               the loss of the orientation-averaged ("twirled") model

and T + s2 is exactly the mean squared loss over the draws. Single frames may have T < 0: sum, never clip.
Source: Shen et al. (2025), arXiv:2512.02303 (the decomposition); the estimators are unbiased for every K >= 2.

Beside these errors over the whole group stand those of an infinitesimal turn, which need no rotations at all: net
torque, Lie derivative, and how far direct forces are from being a gradient (Jacobian asymmetry).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remul_md.errors import InputError
from remul_md.structures.batch import Batch, sums_of_systems


def twirl_statistics(rotated_back: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """T and s2 of each sample from K predictions that were rotated back.

    Args:
        rotated_back: f_k, [K, n, ...]; for an invariant output f_k = f(g_k x).
        target: labels y, [n, ...].
    Returns:
        T [n] and s2 [n], in the squared unit of the output, summed over the output's components.
    Raises:
        InputError: K < 2.
    """
    n_draws = rotated_back.shape[0]
    if n_draws < 2:
        raise InputError(f"the twirl statistics need at least 2 rotations, got {n_draws}")
    mean = rotated_back.mean(0)
    spread = (
        (rotated_back - mean).square().sum(0).flatten(1).sum(1)
        if rotated_back.ndim > 2
        else ((rotated_back - mean).square().sum(0))
    )
    spread = spread / (n_draws - 1)
    error = (mean - target).square()
    error = error.flatten(1).sum(1) if error.ndim > 1 else error
    return error - spread / n_draws, spread


@dataclass(frozen=True)
class Percent:
    """Share of the squared loss due to broken symmetry, percent.

    Few frames carry most of a squared error (one of 1,000 ethanol frames carried 56 %), so the pooled share has no
    interval that holds what it says: it comes with the share of its largest frame, and the median over frames, which
    does not hang on single frames, has one.

    Args:
        value: 100 sum(s2) / sum(T + s2), pooled over the frames.
        largest_frame: share of sum(T + s2) that the frame with the largest carries, percent.
        median: of 100 s2 / (T + s2) over the frames.
        low, high: its 95 % interval, from order statistics: it holds for every distribution of the frames.
    """

    value: float
    largest_frame: float
    median: float
    low: float
    high: float


def equivariance_percent(twirled: NDArray[np.float64], spread: NDArray[np.float64]) -> Percent:
    """The share of the squared loss that broken symmetry causes, from T and s2 of each frame, both [n].

    All 0 where there is no loss at all, such as that of a model on its own labels: there is nothing to share.
    """
    total = twirled + spread
    if not total.any():
        return Percent(0.0, 0.0, 0.0, 0.0, 0.0)
    shares = 100.0 * np.divide(spread, total, out=np.zeros_like(total), where=total != 0)
    low, high = median_interval(shares)
    return Percent(
        value=float(100.0 * spread.sum() / total.sum()),
        largest_frame=float(100.0 * total.max() / total.sum()),
        median=float(np.median(shares)),
        low=low,
        high=high,
    )


def median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Interval of the median of independent values, from two of them: coverage at least 95 % for 6 values or more.

    The number of values below the median is binomial with p = 1/2, whatever their distribution. With fewer than 6
    values the smallest and the largest are given (94 % for 5, 50 % for 2).
    """
    from scipy.stats import binom

    ordered = np.sort(values)
    below = max(int(binom.ppf(0.025, len(ordered), 0.5)) - 1, 0)  # P(X <= below) < 2.5 %
    return float(ordered[below]), float(ordered[len(ordered) - 1 - below])


def bootstrap_interval(values: NDArray[np.float64], *, n_bootstrap: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of [n] values, by resampling them (percentiles 2.5 and 97.5)."""
    rows = np.random.default_rng(seed).integers(0, len(values), size=(n_bootstrap, len(values)))
    low, high = np.percentile(values[rows].mean(1), [2.5, 97.5])
    return float(low), float(high)


def equivariance_norm(rotated: Tensor, reference: Tensor) -> Tensor:
    """E' of the REMUL paper: mean over samples and draws of the 2-norm over all 3N components of a frame.

    Args:
        rotated: f(g x), [K, n, N, 3].
        reference: g f(x), the same shape.
    Source: Elhag et al. (2024), arXiv:2410.17878, eq. (9).
    """
    return (rotated - reference).flatten(2).norm(dim=2).mean()


def net_force_and_torque(forces: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum of the forces and torque about the centre of geometry of each system, [B, 3], eV/Angstrom and eV.

    The net torque of conservative forces is minus the derivative of the energy with respect to a rotation, exactly:
    a potential whose energy does not change when the molecule turns has none.

    Args:
        forces: [A, 3], eV/Angstrom.
        batch: the systems; of a periodic one the torque means nothing.
    """

    vectors = forces.to(batch.positions.dtype)
    torques = torch.linalg.cross(_levers(batch), vectors)
    parts = (vectors, torques)
    force, torque = (sums_of_systems(each, batch.system_index, n_systems=batch.n_systems) for each in parts)
    return force, torque


def _levers(batch: Batch) -> Tensor:
    """Positions about the centre of geometry of their system, [A, 3], Angstrom."""
    positions, index = batch.positions, batch.system_index
    sums, counts = (
        sums_of_systems(each, index, n_systems=batch.n_systems) for each in (positions, torch.ones_like(positions))
    )
    return positions - (sums / counts).index_select(0, index)


def jacobian_products(
    forces_of: Callable[[Batch], Tensor], batch: Batch, tangents: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Forces f, J v and J^T v for the Jacobian J of the forces with respect to the positions, all [A, 3].

    J v is the derivative of J^T u with respect to u: two backward passes, which every operation supports that
    training with conservative forces needs, while forward-mode derivatives of several are missing in torch.

    Args:
        forces_of: batch -> forces [A, 3] with a graph to the positions.
        batch: systems; J is block diagonal, a block for each.
        tangents: v, [A, 3], Angstrom.
    Returns:
        f in eV/Angstrom; J v and J^T v in eV/Angstrom^2 times the unit of v.
    """
    with torch.enable_grad():
        positions = batch.positions.detach().clone().requires_grad_()
        forces = forces_of(replace(batch, positions=positions)).to(positions.dtype)
        direction = tangents.to(positions.dtype).detach().clone().requires_grad_()
        (transposed,) = torch.autograd.grad(forces, positions, direction, create_graph=True)
        (along,) = torch.autograd.grad(transposed, direction, tangents.to(positions.dtype))
    return forces.detach(), along.detach(), transposed.detach()


def lie_derivative(forces_of: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """Change of g^-1 f(g x) with the angle of g about x, y and z, at angle 0: [3, A, 3], eV/Angstrom per radian.

        L f = J (axis x r) - axis x f

    The rotational error of an infinitesimal turn; zero for all positions if and only if f turns with its input.
    One Jacobian-vector product of three copies of the batch.

    Args:
        forces_of: as `jacobian_products`.
        batch: the systems, without cells.
    Raises:
        InputError: a periodic batch, whose cell would have to turn too.
    """
    if batch.cell is not None:
        raise InputError(
            "the Lie derivative is that of molecules: the batch has a cell; remove it, or use random turns"
        )
    axes = torch.eye(3, dtype=batch.positions.dtype, device=batch.positions.device).repeat_interleave(batch.n_atoms, 0)
    copies = batch.repeated(3)
    # Rotated about the centres: translations change nothing, but levers from a far origin would cost digits.
    forces, along, _ = jacobian_products(forces_of, copies, torch.linalg.cross(axes, _levers(copies)))
    return (along - torch.linalg.cross(axes, forces)).view(3, -1, 3)


def jacobian_asymmetry(along: Tensor, transposed: Tensor) -> float:
    """lambda = |(J - J^T)/2| / |J| (Frobenius norms) from J v and J^T v of random v: 0 for a gradient, at most 1.

    With independent components of mean 0 and variance 1, E|M v|^2 = |M|^2 for every matrix M, so
    lambda^2 = 1/4 E|J v - J^T v|^2 / E|J v|^2, and |J| is estimated from both products, which keeps lambda <= 1.

    Args:
        along: J v, any shape.
        transposed: J^T v, the same shape.
    Source: Hutchinson, Commun. Stat. Simul. Comput. 18 (1989), 1059 (the estimator of a trace).
    """
    size = 0.5 * (along.square().sum() + transposed.square().sum())
    return float((0.25 * (along - transposed).square().sum() / size).sqrt())
