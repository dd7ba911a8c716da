"""The REMUL losses: a task's loss, and the same loss on turned inputs against turned labels.

    L = alpha * L_task(f(x), y) + beta * mean over g of L(f(g x), g y)

Rotation augmentation is alpha = 0, beta = 1; 2-pose augmentation, which costs as much as REMUL with one turned pose,
is alpha = 0, beta = 1 with two, or alpha = beta with one turned pose and a drawn first pose.
Source: Elhag et al. (2024), arXiv:2410.17878.

`one_forward_losses` estimates the same L at the price of one pose a system: each is left as it stands with
probability p = alpha/(alpha + beta), else turned, at weight alpha + beta, because alpha = (alpha + beta) p.
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
        labelled: (y of one pose, labels of its first systems) -> y of those; needed where not all have labels.
    """

    inputs: Callable[[X, Tensor], X]
    outputs: Callable[[Y, Tensor], Y]
    first: Callable[[Y, int], Y] | None = None
    labelled: Callable[[Y, Y], Y] | None = None


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
    first_rotations: Tensor | None = None,
    n_labelled: int | None = None,
) -> dict[str, Tensor]:
    """The two losses of REMUL from ONE call of the model on all poses.

    Args:
        predict: the model, from inputs to outputs; called once.
        inputs: B systems.
        targets: their labels, or those of the first `n_labelled` of them.
        turn: how both turn.
        rotations: [K, B, 3, 3], drawn by the caller; K = 0 leaves the equivariance loss out.
        gap: (prediction, target) -> loss of each system, in the order of the systems.
        anchor: what the turned predictions are held against: the turned label (the paper), or the turned prediction
            of the unturned pose, which needs no labels.
        unturned: False leaves the unturned pose and the task's loss out (augmentation).
        first_rotations: the pose in which the task's loss sees each system, [B, 3, 3], which then stands in for the
            unturned one; None leaves the systems as they stand. The anchor "prediction" is turned on from there.
        n_labelled: how many systems `targets` holds; the others take part in the equivariance loss only, so this
            needs the anchor "prediction". None: all.
    Returns:
        "task" and "equivariance", scalars in the unit of `gap`, those that were asked for.
    Raises:
        InputError: no pose left, unknown anchor, an anchor that needs the unturned pose without it, a first pose that
            is left out, or systems without labels that would be held against labels.
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
    if not unturned and first_rotations is not None:
        raise InputError("first_rotations turn the pose of the task's loss, which is left out; give alpha > 0")
    if n_labelled is not None and anchor != "prediction":
        raise InputError(f"systems without labels need the anchor 'prediction', got {anchor!r}")
    poses = rotations
    if unturned:
        stock = torch.eye(3, dtype=rotations.dtype, device=rotations.device).expand(n_systems, 3, 3)
        poses = torch.cat([(stock if first_rotations is None else first_rotations).unsqueeze(0), rotations])
    prediction = predict(turn.inputs(inputs, poses))
    losses: dict[str, Tensor] = {}
    if anchor == "label":
        wanted = turn.outputs(targets, poses)
        gaps = gap(prediction, wanted).view(-1, n_systems)
        if unturned:
            losses["task"] = gaps[0].mean()
        if n_turned:
            losses["equivariance"] = gaps[int(unturned) :].mean()
        return losses
    if turn.first is None:
        raise InputError("anchor 'prediction' needs Turn.first, which picks the unturned pose of a prediction")
    first = turn.first(prediction, n_systems)
    known, wanted, onward = first, targets, poses
    if n_labelled is not None:
        if turn.labelled is None:
            raise InputError("systems without labels need Turn.labelled, which leaves them out of a prediction")
        known = turn.labelled(first, targets)
    if first_rotations is not None:
        wanted = turn.outputs(targets, first_rotations[:n_labelled].unsqueeze(0))
        # From the first pose to each: g_k g_0^-1, so that all poses are drawn alike, whatever the law of the draws.
        onward = poses @ first_rotations.mT
    losses["task"] = gap(known, wanted).mean()
    if n_turned:
        losses["equivariance"] = gap(prediction, turn.outputs(first, onward)).view(-1, n_systems)[1:].mean()
    return losses


def one_forward_losses(
    predict: Callable[[X], Y],
    inputs: X,
    targets: Y,
    *,
    turn: Turn[X, Y],
    rotations: Tensor,
    turned: Tensor,
    probability: float,
    gap: Callable[[Y, Y], Tensor],
) -> dict[str, Tensor]:
    """Unbiased estimates of both losses of REMUL from one pose of each system.

    A system's loss is divided by the chance of the pose it got, so the mean over draws is the paired loss, and
    alpha task + beta equivariance is (alpha + beta) x the mean loss of the batch, whatever was drawn.

    Args:
        predict, inputs, targets, turn, gap: as `remul_losses`.
        rotations: one for each system, [B, 3, 3].
        turned: whether the system is turned, [B], drawn by the caller: False with `probability`.
        probability: alpha / (alpha + beta), in (0, 1).
    Returns:
        "task" and "equivariance", scalars; 0 where no system got that kind of pose.
    Raises:
        InputError: a probability outside (0, 1).
    """
    if not 0 < probability < 1:
        raise InputError(f"probability must lie between 0 and 1, got {probability}; give alpha > 0 and beta > 0")
    identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    poses = torch.where(turned.view(-1, 1, 1), rotations, identity).unsqueeze(0)
    prediction, wanted = predict(turn.inputs(inputs, poses)), turn.outputs(targets, poses)
    losses = gap(prediction, wanted)
    share = turned.to(losses.dtype)
    return {
        "task": (losses * (1.0 - share)).mean() / probability,
        "equivariance": (losses * share).mean() / (1.0 - probability),
    }
