"""Random rotations are Haar-distributed, the fixed sets are groups, and batches turn as physics says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from random_structures import pair_vectors

from remul_md import Batch, InputError, Prediction
from remul_md.datasets import read_frames
from remul_md.structures.frames import frames_from_atoms
from remul_md.structures.neighbors import build_batch
from remul_md.structures.rows import row_fields
from remul_md.symmetry.rotations import (
    fixed_rotations,
    random_rotations,
    rotate_batch,
    rotate_prediction,
    rotate_vectors,
    rotated_copies,
    rotations_from_quaternions,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("group", ["SO3", "O3"])
def test_draws_are_orthogonal(group: str) -> None:
    rotations = random_rotations(500, generator=seeded(0), group=group)
    assert rotations.shape == (500, 3, 3)
    assert rotations.dtype == torch.float64
    identity = torch.eye(3, dtype=torch.float64).expand(500, 3, 3)
    torch.testing.assert_close(rotations @ rotations.mT, identity, rtol=0, atol=1e-14)
    determinants = torch.linalg.det(rotations)
    torch.testing.assert_close(determinants.abs(), torch.ones(500, dtype=torch.float64), rtol=0, atol=1e-13)
    mirrored = int((determinants < 0).sum())
    if group == "SO3":
        assert mirrored == 0
    else:
        assert abs(mirrored - 250) < 4 * np.sqrt(500) / 2  # a fair coin stays within 4 standard deviations


@pytest.mark.parametrize("group", ["SO3", "O3"])
def test_moments_of_the_haar_measure(group: str) -> None:
    n = 40_000
    rotations = random_rotations(n, generator=seeded(1), group=group)
    tolerance = 5 / np.sqrt(n)  # of means of numbers between -1 and 1: at least 5 standard errors
    assert rotations.mean(0).abs().max() < tolerance
    # <g_ij g_kl> = delta_ik delta_jl / 3
    second = torch.einsum("nij,nkl->ijkl", rotations, rotations) / n
    identity = torch.eye(3, dtype=torch.float64)
    assert (second - torch.einsum("ik,jl->ijkl", identity, identity) / 3).abs().max() < tolerance
    # <g_ij g_kl g_mn> = epsilon_ikm epsilon_jln / 6 for rotations, zero with mirrors
    epsilon = torch.zeros(3, 3, 3, dtype=torch.float64)
    for a, b, c, sign in [(0, 1, 2, 1), (1, 2, 0, 1), (2, 0, 1, 1), (0, 2, 1, -1), (2, 1, 0, -1), (1, 0, 2, -1)]:
        epsilon[a, b, c] = sign
    third = torch.einsum("nij,nkl,nmp->ikmjlp", rotations, rotations, rotations) / n
    expected = torch.einsum("ikm,jlp->ikmjlp", epsilon, epsilon) / 6 * (1 if group == "SO3" else 0)
    assert (third - expected).abs().max() < tolerance


def test_rotation_angles_are_haar_distributed() -> None:
    rotations = random_rotations(20_000, generator=seeded(2))
    cosine = ((rotations.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)
    angles = torch.acos(cosine).sort().values.numpy()
    # density (1 - cos a) / pi; Kolmogorov-Smirnov: 0.1 % of fair samples exceed 1.95 / sqrt(n)
    expected = (angles - np.sin(angles)) / np.pi
    empirical = (np.arange(20_000) + 0.5) / 20_000
    assert np.abs(expected - empirical).max() < 1.95 / np.sqrt(20_000)


def test_draws_depend_on_the_generator_alone() -> None:
    first = random_rotations(11, generator=seeded(7), group="O3")
    torch.manual_seed(1234)
    torch.testing.assert_close(random_rotations(11, generator=seeded(7), group="O3"), first, rtol=0, atol=0)
    assert not torch.allclose(random_rotations(11, generator=seeded(8), group="O3"), first)


def test_quaternion_convention() -> None:
    half = np.pi / 6
    quaternion = torch.tensor([[np.cos(half), 0, 0, np.sin(half)]], dtype=torch.float64)  # 60 degrees about z
    expected = [[np.cos(2 * half), -np.sin(2 * half), 0], [np.sin(2 * half), np.cos(2 * half), 0], [0, 0, 1]]
    torch.testing.assert_close(rotations_from_quaternions(quaternion)[0], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("name", "order"), [("tetrahedral", 12), ("octahedral", 24), ("icosahedral", 60)])
def test_fixed_sets_are_groups(name: str, order: int) -> None:
    group = fixed_rotations(name)
    assert group.shape == (order, 3, 3)
    identity = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(group[0], identity, rtol=0, atol=1e-14)
    torch.testing.assert_close(group @ group.mT, identity.expand(order, 3, 3), rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.linalg.det(group), torch.ones(order, dtype=torch.float64))
    distance = (group[:, None] - group[None]).abs().amax((2, 3))
    assert (distance + torch.eye(order) > 0.1).all()  # no rotation twice
    products = torch.einsum("aij,bjk->abik", group, group).reshape(-1, 1, 3, 3)
    nearest = (products - group[None]).abs().amax((2, 3)).min(1).values
    assert nearest.max() < 1e-13  # closed
    assert group.mean(0).abs().max() < 1e-13  # a vector averages to nothing
    squares = torch.einsum("nij,nkl->ijkl", group, group) / order
    assert (squares - torch.einsum("ik,jl->ijkl", identity, identity) / 3).abs().max() < 1e-13


@pytest.mark.parametrize("length", [1e-200, 1e-150, 1e200, 1.7e308])
def test_an_axis_of_any_length_is_the_same_axis(length: float) -> None:
    wanted = random_rotations(7, generator=seeded(3), axis=[0.6, 0.0, -0.8])
    found = random_rotations(7, generator=seeded(3), axis=[0.6 * length, 0.0, -0.8 * length])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"group 'SE3' .*SO3, O3"):
        random_rotations(5, generator=seeded(0), group="SE3")
    with pytest.raises(InputError, match=r"'cubic' .*tetrahedral, octahedral, icosahedral"):
        fixed_rotations("cubic")


def two_molecules() -> Batch:
    frames = read_frames("rmd17/ethanol/test-01").select([3, 500])
    return build_batch(frames, cutoff=4.0)


def two_crystals() -> Batch:
    generator = np.random.default_rng(5)
    structures = [
        Atoms(
            numbers=generator.integers(1, 9, n_atoms),
            scaled_positions=generator.uniform(size=(n_atoms, 3)),
            cell=3.9 * np.eye(3) + 0.5 * generator.normal(size=(3, 3)),
            pbc=True,
        )
        for n_atoms in (5, 7)
    ]
    return build_batch(frames_from_atoms(structures), cutoff=4.4)


def test_rotate_vectors_acts_on_columns_by_system_and_keeps_the_type() -> None:
    vectors = torch.randn(12, 3, generator=seeded(3), dtype=torch.float64)
    index = torch.tensor([0] * 5 + [1] * 7)
    rotations = random_rotations(2, generator=seeded(4))
    rotated = rotate_vectors(vectors, rotations, system_index=index)
    for atom in (0, 4, 5, 11):
        torch.testing.assert_close(rotated[atom], rotations[index[atom]] @ vectors[atom])
    assert rotate_vectors(vectors.float(), rotations, system_index=index).dtype == torch.float32


@pytest.mark.parametrize("make", [two_molecules, two_crystals])
def test_rotate_batch_turns_every_pair_vector_and_label(make) -> None:
    batch = make()
    rotations = random_rotations(2, generator=seeded(6), group="O3")
    rotated = rotate_batch(batch, rotations)
    per_atom = rotations[batch.system_index]
    torch.testing.assert_close(
        pair_vectors(rotated), torch.einsum("aij,akj->aki", per_atom, pair_vectors(batch)), rtol=0, atol=1e-12
    )
    if batch.forces is not None:
        assert rotated.forces is not None
        torch.testing.assert_close(rotated.forces, torch.einsum("aij,aj->ai", per_atom, batch.forces))
        assert rotated.energy is batch.energy
    for field in ("atomic_numbers", "neighbor_index", "neighbor_mask", "neighbor_shift", "reverse_index", "pbc"):
        assert getattr(rotated, field) is getattr(batch, field)
    back = rotate_batch(rotated, rotations.mT)
    torch.testing.assert_close(back.positions, batch.positions)
    if batch.cell is not None:
        torch.testing.assert_close(back.cell, batch.cell)


@pytest.mark.parametrize("make", [two_molecules, two_crystals])
def test_orientation_batch_is_orientation_major(make) -> None:
    batch = make()
    rotations = random_rotations(4 * 2, generator=seeded(9), group="O3").view(4, 2, 3, 3)
    orientations = rotated_copies(batch, rotations)
    assert orientations.n_systems == 8
    n_atoms, n_slots = batch.n_atoms, batch.neighbor_index.numel()
    for orientation in range(4):
        single, rows = (
            rotate_batch(batch, rotations[orientation]),
            slice(orientation * n_atoms, (orientation + 1) * n_atoms),
        )
        assert torch.equal(orientations.positions[rows], single.positions)
        assert torch.equal(orientations.system_index[rows], single.system_index + 2 * orientation)
        assert torch.equal(orientations.neighbor_index[rows], single.neighbor_index + n_atoms * orientation)
        assert torch.equal(orientations.reverse_index[rows], single.reverse_index + n_slots * orientation)
        if batch.cell is not None:
            assert orientations.cell is not None
            assert torch.equal(orientations.cell[2 * orientation : 2 * orientation + 2], single.cell)
        if batch.forces is not None:
            assert orientations.forces is not None
            assert torch.equal(orientations.forces[rows], single.forces)


def test_rotate_prediction_turns_forces_and_leaves_energies() -> None:
    index = torch.tensor([0] * 5 + [1] * 7)
    values = {
        "energy": torch.randn(2, generator=seeded(0)), "atomic_energies": torch.randn(12, generator=seeded(1)),
        "forces": torch.randn(12, 3, generator=seeded(2)), "direct_forces": torch.randn(12, 3, generator=seeded(3)),
    }  # fmt: skip
    prediction = Prediction(system_index=index, **values)
    rotations = random_rotations(2, generator=seeded(4), group="O3")
    rotated = rotate_prediction(prediction, rotations)
    assert rotated.energy is values["energy"]
    assert rotated.atomic_energies is values["atomic_energies"]
    for name in ("forces", "direct_forces"):
        expected = rotate_vectors(values[name], rotations, system_index=index)
        assert torch.equal(getattr(rotated, name), expected)
        assert not torch.allclose(expected, values[name])
    ensemble = rotate_prediction(replace(prediction, members=(prediction, Prediction(system_index=index))), rotations)
    assert ensemble.members is not None
    assert torch.equal(ensemble.members[0].forces, rotated.forces)
    assert ensemble.members[1].forces is None
    empty = rotate_prediction(Prediction(system_index=index), rotations)
    assert all(getattr(empty, name) is None for name in row_fields(Prediction) if name != "system_index")
