"""Accuracy and symmetry of a potential on labelled frames, always twice: in the original orientation and rotated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from remul_md.analysis.calibration import Calibration, calibration
from remul_md.analysis.local import LocalErrors, local_errors
from remul_md.datasets.splits import near_in_time
from remul_md.errors import InputError
from remul_md.models import Symmetry
from remul_md.potentials.domain import require_known_frames
from remul_md.potentials.potential import ForcesChoice, Potential
from remul_md.potentials.provenance import axis_in_words
from remul_md.progress import progress_bar
from remul_md.structures.batch import Batch, BatchStore, Head, Prediction, mapped, sums_of_systems
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.evaluate import in_float64, rotated_back, statistics
from remul_md.symmetry.measures import Percent, equivariance_percent, net_force_and_torque
from remul_md.symmetry.rotations import mirrored, random_rotations, unit_axis
from remul_md.symmetry.turns import POTENTIAL_TURN

NEAR_STEPS = 10  # steps of the trajectory within which a frame is a near copy of another
MAX_ATOMS = 8192  # atoms in one pass: bounds the memory


@dataclass(frozen=True, kw_only=True)
class FarFromTraining:
    """Force MAE, meV/Angstrom, on the frames that are not near a training frame in time."""

    n_frames: int
    max_steps: int
    force_mae_original: float
    force_mae_rotated: float


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What `remul-md evaluate` reports; forces in meV/Angstrom, energies in meV.

    Args:
        n_frames: frames evaluated.
        forces: the head that was evaluated.
        n_draws: Haar draws of each frame, SO(3), independent; with `axis` rotations about it.
        seed: seed of the draws.
        force_mae_original: mean absolute error of the force components as the frames stand in the file.
        force_mae_rotated: the same over the draws; errors of rotated frames are rotated back before any mean.
        force_rmse_original: root mean squared error of the components.
        force_rmse_rotated: the same over the draws.
        force_error_length: mean length of the error vector of an atom over the draws, which no choice of axes changes.
        force_error_p99: its 99th percentile over atoms and draws.
        force_error_max: its largest value, that of the worst atom.
        energy_mae_original: mean absolute energy error.
        energy_mae_rotated: the same over the draws.
        rotational_error: mean absolute component of f(g x) - g f(x).
        rotational_spread: s for each component, root of the mean variance over the draws.
        equivariance_norm: E' of the REMUL paper, mean 2-norm of f(g x) - g f(x) over all components of a frame.
        mirror_error: as rotational_error, with one improper draw (det = -1) for each frame; with `axis` a mirror that
            holds it.
        equivariance_percent: share of the squared force error that is due to broken symmetry, pooled, percent.
        equivariance_percent_largest_frame: share of the pooled squared error that one frame carries, percent.
        equivariance_percent_median: median of the share over the frames, percent.
        equivariance_percent_median_ci95: its interval, from order statistics.
        equivariance_percent_energy: as the first, for the energy.
        equivariance_percent_energy_median: as the third, for the energy.
        twirled_force_rmse: root mean squared force error of the orientation-averaged model.
        force_mae_by_element: original force MAE of each element.
        net_force_rms_eV_per_A: root mean square length of the net force on a frame; 0 by construction for models
            whose pair forces oppose each other.
        net_torque_rms_eV: the same for the torque about the centre; for conservative forces minus the derivative of
            the energy with respect to rotation. None for frames with a cell, as the next.
        lie_derivative: root mean square component of the derivative of g^-1 f(g x) with respect to the angle of g,
            over the three axes, meV/Angstrom per radian.
        jacobian_asymmetry: |(J - J^T)/2| / |J| of the forces' Jacobian; rounding for conservative forces.
        n_jacobian_frames: frames, evenly spread, that the last two were measured on.
        symmetry: relaxed, or exact where O(3) is built in or was cut to.
        direction_load: force MAE with the raw directions cut over the force MAE as it is, both in the original
            orientation: 1 where exact symmetry is free, large where the raw directions carry the potential, 1 for exact
            potentials.
        force_mae_exact: the first of the two, meV/Angstrom.
        n_members: 1, or the members of an ensemble.
        forces_std: of an ensemble, its error bar against the errors of the original forces, by component, in
            meV/Angstrom.
        axis: where other rotations change the energy, as in a field: the one, of length 1, that rotated figures, net
            torque and Lie derivative are about; else None.
        far_from_training: force MAE without the frames that were taken within NEAR_STEPS of a training frame from the
            same trajectory: near copies make the error look smaller. None if that is not known.
    """

    n_frames: int
    forces: str
    n_draws: int
    seed: int
    force_mae_original: float
    force_mae_rotated: float
    force_rmse_original: float
    force_rmse_rotated: float
    force_error_length: float
    force_error_p99: float
    force_error_max: float
    energy_mae_original: float
    energy_mae_rotated: float
    rotational_error: float
    rotational_spread: float
    equivariance_norm: float
    mirror_error: float
    equivariance_percent: float
    equivariance_percent_largest_frame: float
    equivariance_percent_median: float
    equivariance_percent_median_ci95: list[float]
    equivariance_percent_energy: float
    equivariance_percent_energy_median: float
    twirled_force_rmse: float
    force_mae_by_element: dict[str, float]
    net_force_rms_eV_per_A: float
    net_torque_rms_eV: float | None
    lie_derivative: float | None
    jacobian_asymmetry: float
    n_jacobian_frames: int
    symmetry: Symmetry
    direction_load: float
    force_mae_exact: float
    n_members: int = 1
    forces_std: Calibration | None = None
    axis: list[float] | None = None
    far_from_training: FarFromTraining | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values with units, for a table."""
        low, high = self.equivariance_percent_median_ci95
        by_element = ", ".join(f"{symbol} {value:.1f}" for symbol, value in self.force_mae_by_element.items())
        median = f"{self.equivariance_percent_median:.2g} [{low:.2g}, {high:.2g}] % in the median frame"
        pooled = f"{self.equivariance_percent:.2g} % of the sum, of which one frame carries"
        energy_percent = (
            f"{self.equivariance_percent_energy_median:.2g} %; {self.equivariance_percent_energy:.2g} % of the sum"
        )
        rows = [
            ("force MAE, original / rotated", f"{self.force_mae_original:.2f} / {self.force_mae_rotated:.2f} meV/A"),
            ("energy MAE, original / rotated", f"{self.energy_mae_original:.2f} / {self.energy_mae_rotated:.2f} meV"),
            ("force RMSE, original / rotated", f"{self.force_rmse_original:.2f} / {self.force_rmse_rotated:.2f} meV/A"),
            (
                "error vector of an atom, mean / 99th percentile / worst",
                f"{self.force_error_length:.2f} / {self.force_error_p99:.1f} / {self.force_error_max:.0f} meV/A",
            ),
            ("rotational error / spread", f"{self.rotational_error:.2f} / {self.rotational_spread:.2f} meV/A"),
            ("direction load", self._load()),
            ("mirror error", f"{self.mirror_error:.2f} meV/A"),
            (
                "share of the error from broken symmetry, forces",
                f"{median}; {pooled} {self.equivariance_percent_largest_frame:.0f} %",
            ),
            ("share of the error from broken symmetry, energy", energy_percent),
            ("force MAE by element, original", f"{by_element} meV/A"),
            ("Jacobian asymmetry", f"{self.jacobian_asymmetry:.1e}"),
            ("net force, RMS", f"{1000 * self.net_force_rms_eV_per_A:.3f} meV/A"),
        ]
        far = self.far_from_training
        if far is not None:
            what = f"... {far.n_frames} frames > {far.max_steps} steps from training"
            rows.insert(1, (what, f"{far.force_mae_original:.2f} / {far.force_mae_rotated:.2f} meV/A"))
        if self.axis is not None:
            rows.insert(0, ("rotated, mirrored, net torque", f"about {axis_in_words(self.axis)}, as its labels allow"))
        if self.net_torque_rms_eV is not None and self.lie_derivative is not None:
            rows += [
                ("net torque, RMS", f"{1000 * self.net_torque_rms_eV:.2f} meV"),
                ("Lie derivative of the forces", f"{self.lie_derivative:.2f} meV/A per radian"),
            ]
        if self.forces_std is not None:
            bar = self.forces_std
            rows += [
                ("RMS force error / RMS forces_std", f"{bar.rms_error:.2f} / {bar.rms_std:.2f} meV/A"),
                ("errors within 1 / 2 forces_std", f"{bar.within_1_std:.1f} / {bar.within_2_std:.1f} % (68.3 / 95.4)"),
                (
                    "rank correlation of |error| with forces_std / the RMS force of the frame",
                    f"{bar.spearman:.2f} / {bar.spearman_null:.2f}",
                ),
            ]
        return rows

    def _load(self) -> str:
        if self.symmetry == "exact":
            return "1 (exactly symmetric: there are no raw directions)"
        return (
            f"{self.direction_load:.3f} (original force MAE {self.force_mae_exact:.2f} meV/A with raw directions cut)"
        )


def evaluate_potential(
    potential: Potential,
    frames: Frames,
    *,
    forces: ForcesChoice = "auto",
    n_draws: int = 8,
    seed: int = 0,
    axis: Sequence[float] | None = None,
    training: Frames | None = None,
    progress: bool = False,
) -> Accuracy:
    """Errors in the original orientation and in random orientations, and what the broken symmetry costs.

    Args:
        potential: on any device, in any precision.
        frames: with energies and forces.
        forces: the head to evaluate; auto is what was trained.
        n_draws: Haar draws of each frame, at least 2; each frame gets draws of its own.
        seed: seed of the draws.
        axis: rotate about it only, and mirror through planes that hold it, as `potential.provenance.axis` says where
            the labels are those of a field; labels rotated about another axis are then no labels.
        training: frames of the same trajectory that the potential has seen, to leave out those near them.
        progress: show a bar.
    Raises:
        InputError: frames without labels, a composition never trained on, too few draws, an axis of no length.
    """
    if n_draws < 2:
        raise InputError(f"n_draws must be at least 2, got {n_draws}: a variance needs two")
    if frames.energy is None or frames.forces is None:
        raise InputError(f"{frames.name}: has no energies or no forces; evaluation needs both")
    head = potential.resolve_forces(forces)
    require_known_frames(potential.domain, frames, species=potential.species)
    store = BatchStore(build_batch(frames, cutoff=potential.cutoff).to(potential.device))
    exact = potential.without_raw_directions()
    # All draws before the first pass, so that the figures do not depend on how many frames fit into one.
    generator = torch.Generator().manual_seed(seed)
    drawn = random_rotations((n_draws + 1) * len(frames), generator=generator, axis=axis)
    drawn = drawn.view(n_draws + 1, len(frames), 3, 3)
    drawn[n_draws:] = mirrored(drawn[n_draws:], axis=axis)  # one improper draw of each frame
    at_once = max(1, MAX_ATOMS // (int(frames.n_atoms.max()) * potential.n_members))
    columns: dict[str, list[Tensor]] = {}
    for start in progress_bar(range(0, len(frames), at_once), desc="evaluate", unit="batch", shown=progress):
        chosen = np.arange(start, min(start + at_once, len(frames)))
        batch, rotations = store.select(chosen), drawn[:, chosen].to(potential.device)
        errors = _errors(potential, batch, rotations, head=head)
        if exact.model is not potential.model:
            assert batch.forces is not None
            cut_A3 = exact.predict(batch, forces=head).of_head(head).double()
            errors["exact"] = (cut_A3 - batch.forces).abs().mean(1)
        for name, value in errors.items():
            columns.setdefault(name, []).append(value.cpu())
    local = local_errors(potential, store, forces=head, seed=seed, axis=axis)
    figures = {name: torch.cat(parts) for name, parts in columns.items()}
    near = None if training is None else near_in_time(frames, training, max_steps=NEAR_STEPS)
    if axis is not None:
        figures["net_torque"] = figures["net_torque"] @ torch.tensor([unit_axis(axis)], dtype=torch.float64).T
    figures["net_torque"] = figures["net_torque"].norm(dim=1)
    found = replace(
        _summary(figures, local, frames, head, n_draws, seed, potential),
        axis=None if axis is None else list(unit_axis(axis)),
    )
    return (
        found
        if near is None or near.all()
        else replace(found, far_from_training=_far_from_training(figures, frames, ~near))
    )


def _errors(potential: Potential, batch: Batch, rotations: Tensor, *, head: Head) -> dict[str, Tensor]:
    """Errors of the original and of K rotated copies, rotated back, and of a mirrored one (the last of `rotations`).

    In eV and eV/Angstrom, for each atom [A], component [A, 3] or system [B]; `lengths` is [K, A].
    """
    assert batch.energy is not None
    assert batch.forces is not None

    def predict(systems: Batch) -> Prediction:
        return mapped(potential.predict(systems, forces=head), in_float64)

    original, labels_A3 = predict(batch), batch.forces.double()
    back = rotated_back(predict, batch, turn=POTENTIAL_TURN, rotations=rotations)
    forces_A3 = original.of_head(head)
    back_KA3 = torch.stack([out.of_head(head) for out in back[:-1]])
    energy_KB1 = torch.stack([out.energy for out in back[:-1] if out.energy is not None]).unsqueeze(2)
    assert original.energy is not None
    of_forces, of_energy = statistics(back_KA3, labels_A3), statistics(energy_KB1, batch.energy.unsqueeze(1))
    broken = statistics(back_KA3, forces_A3)

    def of_systems(values: Tensor) -> Tensor:
        return sums_of_systems(values, batch.system_index, n_systems=batch.n_systems)

    norms_KB = torch.stack([of_systems(gaps.square().sum(1)) for gaps in back_KA3 - forces_A3]).sqrt()
    net_force, net_torque = net_force_and_torque(forces_A3, batch)
    found = {
        "original": (forces_A3 - labels_A3).abs().mean(1),
        "original_squared": (forces_A3 - labels_A3).square().sum(1),
        "rotated": of_forces.absolute,
        "rotated_squared": of_forces.squared,
        "lengths": (back_KA3 - labels_A3).norm(dim=2).T,
        "energy_original": (original.energy - batch.energy).abs(),
        "energy_rotated": of_energy.absolute,
        "rotational": broken.absolute,
        "norm": norms_KB.mean(0),
        "mirror": (back[-1].of_head(head) - forces_A3).abs().mean(1),
        "twirled": of_systems(of_forces.twirled),
        "spread": of_systems(of_forces.spread),
        "twirled_energy": of_energy.twirled,
        "spread_energy": of_energy.spread,
        "net_force": net_force.norm(dim=1),
        "net_torque": net_torque,
    }
    std = original.std("forces" if head == "conservative" else "direct_forces")
    return found if std is None else found | {"error": forces_A3 - labels_A3, "std": std}


def _error_bar(columns: dict[str, Tensor], frames: Frames) -> Calibration:
    """The error bar of the forces, meV/Angstrom, with the RMS force of each frame as what any potential tells."""
    assert frames.forces is not None  # they are what the errors were taken of
    squared = np.add.reduceat((frames.forces**2).mean(axis=1), np.cumsum(frames.n_atoms) - frames.n_atoms)
    of_components = np.repeat(np.sqrt(squared / frames.n_atoms), frames.n_atoms)[:, None].repeat(3, axis=1)
    return calibration(1000.0 * columns["error"].numpy(), 1000.0 * columns["std"].numpy(), null=of_components)


def _far_from_training(columns: dict[str, Tensor], frames: Frames, kept: NDArray[np.bool_]) -> FarFromTraining:
    atoms = torch.from_numpy(np.repeat(kept, frames.n_atoms))
    return FarFromTraining(
        n_frames=int(kept.sum()),
        max_steps=NEAR_STEPS,
        force_mae_original=1000.0 * float(columns["original"][atoms].mean()),
        force_mae_rotated=1000.0 * float(columns["rotated"][atoms].mean()),
    )


def _summary(
    columns: dict[str, Tensor],
    local: LocalErrors,
    frames: Frames,
    head: str,
    n_draws: int,
    seed: int,
    potential: Potential,
) -> Accuracy:
    def milli(name: str) -> float:
        return 1000.0 * float(columns[name].mean())

    def rms(name: str) -> float:
        return 1000.0 * float((columns[name].mean() / 3.0).sqrt())

    def percent(suffix: str) -> Percent:
        return equivariance_percent(columns[f"twirled{suffix}"].numpy(), columns[f"spread{suffix}"].numpy())

    n_components = 3 * len(frames.positions)
    cut = milli("exact") if "exact" in columns else milli("original")
    of_forces, of_energy = percent(""), percent("_energy")
    original = columns["original"].numpy()
    return Accuracy(
        n_frames=len(frames),
        forces=head,
        n_draws=n_draws,
        seed=seed,
        force_mae_original=milli("original"),
        force_mae_rotated=milli("rotated"),
        force_rmse_original=rms("original_squared"),
        force_rmse_rotated=rms("rotated_squared"),
        force_error_length=milli("lengths"),
        force_error_p99=1000.0 * float(np.quantile(columns["lengths"].numpy(), 0.99)),
        force_error_max=1000.0 * float(columns["lengths"].max()),
        energy_mae_original=milli("energy_original"),
        energy_mae_rotated=milli("energy_rotated"),
        rotational_error=milli("rotational"),
        rotational_spread=1000.0 * float((columns["spread"].sum() / n_components).sqrt()),
        equivariance_norm=milli("norm"),
        mirror_error=milli("mirror"),
        equivariance_percent=of_forces.value,
        equivariance_percent_largest_frame=of_forces.largest_frame,
        equivariance_percent_median=of_forces.median,
        equivariance_percent_median_ci95=[of_forces.low, of_forces.high],
        equivariance_percent_energy=of_energy.value,
        equivariance_percent_energy_median=of_energy.median,
        twirled_force_rmse=1000.0 * float((columns["twirled"].sum() / n_components).clamp(min=0.0).sqrt()),
        force_mae_by_element={
            chemical_symbols[number]: 1000.0 * float(original[frames.atomic_numbers == number].mean())
            for number in np.unique(frames.atomic_numbers)
        },
        net_force_rms_eV_per_A=float(columns["net_force"].square().mean().sqrt()),
        net_torque_rms_eV=None if frames.cell is not None else float(columns["net_torque"].square().mean().sqrt()),
        lie_derivative=None if local.lie_derivative_eV_per_A is None else 1000.0 * local.lie_derivative_eV_per_A,
        jacobian_asymmetry=local.jacobian_asymmetry,
        n_jacobian_frames=local.n_frames,
        symmetry=potential.symmetry,
        direction_load=cut / milli("original"),
        force_mae_exact=cut,
        n_members=potential.n_members,
        forces_std=None if potential.n_members == 1 else _error_bar(columns, frames),
    )
