"""Training the raw directions alone: all else keeps its bits, and so does the exact mode; the spread falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from potentials import random_model, untrained_potential

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.models import exact_model, raw_direction_masks
from remul_md.potentials.potential import Potential, load_potential
from remul_md.structures.neighbors import build_batch
from remul_md.training.config import RunConfig, validated_config
from remul_md.training.train import train_potential

FRAMES = read_frames("rmd17/ethanol/train-01").select(range(60))


def run_config(**train: Any) -> RunConfig:
    options = {
        "trained": "raw-directions", "weight_decay": 0.0, "equivariance_from": 0.0, "n_steps": 60, "warmup_steps": 5,
        "batch_size": 5, "learning_rate": 1e-2, "validate_every": 60, "monitor_per_decade": 0, "device": "cpu",
    }  # fmt: skip
    data = {"molecule": "ethanol", "n_train": 40, "n_validation": 7}
    return validated_config({"data": data, "train": options | train}, origin="test")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained potential that reads its raw directions, of both heads as far as its record goes."""
    file = tmp_path_factory.mktemp("origin") / "origin.pt"
    untrained_potential(FRAMES, trained_forces="both", cutoff=4.0).save(file)
    return file


def trained(origin: Path, folder: Path, **train: Any) -> Potential:
    return train_potential(run_config(**train), run_dir=folder, init_from=origin, progress=False)


def test_masks_are_what_the_exact_model_leaves_out() -> None:
    model = random_model()
    masks, exact = raw_direction_masks(model), exact_model(model)
    weights = exact.state_dict()
    for name, weight in model.state_dict().items():
        left_out = masks[name].sum().item() if name in masks else 0
        assert weight.numel() - weights[name].numel() == left_out, name
        if name in masks:
            assert torch.equal(weight[~masks[name]].sort().values, weights[name].flatten().sort().values)
    assert raw_direction_masks(exact) == {}


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_nothing_else_moves_and_the_spread_falls(origin: Path, tmp_path: Path, forces: Any) -> None:
    before, after = load_potential(origin), trained(origin, tmp_path / "run", forces=forces)
    masks, weights = raw_direction_masks(before.model), after.model.state_dict()
    for name, weight in before.model.state_dict().items():
        mine = name in masks and name.startswith("direct_head") == (forces == "direct")
        kept = ~masks[name] if mine else torch.ones_like(weight, dtype=torch.bool)
        assert torch.equal(weights[name][kept], weight[kept]), name
        assert not mine or (weights[name][masks[name]] != weight[masks[name]]).all()
    batch = build_batch(FRAMES.select([3, 4]), cutoff=before.cutoff)
    exact = [potential.with_symmetry("exact").predict(batch, forces=forces) for potential in (before, after)]
    assert torch.equal(exact[0].of_head(forces), exact[1].of_head(forces))
    assert torch.equal(before.reference_energies, after.reference_energies)
    held_out = FRAMES.select(range(50, 60))
    spreads = [evaluate_potential(one, held_out, forces=forces).rotational_spread for one in (before, after)]
    assert spreads[1] < 0.7 * spreads[0]


def test_the_record_tells_which_head_was_trained_on(origin: Path, tmp_path: Path) -> None:
    first = load_potential(origin).provenance
    short = {"n_steps": 3, "warmup_steps": 1, "validate_every": 3}
    conservative = trained(origin, tmp_path / "conservative", forces="conservative", **short).provenance
    assert (conservative.trained_forces, conservative.earlier) == ("conservative", [first.run_of("conservative")])
    direct = trained(
        tmp_path / "conservative" / "potential.pt", tmp_path / "direct", forces="direct", **short
    ).provenance
    assert (direct.trained_forces, direct.earlier) == ("both", conservative.earlier)
    assert direct.direct_head["config"]["train"]["trained"] == "raw-directions"
    assert direct.total_seconds == pytest.approx(first.seconds + conservative.seconds + direct.direct_head["seconds"])


def test_what_cannot_be(origin: Path, tmp_path: Path) -> None:
    for train in ({"weight_decay": 0.1}, {"forces": "both"}, {"compile": True}, {"weighting": "gradual"}):
        with pytest.raises(InputError, match="leaves all other weights their bits"):
            run_config(**train)
    with pytest.raises(InputError, match=r"raw-directions .*--init-from"):
        train_potential(run_config(), run_dir=tmp_path / "run", progress=False)
    exact = tmp_path / "exact.pt"
    untrained_potential(FRAMES, trained_forces="conservative", cutoff=4.0, symmetry="exact").save(exact)
    with pytest.raises(InputError, match="exactly symmetric already"):
        trained(exact, tmp_path / "run")
