"""The ASE calculator: right forces, no needless call, bad structures refused, and ASE's own tools on top of it."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from potentials import untrained_potential

from remul_md import RemulCalculator
from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.potentials.potential import Potential
from remul_md.structures.frames import Frames, frames_from_atoms
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import symmetrizing_rotations


def ethanol() -> Atoms:
    """Ethanol as training would show it, slightly off its minimum and in no special orientation."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.03, seed=4)
    atoms.rotate(33.0, (1.0, -0.4, 2.0))
    return atoms


def potential_for(*structures: Atoms, **options: Any) -> Potential:
    """A potential around a random model whose energies span about 1 eV, so that ASE's tools take sane steps."""
    frames = frames_from_atoms(list(structures) or [ethanol()])
    return untrained_potential(frames, **{"cutoff": 4.5, "energy_scale": 0.3} | options)


@pytest.fixture
def potential() -> Potential:
    return potential_for()


@pytest.fixture
def calc(potential: Potential) -> RemulCalculator:
    return RemulCalculator(potential, device="cpu", dtype="float64")


@pytest.fixture
def atoms(calc: RemulCalculator) -> Atoms:
    structure = ethanol()
    structure.calc = calc
    return structure


@pytest.fixture
def calls(calc: RemulCalculator) -> Iterator[list[int]]:
    """Number of systems in every call of the model."""
    seen: list[int] = []
    handle = calc.potential.model.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].n_systems))
    yield seen
    handle.remove()


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def numeric_forces(atoms: Atoms, calc: RemulCalculator, *, step: float = 1e-4) -> np.ndarray:
    """Minus the central difference of the energy for every coordinate, eV/Angstrom."""
    forces = np.zeros((len(atoms), 3))
    for index in np.ndindex(forces.shape):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[index] += sign * step
            energies.append(calc.get_potential_energy(moved))
        forces[index] = -(energies[0] - energies[1]) / (2.0 * step)
    return forces


def test_results_have_ase_shapes_and_types(atoms: Atoms) -> None:
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert isinstance(energy, float)
    assert forces.shape == (9, 3)
    assert forces.dtype == np.float64
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert set(atoms.calc.results) == {"energy", "free_energy", "forces"}


def test_float32_results_are_float64_arrays(potential: Potential) -> None:
    atoms = ethanol()
    atoms.calc = RemulCalculator(potential, device="cpu")
    assert atoms.get_forces().dtype == np.float64


def test_forces_are_minus_the_derivative_of_the_energy(atoms: Atoms, calc: RemulCalculator) -> None:
    forces = atoms.get_forces()
    assert rms(forces) > 1e-2
    assert np.abs(forces - numeric_forces(atoms, calc)).max() < 2e-6 * rms(forces)


def test_the_calculator_gives_what_the_model_gives(atoms: Atoms, calc: RemulCalculator) -> None:
    batch = build_batch(frames_from_atoms([atoms]), cutoff=calc.potential.cutoff)
    out = calc.potential.predict(batch, forces="conservative")
    assert out.energy is not None
    assert out.forces is not None
    assert atoms.get_potential_energy() == out.energy.item()
    np.testing.assert_array_equal(atoms.get_forces(), out.forces.numpy())


def test_a_file_gives_what_the_loaded_potential_gives(potential: Potential, tmp_path: Path) -> None:
    potential.save(tmp_path / "small.pt")
    from_file, loaded = ethanol(), ethanol()
    from_file.calc = RemulCalculator(tmp_path / "small.pt", device="cpu")
    loaded.calc = RemulCalculator(potential, device="cpu")
    np.testing.assert_array_equal(from_file.get_forces(), loaded.get_forces())


def test_nothing_is_computed_twice(atoms: Atoms, calls: list[int]) -> None:
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_potential_energy(force_consistent=True)
    assert calls == [1]
    atoms.set_momenta(np.ones((9, 3)))  # the potential does not see momenta, tags and partial charges
    atoms.set_tags(range(9))
    atoms.set_initial_charges(np.linspace(-0.4, 0.4, 9))
    atoms.get_forces()
    atoms.copy().get_positions()
    assert calls == [1]


@pytest.mark.filterwarnings("ignore:.*outside the training data")
def test_what_the_model_sees_is_computed_anew(calc: RemulCalculator, atoms: Atoms, calls: list[int]) -> None:
    first = atoms.get_potential_energy()
    atoms.positions[4, 1] += 0.01  # in place, past any setter
    second = atoms.get_potential_energy()
    assert (len(calls), second == first) == (2, False)
    atoms.numbers[[0, 8]] = atoms.numbers[[8, 0]]
    third = atoms.get_potential_energy()
    assert (len(calls), third == second) == (3, False)
    atoms.set_cell([11.0, 12.0, 13.0])
    assert (atoms.get_potential_energy(), len(calls)) == (third, 4)
    other = ethanol()
    other.calc = calc
    assert (other.get_potential_energy(), len(calls)) == (first, 5)


def test_pbc_is_part_of_the_state(atoms: Atoms) -> None:
    atoms.set_cell([11.0, 12.0, 13.0])
    atoms.get_potential_energy()
    atoms.pbc = (False, True, False)
    with pytest.raises(InputError, match=r"pbc is \[False, True, False\].*isolated"):
        atoms.get_potential_energy()
    atoms.pbc = False
    assert np.isfinite(atoms.get_potential_energy())


def test_results_are_not_aliased(atoms: Atoms, calls: list[int]) -> None:
    forces = atoms.get_forces()
    kept, before = forces.copy(), atoms.calc.results["forces"]
    forces[:] = 7.0
    np.testing.assert_array_equal(atoms.get_forces(), kept)
    atoms.positions[0, 0] += 0.02
    atoms.get_forces()
    np.testing.assert_array_equal(before, kept)  # the arrays of the step before are not overwritten
    assert len(calls) == 2


def test_the_structure_is_left_alone(atoms: Atoms) -> None:
    before = copy.deepcopy(atoms.arrays)
    atoms.get_forces()
    assert atoms.arrays.keys() == before.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(atoms.arrays[name], array)


def test_the_head_is_the_trained_one_or_refused() -> None:
    structure = ethanol()
    forces = {}
    for trained, asked in (("both", "direct"), ("both", "auto"), ("direct", "auto"), ("conservative", "auto")):
        calc = RemulCalculator(potential_for(trained_forces=trained), device="cpu", dtype="float64", forces=asked)  # type: ignore[arg-type]
        forces[trained, asked] = calc.get_forces(structure)
        expected = "direct" if "direct" in (trained, asked) else "conservative"
        told = {"forces": expected, "n_rotations": 1, "outside_training": (), "in_domain": True}
        assert calc.diagnostics == told
    np.testing.assert_array_equal(forces["both", "direct"], forces["direct", "auto"])
    np.testing.assert_array_equal(forces["both", "auto"], forces["conservative", "auto"])
    assert np.abs(forces["both", "direct"] - forces["both", "auto"]).max() > 1e-3
    with pytest.raises(InputError, match=r"forces='direct' .*trained for conserv"):
        RemulCalculator(potential_for(trained_forces="conservative"), device="cpu", forces="direct")


def group(name: str) -> np.ndarray:
    return symmetrizing_rotations(name).numpy()


@pytest.mark.parametrize(("name", "size"), [("tetrahedral", 12), ("octahedral", 24), ("icosahedral", 60)])
def test_averaging_over_a_group_makes_its_turns_exact(potential: Potential, name: str, size: int) -> None:
    structure = ethanol()
    plain = RemulCalculator(potential, device="cpu", dtype="float64")
    calc = RemulCalculator(potential, device="cpu", dtype="float64", symmetrize=name)  # type: ignore[arg-type]
    energy, forces = calc.get_potential_energy(structure), calc.get_forces(structure)
    assert calc.diagnostics["n_rotations"] == size == len(group(name))
    for rotation in group(name)[[1, size // 2, size - 1]]:
        rotated = structure.copy()
        rotated.positions = structure.positions @ rotation.T
        assert calc.get_potential_energy(rotated) == pytest.approx(energy, abs=1e-10)
        np.testing.assert_allclose(calc.get_forces(rotated), forces @ rotation.T, rtol=0, atol=1e-10)
        broken = plain.get_forces(rotated) - plain.get_forces(structure) @ rotation.T
        assert rms(broken) > 1e-2  # without the average the same turn shows


@pytest.mark.parametrize("symmetrize", ["octahedral", 5])
def test_an_average_of_conservative_forces_is_conservative(potential: Potential, symmetrize: Any) -> None:
    structure = ethanol()
    calc = RemulCalculator(potential, device="cpu", dtype="float64", symmetrize=symmetrize)
    forces = calc.get_forces(structure)
    assert np.abs(forces - numeric_forces(structure, calc)).max() < 2e-6 * rms(forces)


def test_direct_forces_are_averaged_too(potential: Potential) -> None:
    structure = ethanol()
    calc = RemulCalculator(potential, device="cpu", dtype="float64", forces="direct", symmetrize="tetrahedral")
    forces, rotation = calc.get_forces(structure), group("tetrahedral")[7]
    structure.positions = structure.positions @ rotation.T
    np.testing.assert_allclose(calc.get_forces(structure), forces @ rotation.T, rtol=0, atol=1e-10)


def test_all_rotations_go_through_the_model_in_one_call(potential: Potential) -> None:
    calc, seen = RemulCalculator(potential, device="cpu", symmetrize=7), []
    handle = calc.potential.model.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].n_systems))
    calc.get_forces(ethanol())
    handle.remove()
    assert seen == [7]


def test_the_spread_is_the_scatter_over_the_rotations(potential: Potential) -> None:
    structure = ethanol()
    plain = RemulCalculator(potential, device="cpu", dtype="float64")
    calc = RemulCalculator(potential, device="cpu", dtype="float64", symmetrize="tetrahedral")
    energies, forces = [], []
    for rotation in group("tetrahedral"):
        rotated = structure.copy()
        rotated.positions = structure.positions @ rotation.T
        energies.append(plain.get_potential_energy(rotated))
        forces.append(plain.get_forces(rotated) @ rotation)
    np.testing.assert_allclose(calc.get_forces(structure), np.mean(forces, axis=0), rtol=0, atol=1e-10)
    assert calc.get_potential_energy(structure) == pytest.approx(np.mean(energies), abs=1e-10)
    spread = 1000.0 * np.sqrt(np.var(forces, axis=0, ddof=1).mean())
    assert spread > 10.0
    assert calc.diagnostics["rotational_spread"] == pytest.approx(spread, rel=1e-8)
    assert calc.diagnostics["energy_spread"] == pytest.approx(1000.0 * np.std(energies, ddof=1), rel=1e-6)
    assert set(calc.results) == {"energy", "free_energy", "forces"}


def test_drawn_rotations_are_fixed_and_seeded(potential: Potential) -> None:
    structure = ethanol()

    def forces(**options: Any) -> np.ndarray:
        return RemulCalculator(potential, device="cpu", dtype="float64", **options).get_forces(structure)

    calc = RemulCalculator(potential, device="cpu", dtype="float64", symmetrize=4, seed=2)
    first = calc.get_forces(structure)
    calc.get_forces(molecule("CH3CH2OH"))
    np.testing.assert_array_equal(calc.get_forces(structure), first)
    np.testing.assert_array_equal(forces(symmetrize=4, seed=2), first)
    assert np.abs(forces(symmetrize=4, seed=3) - first).max() > 1e-3
    one = RemulCalculator(potential, device="cpu", symmetrize=1)
    one.get_forces(structure)
    told = {key: one.diagnostics[key] for key in ("forces", "n_rotations", "rotational_spread", "energy_spread")}
    assert told == {"forces": "conservative", "n_rotations": 1, "rotational_spread": 0.0, "energy_spread": 0}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "symmetrize .*got 0"),
        (-3, "symmetrize .*got -3"),
        (
            "cubic",
            "symmetrize .*tetrahedral, octahedral, icosahedral .*got 'cubic'",
        ),
        (True, "symmetrize .*got True"),
        (2.5, r"symmetrize .*got 2\.5"),
    ],
)
def test_unknown_symmetrize_is_refused(potential: Potential, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RemulCalculator(potential, device="cpu", symmetrize=value)


def test_misspelt_options_are_refused(potential: Potential) -> None:
    with pytest.raises(TypeError, match="symmetrise"):
        RemulCalculator(potential, symmetrise="octahedral")  # type: ignore[call-arg]
    with pytest.raises(InputError, match="device 'gpu' is unknown"):
        RemulCalculator(potential, device="gpu")
    with pytest.raises(InputError, match=r"dtype .*got 'half'"):
        RemulCalculator(potential, device="cpu", dtype="half")  # type: ignore[arg-type]


def test_an_untrained_composition_is_refused_unless_allowed(potential: Potential) -> None:
    methanol = molecule("CH3OH")
    methanol.calc = RemulCalculator(potential, device="cpu")
    for _ in range(2):  # a refusal is not remembered as an answer
        with pytest.raises(InputError, match=r"composition C1H4O1 .*knows C2H6O1"):
            methanol.get_potential_energy()
    methanol.calc = RemulCalculator(potential, device="cpu", allow_unseen=True)
    assert np.isfinite(methanol.get_potential_energy())
    assert methanol.get_forces().shape == (6, 3)


@pytest.mark.parametrize(
    ("allow_unseen", "message"),
    [(False, "element N .*knows H, C, O"), (True, r"\[7\] were never trained on")],
)
def test_an_unknown_element_is_refused_always(potential: Potential, allow_unseen: bool, message: str) -> None:
    calc = RemulCalculator(potential, device="cpu", allow_unseen=allow_unseen)
    with pytest.raises(InputError, match=message):
        calc.get_potential_energy(molecule("CH3NO2"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite_are_refused(atoms: Atoms, value: float) -> None:
    before = atoms.get_potential_energy()
    kept = atoms.positions[5].copy()
    atoms.positions[5, 2] = value
    with pytest.raises(InputError, match=r"positions .*not finite .*row 5"):
        atoms.get_forces()
    atoms.positions[5] = kept
    assert atoms.get_potential_energy() == before


def test_atoms_at_one_place_are_refused(atoms: Atoms) -> None:
    atoms.get_forces()
    atoms.positions[6] = atoms.positions[3]
    with pytest.raises(InputError, match="atoms 3 and 6 are 0 Angstrom apart"):
        atoms.get_forces()


@pytest.mark.parametrize("allow_unseen", [False, True])
def test_no_atoms_are_refused(potential: Potential, allow_unseen: bool) -> None:
    with pytest.raises(InputError, match="no atoms"):
        RemulCalculator(potential, device="cpu", allow_unseen=allow_unseen).get_potential_energy(Atoms())


def test_no_structure_is_refused(calc: RemulCalculator) -> None:
    with pytest.raises(InputError, match="no structure was given"):
        calc.calculate()


def test_every_structure_is_held_against_the_training_data(calc: RemulCalculator) -> None:
    """Not only the first of its composition: a relaxed or moved molecule may have come apart since."""
    structure = ethanol()
    structure.calc = calc
    bond = calc.potential.domain.bonds[0]
    whole = structure.get_positions()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        structure.get_forces()
    assert calc.diagnostics["outside_training"] == ()
    for seed in (1, 2):
        structure.positions = whole
        structure.set_distance(*bond, structure.get_distance(*bond) + 0.9)
        structure.rattle(0.01, seed=seed)
        with pytest.warns(UserWarning, match="bonds .*missing .* outside the training"):
            structure.get_forces()
        assert "missing" in calc.diagnostics["outside_training"][0]
    structure.positions = whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        structure.get_forces()


def test_each_of_many_copies_is_held_against_the_training_data(calc: RemulCalculator) -> None:
    structure = ethanol()
    evaluate = calc.copies(structure, n_copies=4)
    positions = np.tile(structure.positions, (4, 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(positions)
    positions[2, 8] += 3.0
    for _ in range(2):
        with pytest.warns(UserWarning, match="the bonds are not those trained on"):
            evaluate(positions)


def test_the_order_of_the_atoms_does_not_matter(calc: RemulCalculator) -> None:
    ours, textbook = ethanol(), molecule("CH3CH2OH")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for atoms in (ours[::-1], ours, ours[[4, 1, 8, 0, 6, 2, 7, 3, 5]]):
            atoms.calc = calc
            atoms.get_forces()
    trained = RemulCalculator("ethanol", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        textbook.calc = trained
        textbook.get_forces()


def charged(how: str) -> Atoms:
    structure = ethanol()
    if how == "initial charges":
        structure.set_initial_charges([0.0] * 8 + [1.0])
    else:
        structure.info[how] = 1
    return structure


@pytest.mark.parametrize("how", ["charge", "total_charge", "initial charges"])
def test_another_total_charge_is_refused(calc: RemulCalculator, how: str) -> None:
    neutral, ion = ethanol(), charged(how)
    neutral.calc = ion.calc = calc
    neutral.get_potential_energy()
    with pytest.raises(InputError, match=r"total charge \+1 .* charge 0"):
        ion.get_potential_energy()
    neutral.get_potential_energy()
    neutral.info, neutral.arrays["initial_charges"] = ion.info, ion.get_initial_charges()
    with pytest.raises(InputError, match=r"the total charge \+1"):  # not the energy of before
        neutral.get_potential_energy()
    neutral.info = {"charge": "plus"}
    with pytest.raises(InputError, match="give a whole number"):
        neutral.get_potential_energy()


def test_a_spin_is_warned_of(calc: RemulCalculator) -> None:
    for spin in ({"spin": 3}, {"multiplicity": 2}, {"uhf": 1}):
        structure = ethanol()
        structure.calc = calc
        structure.get_forces()
        structure.info = spin
        with pytest.warns(UserWarning, match="spin or magnetic moments"):
            structure.get_forces()
    structure = ethanol()
    structure.calc = calc
    structure.get_forces()
    structure.set_initial_magnetic_moments([0.0] * 8 + [1.0])
    with pytest.warns(UserWarning, match="spin or magnetic moments"):
        structure.get_forces()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for closed in ({"spin": 1}, {"spin": 0}, {"multiplicity": 1}, {}):
            structure = ethanol()
            structure.rattle(0.001, seed=len(closed))
            structure.calc, structure.info = calc, {"charge": 0, **closed}
            structure.get_forces()


def test_a_covered_structure_warns_of_nothing(atoms: Atoms) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_forces()


def test_two_calculators_share_one_potential(potential: Potential) -> None:
    shared = potential.to(dtype="float64")
    first = RemulCalculator(shared, device="cpu", dtype="float64", forces="auto")
    second = RemulCalculator(shared, device="cpu", dtype="float64", forces="direct")
    a, b = ethanol(), ethanol()
    b.positions[2] += 0.05
    alone = [RemulCalculator(potential_for(), device="cpu", dtype="float64").get_potential_energy(s) for s in (a, b)]
    assert first.potential.model is second.potential.model
    for _ in range(2):
        assert first.get_potential_energy(a) == alone[0]
        assert second.get_potential_energy(b) == alone[1]
    assert first.diagnostics["forces"] == "conservative"
    assert second.diagnostics["forces"] == "direct"


def test_implemented_properties_are_never_changed(potential: Potential) -> None:
    before = list(RemulCalculator.implemented_properties)
    calc = RemulCalculator(potential, device="cpu", symmetrize=3)
    calc.get_forces(ethanol())
    assert RemulCalculator.implemented_properties == before == ["energy", "free_energy", "forces"]
    assert "implemented_properties" not in vars(calc)


def test_deepcopy_and_pickle_keep_the_calculator(atoms: Atoms) -> None:
    forces = atoms.get_forces()
    for twin in (copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))):
        assert twin.calc is not atoms.calc
        twin.positions[0, 0] += 0.0
        np.testing.assert_array_equal(twin.get_forces(), forces)
        twin.positions[0, 0] += 0.1
        assert np.abs(twin.get_forces() - forces).max() > 1e-4
    np.testing.assert_array_equal(atoms.get_forces(), forces)


def crystal() -> Frames:
    """Two frames of four atoms in a small triclinic cell, each atom with images of itself within the cutoff."""
    cell = np.array([[4.1, 0.0, 0.0], [0.6, 3.9, 0.0], [-0.3, 0.5, 4.4]])
    fractions = np.array([[0.02, 0.1, 0.0], [0.5, 0.45, 0.1], [0.1, 0.5, 0.55], [0.6, 0.05, 0.5]])
    rng = np.random.default_rng(2)
    return Frames(
        positions=np.concatenate([fractions @ cell + rng.normal(scale=0.05, size=(4, 3)) for _ in range(2)]),
        atomic_numbers=np.array([6, 8, 1, 1] * 2),
        n_atoms=np.array([4, 4]),
        pbc=np.ones((2, 3), dtype=bool),
        cell=np.array([cell, cell]),
    )


def test_a_periodic_potential_serves_periodic_structures() -> None:
    frames = crystal()
    calc = RemulCalculator(untrained_potential(frames, cutoff=4.5), device="cpu", dtype="float64")
    atoms = frames.atoms(0)
    forces = calc.get_forces(atoms)
    assert np.abs(forces - numeric_forces(atoms, calc)).max() < 2e-6 * rms(forces)
    energy = calc.get_potential_energy(atoms)
    atoms.positions[1] += atoms.cell[0] - 2 * atoms.cell[2]  # the same crystal
    assert calc.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-8)
    atoms.set_cell(atoms.cell * 1.01)
    assert abs(calc.get_potential_energy(atoms) - energy) > 1e-4


def test_an_image_of_a_periodic_structure_does_not_warn() -> None:
    """Distances inside the cell say nothing about bonds through its faces."""
    frames = crystal()
    calc = RemulCalculator(untrained_potential(frames, cutoff=4.5), device="cpu")
    atoms = frames.atoms(0)
    atoms.positions[1] += atoms.cell[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_forces(atoms)


def test_velocity_verlet_conserves_energy(atoms: Atoms, calls: list[int]) -> None:
    atoms.set_velocities(np.random.default_rng(5).normal(scale=0.01, size=(9, 3)))  # ASE's unit; about 300 K
    totals, kinetic = [], []
    dynamics = VelocityVerlet(atoms, timestep=0.25 * units.fs)
    dynamics.attach(lambda: (totals.append(atoms.get_total_energy()), kinetic.append(atoms.get_kinetic_energy())))
    dynamics.run(40)
    assert np.ptp(kinetic) > 0.02  # energy really flows
    assert np.ptp(totals) < 0.02 * np.ptp(kinetic)
    assert calls == [1] * 41


def test_bfgs_goes_downhill(atoms: Atoms) -> None:
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None, maxstep=0.02).run(fmax=0.05, steps=8)
    assert atoms.get_potential_energy() < before - 0.01


def test_vibrations_give_the_curvature_of_the_energy(atoms: Atoms, calc: RemulCalculator, tmp_path: Path) -> None:
    analysis = Vibrations(atoms, indices=[0, 2, 7], delta=1e-3, name=str(tmp_path / "vib"))
    analysis.run()
    hessian = analysis.get_vibrations().get_hessian_2d()
    assert hessian.shape == (9, 9)
    direction = np.random.default_rng(8).normal(size=9)
    energies = []
    for factor in (-1e-3, 0.0, 1e-3):
        moved = atoms.copy()
        moved.positions[[0, 2, 7]] += factor * direction.reshape(3, 3)
        energies.append(calc.get_potential_energy(moved))
    curvature = (energies[0] - 2.0 * energies[1] + energies[2]) / 1e-6
    assert direction @ hessian @ direction == pytest.approx(curvature, rel=1e-3)
    assert np.isfinite(analysis.get_energies()).all()


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_results_are_written_by_ase(potential: Potential, tmp_path: Path, suffix: str) -> None:
    atoms = ethanol()
    atoms.calc = RemulCalculator(potential, device="cpu", dtype="float64", symmetrize=3)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    ase.io.write(tmp_path / f"out.{suffix}", atoms)
    read = ase.io.read(tmp_path / f"out.{suffix}")
    assert isinstance(read, Atoms)
    assert read.get_potential_energy() == pytest.approx(energy, abs=1e-7)
    np.testing.assert_allclose(read.get_forces(), forces, rtol=0, atol=1e-7)


def test_symmetrizing_rotations_are_proper() -> None:
    for rotations in (symmetrizing_rotations("icosahedral"), symmetrizing_rotations(6, seed=1)):
        identity = torch.eye(3, dtype=torch.float64).expand_as(rotations)
        torch.testing.assert_close(rotations @ rotations.mT, identity, rtol=0, atol=1e-12)
        assert torch.det(rotations).min() > 0.999


def test_another_precision_leaves_the_first_calculator_alone() -> None:
    frames = read_frames("rmd17/ethanol/train-01").select([0, 1])
    shared = untrained_potential(frames)
    double = RemulCalculator(shared, device="cpu", dtype="float64")
    before = double.get_potential_energy(frames.atoms(0))
    single = RemulCalculator(shared, device="cpu", dtype="float32")
    assert single.get_potential_energy(frames.atoms(0)) != before
    assert double.get_potential_energy(frames.atoms(1)) != before
    assert double.get_potential_energy(frames.atoms(0)) == before
    assert next(double.potential.model.parameters()).dtype == torch.float64
