"""Training the direct head alone: everything else keeps its bits, and the file tells where both heads come from."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from potentials import molecule_frames, untrained_potential
from remul_md.calculators import RemulCalculator
from torch import Tensor

from remul_md.datasets import read_frames, write_frames
from remul_md.errors import InputError
from remul_md.labels.label import label_frames
from remul_md.potentials.ensemble import make_ensemble
from remul_md.potentials.potential import Potential, load_potential
from remul_md.potentials.provenance import Provenance
from remul_md.structures.batch import Batch
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch
from remul_md.training.checkpoint import read_checkpoint, read_metrics
from remul_md.training.config import RunConfig, validated_config
from remul_md.training.fit import new_state, train_step
from remul_md.training.prepare import prepare_training
from remul_md.training.step_cost import training_step
from remul_md.training.train import train_potential

HEAD = "direct_head."


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ethanol() -> Frames:
    return read_frames("rmd17/ethanol/train-01").select(range(80))


@pytest.fixture(scope="module")
def teacher(ethanol: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A potential for conservative forces, with a weight -0.0 in its trunk: equal to 0.0, but of other bits."""
    folder = tmp_path_factory.mktemp("teacher")
    made = untrained_potential(ethanol, trained_forces="conservative", energy_scale=0.05, cutoff=4.0)
    with torch.no_grad():
        made.model.blocks[0].mlp[0].weight[1, 2] = -0.0  # type: ignore[union-attr,index]
    record = Provenance(
        trained_forces="conservative",
        config={"train": {"n_steps": 77}},
        data={"name": "first data"},
        metrics={"validation_force_mae_meV_per_A": 4.5, "history": [{"step": 77.0}]},
        package_version="0.0.1",
        seconds=600.0,
    )
    replace(made, provenance=record).save(folder / "teacher.pt")
    return folder / "teacher.pt"


@pytest.fixture(scope="module")
def labels(teacher: Path, ethanol: Frames) -> Path:
    """Its own conservative forces on 73 geometries."""
    labelled = label_frames(load_potential(teacher), ethanol.select(range(73)))
    path = teacher.parent / "labels.npz"
    write_frames(labelled.frames, path, provenance=labelled.provenance)
    return path


def head_config(labels: Path, **train: Any) -> RunConfig:
    steps = {"n_steps": 14, "batch_size": 5, "warmup_steps": 2, "validate_every": 5, "checkpoint_every": 4}
    head = {"forces": "direct", "trained": "direct-head", "device": "cpu", "monitor_per_decade": 0, "log_every": 3}
    return validated_config(
        {
            "data": {"source": str(labels), "n_train": 60, "n_validation": 13, "allow_implausible": True},
            "train": steps | head | train,
        },
        origin="test",
    )


@pytest.fixture(scope="module")
def student(teacher: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in which weight decay, clipping and average would move what they may not."""
    folder = tmp_path_factory.mktemp("student") / "run"
    torch.set_num_threads(1)
    config = head_config(labels, n_steps=40, learning_rate=2e-2, weight_decay=0.5, max_grad_norm=0.05, ema_decay=0.9)
    train_potential(config, run_dir=folder, init_from=teacher, progress=False)
    return folder


def batch_of(potential: Potential, frames: Frames) -> Batch:
    return build_batch(frames, cutoff=potential.cutoff)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def assert_only_the_head_moved(before: Potential, after: Potential) -> None:
    old, new = before.model.state_dict(), after.model.state_dict()
    moved = {name for name in old if bits(old[name]) != bits(new[name])}
    assert {name for name in old if name.startswith(HEAD)} == moved
    assert len(old) - len(moved) > 10
    assert bits(before.reference_energies) == bits(after.reference_energies)


def test_all_but_the_head_keeps_its_bits(teacher: Path, student: Path, ethanol: Frames) -> None:
    before, after = load_potential(teacher), load_potential(student / "potential.pt")
    assert_only_the_head_moved(before, after)
    batch = batch_of(before, ethanol.select(range(60, 80)))
    old, new = before.predict(batch), after.predict(batch)
    for name in ("energy", "forces", "atomic_energies"):
        assert bits(getattr(old, name)) == bits(getattr(new, name)), name
    checkpoint = read_checkpoint(student / "checkpoint.pt")
    for part in ("model", "average", "best_weights"):
        for name, value in before.model.state_dict().items():
            assert name.startswith(HEAD) or bits(value) == bits(checkpoint[part][name]), (part, name)
    head = [name for name, _ in before.model.named_parameters() if name.startswith(HEAD)]
    assert len(checkpoint["optimizer"]["state"]) == len(head)  # no moments of what is frozen


@pytest.mark.slow
def test_the_head_learns_the_conservative_forces(teacher: Path, labels: Path, ethanol: Frames, tmp_path: Path) -> None:
    """On geometries that were not trained on; in original orientations, since random weights have no symmetry to
    learn."""
    config = head_config(labels, n_steps=200, batch_size=12, beta=0.0, learning_rate=2e-2, ema_decay=0.9)
    before = load_potential(teacher)
    after = train_potential(config, run_dir=tmp_path, init_from=teacher, progress=False)
    batch = batch_of(before, ethanol.select(range(73, 80)))
    wanted = before.predict(batch).forces
    assert wanted is not None

    def error(potential: Potential) -> float:
        direct = potential.predict(batch, forces="direct").direct_forces
        assert direct is not None
        return float((direct - wanted).abs().mean())

    assert error(after) < 0.6 * error(before)
    assert error(after) < 0.9 * float(wanted.abs().mean())  # no forces at all are worse
    rows = [row for row in read_metrics(tmp_path / "metrics.csv") if "validation_energy_mae" in row]
    # Rotated energies differ from the labels by imperfect symmetry, and no step changes that.
    assert len({row["validation_energy_mae"] for row in rows}) == 1 < len(rows)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_nothing_is_differentiated_but_the_head(optimizer: str, teacher: Path, labels: Path) -> None:
    config = head_config(labels, optimizer=optimizer)
    prepared = prepare_training(config, origin=load_potential(teacher))
    state = new_state(prepared.model, config.train)
    in_head = {name for name, _ in prepared.model.named_parameters() if name.startswith(HEAD)}
    assert sum(len(group["params"]) for group in state.optimizer.param_groups) == len(in_head) > 3
    batch = prepared.batches(0)
    out = prepared.model(batch, forces="direct", create_graph=True)
    assert not out.energy.requires_grad  # no graph was kept of the trunk
    assert out.direct_forces.requires_grad
    losses = train_step(state, batch, objective=prepared.objective, config=config.train)
    with_gradient = {name for name, value in prepared.model.named_parameters() if value.grad is not None}
    assert with_gradient == in_head
    # Wrong energies would be a constant in the loss: it is the force error alone.
    shifted = replace(batch, energy=batch.energy + 5.0)
    again = new_state(prepare_training(config, origin=load_potential(teacher)).model, config.train)
    repeated = train_step(again, shifted, objective=prepared.objective, config=config.train)
    assert torch.equal(losses["task"], repeated["task"])


def test_a_step_of_a_run_can_be_timed(teacher: Path, labels: Path) -> None:
    origin = load_potential(teacher)
    before = copy.deepcopy(origin)
    step = training_step(head_config(labels), origin=origin)
    step()
    step()
    assert_only_the_head_moved(before, origin)
    with pytest.raises(InputError, match=r"trained=direct-head .* --init-from"):
        training_step(head_config(labels))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_steps_agree_and_freeze_the_same(labels: Path, ethanol: Frames, tmp_path: Path) -> None:
    # A step of the transformer compiles twice as long; other tests do that.
    sizes = {"kind": "painn", "width": 8, "n_layers": 1, "n_radial": 5}
    untrained_potential(ethanol, trained_forces="conservative", energy_scale=0.05, **sizes).save(tmp_path / "tiny.pt")
    eager, compiled = (
        train_potential(
            head_config(labels, compile=which, n_steps=6, learning_rate=1e-3),
            run_dir=tmp_path / str(which),
            init_from=tmp_path / "tiny.pt",
            progress=False,
        )
        for which in (False, True)
    )
    before = load_potential(tmp_path / "tiny.pt")
    assert_only_the_head_moved(before, compiled)
    # Forces, not weights: the bias of a pair force cancels, so its gradient is rounding, which Adam makes a step of.
    batch = batch_of(before, ethanol.select(range(73, 80)))
    start, one, other = (each.predict(batch, forces="direct").direct_forces for each in (before, eager, compiled))
    assert start is not None
    assert one is not None
    assert other is not None
    change = (one - start).abs().max().item()
    assert change > 1e-4
    torch.testing.assert_close(other, one, rtol=0, atol=1e-3 * change)
    losses = [[row["loss"] for row in read_metrics(tmp_path / which / "metrics.csv")] for which in ("False", "True")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_the_file_tells_the_truth_about_both_heads(
    teacher: Path, labels: Path, student: Path, ethanol: Frames, tmp_path: Path
) -> None:
    first, both = load_potential(teacher), load_potential(student / "potential.pt")
    record = both.provenance
    assert record.trained_forces == "both"
    for name in ("config", "data", "metrics", "package_version", "commit", "origin"):
        assert getattr(record, name) == getattr(first.provenance, name), name
    assert both.domain == first.domain
    head, rest = record.run_of("direct"), record.run_of("conservative")
    assert head["config"]["train"]["trained"] == "direct-head"
    assert head["origin"] == first.sha256
    assert head["data"]["name"] == "labels.npz"
    assert [row["step"] for row in head["metrics"]["history"]] == list(range(5, 41, 5))
    assert rest["metrics"]["history"] == [{"step": 77.0}]
    assert 0.0 < head["seconds"] < 100.0
    assert rest["seconds"] == pytest.approx(600.0)
    assert record.seconds == pytest.approx(600.0 + head["seconds"])
    # The head that is served: conservative unless direct is asked for.
    assert both.resolve_forces("auto") == "conservative"
    atoms = ethanol.atoms(3)
    given = {}
    for forces in ("auto", "conservative", "direct"):
        calculator = RemulCalculator(student / "potential.pt", forces=forces, device="cpu")  # type: ignore[arg-type]
        atoms.calc = calculator
        given[forces] = atoms.get_forces()
        assert calculator.head == ("direct" if forces == "direct" else "conservative")
    assert np.array_equal(given["auto"], given["conservative"])
    assert np.abs(given["direct"] - given["conservative"]).max() > 1e-3
    # Once more from there: the times of both runs of the head count.
    again = train_potential(
        head_config(labels, n_steps=3), run_dir=tmp_path, init_from=student / "potential.pt", progress=False
    ).provenance
    assert again.run_of("direct")["origin"] == both.sha256
    assert again.run_of("direct")["seconds"] > head["seconds"]
    assert again.run_of("conservative")["seconds"] == pytest.approx(600.0)


def test_potentials_of_one_training_are_written_as_before(teacher: Path, tmp_path: Path) -> None:
    """A release that does not know the record reads every file that has none."""
    payload = torch.load(teacher, weights_only=True)
    assert "direct_head" not in json.loads(payload["metadata"])["provenance"]
    other = untrained_potential(molecule_frames(), trained_forces="conservative", seed=1)
    one = untrained_potential(molecule_frames(), trained_forces="conservative", seed=2)
    for name, potential in (("one.pt", one), ("other.pt", other)):
        potential.save(tmp_path / name)
    members = make_ensemble([tmp_path / "one.pt", tmp_path / "other.pt"]).provenance.members
    assert not any("direct_head" in member for member in members)


def test_what_has_no_conservative_forces_is_refused_before_data_are_read(
    teacher: Path, ethanol: Frames, tmp_path: Path
) -> None:
    config = head_config(tmp_path / "missing.npz")
    with pytest.raises(InputError, match=r"trained=direct-head .* --init-from"):
        train_potential(config, run_dir=tmp_path / "a", progress=False)
    untrained_potential(ethanol, trained_forces="direct").save(tmp_path / "direct.pt")
    message = "--init-from, which was trained for direct forces only; give one with conservative forces"
    with pytest.raises(InputError, match=re.escape(message)):
        train_potential(config, run_dir=tmp_path / "a", init_from=tmp_path / "direct.pt", progress=False)
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError, match=r"missing\.npz"):
        train_potential(config, run_dir=tmp_path / "a", init_from=teacher, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forces": "both"}, "trained=direct-head trains no other forces: set train.forces=direct, got both"),
        ({"forces": "conservative"}, "set train.forces=direct, got conservative"),
        ({"weighting": "gradual"}, "weighting=gradual balances gradients by a matrix that train.trained=direct-head"),
        ({"energy_weight": 0.5}, "train.energy_weight=0.5 has no effect without train.trained=all"),
        ({"trained": "head"}, "train.trained: Input should be 'all', 'direct-head' or 'raw-directions', got"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        head_config(Path("labels.npz"), **options)
