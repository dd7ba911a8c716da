"""Accuracy of a potential against a slow loop over frames and orientations, written with numpy."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from potentials import molecule_frames, untrained_potential

from remul_md.analysis import accuracy, local
from remul_md.analysis.accuracy import Accuracy, evaluate_potential
from remul_md.errors import InputError
from remul_md.potentials.potential import Potential
from remul_md.structures.batch import BatchStore
from remul_md.structures.frames import Frames, joined
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import random_rotations, rotations_about

N_DRAWS, SEED = 5, 3
ISSUE_KEYS = {
    "n_frames",
    "force_mae_original",
    "force_mae_rotated",
    "rotational_error",
    "rotational_spread",
    "energy_mae_original",
    "energy_mae_rotated",
    "equivariance_percent",
    "equivariance_percent_median_ci95",
    "equivariance_percent_energy",
    "force_mae_by_element",
}


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Six frames, of 7 and 5 atoms in turn."""
    return joined([molecule_frames(seed=seed) for seed in range(3)], name="six frames")


@pytest.fixture(scope="module")
def potential(frames: Frames) -> Potential:
    return untrained_potential(frames, cutoff=4.5).to(dtype="float64")


@pytest.fixture(scope="module")
def found(potential: Potential, frames: Frames) -> Accuracy:
    return evaluate_potential(potential, frames, n_draws=N_DRAWS, seed=SEED)


def predict(potential: Potential, frames: Frames, index: int, rotation: NDArray) -> tuple[float, NDArray, NDArray]:
    """Energy, conservative and direct forces of one frame, rotated before its neighbours are searched."""
    single = frames.select([index])
    rotated = replace(single, positions=single.positions @ rotation.T)
    out = potential.predict(build_batch(rotated, cutoff=potential.cutoff), forces="both")
    assert out.energy is not None
    assert out.forces is not None
    assert out.direct_forces is not None
    return out.energy.item(), out.forces.numpy(), out.direct_forces.numpy()


def slow_loop(potential: Potential, frames: Frames, *, head: str) -> dict[str, float]:
    n = len(frames)
    generator = torch.Generator().manual_seed(SEED)
    drawn = random_rotations((N_DRAWS + 1) * n, generator=generator).view(N_DRAWS + 1, n, 3, 3).numpy()
    assert frames.energy is not None
    assert frames.forces is not None
    lists: dict[str, list[float]] = {}
    sums = dict.fromkeys(("T", "s2", "T_energy", "s2_energy"), 0.0)
    for index in range(n):
        start = frames.first_atom[index]
        forces = frames.forces[start : start + frames.n_atoms[index]]
        energy = frames.energy[index]
        original = predict(potential, frames, index, np.eye(3))
        original_forces = original[1 if head == "conservative" else 2]

        def add(name: str, values: NDArray | float) -> None:
            lists.setdefault(name, []).extend(np.ravel(np.abs(values)).tolist())

        add("force_mae_original", original_forces - forces)
        add("energy_mae_original", original[0] - energy)
        back, energies = [], []
        for k in range(N_DRAWS):
            g = drawn[k, index]
            out = predict(potential, frames, index, g)
            rotated = out[1 if head == "conservative" else 2]
            # rotated back before any mean of components is taken
            add("force_mae_rotated", rotated @ g - forces)
            add("force_error_length", np.linalg.norm(rotated @ g - forces, axis=1))
            add("energy_mae_rotated", out[0] - energy)
            add("rotational_error", rotated @ g - original_forces)
            add("equivariance_norm", float(np.linalg.norm(rotated - original_forces @ g.T)))
            back.append(rotated @ g)
            energies.append(out[0])
        mirror = -drawn[N_DRAWS, index]
        assert np.linalg.det(mirror) == pytest.approx(-1.0)
        out = predict(potential, frames, index, mirror)
        add("mirror_error", out[1 if head == "conservative" else 2] @ mirror - original_forces)
        spread = sum(np.var([b[a, c] for b in back], ddof=1) for a in range(len(forces)) for c in range(3))
        sums["s2"] += spread
        sums["T"] += np.square(np.mean(back, axis=0) - forces).sum() - spread / N_DRAWS
        energy_spread = float(np.var(energies, ddof=1))
        sums["s2_energy"] += energy_spread
        sums["T_energy"] += (np.mean(energies) - energy) ** 2 - energy_spread / N_DRAWS
    n_components = frames.forces.size
    return {name: 1000 * float(np.mean(values)) for name, values in lists.items()} | {
        "rotational_spread": 1000 * (sums["s2"] / n_components) ** 0.5,
        "force_error_max": max(lists["force_error_length"]) * 1000,
        "force_error_p99": 1000 * float(np.quantile(lists["force_error_length"], 0.99)),
        "twirled_force_rmse": 1000 * (sums["T"] / n_components) ** 0.5,
        "equivariance_percent": 100 * sums["s2"] / (sums["s2"] + sums["T"]),
        "equivariance_percent_energy": 100 * sums["s2_energy"] / (sums["s2_energy"] + sums["T_energy"]),
    }


@pytest.mark.parametrize("head", ["conservative", "direct"])
def test_every_figure_is_that_of_a_slow_loop(potential: Potential, frames: Frames, head: str) -> None:
    result = evaluate_potential(potential, frames, forces=head, n_draws=N_DRAWS, seed=SEED)  # type: ignore[arg-type]
    expected = slow_loop(potential, frames, head=head)
    assert len(expected) == 14
    for name, value in expected.items():
        assert getattr(result, name) == pytest.approx(value, rel=1e-9), name
        assert value > 0
    assert len({round(value, 6) for value in expected.values()}) == 14  # no two figures coincide
    assert (result.n_frames, result.forces, result.n_draws, result.seed) == (6, head, N_DRAWS, SEED)


def test_elements_are_weighted_by_their_atoms(found: Accuracy, potential: Potential, frames: Frames) -> None:
    assert frames.forces is not None
    errors = np.concatenate([predict(potential, frames, index, np.eye(3))[1] for index in range(6)]) - frames.forces
    assert list(found.force_mae_by_element) == ["H", "C", "O"]
    for symbol, number in (("H", 1), ("C", 6), ("O", 8)):
        expected = 1000 * np.abs(errors[frames.atomic_numbers == number]).mean()
        assert found.force_mae_by_element[symbol] == pytest.approx(expected, rel=1e-9)


def test_the_interval_holds_the_median(found: Accuracy) -> None:
    low, high = found.equivariance_percent_median_ci95
    assert 0 < low < found.equivariance_percent_median < high < 100
    assert 100 / 6 < found.equivariance_percent_largest_frame < 100


@pytest.mark.parametrize("max_atoms", [1, 14, 28])
def test_how_frames_are_cut_into_passes_changes_nothing(
    potential: Potential, frames: Frames, found: Accuracy, monkeypatch: pytest.MonkeyPatch, max_atoms: int
) -> None:
    """One, two and four frames of at most 7 atoms at a time against all at once."""
    monkeypatch.setattr(accuracy, "MAX_ATOMS", max_atoms)
    n_calls, whole = 0, Potential.predict

    def counted(*arguments, **options):  # type: ignore[no-untyped-def]
        nonlocal n_calls
        n_calls += 1
        return whole(*arguments, **options)

    monkeypatch.setattr(Potential, "predict", counted)
    pieces = evaluate_potential(potential, frames, n_draws=N_DRAWS, seed=SEED)
    # The original, the draws, a mirrored draw, and the original with raw directions cut.
    assert n_calls == (N_DRAWS + 3) * {1: 6, 14: 3, 28: 2}[max_atoms]
    for name, value in found.to_json().items():
        if isinstance(value, float):
            assert getattr(pieces, name) == pytest.approx(value, rel=1e-9), name
    assert pieces.equivariance_percent_median_ci95 == pytest.approx(found.equivariance_percent_median_ci95, rel=1e-9)


def test_the_seed_decides_the_orientations(potential: Potential, frames: Frames, found: Accuracy) -> None:
    torch.manual_seed(8)
    assert evaluate_potential(potential, frames, n_draws=N_DRAWS, seed=SEED) == found
    other = evaluate_potential(potential, frames, n_draws=N_DRAWS, seed=SEED + 1)
    assert other.rotational_error != found.rotational_error
    assert other.force_mae_original == pytest.approx(found.force_mae_original, rel=1e-12)


def test_json_has_the_promised_keys_and_plain_values(found: Accuracy) -> None:
    content = json.loads(json.dumps(found.to_json()))
    assert set(content) >= ISSUE_KEYS
    assert content["n_frames"] == 6
    assert len(content["equivariance_percent_median_ci95"]) == 2
    assert content == found.to_json()


def test_near_copies_of_training_frames_are_left_out_of_a_figure_of_its_own(
    potential: Potential, frames: Frames, found: Accuracy
) -> None:
    """Frames 0, 50, ..., 250 of a trajectory, trained on its frames 45 and 161: 5 steps are near, 11 are not."""
    tested = replace(frames, trajectory_step=np.arange(6) * 50)
    training = replace(frames.select([0, 1]), trajectory_step=np.array([45, 161]))
    result = evaluate_potential(potential, tested, n_draws=N_DRAWS, seed=SEED, training=training)
    assert replace(result, far_from_training=None) == found
    assert result.far_from_training is not None
    assert (result.far_from_training.n_frames, result.far_from_training.max_steps) == (5, 10)
    kept = evaluate_potential(potential, frames.select([0, 2, 3, 4, 5]), n_draws=N_DRAWS, seed=SEED)
    assert result.far_from_training.force_mae_original == pytest.approx(kept.force_mae_original, rel=1e-9)
    assert result.far_from_training.force_mae_rotated != found.force_mae_rotated
    assert ("... 5 frames > 10 steps from training", f"{kept.force_mae_original:.2f}") in [
        (name, text.split(" / ")[0]) for name, text in result.rows()
    ]
    far = replace(training, trajectory_step=np.array([1000, 2000]))
    everything = evaluate_potential(potential, tested, n_draws=N_DRAWS, seed=SEED, training=far).far_from_training
    assert everything is not None
    assert everything.force_mae_rotated == pytest.approx(found.force_mae_rotated, rel=1e-9)
    assert (
        evaluate_potential(potential, frames, n_draws=N_DRAWS, seed=SEED, training=training).far_from_training is None
    )


def test_labels_from_the_potential_itself_leave_only_broken_symmetry(potential: Potential, frames: Frames) -> None:
    outs = [predict(potential, frames, index, np.eye(3)) for index in range(6)]
    own = replace(frames, energy=np.array([out[0] for out in outs]), forces=np.concatenate([out[1] for out in outs]))
    result = evaluate_potential(potential, own, n_draws=N_DRAWS, seed=SEED)
    assert result.force_mae_original < 1e-9
    assert result.energy_mae_original < 1e-9
    assert result.force_mae_rotated == pytest.approx(result.rotational_error, rel=1e-9)
    assert result.rotational_error > 1.0


def test_auto_takes_the_trained_head(frames: Frames) -> None:
    for trained, head in (("direct", "direct"), ("conservative", "conservative"), ("both", "conservative")):
        potential = untrained_potential(frames, trained_forces=trained, cutoff=4.5)
        assert evaluate_potential(potential, frames, n_draws=2).forces == head


def test_what_cannot_be_evaluated_is_refused(potential: Potential, frames: Frames) -> None:
    with pytest.raises(InputError, match=r"n_draws .*got 1"):
        evaluate_potential(potential, frames, n_draws=1)
    for unlabelled in (replace(frames, energy=None), replace(frames, forces=None)):
        with pytest.raises(InputError, match="six frames: has no energies or no forces"):
            evaluate_potential(potential, unlabelled)
    other = replace(frames, atomic_numbers=np.where(np.arange(36) == 4, 8, frames.atomic_numbers))
    with pytest.raises(InputError, match=r"composition .* knows "):
        evaluate_potential(potential, other)
    with pytest.raises(InputError, match=re.escape("forces must be auto, conservative or direct, got 'magic'")):
        evaluate_potential(potential, frames, forces="magic")  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["conservative", "direct"])
def test_local_errors_are_those_of_a_loop_over_frames(potential: Potential, frames: Frames, head: str) -> None:
    """Torque and net force by hand; the Lie derivative by turning each frame a little about each axis."""
    result = evaluate_potential(potential, frames, forces=head, n_draws=2, seed=SEED)  # type: ignore[arg-type]
    step = 1e-5
    torques, nets, slopes = list[float](), list[float](), list[float]()
    for index in range(6):
        x = frames.frame_positions(index)
        column = 1 if head == "conservative" else 2
        forces = np.asarray(predict(potential, frames, index, np.eye(3))[column])
        nets.append(float(np.square(forces.sum(0)).sum()))
        torques.append(float(np.square(np.cross(x - x.mean(0), forces).sum(0)).sum()))
        for axis in range(3):
            back = []
            for angle in (step, -step):
                g = rotations_about(torch.eye(3)[axis : axis + 1].double(), torch.tensor([angle]).double())[0].numpy()
                back.append(predict(potential, frames, index, g)[column] @ g)
            slopes.extend(((back[0] - back[1]) / (2 * step)).ravel().tolist())
    assert result.net_torque_rms_eV == pytest.approx(np.sqrt(np.mean(torques)), rel=1e-8)
    assert result.net_force_rms_eV_per_A == pytest.approx(np.sqrt(np.mean(nets)), rel=1e-8, abs=1e-12)
    assert result.lie_derivative == pytest.approx(1000 * np.sqrt(np.mean(np.square(slopes))), rel=1e-5)
    assert result.n_jacobian_frames == 6
    if head == "conservative":
        assert result.jacobian_asymmetry < 1e-12
        assert result.net_force_rms_eV_per_A < 1e-12
    else:
        assert 0.05 < result.jacobian_asymmetry < 1
    table = dict(result.rows())
    assert table["net torque, RMS"] == f"{1000 * result.net_torque_rms_eV:.2f} meV"  # type: ignore[operator]
    assert "Lie derivative of the forces" in table
    cells = replace(result, net_torque_rms_eV=None, lie_derivative=None)
    assert len(cells.rows()) == len(table) - 2


def test_local_errors_are_measured_on_frames_spread_evenly(
    potential: Potential, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BatchStore(build_batch(frames, cutoff=potential.cutoff))
    whole = local.local_errors(potential, store, forces="direct", seed=0)
    monkeypatch.setattr(local, "MAX_ATOMS", 1)
    pieces = local.local_errors(potential, store, forces="direct", seed=0)
    assert pieces.jacobian_asymmetry == pytest.approx(whole.jacobian_asymmetry, rel=1e-9)
    assert pieces.lie_derivative_eV_per_A == pytest.approx(whole.lie_derivative_eV_per_A, rel=1e-9)
    monkeypatch.setattr(local, "MAX_FRAMES", 3)
    some = local.local_errors(potential, store, forces="direct", seed=0)
    chosen = BatchStore(store.select([0, 2, 5]))
    assert some == local.local_errors(potential, chosen, forces="direct", seed=0)
    assert some.n_frames == 3
