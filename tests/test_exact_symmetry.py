"""The dial: exact is exact, relaxed is not, the one is cut out of the other, and what that costs is measured right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from potentials import ethanol_potential, molecule_frames, random_model, untrained_potential
from torch import nn

from remul_md import (
    InputError,
    RemulCalculator,
    evaluate_potential,
    load_config,
    load_potential,
    read_frames,
    write_frames,
)
from remul_md.models import build_model, exact_model, model_config, symmetry_of
from remul_md.models.ensemble import stacked_states
from remul_md.models.transformer import AtomBlock, DirectHead, PairNetwork
from remul_md.structures.batch import Batch, Prediction
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import random_rotations, rotate_batch, rotate_prediction

Run = Callable[..., tuple[int, str, str]]
CUTOFF = 4.5


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Two systems of 7 and 5 atoms, in which not all atoms are neighbours."""
    return build_batch(molecule_frames(), cutoff=CUTOFF)


@pytest.fixture(scope="module")
def relaxed() -> Any:
    return random_model(cutoff=CUTOFF).double()


def ensemble_of(*members: Any) -> Any:
    kind, options = model_config(members[0])
    scales = tuple(0.5 + 0.25 * k for k in range(len(members)))
    del options["energy_scale"]
    made: Any = build_model("ensemble", {"member_kind": kind, "member_options": options, "energy_scales": scales})
    made.to(next(members[0].parameters()).dtype)
    made.member.model.load_state_dict(stacked_states(members))
    return made


def gaps(model: nn.Module, batch: Batch, *, mirrored: bool = False) -> list[float]:
    """Largest differences of energy, forces and direct forces between f(g x) and g f(x), over the largest value."""
    rotations = random_rotations(batch.n_systems, generator=torch.Generator().manual_seed(11))
    rotations = -rotations if mirrored else rotations
    original: Prediction = model(batch, forces="both")
    rotated, expected = model(rotate_batch(batch, rotations), forces="both"), rotate_prediction(original, rotations)
    return [
        float(
            (
                (getattr(rotated, name) - getattr(expected, name)).abs().max() / getattr(expected, name).abs().max()
            ).detach()
        )
        for name in ("energy", "forces", "direct_forces")
    ]


@pytest.mark.parametrize("mirrored", [False, True])
def test_exact_turns_exactly_whatever_the_weights(batch: Batch, relaxed: Any, mirrored: bool) -> None:
    built = random_model(cutoff=CUTOFF, symmetry="exact", seed=5).double()
    members = [random_model(cutoff=CUTOFF, seed=seed).double() for seed in range(3)]
    for model in (built, exact_model(relaxed), exact_model(ensemble_of(*members))):
        assert symmetry_of(model) == "exact"
        assert max(gaps(model, batch, mirrored=mirrored)) < 1e-10
    # All three outputs of the relaxed ones do depend on the orientation: the sizes are not those of rounding.
    for model in (relaxed, ensemble_of(*members)):
        assert symmetry_of(model) == "relaxed"
        assert min(gaps(model, batch, mirrored=mirrored)) > 1e-3


def test_cutting_is_setting_the_weights_to_zero(batch: Batch, relaxed: Any) -> None:
    silenced = random_model(cutoff=CUTOFF).double()
    n_zero = 0
    with torch.no_grad():
        for module in silenced.modules():
            if isinstance(module, AtomBlock):
                n_zero += module.pair.weight[:, -3:].zero_().numel()
            elif isinstance(module, PairNetwork):
                n_zero += module.inputs.weight[:, -3:].zero_().numel()
            elif isinstance(module, DirectHead):
                n_zero += module.outputs.weight[:3].zero_().numel() + module.outputs.bias[:3].zero_().numel()
    cut, expected = exact_model(relaxed)(batch, forces="both"), silenced(batch, forces="both")
    for name in ("energy", "forces", "direct_forces", "atomic_energies"):
        np.testing.assert_allclose(getattr(cut, name).detach(), getattr(expected, name).detach(), atol=1e-12)
    counts = [sum(value.numel() for value in model.parameters()) for model in (relaxed, exact_model(relaxed))]
    assert counts[0] - counts[1] == n_zero > 100


def test_the_relaxed_model_is_left_as_it_is(batch: Batch, relaxed: Any) -> None:
    before = {name: value.clone() for name, value in relaxed.state_dict().items()}
    random_state = torch.random.get_rng_state()
    exact = exact_model(relaxed)
    assert exact_model(exact) is exact
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert symmetry_of(relaxed) == "relaxed"
    assert all(torch.equal(value, before[name]) for name, value in relaxed.state_dict().items())


def test_other_kinds_of_models() -> None:
    control = random_model(kind="painn")
    assert symmetry_of(control) == "exact"
    assert exact_model(control) is control


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.symmetry .*none: model\.kind=plain.*got 'exakt'"):
        load_config(None, overrides=["model.symmetry=exakt"])
    with pytest.raises(InputError, match=r"symmetry .*got 'exakt'"):
        RemulCalculator("ethanol", symmetry="exakt")  # type: ignore[arg-type]


def test_an_exact_potential_is_kept_and_is_not_made_relaxed(tmp_path: Path) -> None:
    exact = untrained_potential(molecule_frames(), cutoff=CUTOFF).with_symmetry("exact")
    exact.save(tmp_path / "exact.pt")
    loaded = load_potential(tmp_path / "exact.pt")
    assert loaded.symmetry == "exact"
    assert loaded.with_symmetry(None) is loaded
    with pytest.raises(InputError, match="no raw directions"):
        loaded.with_symmetry("relaxed")


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_shipped_ethanol_in_exact_mode_turns_exactly(forces: Any) -> None:
    """At no larger error than it has as it is; this is what README recommends."""
    calculators = {
        mode: RemulCalculator("ethanol", symmetry=mode, forces=forces, dtype="float64", device="cpu")
        for mode in ("exact", "relaxed")
    }
    test = read_frames("rmd17/ethanol/test-01")
    rotation = random_rotations(1, generator=torch.Generator().manual_seed(2))[0].numpy()
    broken, errors = {}, {}
    for mode, calculator in calculators.items():
        assert calculator.potential.symmetry == mode
        frame = test.atoms(5)
        here = calculator.get_forces(frame)
        frame.positions = frame.positions @ rotation.T
        broken[mode] = np.abs(calculator.get_forces(frame) - here @ rotation.T).max()
        found = np.concatenate([calculator.get_forces(test.atoms(index)) for index in range(0, 200, 10)])
        assert test.forces is not None
        labels = np.concatenate([test.select([index]).forces for index in range(0, 200, 10)])
        errors[mode] = np.abs(found - labels).mean()
    assert broken["exact"] < 1e-10
    assert broken["relaxed"] > 1e-5
    assert errors["exact"] < 1.01 * errors["relaxed"]


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_the_direction_load_is_the_ratio_of_the_errors(forces: Any) -> None:
    """Labels of the potential itself, off by a known amount: all that the cut changes is error."""
    frames = molecule_frames()
    potential = untrained_potential(frames, cutoff=CUTOFF).to(dtype="float64")
    batch = build_batch(frames, cutoff=CUTOFF)
    name = "forces" if forces == "conservative" else "direct_forces"
    own = getattr(potential.predict(batch, forces=forces), name).numpy()
    cut = getattr(potential.with_symmetry("exact").predict(batch, forces=forces), name).numpy()
    shift = 0.01 * np.sign(np.random.default_rng(0).normal(size=own.shape))
    labelled = replace(frames, forces=own + shift)
    found = evaluate_potential(potential, labelled, forces=forces, n_draws=2)
    assert found.symmetry == "relaxed"
    assert found.force_mae_original == pytest.approx(10.0)
    assert found.force_mae_exact == pytest.approx(1000.0 * np.abs(cut - own - shift).mean())
    assert found.direction_load == pytest.approx(found.force_mae_exact / 10.0)
    assert found.direction_load > 2.0
    of_exact = evaluate_potential(potential.with_symmetry("exact"), labelled, forces=forces, n_draws=2)
    assert of_exact.symmetry == "exact"
    assert of_exact.direction_load == 1.0
    assert of_exact.force_mae_original == pytest.approx(found.force_mae_exact)
    assert of_exact.rotational_error < 1e-9
    assert dict(of_exact.rows())["direction load"] == "1 (exactly symmetric: there are no raw directions)"


@pytest.mark.slow
def test_the_option_of_the_commands(cli: Run, tmp_path: Path) -> None:
    potential = ethanol_potential(tmp_path / "both.pt", trained_forces="both")
    times = ["--timestep-fs", "0.1", "--length-ps", "0.002", "--equilibrate-ps", "0.001"]
    structure = ["--structure", "ethanol"]
    run = ["md", potential, *structure, "--output", tmp_path / "run.traj", "--temperature-K", "50", *times]
    code, _, err = cli(*run, "--symmetry", "exact")
    assert code == 0, err
    assert json.loads((tmp_path / "run.json").read_text())["provenance"]["symmetry"] == "exact"
    code, _, err = cli(*run, "--resume")  # as trained: another potential
    assert code == 2
    assert "symmetry" in err
    code, _, err = cli("analyze", tmp_path / "run.traj", "--potential", potential, "--json", tmp_path / "a.json")
    assert code == 0, err
    analysed = json.loads((tmp_path / "a.json").read_text())
    assert analysed["rotational_error"] < 1e-2  # meV/A, single precision; as trained it is above 1
    data = tmp_path / "frames.xyz"
    write_frames(read_frames("rmd17/ethanol/test-01").select([3, 4]), data, provenance={})
    figures = {}
    for mode, more in {"relaxed": [], "exact": ["--symmetry", "exact"]}.items():
        code, _, err = cli("evaluate", potential, data, "--n-draws", "2", *more, "--json", tmp_path / "e.json")
        assert code == 0, err
        figures[mode] = json.loads((tmp_path / "e.json").read_text())
        assert figures[mode]["symmetry"] == mode
    assert figures["exact"]["force_mae_original"] == pytest.approx(figures["relaxed"]["force_mae_exact"], rel=1e-5)
    audited = ["audit", potential, *structure, "--dtype", "float64", "--only", "rotation"]
    assert cli(*audited)[0] == 1
    assert cli(*audited, "--symmetry", "exact")[0] == 0
    code, _, err = cli("audit", "ase.calculators.emt:EMT", *structure, "--symmetry", "exact")
    assert code == 2
    assert "--symmetry is an option of potentials" in err
