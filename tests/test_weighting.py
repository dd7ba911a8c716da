"""Weights of the losses: ramps by their formula, GradNorm against a version by autograd, gradients by hand."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pytest
import torch
from potentials import random_model
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.training.config import TrainConfig
from remul_md.training.weighting import MIN_SHARE, GradNorm, gradient_diagnostics, make_weighting, shared_matrix


class TwoHeads(nn.Module):
    """x -> tanh(x W^T) -> one number for each loss; W is the shared matrix."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.shared_matrix = nn.Parameter(torch.randn(5, 4, generator=generator))
        self.heads = nn.Parameter(torch.randn(2, 5, generator=generator))

    def losses(self, x: Tensor, targets: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
        errors = (torch.tanh(x @ self.shared_matrix.T) @ self.heads.T - targets).square().mean(0)
        return {"task": errors[0], "equivariance": scale * errors[1]}


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(11, 4, generator=generator), torch.randn(11, 2, generator=generator)


def options(**changes: Any) -> TrainConfig:
    return TrainConfig(**({"n_steps": 80, "warmup_steps": 4, "alpha": 0.5, "beta": 2.0} | changes))


def weights_of(weighting: Any, step: int, model: nn.Module | None = None) -> tuple[float, float]:
    found = weighting({}, step=step, model=model)
    return found["task"], found["equivariance"]


def test_constant_weights_stay() -> None:
    weighting = make_weighting(options())
    assert {weights_of(weighting, step) for step in (0, 17, 79)} == {(0.5, 2.0)}
    assert weighting.state_dict() == {}


@pytest.mark.parametrize(
    ("kind", "quarter"), [("linear", 0.25), ("cosine", 0.5 * (1 - math.cos(math.pi / 4)))], ids=["linear", "cosine"]
)
def test_ramps_of_beta(kind: str, quarter: float) -> None:
    weighting = make_weighting(options(weighting=kind, beta_start=0.4, ramp_steps=40))
    assert weights_of(weighting, 0) == (0.5, 0.4)
    assert weights_of(weighting, 10) == pytest.approx((0.5, 0.4 + 1.6 * quarter), rel=1e-12)
    assert weights_of(weighting, 20)[1] == pytest.approx(1.2, rel=1e-12)
    assert {weights_of(weighting, step) for step in (40, 41, 79)} == {(0.5, 2.0)}
    betas = [weights_of(make_weighting(options(weighting=kind)), step)[1] for step in range(80)]  # over all steps
    assert betas[0] == 0.0
    assert all(a < b for a, b in itertools.pairwise(betas))
    assert betas[40] == pytest.approx(1.0, rel=1e-12)
    falling = make_weighting(options(weighting=kind, beta_start=5.0))
    assert weights_of(falling, 40)[1] == pytest.approx(3.5, rel=1e-12)


def gradnorm_by_autograd(
    model: TwoHeads, batches: list[dict[str, Tensor]], start: Tensor, *, exponent: float, learning_rate: float
) -> list[Tensor]:
    """Algorithm 1 as it is written: the gradient of the target function by a second backward."""
    weights, initial, history = start.clone(), None, []
    for losses in batches:
        values = torch.stack(list(losses.values()))
        initial = values.detach() if initial is None else initial
        w = weights.clone().requires_grad_()
        sizes = torch.stack(
            [
                torch.autograd.grad(w[i] * value, model.shared_matrix, create_graph=True)[0].norm()
                for i, value in enumerate(losses.values())
            ]
        )
        ratios = values.detach() / initial
        target = (sizes.mean() * (ratios / ratios.mean()) ** exponent).detach()
        (gradient,) = torch.autograd.grad((sizes - target).abs().sum(), w)
        history.append(weights)
        moved = weights - learning_rate * gradient
        weights = moved * start.sum() / moved.sum()
    return history


def test_gradnorm_is_its_algorithm(data: tuple[Tensor, Tensor]) -> None:
    model, (x, targets) = TwoHeads(), data
    settings = {"exponent": 1.5, "learning_rate": 0.02}
    weighting = GradNorm({"task": 0.5, "equivariance": 2.0}, loss_floor=1e-6, **settings)
    # The two losses fall at unlike rates, so the targets differ from the mean.
    batches = [model.losses(x * 0.9**step, targets * 0.8**step, scale=0.95**step) for step in range(6)]
    expected = gradnorm_by_autograd(model, batches, torch.tensor([0.5, 2.0]), **settings)
    for step, losses in enumerate(batches):
        found = weighting(losses, step=step, model=model)
        torch.testing.assert_close(torch.stack(list(found.values())), expected[step], rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]
    assert (expected[5] - expected[0]).abs().max() > 0.05
    losses["task"].backward()  # the graph was kept for the step of the model


def test_gradient_norms_are_brought_to_one_size(data: tuple[Tensor, Tensor]) -> None:
    """Without the pull towards equal rates, a loss that is 9 times larger ends with a ninth of the weight."""
    model, (x, targets) = TwoHeads(), data
    weighting = GradNorm({"task": 1.0, "equivariance": 1.0}, exponent=0.0, learning_rate=1e-3, loss_floor=1e-6)
    losses = model.losses(x, targets, scale=9.0)
    norms = [torch.autograd.grad(loss, model.shared_matrix, retain_graph=True)[0].norm() for loss in losses.values()]
    for step in range(400):
        found = weighting(losses, step=step, model=model)
    sizes = [float(weight) * float(norm) for weight, norm in zip(found.values(), norms, strict=True)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)  # the sign of a gradient: it ends in steps of learning rate
    assert float(norms[1]) > 2 * float(norms[0])


def test_a_loss_that_lags_gets_more_weight(data: tuple[Tensor, Tensor]) -> None:
    model, (x, targets) = TwoHeads(), data
    names = ("task", "equivariance")

    def weights_after(lagging: str) -> dict[str, float]:
        weighting = GradNorm(dict.fromkeys(names, 1.0), exponent=1.5, learning_rate=1e-3, loss_floor=1e-6)
        for step in range(300):
            losses = model.losses(x, targets)
            now = losses if step == 0 else {n: v * (1.0 if n == lagging else 0.2) for n, v in losses.items()}
            # Gradients are kept as they were: only the losses fall, so only the rates can shift the weights.
            kept = {n: losses[n] + (now[n] - losses[n]).detach() for n in names}
            found = weighting(kept, step=step, model=model)
        return {name: float(value) for name, value in found.items()}

    task, equivariance = weights_after("task"), weights_after("equivariance")
    assert task["task"] > 2 * equivariance["task"]
    assert equivariance["equivariance"] > 2 * task["equivariance"]


def test_weights_stay_above_zero_and_add_up(data: tuple[Tensor, Tensor]) -> None:
    model, (x, targets) = TwoHeads(), data
    weighting = GradNorm({"task": 0.5, "equivariance": 2.0}, exponent=1.5, learning_rate=10.0, loss_floor=1e-6)
    seen = []
    for step in range(20):
        found = weighting(model.losses(x, targets, scale=30.0), step=step, model=model)
        seen.append([float(value) for value in found.values()])
    assert min(min(pair) for pair in seen) < 0.02  # the step was far too large, so the floor was needed
    assert min(min(pair) for pair in seen) >= 0.9 * MIN_SHARE * 2.5 / (1 + MIN_SHARE)
    assert [sum(pair) for pair in seen] == pytest.approx([2.5] * 20, rel=1e-6)


def test_a_loss_that_starts_at_zero_counts_as_the_floor(data: tuple[Tensor, Tensor]) -> None:
    model, (x, targets) = TwoHeads(), data
    weighting = GradNorm({"task": 1.0, "equivariance": 1.0}, exponent=1.5, learning_rate=0.01, loss_floor=0.25)
    weighting(model.losses(x, targets, scale=0.0), step=0, model=model)
    assert weighting.state_dict()["initial"][1] == 0.25
    found = weighting(model.losses(x, targets, scale=1e-3), step=1, model=model)
    assert all(math.isfinite(float(value)) for value in found.values())


def test_gradnorm_goes_on_where_it_stood(data: tuple[Tensor, Tensor]) -> None:
    model, (x, targets) = TwoHeads(), data
    config = options(weighting="gradual")
    whole, first, second = (make_weighting(config) for _ in range(3))
    for step in range(9):
        if step == 4:
            second.load_state_dict(first.state_dict())
        losses = model.losses(x * 0.9**step, targets)
        expected = whole(losses, step=step, model=model)
        found = (first if step < 4 else second)(losses, step=step, model=model)
        assert all(torch.equal(torch.as_tensor(found[n]), torch.as_tensor(expected[n])) for n in expected)


def test_the_shared_matrix_is_the_output_of_the_last_mlp() -> None:
    model = random_model()
    assert shared_matrix(model) is model.blocks[-1].mlp[2].weight  # type: ignore[union-attr, index]
    with pytest.raises(InputError, match=re.escape("train.weighting=gradual needs Linear.shared_matrix")):
        shared_matrix(nn.Linear(3, 2))


def test_gradient_diagnostics_by_hand() -> None:
    model = nn.Linear(3, 1, bias=False)
    unused = nn.Parameter(torch.ones(4))
    model.register_parameter("unused", unused)
    a, b = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    losses = {"task": (model.weight @ a).sum(), "equivariance": (model.weight @ b).sum()}
    found = {name: float(value) for name, value in gradient_diagnostics(losses, model).items()}
    assert found == pytest.approx({"task_grad_norm": 5.0, "equivariance_grad_norm": 2.0, "gradient_cosine": 0.8})
    sum(losses.values()).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(model.weight.grad, (a + b).unsqueeze(0))
    assert set(gradient_diagnostics({"task": (model.weight @ a).sum()}, model)) == {"task_grad_norm"}
