"""Harmonic vibrations of a molecule with any ASE calculator, rotations and translations judged as a symmetry check.

A rigid motion costs no energy, so its frequency is zero for exact forces at a stationary point. What it comes out as
says how far the energy of a model depends on place and orientation. The rigid motions are known from the geometry
alone; they are set apart by projection and not by size: a methyl group can turn as softly as a model breaks rotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.verdicts import Verdict
from remul_md.dynamics.momenta import LINEAR_RATIO, center_of_mass, inertia_tensor
from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

# Angstrom. The error of a central difference grows with its square: a bond of stiffness k that an atom leaves
# sideways by d answers with k d^2 / (2 r^2) too much curvature, which is 20 1/cm for a hydrogen at 0.01 Angstrom and
# 2 at 0.001. Rounding in double precision is still far below that.
DISPLACEMENT_A = 1e-3
# eV/Angstrom. A residual force F bends the rigid rotations by F / (m r): 16 1/cm for a hydrogen at 1e-3, 5 at 1e-4.
FMAX_EV_PER_A = 1e-4
# 1/cm, a tenth of kT at 300 K (209 1/cm). For a moment of inertia of 20 amu Angstrom^2, as in ethanol, a turn by one
# radian then costs 0.015 eV, half of kT. Residual forces and finite differences stay below 5.
RIGID_BOUND_PER_CM = 20.0


@dataclass(frozen=True, kw_only=True, eq=False)
class NormalModes:
    """Wavenumbers of a molecule at one geometry, each set ascending; imaginary ones are negative. V = 3N - 6 or 3N - 5.

    Args:
        vibrations_per_cm: within the space without rigid motions, [V], 1/cm.
        vibration_modes: their Cartesian displacements, normalised in mass-weighted coordinates, [V, N, 3], amu^-1/2.
        translations_per_cm: of the three translations, [3], 1/cm.
        rotations_per_cm: of the rotations about the axes of the molecule, [3], or [2] for a linear one, 1/cm.
        shift_per_cm: largest change of a vibration when rigid motions are not projected out, 1/cm.
        asymmetry: |H - H^T| / |H + H^T| of the force constants: 0 for forces that are a gradient.
    """

    vibrations_per_cm: Array
    vibration_modes: Array
    translations_per_cm: Array
    rotations_per_cm: Array
    shift_per_cm: float
    asymmetry: float

    @property
    def zero_point_energy(self) -> float:
        """Half a quantum in each real vibration, eV."""
        from ase import units

        return float(0.5 * units.invcm * self.vibrations_per_cm.clip(min=0.0).sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Vibrations:
    """What `vibrations` found.

    Args:
        atoms: the relaxed structure, without a calculator.
        energy: of it, eV.
        max_force: largest force on an atom of it, eV/Angstrom.
        relaxed: whether that is within what was asked.
        n_steps: steps of the optimiser.
        modes: at that geometry.
        verdicts: minimum, translations and rotations, each with its threshold.
    """

    atoms: Atoms
    energy: float
    max_force: float
    relaxed: bool
    n_steps: int
    modes: NormalModes
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: wavenumbers 1/cm, energies eV, positions Angstrom."""
        from dataclasses import asdict

        return {
            "relaxed": self.relaxed,
            "n_steps": self.n_steps,
            "max_force_eV_per_A": self.max_force,
            "energy_eV": self.energy,
            "zero_point_energy_eV": self.modes.zero_point_energy,
            "vibrations_per_cm": self.modes.vibrations_per_cm.tolist(),
            "rotations_per_cm": self.modes.rotations_per_cm.tolist(),
            "translations_per_cm": self.modes.translations_per_cm.tolist(),
            "shift_per_cm": self.modes.shift_per_cm,
            "hessian_asymmetry": self.modes.asymmetry,
            "atomic_numbers": self.atoms.numbers.tolist(),
            "positions_A": self.atoms.positions.tolist(),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }


def vibrations(
    atoms: Atoms,
    *,
    fmax_eV_per_A: float = FMAX_EV_PER_A,
    max_steps: int = 500,
    displacement_A: float = DISPLACEMENT_A,
) -> Vibrations:
    """Relax a molecule and compute its harmonic wavenumbers by central differences of the forces.

    Takes 6N calls of the calculator after the relaxation. Calculate in double precision: a rounding error of
    1e-5 eV/Angstrom in the forces is 50 1/cm in the rotation of a hydrogen.

    Args:
        atoms: one isolated molecule with any ASE calculator attached; it is not moved.
        fmax_eV_per_A: relaxed when no force on an atom is larger, > 0.
        max_steps: of the optimiser, >= 0; 0 takes the geometry as it is.
        displacement_A: of the finite differences, > 0.
    Raises:
        InputError: an option out of range, no calculator, one atom, periodic, constraints, forces that are not finite.
    """
    from ase.optimize import BFGS

    _check(fmax_eV_per_A, max_steps)
    _check_displacement(displacement_A)
    moved = _molecule(atoms)
    _finite_forces(moved)
    optimiser = BFGS(moved, logfile=None)
    if max_steps > 0:
        try:
            optimiser.run(fmax=fmax_eV_per_A, steps=max_steps)
        except np.linalg.LinAlgError as error:  # what the optimiser makes of forces that are not finite
            raise InputError(
                f"the relaxation broke down after {optimiser.nsteps} steps ({error}); start nearer to a minimum"
            ) from error
    forces = _finite_forces(moved)
    max_force = float(np.linalg.norm(forces, axis=1).max())
    energy = float(moved.get_potential_energy())
    hessian = force_constants(moved, displacement_A=displacement_A)
    modes = normal_modes(hessian, moved.get_positions(), masses=moved.get_masses())
    relaxed = max_force <= fmax_eV_per_A
    n_steps = int(optimiser.nsteps) if max_steps > 0 else 0
    moved.calc = None
    return Vibrations(
        atoms=moved,
        energy=energy,
        max_force=max_force,
        relaxed=relaxed,
        n_steps=n_steps,
        modes=modes,
        verdicts=_verdicts(modes, relaxed=relaxed, max_force=max_force),
    )


def force_constants(atoms: Atoms, *, displacement_A: float = DISPLACEMENT_A) -> Array:
    """Second derivatives of the energy by central differences of the forces, [3N, 3N], eV/Angstrom^2.

    Row: the coordinate that was moved. Not symmetrised: what is not symmetric in it is error or no gradient.

    Args:
        atoms: structure with any ASE calculator attached; it is not moved.
        displacement_A: > 0.
    Raises:
        InputError: no calculator, a displacement that is not > 0, forces that are not finite.
    """
    _check_displacement(displacement_A)
    moved = _molecule(atoms)
    start = moved.get_positions()
    rows = []
    for coordinate in range(start.size):
        sides = []
        for sign in (1.0, -1.0):
            positions = start.copy()
            positions.flat[coordinate] += sign * displacement_A
            moved.set_positions(positions)
            sides.append(_finite_forces(moved).ravel())
        rows.append((sides[1] - sides[0]) / (2.0 * displacement_A))
    return np.array(rows)


def normal_modes(hessian: Array, positions: Array, *, masses: Array) -> NormalModes:
    """Harmonic wavenumbers from second derivatives, rigid motions apart.

    With M the masses and B the orthonormal rigid motions in mass-weighted coordinates, vibrations are the eigenvalues
    of M^-1/2 H M^-1/2 in the space orthogonal to B; translations and rotations those of its blocks within B.

    Args:
        hessian: [3N, 3N], eV/Angstrom^2; its symmetric part is used.
        positions: [N, 3], Angstrom, N >= 2.
        masses: [N], amu, > 0.
    Raises:
        InputError: shapes that do not fit, values that are not finite.
    Source: Wilson, Decius and Cross, Molecular Vibrations (1955), sections 2-2 and 11-1 (conditions of Eckart).
    """
    size = 3 * len(masses)
    if hessian.shape != (size, size) or positions.shape != (len(masses), 3) or len(masses) < 2:
        raise InputError(
            f"a Hessian {hessian.shape}, positions {positions.shape} and masses {masses.shape} do not fit; "
            "give [3N, 3N], [N, 3] and [N] of at least two atoms"
        )
    if not np.isfinite(hessian).all():
        raise InputError("the Hessian holds a value that is not finite; check the forces near this geometry")
    translations, rotations = rigid_motions(positions, masses=masses)
    rigid = np.concatenate([translations, rotations])
    root = np.repeat(np.sqrt(masses), 3)
    symmetric = 0.5 * (hessian + hessian.T)
    weighted = symmetric / np.outer(root, root)
    # Columns of a complete QR beyond the rigid ones span what is orthogonal to them.
    internal = np.linalg.qr(rigid.T, mode="complete")[0][:, len(rigid) :]
    curvatures, vectors = np.linalg.eigh(internal.T @ weighted @ internal)
    modes = (internal @ vectors).T
    vibrations_per_cm = wavenumbers_per_cm(curvatures)
    full, all_modes = np.linalg.eigh(weighted)
    share = ((rigid @ all_modes) ** 2).sum(axis=0)  # of rigid motion in each mode
    kept = np.sort(np.argsort(share, kind="stable")[: len(curvatures)])
    norm = float(np.linalg.norm(symmetric))
    return NormalModes(
        vibrations_per_cm=vibrations_per_cm,
        vibration_modes=(modes / root).reshape(len(modes), -1, 3),
        translations_per_cm=wavenumbers_per_cm(np.linalg.eigvalsh(translations @ weighted @ translations.T)),
        rotations_per_cm=wavenumbers_per_cm(np.linalg.eigvalsh(rotations @ weighted @ rotations.T)),
        shift_per_cm=float(np.abs(wavenumbers_per_cm(full[kept]) - vibrations_per_cm).max()),
        asymmetry=float(np.linalg.norm(hessian - hessian.T)) / (2.0 * norm) if norm > 0.0 else 0.0,
    )


def rigid_motions(positions: Array, *, masses: Array) -> tuple[Array, Array]:
    """Translations [3, 3N] and rotations [3, 3N] ([2, 3N] if linear), orthonormal in mass-weighted coordinates.

    Args:
        positions: [N, 3], Angstrom, N >= 2, not all at one place.
        masses: [N], amu.
    """
    root = np.sqrt(masses)[:, None]
    translations = np.array([(root * axis).ravel() for axis in np.eye(3)]) / np.sqrt(masses.sum())
    moments, axes = np.linalg.eigh(inertia_tensor(positions, masses))
    turns = moments > LINEAR_RATIO * moments[-1]
    levers = positions - center_of_mass(positions, masses)
    rotations = np.array([(root * np.cross(axis, levers)).ravel() for axis in axes.T[turns]])
    return translations, rotations / np.sqrt(moments[turns])[:, None]


def wavenumbers_per_cm(curvatures: NDArray[np.floating[Any]]) -> Array:
    """Wavenumbers, 1/cm, of eigenvalues of the mass-weighted Hessian, eV/(amu Angstrom^2); negative below zero.

    nu = sqrt(curvature) / (2 pi c).
    """
    from ase import units

    # In ASE's units (eV, Angstrom, amu) the root is an angular frequency in its own unit of time.
    hertz = np.sqrt(np.abs(curvatures)) * units.fs * 1e15 / (2.0 * np.pi)
    return np.asarray(np.sign(curvatures) * hertz / (100.0 * units._c), dtype=np.float64)


def _verdicts(modes: NormalModes, *, relaxed: bool, max_force: float) -> tuple[Verdict, ...]:
    lowest = float(modes.vibrations_per_cm[0])
    minimum = Verdict(
        name="minimum",
        passed=lowest >= -RIGID_BOUND_PER_CM if relaxed else None,
        value=lowest,
        threshold=-RIGID_BOUND_PER_CM,
        unit="1/cm",
        why=(
            "The lowest vibration; a negative one is imaginary: the energy falls along it, this is no minimum."
            if relaxed
            else f"The structure is not relaxed (a force of {max_force:.2g} eV/Å is left): allow more steps."
        ),
        sense="at least",
    )
    found = [minimum]
    for name, values, of in (
        ("translations cost nothing", modes.translations_per_cm, "where it stands"),
        ("rotations cost nothing", modes.rotations_per_cm, "how it is rotated"),
    ):
        worst = float(values[np.argmax(np.abs(values))])
        found.append(
            Verdict(
                name=name,
                passed=abs(worst) <= RIGID_BOUND_PER_CM,
                value=worst,
                threshold=RIGID_BOUND_PER_CM,
                unit="1/cm",
                why=f"The energy of a free molecule does not depend on {of}, so this is zero but for residual forces "
                f"(below 5 1/cm if relaxed); the limit is a tenth of kT at 300 K.",
                sense="within",
            )
        )
    return tuple(found)


def _molecule(atoms: Atoms) -> Atoms:
    """A copy with the same calculator, refused if it has no vibrations of its own."""
    if atoms.calc is None:
        raise InputError("the structure has no calculator; set atoms.calc before")
    if len(atoms) < 2:
        raise InputError(f"vibrations need at least two atoms, got {len(atoms)}")
    if atoms.pbc.any():
        raise InputError(
            f"pbc is {atoms.pbc.tolist()}: these are the vibrations of isolated molecules, whose rotations are set "
            "apart; set atoms.pbc = False, or use a phonon code for a crystal"
        )
    if atoms.constraints:
        raise InputError(
            f"the structure has constraints ({type(atoms.constraints[0]).__name__}), and every atom has to move here; "
            "remove them with atoms.set_constraint()"
        )
    moved = atoms.copy()
    moved.calc = atoms.calc
    return moved


def _finite_forces(atoms: Atoms) -> Array:
    forces = np.asarray(atoms.get_forces(), dtype=np.float64)
    if not np.isfinite(forces).all():
        raise InputError("the calculator's forces are not finite; start from a structure it knows")
    return forces


def _check(fmax_eV_per_A: float, max_steps: int) -> None:
    if not (np.isfinite(fmax_eV_per_A) and fmax_eV_per_A > 0.0):
        raise InputError(f"fmax_eV_per_A must be > 0, got {fmax_eV_per_A}; {FMAX_EV_PER_A:g} is the default")
    if max_steps < 0:
        raise InputError(f"max_steps must be at least 0, got {max_steps}; 500 is the default")


def _check_displacement(displacement_A: float) -> None:
    if not (np.isfinite(displacement_A) and displacement_A > 0.0):
        raise InputError(f"displacement_A must be > 0, got {displacement_A}; {DISPLACEMENT_A:g} is the default")
