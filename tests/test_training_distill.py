"""From a potential to its direct head in one run: own dynamics, own labels, training; resumed, broken, refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import pattern
from potentials import molecule_frames, untrained_potential
from remul_md.calculators import RemulCalculator

from remul_md.datasets import read_frames
from remul_md.dynamics import read_trajectory
from remul_md.errors import InputError
from remul_md.labels.own_dynamics import start_positions, whole_frames
from remul_md.labels.sampling_options import Sampling
from remul_md.potentials.ensemble import make_ensemble
from remul_md.potentials.potential import load_potential
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch
from remul_md.training import fit as trainer
from remul_md.training.distill import Distilled, distill_direct_head, head_config

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]
# Six runs of seven geometries; the last run is held out.
SAMPLING = {"n_frames": 42, "n_replicas": 6, "frame_interval_fs": 5.0, "equilibrate_ps": 0.01, "seed": 3}
TRAINING = ("train.n_steps=12", "train.warmup_steps=2", "train.batch_size=5", "train.checkpoint_every=4")
TRAINING += ("train.monitor_per_decade=0", "train.device=cpu")
COMMAND = [
    *("--n-frames", "42", "--n-replicas", "6", "--frame-interval-fs", "5", "--equilibrate-ps", "0.01", "--seed", "3"),
    *(part for option in TRAINING for part in ("--set", option)),
]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def distill(
    folder: Path,
    *,
    calculator: Any = RemulCalculator,
    resume: bool = False,
    initial_structures: Frames | None = None,
    **sampling: Any,
) -> Distilled:
    return distill_direct_head(
        "ethanol",
        run_dir=folder,
        calculator=calculator,
        initial_structures=initial_structures,
        sampling=Sampling(**{**SAMPLING, **sampling}),
        config=head_config(TRAINING),
        resume=resume,
        progress=False,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("distilled") / "run"
    distill(folder)
    return folder


def test_one_command_makes_one_file_with_both_heads(cli: Run, done: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.pt"
    code, out, err = cli("distill", "ethanol", "--run-dir", tmp_path / "run", "--output", both, *COMMAND)
    assert code == 0, err
    assert f"{both}: direct forces taught on 35 geometries; on 7 of 7 held-out ones they differ" in out
    assert "force MAE, original / rotated" in out
    assert both.read_bytes() == (tmp_path / "run" / "potential.pt").read_bytes()
    first, made = load_potential("ethanol"), load_potential(both)
    for name, value in made.model.state_dict().items():
        assert torch.equal(value, load_potential(done / "potential.pt").model.state_dict()[name])  # as from Python
        assert name.startswith("direct_head.") != torch.equal(value, first.model.state_dict()[name]), name
    head = made.provenance.run_of("direct")
    assert made.provenance.trained_forces == "both"
    assert head["config"]["data"]["source"] == "labels.npz"  # no folder of this machine
    assert head["data"]["sampling"]["n_frames"] == 35
    assert head["data"]["sampling"]["final_temperature_K"] == 600.0
    assert head["metrics"]["held_out_force_mae_rotated_meV_per_A"] > 0.0
    # It is a potential like any other.
    code, out, err = cli("evaluate", both, tmp_path / "run" / "held-out.npz", "--forces", "direct", "--n-draws", "2")
    assert code == 0, err
    figure = head["metrics"]["held_out_force_mae_original_meV_per_A"]
    assert "7 frames, direct forces, 2 rotations a frame\n  force MAE, original / rotated " in out
    assert f" {figure:.2f} /" in out
    assert re.search(r"energy MAE, original / rotated +0\.00 /", out)  # labels and energies are one model
    short = ["--length-ps", "0.003", "--equilibrate-ps", "0", "--output", tmp_path / "direct.traj"]
    code, _, err = cli("md", both, "--structure", "ethanol", "--forces", "direct", *short)
    assert code == 0, err
    assert json.loads((tmp_path / "direct.json").read_text())["provenance"]["forces"] == "direct"


def test_labels_are_the_conservative_forces_of_its_own_dynamics(done: Path) -> None:
    teacher = load_potential("ethanol")
    labels, held_out = read_frames(done / "labels.npz"), read_frames(done / "held-out.npz")
    assert (len(labels), len(held_out)) == (35, 7)
    runs = [read_trajectory(done / "md" / f"run-{replica}.traj").positions for replica in range(6)]
    assert np.array_equal(labels.positions.reshape(35, 9, 3), np.concatenate(runs[:5]))
    assert np.array_equal(held_out.positions.reshape(7, 9, 3), runs[5])
    for frames in (labels, held_out):
        out = teacher.predict(build_batch(frames, cutoff=teacher.cutoff))
        assert out.forces is not None
        np.testing.assert_allclose(frames.forces, out.forces.double().numpy(), rtol=0, atol=1e-4)
    temperatures = [json.loads((done / "md" / f"run-{k}.json").read_text())["options"] for k in range(6)]
    assert {(each["temperature_K"], each["final_temperature_K"]) for each in temperatures} == {(300.0, 600.0)}


def test_runs_start_from_frames_of_a_data_set(tmp_path: Path) -> None:
    """Without equilibration the first frame of each run is a frame of the data, each of them once."""
    data = read_frames("rmd17/ethanol/train-01").select(range(40, 60))
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distill(folder, initial_structures=data, equilibrate_ps=0.0, calculator=StoppedAfter(8))
    with pytest.raises(
        InputError,
        match="initial_structures was 'rmd17/ethanol/train-01', now None",
    ):
        distill(folder, equilibrate_ps=0.0, resume=True)
    made = distill(folder, initial_structures=data, equilibrate_ps=0.0, resume=True)
    given = [positions.tobytes() for positions in data.positions.reshape(20, 9, 3)]
    first = [read_trajectory(folder / "md" / f"run-{replica}.traj").positions[0] for replica in range(6)]
    found = [given.index(positions.tobytes()) for positions in first]
    assert len(set(found)) == 6
    assert found != sorted(found)  # of a trajectory the first frames alone would be alike
    labels = read_frames(folder / "labels.npz").positions.reshape(5, 7, 9, 3)
    np.testing.assert_array_equal(labels[:, 0], first[:5])
    said = made.potential.provenance.direct_head["data"]["sampling"]
    geometries = replace(data, energy=None, forces=None)
    assert (said["initial_structures"], said["initial_structures_sha256"]) == (
        "rmd17/ethanol/train-01",
        geometries.content_hash(),
    )


def test_starts_are_whole_frames_of_the_molecule() -> None:
    reference = load_potential("ethanol").domain
    data = read_frames("rmd17/ethanol/train-01").select(range(4))
    drawn = start_positions(data, reference, n_replicas=10, seed=5)
    assert drawn.shape == (10, 9, 3)
    given = [positions.tobytes() for positions in data.positions.reshape(4, 9, 3)]
    order = [given.index(positions.tobytes()) for positions in drawn]
    assert sorted(order[:4]) == [0, 1, 2, 3]
    assert order == (order[:4] * 3)[:10]
    assert not np.array_equal(drawn, start_positions(data, reference, n_replicas=10, seed=6))
    broken = data.positions.copy()
    broken[2 * 9 + 8] += 3.0
    swapped = data.atomic_numbers.copy()
    swapped[[9, 11]] = swapped[[11, 9]]
    assert swapped[9] != data.atomic_numbers[9]
    for changed, message in (
        ({"positions": broken}, r"frame 2 .*bond \d-8"),
        ({"atomic_numbers": swapped}, "atoms of frame 1 .*order"),
        ({"pbc": np.ones((4, 3), dtype=bool)}, "has cells"),
    ):
        with pytest.raises(InputError, match=message):
            start_positions(replace(data, **changed), reference, n_replicas=3, seed=0)


class StoppedAfter:
    """The calculator of a run that is interrupted after so many calls of all its replicas."""

    def __init__(self, n_calls: int) -> None:
        self.n_calls = n_calls

    def __call__(self, potential: Any, **options: Any) -> RemulCalculator:
        calculator = RemulCalculator(potential, **options)
        copies = calculator.copies

        def interrupted_copies(atoms: Any, *, n_copies: int) -> Any:
            evaluate = copies(atoms, n_copies=n_copies)

            def call(positions: Any) -> Any:
                self.n_calls -= 1
                if self.n_calls == 0:
                    raise KeyboardInterrupt
                return evaluate(positions)

            return call

        calculator.copies = interrupted_copies  # type: ignore[method-assign]
        return calculator


def test_an_interrupted_run_goes_on_with_the_same_bits(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        distill(tmp_path, calculator=StoppedAfter(25))
    assert not (tmp_path / "labels.npz").exists()
    with pytest.raises(InputError, match=r"distill\.json' exists already"):
        distill(tmp_path)
    with pytest.raises(InputError, match=r"frame_interval_fs was 5\.0, now 10\.0"):
        distill(tmp_path, resume=True, frame_interval_fs=10.0)
    step = trainer.train_step

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if arguments[0].step == 9:
            raise KeyboardInterrupt
        return step(*arguments, **options)

    monkeypatch.setattr(trainer, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distill(tmp_path, resume=True)
    monkeypatch.undo()
    assert (tmp_path / "labels.npz").read_bytes() == (done / "labels.npz").read_bytes()
    for trajectory in (tmp_path / "md").glob("*.traj"):
        trajectory.unlink()  # what is labelled is not sampled again
    resumed = distill(tmp_path, resume=True)
    whole = load_potential(done / "potential.pt")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.potential.model.state_dict()[name]), name
    again = distill(tmp_path, resume=True)  # a finished run gives its result
    assert again.accuracy == resumed.accuracy
    assert again.potential.provenance.direct_head["data"] == resumed.potential.provenance.direct_head["data"]
    with pytest.raises(InputError, match="another potential"):
        distill_direct_head(
            done / "potential.pt",
            run_dir=tmp_path,
            calculator=RemulCalculator,
            sampling=Sampling(**SAMPLING),
            resume=True,
        )


def torn(potential: Any, **options: Any) -> RemulCalculator:
    """A calculator that pulls at hydrogen 8 of replica 1, and stops replica 4, both after 25 calls."""
    calculator = RemulCalculator(potential, **options)
    copies = calculator.copies

    def faulty_copies(atoms: Any, *, n_copies: int) -> Any:
        evaluate = copies(atoms, n_copies=n_copies)

        def call(positions: Any) -> Any:
            energies, forces = evaluate(positions)
            forces = forces.copy()
            if call.n_calls > 25:  # type: ignore[attr-defined]
                forces[1, 8] += 20.0 * (positions[1, 8] - positions[1, 2])
                forces[4] = np.nan
            call.n_calls += 1  # type: ignore[attr-defined]
            return energies, forces

        call.n_calls = 0  # type: ignore[attr-defined]
        return call

    calculator.copies = faulty_copies  # type: ignore[method-assign]
    return calculator


def test_frames_of_a_broken_molecule_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = distill(tmp_path, calculator=torn)
    tearing, stopping = made.broken
    found = re.fullmatch(
        r"replica 1: (\d) of its (\d) frames are left out: bond (\d)-8 is more .* in frame (\d)", tearing
    )
    assert found is not None, tearing
    n_left_out, n_run, _, first = map(int, found.groups())
    assert 0 < first < n_run == first + n_left_out
    assert re.match(r"replica 4: stopped at step \d+ .* forces are not finite", stopping)
    assert tearing in caplog.text
    assert made.n_held_out == 7
    labels = read_frames(tmp_path / "labels.npz")
    run = read_trajectory(tmp_path / "md" / "run-4.traj").positions
    assert len(labels) == made.n_frames == 3 * 7 + first + len(run)
    reference = load_potential("ethanol").domain
    for positions in labels.positions.reshape(-1, 9, 3):
        assert whole_frames(positions[None], reference) == (1, "")
    assert made.potential.provenance.direct_head["data"]["sampling"]["broken"] == [tearing, stopping]
    with pytest.raises(InputError, match=r"0 of 6 runs .*--final-temperature-K \(now 600\)"):
        distill(tmp_path / "all", calculator=all_torn)


def all_torn(potential: Any, **options: Any) -> RemulCalculator:
    """A calculator under which no run survives equilibration."""
    calculator = RemulCalculator(potential, **options)

    def exploding_copies(atoms: Any, *, n_copies: int) -> Any:
        return lambda positions: (np.zeros(n_copies), 100.0 * (positions - positions.mean(1, keepdims=True)))

    calculator.copies = exploding_copies  # type: ignore[method-assign]
    return calculator


def test_whole_frames_end_where_a_bond_is_off() -> None:
    reference = replace(
        load_potential("ethanol").domain, bonds=[[0, 1], [1, 2]], bond_min=[1.4, 0.9], bond_max=[1.6, 1.1]
    )
    frame = np.array([[0.0, 0, 0], [1.5, 0, 0], [2.5, 0, 0]])
    positions = np.stack([frame] * 5)
    assert whole_frames(positions, reference) == (5, "")
    positions[3, 2, 0] = 3.01  # 1.51 from its neighbour, 0.51 from the middle of its range
    n_whole, why = whole_frames(positions, reference)
    assert n_whole == 3
    assert why == "bond 1-2 is more than 0.5 Angstrom off in frame 3"
    positions[3, 2, 0] = 2.99
    assert whole_frames(positions, reference) == (5, "")


def test_what_cannot_be_distilled_is_refused(tmp_path: Path) -> None:
    frames = molecule_frames()
    one = frames.select([0])
    cells = replace(one, cell=np.array([9.0 * np.eye(3)]), pbc=np.ones((1, 3), dtype=bool))
    for name, potential in (
        ("direct", untrained_potential(one, trained_forces="direct")),
        ("two", untrained_potential(frames)),
        ("cells", untrained_potential(cells)),
        ("first", untrained_potential(one, seed=1)),
        ("second", untrained_potential(one, seed=2)),
    ):
        potential.save(tmp_path / f"{name}.pt")
    members = [tmp_path / "first.pt", tmp_path / "second.pt"]
    make_ensemble(members).save(tmp_path / "ensemble.pt")
    for name, message in (
        ("direct", "direct forces only"),
        ("two", "knows 2 compositions.*`remul-md label`"),
        ("cells", "has periodic cells.*`remul-md label`"),
        ("ensemble", "ensemble of 2"),
    ):
        with pytest.raises(InputError, match=message):
            distill_direct_head(tmp_path / f"{name}.pt", run_dir=tmp_path / "run", calculator=RemulCalculator)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_replicas": 1}, "replicas, .*got 1"),
        ({"n_frames": 11}, r"n_frames \(11\) .*replicas \(6\)"),
        ({"frame_interval_fs": 2.5}, r"frame_interval_fs 2\.5 .*timestep_fs 1\.0"),
        ({"temperature_K": -1.0}, "temperature_K .*got -1"),
    ],
)
def test_sampling_is_checked_when_it_is_asked_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**{**SAMPLING, **options})


def test_mistakes_are_one_line(cli: Run, tmp_path: Path, done: Path) -> None:
    folder = ("--run-dir", tmp_path / "run")
    for arguments, message in (
        (("distill", "ethanol", *folder, "--output", tmp_path / "both.traj"), "must end in .pt"),
        (("distill", "ethanol", *folder, "--set", "data.n_train=5"), "--set takes train.KEY=VALUE here, got"),
        (("distill", "ethanol", *folder, "--set", "train.trained=all"), "train.trained=all changes energies too"),
        (("distill", "ethanol", *folder, "--set", "train.n_step=5"), "did you mean train.n_steps?"),
        (("distill", "ethanl", *folder), "not shipped"),
        (
            ("distill", "ethanol", *folder, "--initial-structures", "rmd17/benzene/train-01"),
            "are not the potential's molecule",
        ),
        (("distill", "ethanol", "--run-dir", done), "exists already ... --resume"),
        (
            ("distill", "ethanol", "--run-dir", done, "--output", done / "checkpoint.pt", "--resume"),
            "lies in the folder of",
        ),
        (("distill", done / "potential.pt", *folder, "--output", done / "potential.pt"), "is read by this command"),
    ):
        code, out, err = cli(*arguments)
        assert code == 2, err
        assert re.search(pattern(message), " ".join(err.split())), err
        assert "Traceback" not in out + err
    assert not list(tmp_path.iterdir())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").touch()
    code, _, err = cli("distill", "ethanol", *folder, "--resume")
    assert code == 2
    assert "no distill.json" in err
