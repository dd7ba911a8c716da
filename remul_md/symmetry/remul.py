"""The REMUL losses: a task's loss, and the same loss on turned inputs against turned labels.

    L = alpha * L_task(f(x), y) + beta * mean over g of L(f(g x), g y)

Rotation augmentation is alpha = 0, beta = 1; 2-pose augmentation, which costs as much as REMUL with one turned pose,
is alpha = 0, beta = 1 with two. Source: Elhag et al. (2024), arXiv:2410.17878.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

import torch
from torch import Tensor

from remul_md.errors import InputError

X = TypeVar("X")
Y = TypeVar("Y")
Anchor = Literal["label", "prediction"]


@dataclass(frozen=True, kw_only=True)
class Turn(Generic[X, Y]):
    """How a task's inputs and outputs turn.

    Args:
        inputs: (x, rotations [G, B, 3, 3]) -> one input that holds G turned copies of the B systems, pose-major.
        outputs: (y, rotations [G, B, 3, 3]) -> the same for labels or predictions; a scalar does not turn.
        first: (y of G poses, B) -> the first pose of it; needed for the anchor "prediction" only.
    """

    inputs: Callable[[X, Tensor], X]
    outputs: Callable[[Y, Tensor], Y]
    first: Callable[[Y, int], Y] | None = None


def remul_losses(
    predict: Callable[[X], Y],
    inputs: X,
    targets: Y,
    *,
    turn: Turn[X, Y],
    rotations: Tensor,
    gap: Callable[[Y, Y], Tensor],
    anchor: Anchor = "label",
    unturned: bool = True,
) -> dict[str, Tensor]:
    """The two losses of REMUL from ONE call of the model on all poses.

    Args:
        predict: the model, from inputs to outputs; called once.
        inputs: B systems.
        targets: their labels.
        turn: how both turn.
        rotations: [K, B, 3, 3], drawn by the caller; K = 0 leaves the equivariance loss out.
        gap: (prediction, target) -> loss of each system, in the order of the systems.
        anchor: what the turned predictions are held against: the turned label (the paper), or the turned prediction
            of the unturned pose, which needs no labels.
        unturned: False leaves the unturned pose and the task's loss out (augmentation).
    Returns:
        "task" and "equivariance", scalars in the unit of `gap`, those that were asked for.
    Raises:
        InputError: no pose left, unknown anchor, or an anchor that needs the unturned pose without it.
    Source: Elhag et al. (2024), arXiv:2410.17878, the loss L_equi. Differences: O(3) instead of SO(3) where the
        caller draws so; all poses in one call.
    """
    n_turned, n_systems = int(rotations.shape[0]), int(rotations.shape[1])
    if anchor not in get_args(Anchor):
        raise InputError(f"anchor must be one of {', '.join(get_args(Anchor))}, got {anchor!r}")
    if not unturned and (n_turned == 0 or anchor == "prediction"):
        raise InputError(
            f"with {n_turned} turned poses and anchor {anchor!r} the unturned pose is needed; give alpha > 0"
        )
    poses = rotations
    if unturned:
        identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device).expand(1, n_systems, 3, 3)
        poses = torch.cat([identity, rotations])
    prediction = predict(turn.inputs(inputs, poses))
    losses: dict[str, Tensor] = {}
    if anchor == "label":
        gaps = gap(prediction, turn.outputs(targets, poses)).view(-1, n_systems)
        if unturned:
            losses["task"] = gaps[0].mean()
        if n_turned:
            losses["equivariance"] = gaps[int(unturned) :].mean()
        return losses
    if turn.first is None:
        raise InputError("anchor 'prediction' needs Turn.first, which picks the unturned pose of a prediction")
    first = turn.first(prediction, n_systems)
    losses["task"] = gap(first, targets).mean()
    if n_turned:
        losses["equivariance"] = gap(prediction, turn.outputs(first, poses)).view(-1, n_systems)[1:].mean()
    return losses
