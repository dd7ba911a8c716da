"""What holds under every network: lone atoms, and atoms that are pressed together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from potentials import random_model

from remul_md import read_frames
from remul_md.models.short_range import nuclear_tables, reaches, repulsion_slope, screened_repulsion
from remul_md.structures.batch import Batch
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch

SPECIES = (1, 6, 8)


def model_of(kind: str, **options: Any) -> Any:
    """A random model in float64 with a binding energy and a reach of every pair of elements."""
    model: Any = random_model(kind=kind, seed=5, species=SPECIES, cutoff=5.0, **options).double()
    model.set_short_range(
        binding=torch.tensor([-2.5, -7.25, -4.5]), reach=reaches(SPECIES, {"C-H": 0.9, "H-H": 1.4, "H-O": 0.8})
    )
    return model


def batch_of(numbers: list[int], positions: Any, *, cutoff: float = 5.0) -> Batch:
    frames = Frames(
        positions=np.array(positions, dtype=np.float64).reshape(-1, 3),
        atomic_numbers=np.array(numbers),
        n_atoms=np.array([len(numbers)]),
        pbc=np.zeros((1, 3), dtype=bool),
    )
    return build_batch(frames, cutoff=cutoff)


def pair(numbers: list[int], distance: float) -> Batch:
    direction = np.array([2.0, -1.0, 2.0]) / 3.0
    return batch_of(numbers, [[0.4, 0.1, -0.2], np.array([0.4, 0.1, -0.2]) + distance * direction])


def test_two_protons_repel_as_the_screening_function_says() -> None:
    """phi of Ziegler, Biersack and Littmark at x = 0, 1 and 10, without the taper."""
    strength, inverse_length = nuclear_tables((1, 8))
    assert strength[0, 1] == pytest.approx(8 * 14.399645)
    assert 1.0 / inverse_length[0, 0] == pytest.approx(0.46853 / 2, rel=1e-4)
    x = torch.tensor([1e-9, 1.0, 10.0], dtype=torch.float64)
    distances = x / inverse_length[0, 1]
    energy = screened_repulsion(distances, strength[0, 1], inverse_length[0, 1], torch.tensor(1e9).double())
    screening = energy * distances / strength[0, 1]
    assert screening[0] == pytest.approx(1.0, abs=1e-4)  # the published coefficients add up to 1.00000
    by_hand = 0.18175 * np.exp(-3.1998) + 0.50986 * np.exp(-0.94229) + 0.28022 * np.exp(-0.4029)
    by_hand += 0.02817 * np.exp(-0.20162)
    assert screening[1] == pytest.approx(by_hand, rel=1e-6)
    assert screening[2] == pytest.approx(0.28022 * np.exp(-4.029) + 0.02817 * np.exp(-2.0162), rel=0.02)


def test_the_slope_is_the_derivative_and_all_ends_smoothly() -> None:
    r = torch.linspace(0.2, 0.99, 400, dtype=torch.float64, requires_grad=True)
    pair = (torch.tensor(115.2), torch.tensor(5.5), torch.tensor(0.8).double())
    energy, slope = screened_repulsion(r, *pair), repulsion_slope(r, *pair)
    (derivative,) = torch.autograd.grad(energy.sum(), r, create_graph=True)
    torch.testing.assert_close(slope, derivative, rtol=1e-9, atol=1e-12)
    (second,) = torch.autograd.grad(derivative.sum(), r)
    assert (slope <= 0).all()
    assert (energy[r < 0.79] > 0).all()
    outside = r >= 0.8
    assert outside.sum() > 50
    assert (energy[outside] == 0).all()
    assert (slope[outside] == 0).all()
    assert second[r < 0.8][-1].abs() < 0.02 * second[(r - 0.6).abs().argmin()]


@pytest.mark.parametrize("kind", ["transformer", "painn"])
def test_a_lone_atom_has_minus_its_binding_energy_exactly(kind: str) -> None:
    """Whatever the weights are: with the reference energy that is the isolated atom."""
    model = model_of(kind)
    for number, binding in zip(SPECIES, (-2.5, -7.25, -4.5), strict=True):
        out = model(batch_of([number], [[0.3, -1.0, 2.0]]), forces="both")
        assert out.energy.item() == -binding
        assert (out.forces == 0).all()
        assert (out.direct_forces == 0).all()


def test_an_atom_leaves_smoothly_and_ends_alone() -> None:
    """Energy and force have no jump on the way, and behind the cutoff two atoms are two isolated atoms."""
    model = model_of("transformer")
    distances = np.arange(1.0, 5.2, 0.04)
    energies, slopes = [], []
    for distance in distances:
        out = model(pair([8, 1], distance), forces="conservative")
        energies.append(out.energy.item())
        slopes.append(float(out.forces[0].double() @ torch.tensor([2.0, -1.0, 2.0]).double() / 3.0))
    assert energies[-1] == pytest.approx(2.5 + 4.5, abs=1e-12)
    middle = 0.5 * (np.array(slopes[1:]) + np.array(slopes[:-1]))
    np.testing.assert_allclose(np.diff(energies) / 0.04, middle, rtol=0, atol=0.02 * np.abs(slopes).max())
    assert np.abs(np.diff(slopes)).max() < 0.25 * np.abs(slopes).max()


@pytest.mark.parametrize("kind", ["transformer", "painn"])
def test_inside_the_data_the_repulsion_changes_no_bit(kind: str) -> None:
    frames = read_frames("rmd17/ethanol/test-01").select(range(6))
    batch = build_batch(frames, cutoff=5.0)
    model: Any = random_model(kind=kind, seed=5, species=SPECIES, cutoff=5.0)
    before = model(batch, forces="both")
    shortest = {"C-C": 1.3, "C-H": 0.94, "C-O": 1.2, "H-H": 1.35, "H-O": 0.84}
    model.set_short_range(binding=torch.zeros(3), reach=reaches(SPECIES, shortest))
    after = model(batch, forces="both")
    for name in ("energy", "forces", "direct_forces"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    # Refuted where it has to be: a hydrogen atom pressed into its oxygen is another matter.
    assert not torch.equal(*(m(pair([8, 1], 0.5), forces="none").energy for m in (model, without_reach(model, kind))))


def without_reach(model: Any, kind: str) -> Any:
    """The same network without a repulsion."""
    other: Any = random_model(kind=kind, seed=5, species=SPECIES, cutoff=5.0)
    other.load_state_dict({**model.state_dict(), "reach": torch.zeros(3, 3)})
    return other


def test_both_heads_push_pressed_atoms_apart() -> None:
    """The direct head has no energy whose gradient it could be, so it gets the force itself."""
    model = model_of("transformer")
    without = model_of("transformer")
    without.reach.zero_()
    batch = pair([8, 1], 0.45)
    ours, theirs = model(batch, forces="both"), without(batch, forces="both")
    along = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3.0
    tables = (*(table[0, 2] for table in nuclear_tables(SPECIES)), torch.tensor(0.64).double())
    distance = torch.tensor(0.45).double()
    energy, slope = screened_repulsion(distance, *tables), repulsion_slope(distance, *tables)
    assert (ours.energy - theirs.energy).item() == pytest.approx(energy.item(), rel=1e-5)
    for name in ("forces", "direct_forces"):
        added = getattr(ours, name) - getattr(theirs, name)
        torch.testing.assert_close(added[1], -slope * along, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(added.sum(0), torch.zeros(3).double(), rtol=0, atol=1e-9)


def test_where_training_saw_no_pair_the_radii_decide() -> None:
    table = reaches(SPECIES, {"H-O": 0.8})
    assert table[0, 2] == table[2, 0] == pytest.approx(0.64)
    assert table[2, 2] == pytest.approx(0.8 * 2 * 0.66)
