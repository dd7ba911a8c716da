"""The equivariant control: it turns with the molecule to rounding, trains, and does all that a potential does.

What it shares with the other models is in test_models.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.calculators.fd import calculate_numerical_forces
from potentials import molecule_frames, random_model, unknown_shape_letters, untrained_potential
from remul_md.calculators import RemulCalculator

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.models import build_model, painn
from remul_md.potentials.potential import Potential, load_potential
from remul_md.structures.batch import Batch
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.measures import net_force_and_torque
from remul_md.symmetry.rotations import random_rotations, rotate_batch, rotate_prediction
from remul_md.training.config import RunConfig, load_config
from remul_md.training.train import train_potential
from remul_md.training.weighting import shared_matrix

CUTOFF = 4.5
TRAIN = [
    *("model.kind=painn", "model.width=24", "model.n_layers=2", "model.n_radial=9"),
    *("data.n_train=40", "data.n_validation=6", "train.n_steps=60", "train.warmup_steps=3", "train.batch_size=5"),
    *("train.learning_rate=1e-2", "train.ema_decay=0.6", "train.validate_every=20", "train.device=cpu"),
    *("train.monitor_per_decade=0", "train.optimizer=adamw"),
]


def painn_run(*more: str) -> RunConfig:
    return load_config(None, overrides=[*TRAIN, *more])


@pytest.fixture(scope="module")
def batch() -> Batch:
    return build_batch(molecule_frames(), cutoff=CUTOFF)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("painn")
    train_potential(painn_run("train.forces=both"), run_dir=folder, progress=False)
    yield folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(run: Path) -> Potential:
    return load_potential(run / "potential.pt", dtype="float64")


@pytest.fixture(scope="module")
def ethanol() -> Frames:
    return read_frames("rmd17/ethanol/test-01").select(range(5))


def broken_symmetry(model: Any, batch: Batch) -> list[float]:
    """How far energy, conservative and direct forces are from turning with the molecule, in units of their size."""
    generator = torch.Generator().manual_seed(1)
    errors = np.zeros(3)
    determinants = []
    for _ in range(4):
        rotations = random_rotations(batch.n_systems, generator=generator, group="O3")
        determinants += torch.linalg.det(rotations).sign().tolist()
        expected = rotate_prediction(model(batch, forces="both"), rotations)
        found = model(rotate_batch(batch, rotations), forces="both")
        for place, name in enumerate(("energy", "forces", "direct_forces")):
            one, other = getattr(found, name).detach(), getattr(expected, name).detach()
            errors[place] = max(errors[place], ((one - other).abs().max() / other.abs().mean()).item())
    assert {-1.0, 1.0} == set(determinants)
    return errors.tolist()


def test_it_turns_with_the_molecule_to_rounding(batch: Batch) -> None:
    assert max(broken_symmetry(random_model(kind="painn", cutoff=CUTOFF).double(), batch)) < 1e-11
    fresh = build_model("painn", {"species": (1, 6, 8), "width": 32, "cutoff": CUTOFF}).double()
    assert max(broken_symmetry(fresh, batch)) < 1e-11
    # ... and the same measure sees a model that does not.
    assert min(broken_symmetry(random_model(cutoff=CUTOFF).double(), batch)) > 0.01


def test_forces_have_no_net_torque(batch: Batch) -> None:
    out = random_model(kind="painn", cutoff=CUTOFF).double()(batch, forces="both")
    for forces in (out.forces, out.direct_forces):
        net_force, net_torque = net_force_and_torque(forces.detach(), batch)
        assert forces.abs().max() > 1e-3
        assert net_force.abs().max() < 1e-12
        assert net_torque.abs().max() < 1e-12


def test_every_row_of_every_matrix_is_trained(batch: Batch) -> None:
    """No vector is computed that nothing reads, or the model would be larger and slower than what it is held for."""
    model = random_model(kind="painn", cutoff=CUTOFF, n_layers=3).double()
    out = model(batch, forces="both", create_graph=True)
    (out.forces.square().sum() + out.direct_forces.square().sum() + out.energy.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.abs().view(len(parameter), -1).amax(1) > 0).all(), name


def test_angles_count() -> None:
    """Scalars of distances alone could not tell these apart: the same distances to the centre, other angles."""
    model = random_model(kind="painn", cutoff=2.0).double()  # the outer atoms are beyond each other's cutoff

    def energy(angle_deg: float) -> float:
        angle = np.deg2rad(angle_deg)
        frames = Frames(
            positions=np.array([[0.0, 0.0, 0.0], [1.4, 0.0, 0.0], [1.4 * np.cos(angle), 1.4 * np.sin(angle), 0.0]]),
            atomic_numbers=np.array([6, 1, 8]),
            n_atoms=np.array([3]),
            pbc=np.zeros((1, 3), dtype=bool),
        )
        return float(model(build_batch(frames, cutoff=2.0)).energy.item())

    assert abs(energy(120.0) - energy(100.0)) > 1e-4  # so far apart the atoms are nearly alone


def test_training_learns_and_the_file_gives_the_same_forces(run: Path, trained: Potential, ethanol: Frames) -> None:
    """Rotated and original errors agree, and no squared error comes from broken symmetry, after training too."""
    result = evaluate_potential(trained, ethanol, n_draws=4)
    untrained = train_potential(
        painn_run("train.n_steps=1", "train.warmup_steps=0"), run_dir=run / "fresh", progress=False
    )
    before = evaluate_potential(untrained.to(dtype="float64"), ethanol, n_draws=4)
    assert result.force_mae_original < 0.7 * before.force_mae_original
    assert result.force_mae_rotated == pytest.approx(
        result.force_mae_original, rel=0.2
    )  # other components, same vectors
    assert max(before.equivariance_percent, result.equivariance_percent) < 1e-20
    assert max(result.equivariance_percent_energy, result.rotational_error, result.mirror_error) < 1e-9
    assert max(result.net_torque_rms_eV or 0.0, result.lie_derivative or 0.0) < 1e-9
    assert evaluate_potential(untrained_potential(ethanol), ethanol, n_draws=4).equivariance_percent > 0.1


def test_the_calculator_gives_the_derivative_of_the_energy(run: Path, ethanol: Frames) -> None:
    atoms = ethanol.atoms(2)
    atoms.calc = RemulCalculator(run / "potential.pt", dtype="float64", device="cpu")
    forces = atoms.get_forces()
    numeric = calculate_numerical_forces(atoms, eps=1e-4)
    assert np.abs(forces - numeric).max() < 2e-6 * np.sqrt(np.square(forces).mean())
    atoms.rotate(70, (1, -2, 0.5))
    energy = atoms.get_potential_energy()
    atoms.positions[:, 1] *= -1.0  # a mirror image
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)


def test_gradnorm_balances_it(tmp_path: Path) -> None:
    model = random_model(kind="painn")
    assert shared_matrix(model) is model.updates[-1].mlp[2].weight
    potential = train_potential(
        painn_run("train.weighting=gradual", "train.n_steps=20"), run_dir=tmp_path, progress=False
    )
    assert potential.provenance.metrics["last_step"] == 20


def test_fine_tuning_keeps_the_kind(run: Path, tmp_path: Path) -> None:
    rest = [option for option in TRAIN if not option.startswith("model.")]

    def tuned(*more: str) -> Potential:
        config = load_config(None, overrides=[*rest, "train.n_steps=4", *more])
        return train_potential(config, run_dir=tmp_path, init_from=run / "potential.pt", progress=False)

    with pytest.raises(InputError, match=r"model\.kind=transformer .* --init-from has painn"):
        tuned("model.kind=transformer")
    with pytest.raises(InputError, match=r"model\.n_heads=2 .*painn"):
        tuned("model.n_heads=2")
    with pytest.raises(InputError, match=r"model\.width=16 .* --init-from has 24"):
        tuned("model.kind=painn", "model.width=16")
    potential = tuned()
    assert isinstance(potential.model, painn.Painn)
    assert potential.provenance.config["model"] == {
        "kind": "painn",
        "cutoff": 6.0,
        "width": 24,
        "n_layers": 2,
        "n_radial": 9,
    }


def test_every_shape_letter_is_in_the_legend() -> None:
    assert not unknown_shape_letters(painn)
