"""Energies and forces of any ASE calculator, for whatever positions a check asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]
BATCH = 16  # geometries in a call: more gives little for small molecules on a CPU


class Sample(NamedTuple):
    """Energy, eV, and forces [N, 3], eV/Angstrom, at one geometry."""

    energy: float
    forces: Array


class CalculationFailed(RuntimeError):
    """The calculator raised, or gave energies or forces that are not finite."""


class Probe:
    """A structure with its calculator, to be asked at other positions; it counts its calls.

    Args:
        atoms: structure with a calculator attached. It is copied without its constraints and stays as it is, but the
            calculator keeps the last structure it saw.
        on_call: told the number of calculations after each, for progress.
    Raises:
        InputError: no calculator, no atoms, or the calculator fails at the structure itself.
    """

    def __init__(self, atoms: Atoms, *, on_call: Callable[[int], object] | None = None) -> None:
        if len(atoms) == 0 or atoms.calc is None:
            what = "atoms.calc is None" if len(atoms) else "the structure has no atoms"
            raise InputError(f"nothing to audit: {what}; give a structure with an ASE calculator attached")
        self.calculator = atoms.calc
        self.atoms = atoms.copy()
        self.atoms.set_constraint()
        self.n_calls = 0
        self._copies: Callable[[Array], tuple[Array, Array]] | None = None
        self._on_call = on_call
        self.force_consistent = True
        try:
            self.start = self(self.atoms.get_positions())
        except CalculationFailed as error:
            raise InputError(f"the calculator cannot be audited: {error}; choose another structure") from error

    def __call__(
        self, positions: Array, *, cell: Array | None = None, order: NDArray[np.int64] | None = None
    ) -> Sample:
        """Energy and forces at other positions.

        Where the calculator has a free energy (smeared occupations), that is the energy: it belongs to the forces.

        Args:
            positions: [N, 3], Angstrom, in the order of the structure.
            cell: [3, 3], Angstrom, rows are lattice vectors; that of the structure by default.
            order: the atoms are handed to the calculator in this order, [N]; the forces come back in the structure's.
        Raises:
            CalculationFailed: the calculator raised anything, or its results are not finite numbers of the right shape.
        """
        atoms = self.atoms.copy()
        atoms.set_positions(positions)
        if cell is not None:
            atoms.set_cell(cell, scale_atoms=False)
        if order is not None:
            # Not atoms[order]: subclasses such as ASE's clusters index otherwise.
            for name, values in atoms.arrays.items():
                atoms.arrays[name] = values[order]
        atoms.calc = self.calculator
        self.count_call()
        try:
            forces = np.array(atoms.get_forces(), dtype=np.float64)
            energy = self.energy_of(atoms)
        except Exception as error:  # calculators raise whatever their code raises
            reason = str(error).strip().splitlines() or [""]
            raise CalculationFailed(f"the calculator raised {type(error).__name__}: {reason[0]}") from error
        if forces.shape != positions.shape or not np.isfinite(forces).all() or not np.isfinite(energy):
            raise CalculationFailed(
                f"the calculator gave energy {energy} eV and forces of shape {forces.shape}, "
                f"{'all' if np.isfinite(forces).all() else 'not all'} finite, expected {positions.shape}"
            )
        if order is not None:
            forces[order] = forces.copy()
        return Sample(energy, forces)

    def many(self, positions: Sequence[Array]) -> list[Sample | CalculationFailed]:
        """Energies and forces of several geometries [N, 3]; of each that fails, why.

        A calculator that offers `copies` (see `RemulCalculator.copies`) is asked for BATCH of them in one call, for
        isolated molecules.
        """
        if self.batch_size == 1:
            return [self._tried(place) for place in positions]
        found: list[Sample | CalculationFailed] = []
        for first in range(0, len(positions), self.batch_size):
            found += self._batch(list(positions[first : first + self.batch_size]))
        return found

    def all(self, positions: Sequence[Array]) -> list[Sample]:
        """As `many`, where none may fail.

        Raises:
            CalculationFailed: what the first that failed said.
        """
        samples = []
        for found in self.many(positions):
            if isinstance(found, CalculationFailed):
                raise found
            samples.append(found)
        return samples

    @property
    def batch_size(self) -> int:
        """Geometries that the calculator takes in one call."""
        offers = hasattr(self.calculator, "copies") and not self.atoms.pbc.any()
        # Compiling a batch takes minutes; one by one, compiled, they are as fast.
        compiled = getattr(self.calculator, "parameters", {}).get("compile", False)
        return BATCH if offers and not compiled else 1

    def _tried(self, positions: Array) -> Sample | CalculationFailed:
        try:
            return self(positions)
        except CalculationFailed as error:
            return error

    def _batch(self, positions: list[Array]) -> list[Sample | CalculationFailed]:
        if self._copies is None:
            self._copies = self.calculator.copies(self.atoms, n_copies=self.batch_size)
        # Made for one number of copies: a batch that is not full is filled up.
        full = np.stack(positions + positions[-1:] * (self.batch_size - len(positions)))
        try:
            energies, forces = self._copies(full)
        except Exception:  # calculators raise whatever their code raises: which of them failed is asked one by one
            return [self._tried(place) for place in positions]
        found: list[Sample | CalculationFailed] = []
        for place, energy, of_place in zip(positions, energies, forces, strict=False):
            if not (np.isfinite(energy) and np.isfinite(of_place).all()):
                found.append(self._tried(place))
                continue
            self.count_call()
            found.append(Sample(float(energy), np.array(of_place, dtype=np.float64)))
        return found

    def count_call(self) -> None:
        """One more geometry calculated."""
        self.n_calls += 1
        if self._on_call is not None:
            self._on_call(self.n_calls)

    def energy_of(self, atoms: Atoms) -> float:
        """The energy that belongs to the forces, eV; plain energy where a calculator knows no other."""
        from ase.calculators.calculator import PropertyNotImplementedError

        if self.force_consistent:
            try:
                return float(atoms.get_potential_energy(force_consistent=True))
            except PropertyNotImplementedError:
                self.force_consistent = False
        return float(atoms.get_potential_energy())


class ProbedForces:
    """A probe as the calculator of its moving atoms, for dynamics: it counts, and its energy belongs to the forces."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._last: tuple[Array, Sample] | None = None

    def get_potential_energy(self, atoms: Atoms, force_consistent: bool = False) -> float:
        """Energy, eV."""
        return self._at(atoms).energy

    def get_forces(self, atoms: Atoms) -> Array:
        """Forces, [N, 3], eV/Angstrom."""
        return self._at(atoms).forces.copy()

    def _at(self, atoms: Atoms) -> Sample:
        positions = atoms.get_positions()
        if self._last is None or not np.array_equal(self._last[0], positions):
            self._last = positions, self._probe(positions)
        return self._last[1]


class ProbedFrames(NamedTuple):
    """Probed geometries, [T, N, 3], Angstrom, with energies [T], eV, and forces [T, N, 3], eV/Angstrom."""

    positions: Array
    energies: Array
    forces: Array


def probed_frames(probe: Probe, *, n_frames: int, amplitude_A: float, rng: np.random.Generator) -> ProbedFrames:
    """The structure with normal displacements of each coordinate.

    Never the structure itself: its forces may all be zero by symmetry, and errors of them with them.

    Args:
        probe: what is asked.
        n_frames: number of geometries.
        amplitude_A: standard deviation of a coordinate, Angstrom.
        rng: source of the displacements.
    Raises:
        CalculationFailed: as the probe.
    """
    start = probe.atoms.get_positions()
    positions = start + amplitude_A * rng.standard_normal((n_frames, *start.shape))
    samples = [probe(place) for place in positions]
    return ProbedFrames(positions, np.array([s.energy for s in samples]), np.stack([s.forces for s in samples]))
