"""Muon: what it does to a matrix, that the rest is Adam, and that it resumes to the bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from remul_md.training.config import TrainConfig
from remul_md.training.optimizers import Muon, make_optimizer, orthogonalized


def net() -> nn.Sequential:
    """A matrix of three blocks of rows, a tall one of one block, one too narrow, an embedding, vectors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return nn.Sequential(
            nn.Embedding(19, 40), nn.Linear(40, 96), nn.RMSNorm(96), nn.Linear(96, 50), nn.Linear(50, 7)
        )


def backward(model: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 19, (23,), generator=generator)
    model.zero_grad()
    (model(numbers) - torch.randn(23, 7, generator=generator)).square().mean().backward()


def assert_orthogonal(found: Tensor, given: Tensor) -> None:
    """The same singular vectors, all singular values near 0.2 sqrt(longest side)."""
    u, values, vh = torch.linalg.svd(given, full_matrices=False)
    core = u.mT @ found @ vh.mT / (0.2 * max(given.shape) ** 0.5)
    assert (core - torch.diag(core.diagonal())).abs().max() < 1e-4
    assert core.diagonal().min() > 0.6
    assert core.diagonal().max() < 1.25
    assert values.max() / values.min() > 3  # or there was nothing to do


def test_singular_values_become_equal_and_their_vectors_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    wide, tall, blocks = (torch.randn(n, m, generator=generator).double() for n, m in ((20, 50), (70, 33), (96, 47)))
    found = orthogonalized([wide * 1e3, tall * 1e-9, blocks])
    assert [matrix.shape for matrix in found] == [(20, 50), (70, 33), (96, 47)]
    assert_orthogonal(found[0], wide)
    assert_orthogonal(found[1], tall)
    for rows in (slice(0, 32), slice(32, 64), slice(64, 96)):
        assert_orthogonal(found[2][rows], blocks[rows])
    whole = orthogonalized([blocks], block_rows=96)[0]
    assert_orthogonal(whole, blocks)


def test_matrices_of_many_shapes_are_not_mixed_up() -> None:
    generator = torch.Generator().manual_seed(1)
    given = [torch.randn(n, m, generator=generator) for n, m in ((64, 40), (32, 40), (17, 16), (40, 32), (64, 40))]
    together = orthogonalized(given)
    for matrix, found in zip(given, together, strict=True):
        torch.testing.assert_close(found, orthogonalized([matrix])[0], rtol=1e-4, atol=1e-5)


def test_an_update_moves_a_matrix_as_far_as_adam_moves_the_rest() -> None:
    model = net()
    before = copy.deepcopy(model)
    optimizer = Muon(model, lr=1e-3)
    backward(model, seed=0)
    optimizer.step()
    for name, weight in model.named_parameters():
        moved = (weight - before.get_parameter(name)).square().mean().sqrt() / 1e-3
        is_matrix = name in ("1.weight", "3.weight")
        # Adam's first step is +-1; seven outputs leave the gradient of the second matrix a rank of seven.
        assert 0.05 < moved < 0.3 if is_matrix else 0.5 < moved < 1.01, (name, moved)


def test_a_matrix_of_zeros_stays() -> None:
    assert orthogonalized([torch.zeros(32, 20)])[0].abs().max() == 0


def test_what_is_no_matrix_takes_the_steps_of_adamw() -> None:
    ours, theirs = net(), net()
    others = ("0.weight", "2.weight", "1.bias", "3.bias", "4.weight", "4.bias")
    for model in (ours, theirs):
        for name in ("1.weight", "3.weight"):
            model.get_parameter(name).requires_grad_(False)
    muon = Muon(ours, lr=1e-2, weight_decay=0.1)
    adam = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    for seed in range(12):
        for model, optimizer in ((ours, muon), (theirs, adam)):
            backward(model, seed=seed)
            optimizer.step()
    for name in others:
        torch.testing.assert_close(ours.get_parameter(name), theirs.get_parameter(name), rtol=1e-5, atol=1e-6)


def test_parameters_without_a_gradient_stay_as_they_are() -> None:
    model = net()
    before = copy.deepcopy(model)
    backward(model, seed=0)
    model[1].weight.grad = None
    model[3].bias.grad = None
    Muon(model, lr=1e-2, weight_decay=0.5).step()
    assert torch.equal(model[1].weight, before[1].weight)
    assert torch.equal(model[3].bias, before[3].bias)
    assert not torch.equal(model[3].weight, before[3].weight)


def test_weights_decay_by_the_learning_rate() -> None:
    model = net()
    before = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = Muon(model, lr=1e-2, weight_decay=0.5)
    for group in optimizer.param_groups:
        group["lr"] = 2e-2  # as the schedule sets it
    optimizer.step()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, 0.99 * before.get_parameter(name))


def test_a_resumed_optimizer_goes_on_to_the_bit() -> None:
    whole, halves = net(), net()
    one, first = Muon(whole, lr=1e-2), Muon(halves, lr=1e-2)
    for seed in range(6):
        backward(whole, seed=seed)
        one.step()
    for seed in range(3):
        backward(halves, seed=seed)
        first.step()
    resumed = Muon(halves, lr=1e-2)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    for seed in range(3, 6):
        backward(halves, seed=seed)
        resumed.step()
    for one_weight, other in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(one_weight, other)


@pytest.mark.parametrize(("name", "kind"), [("muon", Muon), ("adamw", torch.optim.AdamW)])
def test_the_config_chooses(name: str, kind: type) -> None:
    optimizer = make_optimizer(net(), TrainConfig.model_validate({"optimizer": name, "learning_rate": 3e-3}))
    assert isinstance(optimizer, kind)
    assert {group["lr"] for group in optimizer.param_groups} == {3e-3}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(net().parameters()))
