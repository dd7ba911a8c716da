"""Ways of training that the studies hold against each other, the same in every task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

BETAS = (0.01, 0.1, 1.0, 10.0, 100.0)
ONE, TWO = "one orientation", "two orientations"


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of training.

    Args:
        label: in tables and pictures.
        train: the options of `TrainConfig` in which the methods differ; the rest is as published (`PUBLISHED`).
        cost: methods with the same word here cost the same a step, which is measured once for all of them.
        about_axis: orientations are rotations about the axis of the task, not all of its group.
    """

    label: str
    train: Mapping[str, Any] = field(default_factory=dict)
    cost: str = TWO
    about_axis: bool = False

    @property
    def beta(self) -> float | None:
        """Weight of the equivariance loss of the methods whose only difference it is; None for all others."""
        swept = set(self.train) == {"alpha", "beta"} and self.train["alpha"] > 0 and self.train["beta"] > 0
        return float(self.train["beta"]) if swept and not self.about_axis else None


def _consistent(beta: float) -> Method:
    options = {"alpha": 1.0, "beta": beta, "consistency_target": "prediction", "first_orientation": "random"}
    return Method(label=f"augmentation + consistency, beta = {beta:g}", train=options)


_ALL: dict[str, Method] = {
    "plain": Method(label="plain", cost=ONE, train={"alpha": 1.0, "beta": 0.0}),
    "augmentation": Method(label="augmentation", cost=ONE, train={"alpha": 0.0, "beta": 1.0}),
    "augmentation-2": Method(label="2-orientation augmentation", train={"alpha": 0.0, "beta": 1.0, "n_rotated": 2}),
    **{
        f"remul-{beta:g}": Method(label=f"REMUL, beta = {beta:g}", train={"alpha": 1.0, "beta": beta}) for beta in BETAS
    },
    "remul-gradual": Method(
        label="REMUL, gradual", cost=f"{TWO}, balanced", train={"alpha": 1.0, "beta": 1.0, "weighting": "gradual"}
    ),
    "remul-one-forward": Method(
        label="REMUL, one forward", cost=ONE, train={"alpha": 1.0, "beta": 1.0, "estimator": "one-forward"}
    ),
    **{f"consistent-{beta:g}": _consistent(beta) for beta in (1.0, 10.0)},
    "recipe": Method(
        label="augmentation, then consistency (recipe)",
        cost=f"{ONE}, then two",
        train={**_consistent(10.0).train, "equivariance_from": 0.8},
    ),
}
# The slope of the energy with the angle of a rotation: for conservative forces only.
_TORQUE = {
    "torque": Method(
        label="augmentation + torque penalty",
        cost=f"{ONE}, torque",
        train={"alpha": 0.0, "beta": 1.0, "torque_weight": 10.0},
    )
}
_ABOUT_AXIS = {
    f"{name}-axis": replace(method, label=f"{method.label}, about the axis", about_axis=True)
    for name, method in _ALL.items()
    if method.train["beta"] > 0
}
METHODS: dict[str, Method] = {**_ALL, **_TORQUE, **_ABOUT_AXIS}
ALL_GROUP = tuple(_ALL)  # what every task knows
ABOUT_AXIS = tuple(_ABOUT_AXIS)  # and those with an axis


def method_options(method: str, *, axis: tuple[float, float, float] | None = None) -> dict[str, Any]:
    """The options of `TrainConfig` that a method sets, with the axis of the task where it turns about it."""
    chosen = METHODS[method]
    return {**chosen.train, **({"axis": axis} if chosen.about_axis else {})}
