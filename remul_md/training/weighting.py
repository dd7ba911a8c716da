"""Weights alpha and beta of the losses: constant, ramped, or balanced by GradNorm ("gradual").

What a weighting remembers between steps is in `state_dict`, which goes into the checkpoint of a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.training.config import TrainConfig

# Of alpha + beta: no loss may be switched off for good, because its weight could then never grow again.
MIN_SHARE = 1e-3


class Weighting(Protocol):
    """Gives the weights of a step, by the name of the loss."""

    def __call__(self, losses: Mapping[str, Tensor], *, step: int, model: nn.Module) -> dict[str, float | Tensor]:
        """Weights of the losses at this step; may remember something for the next. Keeps the graph of the losses."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What is remembered."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what was remembered."""
        ...


def make_weighting(config: TrainConfig) -> Weighting:
    """The weighting that `config.weighting` names."""
    if config.weighting == "gradual":
        return GradNorm(
            {"task": config.alpha, "equivariance": config.beta},
            exponent=config.gradnorm_exponent,
            learning_rate=config.gradnorm_learning_rate,
            loss_floor=config.gradnorm_loss_floor,
        )
    return Schedule(config)


class Schedule:
    """Weights that are functions of the step alone, so nothing is remembered: constant, linear, cosine.

    Args:
        config: alpha stays; beta goes from `beta_start` to `beta` in `ramp_steps` (None: all steps), then stays.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config

    def __call__(self, losses: Mapping[str, Tensor], *, step: int, model: nn.Module) -> dict[str, float | Tensor]:
        """Weights of the losses at this step."""
        return {"task": self._config.alpha, "equivariance": self.beta(step)}

    def beta(self, step: int) -> float:
        """Weight of the equivariance loss at a step, counted from 0."""
        config = self._config
        if config.weighting == "constant":
            return config.beta
        progress = min(1.0, step / (config.n_steps if config.ramp_steps is None else config.ramp_steps))
        if config.weighting == "cosine":
            progress = 0.5 * (1.0 - math.cos(math.pi * progress))
        return config.beta_start + (config.beta - config.beta_start) * progress

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to take over."""


class GradNorm:
    """Weights that bring the gradient norms of all losses to one size, with more weight for a loss that lags.

        G_i = |w_i dL_i/dW|,   r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0)),   target_i = mean_j(G_j) r_i^exponent
        w_i <- w_i - learning_rate * d/dw_i sum_i |G_i - target_i|,   targets held fixed
        then w_i >= MIN_SHARE of the sum, and scaled so that the sum stays what it was at the start

    W is the matrix `shared_matrix` of the model: the output of the last block's MLP. The gradient of the target
    function needs no second backward: with w_i > 0, G_i = w_i |dL_i/dW|.
    As in the algorithm, the model's step uses the weights from before their update.

    Args:
        start: weights at the first step, all > 0.
        exponent: strength of the pull towards equal relative training rates; 0 only equalises gradient norms.
        learning_rate: of the weights, plain gradient descent.
        loss_floor: initial losses below it count as it: a loss that starts at 0 would weigh without bound.
    Source: Chen et al. (2018), arXiv:1711.02257, algorithm 1; Elhag et al. (2024), arXiv:2410.17878, call it the
        gradual schedule. Differences: plain gradient descent, the floors.
    """

    def __init__(self, start: Mapping[str, float], *, exponent: float, learning_rate: float, loss_floor: float) -> None:
        self._names = list(start)
        self._total = math.fsum(start.values())
        self._exponent, self._learning_rate, self._loss_floor = exponent, learning_rate, loss_floor
        self._weights = torch.tensor(list(start.values()))
        self._initial = torch.zeros(0)  # unknown before the first step

    def __call__(self, losses: Mapping[str, Tensor], *, step: int, model: nn.Module) -> dict[str, float | Tensor]:
        """Weights of this step; those of the next are computed here, from the same losses.

        Raises:
            InputError: the model does not name its shared matrix.
        """
        matrix = shared_matrix(model)
        norms = torch.stack(
            [torch.autograd.grad(losses[name], matrix, retain_graph=True)[0].norm() for name in self._names]
        )
        values = torch.stack([losses[name].detach() for name in self._names])
        weights = self._weights.to(values)
        if len(self._initial) == 0:
            self._initial = values.clamp(min=self._loss_floor)
        ratios = values / self._initial.to(values)
        rates = (ratios / ratios.mean()) ** self._exponent
        sizes = weights * norms
        moved = weights - self._learning_rate * norms * torch.sign(sizes - sizes.mean() * rates)
        for _ in range(2):  # scaling a sum that has grown down again can bring the smaller weight below the floor
            moved = moved.clamp(min=MIN_SHARE * self._total)
            moved = moved * (self._total / moved.sum())
        self._weights = moved
        return dict(zip(self._names, weights.unbind(), strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of the next step and the initial losses."""
        return {"weights": self._weights, "initial": self._initial}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take both over."""
        self._weights, self._initial = state["weights"].clone(), state["initial"].clone()


def shared_matrix(model: nn.Module) -> nn.Parameter:
    """The matrix on which gradient norms are balanced: the output of the last block's MLP.

    Raises:
        InputError: the model has no attribute of that name.
    """
    matrix = getattr(model, "shared_matrix", None)
    if not isinstance(matrix, nn.Parameter):
        raise InputError(
            f"train.weighting=gradual needs {type(model).__name__}.shared_matrix, the matrix on which gradient norms "
            "are balanced; this model names none: choose constant, linear or cosine"
        )
    return matrix


def gradient_diagnostics(losses: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Norms of the gradients of both (unweighted) losses over all parameters, and the cosine between them.

    Costs a backward for each loss; keeps the graph. A loss that is not there gives no number.
    """
    gradients = {name: _flat_gradient(losses[name], model) for name in ("task", "equivariance") if name in losses}
    found = {f"{name}_grad_norm": gradient.norm() for name, gradient in gradients.items()}
    if len(gradients) == 2:
        one, other = gradients.values()
        found["gradient_cosine"] = torch.nn.functional.cosine_similarity(one, other, dim=0)
    return found


GRADIENT_COLUMNS = ("task_grad_norm", "equivariance_grad_norm", "gradient_cosine")


def _flat_gradient(loss: Tensor, model: nn.Module) -> Tensor:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found: Any = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if gradient is None else gradient).flatten()
            for p, gradient in zip(parameters, found, strict=True)
        ]
    )
