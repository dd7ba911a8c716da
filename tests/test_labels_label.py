"""Labels of a teacher are its predictions; uncertain ones stay out; the file they go to is training data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from potentials import molecule_frames, untrained_potential
from remul_md.calculators import RemulCalculator

from remul_md.datasets import read_frames, write_frames
from remul_md.errors import InputError
from remul_md.labels.label import label_frames
from remul_md.potentials.ensemble import make_ensemble
from remul_md.potentials.potential import Potential
from remul_md.structures.frames import Frames


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Eleven geometries of the molecule of seven atoms and four of the other, moved at random, with other labels."""
    rng = np.random.default_rng(5)
    both = molecule_frames()
    many = both.select([0] * 11 + [1] * 4)
    return replace(
        many,
        positions=many.positions + 0.05 * rng.normal(size=many.positions.shape),
        energy=rng.normal(size=15) - 4209.0,
        forces=rng.normal(size=many.positions.shape),
        name="geometries",
    )


@pytest.fixture(scope="module")
def ensemble(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Potential:
    folder = tmp_path_factory.mktemp("teachers")
    for seed in (1, 2, 3, 4):
        untrained_potential(frames, seed=seed, energy_scale=0.1).save(folder / f"{seed}.pt")
    made = make_ensemble([folder / f"{seed}.pt" for seed in (1, 2, 3, 4)])
    return replace(made.to(dtype="float64"), sha256="c0ffee")


def with_calculator(frames: Frames, index: int, calculator: Calculator) -> Atoms:
    atoms = frames.atoms(index)
    atoms.calc = calculator
    return atoms


@pytest.mark.filterwarnings("ignore:.*outside the training data")
def test_labels_are_the_predictions(ensemble: Potential, frames: Frames) -> None:
    labelled = label_frames(ensemble, frames)
    assert labelled.n_left_out == 0
    assert labelled.forces_std is not None
    assert np.array_equal(labelled.frames.positions, frames.positions)
    assert labelled.frames.energy is not None
    assert labelled.frames.forces is not None
    calculator = RemulCalculator(ensemble, device="cpu", dtype="float64")
    for index in (0, 10, 11, 14):
        atoms, first = with_calculator(frames, index, calculator), frames.first_atom[index]
        forces = labelled.frames.forces[first : first + frames.n_atoms[index]]
        np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-10)
        assert labelled.frames.energy[index] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        std = calculator.diagnostics["forces_std"]
        assert labelled.forces_std[index] == pytest.approx(np.sqrt((std**2).mean(1)).max(), abs=1e-10)
    assert np.abs(labelled.frames.energy - frames.energy).min() > 0.01  # the labels of the file were not looked at
    assert labelled.provenance["potential_sha256"] == "c0ffee"
    assert labelled.provenance["geometries_sha256"] == frames.content_hash()
    assert (labelled.provenance["n_members"], labelled.provenance["forces"]) == (4, "conservative")


def test_the_head_can_be_chosen(ensemble: Potential, frames: Frames) -> None:
    conservative, direct = label_frames(ensemble, frames), label_frames(ensemble, frames, forces="direct")
    assert direct.provenance["forces"] == "direct"
    assert conservative.frames.forces is not None
    assert direct.frames.forces is not None
    assert np.abs(conservative.frames.forces - direct.frames.forces).max() > 1e-2
    with pytest.raises(InputError, match=r"forces='direct' .* trained for conservative"):
        label_frames(untrained_potential(frames, trained_forces="conservative"), frames, forces="direct")


def test_batches_do_not_matter(ensemble: Potential, frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = label_frames(ensemble, frames)
    monkeypatch.setattr("remul_md.labels.label.MAX_ATOMS", 60)  # two molecules of seven atoms, four members
    parts = label_frames(ensemble, frames)
    for name in ("energy", "forces"):
        np.testing.assert_allclose(getattr(parts.frames, name), getattr(whole.frames, name), rtol=0, atol=1e-10)
    np.testing.assert_allclose(parts.forces_std, whole.forces_std, rtol=0, atol=1e-10)


def test_uncertain_frames_are_left_out(ensemble: Potential, frames: Frames) -> None:
    whole = label_frames(ensemble, frames)
    assert whole.forces_std is not None
    assert whole.frames.energy is not None
    limit = 1000.0 * float(np.sort(whole.forces_std)[8])
    some = label_frames(ensemble, frames, max_std_meV_per_A=limit * 1.0000001)
    kept = np.flatnonzero(1000.0 * whole.forces_std <= limit * 1.0000001)
    assert len(kept) == 9
    assert some.n_left_out == 6
    assert some.forces_std is not None
    assert np.array_equal(some.frames.energy, whole.frames.energy[kept])
    assert np.array_equal(some.frames.positions, frames.select(kept).positions)
    assert np.array_equal(some.forces_std, whole.forces_std[kept])
    smallest = f"{1000.0 * whole.forces_std.min():.3g}"
    with pytest.raises(InputError, match=f"within 1e-06 .* smallest is {smallest}"):
        label_frames(ensemble, frames, max_std_meV_per_A=1e-6)


def test_what_cannot_be_labelled_is_refused(ensemble: Potential, frames: Frames) -> None:
    single = untrained_potential(frames)
    with pytest.raises(InputError, match="max_std=5 needs an ensemble"):
        label_frames(single, frames, max_std_meV_per_A=5.0)
    with pytest.raises(InputError, match=r"max_std .*got 0"):
        label_frames(ensemble, frames, max_std_meV_per_A=0.0)
    other = replace(frames, atomic_numbers=np.where(frames.atomic_numbers == 8, 6, frames.atomic_numbers))
    with pytest.raises(InputError, match="composition C"):
        label_frames(ensemble, other)
    assert label_frames(single, frames).forces_std is None


@pytest.mark.parametrize(("suffix", "digits"), [(".extxyz", 1e-8), (".npz", 1e-13)])
def test_what_is_written_is_read_back(
    suffix: str, digits: float, ensemble: Potential, frames: Frames, tmp_path: Path
) -> None:
    labelled = label_frames(ensemble, frames.select(range(11)))
    assert labelled.forces_std is not None
    path = tmp_path / f"labels{suffix}"
    further = {"forces_std_eV_per_A": labelled.forces_std}
    write_frames(labelled.frames, path, provenance=labelled.provenance, per_frame=further)
    back = read_frames(path, require=("energy", "forces"), allow_implausible=True)
    for name in ("positions", "energy", "forces"):
        expected = getattr(labelled.frames, name)
        np.testing.assert_allclose(getattr(back, name), expected, rtol=1e-15, atol=digits, err_msg=name)
    assert np.array_equal(back.atomic_numbers, labelled.frames.atomic_numbers)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            notes, stds = [str(arrays["provenance"])], arrays["forces_std_eV_per_A"]
    else:
        infos = [atoms.info for atoms in ase.io.read(path, index=":")]
        notes, stds = [info["provenance"] for info in infos], np.array([info["forces_std_eV_per_A"] for info in infos])
    for note in notes:
        assert (note if isinstance(note, dict) else json.loads(note)) == labelled.provenance
    np.testing.assert_allclose(stds, labelled.forces_std, rtol=1e-12)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_mixed_molecules_and_cells_go_into_extxyz(ensemble: Potential, frames: Frames, tmp_path: Path) -> None:
    labelled = label_frames(ensemble, frames).frames
    cells = replace(labelled, cell=np.tile(9.0 * np.eye(3), (15, 1, 1)), pbc=np.ones((15, 3), dtype=bool))
    write_frames(cells, tmp_path / "mixed.extxyz", provenance={})
    back = read_frames(tmp_path / "mixed.extxyz", allow_implausible=True)
    assert back.n_atoms.tolist() == [7] * 11 + [5] * 4
    assert back.cell is not None
    assert back.pbc.all()
    with pytest.raises(InputError, match=r"geometries is more; write \.extxyz"):
        write_frames(labelled, tmp_path / "mixed.npz", provenance={})
    with pytest.raises(InputError, match="one neutral molecule"):
        write_frames(cells.select(range(11)), tmp_path / "cells.npz", provenance={})


def test_files_that_cannot_be_written_are_refused(frames: Frames, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ending '\.traj' .*\.extxyz, \.xyz, \.npz"):
        write_frames(frames, tmp_path / "labels.traj", provenance={})
    with pytest.raises(InputError, match="missing is not there"):
        write_frames(frames, tmp_path / "missing" / "labels.npz", provenance={})
    with pytest.raises(InputError, match="geometries: has no energies or no forces"):
        write_frames(replace(frames, energy=None), tmp_path / "labels.npz", provenance={})
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match=r"folder\.npz: cannot be written"):
        write_frames(frames.select(range(3)), tmp_path / "folder.npz", provenance={})


def test_the_scatter_costs_no_random_numbers(ensemble: Potential, frames: Frames) -> None:
    before = torch.random.get_rng_state()
    label_frames(ensemble, frames)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_molecules_in_boxes_are_labelled_without_them_only() -> None:
    """A box of one molecule would put its images among its neighbours."""
    frames = read_frames("rmd17/ethanol/train-01").select(range(0, 40, 8))
    potential = untrained_potential(frames, seed=3)
    boxed = replace(
        frames, cell=np.tile(6.0 * np.eye(3), (len(frames), 1, 1)), pbc=np.ones((len(frames), 3), dtype=bool)
    )
    with pytest.raises(InputError, match=r"frame 0 is periodic, .*--ignore-cell"):
        label_frames(potential, boxed)
    expected, found = label_frames(potential, frames).frames, label_frames(potential, boxed.isolated()).frames
    np.testing.assert_array_equal(found.forces, expected.forces)
    ions = replace(frames, charge=np.ones(len(frames), dtype=np.int64))
    with pytest.raises(InputError, match=r"total charge \+1"):
        label_frames(potential, ions)
