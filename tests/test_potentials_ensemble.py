"""An ensemble is its members: the same numbers in one call, their mean, their scatter, and what a file keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from potentials import molecule_frames, untrained_potential
from remul_md.calculators import RemulCalculator
from scipy.stats import spearmanr

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.analysis.rotation import rotational_error_along
from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.models import MODELS, build_model
from remul_md.potentials.domain import domain_of, merged_domain
from remul_md.potentials.ensemble import make_ensemble, with_std_scale
from remul_md.potentials.potential import Potential, load_potential
from remul_md.potentials.provenance import Provenance
from remul_md.structures.batch import Batch, Prediction
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch
from remul_md.training.config import validated_config
from remul_md.training.train import train_potential

N_MEMBERS = 4


@pytest.fixture(scope="module")
def frames() -> Frames:
    return molecule_frames()


def save_member(folder: Path, frames: Frames, index: int, *, name: str = "", **options: Any) -> Path:
    """A member that saw other data: its own weights, energy scale and reference energies."""
    made = untrained_potential(frames, seed=index, **({"energy_scale": 0.4 + 0.3 * index} | options))
    shift = 0.07 * index * torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    path = folder / (name or f"member_{index}.pt")
    told = replace(made.provenance, seconds=10.0 + index, commit=f"commit {index}")
    replace(made, reference_energies=made.reference_energies + shift, provenance=told).save(path)
    return path


@pytest.fixture(scope="module")
def files(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("members")
    return [save_member(folder, frames, index) for index in range(N_MEMBERS)]


@pytest.fixture(scope="module")
def members(files: list[Path]) -> list[Potential]:
    return [load_potential(file, dtype="float64") for file in files]


@pytest.fixture(scope="module")
def ensemble(files: list[Path]) -> Potential:
    return make_ensemble(files).to(dtype="float64")


@pytest.fixture(scope="module")
def batch(frames: Frames, ensemble: Potential) -> Batch:
    return build_batch(frames, cutoff=ensemble.cutoff)


def test_a_calibrated_ensemble_scales_its_error_bars_and_nothing_else(
    ensemble: Potential, batch: Batch, frames: Frames, tmp_path: Path
) -> None:
    calibrated = with_std_scale(ensemble, 2.5, record={"name": "test"})
    before, after = ensemble.predict(batch, forces="both"), calibrated.predict(batch, forces="both")
    for name in ("energy", "forces", "direct_forces"):
        assert torch.equal(getattr(before, name), getattr(after, name))
        torch.testing.assert_close(after.std(name), 2.5 * before.std(name))  # type: ignore[arg-type]
    calibrated.save(tmp_path / "calibrated.pt")
    atoms = frames.atoms(1)
    bars = []
    for potential in (load_potential(tmp_path / "calibrated.pt"), ensemble.to(dtype="float32")):
        for symmetrize in (None, 3):
            calculator = RemulCalculator(potential, symmetrize=symmetrize)
            calculator.get_forces(atoms.copy())
            bars.append(np.array([calculator.diagnostics["forces_std"][2], [calculator.diagnostics["energy_std"]] * 3]))
    np.testing.assert_allclose(bars[0], 2.5 * bars[2], rtol=1e-4)
    np.testing.assert_allclose(bars[1], 2.5 * bars[3], rtol=1e-4)
    assert load_potential(tmp_path / "calibrated.pt").provenance.data["calibration"] == {"name": "test"}
    with pytest.raises(InputError, match="above 0, got 0"):
        with_std_scale(ensemble, 0.0, record={})


def stacked(outs: list[Prediction], name: str) -> np.ndarray:
    return np.stack([getattr(out, name).numpy() for out in outs])


def test_one_call_gives_what_the_members_give(members: list[Potential], ensemble: Potential, batch: Batch) -> None:
    outs = [member.predict(batch, forces="both") for member in members]
    whole = ensemble.predict(batch, forces="both")
    assert whole.members is not None
    assert ensemble.n_members == len(whole.members) == N_MEMBERS
    for name in ("energy", "forces", "direct_forces", "atomic_energies"):
        expected = stacked(outs, name)
        assert expected.std(0, ddof=1).max() > 1e-2, name
        np.testing.assert_allclose(stacked(list(whole.members), name), expected, rtol=1e-12, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(getattr(whole, name).numpy(), expected.mean(0), rtol=1e-12, atol=1e-12, err_msg=name)
        if name != "atomic_energies":
            std = whole.std(name)
            assert std is not None
            np.testing.assert_allclose(std.numpy(), expected.std(0, ddof=1), rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("kind", MODELS)
def test_models_of_every_kind_can_be_members(kind: str, frames: Frames, tmp_path: Path) -> None:
    files = [save_member(tmp_path, frames, index, kind=kind) for index in range(3)]
    whole = make_ensemble(files).to(dtype="float64")
    batch = build_batch(frames, cutoff=whole.cutoff)
    outs = [load_potential(file, dtype="float64").predict(batch, forces="both") for file in files]
    found = whole.predict(batch, forces="both")
    for name in ("energy", "forces", "direct_forces"):
        expected = stacked(outs, name)
        assert expected.std(0, ddof=1).max() > 1e-3, name
        np.testing.assert_allclose(getattr(found, name).numpy(), expected.mean(0), rtol=1e-12, atol=1e-12, err_msg=name)
    other = save_member(tmp_path, frames, 5, kind=next(name for name in MODELS if name != kind))
    with pytest.raises(InputError, match=f"differ in kind {kind} and"):
        make_ensemble([*files, other])


def test_reference_energies_of_the_members_are_kept(members: list[Potential], ensemble: Potential) -> None:
    """Their differences are part of the scatter of the energy: members trained on other frames know other means."""
    references = torch.stack([member.reference_energies for member in members])
    assert references.std(0).min() > 0.05
    torch.testing.assert_close(ensemble.reference_energies, references.mean(0), rtol=0, atol=1e-12)
    assert ensemble.member_references is not None
    assert torch.equal(ensemble.member_references, references)


def test_outputs_that_were_not_asked_for_are_none(ensemble: Potential, batch: Batch) -> None:
    energies, direct = ensemble.model(batch), ensemble.predict(batch, forces="direct")
    assert energies.forces is None
    assert energies.direct_forces is None
    assert energies.std("forces") is None
    assert energies.std("energy") is not None
    assert direct.forces is None
    assert direct.std("direct_forces") is not None
    with pytest.raises(InputError, match=r"forces .*got 'all'"):
        ensemble.model(batch, forces="all")
    with torch.no_grad():
        assert ensemble.model(batch, forces="conservative").energy.grad_fn is None


def test_a_single_model_has_no_scatter(members: list[Potential], batch: Batch) -> None:
    out = members[0].predict(batch)
    assert out.members is None
    assert out.std("forces") is None
    assert members[0].n_members == 1


def test_mean_forces_are_minus_the_gradient_of_the_mean_energy(ensemble: Potential, frames: Frames) -> None:
    forces = ensemble.predict(build_batch(frames, cutoff=ensemble.cutoff)).forces
    assert forces is not None
    step = 1e-4
    for atom, axis in ((1, 0), (4, 2), (9, 1)):
        energies = []
        for sign in (1.0, -1.0):
            positions = frames.positions.copy()
            positions[atom, axis] += sign * step
            moved = build_batch(replace(frames, positions=positions), cutoff=ensemble.cutoff)
            energies.append(float(ensemble.predict(moved).energy.sum()))
        assert forces[atom, axis].item() == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=2e-6)


def test_second_derivatives_pass_through(ensemble: Potential, frames: Frames) -> None:
    """`evaluate` differentiates the forces again; those of an ensemble of gradients are a gradient."""
    found = evaluate_potential(ensemble, frames, n_draws=3)
    assert found.jacobian_asymmetry < 1e-9
    assert found.lie_derivative is not None
    assert found.lie_derivative > 1.0
    direct = evaluate_potential(ensemble, frames, n_draws=3, forces="direct")
    assert direct.jacobian_asymmetry > 1e-3


def test_evaluate_reports_the_error_bar(ensemble: Potential, members: list[Potential], frames: Frames) -> None:
    found = evaluate_potential(ensemble, frames, n_draws=3)
    outs = [member.predict(build_batch(frames, cutoff=ensemble.cutoff)) for member in members]
    predicted = stacked(outs, "forces")
    assert frames.forces is not None
    error, std = predicted.mean(0) - frames.forces, predicted.std(0, ddof=1)
    assert found.n_members == N_MEMBERS
    assert found.forces_std is not None
    assert found.forces_std.n_values == 36
    assert found.forces_std.rms_error == pytest.approx(1000 * np.sqrt(np.mean(error**2)))
    assert found.forces_std.rms_std == pytest.approx(1000 * np.sqrt(np.mean(std**2)))
    assert found.forces_std.within_1_std == pytest.approx(100 * np.mean(np.abs(error) <= std))
    rms = np.sqrt((frames.forces.reshape(len(frames), -1) ** 2).mean(1))
    null = np.repeat(rms, frames.n_atoms)[:, None].repeat(3, 1)
    assert found.forces_std.spearman_null == pytest.approx(spearmanr(np.abs(error), null, axis=None).statistic)
    names = [name for name, _ in found.rows()]
    assert "RMS force error / RMS forces_std" in names
    alone = evaluate_potential(members[0], frames, n_draws=3)
    assert alone.forces_std is None
    assert len(alone.rows()) == len(names) - 3


def test_the_rotational_error_brings_the_error_bar(
    ensemble: Potential, members: list[Potential], frames: Frames
) -> None:
    atoms = frames.atoms(0)
    positions = np.stack([atoms.positions, atoms.positions * 1.02])
    atoms.calc = RemulCalculator(ensemble, dtype="float64", forces="conservative")
    found = rotational_error_along(atoms, positions, n_draws=2)
    assert found.ensemble_std_meV_per_A is not None
    for place, told in zip(positions, found.ensemble_std_meV_per_A, strict=True):
        scatter = []
        for member in members:
            alone = Atoms(atoms.numbers, positions=place)
            alone.calc = RemulCalculator(member, dtype="float64", forces="conservative")
            scatter.append(alone.get_forces())
        assert told == pytest.approx(1000 * np.sqrt(np.stack(scatter).var(axis=0, ddof=1).mean()))
    atoms.calc = RemulCalculator(members[0], dtype="float64", forces="conservative")
    assert rotational_error_along(atoms, positions, n_draws=2).ensemble_std_meV_per_A is None


def test_a_file_keeps_the_members(ensemble: Potential, files: list[Path], batch: Batch, tmp_path: Path) -> None:
    make_ensemble(files).save(tmp_path / "ensemble.pt")
    loaded = load_potential(tmp_path / "ensemble.pt", dtype="float64")
    before, after = ensemble.predict(batch, forces="both"), loaded.predict(batch, forces="both")
    for name in ("energy", "forces", "direct_forces"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
        assert torch.equal(before.std(name), after.std(name)), name  # type: ignore[arg-type]
    assert loaded.provenance == ensemble.provenance
    assert loaded.provenance.seconds == pytest.approx(46.0)
    assert [member["commit"] for member in loaded.provenance.members] == [f"commit {k}" for k in range(N_MEMBERS)]
    assert [member["name"] for member in loaded.provenance.members] == [file.name for file in files]
    assert [member["sha256"] for member in loaded.provenance.members] == [load_potential(f).sha256 for f in files]
    assert loaded.species == (1, 6, 8)
    assert loaded.cutoff == 5.0


def first_molecule(frames: Frames) -> Atoms:
    return frames.atoms(0)


def test_the_calculator_gives_mean_and_scatter(ensemble: Potential, members: list[Potential], frames: Frames) -> None:
    atoms = first_molecule(frames)
    calculator = RemulCalculator(ensemble, device="cpu", dtype="float64")
    atoms.calc = calculator
    single = []
    for member in members:
        other = atoms.copy()
        other.calc = RemulCalculator(member, device="cpu", dtype="float64")
        single.append((other.get_potential_energy(), other.get_forces()))
    forces = np.stack([vectors for _, vectors in single])
    np.testing.assert_allclose(atoms.get_forces(), forces.mean(0), rtol=0, atol=1e-11)
    assert atoms.get_potential_energy() == pytest.approx(np.mean([energy for energy, _ in single]), abs=1e-10)
    assert set(calculator.results) == {"energy", "free_energy", "forces"}
    assert calculator.diagnostics["forces_std"].shape == (7, 3)
    np.testing.assert_allclose(calculator.diagnostics["forces_std"], forces.std(0, ddof=1), rtol=0, atol=1e-11)
    assert calculator.diagnostics["energy_std"] == pytest.approx(np.std([e for e, _ in single], ddof=1), abs=1e-9)


def test_the_scatter_of_averaged_members(ensemble: Potential, members: list[Potential], frames: Frames) -> None:
    """With `symmetrize` each member is averaged over the rotations first: its forces are rotated back, then
    compared."""
    atoms = first_molecule(frames)
    calculator = RemulCalculator(ensemble, device="cpu", dtype="float64", symmetrize=5)
    atoms.calc = calculator
    averaged = atoms.get_forces()
    forces = []
    for member in members:
        other = atoms.copy()
        other.calc = RemulCalculator(member, device="cpu", dtype="float64", symmetrize=5)
        forces.append(other.get_forces())
    np.testing.assert_allclose(averaged, np.mean(forces, axis=0), rtol=0, atol=1e-11)
    std = np.std(forces, axis=0, ddof=1)
    np.testing.assert_allclose(calculator.diagnostics["forces_std"], std, rtol=0, atol=1e-11)
    assert calculator.diagnostics["rotational_spread"] > 1.0


def test_members_that_cannot_sit_together_are_refused(files: list[Path], frames: Frames, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2 members, got 1"):
        make_ensemble(files[:1])
    with pytest.raises(InputError, match="a member is given twice among"):
        make_ensemble([files[0], files[1], files[0]])
    copy = tmp_path / "copy.pt"
    copy.write_bytes(files[1].read_bytes())
    with pytest.raises(InputError, match=r"member_1\.pt and .*copy\.pt "):
        make_ensemble([files[0], files[1], copy])
    wide = save_member(tmp_path, frames, 7, name="wide.pt", width=28)
    with pytest.raises(InputError, match=r"member_0\.pt and .*wide\.pt .*width 24 and 28"):
        make_ensemble([files[0], wide])
    make_ensemble(files[:2]).save(tmp_path / "two.pt")
    with pytest.raises(InputError, match=r"two\.pt is an ensemble of 2"):
        make_ensemble([tmp_path / "two.pt", files[2]])


def test_heads_in_common(files: list[Path], frames: Frames, tmp_path: Path) -> None:
    told = {}
    for head in ("conservative", "direct"):
        made = untrained_potential(frames, trained_forces=head, seed=len(head))
        told[head] = tmp_path / f"{head}.pt"
        made.save(told[head])
    assert make_ensemble(files).provenance.trained_forces == "both"
    assert make_ensemble([files[0], told["direct"]]).provenance.trained_forces == "direct"
    with pytest.raises(InputError, match=r"head .*conservative\.pt conservative, .*direct\.pt direct"):
        make_ensemble(list(told.values()))


def test_domain_is_what_all_have_seen() -> None:
    first = domain_of(read_frames("rmd17/ethanol/train-01").select(range(9)))
    assert len(first.bonds) == 8
    first = replace(first, compositions=[*first.compositions, {"C": 1}])
    stretched = replace(
        first,
        bond_max=[length + 0.2 for length in first.bond_max],
        bond_min=[length + 0.1 for length in first.bond_min],
        distance_ranges={pair: [low - 0.3, high - 0.1] for pair, (low, high) in first.distance_ranges.items()},
    )
    both = merged_domain({"first": first, "stretched": stretched})
    assert both.bond_max == stretched.bond_max
    assert both.bond_min == first.bond_min
    for pair, (low, high) in first.distance_ranges.items():
        assert both.distance_ranges[pair] == [low - 0.3, high]
    other_bonds = merged_domain({"first": first, "other": replace(stretched, bonds=first.bonds[1:])})
    assert other_bonds.bond_max == first.bond_max
    assert merged_domain({"a": first, "b": replace(first, compositions=first.compositions[::-1])}) == first
    with pytest.raises(InputError, match=r"a and b .*compositions"):
        merged_domain({"a": first, "b": replace(first, compositions=first.compositions[1:])})
    with pytest.raises(InputError, match=r"a and b .*periodic"):
        merged_domain({"a": first, "b": replace(first, periodic=True)})


def test_a_ensemble_of_one_is_no_ensemble() -> None:
    with pytest.raises(InputError, match="at least 2 members, got 1"):
        build_model("ensemble", {"member_kind": "transformer", "member_options": {}, "energy_scales": [1.0]})


def test_training_does_not_start_from_a_ensemble(files: list[Path], tmp_path: Path) -> None:
    make_ensemble(files).save(tmp_path / "ensemble.pt")
    with pytest.raises(InputError, match="--init-from is an ensemble of 4"):
        train_potential(
            validated_config({}, origin="test"), run_dir=tmp_path / "run", init_from=tmp_path / "ensemble.pt"
        )


def test_provenance_of_a_single_model_has_no_members() -> None:
    assert Provenance(trained_forces="both").members == []
