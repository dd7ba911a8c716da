"""What potentials are trained for: units of the gap, orientations of labels, and what each option draws and asks
for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from potentials import molecule_frames, random_model
from torch import Tensor

from remul_md.models import Forces
from remul_md.structures.batch import Batch, Prediction
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import Group, random_rotations
from remul_md.symmetry.turns import POTENTIAL_TURN, first_orientation, rotated_labels
from remul_md.training.objectives import ForceLoss, PotentialObjective, TrainedForces, labels, mean_over_systems

CUTOFF = 4.5


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Systems of 7 and 5 atoms with residual energies."""
    built = build_batch(molecule_frames(), cutoff=CUTOFF)
    assert built.energy is not None
    return replace(built, energy=built.energy + 700.0)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def full_prediction(batch: Batch, *, seed: int = 0) -> Prediction:
    return Prediction(
        system_index=batch.system_index,
        energy=noise(2, seed=seed),
        forces=noise(12, 3, seed=seed + 1),
        direct_forces=noise(12, 3, seed=seed + 2),
        atomic_energies=noise(12, seed=seed + 3),
    )


class Recorder:
    """A model that keeps the orientations it was given and how it was called."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.orientations, self.asked = model, list[Batch](), list[tuple[str, bool]]()

    def __call__(self, batch: Batch, *, forces: Forces = "none", create_graph: bool = False) -> Prediction:
        self.orientations.append(batch)
        self.asked.append((forces, create_graph))
        out: Prediction = self.model(batch, forces=forces, create_graph=create_graph)
        return out


def rotations_of(batch: Batch, orientations: Batch) -> Tensor:
    """The matrix by which each system of each orientation was rotated, [G, 2, 3, 3], from the positions alone."""
    found = []
    for g in range(orientations.n_systems // 2):
        for system in (0, 1):
            original = batch.positions[batch.system_index == system]
            found.append(
                torch.linalg.lstsq(
                    original, orientations.positions[orientations.system_index == 2 * g + system]
                ).solution.T
            )
    return torch.stack(found).view(-1, 2, 3, 3)


@pytest.mark.parametrize(("forces", "n_heads"), [("conservative", 1), ("direct", 1), ("both", 2)])
def test_gap_is_the_mean_error_vector_of_each_system_in_units_of_the_scale(
    batch: Batch, forces: TrainedForces, n_heads: int
) -> None:
    scale, energy_weight = 0.7, 0.3
    objective = PotentialObjective(forces=forces, force_scale=scale, energy_weight=energy_weight)
    prediction, target = full_prediction(batch), labels(batch, forces=forces)
    found = objective.gap(prediction, target)
    assert found.shape == (2,)
    assert batch.energy is not None
    assert batch.forces is not None
    for system, rows in enumerate((slice(0, 7), slice(7, 12))):
        expected = energy_weight * abs(prediction.energy[system] - batch.energy[system]).item()  # type: ignore[index]
        heads = {"conservative": [prediction.forces], "direct": [prediction.direct_forces]}.get(
            forces, [prediction.forces, prediction.direct_forces]
        )
        assert len(heads) == n_heads
        for head in heads:
            expected += np.linalg.norm((head - batch.forces)[rows].numpy(), axis=1).mean()  # type: ignore[operator]
        assert found[system].item() == pytest.approx(expected / scale, rel=1e-6)


def test_frames_with_very_large_forces_count_less_and_others_as_ever(batch: Batch) -> None:
    """In proportion to their RMS force beyond three times that of the data; at most that much the weight is 1."""
    assert batch.forces is not None
    scale = float(batch.forces[:7].square().mean().sqrt()) / 3.0
    objective = PotentialObjective(forces="conservative", force_scale=scale, energy_weight=0.02)
    found = full_prediction(batch)
    target = labels(batch, forces="conservative")
    once = objective.gap(found, target)
    pressed = torch.cat([batch.forces[:7], 10.0 * batch.forces[7:]])
    shift = pressed - batch.forces
    moved = replace(found, forces=found.forces + shift)  # the same errors, at other labels
    large = objective.gap(moved, replace(target, forces=pressed))
    torch.testing.assert_close(large[0], once[0], rtol=1e-5, atol=0)
    rms = float(pressed[7:].square().mean().sqrt())
    bare = objective.gap(found, replace(target, forces=batch.forces))[1] / min(
        1.0, 3.0 * scale / float(batch.forces[7:].square().mean().sqrt())
    )
    assert float(large[1]) == pytest.approx(float(bare) * 3.0 * scale / rms, rel=1e-4)


def test_frames_above_the_energies_of_the_data_count_less_and_others_keep_their_bits(batch: Batch) -> None:
    """Half at 0.5 eV above, a tenth at 4.5 eV above; a rotated copy has the same weight."""
    prediction, target = full_prediction(batch), labels(batch, forces="conservative")
    assert target.energy is not None
    assert prediction.energy is not None
    objective = PotentialObjective(forces="conservative", force_scale=0.7, energy_weight=0.3)
    as_ever = objective.gap(prediction, target)
    low, high = sorted(target.energy.tolist())
    first = int(target.energy.argmax())
    for above, weight in ((0.5, 0.5), (4.5, 0.1)):
        capped = replace(objective, highest_energy=high - above)
        shifted = target.energy.clone()
        shifted[1 - first] = high - above  # at the edge, and not above
        found = capped.gap(
            replace(prediction, energy=prediction.energy + shifted - target.energy), replace(target, energy=shifted)
        )
        assert found[first].item() == pytest.approx(weight * as_ever[first].item(), rel=1e-6)
        assert found[1 - first].item() == pytest.approx(as_ever[1 - first].item(), rel=1e-6)
    assert torch.equal(replace(objective, highest_energy=high).gap(prediction, target), as_ever)
    wide = replace(objective, highest_energy=high - 3.0, half_weight_eV=6.0).gap(prediction, target)
    assert wide[first].item() == pytest.approx(6.0 / 9.0 * as_ever[first].item(), rel=1e-6)
    alike = replace(objective, highest_energy=high - 3.0, half_weight_eV=1e9).gap(prediction, target)
    torch.testing.assert_close(alike, as_ever, rtol=1e-8, atol=0)
    assert low < high


def test_gap_has_no_unit(batch: Batch) -> None:
    """Energies, forces and the scale in meV instead of eV give the same number: nothing in it is hidden in eV."""
    prediction, target = full_prediction(batch), labels(batch, forces="both")

    def milli(value: Prediction) -> Prediction:
        assert value.energy is not None
        assert value.forces is not None
        assert value.direct_forces is not None
        return replace(
            value, energy=1e3 * value.energy, forces=1e3 * value.forces, direct_forces=1e3 * value.direct_forces
        )

    in_ev = PotentialObjective(forces="both", force_scale=0.7, energy_weight=0.3)
    in_mev = replace(in_ev, force_scale=700.0)
    torch.testing.assert_close(
        in_mev.gap(milli(prediction), milli(target)), in_ev.gap(prediction, target), rtol=1e-12, atol=0
    )


def test_a_perfect_prediction_has_a_finite_gradient(batch: Batch) -> None:
    objective = PotentialObjective(forces="conservative", force_scale=0.7, energy_weight=0.3)
    target = labels(batch, forces="conservative")
    assert target.forces is not None
    exact = target.forces.clone().requires_grad_()
    gap = objective.gap(replace(target, forces=exact), target)
    (gradient,) = torch.autograd.grad(gap.sum(), exact)
    assert gap.detach().max().item() == pytest.approx(1e-6, rel=1e-9)
    assert gradient.abs().max() == 0


def test_mean_over_systems_divides_by_the_atoms_of_each(batch: Batch) -> None:
    values = torch.arange(12.0)
    assert mean_over_systems(values, batch.system_index, n_systems=2).tolist() == [21 / 7, 45 / 5]


def test_labels_go_to_the_trained_heads(batch: Batch) -> None:
    for forces, heads in (("conservative", (True, False)), ("direct", (False, True)), ("both", (True, True))):
        found = labels(batch, forces=forces)  # type: ignore[arg-type]
        assert (found.forces is not None, found.direct_forces is not None) == heads
        assert found.energy is batch.energy


def test_rotated_labels_are_those_of_the_rotated_batch(batch: Batch) -> None:
    rotations = random_rotations(8, generator=torch.Generator().manual_seed(1), group="O3").view(4, 2, 3, 3)
    found = rotated_labels(labels(batch, forces="both"), rotations)
    orientations = POTENTIAL_TURN.inputs(batch, rotations)
    assert torch.equal(found.system_index, orientations.system_index)
    assert torch.equal(found.energy, orientations.energy)  # type: ignore[arg-type]
    for head in (found.forces, found.direct_forces):
        torch.testing.assert_close(head, orientations.forces, rtol=1e-13, atol=1e-13)
    assert batch.forces is not None
    row, system, orientation = 9, 1, 2  # one row by hand
    expected = rotations[orientation, system] @ batch.forces[row]
    torch.testing.assert_close(found.forces[12 * orientation + row], expected, rtol=1e-13, atol=1e-13)  # type: ignore[index]


def test_first_orientation_is_the_original_prediction(batch: Batch) -> None:
    prediction = full_prediction(batch)
    identity = torch.eye(3, dtype=torch.float64).expand(1, 2, 3, 3)
    rotated = random_rotations(6, generator=torch.Generator().manual_seed(1)).view(3, 2, 3, 3)
    found = first_orientation(rotated_labels(prediction, torch.cat([identity, rotated])), 2)
    for name in ("system_index", "energy", "forces", "direct_forces"):
        assert torch.equal(getattr(found, name), getattr(prediction, name)), name
    orientations = random_model(cutoff=CUTOFF).double()(POTENTIAL_TURN.inputs(batch, torch.cat([identity, rotated])))
    assert first_orientation(orientations, 2).atomic_energies.shape == (12,)  # type: ignore[union-attr]


@pytest.mark.parametrize(("n_rotated", "original"), [(1, True), (3, True), (2, False), (0, True)])
@pytest.mark.parametrize("group", ["SO3", "O3"])
def test_one_call_with_independent_orientations_for_every_system(
    batch: Batch, group: Group, n_rotated: int, original: bool
) -> None:
    objective = PotentialObjective(
        forces="conservative", force_scale=0.7, energy_weight=0.1, n_rotated=n_rotated, original=original, group=group
    )
    generator, determinants, model = torch.Generator().manual_seed(2), [], random_model(cutoff=CUTOFF).double()
    for _ in range(6):
        recorder = Recorder(model)
        losses = objective(recorder, batch, generator)
        assert set(losses) == {name for name, on in (("task", original), ("equivariance", n_rotated > 0)) if on}
        assert recorder.asked == [("conservative", True)]
        found = rotations_of(batch, recorder.orientations[0])
        assert len(found) == n_rotated + original
        if original:
            assert torch.equal(recorder.orientations[0].positions[:12], batch.positions)
        drawn = found[int(original) :].flatten(0, 1)
        if n_rotated:
            gaps = torch.cdist(drawn.flatten(1), drawn.flatten(1)) + 9 * torch.eye(len(drawn))
            assert gaps.min() > 0.01  # no system shares an orientation with another
            determinants.extend(torch.linalg.det(drawn).round().tolist())
    if n_rotated:
        assert set(determinants) == ({1.0} if group == "SO3" else {1.0, -1.0})


def test_the_generator_alone_decides_the_orientations(batch: Batch) -> None:
    objective = PotentialObjective(forces="direct", force_scale=0.7, energy_weight=0.1)
    model = random_model(cutoff=CUTOFF).double()

    def loss(generator: torch.Generator) -> float:
        return objective(model, batch, generator)["equivariance"].item()

    generator = torch.Generator().manual_seed(7)
    first, second = loss(generator), loss(generator)
    torch.manual_seed(123)
    assert loss(torch.Generator().manual_seed(7)) == first
    assert second != first


@pytest.mark.parametrize("forces", ["conservative", "direct", "both"])
@pytest.mark.parametrize("consistency_target", ["label", "prediction"])
def test_every_trained_head_learns_from_both_losses(
    batch: Batch, forces: TrainedForces, consistency_target: str
) -> None:
    objective = PotentialObjective(
        forces=forces,
        force_scale=0.7,
        energy_weight=0.1,
        consistency_target=consistency_target,  # type: ignore[arg-type]
    )
    model = random_model(cutoff=CUTOFF).double()
    losses = objective(model, batch, torch.Generator().manual_seed(3))
    for name in ("task", "equivariance"):
        gradients = torch.autograd.grad(losses[name], list(model.parameters()), retain_graph=True, allow_unused=True)
        reached = [g for g in gradients if g is not None]
        assert all(torch.isfinite(g).all() for g in reached)
        assert sum(float(g.abs().sum()) for g in reached) > 1e-3, name


@pytest.mark.parametrize("force_loss", ["l2", "mse"])
def test_force_losses_are_their_formulas(batch: Batch, force_loss: ForceLoss) -> None:
    scale = 0.7
    objective = PotentialObjective(forces="direct", force_scale=scale, energy_weight=0.0, force_loss=force_loss)
    prediction, target = full_prediction(batch), labels(batch, forces="direct")
    found = objective.gap(prediction, target)
    assert prediction.direct_forces is not None
    assert batch.forces is not None
    errors = (prediction.direct_forces - batch.forces).numpy() / scale
    of_atoms = {"l2": np.linalg.norm(errors, axis=1), "mse": np.square(errors).mean(1)}[force_loss]
    assert found.numpy() == pytest.approx([of_atoms[:7].mean(), of_atoms[7:].mean()], rel=1e-6)


def test_orientations_about_an_axis(batch: Batch) -> None:
    axis = (1.0, 2.0, -0.5)
    objective = PotentialObjective(
        forces="direct", force_scale=0.7, energy_weight=0.1, n_rotated=3, group="SO3", axis=axis
    )
    recorder = Recorder(random_model(cutoff=CUTOFF).double())
    objective(recorder, batch, torch.Generator().manual_seed(2))
    drawn = rotations_of(batch, recorder.orientations[0])[1:].flatten(0, 1)
    direction = torch.tensor(axis, dtype=torch.float64)
    torch.testing.assert_close(drawn @ direction, direction.expand(6, 3), rtol=0, atol=1e-9)
    cosines = (drawn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    assert len({round(value, 6) for value in cosines.tolist()}) == 6
