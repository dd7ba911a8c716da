"""The torque penalty: the slope of the energy under a rotation, trained on without a second orientation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from potentials import molecule_frames, random_model
from test_objectives import CUTOFF, Recorder
from torch import Tensor

from remul_md.errors import InputError
from remul_md.structures.batch import Batch, BatchStore
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import rotate_batch, rotations_about
from remul_md.training.config import TrainConfig
from remul_md.training.objectives import PotentialObjective, make_objective

SCALE, AXIS = 0.7, (0.6, -1.1, 2.3)


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Systems of 7 and 5 atoms with residual energies."""
    built = build_batch(molecule_frames(), cutoff=CUTOFF)
    assert built.energy is not None
    return replace(built, energy=built.energy + 700.0)


def objective(**options: object) -> PotentialObjective:
    train = TrainConfig.model_validate({"alpha": 0.0, "torque_weight": 2.0, "group": "SO3", **options})
    return make_objective(train, force_scale=SCALE)


def torques(model: torch.nn.Module, batch: Batch, **options: object) -> Tensor:
    """Length of the net torque of each system in units of the scale, without the graph."""
    out = model(batch, forces="conservative")
    return objective(**options).net_torque(out, batch).detach()


def slopes(model: torch.nn.Module, batch: Batch, axis: tuple[float, ...], *, angle: float = 1e-4) -> Tensor:
    """Minus dE/d(angle) of each system about an axis, by a central difference, eV."""
    axes = torch.tensor([axis] * 2, dtype=torch.float64)
    energies = []
    for sign in (1.0, -1.0):
        rotated = rotate_batch(batch, rotations_about(axes, torch.full((2,), sign * angle, dtype=torch.float64)))
        energies.append(model(rotated, forces="none").energy.double().detach())
    return (energies[1] - energies[0]) / (2 * angle)


def test_it_is_the_slope_of_the_energy_under_a_rotation(batch: Batch) -> None:
    model = random_model().double()
    by_axis = torch.stack([slopes(model, batch, axis) for axis in ((1, 0, 0), (0, 2, 0), (0, 0, 0.5))], 1)
    assert by_axis.abs().min() > 1e-3
    torch.testing.assert_close(torques(model, batch), by_axis.norm(dim=1) / SCALE, rtol=1e-5, atol=0)


def test_about_an_axis_only_that_component(batch: Batch) -> None:
    model = random_model().double()
    found = torques(model, batch, axis=AXIS)
    torch.testing.assert_close(found, slopes(model, batch, AXIS).abs() / SCALE, rtol=1e-5, atol=0)
    assert (found < 0.95 * torques(model, batch)).all()


def test_an_exact_network_has_none(batch: Batch) -> None:
    model = random_model(symmetry="exact").double()
    assert torques(model, batch).max() < 2e-6  # the floor that keeps the gradient finite
    loss = objective()(model, batch, torch.Generator().manual_seed(0))["torque"]
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


def test_its_gradient_agrees_with_finite_differences(batch: Batch) -> None:
    """Through the derivative of the energy: the double backward that training needs."""
    model = random_model().double()
    asked = objective(axis=AXIS)
    drawn = asked.draw(batch, torch.Generator().manual_seed(3))
    parameters = [parameter for name, parameter in model.named_parameters() if "direct" not in name]
    loss = asked.losses(model, batch, drawn)["torque"]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    largest = sorted(
        ((gradient.abs().max().item(), index) for index, gradient in enumerate(gradients) if gradient is not None),
        reverse=True,
    )
    assert len(largest) > 10
    for size, index in largest[:6]:
        parameter, gradient = parameters[index], gradients[index]
        place = np.unravel_index(int(gradient.abs().argmax()), gradient.shape)
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                parameter[place] += sign * 1e-5
            values.append(asked.losses(model, batch, drawn)["torque"].item())
            with torch.no_grad():
                parameter[place] -= sign * 1e-5
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(gradient[place].item(), rel=1e-5, abs=1e-7 * size)


def test_systems_do_not_see_each_other_and_distance_from_the_origin_does_not_matter(batch: Batch) -> None:
    model = random_model().double()
    single = [torques(model, BatchStore(batch).select(np.array([index]))).item() for index in (0, 1)]
    assert torques(model, batch).tolist() == pytest.approx(single, rel=1e-9)
    away = replace(batch, positions=batch.positions + torch.tensor([50.0, -20.0, 10.0], dtype=torch.float64))
    assert torques(model, away).tolist() == pytest.approx(single, rel=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"alpha": 1.0, "consistency_target": "prediction", "first_orientation": "random"}, {"alpha": 1.0}]
)
def test_it_needs_no_further_call_of_the_model(batch: Batch, options: dict[str, object]) -> None:
    recorder, asked = Recorder(random_model()), objective(**options)
    found = asked(recorder, batch, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert len(recorder.orientations) == 1
    assert recorder.orientations[0].n_systems == (4 if options else 2)
    without = replace(asked, torque=False)(recorder, batch, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert found["torque"] > 0.01
    assert set(found) == {*without, "torque"}
    assert all(torch.equal(found[name], without[name]) for name in without)


def test_it_has_no_unit(batch: Batch) -> None:
    out = random_model()(batch, forces="conservative")
    milli = replace(out, forces=1000.0 * out.forces)
    asked = objective()
    in_milli = replace(asked, force_scale=1000.0 * SCALE).net_torque(milli, batch)
    torch.testing.assert_close(in_milli, asked.net_torque(out, batch), rtol=1e-6, atol=0)


def test_training_on_it_takes_the_torque_away(batch: Batch) -> None:
    model = random_model()
    before = torques(model, batch).mean()
    asked, generator = objective(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        asked(model, batch, generator)["torque"].backward()
        optimizer.step()
    assert torques(model, batch).mean() < 0.3 * before


def test_a_cell_has_no_torque(batch: Batch) -> None:
    boxed = replace(batch, cell=10.0 * torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    with pytest.raises(InputError, match="systems have a cell"):
        torques(random_model(), boxed)
