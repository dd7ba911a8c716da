"""Do the forces turn with the molecule: net torque of every frame, random turns on some, and how far it has rotated.

For conservative forces the net torque is minus the derivative of the energy with respect to rotation, so it is the
infinitesimal rotational error and costs no extra force call. Random turns measure the error over all orientations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.structures.alignment import angle_swept, centred, superposition_rotations

if TYPE_CHECKING:
    from ase import Atoms
    from torch import Tensor

    from remul_md.symmetry.rotations import Group

__all__ = [
    "RotationalError",
    "angle_swept",
    "net_force",
    "net_torque",
    "rotational_error_along",
    "superposition_rotations",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class RotationalError:
    """How the forces of each frame break under random turns.

    Args:
        error_meV_per_A: mean absolute component of g^-1 f(gx) - f(x), [T], meV/Angstrom.
        atom_error_meV_per_A: the same for each atom alone, [T, N], meV/Angstrom; their mean is that of the frame.
        spread_meV_per_A: standard deviation over the draws of the forces rotated back, per component, [T],
            meV/Angstrom.
        forces: of the original frames, [T, N, 3], eV/Angstrom.
        n_draws: turns per frame.
        seed: of the draws.
        group: SO3 or O3 (mirrors too).
        axis: the only one rotated about, of length 1, with O3 mirrored through planes that hold it; None: all.
        ensemble_std_meV_per_A: root mean square over all components of the members' standard deviation in the
            original frames, [T], meV/Angstrom; None where the calculator is no ensemble.
    """

    error_meV_per_A: NDArray[np.float64]
    atom_error_meV_per_A: NDArray[np.float64]
    spread_meV_per_A: NDArray[np.float64]
    forces: NDArray[np.float64]
    n_draws: int
    seed: int
    group: str
    axis: tuple[float, float, float] | None = None
    ensemble_std_meV_per_A: NDArray[np.float64] | None = None

    @property
    def mean_error_meV_per_A(self) -> float:
        """Mean of the error over all frames, draws and components, meV/Angstrom."""
        return float(self.error_meV_per_A.mean())

    @property
    def rms_spread_meV_per_A(self) -> float:
        """Root mean square of the spread over the frames, meV/Angstrom."""
        return float(np.sqrt(np.mean(self.spread_meV_per_A**2)))

    @property
    def rms_force_meV_per_A(self) -> float:
        """Root mean square component of the original forces, meV/Angstrom: what the error is small against."""
        return float(1e3 * np.sqrt(np.mean(self.forces**2)))


def net_force(forces: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the forces on all atoms, [..., 3], eV/Angstrom, from forces [..., N, 3]; zero for isolated molecules."""
    return np.asarray(forces, dtype=np.float64).sum(axis=-2)


def net_torque(
    positions: NDArray[np.float64], forces: NDArray[np.float64], *, masses: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Sum of r x f about the centre, [..., 3], eV; zero where the energy does not change on rotation.

    Args:
        positions: [..., N, 3], Angstrom, unwrapped.
        forces: [..., N, 3], eV/Angstrom.
        masses: [N], amu: the centre is then that of mass instead of the mean position. It matters only when the
            net force is not zero.
    Raises:
        InputError: shapes that differ.
    """
    positions, forces = np.asarray(positions, dtype=np.float64), np.asarray(forces, dtype=np.float64)
    if positions.shape != forces.shape or positions.shape[-1:] != (3,):
        raise InputError(f"positions {positions.shape} and forces {forces.shape} must be of one shape [..., N, 3]")
    return np.cross(centred(positions, masses), forces).sum(axis=-2)


def about_axis(vectors: NDArray[np.float64], axis: Sequence[float] | None) -> NDArray[np.float64]:
    """The part along an axis of torques or angular momenta [..., 3]; all of them where there is no axis."""
    if axis is None:
        return vectors
    from remul_md.symmetry.rotations import unit_axis

    along = np.array(unit_axis(axis))
    part: NDArray[np.float64] = (vectors @ along)[..., None] * along
    return part


def check_draws(n_draws: int) -> None:
    """Refuse a number of random turns that gives no spread.

    Raises:
        InputError: fewer than 2.
    """
    if n_draws < 2:
        raise InputError(f"n_draws must be at least 2 (the spread needs two), got {n_draws}; 8 is the default")


def rotational_error_along(
    atoms: Atoms,
    positions: NDArray[np.float64],
    *,
    n_draws: int = 8,
    seed: int = 0,
    group: Group = "SO3",
    axis: Sequence[float] | None = None,
) -> RotationalError:
    """Rotational error and spread of the forces of any ASE calculator on each frame, meV/Angstrom.

    Costs (1 + n_draws) force calls a frame. Each frame has independent draws; a periodic cell turns with its atoms.
    A calculator that gives an error bar of its forces, `diagnostics["forces_std"]` ([N, 3], eV/Angstrom), as a
    ensemble does, is asked for it in each original frame.

    Args:
        atoms: structure with a calculator attached; neither its positions nor its results are changed, but the
            calculator keeps the last rotated structure.
        positions: frames to test, [T, N, 3], Angstrom.
        n_draws: random turns a frame, >= 2.
        seed: of the draws.
        group: SO3 (rotations) or O3 (mirrors too).
        axis: rotate about it only, as in a field along it, and with O3 mirror through planes that hold it.
    Raises:
        InputError: no calculator, fewer than 2 draws, positions of another number of atoms.
    Source: rotational error as in `remul_md.symmetry.measures`, for anything that ASE can call.
    """
    import torch

    from remul_md.symmetry.evaluate import rotated_back, statistics
    from remul_md.symmetry.remul import Turn
    from remul_md.symmetry.rotations import random_rotations, rotated_about_centre, unit_axis

    if atoms.calc is None:
        raise InputError("the rotational error needs forces: atoms.calc is None; attach a calculator first")
    check_draws(n_draws)
    frames = np.asarray(positions, dtype=np.float64)
    if frames.ndim != 3 or frames.shape[1:] != (len(atoms), 3) or len(frames) == 0:
        raise InputError(
            f"positions have shape {frames.shape}, expected [frames >= 1, {len(atoms)}, 3] for {atoms.symbols}; "
            "give the trajectory of this structure"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = random_rotations(len(frames) * n_draws, generator=generator, group=group, axis=axis)
    asked = atoms.copy()
    asked.calc = atoms.calc
    cell = np.array(atoms.cell)

    def rotated(place: Tensor, rotations: Tensor) -> Tensor:
        """Positions [N, 3] about their centre; a cell turns with them."""
        asked.set_cell(cell @ rotations[0, 0].numpy().T, scale_atoms=False)
        return rotated_about_centre(place, rotations[0, 0])

    def forces_at(place: Tensor) -> Tensor:
        asked.set_positions(place.numpy(), apply_constraint=False)
        return torch.from_numpy(np.asarray(asked.get_forces(apply_constraint=False), dtype=np.float64))

    turn = Turn(inputs=rotated, outputs=lambda forces, rotations: forces @ rotations[0, 0].mT)
    error, spread, original = np.empty(len(frames)), np.empty(len(frames)), np.empty(frames.shape)
    atom_error, stds = np.empty(frames.shape[:2]), []
    for frame, (place, rotations) in enumerate(zip(frames, drawn.view(len(frames), n_draws, 1, 3, 3), strict=True)):
        asked.set_cell(cell, scale_atoms=False)
        own = forces_at(torch.from_numpy(place))
        original[frame] = own.numpy()
        std = getattr(atoms.calc, "diagnostics", {}).get("forces_std")
        if std is not None:
            stds.append(float(np.sqrt(np.mean(np.square(std)))))
        back = torch.stack(rotated_back(forces_at, torch.from_numpy(place), turn=turn, rotations=rotations))
        found = statistics(back, own)
        error[frame], atom_error[frame] = found.absolute.mean(), found.absolute.numpy()
        spread[frame] = float((found.spread.sum() / own.numel()).sqrt())
    return RotationalError(
        error_meV_per_A=1e3 * error,
        atom_error_meV_per_A=1e3 * atom_error,
        spread_meV_per_A=1e3 * spread,
        forces=original,
        n_draws=n_draws,
        seed=seed,
        group=group,
        axis=None if axis is None else unit_axis(axis),
        ensemble_std_meV_per_A=1e3 * np.array(stds) if len(stds) == len(frames) else None,
    )
