"""Energies held against forces: no complaint about labels that belong together, each mistake found and named."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.cluster import Octahedron
from ase.md.langevin import Langevin

from remul_md.datasets import read_frames, write_frames
from remul_md.datasets.agreement import label_agreement
from remul_md.datasets.structure_source import PACKAGED_MOLECULES
from remul_md.labels.sources import label_source
from remul_md.structures.frames import Frames, frames_from_atoms, joined

Run = Callable[..., tuple[int, str, str]]
KCAL, HARTREE, BOHR = 0.0433641039, 27.211386, 0.529177


def dynamics(atoms: Atoms, *, temperature_K: float, interval_fs: float, timestep_fs: float, n: int = 60) -> Frames:
    """Frames of Langevin dynamics, after 30 steps."""
    rng = np.random.default_rng(5)
    width = np.sqrt(atoms.get_masses() * units.kB * temperature_K)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * width[:, None])
    run = Langevin(
        atoms, timestep_fs * units.fs, temperature_K=temperature_K, friction=0.01 / units.fs, fixcm=False, rng=rng
    )
    run.run(30)
    structures, energies, forces = [], [], []
    for _ in range(n):
        run.run(round(interval_fs / timestep_fs))
        structures.append(atoms.copy())
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces().copy())
    frames = frames_from_atoms(structures, name="run")
    return replace(frames, energy=np.array(energies), forces=np.concatenate(forces))


def run_of(name: str) -> Frames:
    """60 frames of a molecule, of a cluster, of a crystal."""
    if name == "GFN2":
        atoms = molecule("CH3CH2OH")
        atoms.calc = label_source("xtb").make()
        return dynamics(atoms, temperature_K=300.0, interval_fs=20.0, timestep_fs=1.0)
    atoms = Octahedron("Cu", 3, cutoff=1) if name == "EMT cluster" else bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.calc = EMT()
    return dynamics(atoms, temperature_K=300.0, interval_fs=20.0, timestep_fs=2.0)


RUNS = ["EMT cluster", "EMT crystal", "GFN2"]
cached_run = cache(run_of)


def scaled(frames: Frames, *, energy: float = 1.0, forces: float = 1.0) -> Frames:
    assert frames.energy is not None
    assert frames.forces is not None
    return replace(frames, energy=energy * frames.energy, forces=forces * frames.forces)


@pytest.mark.parametrize("name", PACKAGED_MOLECULES)
def test_no_complaint_about_the_packaged_sets(name: str) -> None:
    """Whole in under a second; and 50 frames of them, which are far from each other."""
    frames = read_frames(f"rmd17/{name}/train-01")
    started = time.process_time()
    found = label_agreement(frames)
    assert time.process_time() - started < 1.0
    assert found is not None
    assert not found.complaint
    assert found.ratio == pytest.approx(1.0, abs=0.1)
    assert found.correlation > 0.9
    for first in range(20):
        some = label_agreement(frames.select(np.arange(first, 1000, 20)))
        assert some is None or not some.complaint, first


@pytest.mark.parametrize("name", RUNS)
def test_no_complaint_about_runs(name: str) -> None:
    if name == "GFN2":
        pytest.importorskip("tblite", reason='needs tblite (pip install "remul-md[xtb]")')
    found = label_agreement(cached_run(name))
    assert found is not None
    assert not found.complaint
    assert found.ratio == pytest.approx(1.0, abs=0.15)


MISTAKES = {
    "wrong sign": (1.0, -1.0),
    "energies in kcal/mol": (1 / KCAL, 1.0),
    "forces in kcal/mol/Angstrom": (1.0, 1 / KCAL),
    "energies in Hartree": (1 / HARTREE, 1.0),
    "forces in Hartree/Bohr": (1.0, BOHR / HARTREE),
    "forces per Bohr": (1.0, BOHR),
    "positions in Bohr": (1.0, 1 / BOHR),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", RUNS)
def test_mistakes_in_60_frames_are_found_and_named(name: str, mistake: str) -> None:
    if name == "GFN2":
        pytest.importorskip("tblite", reason='needs tblite (pip install "remul-md[xtb]")')
    energy, forces = MISTAKES[mistake]
    found = label_agreement(scaled(cached_run(name), energy=energy, forces=forces))
    assert found is not None
    assert mistake in found.complaint


def test_two_mistakes_and_energies_per_atom() -> None:
    frames = cached_run("EMT cluster")
    found = label_agreement(scaled(frames, energy=-1 / KCAL))
    assert found is not None
    assert "wrong sign" in found.complaint
    assert "energies in kcal/mol" in found.complaint
    found = label_agreement(scaled(frames, energy=1 / 13))
    assert found is not None
    assert "energies per atom (13 of them)" in found.complaint


def test_labels_of_other_frames_are_found() -> None:
    frames = read_frames("rmd17/toluene/train-01")
    assert frames.energy is not None
    found = label_agreement(replace(frames, energy=np.random.default_rng(1).permutation(frames.energy)))
    assert found is not None
    assert "energies do not follow the forces" in found.complaint


def test_orientation_copies_and_other_molecules_do_not_matter() -> None:
    """Each frame rotated at random gives the same figures; copies and a frame of another molecule change nothing."""
    from scipy.spatial.transform import Rotation

    frames = cached_run("EMT cluster")
    assert frames.forces is not None
    turns = np.repeat(Rotation.random(60, random_state=3).as_matrix(), 13, axis=0)
    rotated = replace(
        frames,
        positions=np.einsum("aij,aj->ai", turns, frames.positions),
        forces=np.einsum("aij,aj->ai", turns, frames.forces),
    )
    plain, found = label_agreement(frames), label_agreement(rotated)
    assert plain is not None
    assert found is not None
    assert (found.ratio, found.correlation) == pytest.approx((plain.ratio, plain.correlation), rel=1e-6)
    other = read_frames("rmd17/ethanol/train-01").select([0])
    assert label_agreement(joined([other, frames], name="both")) is not None
    doubled = label_agreement(joined([frames, frames], name="doubled"))
    assert doubled is not None
    assert doubled.ratio == pytest.approx(plain.ratio, rel=0.1)


def test_what_cannot_be_told() -> None:
    frames = cached_run("EMT cluster")
    assert label_agreement(replace(frames, energy=None)) is None
    assert label_agreement(frames.select(range(8))) is None
    assert label_agreement(scaled(frames, forces=0.0)) is None
    assert label_agreement(frames.select([0] * 30)) is None
    single = [Atoms("H", positions=[[0.0, 0.0, index]]) for index in range(20)]
    lone = replace(frames_from_atoms(single), energy=np.arange(20.0), forces=np.zeros((20, 3)))
    assert label_agreement(lone) is None


def test_the_commands_say_it(tmp_path: Path, cli: Run, caplog: pytest.LogCaptureFixture) -> None:
    data = tmp_path / "gradients.extxyz"
    write_frames(scaled(cached_run("EMT cluster"), forces=-1.0), data, provenance={})
    code, out, err = cli("data", "show", data)
    assert code == 0, err
    assert "the forces have the wrong sign" in out
    options = ["n_train=40", "n_validation=5"]
    train = ["train.n_steps=1", "train.warmup_steps=0", "model.width=16", "model.n_layers=1", "model.n_heads=2"]
    sets = [f"data.source={data}", *(f"data.{option}" for option in options), *train]
    code, _, err = cli("train", "--run-dir", tmp_path / "run", *(word for each in sets for word in ("--set", each)))
    assert code == 0, err
    assert "gradients.extxyz: energies and forces contradict each other" in caplog.text


def test_forces_that_are_all_zero_are_called_so(tmp_path: Path, cli: Run) -> None:
    data = tmp_path / "zero.extxyz"
    write_frames(scaled(cached_run("EMT cluster"), forces=0.0), data, provenance={})
    sets = [f"data.source={data}", "data.n_train=40", "data.n_validation=5"]
    code, _, err = cli("train", "--run-dir", tmp_path / "run", *(word for each in sets for word in ("--set", each)))
    assert code == 2
    assert "the forces on all atoms of 40 training frames are zero" in err
    assert "energy_scale" not in err
