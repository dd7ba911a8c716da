"""Pretraining on cheap labels: two stages in one run, resumable, told beside every figure, and it lowers the error."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cheap_springs
import numpy as np
import pytest
import torch
import yaml
from cheap_springs import reference_file
from interruptions import interrupt_at
from potentials import untrained_potential

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.cli.potentials import zoo_lines
from remul_md.datasets import make_split, read_frames
from remul_md.errors import InputError
from remul_md.labels import sampling
from remul_md.potentials.ensemble import make_ensemble
from remul_md.potentials.potential import load_potential
from remul_md.potentials.provenance import Provenance
from remul_md.potentials.zoo import describe_shipped
from remul_md.training.checkpoint import read_checkpoint, read_metrics
from remul_md.training.config import RunConfig, load_config, validated_config
from remul_md.training.train import train_potential

TINY = {"kind": "painn", "width": 8, "n_layers": 1, "n_radial": 5, "cutoff": 4.0}
SPRINGS = "cheap_springs:stiff_springs"
N_LABELS = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference_file(tmp_path_factory.mktemp("data") / "frames.xyz", n_frames=40)


def run_config(data: Path, *, pretrain: dict[str, Any] | None = None, **train: Any) -> RunConfig:
    steps = {"n_steps": 12, "batch_size": 3, "warmup_steps": 2, "validate_every": 5, "log_every": 4, "device": "cpu"}
    return validated_config(
        {
            "data": {"source": str(data), "n_train": 7, "n_validation": 5},
            "model": TINY,
            "train": steps | {"checkpoint_every": 4, "monitor_per_decade": 0} | train,
            "pretrain": {"method": SPRINGS, "n_labels": N_LABELS, "n_steps": 9} if pretrain is None else pretrain,
        },
        origin="test",
    )


def same_weights(one: Any, other: Any) -> bool:
    return all(torch.equal(value, other.model.state_dict()[name]) for name, value in one.model.state_dict().items())


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    cheap_springs.first_positions.clear()
    train_potential(run_config(data), run_dir=folder, progress=False)
    return folder


def test_both_stages_are_runs_of_their_own(pretrained: Path) -> None:
    for folder in (pretrained, pretrained / "pretrain"):
        assert {"config.yaml", "metrics.csv", "checkpoint.pt", "potential.pt"} <= {
            path.name for path in folder.iterdir()
        }
    assert read_checkpoint(pretrained / "pretrain" / "checkpoint.pt")["step"] == 9
    assert read_checkpoint(pretrained / "checkpoint.pt")["step"] == 12
    labels = read_frames(pretrained / "pretrain" / "labels.npz", require=("energy", "forces"))
    assert len(labels) == N_LABELS
    stage = yaml.safe_load((pretrained / "pretrain" / "config.yaml").read_text())
    assert (stage["data"]["source"], stage["data"]["n_train"], stage["data"]["n_validation"]) == ("labels.npz", 57, 3)
    assert stage["pretrain"]["method"] is None


def test_no_validation_frame_is_seen(pretrained: Path, data: Path) -> None:
    """Each walk starts at a training frame, and no other frame of the data comes near the labels."""
    frames = read_frames(data)
    split = make_split(frames, n_train=7, n_validation=5, seed=0)
    # The first call of the calculator of each walk, the one that was made to try the factory has none.
    began = {positions.tobytes() for positions in cheap_springs.first_positions}
    train = {frames.frame_positions(index).tobytes() for index in split.train}
    assert len(began) == N_LABELS // sampling.LABELS_PER_WALK
    assert began <= train
    record = load_potential(pretrained / "potential.pt").provenance.data["pretraining"]
    assert (
        record["initial_structures_sha256"]
        == replace(frames.select(split.train), energy=None, forces=None).content_hash()
    )


def test_the_provenance_tells_what_was_done(pretrained: Path) -> None:
    first, last = (load_potential(folder / "potential.pt") for folder in (pretrained / "pretrain", pretrained))
    labels = read_frames(pretrained / "pretrain" / "labels.npz")
    record = last.provenance.data["pretraining"]
    assert record == first.provenance.data["pretraining"]
    decided = {"method": SPRINGS, "n_labels": N_LABELS, "n_steps": 9, "temperature_K": 700.0, "seed": 0}
    assert {key: record[key] for key in decided} == decided
    assert record["geometries_sha256"] == replace(labels, energy=None, forces=None).content_hash()
    assert record["training_seconds"] == first.provenance.seconds > 0.0
    assert record["labelling_seconds"] > 0.0
    assert last.provenance.total_seconds == pytest.approx(
        last.provenance.seconds + record["labelling_seconds"] + record["training_seconds"]
    )
    assert last.provenance.origin == first.sha256
    assert last.provenance.pretraining == f"60 {SPRINGS} labels"
    assert Provenance(trained_forces="both").pretraining == ""


def test_the_second_stage_begins_where_the_first_ended(pretrained: Path, data: Path, tmp_path: Path) -> None:
    """It is a run with --init-from: the cheap surface lies 740 eV higher, and the references take that off."""
    first = pretrained / "pretrain" / "potential.pt"
    rates = [read_metrics(folder / "metrics.csv")[0]["learning_rate"] for folder in (first.parent, pretrained)]
    peaks = [
        rate / (0.5 + 0.5 * math.cos(math.pi / (n_steps - 2))) for rate, n_steps in zip(rates, (9, 12), strict=True)
    ]
    assert peaks == pytest.approx([6e-3, 1e-3])  # the second goes on gently
    by_hand = train_potential(run_config(data, pretrain={}), run_dir=tmp_path, init_from=first, progress=False)
    last = load_potential(pretrained / "potential.pt")
    assert same_weights(last, by_hand)
    assert torch.equal(last.reference_energies, by_hand.reference_energies)
    assert by_hand.provenance.pretraining == last.provenance.pretraining != ""  # also of what others began
    frames = read_frames(data)
    train = frames.select(make_split(frames, n_train=7, n_validation=5, seed=0).train)
    assert train.energy is not None
    origin = load_potential(first)
    counts = np.array([4, 1, 1])  # H, C, O
    zero = counts @ (last.reference_energies - origin.reference_energies).numpy()
    assert zero == pytest.approx(train.energy.mean() - counts @ origin.reference_energies.numpy(), abs=1e-6)
    assert zero == pytest.approx(-740.0, abs=2.0)


def test_a_run_stopped_in_every_part_ends_with_the_same_bits(
    pretrained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While labelling, in the first stage, in the second one."""
    config, folder = run_config(data), tmp_path / "run"
    original, n_walks = sampling.walk_from, 0

    def stopped(*arguments: Any, **options: Any) -> Any:
        nonlocal n_walks
        n_walks += 1
        if n_walks == 3:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(sampling, "walk_from", stopped)
    monkeypatch.setattr(sampling, "SAVE_INTERVAL_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train_potential(config, run_dir=folder, progress=False)
    assert len(read_frames(folder / "pretrain" / "labels.npz")) == 40
    with pytest.raises(InputError, match=re.escape("(--resume)")):
        train_potential(config, run_dir=folder, progress=False)
    more = run_config(data, pretrain={"method": SPRINGS, "n_labels": 80, "n_steps": 9})
    with pytest.raises(InputError, match=r"pretrain.n_labels was 60, now 80"):
        train_potential(more, run_dir=folder, resume=True, progress=False)
    n_walks = 10
    interrupt_at(6, monkeypatch)  # of the first stage
    with pytest.raises(KeyboardInterrupt):
        train_potential(config, run_dir=folder, resume=True, progress=False)
    assert n_walks == 11  # one walk was missing
    assert read_checkpoint(folder / "pretrain" / "checkpoint.pt")["step"] == 4
    monkeypatch.undo()
    interrupt_at(10, monkeypatch)  # the first stage has nine steps
    with pytest.raises(KeyboardInterrupt):
        train_potential(config, run_dir=folder, resume=True, progress=False)
    assert read_checkpoint(folder / "checkpoint.pt")["step"] == 8
    monkeypatch.undo()
    # The labels have served: neither they nor what made them is needed any more.
    (folder / "pretrain" / "labels.npz").unlink()
    monkeypatch.setattr("remul_md.labels.sources.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    resumed = train_potential(config, run_dir=folder, resume=True, progress=False)
    whole = load_potential(pretrained / "potential.pt")
    assert same_weights(whole, resumed)
    timed = ("labelling_seconds", "training_seconds")
    records = [potential.provenance.data["pretraining"] for potential in (whole, resumed)]
    left, right = ({key: value for key, value in record.items() if key not in timed} for record in records)
    assert left == right


def test_other_training_frames_are_refused(pretrained: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(pretrained, tmp_path / "run")
    shutil.copy(data, tmp_path / "frames.xyz")
    config = run_config(tmp_path / "frames.xyz")
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    written["data"]["source"] = str(tmp_path / "frames.xyz")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(written))
    reference_file(tmp_path / "frames.xyz", n_frames=40, seed=1)
    with pytest.raises(InputError, match=r"potential.pt: was pretrained around other training frames"):
        train_potential(config, run_dir=tmp_path / "run", resume=True, progress=False)


@pytest.mark.parametrize("forces", ["direct", "both"])
def test_other_heads_are_trained_in_both_stages(forces: str, data: Path, tmp_path: Path) -> None:
    potential = train_potential(run_config(data, forces=forces), run_dir=tmp_path, progress=False)
    stages = (potential.provenance, load_potential(tmp_path / "pretrain" / "potential.pt").provenance)
    assert [stage.trained_forces for stage in stages] == [forces, forces]
    assert [stage.config["train"]["n_steps"] for stage in stages] == [12, 9]


@pytest.mark.slow
def test_pretraining_on_a_related_surface_lowers_the_error(data: Path, tmp_path: Path) -> None:
    """Three frames, the same number of steps in all: the cheap forces are a fifth too large, and they still help."""
    frames = read_frames(data)
    split = make_split(frames, n_train=3, n_validation=5, seed=0)
    held_out = frames.select(sorted(set(range(40)) - set(split.train) - set(split.validation)))
    model = {"kind": "painn", "width": 24, "n_layers": 2, "n_radial": 8, "cutoff": 4.0}
    train = {"batch_size": 6, "warmup_steps": 10, "learning_rate": 4e-3, "ema_decay": 0.95, "validate_every": 25}
    # Matrices this small learn faster with AdamW, and the test need not last as long.
    train |= {"optimizer": "adamw", "beta": 0.0, "monitor_per_decade": 0, "device": "cpu"}
    errors = {}
    for name, n_steps, pretrain in (
        ("scratch", 200, {}),
        ("pretrained", 50, {"method": SPRINGS, "n_labels": 400, "n_steps": 150}),
    ):
        options = {
            "data": {"source": str(data), "n_train": 3, "n_validation": 5},
            "model": model,
            "train": train | {"n_steps": n_steps},
            "pretrain": pretrain,
        }
        config = validated_config(options, origin="test")
        potential = train_potential(config, run_dir=tmp_path / name, progress=False)
        errors[name] = evaluate_potential(potential, held_out, n_draws=2).force_mae_rotated
    assert errors["pretrained"] < 0.8 * errors["scratch"], errors


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pretrain.n_labels=500"], "pretrain.n_labels=500 .*pretrain.method"),
        (["pretrain.temperature_K=300"], "pretrain.temperature_K=300.0 .*pretrain.method"),
        (["pretrain.method=xtb", "pretrain.n_labels=19"], "pretrain.n_labels: .*20, got 19"),
        (["pretrain.method=dft"], "pretrain.method=dft .*MODULE:FACTORY"),
        (["pretrain.method='module:'"], "pretrain.method=module: is unknown"),
        (["pretrain.methods=xtb"], "did you mean pretrain.method"),
        (
            ["pretrain.method=xtb", "pretrain.n_steps=200"],
            r"pretrain.n_steps=200 .*train.warmup_steps \(200\)",
        ),
    ],
)
def test_options_that_go_against_each_other(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(None, overrides=overrides)


def test_two_answers_to_where_the_weights_start_are_refused(data: Path, tmp_path: Path) -> None:
    message = "--init-from ethanol .*pretrain.method=cheap_springs:stiff_springs"
    with pytest.raises(InputError, match=message):
        train_potential(run_config(data), run_dir=tmp_path / "run", init_from="ethanol", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_missing_method_is_named_before_data_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    config = run_config(tmp_path / "no_such_file.xyz", pretrain={"method": "xtb"})
    with pytest.raises(InputError, match=r"GFN2-xTB needs tblite"):
        train_potential(config, run_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_runs_without_pretraining_are_what_they_were() -> None:
    """The section at its defaults is no part of what a checkpoint is compared by."""
    assert "pretrain" not in load_config(None).model_dump(exclude_defaults=True)
    changed = load_config(None, overrides=["pretrain.method=xtb"]).model_dump(exclude_defaults=True)
    assert changed["pretrain"] == {"method": "xtb"}


def test_options_of_the_first_stage() -> None:
    config = load_config(
        None,
        overrides=[
            *("pretrain.method=xtb", "train.consistency_target=prediction"),
            *("train.unlabelled_batch_size=4", "data.unlabelled=mine.xyz", "train.learning_rate=2e-3"),
        ],
    )
    stage = config.pretrain.stage_of(config.train)
    assert (stage.learning_rate, config.train.learning_rate) == (2e-3, 2e-3)
    assert stage.n_steps == config.train.n_steps
    assert (stage.unlabelled_batch_size, stage.consistency_target) == (0, "prediction")


def test_a_ensemble_says_how_many_of_its_members(data: Path, tmp_path: Path) -> None:
    frames = read_frames(data)
    record = {"method": "GFN2-xTB", "n_labels": 20_000, "labelling_seconds": 200.0, "training_seconds": 30.0}
    paths = [tmp_path / f"{seed}.pt" for seed in range(3)]
    for seed, path in enumerate(paths):
        potential = untrained_potential(frames, seed=seed, energy_scale=0.02)
        own = {"name": "frames.xyz"} | ({"pretraining": record} if seed != 1 else {})
        replace(potential, provenance=replace(potential.provenance, data=own, seconds=7.0)).save(path)
    every = make_ensemble([paths[0], paths[2]]).provenance
    assert every.pretraining == "20,000 GFN2-xTB labels"
    assert every.total_seconds == 2 * 237.0
    make_ensemble(paths).save(tmp_path / "ensemble.pt")
    some = load_potential(tmp_path / "ensemble.pt").provenance
    assert some.pretraining == "20,000 GFN2-xTB labels (2 of 3 members)"


def test_commands_tell_of_it(
    cli: Callable[..., tuple[int, str, str]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    settings = [f"data.source={data}", "data.n_train=7", "data.n_validation=5", "train.n_steps=5", "train.device=cpu"]
    settings += [f"model.{name}={value}" for name, value in TINY.items()]
    settings += ["train.warmup_steps=1", "train.monitor_per_decade=0", "pretrain.n_labels=40"]
    options = [part for setting in settings for part in ("--set", setting)]
    code, out, err = cli("train", "--run-dir", tmp_path / "run", "--pretrain", SPRINGS, *options)
    assert code == 0, err
    told = f"40 {SPRINGS} labels"
    assert re.search(rf"of 5, \d+\.\d min; pretrained on {told}, \d+\.\d min\)", out)
    potential, figures = tmp_path / "run" / "potential.pt", tmp_path / "figures.json"
    code, out, err = cli("evaluate", potential, data, "--n-draws", "2", "--json", figures)
    assert code == 0, err
    assert re.search(rf"pretrained on +{told}\n", out)
    assert json.loads(figures.read_text())["pretraining"] == told


def test_the_zoo_tells_of_it() -> None:
    plain = describe_shipped(measure_latency=False)
    assert not any("pretrained on" in line for line in zoo_lines(plain))
    lines = zoo_lines([replace(plain[0], pretraining="20,000 GFN2-xTB labels"), replace(plain[0], name="other")])
    assert lines[0].endswith("pretrained on")
    assert lines[2].endswith("20,000 GFN2-xTB labels")
    assert lines[3].endswith("-")
