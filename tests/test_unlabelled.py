"""Frames without labels, and random first orientations: what they add to the losses, which frames a step sees,
resuming."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from interruptions import interrupt_at
from potentials import molecule_frames, random_model
from test_objectives import Recorder
from torch import Tensor

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.models import Forces
from remul_md.potentials.potential import load_potential
from remul_md.structures.batch import Batch, BatchStore, Prediction
from remul_md.structures.frames import Frames, joined
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.remul import Turn, remul_losses
from remul_md.symmetry.rotations import random_rotations
from remul_md.symmetry.turns import labelled_part
from remul_md.training.checkpoint import read_checkpoint
from remul_md.training.config import DataConfig, RunConfig, TrainConfig, validated_config
from remul_md.training.objectives import PotentialObjective, labels
from remul_md.training.schedule import shuffled
from remul_md.training.train import train_potential
from remul_md.training.unlabelled import PartlyLabelled, partly_labelled_batches, read_unlabelled

N_LABELLED, N_BESIDE, N_ROTATED = 4, 3, 2
FIELD = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().sum(1)


def rows_in_orientations(rows: Tensor, rotations: Tensor) -> Tensor:
    return torch.einsum("gbij,bj->gbi", rotations, rows).flatten(0, 1)


TURN: Turn[Tensor, Tensor] = Turn(
    inputs=rows_in_orientations,
    outputs=rows_in_orientations,
    first=lambda rows, n: rows[:n],
    labelled=lambda rows, targets: rows[: len(targets)],
)


def drawn(*shape: int, seed: int = 4, **law: Any) -> Tensor:
    found = random_rotations(
        int(np.prod(shape)), generator=torch.Generator().manual_seed(seed), **({"group": "O3"} | law)
    )
    return found.view(*shape, 3, 3)


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    """7 inputs, and labels of the first 4."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N_LABELLED + N_BESIDE, 3, dtype=torch.float64, generator=generator)
    return x, torch.randn(N_LABELLED, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("random_first", [False, True])
def test_losses_of_a_partly_labelled_batch_in_closed_form(rows: tuple[Tensor, Tensor], random_first: bool) -> None:
    """f(x) = 1.3 x + c: task |1.3 x - c' - y|^2 of the labelled, equivariance |c - g c|^2 of all."""
    x, y = rows
    n = len(x)
    rotated, first = drawn(N_ROTATED, n), drawn(n, seed=5) if random_first else None
    calls = []

    def predict(inputs: Tensor) -> Tensor:
        calls.append(len(inputs))
        return 1.3 * inputs + FIELD

    # The labels are given in the orientation in which the task's loss sees them.
    start = torch.eye(3, dtype=torch.float64).expand(n, 3, 3) if first is None else first
    stands = torch.einsum("bij,bj->bi", start, x)
    losses = remul_losses(
        predict,
        x,
        y,
        turn=TURN,
        rotations=rotated,
        gap=squared,
        consistency_target="prediction",
        first_rotations=first,
        n_labelled=N_LABELLED,
    )
    assert calls == [(1 + N_ROTATED) * n]  # one call
    in_orientation = y if first is None else torch.einsum("bij,bj->bi", start[:N_LABELLED], y)
    task = squared(1.3 * stands[:N_LABELLED] + FIELD, in_orientation).mean()
    onward = rotated @ start.mT  # what stands in the first orientation is turned on to the others
    broken = (FIELD - onward @ FIELD).square().sum(2)
    assert losses["task"].item() == pytest.approx(task.item(), rel=1e-12)
    assert losses["equivariance"].item() == pytest.approx(broken.mean().item(), rel=1e-12)
    assert abs(broken.mean() - broken[:, :N_LABELLED].mean()) > 0.01  # the unlabelled ones count


@pytest.mark.parametrize("law", [{}, {"group": "SO3", "axis": (1.0, 2.0, -0.5)}])
def test_a_random_first_orientation_is_two_orientation_augmentation(
    rows: tuple[Tensor, Tensor], law: dict[str, Any]
) -> None:
    """ConsistencyTarget label, alpha = beta, one rotated orientation: for the same draws twice the loss of alpha = 0
    with two orientations."""
    x, y = rows[0][:N_LABELLED], rows[1]
    orientations = drawn(2, N_LABELLED, **law)

    def crooked(v: Tensor) -> Tensor:
        return 1.3 * v + 0.4 * v * torch.tensor([0.0, 1.0, -2.0], dtype=v.dtype) + 0.2

    terms: dict[str, Any] = {"turn": TURN, "gap": squared}
    ours = remul_losses(crooked, x, y, rotations=orientations[1:], first_rotations=orientations[0], **terms)
    two = remul_losses(crooked, x, y, rotations=orientations, original=False, **terms)
    original = remul_losses(crooked, x, y, rotations=orientations[1:], **terms)
    assert (ours["task"] + ours["equivariance"]).item() == pytest.approx(2 * two["equivariance"].item(), rel=1e-12)
    assert abs(original["task"] - ours["task"]) > 0.01


def test_losses_that_cannot_be_are_refused(rows: tuple[Tensor, Tensor]) -> None:
    x, y = rows
    terms: dict[str, Any] = {"turn": TURN, "rotations": drawn(N_ROTATED, len(x)), "gap": squared}
    with pytest.raises(InputError, match="consistency target 'prediction', got 'label'"):
        remul_losses(lambda v: v, x, y, n_labelled=N_LABELLED, **terms)
    lacking = replace(TURN, labelled=None)
    with pytest.raises(InputError, match=r"Turn\.labelled"):
        remul_losses(
            lambda v: v, x, y, n_labelled=N_LABELLED, consistency_target="prediction", **(terms | {"turn": lacking})
        )
    with pytest.raises(InputError, match=r"first_rotations .*alpha > 0"):
        remul_losses(lambda v: v, x, x, original=False, first_rotations=drawn(len(x)), **terms)


# Potentials ---------------------------------------------------------------------------------------------------------


def centred(batch: Batch) -> Tensor:
    counts = torch.bincount(batch.system_index).double()
    sums = torch.zeros(len(counts), 3, dtype=torch.float64).index_add(0, batch.system_index, batch.positions)
    return batch.positions - (sums / counts[:, None]).index_select(0, batch.system_index)


class Springs(torch.nn.Module):
    """Every atom is drawn to the centre, which is equivariant; `field` is a constant force, which is not."""

    def __init__(self, *, field: float) -> None:
        super().__init__()
        self.stiffness = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.field = torch.nn.Parameter(field * FIELD)

    def forward(self, batch: Batch, *, forces: Forces = "none", create_graph: bool = False) -> Prediction:
        methods = centred(batch)
        energies = 0.5 * self.stiffness * methods.square().sum(1)
        energy = torch.zeros(batch.n_systems, dtype=torch.float64).index_add(0, batch.system_index, energies)
        return Prediction(
            system_index=batch.system_index, energy=energy, direct_forces=self.field - self.stiffness * methods
        )


def frames_of(*seeds: int) -> Frames:
    """Molecules of 7 and 5 atoms by turns."""
    frames = joined([molecule_frames(seed=seed) for seed in seeds], name="molecules")
    assert frames.energy is not None
    return replace(frames, energy=frames.energy + 700.0)


LABELLED, BESIDE = frames_of(0, 1, 2), frames_of(3, 4)  # 6 and 4 frames


def batches(**options: Any) -> Callable[[int], PartlyLabelled]:
    config = TrainConfig(
        **({"batch_size": 4, "unlabelled_batch_size": 3, "consistency_target": "prediction"} | options)
    )
    unlabelled = replace(BESIDE, energy=None, forces=None)
    store = BatchStore(build_batch(LABELLED, cutoff=4.5))
    return partly_labelled_batches(
        shuffled(store, config), unlabelled, cutoff=4.5, device=torch.device("cpu"), config=config
    )


OBJECTIVE = PotentialObjective(
    forces="direct", force_scale=0.7, energy_weight=0.1, n_rotated=2, consistency_target="prediction", force_loss="mse"
)


def test_an_equivariant_model_has_no_loss_on_unlabelled_frames_and_a_field_gives_its_closed_form() -> None:
    batch = batches()(0)
    exact = OBJECTIVE(Springs(field=0.0), batch, torch.Generator().manual_seed(2))
    assert exact["task"].item() > 0.1
    assert exact["equivariance"].item() < 1e-14  # rounding of the energies, whose error counts linearly
    found = OBJECTIVE(Springs(field=1.0), batch, torch.Generator().manual_seed(2))
    rotations = random_rotations(2 * 7, generator=torch.Generator().manual_seed(2), group="O3").view(2, 7, 3, 3)
    of_systems = (FIELD - rotations @ FIELD).square().mean(2) / 0.7**2
    assert found["equivariance"].item() == pytest.approx(of_systems.mean().item(), rel=1e-12)
    assert abs(of_systems.mean() - of_systems[:, :4].mean()) > 1e-3


def test_the_task_sees_the_labelled_frames_only() -> None:
    batch, model = batches()(0), Springs(field=1.0)
    alone = replace(OBJECTIVE, n_rotated=0)(model, batch.labelled, torch.Generator())
    found = OBJECTIVE(model, batch, torch.Generator().manual_seed(2))
    assert found["task"].item() == pytest.approx(alone["task"].item(), rel=1e-12)


@pytest.mark.parametrize("consistency_target", ["label", "prediction"])
def test_labels_turn_into_the_random_first_orientation(consistency_target: Any) -> None:
    """An equivariant model is as wrong in every orientation, so the task's loss is that of the original orientation."""
    batch, model = build_batch(LABELLED, cutoff=4.5), Springs(field=0.0)
    original = replace(OBJECTIVE, consistency_target=consistency_target)(model, batch, torch.Generator().manual_seed(2))
    found = replace(OBJECTIVE, consistency_target=consistency_target, first_orientation="random")(
        model, batch, torch.Generator().manual_seed(2)
    )
    assert found["task"].item() == pytest.approx(original["task"].item(), rel=1e-12)
    broken = Springs(field=1.0)
    one, other = (
        replace(OBJECTIVE, consistency_target=consistency_target, first_orientation=orientation)(
            broken, batch, torch.Generator().manual_seed(2)
        )["task"]
        for orientation in ("original", "random")
    )
    assert abs(one - other) > 0.01


@pytest.mark.parametrize("forces", ["conservative", "both"])
def test_gradients_reach_from_unlabelled_frames(forces: Any) -> None:
    """The loss moves with the unlabelled geometries, and so does what it teaches the model."""
    batch, model = batches()(0), random_model(cutoff=4.5).double()
    objective = replace(OBJECTIVE, forces=forces, force_loss="l2", first_orientation="random")
    n_labelled_atoms = batch.labelled.n_atoms
    positions = batch.systems.positions.clone().requires_grad_()
    live = replace(batch, systems=replace(batch.systems, positions=positions))

    def losses(which: PartlyLabelled) -> dict[str, Tensor]:
        return objective(model, which, torch.Generator().manual_seed(2))

    for name, reached in (("task", False), ("equivariance", True)):
        (gradient,) = torch.autograd.grad(losses(live)[name], positions)
        assert (gradient[:n_labelled_atoms].abs().max() > 1e-4).item()
        assert (gradient[n_labelled_atoms:].abs().max() > 1e-4).item() == reached
    first = replace(batch, systems=BatchStore(batch.systems).select(range(4)))
    weights = list(model.parameters())
    with_them, without = (
        torch.autograd.grad(losses(which)["equivariance"], weights, allow_unused=True) for which in (batch, first)
    )
    moved = [(a - b).abs().max() for a, b in zip(with_them, without, strict=True) if a is not None and b is not None]
    assert max(moved) > 1e-3


def test_unlabelled_frames_are_not_held_against_labels() -> None:
    with pytest.raises(InputError, match="consistency target 'prediction', got 'label'"):
        replace(OBJECTIVE, consistency_target="label")(Springs(field=1.0), batches()(0), torch.Generator())


def test_before_the_losses_of_symmetry_set_in_only_labelled_frames_are_seen() -> None:
    asked = PotentialObjective(
        forces="conservative",
        force_scale=1.0,
        energy_weight=0.02,
        consistency_target="prediction",
        first_orientation="random",
        torque=True,
    )
    model = random_model(species=tuple(sorted(set(LABELLED.atomic_numbers.tolist()))))
    recorder, batch = Recorder(model), batches(batch_size=2, unlabelled_batch_size=3)(0)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    found = asked.without_equivariance()(recorder, batch, generators[0])  # type: ignore[arg-type]
    assert [orientations.n_systems for orientations in recorder.orientations] == [2]
    assert set(found) == {"task"}
    alone = asked.without_equivariance()(recorder, batch.labelled, generators[1])  # type: ignore[arg-type]
    assert torch.equal(found["task"], alone["task"])
    assert not torch.allclose(
        recorder.orientations[0].positions, batch.labelled.positions
    )  # a random first orientation


def test_the_objective_with_a_random_first_orientation_draws_what_two_orientations_draw() -> None:
    batch, model = build_batch(LABELLED, cutoff=4.5), Springs(field=1.0)
    ours = replace(OBJECTIVE, consistency_target="label", n_rotated=1, first_orientation="random")
    two = replace(OBJECTIVE, consistency_target="label", n_rotated=2, original=False)
    found = ours(model, batch, torch.Generator().manual_seed(6))
    wanted = two(model, batch, torch.Generator().manual_seed(6))
    total = found["task"] + found["equivariance"]
    torch.testing.assert_close(total, 2 * wanted["equivariance"], rtol=1e-12, atol=0)


def test_which_frames_a_step_sees() -> None:
    batch_of = batches(seed=3)
    order = [(batch_of(step), step) for step in range(8)]
    for batch, step in order:
        assert batch.systems.energy is None
        assert batch.systems.forces is None
        assert (batch.systems.n_systems, batch.labelled.n_systems) == (7, 4)
        again = batch_of(step)
        assert torch.equal(batch.systems.positions, again.systems.positions)  # whatever steps came between
        assert torch.equal(batch.systems.positions[: batch.labelled.n_atoms], batch.labelled.positions)
    rows = torch.cat([batch.systems.positions[batch.labelled.n_atoms :] for batch, _ in order])
    known = torch.from_numpy(BESIDE.positions)
    seen = torch.bincount(torch.cdist(rows, known).argmin(1), minlength=len(known))
    assert seen.tolist() == [6] * len(known)  # 8 steps of 3 are 6 rounds of the 4 frames
    assert not torch.equal(order[0][0].systems.positions, batches(seed=4)(0).systems.positions)


def test_the_neighbours_of_the_joined_batch_are_those_of_its_parts() -> None:
    batch, model = batches()(1), random_model(cutoff=4.5).double()
    whole = model(batch.systems, forces="conservative")
    alone = model(batch.labelled, forces="conservative")
    part = labelled_part(whole, labels(batch.labelled, forces="conservative"))
    torch.testing.assert_close(part.forces, alone.forces, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(part.energy, alone.energy, rtol=1e-12, atol=0)
    assert torch.equal(part.system_index, batch.labelled.system_index)


# Files --------------------------------------------------------------------------------------------------------------

ETHANOL = read_frames("rmd17/ethanol/test-01").select(range(11))


def own_trajectory(path: Path, *, frames: Frames = ETHANOL) -> Path:
    """As one's own dynamics leaves it: energies of some other method, on some frames only."""
    structures = [frames.atoms(index) for index in range(len(frames))]
    for atoms in structures[::2]:
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.full((len(atoms), 3), 1e4))
    write(path, structures)
    return path


def read(source: Path | str, **options: Any) -> Frames:
    frames = read_frames("rmd17/ethanol/train-01")
    data = DataConfig(unlabelled=str(source), **options)
    return read_unlabelled(data, train=frames.select(range(20)), validation=frames.select(range(20, 29)))


@pytest.mark.parametrize("name", ["own.traj", "own.extxyz", "own.npz"])
def test_labels_in_the_file_are_not_read(tmp_path: Path, name: str) -> None:
    """Neither missing ones nor implausible ones stand in the way."""
    path = tmp_path / name
    if name.endswith("npz"):
        np.savez(path, nuclear_charges=ETHANOL.frame_numbers(0), coords=ETHANOL.positions.reshape(11, 9, 3))
    else:
        own_trajectory(path)
    found = read(path)
    assert found.energy is None
    assert found.forces is None
    assert found.positions == pytest.approx(ETHANOL.positions, abs=1e-7)
    with pytest.raises(InputError):  # as labelled frames they would be refused
        read_frames(path, require=("energy", "forces"))


def test_units_and_plausibility_of_the_unlabelled_file(tmp_path: Path) -> None:
    path = tmp_path / "bohr.npz"
    coords = ETHANOL.positions.reshape(11, 9, 3) / 0.529177210903
    np.savez(path, nuclear_charges=ETHANOL.frame_numbers(0), coords=coords)
    assert read(path, unlabelled_length_unit="Bohr").positions == pytest.approx(ETHANOL.positions, abs=1e-7)
    with pytest.raises(InputError, match="Bohr"):
        read(path)


def test_an_unknown_composition_is_refused() -> None:
    message = (
        "data.unlabelled=rmd17/toluene/test-01: frame 0 is C7H8, the training frames are C2H6O; "
        "give frames of these compositions"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        read("rmd17/toluene/test-01")
    with pytest.raises(InputError, match="neither a file nor"):
        read("no/such.traj")


def test_validation_frames_among_them_are_named(caplog: pytest.LogCaptureFixture) -> None:
    read("rmd17/ethanol/test-01")
    assert not caplog.records
    read("rmd17/ethanol/train-01")
    assert "9 of its 1000 frames are validation frames" in caplog.text


# Runs ---------------------------------------------------------------------------------------------------------------

TINY_MODEL = {"width": 8, "n_layers": 1, "n_heads": 2, "pair_width": 6, "n_radial": 5, "n_tensors": 3}


def run_config(source: Path, **train: Any) -> RunConfig:
    steps = {
        "n_steps": 20,
        "batch_size": 3,
        "unlabelled_batch_size": 4,
        "consistency_target": "prediction",
        "first_orientation": "random",
        "warmup_steps": 2,
        "validate_every": 8,
        "checkpoint_every": 5,
        "log_every": 4,
        "device": "cpu",
    }
    data = {"molecule": "ethanol", "n_train": 17, "n_validation": 5, "unlabelled": str(source)}
    return validated_config({"data": data, "model": TINY_MODEL, "train": steps | train}, origin="test")


@pytest.mark.slow
def test_a_run_with_unlabelled_frames_resumes_bit_for_bit_and_only_with_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_trajectory(tmp_path / "own.traj")
    config = run_config(path)
    whole = train_potential(config, run_dir=tmp_path / "whole", progress=False)
    interrupt_at(13, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_potential(config, run_dir=tmp_path / "cut", progress=False)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == 10
    # Other labels are the same frames, another geometry is not.
    write(path, [ETHANOL.atoms(index) for index in range(11)])
    original = path.read_bytes()
    shaken = replace(ETHANOL, positions=ETHANOL.positions + 1e-9 * (np.arange(99)[:, None] == 40))
    write(path, [shaken.atoms(index) for index in range(11)])
    with pytest.raises(InputError, match="another config or data"):
        train_potential(config, run_dir=tmp_path / "cut", resume=True, progress=False)
    path.write_bytes(original)
    resumed = train_potential(config, run_dir=tmp_path / "cut", resume=True, progress=False)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    record = load_potential(tmp_path / "whole" / "potential.pt").provenance.data["unlabelled"]
    assert record == {"name": "own.traj", "n_frames": 11, "data_hash": read(path).content_hash()}
    assert whole.domain.n_frames == 17  # what was never labelled is not covered


def test_unlabelled_frames_change_what_is_learned(tmp_path: Path) -> None:
    """The same run with other geometries beside it: another result, from the same initial weights."""
    paths = [own_trajectory(tmp_path / "a.traj"), tmp_path / "b.traj"]
    own_trajectory(paths[1], frames=read_frames("rmd17/ethanol/test-01").select(range(20, 31)))
    one, other = (
        train_potential(run_config(path, n_steps=3), run_dir=tmp_path / path.stem, progress=False) for path in paths
    )
    gaps = [(a - b).abs().max().item() for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True)]
    assert max(gaps) > 1e-5
