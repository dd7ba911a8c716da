"""The plain network: nothing in it rotates or stays, its axes mean nothing, and its directions can be cut."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from potentials import ethanol_potential, molecule_frames, random_model, unknown_shape_letters, untrained_potential
from torch import Tensor

from remul_md import InputError, RemulCalculator, evaluate_potential, load_config, load_potential, read_frames
from remul_md.models import build_model, exact_model, plain, raw_direction_masks, symmetry_of, without_raw_directions
from remul_md.structures.batch import Batch, mapped
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import random_rotations, rotate_batch, rotate_prediction
from remul_md.training.train import train_potential

Run = Callable[..., tuple[int, str, str]]
CUTOFF = 4.5
READS = "pair_network.0.inputs.weight"


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Two systems of 7 and 5 atoms, in which not all atoms are neighbours."""
    return build_batch(molecule_frames(), cutoff=CUTOFF)


@pytest.fixture(scope="module", params=[False, True], ids=["no distances", "distances"])
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(kind="plain", cutoff=CUTOFF, distances=request.param).double()


def broken_symmetry(model: Any, batch: Batch) -> list[float]:
    """Largest differences of energy, forces and direct forces between f(g x) and g f(x), over the largest value."""
    rotations = random_rotations(batch.n_systems, generator=torch.Generator().manual_seed(11))
    rotated = mapped(model(rotate_batch(batch, rotations), forces="both"), torch.detach)
    expected = mapped(rotate_prediction(model(batch, forces="both"), rotations), torch.detach)
    return [
        float((getattr(rotated, name) - getattr(expected, name)).abs().max() / getattr(expected, name).abs().max())
        for name in ("energy", "forces", "direct_forces")
    ]


def test_the_axes_of_the_displacement_mean_nothing(model: Any, batch: Batch) -> None:
    """Any invertible matrix on its three columns is taken back by the weights that read them."""
    matrix = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert abs(float(torch.linalg.det(matrix))) > 0.1
    assert (matrix.T @ matrix - torch.eye(3, dtype=torch.float64)).abs().max() > 1.0  # no rotation
    twin = build_model("plain", vars(model.config)).double()
    twin.load_state_dict(model.state_dict())

    def mixed(module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (torch.cat([inputs[0][..., :3] @ matrix, inputs[0][..., 3:]], dim=-1),)

    twin.pair_network.register_forward_pre_hook(mixed)
    with torch.no_grad():
        other = twin(batch, forces="both")
        twin.get_parameter(READS)[:, :3] @= torch.linalg.inv(matrix).T
        same, expected = twin(batch, forces="both"), model(batch, forces="both")
    for name in ("energy", "forces", "direct_forces"):
        torch.testing.assert_close(getattr(same, name), getattr(expected, name), rtol=1e-9, atol=1e-11)
        assert (getattr(other, name) - getattr(expected, name)).abs().max() > 1e-2


def test_it_knows_no_rotation_when_training_starts(batch: Batch) -> None:
    for distances in (False, True):
        torch.manual_seed(3)
        fresh: Any = build_model("plain", {"species": (1, 6, 8), "cutoff": CUTOFF, "distances": distances}).double()
        assert symmetry_of(fresh) == "none"
        assert min(broken_symmetry(fresh, batch)) > 1e-2


def test_what_is_left_without_directions(model: Any) -> None:
    """With distances a network that is exactly symmetric; without them nothing of the geometry.

    In molecules whose atoms all have neighbours: how an atom is faded out that leaves them is no part of the network.
    """
    near = replace(molecule_frames(), positions=0.6 * molecule_frames().positions)
    batch = build_batch(near, cutoff=CUTOFF)
    masks = raw_direction_masks(model)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {READS: 3 * 2 * model.config.pair_width}
    assert masks[READS][:, :3].all()
    before = model.get_parameter(READS).clone()
    cut: Any = without_raw_directions(model)
    assert torch.equal(model.get_parameter(READS), before)
    found, whole = cut(batch, forces="conservative"), model(batch, forces="conservative")
    assert (found.energy - whole.energy).abs().max() > 1e-2
    moved = replace(batch, positions=batch.positions * torch.tensor([1.1, 0.95, 1.02], dtype=torch.float64))
    change = (cut(moved).energy - found.energy).abs().max()
    if model.config.distances:
        assert max(broken_symmetry(cut, batch)[:2]) < 1e-12
        assert change > 1e-3
    else:
        direct = [cut(each, forces="direct").direct_forces for each in (batch, moved)]
        assert max(float(each.detach().abs().max()) for each in (found.forces, change, direct[1] - direct[0])) < 1e-12


def test_the_rank_is_the_number_of_gates_of_a_message() -> None:
    shapes = {}
    for rank in (1, 4):
        made = random_model(kind="plain", rank=rank)
        shapes[rank] = made.blocks[0].pair.weight.shape[0], made.blocks[0].key_value.weight.shape[0]
    assert shapes == {1: (24 + 4, 2 * 24), 4: (4 * 24 + 4, 5 * 24)}


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.symmetry of model\.kind=plain is none, got 'exact'"):
        load_config(None, overrides=["model.kind=plain", "model.symmetry=exact"])
    with pytest.raises(InputError, match=r"model\.rank must be >= 1, got 0"):
        load_config(None, overrides=["model.symmetry=none", "model.rank=0"])
    with pytest.raises(InputError, match=r"model\.width must be divisible by model\.n_heads, got 30 and 8"):
        load_config(None, overrides=["model.symmetry=none", "model.width=30"])
    with pytest.raises(InputError, match=re.escape("model.symmetry is relaxed or exact (none: model.kind=plain)")):
        load_config(None, overrides=["model.symmetry=none", "model.kind=transformer"])
    with pytest.raises(InputError, match=r"unknown key model\.n_tensors to model\.kind=plain"):
        load_config(None, overrides=["model.symmetry=none", "model.n_tensors=4"])


def test_no_symmetry_is_the_plain_kind() -> None:
    config = load_config(None, overrides=["model.symmetry=none", "model.distances=true"])
    assert config.model == load_config(None, overrides=["model.kind=plain", "model.distances=true"]).model
    assert config.model.model_dump()["kind"] == "plain"


def test_it_has_no_exact_mode(tmp_path: Path) -> None:
    potential = untrained_potential(molecule_frames(), kind="plain", cutoff=CUTOFF)
    assert potential.symmetry == "none"
    assert potential.with_symmetry(None) is potential
    with pytest.raises(InputError, match="symmetry='exact' was asked for, but this is a plain network"):
        exact_model(potential.model)
    file = ethanol_potential(tmp_path / "plain.pt", trained_forces="both", kind="plain", distances=True)
    with pytest.raises(InputError, match="symmetry='exact' was asked for, but this is a plain network"):
        RemulCalculator(file, symmetry="exact")
    with pytest.raises(InputError, match="symmetry='relaxed' was asked for, but this is a plain network"):
        RemulCalculator(file, symmetry="relaxed")


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_evaluation_tells_the_load_of_its_directions(forces: Any) -> None:
    frames = molecule_frames()
    potential = untrained_potential(frames, kind="plain", cutoff=CUTOFF).to(dtype="float64")
    found = evaluate_potential(potential, frames, forces=forces, n_draws=2)
    batch = build_batch(frames, cutoff=CUTOFF)
    cut = potential.without_raw_directions().predict(batch, forces=forces)
    assert frames.forces is not None
    errors = np.abs(cut.of_head(forces).numpy() - frames.forces).mean()
    assert found.symmetry == "none"
    assert found.force_mae_exact == pytest.approx(1e3 * errors)
    assert found.direction_load == pytest.approx(found.force_mae_exact / found.force_mae_original)
    assert "raw directions cut" in dict(found.rows())["direction load"]


@pytest.mark.slow
def test_it_is_trained_and_used_like_the_others(tmp_path: Path) -> None:
    """In the orientations of the data, where a plain network has an easy task; then from its file."""
    config = load_config(
        None,
        overrides=[
            "model.symmetry=none", "model.width=32", "model.n_layers=2", "model.n_heads=4", "model.pair_width=48",
            "model.distances=true",
            "data.molecule=salicylic", "data.n_train=60", "data.n_validation=12", "train.n_steps=120",
            "train.warmup_steps=10", "train.beta=0", "train.first_orientation=original", "train.ema_decay=0.9",
            "train.validate_every=60", "train.monitor_per_decade=0",
        ],
    )  # fmt: skip
    made = train_potential(config, run_dir=tmp_path / "run", progress=False)
    assert made.symmetry == "none"
    load = made.provenance.direction_load
    assert load is not None
    frames = read_frames("rmd17/salicylic/test-01").select(range(0, 40, 8))
    assert frames.forces is not None
    found = evaluate_potential(made, frames, n_draws=2)
    assert found.force_mae_original < 0.7e3 * np.abs(frames.forces).mean()
    assert found.force_mae_rotated > 1.2 * found.force_mae_original
    assert load == pytest.approx(found.direction_load, rel=0.2)  # of the validation frames, and of these
    assert load_potential(tmp_path / "run" / "potential.pt").provenance.config["model"]["symmetry"] == "none"
    atoms, forces = frames.atoms(1), made.predict(build_batch(frames.select([1]), cutoff=made.cutoff)).forces
    assert forces is not None
    atoms.calc = RemulCalculator(tmp_path / "run" / "potential.pt")
    np.testing.assert_allclose(atoms.get_forces(), forces.numpy(), atol=1e-4)


def test_the_legend_names_all_letters() -> None:
    assert unknown_shape_letters(plain) == set()
