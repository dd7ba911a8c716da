"""The REMUL losses: one call of the model, the values of a loop over orientations, and any task that says how it
turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from messages import pattern
from potentials import molecule_frames
from torch import Tensor

from remul_md.errors import InputError
from remul_md.structures.batch import Batch, BatchStore, Prediction
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.remul import ConsistencyTarget, Turn, remul_losses
from remul_md.symmetry.rotations import Group, random_rotations, rotate_batch
from remul_md.symmetry.turns import POTENTIAL_TURN
from remul_md.training.objectives import PotentialObjective, labels

N_SYSTEMS, N_ROTATED = 5, 4


def rotated_rows(rows: Tensor, rotations: Tensor) -> Tensor:
    """Rows [B, 3] of one orientation in all orientations, [G B, 3]."""
    return torch.einsum("gbij,bj->gbi", rotations, rows).flatten(0, 1)


VECTOR_TURN: Turn[Tensor, Tensor] = Turn(
    inputs=rotated_rows, outputs=rotated_rows, first=lambda prediction, n_systems: prediction[:n_systems]
)


def squared_gap(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().sum(1)


class Counted:
    """A predictor that counts its calls and keeps what it was given."""

    def __init__(self, predict: Callable[[Tensor], Tensor]) -> None:
        self.predict, self.seen = predict, list[Tensor]()

    def __call__(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs)
        return self.predict(inputs)


@pytest.fixture
def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(2, N_SYSTEMS, 3, dtype=torch.float64, generator=generator))


def orientations(n_rotated: int, n_systems: int = N_SYSTEMS, *, group: Group = "O3", seed: int = 4) -> Tensor:
    drawn = random_rotations(n_rotated * n_systems, generator=torch.Generator().manual_seed(seed), group=group)
    return drawn.view(n_rotated, n_systems, 3, 3)


def crooked(x: Tensor) -> Tensor:
    """Knows up from down, so it is not equivariant."""
    return 1.3 * x + 0.4 * x * torch.tensor([0.0, 1.0, -2.0], dtype=x.dtype) + 0.2


@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize("n_rotated", [1, 2, N_ROTATED])
def test_values_are_those_of_a_loop_over_orientations_and_systems(
    vectors: tuple[Tensor, Tensor], n_rotated: int, original: bool
) -> None:
    x, y = vectors
    rotations = orientations(n_rotated)
    model = Counted(crooked)
    losses = remul_losses(model, x, y, turn=VECTOR_TURN, rotations=rotations, gap=squared_gap, original=original)
    task = sum(float((crooked(x[b]) - y[b]).square().sum()) for b in range(N_SYSTEMS)) / N_SYSTEMS
    rotated = 0.0
    for k in range(n_rotated):
        for b in range(N_SYSTEMS):
            g = rotations[k, b]
            rotated += float((crooked(g @ x[b]) - g @ y[b]).square().sum()) / (n_rotated * N_SYSTEMS)
    assert len(model.seen) == 1
    assert model.seen[0].shape == ((n_rotated + original) * N_SYSTEMS, 3)
    assert set(losses) == ({"task", "equivariance"} if original else {"equivariance"})
    assert losses["equivariance"].item() == pytest.approx(rotated, rel=1e-12)
    assert abs(rotated - task) > 0.01 * task  # a model that breaks rotations: the two losses are not one number
    if original:
        assert losses["task"].item() == pytest.approx(task, rel=1e-12)
        assert torch.equal(
            model.seen[0][:N_SYSTEMS], x
        )  # the original orientation is not touched, not even by rounding


def test_without_rotated_orientations_only_the_task_is_left(vectors: tuple[Tensor, Tensor]) -> None:
    x, y = vectors
    model = Counted(crooked)
    losses = remul_losses(model, x, y, turn=VECTOR_TURN, rotations=orientations(0), gap=squared_gap)
    assert set(losses) == {"task"}
    assert losses["task"].item() == pytest.approx(squared_gap(crooked(x), y).mean().item(), rel=1e-12)
    assert [len(seen) for seen in model.seen] == [N_SYSTEMS]


def test_the_rotated_prediction_as_consistency_target_measures_symmetry_alone(vectors: tuple[Tensor, Tensor]) -> None:
    x, y = vectors
    rotations = orientations(N_ROTATED)

    def losses_of(predict: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        model = Counted(predict)
        losses = remul_losses(
            model, x, y, turn=VECTOR_TURN, rotations=rotations, gap=squared_gap, consistency_target="prediction"
        )
        assert len(model.seen) == 1
        return losses

    exact = losses_of(lambda v: 0.7 * v * v.norm(dim=1, keepdim=True))
    assert exact["equivariance"].item() < 1e-28
    assert exact["task"].item() > 0.1  # wrong, and yet equivariant
    broken = losses_of(crooked)
    expected = torch.stack(
        [
            squared_gap(crooked(rotated_rows(x, rotations[k : k + 1])), rotated_rows(crooked(x), rotations[k : k + 1]))
            for k in range(N_ROTATED)
        ]
    )
    assert broken["equivariance"].item() == pytest.approx(expected.mean().item(), rel=1e-12)
    assert broken["task"].item() == pytest.approx(squared_gap(crooked(x), y).mean().item(), rel=1e-12)


@pytest.mark.parametrize("consistency_target", ["label", "prediction"])
def test_gradients_are_those_of_the_loop(vectors: tuple[Tensor, Tensor], consistency_target: ConsistencyTarget) -> None:
    """Through both sides of the gap where the consistency target is a prediction: it is not detached."""
    x, y = vectors
    rotations = orientations(N_ROTATED)
    weight = torch.tensor([[1.0, 0.2, 0.0], [0.1, 0.8, -0.3], [0.4, 0.0, 1.2]], dtype=torch.float64, requires_grad=True)

    def predict(v: Tensor) -> Tensor:
        return v @ weight.T

    losses = remul_losses(
        predict, x, y, turn=VECTOR_TURN, rotations=rotations, gap=squared_gap, consistency_target=consistency_target
    )
    (found,) = torch.autograd.grad(losses["equivariance"], weight)
    wanted = torch.zeros(3, 3, dtype=torch.float64)
    w = weight.detach()
    for k in range(N_ROTATED):
        for b in range(N_SYSTEMS):
            g = rotations[k, b]
            gap = w @ g @ x[b] - g @ (y[b] if consistency_target == "label" else w @ x[b])
            wanted += 2 * torch.outer(gap, g @ x[b])
            if consistency_target == "prediction":
                wanted -= 2 * torch.outer(g.T @ gap, x[b])
    torch.testing.assert_close(found, wanted / (N_ROTATED * N_SYSTEMS), rtol=1e-10, atol=1e-12)
    assert found.abs().max() > 0.1


def test_a_pseudovector_turns_under_so3_and_breaks_mirrors() -> None:
    """A cross product is equivariant under SO(3) only: O(3) sees it at every improper draw, SO(3) never."""
    generator = torch.Generator().manual_seed(5)
    pairs = torch.randn(N_SYSTEMS, 2, 3, dtype=torch.float64, generator=generator)
    cross = torch.linalg.cross(pairs[:, 0], pairs[:, 1])
    turn: Turn[Tensor, Tensor] = Turn(
        inputs=lambda x, g: torch.einsum("gbij,bcj->gbci", g, x).flatten(0, 1), outputs=rotated_rows
    )

    def loss(group: Group) -> tuple[float, float]:
        rotations = orientations(7, group=group)
        losses = remul_losses(
            lambda x: torch.linalg.cross(x[:, 0], x[:, 1]),
            pairs,
            cross,
            turn=turn,
            rotations=rotations,
            gap=squared_gap,
        )
        improper = (torch.linalg.det(rotations) < 0).double()
        return losses["equivariance"].item(), (improper * 4 * cross.square().sum(1)).mean().item()

    assert loss("SO3")[0] < 1e-28
    found, expected = loss("O3")
    assert found == pytest.approx(expected, rel=1e-10)
    assert expected > 0.1


def pair_potential(batch: Batch, *, field: float = 0.0) -> Prediction:
    """Neighbours repel with 3 exp(-r); `field` adds a force along z, which breaks rotations."""
    positions = batch.positions.clone().requires_grad_()
    vectors = positions[batch.neighbor_index] - positions[:, None]
    r = vectors.square().sum(-1).add((~batch.neighbor_mask).double()).sqrt()
    atomic = 1.5 * (torch.exp(-r) * batch.neighbor_mask).sum(1)
    (gradient,) = torch.autograd.grad(atomic.sum(), positions)
    energy = torch.zeros(batch.n_systems, dtype=atomic.dtype).index_add(0, batch.system_index, atomic.detach())
    along_z = torch.tensor([0.0, 0.0, field], dtype=atomic.dtype)
    return Prediction(system_index=batch.system_index, energy=energy, forces=along_z - gradient)


@pytest.fixture
def molecules() -> Batch:
    batch = build_batch(molecule_frames(), cutoff=4.5)
    assert batch.energy is not None
    return replace(batch, energy=batch.energy + 700.0)  # residual energies, else they outweigh the forces


OBJECTIVE = PotentialObjective(forces="conservative", force_scale=0.9, energy_weight=0.1)


@pytest.mark.parametrize("group", ["SO3", "O3"])
def test_labels_turn_with_the_molecule(molecules: Batch, group: Group) -> None:
    """An exactly equivariant potential is as wrong in every orientation: both losses agree to rounding."""
    losses = remul_losses(
        pair_potential,
        molecules,
        labels(molecules, forces="conservative"),
        turn=POTENTIAL_TURN,
        rotations=orientations(N_ROTATED, 2, group=group),
        gap=OBJECTIVE.gap,
    )
    assert losses["task"].item() > 0.5
    assert losses["equivariance"].item() == pytest.approx(losses["task"].item(), rel=1e-13)


def test_a_molecule_in_a_field_gives_the_loss_of_a_loop(molecules: Batch) -> None:
    rotations = orientations(N_ROTATED, 2)
    target = labels(molecules, forces="conservative")

    def in_field(batch: Batch) -> Prediction:
        return pair_potential(batch, field=0.8)

    losses = remul_losses(in_field, molecules, target, turn=POTENTIAL_TURN, rotations=rotations, gap=OBJECTIVE.gap)
    store, gaps = BatchStore(molecules), []
    for k in range(N_ROTATED):
        for system in (0, 1):
            single = rotate_batch(store.select([system]), rotations[k, system : system + 1])
            gaps.append(OBJECTIVE.gap(in_field(single), labels(single, forces="conservative")).item())
    assert losses["equivariance"].item() == pytest.approx(sum(gaps) / len(gaps), rel=1e-12)
    assert losses["task"].item() != pytest.approx(losses["equivariance"].item(), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"consistency_target": "truth"}, "consistency_target ... got 'truth'"),
        (
            {"original": False, "rotations": orientations(0)},
            "0 rotated ... consistency_target 'label' ... alpha > 0",
        ),
        (
            {"original": False, "consistency_target": "prediction"},
            "4 rotated ... consistency_target 'prediction' ... alpha > 0",
        ),
        (
            {"consistency_target": "prediction", "turn": Turn(inputs=rotated_rows, outputs=rotated_rows)},
            "consistency_target 'prediction' needs Turn.first",
        ),
    ],
)
def test_what_cannot_be_is_refused(vectors: tuple[Tensor, Tensor], options: dict, message: str) -> None:
    x, y = vectors
    chosen = {"turn": VECTOR_TURN, "rotations": orientations(N_ROTATED), "gap": squared_gap} | options
    with pytest.raises(InputError, match=pattern(message)):
        remul_losses(crooked, x, y, **chosen)
