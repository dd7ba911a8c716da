"""What a run trains on besides the frames of its source: isolated atoms and stretched bonds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from remul_md import RemulCalculator, read_frames
from remul_md.datasets.isolated_atoms import packaged_isolated_atoms
from remul_md.datasets.writers import write_frames
from remul_md.errors import InputError
from remul_md.labels.stretched import stretched_bonds
from remul_md.models.short_range import REACH_FRACTION
from remul_md.potentials.domain import shortest_distances
from remul_md.potentials.potential import load_potential
from remul_md.structures.frames import Frames
from remul_md.structures.topology import bond_lengths, bond_pairs
from remul_md.training.config import RunConfig, validated_config
from remul_md.training.prepare import prepare_training
from remul_md.training.schedule import frame_order
from remul_md.training.train import train_potential

TINY_MODEL = {"width": 8, "n_layers": 1, "n_heads": 2, "pair_width": 6, "n_radial": 5, "n_tensors": 3}


def config_of(**data: Any) -> RunConfig:
    train = {"n_steps": 3, "batch_size": 3, "warmup_steps": 1, "validate_every": 3, "device": "cpu"}
    sizes = {"n_train": 17, "n_validation": 5}
    return validated_config({"data": sizes | data, "model": TINY_MODEL, "train": train}, origin="test")


@pytest.fixture(scope="module")
def stretched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Geometries of ethanol with stretched bonds; what is tested here does not look at the values of their labels."""
    made, _ = stretched_bonds(read_frames("rmd17/ethanol/train-01").select(range(20)), n_stretched=2, seed=0)
    rng = np.random.default_rng(0)
    energies = -4205.0 + rng.normal(size=len(made))
    labelled = replace(made, energy=energies, forces=rng.normal(size=made.positions.shape))
    path = tmp_path_factory.mktemp("stretched") / "stretched.npz"
    write_frames(labelled, path, provenance={})
    return path


def test_a_trained_potential_has_the_isolated_atoms(tmp_path: Path) -> None:
    """To the last bit, for every element, after training, saving and loading, in single precision."""
    train_potential(config_of(molecule="ethanol"), run_dir=tmp_path, progress=False)
    atoms = packaged_isolated_atoms("rmd17/ethanol/train-01")
    assert atoms is not None
    potential = load_potential(tmp_path / "potential.pt")
    calculator = RemulCalculator(potential, allow_unseen=True, device="cpu")
    for symbol, number in (("H", 1), ("C", 6), ("O", 8)):
        atom = Atoms(symbol, calculator=calculator)
        assert atom.get_potential_energy() == pytest.approx(atoms.energies_eV[number], abs=1e-10)
    assert potential.provenance.data["isolated_atoms"] == atoms.to_json()


def test_fine_tuning_keeps_the_totals_and_has_the_isolated_atoms(tmp_path: Path) -> None:
    """Another level of theory: all energies shifted, atoms of its own; the network begins with the same forces."""
    train_potential(config_of(molecule="ethanol"), run_dir=tmp_path / "a", progress=False)
    frames = read_frames("rmd17/ethanol/train-01")
    assert frames.energy is not None
    write_frames(replace(frames, energy=frames.energy + 40.0), tmp_path / "other.npz", provenance={})
    write(tmp_path / "atoms.xyz", [_atom("H", -10.0), _atom("C", -1020.0), _atom("O", -2030.0)])
    config = config_of(source=str(tmp_path / "other.npz"), isolated_atoms=str(tmp_path / "atoms.xyz"))
    origin = load_potential(tmp_path / "a" / "potential.pt")
    prepared = prepare_training(config, origin=origin)
    counts = np.array([6.0, 2.0, 1.0])
    assert counts @ prepared.reference_energies.numpy() == pytest.approx(
        counts @ origin.reference_energies.numpy() + 40.0, abs=0.2
    )
    isolated = prepared.reference_energies.numpy() - prepared.model.binding.numpy().astype(np.float64)
    np.testing.assert_allclose(isolated, [-10.0, -1020.0, -2030.0], rtol=0, atol=1e-9)


def _atom(symbol: str, energy: float) -> Atoms:
    atom = Atoms(symbol)
    atom.calc = SinglePointCalculator(atom, energy=energy)
    return atom


def test_stretched_bonds_are_trained_on_and_belong_to_no_domain(tmp_path: Path, stretched: Path) -> None:
    plain = prepare_training(config_of(molecule="ethanol"))
    prepared = prepare_training(config_of(molecule="ethanol", stretched=str(stretched)))
    further = read_frames(stretched, allow_implausible=True, energy_unit="eV")
    assert [b.n_systems for b in (plain.batches(4), prepared.batches(4))] == [3, 3 + 1]
    assert torch.equal(prepared.batches(4).positions[:27], plain.batches(4).positions)
    drawn = [prepared.batches(step).positions[27:].numpy() for step in range(25)]  # each of them once before any again
    made = further.positions.reshape(25, 9, 3)
    assert sorted(int(np.abs(made - one).max(axis=(1, 2)).argmin()) for one in drawn) == list(range(25))
    assert len(prepared.frames) == 17
    assert prepared.validation.n_systems == 5
    assert prepared.objective.force_scale == plain.objective.force_scale
    squeezed = shortest_distances(further)["H-O"]
    assert squeezed < 0.75
    assert prepared.model.reach[0, 2].item() == pytest.approx(REACH_FRACTION * squeezed, rel=1e-6)
    assert plain.model.reach[0, 2].item() > 0.65
    trained = train_potential(
        config_of(molecule="ethanol", stretched=str(stretched)), run_dir=tmp_path / "run", progress=False
    )
    assert trained.domain.distance_ranges["H-O"][0] > 0.8  # a broken bond is no part of it
    assert trained.provenance.data["stretched"]["n_frames"] == 25
    assert trained.provenance.config["data"]["stretched"] == "stretched.npz"


def test_a_run_goes_on_with_the_same_stretched_bonds_only(tmp_path: Path, stretched: Path) -> None:
    run = tmp_path / "run"
    train_potential(config_of(molecule="ethanol", stretched=str(stretched)), run_dir=run, progress=False)
    frames = read_frames(stretched, allow_implausible=True, energy_unit="eV")
    write_frames(frames.select(range(10)), tmp_path / "stretched.npz", provenance={})
    with pytest.raises(InputError):
        train_potential(
            config_of(molecule="ethanol", stretched=str(tmp_path / "stretched.npz")),
            run_dir=run,
            resume=True,
            progress=False,
        )


def test_stretched_bonds_of_another_molecule_are_refused(stretched: Path) -> None:
    with pytest.raises(InputError, match="frame 0 is C2H6O, the training frames are C6H6"):
        prepare_training(config_of(molecule="benzene", stretched=str(stretched)))


def test_packaged_stretched_bonds_go_by_the_name_of_their_molecule(tmp_path: Path) -> None:
    """Their energies rise with the length, against the mean of the training frames, to what a broken bond costs."""
    prepared = prepare_training(config_of(molecule="ethanol", stretched="ethanol"))
    assert prepared.stretched is not None
    assert prepared.stretched.energy is not None
    lengths = [np.log(d) for d in _stretch(prepared.stretched)]
    above = prepared.stretched.energy - read_frames("rmd17/ethanol/train-01").energy.mean()
    longest, thermal = np.argsort(lengths)[-5:], np.argsort(np.abs(lengths))[:10]
    assert (above[longest] > 3.0).all()
    assert (above[longest] < 6.0).all()
    assert np.median(above[thermal]) < 1.2
    train = prepare_training(config_of(molecule="ethanol"))
    assert train.objective.highest_energy is None
    highest = prepared.objective.highest_energy
    assert highest is not None
    energies = read_frames("rmd17/ethanol/train-01").select(prepared.split.train).energy
    assert energies is not None
    # Energies of labels less that of the atoms, which one molecule has once.
    assert highest - float(prepared.batches(0).energy[0]) == pytest.approx(
        energies.max() - energies[frame_order(0, n_frames=17, batch_size=3, seed=0)[0]], abs=1e-3
    )
    with pytest.raises(InputError, match="is no file, and the package has those of"):
        prepare_training(config_of(molecule="ethanol", stretched="ethanl"))


def _stretch(frames: Frames) -> list[float]:
    """Of each frame the ratio to its usual length of the bond that is farthest from it."""
    numbers = frames.frame_numbers(0)
    reference = read_frames("rmd17/ethanol/train-01")
    bonds = bond_pairs(numbers, reference.frame_positions(0))
    usual = bond_lengths(reference.positions.reshape(-1, 9, 3), bonds).mean(axis=0)
    ratios = bond_lengths(frames.positions.reshape(-1, 9, 3), bonds) / usual
    return [row[np.argmax(np.abs(np.log(row)))] for row in ratios]


def test_atoms_that_lack_an_element_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "atoms.xyz", [_atom("H", -10.0), _atom("C", -1020.0)])
    with pytest.raises(InputError, match="no isolated atom of O"):
        prepare_training(config_of(molecule="ethanol", isolated_atoms=str(tmp_path / "atoms.xyz")))
