"""Geometries around given ones with cheap labels: what they are, where they start, and that a kill changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from cheap_springs import MOLECULE, reference_file, stiff_springs
from spring_molecule import SpringMolecule, spring_molecule

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.labels.sampling import sample_labels, walk_from
from remul_md.labels.sources import LabelSource, label_source
from remul_md.structures.frames import Frames


@pytest.fixture(scope="module")
def initial_structures(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return read_frames(reference_file(tmp_path_factory.mktemp("data") / "frames.xyz", n_frames=7))


def source_of(make: Callable[[], Any], *, name: str = "springs") -> LabelSource:
    return LabelSource(name=name, version="1.0", make=make)


def sample(
    initial_structures: Frames, path: Path, *, source: LabelSource | None = None, **options: Any
) -> tuple[Frames, Any]:
    settings = {"n_labels": 105, "temperature_K": 700.0, "seed": 0} | options
    return sample_labels(initial_structures, source or source_of(stiff_springs), path=path, **settings)


def test_labels_are_those_of_the_calculator_in_our_units(initial_structures: Frames, tmp_path: Path) -> None:
    """Also as they are read back from the file, which is an ordinary data file with float64 energies."""
    labels, record = sample(initial_structures, tmp_path / "labels.npz")
    back = read_frames(tmp_path / "labels.npz", require=("energy", "forces"))
    for frames in (labels, back):
        assert len(frames) == 105
        assert frames.energy is not None
        assert frames.forces is not None
        for index in (0, 19, 20, 104):
            atoms = frames.atoms(index)
            atoms.calc = stiff_springs()
            forces = frames.forces[6 * index : 6 * index + 6]
            assert frames.energy[index] == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
            np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-12)
    assert back.content_hash() == labels.content_hash()
    assert np.load(tmp_path / "labels.npz")["E"].dtype == np.float64
    assert len(np.unique(labels.energy)) == 105  # no geometry twice
    assert (record["method"], record["calculator"], record["n_labels"], record["n_walks"]) == ("springs", "1.0", 105, 6)
    assert record["initial_structures_sha256"] == replace(initial_structures, energy=None, forces=None).content_hash()
    assert record["seconds"] > 0.0


def test_every_start_comes_once_before_any_comes_again(initial_structures: Frames, tmp_path: Path) -> None:
    began: list[np.ndarray] = []

    class Noted(SpringMolecule):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            if not hasattr(self, "noted"):
                self.noted = True
                began.append(self.atoms.get_positions())

    sample(
        initial_structures,
        tmp_path / "labels.npz",
        source=source_of(lambda: Noted(spring_molecule(MOLECULE))),
        n_labels=2 * 7 * 20,
    )
    assert len(began) == 14
    for half in (began[:7], began[7:]):
        found = {positions.tobytes() for positions in half}
        assert found == {initial_structures.frame_positions(index).tobytes() for index in range(7)}
    assert [positions.tobytes() for positions in began[:7]] != [positions.tobytes() for positions in began[7:]]


def test_the_seed_decides_the_geometries(initial_structures: Frames, tmp_path: Path) -> None:
    runs = (("a", 3), ("b", 3), ("c", 4))
    hashes = [sample(initial_structures, tmp_path / f"{name}.npz", seed=seed)[0].content_hash() for name, seed in runs]
    assert hashes[0] == hashes[1] != hashes[2]


def test_walks_from_one_start_are_unlike(initial_structures: Frames, tmp_path: Path) -> None:
    labels, _ = sample(initial_structures.select([2]), tmp_path / "labels.npz", n_labels=60)
    assert len(np.unique(labels.energy)) == 60


def test_a_stopped_sampling_goes_on_with_the_same_geometries(
    initial_structures: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remul_md.labels.sampling.SAVE_INTERVAL_S", 0.0)
    whole, record = sample(initial_structures, tmp_path / "whole.npz")
    n_calculators = 0

    def stopped_at(last: int) -> Callable[[], Calculator]:
        def make() -> Calculator:
            nonlocal n_calculators
            n_calculators += 1
            if n_calculators == last:
                raise KeyboardInterrupt
            return stiff_springs()

        return make

    cut = tmp_path / "cut.npz"
    for last, n_kept in ((4, 60), (2, 80)):  # in the fourth walk, then in the second after it
        n_calculators = 0
        with pytest.raises(KeyboardInterrupt):
            sample(initial_structures, cut, source=source_of(stopped_at(last)))
        assert len(read_frames(cut)) == n_kept
    n_calculators = 0
    resumed, resumed_record = sample(initial_structures, cut, source=source_of(stopped_at(99)))
    assert n_calculators == 2  # the last two walks of six
    assert resumed.content_hash() == whole.content_hash()
    assert {**resumed_record, "seconds": 0.0} == {**record, "seconds": 0.0}
    n_calculators = 0
    again, _ = sample(initial_structures, cut, source=source_of(stopped_at(1)))  # complete: nothing is calculated
    assert again.content_hash() == whole.content_hash()


def test_labels_of_other_options_are_not_mixed(initial_structures: Frames, tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    sample(initial_structures, path, n_labels=40)
    for options, message in (
        ({"temperature_K": 300.0}, r"labels.npz: holds other labels: temperature_K was 700.0, now 300.0; remove it"),
        ({"source": source_of(stiff_springs, name="steel")}, r"method was 'springs', now 'steel'"),
    ):
        with pytest.raises(InputError, match=message):
            sample(initial_structures, path, **({"n_labels": 40} | options))
    with pytest.raises(InputError, match=r"holds other labels: initial_structures_sha256 was "):
        sample(initial_structures.select(range(6)), path, n_labels=40)


@pytest.mark.slow
def test_walks_have_the_temperature_asked_for() -> None:
    """Stretches of stiff bonds are nearly harmonic: their mean energy is proportional to the temperature."""
    means = []
    for temperature in (200.0, 800.0):
        energies = []
        for number in range(30):
            atoms = spring_molecule(MOLECULE)
            rng = np.random.default_rng([5, number])
            walk = walk_from(atoms, temperature_K=temperature, n_labels=20, rng=rng)
            energies.append(walk.energy[8:])  # the first 40 fs warm the relaxed molecule up
            assert walk.ended == ""
        means.append(np.mean(energies))
    assert means[1] / means[0] == pytest.approx(4.0, rel=0.25)


class NoForces(Calculator):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}


def test_free_atoms_move_as_langevin_dynamics_says() -> None:
    """<x^2> = 2 kT/(m g^2) (g t - 1 + exp(-g t)) of each component: first ballistic, then held back by friction."""
    atoms = Atoms("Cu400", positions=np.arange(1200.0).reshape(400, 3) * 4.0, calculator=NoForces())
    start = atoms.get_positions()
    walk = walk_from(atoms, temperature_K=900.0, n_labels=20, rng=np.random.default_rng(1))
    kT_over_m = 8.617333e-5 * 900.0 / 63.546 * 9.64853e-3  # Angstrom^2/fs^2
    for label, time_fs in ((0, 5.0), (19, 100.0)):
        decay = 0.02 * time_fs
        expected = 2.0 * kT_over_m / 0.02**2 * (decay - 1.0 + np.exp(-decay))
        assert np.square(walk.positions[label] - start).mean() == pytest.approx(expected, rel=0.15)


class Faulty(SpringMolecule):
    """Fails in one of several ways from a call on."""

    def __init__(self, fault: str, *, first: int) -> None:
        super().__init__(spring_molecule(MOLECULE))
        self.fault, self.first, self.n_calls = fault, first, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.n_calls += 1
        if self.n_calls < self.first:
            return
        if self.fault == "failed":
            raise CalculationFailed("no convergence")
        if self.fault == "bug":
            raise ZeroDivisionError("planted")
        if self.fault == "nan":
            self.results["forces"][2, 1] = np.nan
        if self.fault == "broken":  # oxygen and its hydrogen fly apart
            bond = self.atoms.positions[3] - self.atoms.positions[1]
            self.results["forces"][3] += 300.0 * bond
            self.results["forces"][1] -= 300.0 * bond


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("failed", "CalculationFailed: no convergence"),
        ("nan", "energy or forces are not finite"),
        ("broken", "a bond broke"),
    ],
)
def test_a_walk_ends_where_the_method_does(fault: str, reason: str) -> None:
    atoms = spring_molecule(MOLECULE)
    atoms.calc = Faulty(fault, first=33)  # 1 at the start, 5 for each label: in the seventh
    walk = walk_from(atoms, temperature_K=500.0, n_labels=20, rng=np.random.default_rng(0))
    assert walk.ended == reason
    assert 6 <= len(walk.energy) <= 10
    assert len(walk.positions) == len(walk.forces) == len(walk.energy)
    assert np.isfinite(walk.forces).all()


def test_ended_walks_are_counted_and_made_up_for(
    initial_structures: Frames, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    n_made = 0

    def make() -> Calculator:
        nonlocal n_made
        n_made += 1
        return Faulty("failed", first=1 if n_made % 3 == 0 else 14 if n_made % 3 == 1 else 10**6)

    labels, record = sample(initial_structures, tmp_path / "labels.npz", source=source_of(make), n_labels=60)
    # Walks of 2, 20, 0, 2, 20, 0, ... labels.
    assert record["n_walks"] == n_made == 8
    assert len(labels) == 60
    assert "springs: 5 of 8 walks ended early: CalculationFailed: no convergence" in caplog.text


def test_a_method_that_cannot_do_the_molecule(initial_structures: Frames, tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    message = r"springs labelled no geometry in 10 walks from frames.xyz, the last ended with: .* no convergence; try"
    with pytest.raises(InputError, match=message):
        sample(initial_structures, path, source=source_of(lambda: Faulty("failed", first=1)))
    with pytest.raises(InputError, match=r"failed on CH4O \(ZeroDivisionError: planted\)"):
        sample(initial_structures, path, source=source_of(lambda: Faulty("bug", first=1)))
    assert not path.exists()


def test_only_one_isolated_molecule(initial_structures: Frames, tmp_path: Path) -> None:
    swapped = initial_structures.atomic_numbers.copy()
    swapped[-6:] = swapped[-6:][::-1]
    for frames, message in (
        (replace(initial_structures, atomic_numbers=swapped), "frames 0 and 6 differ in their atoms or in their order"),
        (
            replace(initial_structures, cell=np.tile(9.0 * np.eye(3), (7, 1, 1))),
            "frames.xyz: has cells; labels are sampled for",
        ),
    ):
        with pytest.raises(InputError, match=message):
            sample(frames, tmp_path / "labels.npz")


def test_one_thread_and_the_others_come_back(initial_structures: Frames, tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), []

    def make() -> Calculator:
        seen.append(torch.get_num_threads())
        return stiff_springs()

    try:
        torch.set_num_threads(2)
        sample(initial_structures, tmp_path / "labels.npz", source=source_of(make), n_labels=20)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_gfn2_xtb_around_ethanol(tmp_path: Path) -> None:
    """Two walks: labels are those of a calculator without a past, up to the tolerance of its charges."""
    pytest.importorskip("tblite.ase", reason='needs tblite (pip install "remul-md[xtb]")')
    source, frames = label_source("xtb"), read_frames("rmd17/ethanol/train-01").select(range(2))
    labels, record = sample(frames, tmp_path / "labels.npz", source=source, n_labels=40)
    again, _ = sample(frames, tmp_path / "again.npz", source=source, n_labels=40)
    assert again.content_hash() == labels.content_hash()
    assert record["calculator"] == source.version
    assert labels.energy is not None
    assert labels.forces is not None
    for index in (0, 39):
        atoms = labels.atoms(index)
        atoms.calc = source.make()
        assert labels.energy[index] == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(labels.forces[9 * index : 9 * index + 9], atoms.get_forces(), rtol=0, atol=2e-3)
    assert np.sqrt(np.square(labels.forces).mean()) > 0.5
