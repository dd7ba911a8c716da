"""Rotate, predict, rotate back, and count: the only loop that does so, for every model, calculator and task.

Predictions of rotated inputs are rotated back before any figure is formed. A mean over components depends on the frame
it is taken in (the mean absolute component of one set of errors was 5.43 as it stood and 5.51 in random frames), so
errors of different orientations are compared in one frame, that of the original.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from remul_md.symmetry.measures import twirl_statistics
from remul_md.symmetry.remul import Turn

X = TypeVar("X")
Y = TypeVar("Y")


def rotated_back(predict: Callable[[X], Y], inputs: X, *, turn: Turn[X, Y], rotations: Tensor) -> list[Y]:
    """f_k = g_k^-1 f(g_k x) of K draws, one call of `predict` for each.

    Args:
        predict: inputs -> outputs; a model, a potential, an ASE calculator.
        inputs: B systems.
        turn: how inputs and outputs turn.
        rotations: orthogonal matrices, [K, B, 3, 3], a draw of its own for each system.
    Returns:
        K outputs, each in the frame of the original.
    """
    return [turn.outputs(predict(turn.inputs(inputs, g.unsqueeze(0))), g.mT.unsqueeze(0)) for g in rotations]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Deviations of K predictions from a target, for each of n rows (atoms, systems), in the frame of the original.

    Args:
        absolute: mean over draws and components of |f_k - y|, [n], in the unit of the output.
        squared: mean over draws of |f_k - y|^2, summed over components, [n].
        twirled: T, [n], as `remul_md.symmetry.measures.twirl_statistics`.
        spread: s2, [n]; T + s2 is `squared`.
    """

    absolute: Tensor
    squared: Tensor
    twirled: Tensor
    spread: Tensor


def statistics(back: Tensor, target: Tensor) -> Statistics:
    """Statistics of predictions that were rotated back.

    With the labels as target `absolute` is the error over orientations; with the prediction for the original it is the
    rotational error.

    Args:
        back: f_k, [K, n, C], K >= 2.
        target: [n, C].
    Raises:
        InputError: fewer than 2 draws.
    """
    twirled, spread = twirl_statistics(back, target)
    gaps = back - target
    return Statistics(
        absolute=gaps.abs().mean((0, 2)), squared=gaps.square().sum(2).mean(0), twirled=twirled, spread=spread
    )


def in_float64(values: Tensor) -> Tensor:
    """Floating-point values in double precision: rotated back in single, exactly symmetric outputs would not be."""
    return values.double() if values.is_floating_point() else values
