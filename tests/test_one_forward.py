"""One orientation a frame instead of two: unbiased, exactly, over all ways in which the orientations can fall."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
import torch
from potentials import molecule_frames, random_model
from torch import Tensor

from remul_md.errors import InputError
from remul_md.structures.batch import Batch
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.remul import Turn, one_forward_losses, remul_losses
from remul_md.symmetry.rotations import random_rotations
from remul_md.training.objectives import PotentialObjective

N_SYSTEMS = 5
ALPHA, BETA = 0.7, 1.9
PROBABILITY = ALPHA / (ALPHA + BETA)


def rotated_rows(rows: Tensor, rotations: Tensor) -> Tensor:
    return torch.einsum("gbij,bj->gbi", rotations, rows).flatten(0, 1)


TURN: Turn[Tensor, Tensor] = Turn(inputs=rotated_rows, outputs=rotated_rows)


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().sum(1)


def lengths(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).norm(dim=1)


@pytest.fixture
def rows() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, N_SYSTEMS, 3, dtype=torch.float64, generator=generator)
    return x, y, random_rotations(N_SYSTEMS, generator=generator, group="O3")


def test_the_mean_over_all_outcomes_is_the_paired_loss_and_gradient(rows) -> None:  # type: ignore[no-untyped-def]
    x, y, rotations = rows
    weight = torch.tensor([[1.0, 0.2, 0.0], [0.1, 0.8, -0.3], [0.4, 0.0, 1.2]], dtype=torch.float64, requires_grad=True)
    terms = {
        "predict": lambda v: v @ weight.T,
        "inputs": x,
        "targets": y,
        "turn": TURN,
        "gap": squared,
    }
    paired = remul_losses(**terms, rotations=rotations.unsqueeze(0))
    expected = dict(zip(paired, [torch.zeros((), dtype=torch.float64)] * 2, strict=True))
    single = 0.0
    for rotated in itertools.product((False, True), repeat=N_SYSTEMS):
        chance = PROBABILITY ** rotated.count(False) * (1 - PROBABILITY) ** rotated.count(True)
        found = one_forward_losses(**terms, rotations=rotations, rotated=torch.tensor(rotated), probability=PROBABILITY)
        expected = {name: expected[name] + chance * found[name] for name in expected}
        single = max(single, abs(found["task"].item() - paired["task"].item()))
    for name, loss in paired.items():
        torch.testing.assert_close(expected[name], loss, rtol=1e-12, atol=0)
        found_gradient, wanted = (torch.autograd.grad(v, weight, retain_graph=True)[0] for v in (expected[name], loss))
        torch.testing.assert_close(found_gradient, wanted, rtol=1e-10, atol=1e-12)
    assert single > 0.1 * paired["task"].item()  # no single outcome need be right


def test_the_weighted_sum_is_one_weight_on_the_mean_of_the_batch(rows) -> None:  # type: ignore[no-untyped-def]
    x, y, rotations = rows
    rotated = torch.tensor([True, False, False, True, False])
    seen = []

    def predict(v: Tensor) -> Tensor:
        seen.append(v)
        return 1.3 * v + 0.2

    found = one_forward_losses(
        predict, x, y, turn=TURN, rotations=rotations, rotated=rotated, probability=PROBABILITY, gap=squared
    )
    assert [len(v) for v in seen] == [N_SYSTEMS]
    assert torch.equal(seen[0][~rotated], x[~rotated])  # left as they stand, bit for bit
    places = torch.einsum("bij,bj->bi", rotations, x)
    torch.testing.assert_close(seen[0][rotated], places[rotated])
    targets = torch.where(rotated[:, None], torch.einsum("bij,bj->bi", rotations, y), y)
    expected = (ALPHA + BETA) * squared(1.3 * seen[0] + 0.2, targets).mean()
    total = ALPHA * found["task"] + BETA * found["equivariance"]
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.5])
def test_without_odds_it_is_refused(rows, probability: float) -> None:  # type: ignore[no-untyped-def]
    x, y, rotations = rows
    with pytest.raises(InputError, match=re.escape(f"probability must lie between 0 and 1, got {probability}")):
        one_forward_losses(
            lambda v: v,
            x,
            y,
            turn=TURN,
            rotations=rotations,
            rotated=torch.ones(N_SYSTEMS, dtype=torch.bool),
            probability=probability,
            gap=squared,
        )


@pytest.fixture(scope="module")
def molecules() -> Batch:
    batch = build_batch(molecule_frames(), cutoff=4.5)
    assert batch.energy is not None
    return replace(batch, energy=batch.energy + 700.0).repeated(3)


@pytest.mark.slow
def test_the_potential_objective_sends_one_orientation_a_frame_and_is_unbiased(molecules: Batch) -> None:
    model = random_model(cutoff=4.5).double()
    sizes = []

    def recorded(batch, **options):  # type: ignore[no-untyped-def]
        sizes.append(batch.n_systems)
        return model(batch, forces="direct")

    paired = PotentialObjective(forces="direct", force_scale=0.7, energy_weight=0.1, group="SO3")
    single = replace(paired, one_forward=PROBABILITY)
    samples: dict[str, list[Tensor]] = {"task": [], "equivariance": []}
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        for name, value in single(recorded, molecules, generator).items():
            samples[name].append(value.detach())
    assert set(sizes) == {6}
    references = [paired(recorded, molecules, generator) for _ in range(100)]
    for name, values in samples.items():
        drawn, exact = torch.stack(values), torch.stack([losses[name].detach() for losses in references])
        error = (drawn.var() / len(drawn) + exact.var() / len(exact)).sqrt()
        assert abs(drawn.mean() - exact.mean()) < 4 * error, name
        assert 8 * error < exact.mean()
