"""Validation in rotated orientations against a loop: the same orientations every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from potentials import molecule_frames, random_model
from torch import Tensor

from remul_md.structures.batch import Batch, BatchStore, Prediction
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import random_rotations, rotate_batch
from remul_md.training.validation import VALIDATION_COLUMNS, RotatedValidation

CUTOFF, N_ORIENTATIONS, SEED = 4.5, 3, 6


@pytest.fixture(scope="module")
def batch() -> Batch:
    return build_batch(molecule_frames(), cutoff=CUTOFF)


@pytest.mark.parametrize(
    ("forces", "head"), [("conservative", "forces"), ("direct", "direct_forces"), ("both", "forces")]
)
def test_errors_are_those_of_a_loop_over_orientations(batch: Batch, forces, head: str) -> None:  # type: ignore[no-untyped-def]
    model = random_model(cutoff=CUTOFF).double()
    found = RotatedValidation(batch, forces=forces, n_orientations=N_ORIENTATIONS, seed=SEED)(model)
    drawn = random_rotations(2 * N_ORIENTATIONS, generator=torch.Generator().manual_seed(SEED), group="O3")
    assert {round(d) for d in torch.linalg.det(drawn).tolist()} == {1, -1}  # mirrors too: as the model is trained
    store = BatchStore(batch)
    force_errors, energy_errors = [], []
    for orientation in range(N_ORIENTATIONS):
        for system in (0, 1):
            single = rotate_batch(store.select([system]), drawn[2 * orientation + system][None])
            out = model(single, forces="both")
            error = getattr(out, head).detach() - single.forces
            # rotated back first: the mean absolute component depends on the axes
            force_errors.extend((error @ drawn[2 * orientation + system]).abs().flatten().tolist())
            energy_errors.append((out.energy.detach() - single.energy).abs().item())
    assert found["validation_force_mae"] == pytest.approx(1000 * np.mean(force_errors), rel=1e-10)
    assert found["validation_energy_mae"] == pytest.approx(1000 * np.mean(energy_errors), rel=1e-10)
    assert found["score"] == found["validation_force_mae"]
    assert tuple(found) == VALIDATION_COLUMNS


def test_the_same_rotations_every_time_and_the_seed_and_the_group_decide_them(batch: Batch) -> None:
    model = random_model(cutoff=CUTOFF).double()
    validate = RotatedValidation(batch, forces="conservative", n_orientations=5)
    whole = validate(model)
    assert validate(model) == whole
    assert RotatedValidation(batch, forces="conservative", n_orientations=5, seed=2)(model) != whole
    assert RotatedValidation(batch, forces="conservative", n_orientations=5, group="SO3")(model) != whole
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_run_is_not_chosen_by_orientations_it_does_not_train(batch: Batch) -> None:
    """About the axis of a constant error the orientations of a run about that axis all have the same force error."""
    axis, seen = (0.0, 0.0, 1.0), list[Tensor]()

    def model(orientations: Batch, *, forces: str) -> Prediction:
        assert orientations.forces is not None
        seen.append(orientations.positions)
        along = torch.tensor([0.0, 0.0, 0.5], dtype=orientations.forces.dtype)
        return Prediction(
            system_index=orientations.system_index, energy=orientations.energy, forces=orientations.forces + along
        )

    validate = RotatedValidation(batch, forces="conservative", group="SO3", axis=axis)
    assert validate(model)["validation_force_mae"] == pytest.approx(500.0 / 3, rel=1e-6)  # type: ignore[arg-type]
    assert len(seen) == 4
    for positions in seen:
        torch.testing.assert_close(positions[:, 2], batch.positions[:, 2])
        assert (positions[:, 0] - batch.positions[:, 0]).abs().max() > 0.1
