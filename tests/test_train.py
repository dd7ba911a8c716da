"""From a config to a potential on real frames: what a run writes, what it learns, what it refuses."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from potentials import untrained_potential

from remul_md.datasets import make_split, read_frames
from remul_md.datasets.isolated_atoms import packaged_isolated_atoms
from remul_md.errors import InputError
from remul_md.files import save_tensors
from remul_md.models.short_range import reaches
from remul_md.models.transformer import Transformer, TransformerConfig
from remul_md.potentials.baseline import binding_energies, fit_reference_energies
from remul_md.potentials.domain import shortest_distances
from remul_md.potentials.potential import Potential, load_potential
from remul_md.structures.batch import BatchStore
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import random_rotations, rotate_batch, rotate_vectors
from remul_md.training import fit as trainer
from remul_md.training.checkpoint import read_checkpoint, read_metrics
from remul_md.training.config import PUBLISHED, RunConfig, validated_config
from remul_md.training.objectives import mean_over_systems
from remul_md.training.schedule import frame_order
from remul_md.training.train import train_potential
from remul_md.training.validation import RotatedValidation

pytestmark = pytest.mark.slow

SMALL_MODEL = {"width": 32, "n_layers": 2, "n_heads": 4, "pair_width": 24, "n_radial": 10, "n_tensors": 8}
TINY_MODEL = {"width": 8, "n_layers": 1, "n_heads": 2, "pair_width": 6, "n_radial": 5, "n_tensors": 3}


def run_config(*, data: dict[str, Any] | None = None, model: dict[str, Any] = TINY_MODEL, **train: Any) -> RunConfig:
    steps = {"n_steps": 12, "batch_size": 3, "warmup_steps": 2, "validate_every": 5, "log_every": 4, "device": "cpu"}
    return validated_config(
        {
            "data": {"n_train": 17, "n_validation": 5} | ({"molecule": "ethanol"} if data is None else data),
            "model": model,
            "train": steps | {"checkpoint_every": 6} | train,
        },
        origin="test",
    )


def symmetry_and_accuracy(potential: Potential, frames: Frames) -> tuple[float, float, float]:
    """Rotational error, force MAE and RMS predicted force on these frames, eV/Angstrom."""
    batch = build_batch(frames, cutoff=potential.cutoff)
    rotations = random_rotations(len(frames), generator=torch.Generator().manual_seed(9))
    original = potential.predict(batch).forces
    rotated = potential.predict(rotate_batch(batch, rotations)).forces
    assert original is not None
    assert rotated is not None
    assert batch.forces is not None
    error = (rotated - rotate_vectors(original, rotations, system_index=batch.system_index)).abs().mean().item()
    return error, (original - batch.forces).abs().mean().item(), original.square().mean().sqrt().item()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training that does learn: the folder of the run."""
    folder = tmp_path_factory.mktemp("trained") / "deep" / "run"
    config = run_config(
        data={"molecule": "ethanol", "n_train": 300, "n_validation": 20},
        model=SMALL_MODEL,
        n_steps=200,
        batch_size=8,
        warmup_steps=20,
        learning_rate=5e-3,
        ema_decay=0.95,
        validate_every=50,
        checkpoint_every=50,
        log_every=25,
    )
    train_potential(config, run_dir=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def ethanol() -> Frames:
    return read_frames("rmd17/ethanol/test-01").select(range(13))


def test_a_run_writes_what_it_promises(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    files = {"config.yaml", "metrics.csv", "symmetry.csv", "symmetry.png", "checkpoint.pt", "potential.pt"}
    assert names == {*files, "tensorboard"}
    written = yaml.safe_load((trained / "config.yaml").read_text())
    assert written["train"]["n_steps"] == 200
    assert written["train"]["group"] == "O3"  # a default: the resolved config is written, not what was given
    assert validated_config(written, origin="written").train.batch_size == 8
    rows = read_metrics(trained / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(25, 201, 25))
    assert [row["step"] for row in rows if "validation_force_mae" in row] == [50, 100, 150, 200]
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    board = events.Scalars("validation_force_mae")
    assert [event.step for event in board] == [50, 100, 150, 200]
    assert board[-1].value == pytest.approx(rows[-1]["validation_force_mae"], rel=1e-5)


def test_training_learns_forces_and_rotations(trained: Path, ethanol: Frames, tmp_path: Path) -> None:
    """On frames never seen: the rotational error falls in units of the forces the model gives."""
    untrained = train_potential(
        run_config(model=SMALL_MODEL, n_steps=1, warmup_steps=0), run_dir=tmp_path / "a", progress=False
    )
    untrained_error, untrained_mae, untrained_rms = symmetry_and_accuracy(untrained, ethanol)
    error, mae, rms = symmetry_and_accuracy(load_potential(trained / "potential.pt"), ethanol)
    assert ethanol.forces is not None
    label_rms = np.sqrt(np.square(ethanol.forces).mean())
    assert error / rms < 0.25 * untrained_error / untrained_rms
    assert error < 0.1 * label_rms
    assert mae < 0.65 * untrained_mae
    rows = read_metrics(trained / "metrics.csv")
    assert rows[-1]["task"] < 0.65 * rows[0]["task"]
    assert ["equivariance" in row for row in rows] == [row["step"] > 160 for row in rows]  # the last fifth


def test_a_run_of_the_published_losses_is_a_plain_loop_over_the_two(tmp_path: Path) -> None:
    """Bit for bit, 20 steps: options that are off and figures that are logged change nothing."""
    config = run_config(n_steps=20, warmup_steps=5, checkpoint_every=20, optimizer="adamw", **PUBLISHED)
    train_potential(config, run_dir=tmp_path, progress=False)
    found = read_checkpoint(tmp_path / "checkpoint.pt")["model"]
    options, frames = config.train, read_frames("rmd17/ethanol/train-01")
    split = make_split(frames, n_train=17, n_validation=5, seed=0)
    train = frames.select(split.train)
    assert train.forces is not None
    scale = float(np.sqrt(np.square(train.forces).mean()))
    atoms = packaged_isolated_atoms("rmd17/ethanol/train-01")
    assert atoms is not None
    references = fit_reference_energies(train, (1, 6, 8), isolated_eV=atoms.energies_eV)
    batch = build_batch(train, cutoff=6.0)
    assert batch.energy is not None
    assert batch.forces is not None
    # The references in the order in which the trainer takes them off: the last bit of a sum depends on it.
    shift = torch.zeros(17, dtype=torch.float64)
    shift.index_add_(
        0, batch.system_index, references[torch.searchsorted(torch.tensor([1, 6, 8]), batch.atomic_numbers)]
    )
    store = BatchStore(replace(batch, energy=(batch.energy - shift).float(), forces=batch.forces.float()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = Transformer(TransformerConfig(species=(1, 6, 8), energy_scale=scale, **TINY_MODEL))
    model.set_short_range(
        binding=binding_energies(references, (1, 6, 8), isolated_eV=atoms.energies_eV),
        reach=reaches((1, 6, 8), shortest_distances(train)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.05, fused=True)
    generator = torch.Generator().manual_seed(options.seed)
    for step in range(20):
        chosen = store.select(frame_order(step, n_frames=17, batch_size=3, seed=0))
        rotations = random_rotations(3, generator=generator, group="O3")
        orientations = rotate_batch(
            chosen.repeated(2), torch.cat([torch.eye(3, dtype=torch.float64).expand(3, 3, 3), rotations])
        )
        out = model(orientations, forces="conservative", create_graph=True)
        assert orientations.forces is not None
        lengths = ((out.forces - orientations.forces).square().sum(1) + (1e-6 * scale) ** 2).sqrt()
        total = 0.02 * (out.energy - orientations.energy).abs() + mean_over_systems(
            lengths, orientations.system_index, n_systems=6
        )
        original, rotated = (total / scale).view(2, 3).unbind()
        optimizer.zero_grad()
        (original.mean() + rotated.mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.max_grad_norm)
        optimizer.param_groups[0]["lr"] = trainer.learning_rate(step, options)
        optimizer.step()
    for name, weight in model.state_dict().items():
        assert torch.equal(found[name], weight), name


def test_provenance_says_where_the_weights_come_from(trained: Path) -> None:
    potential = load_potential(trained / "potential.pt")
    frames = read_frames("rmd17/ethanol/train-01")
    split = make_split(frames, n_train=300, n_validation=20, seed=0)
    provenance = potential.provenance
    atoms = packaged_isolated_atoms(frames.name)
    assert atoms is not None
    assert provenance.data == {
        "name": frames.name,
        "split": json.loads(json.dumps(split.to_json())),
        "isolated_atoms": atoms.to_json(),
    }
    assert provenance.data["split"]["data_hash"] == frames.content_hash()
    assert provenance.config == yaml.safe_load((trained / "config.yaml").read_text())
    assert provenance.trained_forces == "conservative"
    assert provenance.seconds > 0.1
    assert provenance.origin == ""
    metrics = provenance.metrics
    rows = read_metrics(trained / "metrics.csv")
    validations = {int(row["step"]): row["validation_force_mae"] for row in rows if "validation_force_mae" in row}
    assert metrics["last_step"] == 200
    assert metrics["validation_force_mae_meV_per_A"] == min(validations.values()) == validations[metrics["best_step"]]
    assert [row["step"] for row in metrics["history"]] == [50, 100, 150, 200]
    train = frames.select(split.train)
    assert train.forces is not None
    assert metrics["force_scale_eV_per_A"] == pytest.approx(float(np.sqrt(np.square(train.forces).mean())))
    assert potential.species == (1, 6, 8)


def test_the_potential_has_the_validation_error_it_claims(trained: Path) -> None:
    """Recomputed from the file on the frames of its split: the same in the trainer's orientations, close in others."""
    potential = load_potential(trained / "potential.pt")
    split = potential.provenance.data["split"]
    claimed = potential.provenance.metrics["validation_force_mae_meV_per_A"]
    assert not set(split["validation"]) & set(split["train"])
    errors = []
    for role in ("validation", "train"):
        frames = read_frames("rmd17/ethanol/train-01").select(split[role][:20])
        batch = build_batch(frames, cutoff=potential.cutoff)
        assert batch.energy is not None
        references = torch.zeros_like(batch.energy).index_add(0, batch.system_index, potential.atomic_references(batch))
        residual = replace(batch, energy=batch.energy - references)
        errors.append(RotatedValidation(residual, forces="conservative")(potential.model))
        if role == "validation":
            assert 1000 * symmetry_and_accuracy(potential, frames)[1] == pytest.approx(claimed, rel=0.1)
    assert errors[0]["score"] == errors[0]["validation_force_mae"] == pytest.approx(claimed, rel=1e-5)
    assert errors[1]["score"] != pytest.approx(claimed, rel=1e-3)
    history = potential.provenance.metrics["history"]
    best = next(row for row in history if row["step"] == potential.provenance.metrics["best_step"])
    assert errors[0]["validation_energy_mae"] == pytest.approx(best["validation_energy_mae"], rel=1e-3)


@pytest.mark.parametrize("forces", ["direct", "both"])
def test_other_heads_train_and_are_recorded(tmp_path: Path, forces: str) -> None:
    potential = train_potential(run_config(forces=forces), run_dir=tmp_path, progress=False)
    assert potential.provenance.trained_forces == forces
    assert potential.resolve_forces("auto") == ("direct" if forces == "direct" else "conservative")


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({"alpha": 0.0, "n_rotated": 2}, {"equivariance"}),
        ({"beta": 0.0}, {"task"}),
        ({"equivariance_from": 0.0, "group": "SO3"}, {"task", "equivariance"}),
    ],
)
def test_options_decide_which_losses_there_are(tmp_path: Path, options: dict[str, Any], columns: set[str]) -> None:
    train_potential(run_config(**options), run_dir=tmp_path, progress=False)
    for row in read_metrics(tmp_path / "metrics.csv"):
        assert row.keys() & {"task", "equivariance"} == columns


def test_callers_random_state_and_the_data_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(31)
    before = torch.get_rng_state()
    first = train_potential(run_config(), run_dir=tmp_path / "a", progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(32)
    second = train_potential(run_config(), run_dir=tmp_path / "b", progress=False)
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_potential(run_config(), run_dir=tmp_path, progress=False)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(InputError, match=r"exists already; .*--resume"):
        train_potential(run_config(), run_dir=tmp_path, progress=False)
    message = r"train\.beta was 10\.0, now 0\.5; train\.seed was 0, now 3"
    with pytest.raises(InputError, match=message):
        train_potential(run_config(beta=0.5, seed=3), run_dir=tmp_path, resume=True, progress=False)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    # Finished: nothing to do, and by another version of the package neither. Other runs may have started from the file.
    monkeypatch.setattr("remul_md.training.train.source_commit", lambda: "another")
    again = train_potential(run_config(), run_dir=tmp_path, resume=True, progress=False)
    assert again.provenance.metrics["last_step"] == 12
    assert (tmp_path / "potential.pt").read_bytes() == before[tmp_path / "potential.pt"]


def test_a_start_that_failed_over_data_does_not_block_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are 1000"):
        train_potential(run_config(data={"n_train": 2000}), run_dir=tmp_path, progress=False)
    potential = train_potential(run_config(), run_dir=tmp_path, progress=False)
    assert potential.provenance.config == yaml.safe_load((tmp_path / "config.yaml").read_text())


@pytest.mark.parametrize("name", ["potential.pt", "metrics.csv", "checkpoint.pt"])
def test_files_of_another_origin_are_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("dear to someone")
    with pytest.raises(InputError, match="exists already"):
        train_potential(run_config(), run_dir=tmp_path, progress=False)
    with pytest.raises(InputError, match=r"no config\.yaml of it; .*--run-dir"):
        train_potential(run_config(), run_dir=tmp_path, resume=True, progress=False)
    assert (tmp_path / name).read_text() == "dear to someone"


def ethanol_file(path: Path, *, shift: float = 0.0, n_frames: int = 40) -> str:
    """Packaged frames as an extended xyz file, energies shifted, eV."""
    frames = read_frames("rmd17/ethanol/train-01")
    assert frames.energy is not None
    assert frames.forces is not None
    structures = []
    for index in range(n_frames):
        atoms = frames.atoms(index)
        atoms.calc = SinglePointCalculator(
            atoms, energy=frames.energy[index] + shift, forces=frames.forces[9 * index : 9 * index + 9]
        )
        structures.append(atoms)
    write(path, structures)
    return str(path)


def test_resuming_on_other_data_is_refused(tmp_path: Path) -> None:
    source = ethanol_file(tmp_path / "data.xyz")
    config = run_config(data={"source": source})
    train_potential(config, run_dir=tmp_path / "run", progress=False)
    ethanol_file(tmp_path / "data.xyz", shift=0.25)
    with pytest.raises(InputError, match=r"another config or data; .*--run-dir"):
        train_potential(config, run_dir=tmp_path / "run", resume=True, progress=False)


def test_data_are_known_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ethanol_file(tmp_path / "data.xyz")
    made = train_potential(run_config(data={"source": "data.xyz"}), run_dir="run", progress=False)
    (tmp_path / "moved").mkdir()
    (tmp_path / "data.xyz").rename(tmp_path / "moved" / "other.xyz")
    for source in ("moved/other.xyz", "./moved/other.xyz", str(tmp_path / "moved" / "other.xyz")):
        again = train_potential(run_config(data={"source": source}), run_dir="./run", resume=True, progress=False)
        assert again.provenance.metrics["last_step"] == made.provenance.metrics["last_step"]
    ethanol_file(tmp_path / "data.xyz", shift=0.25)
    with pytest.raises(InputError, match="another config or data"):
        train_potential(run_config(data={"source": "./data.xyz"}), run_dir="run", resume=True, progress=False)
    (tmp_path / "run" / "checkpoint.pt").unlink()  # then nothing but the file of the record tells which data it was
    with pytest.raises(InputError, match=r"data\.source was 'data\.xyz', now 'moved/other\.xyz'"):
        train_potential(run_config(data={"source": "moved/other.xyz"}), run_dir="run", resume=True, progress=False)


def test_a_run_is_not_extended_and_says_why(tmp_path: Path) -> None:
    train_potential(run_config(), run_dir=tmp_path, progress=False)
    with pytest.raises(InputError, match=r"train\.n_steps was 12, now 24.*--init-from"):
        train_potential(run_config(n_steps=24), run_dir=tmp_path, resume=True, progress=False)


@pytest.mark.parametrize(("trained_part", "peak"), [("all", 3e-4), ("direct-head", 8e-3)])
def test_trained_weights_have_a_learning_rate_of_their_own(
    trained: Path, tmp_path: Path, trained_part: str, peak: float
) -> None:
    """A part that is trained alone begins anew, so the rate of fresh weights counts there."""
    rates = {"learning_rate": 8e-3, "fine_tuning_learning_rate": 3e-4, "warmup_steps": 1, "log_every": 1}
    head = {} if trained_part == "all" else {"forces": "direct", "energy_weight": 0.02}
    config = run_config(model={}, n_steps=4, **rates, trained=trained_part, **head)
    train_potential(config, run_dir=tmp_path, init_from=trained / "potential.pt", progress=False)
    assert read_metrics(tmp_path / "metrics.csv")[0]["learning_rate"] == peak
    assert read_metrics(trained / "metrics.csv")[0]["learning_rate"] > 1e-3  # fresh weights


def test_a_resumed_run_knows_what_it_started_from(trained: Path, tmp_path: Path) -> None:
    """Killed before its first checkpoint it would else begin again from random weights, without a word."""
    origin, folder = tmp_path / "origin.pt", tmp_path / "run"
    origin.write_bytes((trained / "potential.pt").read_bytes())
    config = run_config(model=SMALL_MODEL, n_steps=3)
    first = train_potential(config, run_dir=folder, init_from=origin, progress=False)
    for name in ("checkpoint.pt", "potential.pt"):
        (folder / name).unlink()
    again = train_potential(config, run_dir=folder, resume=True, progress=False)
    assert again.provenance.origin == first.provenance.origin == load_potential(origin).sha256
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
    (tmp_path / "other.pt").write_bytes((folder / "potential.pt").read_bytes())
    with pytest.raises(InputError, match="init_from_sha256 was"):
        train_potential(config, run_dir=folder, init_from=tmp_path / "other.pt", resume=True)
    (tmp_path / "copy.pt").write_bytes(origin.read_bytes())
    train_potential(config, run_dir=folder, init_from=tmp_path / "copy.pt", resume=True, progress=False)


def test_a_run_is_replaced_when_told_to_but_none_of_its_inputs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train_potential(run_config(), run_dir=folder, progress=False)
    (folder / "notes.txt").write_text("of the user")
    before = (folder / "potential.pt").read_bytes()
    with pytest.raises(InputError, match="is read by this command"):
        train_potential(run_config(), run_dir=folder, init_from=folder / "potential.pt", overwrite=True)
    assert (folder / "potential.pt").read_bytes() == before
    train_potential(run_config(seed=5), run_dir=folder, overwrite=True, progress=False)
    assert (folder / "potential.pt").read_bytes() != before
    assert yaml.safe_load((folder / "config.yaml").read_text())["train"]["seed"] == 5
    assert (folder / "notes.txt").read_text() == "of the user"


def test_a_config_of_the_users_own_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {molecule: ethanol}  # my comments\n")
    with pytest.raises(InputError, match=r"config\.yaml: .* is not replaced"):
        train_potential(run_config(), run_dir=tmp_path, progress=False)
    assert "my comments" in (tmp_path / "config.yaml").read_text()


def test_fine_tuning_starts_where_the_potential_stands(trained: Path, tmp_path: Path) -> None:
    """Frames of another energy zero: the shift goes into the references, and the first validation is a good one."""
    source = ethanol_file(tmp_path / "shifted.xyz", shift=123.0)
    # A learning rate that changes next to nothing: what validates is what the run began with.
    rates = {"learning_rate": 1e-9, "fine_tuning_learning_rate": 1e-9}
    config = run_config(data={"source": source}, model=SMALL_MODEL, n_steps=3, validate_every=1, **rates)
    tuned = train_potential(config, run_dir=tmp_path / "tuned", init_from=trained / "potential.pt", progress=False)
    scratch = train_potential(config, run_dir=tmp_path / "scratch", progress=False)
    origin = load_potential(trained / "potential.pt")
    first, first_scratch = (read_metrics(tmp_path / name / "metrics.csv")[0] for name in ("tuned", "scratch"))
    assert first["validation_force_mae"] < 0.65 * first_scratch["validation_force_mae"]
    assert first["validation_energy_mae"] < 500.0  # meV; without the references it would be 123,000
    frames = read_frames(source)
    batch = build_batch(frames, cutoff=origin.cutoff)
    shift = (tuned.predict(batch).energy - origin.predict(batch).energy).numpy()  # type: ignore[operator]
    # The mean residual of the origin on the 17 training frames comes on top of the shift.
    assert shift == pytest.approx(np.full(40, shift[0]), abs=1e-3)
    assert shift[0] == pytest.approx(123.0, abs=0.2)
    assert tuned.provenance.origin == origin.sha256 != ""
    assert scratch.provenance.origin == ""
    assert scratch.provenance.earlier == []
    assert tuned.provenance.earlier == [origin.provenance.run_of("conservative")]
    assert tuned.provenance.total_seconds == tuned.provenance.seconds + origin.provenance.seconds


def test_fine_tuning_refuses_unknown_elements(trained: Path, tmp_path: Path) -> None:
    frames = read_frames("rmd17/ethanol/train-01").select(range(30))
    assert frames.energy is not None
    assert frames.forces is not None
    with_sulfur = replace(frames, atomic_numbers=np.where(frames.atomic_numbers == 8, 16, frames.atomic_numbers))
    structures = []
    for index in range(30):
        atoms = with_sulfur.atoms(index)
        forces = frames.forces[9 * index : 9 * index + 9]
        atoms.calc = SinglePointCalculator(atoms, energy=frames.energy[index], forces=forces)
        structures.append(atoms)
    write(tmp_path / "thiol.xyz", structures)
    config = run_config(data={"source": str(tmp_path / "thiol.xyz"), "allow_implausible": True}, model={})
    message = re.escape("--init-from knows the elements (1, 6, 8), the data hold (1, 6, 16); train from scratch")
    with pytest.raises(InputError, match=message):
        train_potential(config, run_dir=tmp_path / "run", init_from=trained / "potential.pt", progress=False)


def test_more_frames_than_there_are(tmp_path: Path) -> None:
    config = run_config(data={"molecule": "ethanol", "n_train": 990, "n_validation": 20})
    message = r"990 training \+ 20 validation frames, .*1000; lower n_train or n_validation"
    with pytest.raises(InputError, match=message):
        train_potential(config, run_dir=tmp_path, progress=False)


@pytest.mark.parametrize("label", ["energy", "forces"])
def test_labels_that_are_not_finite(tmp_path: Path, label: str) -> None:
    source = read_frames("rmd17/ethanol/train-01").select(range(30))
    assert source.energy is not None
    assert source.forces is not None
    content: dict[str, Any] = {"E": source.energy.copy(), "F": source.forces.reshape(30, 9, 3).copy()}
    content["E" if label == "energy" else "F"][21] = np.nan
    path = tmp_path / "labels.npz"
    np.savez(path, R=source.positions.reshape(30, 9, 3), z=source.atomic_numbers[:9], **content)
    config = run_config(data={"source": str(path), "energy_unit": "eV", "length_unit": "Angstrom"})
    with pytest.raises(InputError, match=rf"labels.npz.*(?i:{label}|\b{label[0]}\b).*finite"):
        train_potential(config, run_dir=tmp_path / "run", progress=False)


def test_a_run_directory_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match=re.escape(f"{folder}: cannot be written") + ".*choose another output"):
            train_potential(run_config(), run_dir=folder, progress=False)
    with pytest.raises(InputError, match="cannot be written "):
        save_tensors(tmp_path / "file" / "potential.pt", {"weights": torch.zeros(3)})


@contextmanager
def disk_with_room_for(n_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond `n_bytes`: what the system then answers is a real OSError."""
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# The writer of TensorBoard dies in a thread of its own before the trainer hears of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_named_and_the_last_checkpoint_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(n_steps=24, checkpoint_every=5)
    whole = train_potential(config, run_dir=tmp_path / "whole", progress=False)
    folder = tmp_path / "full"

    # Stop after a checkpoint, then let no checkpoint be written any more.
    def interrupted(*arguments: Any, **options: Any) -> Any:
        if arguments[0].step == 8:
            raise KeyboardInterrupt
        return step(*arguments, **options)

    step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_potential(config, run_dir=folder, progress=False)
    monkeypatch.undo()
    size = (folder / "checkpoint.pt").stat().st_size
    message = re.escape(f"{folder / 'checkpoint.pt'}: cannot be written") + ".*free space or choose another folder"
    with disk_with_room_for(size // 2), pytest.raises(InputError, match=message):
        train_potential(config, run_dir=folder, resume=True, progress=False)
    assert read_checkpoint(folder / "checkpoint.pt")["step"] == 5
    assert not (folder / ".checkpoint.pt.part").exists()  # what did not fit is not left in the way
    message = re.escape(f"{folder / 'metrics.csv'}: cannot be written") + ".*go on with --resume"
    with disk_with_room_for(300), pytest.raises(InputError, match=message):
        train_potential(config, run_dir=folder, resume=True, progress=False)
    resumed = train_potential(config, run_dir=folder, resume=True, progress=False)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    message = re.escape(f"{tmp_path / 'new'}: cannot be written")
    with disk_with_room_for(100), pytest.raises(InputError, match=message):
        train_potential(config, run_dir=tmp_path / "new", progress=False)
    assert not (tmp_path / "new" / "config.yaml").exists()


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_fine_tuning_takes_the_sizes_of_its_potential(tmp_path: Path) -> None:
    origin = tmp_path / "origin.pt"
    frames = read_frames("rmd17/ethanol/train-01").select(range(20))
    untrained_potential(frames, trained_forces="conservative", cutoff=4.0).save(origin)
    with pytest.raises(InputError, match=r"model\.width=64 .*--init-from has 24"):
        train_potential(run_config(model={"width": 64}), run_dir=tmp_path / "a", init_from=origin, progress=False)
    tuned = train_potential(run_config(model={}), run_dir=tmp_path / "b", init_from=origin, progress=False)
    assert tuned.cutoff == 4.0
    assert tuned.provenance.config["model"]["width"] == tuned.config.width == 24


def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """Options that came later stand at their defaults in the config of a run that does not name them."""
    config = run_config()
    train_potential(config, run_dir=tmp_path, progress=False)
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del written["train"]["monitor_share"], written["model"]["n_tensors"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(InputError, match=r"model\.n_tensors was 32, now 3"):
        train_potential(config, run_dir=tmp_path, resume=True, progress=False)
    written["model"]["n_tensors"] = 3
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(written))
    again = train_potential(config, run_dir=tmp_path, resume=True, progress=False)
    assert again.provenance.metrics["last_step"] == config.train.n_steps
