"""The torch-sim model: torch-sim's own checks, and the same numbers as the ASE calculator."""

import warnings

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk, molecule
from ase.md.verlet import VelocityVerlet
from potentials import untrained_potential

from remul_md import RemulCalculator
from remul_md.errors import InputError
from remul_md.structures.frames import frames_from_atoms

torch_sim = pytest.importorskip("torch_sim", reason="needs torch-sim (pip install remul-md[torchsim])")
from remul_md.calculators.torch_sim import RemulTorchSimModel  # noqa: E402 (needs torch_sim)


def crystals():
    return [bulk("Si", "diamond", a=5.43, cubic=True), bulk("Fe", "fcc", a=5.26, cubic=True).repeat([3, 1, 1])]


def molecules():
    structures = [molecule("CH3CH2OH"), molecule("CH3OH"), molecule("CH3CH2OH")]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=number)
    return structures


def potential_of(structures, **options):
    return untrained_potential(frames_from_atoms(structures), **{"cutoff": 4.0, "energy_scale": 0.3, **options})


def state_of(structures):
    return torch_sim.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)


def assert_as_ase(out, potential, structures, **options):
    calc = RemulCalculator(potential, device="cpu", dtype="float64", **options)
    for atoms in structures:
        atoms.calc = calc
    np.testing.assert_allclose(out["energy"], [atoms.get_potential_energy() for atoms in structures], atol=1e-9)
    expected = np.concatenate([atoms.get_forces() for atoms in structures])
    assert np.abs(expected).max() > 0.02
    np.testing.assert_allclose(out["forces"], expected, atol=1e-9)


def test_torch_sims_own_checks_pass_with_cells():
    from torch_sim.models.interface import validate_model_outputs

    structures = crystals()
    model = RemulTorchSimModel(potential_of(structures), device="cpu", dtype="float64")
    validate_model_outputs(model, torch.device("cpu"), torch.float64)
    assert not model.compute_stress
    for atoms in structures:  # torch-sim stores the cell's vectors as columns: a skewed cell would tell
        atoms.rattle(0.1, seed=3)
        atoms.set_cell(atoms.cell.array @ [[1.0, 0.1, 0.0], [0.0, 1.0, 0.2], [0.0, 0.0, 1.0]], scale_atoms=True)
    assert_as_ase(model(state_of(structures)), potential_of(structures), structures)


@pytest.mark.parametrize("options", [{}, {"forces": "direct"}, {"symmetrize": 3}])
def test_molecules_of_mixed_sizes_as_the_ase_calculator(options):
    structures = molecules()
    potential = potential_of(structures)
    model = RemulTorchSimModel(potential, device="cpu", dtype="float64", **options)
    assert_as_ase(model(state_of(structures)), potential, structures, **options)
    fewer = structures[1:]  # another state through the same model
    assert_as_ase(model(state_of(fewer)), potential, fewer, **options)
    state = state_of(fewer)
    model(state)
    state.atomic_numbers[[0, 1]] = state.atomic_numbers[[1, 0]]  # in place, as a Monte Carlo swap does
    fewer[0].numbers[[0, 1]] = fewer[0].numbers[[1, 0]]
    assert_as_ase(model(state), potential, fewer, **options)


def test_its_velocity_verlet_is_ases():
    structures = molecules()
    potential = potential_of(structures)
    model = RemulTorchSimModel(potential, device="cpu", dtype="float64")
    timestep = 0.5 * units.fs
    init, step = torch_sim.nve(model, dt=torch.tensor(timestep).double(), kT=torch.tensor(0.03).double(), seed=4)
    state = init(state_of(structures))
    first = np.array_split(state.momenta.numpy().copy(), [9, 15])
    for _ in range(12):
        state = step(state)
    calc = RemulCalculator(potential, device="cpu", dtype="float64")
    for atoms, momenta, end in zip(structures, first, np.array_split(state.positions, [9, 15]), strict=True):
        atoms.calc = calc
        start = atoms.get_positions()
        atoms.set_momenta(momenta)
        VelocityVerlet(atoms, timestep).run(12)
        assert np.abs(atoms.positions - start).max() > 0.02
        np.testing.assert_allclose(end, atoms.positions, atol=1e-9)


def test_unknown_compositions_and_cells_are_refused():
    model = RemulTorchSimModel(potential_of(molecules()), device="cpu")
    with pytest.raises(InputError, match="composition C1H2O1"):
        model(state_of([molecule("CH3OH"), molecule("H2CO")]))
    with pytest.raises(InputError, match="trained on isolated molecules"):
        model(state_of(crystals()))


def test_every_state_is_held_against_the_training_data():
    structures = molecules()
    model = RemulTorchSimModel(potential_of(structures), device="cpu", dtype="float64")
    state = state_of(structures)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(state)
        state.positions = state.positions + 7.0  # a new tensor, as an integrator makes it
        model(state)
    for _ in range(2):
        torn = state.positions.clone()
        torn[22] += 3.0  # a hydrogen of the third molecule
        state.positions = torn
        with pytest.warns(UserWarning, match=r"bonds .*\(missing 1 "):
            model(state)


def test_constant_pressure_is_refused_with_the_reason():
    structures = crystals()
    model = RemulTorchSimModel(potential_of(structures), device="cpu", dtype="float64")
    assert "stress" not in model(state_of(structures))
    bath = {"temperature": 300, "timestep": 0.001, "external_pressure": torch.tensor(0.0).double()}
    with pytest.raises(InputError, match="stresses"):
        torch_sim.integrate(structures, model, integrator=torch_sim.npt_langevin, n_steps=2, **bath)


def test_batches_are_sized_by_atoms_whatever_the_cell():
    structures = molecules()
    model = RemulTorchSimModel(potential_of(structures), device="cpu", dtype="float64")
    assert model.memory_scales_with == "n_atoms"
    metrics = []
    for edge in (8.0, 40.0):
        for atoms in structures:
            atoms.set_cell(np.eye(3) * edge)
        batcher = torch_sim.BinningAutoBatcher(
            model=model, memory_scales_with=model.memory_scales_with, max_memory_scaler=500.0
        )
        batcher.load_states(state_of(structures))
        metrics.append(list(batcher.memory_scalers))
    assert metrics[0] == metrics[1] == [9, 6, 9]
    assert RemulTorchSimModel(potential_of(crystals()), device="cpu").memory_scales_with == "n_atoms_x_density"
