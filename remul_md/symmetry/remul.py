"""The REMUL losses: a task's loss, and the same loss on rotated inputs against rotated labels.

    L = alpha * L_task(f(x), y) + beta * mean over g of L(f(g x), g y)

Rotation augmentation is alpha = 0, beta = 1; 2-orientation augmentation, which costs as much as REMUL with one rotated
orientation, is alpha = 0, beta = 1 with two, or alpha = beta with one rotated orientation and a drawn first
orientation. Source: Elhag et al. (2024), arXiv:2410.17878.

`one_forward_losses` estimates the same L at the price of one orientation a system: each is left as it stands with
probability p = alpha/(alpha + beta), else rotated, at weight alpha + beta, because alpha = (alpha + beta) p.
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
ConsistencyTarget = Literal["label", "prediction"]


@dataclass(frozen=True, kw_only=True)
class Turn(Generic[X, Y]):
    """How a task's inputs and outputs turn.

    Args:
        inputs: (x, rotations [G, B, 3, 3]) -> one input that holds G rotated copies of the B systems,
            orientation-major.
        outputs: (y, rotations [G, B, 3, 3]) -> the same for labels or predictions; a scalar does not turn.
        first: (y of G orientations, B) -> the first orientation of it; needed for the consistency target "prediction"
            only.
        labelled: (y of one orientation, labels of its first systems) -> y of those; needed where not all have labels.
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
    consistency_target: ConsistencyTarget = "label",
    original: bool = True,
    first_rotations: Tensor | None = None,
    n_labelled: int | None = None,
) -> dict[str, Tensor]:
    """The two losses of REMUL from ONE call of the model on all orientations.

    Args:
        predict: the model, from inputs to outputs; called once.
        inputs: B systems.
        targets: their labels, or those of the first `n_labelled` of them.
        turn: how both turn.
        rotations: [K, B, 3, 3], drawn by the caller; K = 0 leaves the equivariance loss out.
        gap: (prediction, target) -> loss of each system, in the order of the systems.
        consistency_target: what the rotated predictions are held against: the rotated label (the paper), or the rotated
            prediction of the original orientation, which needs no labels.
        original: False leaves the original orientation and the task's loss out (augmentation).
        first_rotations: the orientation in which the task's loss sees each system, [B, 3, 3], which then stands in for
            the original one; None leaves the systems as they stand. The consistency_target "prediction" is turned on
            from there.
        n_labelled: how many systems `targets` holds; the others take part in the equivariance loss only, so this
            needs the consistency target "prediction". None: all.
    Returns:
        "task" and "equivariance", scalars in the unit of `gap`, those that were asked for.
    Raises:
        InputError: no orientation left, unknown consistency_target, a consistency target that needs the original
            orientation without it, a first orientation that is left out, or systems without labels that would be held
            against labels.
    Source: Elhag et al. (2024), arXiv:2410.17878, the loss L_equi. Differences: O(3) instead of SO(3) where the
        caller draws so; all orientations in one call.
    """
    n_rotated, n_systems = int(rotations.shape[0]), int(rotations.shape[1])
    if consistency_target not in get_args(ConsistencyTarget):
        raise InputError(
            f"consistency_target must be one of {', '.join(get_args(ConsistencyTarget))}, got {consistency_target!r}"
        )
    if not original and (n_rotated == 0 or consistency_target == "prediction"):
        raise InputError(
            f"with {n_rotated} rotated orientations and consistency_target {consistency_target!r} the original one is "
            "needed; give alpha > 0"
        )
    if not original and first_rotations is not None:
        raise InputError("first_rotations turn the orientation of the task's loss, which is left out; give alpha > 0")
    if n_labelled is not None and consistency_target != "prediction":
        raise InputError(f"systems without labels need the consistency target 'prediction', got {consistency_target!r}")
    orientations = rotations
    if original:
        identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device).expand(n_systems, 3, 3)
        orientations = torch.cat([(identity if first_rotations is None else first_rotations).unsqueeze(0), rotations])
    prediction = predict(turn.inputs(inputs, orientations))
    losses: dict[str, Tensor] = {}
    if consistency_target == "label":
        wanted = turn.outputs(targets, orientations)
        gaps = gap(prediction, wanted).view(-1, n_systems)
        if original:
            losses["task"] = gaps[0].mean()
        if n_rotated:
            losses["equivariance"] = gaps[int(original) :].mean()
        return losses
    if turn.first is None:
        raise InputError(
            "consistency_target 'prediction' needs Turn.first, which picks the original orientation of a prediction"
        )
    first = turn.first(prediction, n_systems)
    known, wanted, onward = first, targets, orientations
    if n_labelled is not None:
        if turn.labelled is None:
            raise InputError("systems without labels need Turn.labelled, which leaves them out of a prediction")
        known = turn.labelled(first, targets)
    if first_rotations is not None:
        wanted = turn.outputs(targets, first_rotations[:n_labelled].unsqueeze(0))
        # From the first orientation to each: g_k g_0^-1, so that all orientations are drawn alike, whatever the law of
        # the draws.
        onward = orientations @ first_rotations.mT
    losses["task"] = gap(known, wanted).mean()
    if n_rotated:
        losses["equivariance"] = gap(prediction, turn.outputs(first, onward)).view(-1, n_systems)[1:].mean()
    return losses


def one_forward_losses(
    predict: Callable[[X], Y],
    inputs: X,
    targets: Y,
    *,
    turn: Turn[X, Y],
    rotations: Tensor,
    rotated: Tensor,
    probability: float,
    gap: Callable[[Y, Y], Tensor],
) -> dict[str, Tensor]:
    """Unbiased estimates of both losses of REMUL from one orientation of each system.

    A system's loss is divided by the chance of the orientation it got, so the mean over draws is the paired loss, and
    alpha task + beta equivariance is (alpha + beta) x the mean loss of the batch, whatever was drawn.

    Args:
        predict, inputs, targets, turn, gap: as `remul_losses`.
        rotations: one for each system, [B, 3, 3].
        rotated: whether the system is rotated, [B], drawn by the caller: False with `probability`.
        probability: alpha / (alpha + beta), in (0, 1).
    Returns:
        "task" and "equivariance", scalars; 0 where no system got that kind of orientation.
    Raises:
        InputError: a probability outside (0, 1).
    """
    if not 0 < probability < 1:
        raise InputError(f"probability must lie between 0 and 1, got {probability}; give alpha > 0 and beta > 0")
    identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    orientations = torch.where(rotated.view(-1, 1, 1), rotations, identity).unsqueeze(0)
    prediction, wanted = predict(turn.inputs(inputs, orientations)), turn.outputs(targets, orientations)
    losses = gap(prediction, wanted)
    share = rotated.to(losses.dtype)
    return {
        "task": (losses * (1.0 - share)).mean() / probability,
        "equivariance": (losses * share).mean() / (1.0 - probability),
    }
