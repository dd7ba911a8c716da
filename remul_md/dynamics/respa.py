"""Multiple time steps: cheap forces at every step, their correction to the accurate ones at every M-th.

The scheme is reversible RESPA with the accurate forces split as F = F_fast + (F - F_fast): for an outer step M h,

    half a kick by (F - F_fast) over M h,   M steps of velocity Verlet with F_fast over h,   half a kick again.

With a good direct head as the fast forces, F - F_fast is small and smooth. For M = 1 it is velocity Verlet with F.
The fast forces need not be conservative: their error enters with the second order of the outer step only.
"""

from __future__ import annotations

from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.md.md import MolecularDynamics

from remul_md.dynamics.momenta import Array
from remul_md.errors import InputError


class RespaVerlet(MolecularDynamics):
    """Reversible RESPA for ASE: `atoms.calc` gives the accurate forces, `fast` those of the inner steps.

    One `step` is one outer step of `n_inner * timestep`; `get_time` and observers count these.

    Args:
        atoms: with the accurate calculator and momenta; free of constraints.
        timestep: inner step, in ASE's unit of time as everywhere in ASE (`0.5 * ase.units.fs`).
        fast: calculator of the inner steps, another object than `atoms.calc`.
        n_inner: M, inner steps to an outer one.
    Raises:
        InputError: `n_inner` < 1, constraints, one calculator for both.
    Source: Tuckerman, Berne and Martyna (1992), doi:10.1063/1.463137, split by accuracy instead of by frequency.
    """

    def __init__(self, atoms: Atoms, timestep: float, *, fast: Calculator, n_inner: int) -> None:
        if isinstance(n_inner, bool) or not isinstance(n_inner, int) or n_inner < 1:
            raise InputError(f"n_inner must be a whole number >= 1, got {n_inner!r}")
        if atoms.constraints:
            raise InputError("the structure has constraints; remove them with atoms.set_constraint()")
        if fast is atoms.calc:  # it would forget at each call what it computed for the other
            raise InputError("fast is the calculator of the atoms itself; give a second one")
        super().__init__(atoms, timestep=n_inner * timestep)
        self.n_inner = n_inner
        self._inner = atoms.copy()
        self._inner.calc = fast

    def step(self, forces: Array | None = None) -> Array:
        """One outer step; takes and returns the accurate forces, [N, 3], eV/Angstrom."""
        atoms, outer, inner = self.atoms, self.dt, self.dt / self.n_inner
        masses = atoms.get_masses()[:, None]
        accurate = atoms.get_forces(md=True) if forces is None else forces
        positions = atoms.get_positions()
        fast = self._fast_forces(positions)
        momenta = atoms.get_momenta() + 0.5 * outer * (accurate - fast)
        for _ in range(self.n_inner):
            momenta = momenta + 0.5 * inner * fast
            positions = positions + inner * momenta / masses
            fast = self._fast_forces(positions)
            momenta = momenta + 0.5 * inner * fast
        atoms.set_positions(positions)
        accurate = atoms.get_forces(md=True)
        atoms.set_momenta(momenta + 0.5 * outer * (accurate - fast))
        return accurate

    def _fast_forces(self, positions: Array) -> Array:
        """The calculator remembers those of the end of the last step, so that a step costs `n_inner` calls."""
        self._inner.set_positions(positions)
        return self._inner.get_forces(md=True)
