"""Rotated, predicted, rotated back: by hand, for models whose answer is known, in batches of unlike molecules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from potentials import molecule_frames
from torch import Tensor

from remul_md.errors import InputError
from remul_md.structures.batch import Batch, Prediction, sums_of_systems
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.evaluate import in_float64, rotated_back, statistics
from remul_md.symmetry.rotations import random_rotations, rotate_vectors
from remul_md.symmetry.turns import POTENTIAL_TURN

K = 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Two molecules, of 7 and 5 atoms."""
    return build_batch(molecule_frames(), cutoff=4.5)


@pytest.fixture(scope="module")
def rotations(batch: Batch) -> Tensor:
    drawn = random_rotations(K * batch.n_systems, generator=torch.Generator().manual_seed(5), group="O3")
    return drawn.view(K, batch.n_systems, 3, 3)


def about_centres(batch: Batch) -> Tensor:
    parts = [batch.positions[batch.system_index == b] for b in range(batch.n_systems)]
    return torch.cat([part - part.mean(0) for part in parts])


def test_what_turns_with_its_input_comes_back_as_it_was(batch: Batch, rotations: Tensor) -> None:
    def spring(systems: Batch) -> Prediction:
        levers = about_centres(systems)
        energy = sums_of_systems(levers.square().sum(1), systems.system_index, n_systems=systems.n_systems)
        return Prediction(system_index=systems.system_index, energy=energy, forces=-2.0 * levers)

    whole = spring(batch)
    found = rotated_back(spring, batch, turn=POTENTIAL_TURN, rotations=rotations)
    assert len(found) == K
    for out in found:
        torch.testing.assert_close(out.forces, whole.forces, rtol=0, atol=1e-12)
        torch.testing.assert_close(out.energy, whole.energy, rtol=1e-12, atol=0)


def test_a_field_fixed_in_space_comes_back_rotated(batch: Batch, rotations: Tensor) -> None:
    """Each system by its own rotation: f = c comes back as g^-1 c."""
    constant = torch.tensor([0.3, -1.2, 0.4], dtype=torch.float64)

    def field(systems: Batch) -> Prediction:
        forces = constant.expand(systems.n_atoms, 3)
        return Prediction(system_index=systems.system_index, energy=forces.new_zeros(systems.n_systems), forces=forces)

    found = rotated_back(field, batch, turn=POTENTIAL_TURN, rotations=rotations)
    for out, g in zip(found, rotations, strict=True):
        expected = rotate_vectors(constant.expand(batch.n_atoms, 3), g.mT, system_index=batch.system_index)
        torch.testing.assert_close(out.forces, expected, rtol=0, atol=1e-14)


def test_statistics_by_hand() -> None:
    back, target = normal(K, 7, 3), normal(7, 3, seed=1)
    found = statistics(back, target)
    gaps = (back - target).numpy()
    for row in range(7):
        assert found.absolute[row].item() == pytest.approx(np.abs(gaps[:, row]).mean(), rel=1e-12)
        assert found.squared[row].item() == pytest.approx((gaps[:, row] ** 2).sum(1).mean(), rel=1e-12)
        spread = np.var(back[:, row].numpy(), axis=0, ddof=1).sum()
        assert found.spread[row].item() == pytest.approx(spread, rel=1e-12)
    # For any number of draws T + s2 is their mean squared loss.
    torch.testing.assert_close(found.twirled + found.spread, found.squared, rtol=1e-12, atol=1e-12)


def test_the_mean_component_depends_on_the_axes_and_is_taken_in_those_of_the_original() -> None:
    """One vector along x, rotated by 45 degrees: its mean component grows by sqrt(2), its length does not."""
    along = torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64).expand(2, 1, 3)
    tilted = torch.tensor([[[0.5**0.5, 0.5**0.5, 0.0]]], dtype=torch.float64).expand(2, 1, 3)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    one, other = statistics(along, zero), statistics(tilted, zero)
    assert other.absolute.item() / one.absolute.item() == pytest.approx(2**0.5, rel=1e-12)
    assert other.squared.item() == pytest.approx(one.squared.item(), rel=1e-12)


def test_one_draw_has_no_spread() -> None:
    with pytest.raises(InputError, match="at least 2 rotations, got 1"):
        statistics(normal(1, 5, 3), normal(5, 3))


def test_whole_numbers_stay_whole_numbers() -> None:
    assert in_float64(torch.tensor([3])).dtype == torch.int64
    assert in_float64(torch.tensor([3.0])).dtype == torch.float64
