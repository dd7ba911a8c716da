"""Runs compared with data and with each other, in memory and from files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from analysis_runs import ethanol_run
from ase import Atoms
from ase.build import molecule
from spring_molecule import spring_molecule

from remul_md.analysis.comparison import compare_files, compare_structures, open_geometries, write_comparison_png
from remul_md.datasets import read_frames
from remul_md.errors import InputError


def shaken(n_frames: int, *, amplitude: float, seed: int) -> np.ndarray:
    atoms = molecule("CH3CH2OH")
    return atoms.positions + np.random.default_rng(seed).normal(scale=amplitude, size=(n_frames, 9, 3))


NUMBERS = molecule("CH3CH2OH").numbers


def test_samples_of_one_law_differ_by_their_sampling():
    found = compare_structures(
        shaken(700, amplitude=0.04, seed=1), shaken(500, amplitude=0.04, seed=2), atomic_numbers=NUMBERS
    )
    assert found.gaps[0].name == "pair distances"
    assert found.pair_distance_mae < 0.1
    assert found.pair_distance_mae == pytest.approx(found.gaps[0].sampling, rel=0.3)
    assert found.verdict.passed is True
    assert found.n_frames == (700, 500)


def test_a_stretched_bond_is_found_where_it_is():
    reference, moved = shaken(400, amplitude=0.02, seed=1), shaken(500, amplitude=0.02, seed=2)
    oxygen = int(np.flatnonzero(NUMBERS == 8)[0])
    hydrogens = np.flatnonzero(NUMBERS == 1)
    first = molecule("CH3CH2OH").positions
    hydroxyl = hydrogens[np.argmin(np.linalg.norm(first[hydrogens] - first[oxygen], axis=1))]
    moved[:, hydroxyl] += 0.1 * (first[hydroxyl] - first[oxygen]) / np.linalg.norm(first[hydroxyl] - first[oxygen])
    found = {gap.name: gap for gap in compare_structures(moved, reference, atomic_numbers=NUMBERS).gaps}
    assert found["bond H-O"].mean_difference == pytest.approx(0.1, abs=0.005)
    assert found["bond H-O"].gap > 1.5
    assert found["bond C-H"].gap < 0.2
    assert found["bond C-H"].mean_difference == pytest.approx(0.0, abs=0.005)


def test_another_structure_fails_and_too_few_frames_cannot_tell():
    reference = shaken(300, amplitude=0.04, seed=0)
    wider = compare_structures(shaken(300, amplitude=0.12, seed=1), reference, atomic_numbers=NUMBERS)
    assert wider.verdict.passed is False
    assert wider.verdict.value == wider.pair_distance_mae > 0.1
    short = compare_structures(shaken(3, amplitude=0.04, seed=1), reference, atomic_numbers=NUMBERS)
    assert short.verdict.passed is None
    assert "Too few frames to tell" in short.verdict.why
    one = compare_structures(shaken(1, amplitude=0.04, seed=1), reference, atomic_numbers=NUMBERS)
    assert one.verdict.passed is None
    assert json.loads(json.dumps(one.to_json(), allow_nan=False))["h_r_mae_from_sampling"] is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ethanol_run(tmp_path_factory.mktemp("run"), tilted=False, length_ps=0.3, equilibrate_ps=0.0)


def test_a_run_against_itself_and_against_data(run: Path, tmp_path: Path):
    same = compare_files(run, run)
    assert same.pair_distance_mae == 0.0
    assert all(gap.gap == 0.0 for gap in same.gaps)
    numbers = spring_molecule("CH3CH2OH").numbers
    read = open_geometries(run)
    np.testing.assert_array_equal(read.atomic_numbers, numbers)
    positions = np.concatenate(list(read.blocks()))
    assert len(positions) == read.n_frames == 61
    frames = [Atoms(numbers, positions=frame) for frame in positions[::2]]
    ase.io.write(tmp_path / "half.xyz", frames, format="extxyz")
    half = compare_files(run, tmp_path / "half.xyz")
    assert half.n_frames == (61, 31)
    assert 0.0 < half.pair_distance_mae < 0.3
    write_comparison_png(half, tmp_path / "new" / "picture.png", labels=("run", "half of it"))
    assert (tmp_path / "new" / "picture.png").stat().st_size > 20000
    with pytest.raises(InputError, match="cannot be written"):
        write_comparison_png(half, tmp_path / "picture.words", labels=("run", "half of it"))


def test_a_long_run_is_read_some_frames_at_a_time(tmp_path: Path):
    frames = shaken(700, amplitude=0.05, seed=4)
    run = [Atoms(NUMBERS, positions=frame, info={"time_ps": 1e-3 * number}) for number, frame in enumerate(frames)]
    ase.io.write(tmp_path / "long.traj", run)
    blocks = list(open_geometries(tmp_path / "long.traj").blocks())
    assert sum(len(block) for block in blocks) == 700
    assert max(len(block) for block in blocks) <= 256
    reference = shaken(90, amplitude=0.05, seed=5)
    ase.io.write(tmp_path / "other.xyz", [Atoms(NUMBERS, positions=frame) for frame in reference], format="extxyz")
    found = compare_files(tmp_path / "long.traj", tmp_path / "other.xyz")
    at_once = next(open_geometries(tmp_path / "other.xyz").blocks())
    wanted = compare_structures(frames, at_once, atomic_numbers=NUMBERS)
    assert found.n_frames == wanted.n_frames == (700, 90)
    for gap, expected in zip(found.gaps, wanted.gaps, strict=True):
        assert (gap.name, gap.gap, gap.sampling) == (expected.name, expected.gap, expected.sampling)
        assert gap.mean_difference == pytest.approx(expected.mean_difference, abs=1e-12)


def test_packaged_data_is_read_with_its_dihedrals():
    read = open_geometries("rmd17/ethanol/test-01")
    numbers, positions = read.atomic_numbers, next(read.blocks())
    assert positions.shape == (1000, 9, 3)
    found = compare_structures(positions[:500], positions[500:], atomic_numbers=numbers)
    assert found.pair_distance_mae == pytest.approx(found.gaps[0].sampling, rel=0.3)  # random frames of one run
    names = {gap.name for gap in found.gaps}
    assert {"bond C-C", "bond C-O", "angle C-C-O", "dihedral C-C-O-H", "dihedral H-C-C-O"} <= names
    bond = found.one["bond C-O"]
    assert bond.mean == pytest.approx(1.44, abs=0.02)  # PBE ethanol


def test_the_same_molecule_in_another_order_is_compared_atom_by_atom(run: Path, tmp_path: Path):
    frames = ase.io.read(run, index="::2")
    for name, order in (("same.xyz", np.arange(9)), ("mixed.xyz", np.array([4, 1, 8, 0, 6, 2, 7, 3, 5]))):
        plain = [Atoms(frame.numbers[order], positions=frame.positions[order]) for frame in frames]
        ase.io.write(tmp_path / name, plain, format="extxyz")
    expected, found = (compare_files(run, tmp_path / name) for name in ("same.xyz", "mixed.xyz"))
    assert {gap.name: gap.gap for gap in found.gaps} == pytest.approx({gap.name: gap.gap for gap in expected.gaps})


def test_other_temperatures_are_told(run: Path, tmp_path: Path):
    (note,) = compare_files(run, "rmd17/ethanol/test-01").notes
    found = re.search(r"temperatures differ: .* is at (\d+) K, rmd17/ethanol/test-01 at 500 K", note)
    assert found is not None, note
    assert 150 < int(found[1]) < 400
    assert compare_files(run, run).notes == ()
    again = tmp_path / "again.traj"
    again.write_bytes(run.read_bytes())
    assert compare_files(run, again).notes == ()
    ase.io.write(tmp_path / "unknown.xyz", [Atoms(frame.numbers, frame.positions) for frame in ase.io.read(run, ":5")])
    (note,) = compare_files(run, tmp_path / "unknown.xyz").notes
    assert "unknown.xyz is not known" in note


def test_what_cannot_be_compared_is_refused(run: Path, tmp_path: Path):
    with pytest.raises(InputError, match="not one molecule"):
        compare_files(run, "rmd17/aspirin/test-01")
    with pytest.raises(InputError, match=r"must be \[T, N, 3\] and \[S, N, 3\]"):
        compare_structures(np.zeros((4, 9, 3)), np.zeros((4, 8, 3)), atomic_numbers=NUMBERS)
    with pytest.raises(InputError, match=r"must be > 0, got 0\.0"):
        compare_structures(np.zeros((4, 9, 3)), np.zeros((4, 9, 3)), atomic_numbers=NUMBERS, bound=0.0)
    mixed = [molecule("CH4"), molecule("CH3CH2OH")]
    ase.io.write(tmp_path / "mixed.xyz", mixed, format="extxyz")
    with pytest.raises(InputError, match="not of one molecule in one order"):
        open_geometries(tmp_path / "mixed.xyz")
    crystal = Atoms("Ar2", positions=[[0.0, 0.0, 0.0], [2.6, 2.6, 0.0]], cell=[5.2] * 3, pbc=True)
    ase.io.write(tmp_path / "crystal.xyz", [crystal] * 2, format="extxyz")
    with pytest.raises(InputError, match="is periodic"):
        open_geometries(tmp_path / "crystal.xyz")
    assert len(read_frames("rmd17/ethanol/test-01")) == 1000
