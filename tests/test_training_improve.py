"""The loop that makes a potential hold: rounds of hot runs, labels and training; killed, resumed, within its budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import SCFError
from remul_md.calculators import RemulCalculator

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.labels.sampling import sample_labels
from remul_md.labels.selection import descriptors
from remul_md.labels.sources import LabelSource, label_source
from remul_md.labels.xtb import xtb_calculator
from remul_md.potentials.ensemble import make_ensemble, members_of
from remul_md.potentials.potential import load_potential
from remul_md.structures.frames import frames_from_atoms
from remul_md.structures.neighbors import build_batch
from remul_md.training.config import load_config
from remul_md.training.improve import Improved, improve_potential
from remul_md.training.improve_config import ImproveOptions, improve_training
from remul_md.training.improve_rounds import without_share
from remul_md.training.improve_state import ImproveState
from remul_md.training.train import train_potential

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

Run = Callable[..., tuple[int, str, str]]
SMALL = ("model.width=24", "model.n_layers=2", "model.n_heads=4", "model.pair_width=20", "model.n_tensors=5")
TRAIN = ("train.n_steps=6", "train.warmup_steps=2", "train.batch_size=5", "train.device=cpu")
OPTIONS: dict[str, Any] = {
    "temperature_K": "5000,400",
    "until_ps": 0.02,
    "budget_labels": 14,
    "labels_per_round": 2,
    "n_replicas": 2,
    "n_members": 2,
    "frame_interval_fs": 1.0,
    "max_rounds": 1,
    "seed": 3,
}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def water(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 27 geometries of water labelled by GFN2-xTB, and two small potentials of most of them."""
    folder = tmp_path_factory.mktemp("water")
    start = frames_from_atoms([molecule("H2O")], name="water")
    data = folder / "water.npz"
    sample_labels(start, label_source("xtb"), n_labels=27, temperature_K=300.0, seed=1, path=data)
    for seed in (0, 1):
        numbers = ("data.n_train=20", "data.n_validation=6", f"data.split_seed={seed}", f"train.seed={seed}")
        overrides = [f"data.source={data}", *numbers, *SMALL, *TRAIN, "train.n_steps=40", "train.monitor_per_decade=0"]
        train_potential(load_config(None, overrides=overrides), run_dir=folder / f"base-{seed}", progress=False)
    return folder


def improve(folder: Path, water: Path, *, source: LabelSource | None = None, **changes: Any) -> Improved:
    resume, potential = changes.pop("resume", False), changes.pop("potential", water / "base-0" / "potential.pt")
    return improve_potential(
        potential,
        source=source or label_source("xtb"),
        atoms=changes.pop("atoms", molecule("H2O")),
        run_dir=folder,
        calculator=RemulCalculator,
        training=changes.pop("training", TRAIN),
        options=ImproveOptions(**{**OPTIONS, **changes}),
        data=water / "water.npz",
        resume=resume,
        progress=False,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, water: Path) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("improved") / "run"
    improve(folder, water)
    return folder


def state_of(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "improve.json").read_text())
    for entry in content["rounds"]:
        assert set(entry.pop("seconds")) <= {"hot runs", "labels", "training"}
    return dict(content)


def labels_in(folder: Path) -> list[Any]:
    return [read_frames(file, allow_implausible=True) for file in sorted(folder.glob("round-*/labels.extxyz"))]


def positions_of(frames: Any) -> set[bytes]:
    return {frames.frame_positions(index).round(6).tobytes() for index in range(len(frames))}


def positions_in(file: Path) -> set[bytes]:
    return positions_of(read_frames(file, allow_implausible=True))


def test_rounds_end_with_labels_a_table_and_an_ensemble(done: Path, water: Path) -> None:
    state = state_of(done)
    rounds = state["rounds"]
    assert [entry["n_labels"] for entry in rounds[:2]] == [6, 2]  # half of the budget, then so many a round
    assert rounds[0]["refused"] == {"6": "CalculationFailed: SCF not converged in 250 cycles"}  # O-H at 3 Angstrom
    assert state["ended"] == "max_rounds"
    assert "n_labels" not in rounds[2]
    limits = [entry["max_uncertainty_eV_per_A"] for entry in rounds[1:]]
    assert limits == sorted(limits)
    for entry in rounds[1:]:
        assert [run["temperature_K"] for run in entry["runs"]] == [5000.0, 5000.0, 400.0, 400.0]
        assert any(run["cause"] for run in entry["runs"])
        assert all(0 <= run["stable_ps"] <= entry["length_ps"] for run in entry["runs"])
    assert all(entry["force_mae_new"]["before"] > 0 < entry["force_mae_old"]["after"] for entry in rounds[:2])
    # A round begins with the members that the round before ended with.
    assert rounds[1]["force_mae_old"]["before"] == pytest.approx(rounds[0]["force_mae_old"]["after"], rel=1e-6)
    assert state["level"]["force_rms_meV_per_A"] < 0.1  # the method of the data
    made = load_potential(done / "potential.pt")
    assert made.n_members == 2
    assert made.provenance.members[0]["data"]["improve"] == {"round": 1, "method": "GFN2-xTB", "n_new": 4}
    page = (done / "improve.md").read_text()
    assert page.count("\n| ") == 4
    assert " of 2 held)" in page
    assert (done / "improve.png").read_bytes()[:4] == b"\x89PNG"
    # Labels are those of the method, on geometries from before the ends of the runs.
    new = labels_in(done)[1]
    atoms = new.atoms(0)
    atoms.calc = xtb_calculator()
    np.testing.assert_allclose(new.forces[:3], atoms.get_forces(), atol=1e-6)


def test_what_was_held_out_stays_held_out(done: Path, water: Path) -> None:
    base = load_potential(water / "base-0" / "potential.pt").provenance.data["split"]
    data = read_frames(water / "water.npz", allow_implausible=True)
    held_out = positions_of(data.select(base["validation"]))
    for member in load_potential(done / "potential.pt").provenance.members:
        assert member["data"]["split"] == base
    learned = [positions_in(done / "round-1" / f"training-{place}.extxyz") for place in (0, 1)]
    assert list(map(len, learned)) == [4, 4]
    assert not held_out & (learned[0] | learned[1])


def test_every_label_is_learned_and_left_out_by_some_member(done: Path) -> None:
    labels = {position for file in done.glob("round-*/labels.extxyz") for position in positions_in(file)}
    learned = [positions_in(done / "round-1" / f"training-{place}.extxyz") for place in (0, 1)]
    assert learned[0] | learned[1] == labels
    assert not learned[0] & learned[1]
    first = positions_in(done / "round-0" / "training-0.extxyz")
    assert first < learned[0]  # what a member left out once it never learns
    frames = labels_in(done)[0]
    parts = [without_share(frames, place=place, n_members=3) for place in range(3)]
    for index in range(len(frames)):
        held = [positions_of(frames.select([index])) <= positions_of(part) for part in parts]
        assert held.count(False) == 1
    assert without_share(frames.select([0]), place=0, n_members=3) is None


def test_no_label_is_near_another_or_a_known_frame(done: Path, water: Path) -> None:
    known = descriptors(read_frames(water / "water.npz", allow_implausible=True))
    nearest = np.sqrt(np.square(known[:, None] - known[None]).mean(axis=2)) + np.diag(np.full(len(known), np.inf))
    for frames in labels_in(done)[1:]:
        found = descriptors(frames)
        to_known = np.sqrt(np.square(found[:, None] - known[None]).mean(axis=2)).min()
        apart = np.sqrt(np.square(found[:, None] - found[None]).mean(axis=2)) + np.diag(np.full(len(found), np.inf))
        assert min(to_known, apart.min()) > 0.3 * np.median(nearest.min(axis=1))


def test_the_domain_grows_by_hot_runs_and_not_by_stretched_bonds(done: Path, water: Path) -> None:
    base = load_potential(water / "base-0" / "potential.pt").domain
    stretched = members_of(load_potential(done / "round-0" / "ensemble.pt"))[0].domain
    assert stretched.bond_max == base.bond_max
    last = load_potential(done / "potential.pt").domain
    widened = [max(last.bond_max) - max(base.bond_max), min(base.bond_min) - min(last.bond_min)]
    assert min(widened) >= 0 < max(widened)
    assert max(last.bond_max) < 2.0


class Killed(BaseException):
    pass


def test_killed_after_each_stage_it_ends_with_the_same_files(
    done: Path, water: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, write = tmp_path / "run", ImproveState.write
    labelled: list[bytes] = []

    def make() -> Any:
        calculator = xtb_calculator()
        calculate = calculator.calculate

        def counted(atoms: Any = None, *rest: Any) -> None:
            labelled.append(atoms.positions.tobytes())
            calculate(atoms, *rest)

        calculator.calculate = counted  # type: ignore[method-assign]
        return calculator

    killed = 0

    def write_and_die(state: ImproveState, **options: Any) -> None:
        write(state, **options)
        raise Killed

    source = replace(label_source("xtb"), make=make)
    while True:
        monkeypatch.setattr(ImproveState, "write", write_and_die)
        try:
            improve(folder, water, source=source, resume=killed > 0)
            break
        except Killed:
            killed += 1
        # What was begun is said to be another run, unless it is gone on with.
        if killed == 5:
            with pytest.raises(InputError, match="exists already"):
                improve(folder, water, source=source)
            with pytest.raises(InputError, match="other options: labels_per_round was 2, now 5"):
                improve(folder, water, source=source, resume=True, labels_per_round=5)
        assert killed < 60
        if state_of(folder)["ended"]:
            monkeypatch.setattr(ImproveState, "write", write)
            improve(folder, water, source=source, resume=True)
            break
    assert killed > 8
    assert state_of(folder) == state_of(done)
    assert len(labelled) == len(set(labelled)) == 11  # two of the data, to see that the method is theirs; none twice
    for ours, theirs in zip(labels_in(folder), labels_in(done), strict=True):
        assert ours.content_hash() == theirs.content_hash()
    whole = load_potential(done / "potential.pt").model.state_dict()
    for name, value in load_potential(folder / "potential.pt").model.state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_failures_are_passed_over_and_the_budget_is_held(water: Path, tmp_path: Path) -> None:
    """Every third call does not converge; those geometries are paid for, too."""
    tried: list[int] = []

    def make() -> Any:
        calculator = xtb_calculator()
        calculate = calculator.calculate

        def fails(atoms: Any = None, *rest: Any) -> None:
            tried.append(1)
            if len(tried) % 3 == 0:
                raise SCFError("went round in circles")
            calculate(atoms, *rest)

        calculator.calculate = fails  # type: ignore[method-assign]
        return calculator

    source = replace(label_source("xtb"), make=make)
    made = improve(tmp_path / "run", water, source=source, budget_labels=6, max_rounds=None, labels_per_round=3)
    assert made.ended == "the budget is spent"
    n_tried = [len(row.get("geometries", ())) for row in made.rows]
    assert sum(n_tried) == 6 == len(tried) - 2
    assert n_tried[0] == 3
    refused = [row["refused"] for row in made.rows if "refused" in row]
    assert sum(map(len, refused)) == 3  # and O-H at 3 Angstrom, on which the method fails by itself
    assert "SCFError: went round in circles" in refused[0].values()
    assert [row["n_labels"] for row in made.rows[: len(refused)]] == [
        n - len(why) for n, why in zip(n_tried, refused, strict=False)
    ]
    # A larger budget goes on where the smaller one ended.
    more = improve(
        tmp_path / "run", water, source=source, budget_labels=7, max_rounds=None, labels_per_round=3, resume=True
    )
    assert [len(row.get("geometries", ())) for row in more.rows] == [*n_tried[:-1], 1, 0]
    assert more.rows[: len(n_tried) - 1] == made.rows[: len(n_tried) - 1]
    assert len(tried) == 9


def test_runs_that_hold_end_the_rounds_and_may_be_asked_for_more(water: Path, tmp_path: Path) -> None:
    calm = {"temperature_K": "2", "until_ps": 0.004, "stretched": False, "uncertainty": 1e6}
    made = improve(tmp_path / "run", water, **calm)
    assert made.ended == "all runs hold"
    assert [row.get("n_labels") for row in made.rows] == [0, None]
    assert {run["stable_ps"] for run in made.rows[1]["runs"]} == {0.004}
    longer = improve(tmp_path / "run", water, **{**calm, "until_ps": 0.008}, resume=True)
    assert {run["stable_ps"] for run in longer.rows[1]["runs"]} == {0.008}
    with pytest.raises(InputError, match=r"had to hold 0\.008 ps, 0\.004 ps are asked for"):
        improve(tmp_path / "run", water, **calm, resume=True)


def test_a_rate_that_forgets_the_old_frames_is_told(
    water: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fast = (*TRAIN, "train.fine_tuning_learning_rate=0.3")
    made = improve(tmp_path / "fast", water, training=fast, max_rounds=0)
    old = made.rows[0]["force_mae_old"]
    assert old["after"] > 1.1 * old["before"] > 0
    assert "a lower train.fine_tuning_learning_rate keeps more" in caplog.text
    caplog.clear()
    slow = (*TRAIN, "train.fine_tuning_learning_rate=1e-6")
    old = improve(tmp_path / "slow", water, training=slow, max_rounds=0).rows[0]["force_mae_old"]
    assert old["after"] == pytest.approx(old["before"], rel=0.02)
    assert "keeps more" not in caplog.text


@pytest.mark.parametrize("compiled", [False, True])
def test_runs_are_compiled_where_that_is_asked(
    water: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """That compiled ensembles are right is told by tests/test_potentials_compiled.py; compiling takes a minute."""
    made, asked = RemulCalculator, list[bool]()

    def recorded(*given: Any, compile: bool, **options: Any) -> RemulCalculator:
        asked.append(compile)
        return made(*given, **options)

    monkeypatch.setitem(globals(), "RemulCalculator", recorded)
    calm = {"temperature_K": "2", "until_ps": 0.004, "stretched": False, "uncertainty": 1e6}
    improve(tmp_path / "run", water, **calm, compile=compiled)
    assert asked
    assert set(asked) == {compiled}


def test_an_ensemble_is_improved_with_the_splits_of_its_members(cli: Run, water: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.pt"
    make_ensemble([water / f"base-{seed}" / "potential.pt" for seed in (0, 1)]).save(both)
    structure = tmp_path / "start.xyz"
    molecule("H2O").write(structure)
    options = ["--temperature-K", "5000", "--until-ps", "0.01", "--budget-labels", "3", "--n-replicas", "2"]
    options += ["--frame-interval-fs", "1", *(part for option in TRAIN for part in ("--set", option))]
    command = ["improve", both, "--labels", "xtb", "--structure", structure, "--run-dir", tmp_path / "run", *options]
    code, _, err = cli(*command)
    assert code == 2
    assert "name their file with --data" in err  # the potential knows no folder
    code, out, err = cli(*command, "--data", water / "water.npz", "--no-stretched", "--max-rounds", "1")
    assert code == 0, err
    assert f"{tmp_path / 'run' / 'potential.pt'}: " in out
    # Without labels in round 0 there is nothing that the members could learn.
    assert load_potential(tmp_path / "run" / "round-0" / "member-1.pt").provenance.earlier == []
    made = load_potential(tmp_path / "run" / "potential.pt")
    splits = [member["data"]["split"] for member in made.provenance.members]
    before = [member["data"]["split"] for member in load_potential(both).provenance.members]
    assert splits == before
    assert splits[0] != splits[1]


def test_members_of_an_ensemble_are_the_potentials_it_was_made_of(water: Path, tmp_path: Path) -> None:
    files = [water / f"base-{seed}" / "potential.pt" for seed in (0, 1)]
    make_ensemble(files).save(tmp_path / "both.pt")
    frames = read_frames(water / "water.npz", allow_implausible=True).select(range(3))
    for file, member in zip(files, members_of(load_potential(tmp_path / "both.pt")), strict=True):
        alone, batch = load_potential(file), build_batch(frames, cutoff=member.cutoff)
        ours, theirs = member.predict(batch), alone.predict(batch)
        assert torch.equal(ours.energy, theirs.energy)
        assert torch.equal(ours.forces, theirs.forces)
        assert member.provenance.to_json() == alone.provenance.to_json()
    alone = load_potential(files[0])
    assert members_of(alone) == [alone]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature_K": "300,hot"}, "no list of numbers"),
        ({"temperature_K": "300,300"}, "names one twice"),
        ({"until_ps": 0.0}, "until_ps must be a number > 0"),
        ({"budget_labels": 0}, "budget_labels must be a whole number >= 1"),
        ({"n_members": 1}, "n_members must be a whole number >= 2"),
        ({"frame_interval_fs": 0.7}, "no multiple of timestep_fs"),
    ],
)
def test_options_are_checked_before_anything_is_read(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImproveOptions(**change)


def test_what_cannot_be_trained_here_is_refused() -> None:
    with pytest.raises(InputError, match=r"--set takes train\.KEY and data\.KEY"):
        improve_training(["model.width=64"])
    with pytest.raises(InputError, match=r"train\.forces=direct cannot be used here"):
        improve_training(["train.forces=direct"])
    with pytest.raises(InputError, match=r"set train\.fine_tuning_learning_rate=1e-3 instead"):
        improve_training(["train.learning_rate=1e-3"])
    train, data = improve_training(["train.n_steps=70", "data.isolated_atoms=atoms.xyz"])
    assert (train.n_steps, train.fine_tuning_learning_rate, data) == (70, 5e-4, {"isolated_atoms": "atoms.xyz"})


def test_another_level_of_theory_other_data_and_other_molecules_are_refused(water: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not the level of theory of water\.npz"):
        improve(tmp_path / "run", water, source=label_source("ase.calculators.emt:EMT"))
    with pytest.raises(InputError, match="was never trained on"):
        improve(tmp_path / "two", water, atoms=molecule("CH3OH"))
    others = tmp_path / "others"
    others.mkdir()
    start = frames_from_atoms([Atoms("OHH", positions=molecule("H2O").positions * 1.02)], name="water")
    sample_labels(start, label_source("xtb"), n_labels=27, temperature_K=300.0, seed=2, path=others / "water.npz")
    (others / "base-0").symlink_to(water / "base-0")
    with pytest.raises(InputError, match="is not what the potential was trained on"):
        improve(tmp_path / "three", others)
