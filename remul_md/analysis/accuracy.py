"""Accuracy and symmetry of a potential on labelled frames, always twice: in the original orientation and rotated."""

from __future__ import annotations

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
from remul_md.potentials.domain import require_known_composition
from remul_md.potentials.potential import ForcesChoice, Potential
from remul_md.progress import progress_bar
from remul_md.structures.batch import BatchStore
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.measures import Percent, equivariance_percent, net_force_and_torque, twirl_statistics
from remul_md.symmetry.rotations import random_rotations, rotate_vectors, rotated_copies

NEAR_STEPS = 10  # steps of the trajectory within which a frame is a near copy of another
MAX_ATOMS = 8192  # atoms in one pass, all orientations together: bounds the memory


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
        n_draws: Haar draws of each frame, SO(3), independent.
        seed: seed of the draws.
        force_mae_original: mean absolute error of the force components as the frames stand in the file.
        force_mae_rotated: the same over the draws, against the rotated labels.
        energy_mae_original: mean absolute energy error.
        energy_mae_rotated: the same over the draws.
        rotational_error: mean absolute component of f(g x) - g f(x).
        rotational_spread: s for each component, root of the mean variance over the draws.
        equivariance_norm: E' of the REMUL paper, mean 2-norm of f(g x) - g f(x) over all components of a frame.
        mirror_error: as rotational_error, with one improper draw (det = -1) for each frame.
        equivariance_percent: share of the squared force error that is due to broken symmetry, percent.
        equivariance_percent_ci95: its bootstrap interval over frames.
        equivariance_percent_energy: the same for the energy.
        equivariance_percent_energy_ci95: its interval.
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
        far_from_training: force MAE without the frames that were taken within NEAR_STEPS of a training frame from the
            same trajectory: near copies make the error look smaller. None if that is not known.
    """

    n_frames: int
    forces: str
    n_draws: int
    seed: int
    force_mae_original: float
    force_mae_rotated: float
    energy_mae_original: float
    energy_mae_rotated: float
    rotational_error: float
    rotational_spread: float
    equivariance_norm: float
    mirror_error: float
    equivariance_percent: float
    equivariance_percent_ci95: list[float]
    equivariance_percent_energy: float
    equivariance_percent_energy_ci95: list[float]
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
    far_from_training: FarFromTraining | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values with units, for a table."""
        low, high = self.equivariance_percent_ci95
        low_energy, high_energy = self.equivariance_percent_energy_ci95
        by_element = ", ".join(f"{symbol} {value:.1f}" for symbol, value in self.force_mae_by_element.items())
        force_percent = f"{self.equivariance_percent:.2f} [{low:.2f}, {high:.2f}] %"
        energy_percent = f"{self.equivariance_percent_energy:.2f} [{low_energy:.2f}, {high_energy:.2f}] %"
        rows = [
            ("force MAE, original / rotated", f"{self.force_mae_original:.2f} / {self.force_mae_rotated:.2f} meV/A"),
            ("energy MAE, original / rotated", f"{self.energy_mae_original:.2f} / {self.energy_mae_rotated:.2f} meV"),
            ("rotational error / spread", f"{self.rotational_error:.2f} / {self.rotational_spread:.2f} meV/A"),
            ("direction load", self._load()),
            ("mirror error", f"{self.mirror_error:.2f} meV/A"),
            ("share of the error from broken symmetry, forces", force_percent),
            ("share of the error from broken symmetry, energy", energy_percent),
            ("force MAE by element, original", f"{by_element} meV/A"),
            ("Jacobian asymmetry", f"{self.jacobian_asymmetry:.1e}"),
            ("net force, RMS", f"{1000 * self.net_force_rms_eV_per_A:.3f} meV/A"),
        ]
        far = self.far_from_training
        if far is not None:
            what = f"... {far.n_frames} frames > {far.max_steps} steps from training"
            rows.insert(1, (what, f"{far.force_mae_original:.2f} / {far.force_mae_rotated:.2f} meV/A"))
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
                ("rank correlation, |error| and forces_std", f"{bar.spearman:.2f}"),
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
        training: frames of the same trajectory that the potential has seen, to leave out those near them.
        progress: show a bar.
    Raises:
        InputError: frames without labels, a composition never trained on, too few draws.
    """
    if n_draws < 2:
        raise InputError(f"n_draws must be at least 2, got {n_draws}: a variance needs two")
    if frames.energy is None or frames.forces is None:
        raise InputError(f"{frames.name}: has no energies or no forces; evaluation needs both")
    head = potential.resolve_forces(forces)
    for index in range(len(frames)):
        require_known_composition(potential.coverage, frames.frame_numbers(index), species=potential.species)
    store = BatchStore(build_batch(frames, cutoff=potential.cutoff).to(potential.device))
    exact = potential.with_symmetry("exact")
    # All draws before the first pass, so that the figures do not depend on how many frames fit into one.
    generator = torch.Generator().manual_seed(seed)
    drawn = random_rotations((n_draws + 1) * len(frames), generator=generator).view(n_draws + 1, len(frames), 3, 3)
    at_once = max(1, MAX_ATOMS // (int(frames.n_atoms.max()) * (n_draws + 2) * potential.n_members))
    columns: dict[str, list[Tensor]] = {}
    for start in progress_bar(range(0, len(frames), at_once), desc="evaluate", unit="batch", shown=progress):
        chosen = np.arange(start, min(start + at_once, len(frames)))
        batch = store.select(chosen)
        # Original orientation, independent draws, one improper draw: all in one call.
        draws = drawn[:, chosen]
        identity = torch.eye(3, dtype=draws.dtype).expand(1, len(chosen), 3, 3)
        orientations = torch.cat([identity, draws[:n_draws], -draws[n_draws:]]).to(potential.device)
        rotated = rotated_copies(batch, orientations)
        out = potential.predict(rotated, forces=head)
        predicted = out.of_head(head)
        assert out.energy is not None
        assert batch.energy is not None
        assert rotated.forces is not None
        n_orientations = len(orientations)
        forces_GA3 = predicted.double().view(n_orientations, -1, 3)
        labels_GA3 = rotated.forces.view(n_orientations, -1, 3)
        energy_GB = out.energy.view(n_orientations, -1)
        rotated_original = rotated_vectors(forces_GA3[0], orientations, batch.system_index)
        back_KA3 = rotated_vectors(forces_GA3[1:-1], orientations[1:-1].mT, batch.system_index)
        twirled_A, spread_A = twirl_statistics(back_KA3, labels_GA3[0])
        twirled_B, spread_B = twirl_statistics(energy_GB[1:-1], batch.energy)
        net_force, net_torque = net_force_and_torque(forces_GA3[0], batch)
        gaps_KA3 = forces_GA3[1:-1] - rotated_original[1:-1]
        per_frame = forces_GA3.new_zeros(n_draws, len(chosen)).index_add(
            1, batch.system_index, gaps_KA3.square().sum(-1)
        )
        std = out.std("forces" if head == "conservative" else "direct_forces")
        if std is not None:
            columns.setdefault("error", []).append((forces_GA3[0] - labels_GA3[0]).cpu())
            columns.setdefault("std", []).append(std.double().view(n_orientations, -1, 3)[0].cpu())
        if exact.model is not potential.model:
            cut_A3 = exact.predict(batch, forces=head).of_head(head)
            columns.setdefault("exact", []).append((cut_A3.double() - labels_GA3[0]).abs().mean(1).cpu())
        for name, value in {
            "original": (forces_GA3[0] - labels_GA3[0]).abs().mean(1),
            "rotated": (forces_GA3[1:-1] - labels_GA3[1:-1]).abs().mean((0, 2)),
            "energy_original": (energy_GB[0] - batch.energy).abs(),
            "energy_rotated": (energy_GB[1:-1] - batch.energy).abs().mean(0),
            "rotational": gaps_KA3.abs().mean((0, 2)),
            "norm": per_frame.sqrt().mean(0),
            "mirror": (forces_GA3[-1] - rotated_original[-1]).abs().mean(1),
            "twirled": forces_GA3.new_zeros(len(chosen)).index_add(0, batch.system_index, twirled_A),
            "spread": forces_GA3.new_zeros(len(chosen)).index_add(0, batch.system_index, spread_A),
            "twirled_energy": twirled_B,
            "spread_energy": spread_B,
            "net_force": net_force.norm(dim=1),
            "net_torque": net_torque.norm(dim=1),
        }.items():
            columns.setdefault(name, []).append(value.cpu())
    local = local_errors(potential, store, forces=head, seed=seed)
    figures = {name: torch.cat(parts) for name, parts in columns.items()}
    near = None if training is None else near_in_time(frames, training, max_steps=NEAR_STEPS)
    found = _summary(figures, local, frames, head, n_draws, seed, potential)
    return (
        found
        if near is None or near.all()
        else replace(found, far_from_training=_far_from_training(figures, frames, ~near))
    )


def rotated_vectors(vectors: Tensor, rotations: Tensor, system_index: Tensor) -> Tensor:
    """Vectors [A, 3] (one copy) or [G, A, 3] rotated by [G, B, 3, 3], [G, A, 3]."""
    n_orientations = len(rotations)
    copies = vectors.expand(n_orientations, -1, 3) if vectors.ndim == 2 else vectors
    return torch.stack(
        [rotate_vectors(copies[g], rotations[g], system_index=system_index) for g in range(n_orientations)]
    )


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

    def percent(suffix: str) -> Percent:
        return equivariance_percent(columns[f"twirled{suffix}"].numpy(), columns[f"spread{suffix}"].numpy(), seed=seed)

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
        energy_mae_original=milli("energy_original"),
        energy_mae_rotated=milli("energy_rotated"),
        rotational_error=milli("rotational"),
        rotational_spread=1000.0 * float((columns["spread"].sum() / n_components).sqrt()),
        equivariance_norm=milli("norm"),
        mirror_error=milli("mirror"),
        equivariance_percent=of_forces.value,
        equivariance_percent_ci95=[of_forces.low, of_forces.high],
        equivariance_percent_energy=of_energy.value,
        equivariance_percent_energy_ci95=[of_energy.low, of_energy.high],
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
        forces_std=calibration(1000.0 * columns["error"].numpy(), 1000.0 * columns["std"].numpy())
        if potential.n_members > 1
        else None,
    )
