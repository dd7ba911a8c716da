"""PBE/def2-SVP by PySCF, the level of theory of the rMD17 labels, as an ASE calculator.

Restricted for a molecule with all its bonds, as rMD17 was computed. Unrestricted, from a guess of broken symmetry and
followed to a stable solution, where a bond is stretched, the gap closes, electrons are unpaired, or the user says so:
restricted PBE lets electrons of a broken bond stay paired, which costs 12 eV for an O-H bond at 3 Angstrom.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, SCFError, all_changes
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.labels.extras import require_package
from remul_md.labels.field import Field, check_field
from remul_md.structures.topology import weakest_link

logger = logging.getLogger(__name__)

GRID_LEVEL = 4  # of PySCF; with it and RI-J the labels of rMD17 come back within 0.1 meV/Angstrom
CONVERGENCE_HARTREE = 1e-9
STRETCHED = 1.3  # times the sum of the covalent radii: a bond that is longer is breaking
# eV between the frontier orbitals, below which the electrons may want to part although every bond has its length, as in
# a ring that opens. Ethanol has 6.6, at an O-H bond of 1.7 Angstrom 1.9, and is still restricted there.
SMALL_GAP_EV = 1.5
# The sign of the lowest curvature is asked for, not its value: 7,000 points of ethanol give that of 120,000 in a tenth
# of the time.
STABILITY_GRID_LEVEL = 0
MAX_DESCENTS = 6  # along directions in which a solution is unstable
# Along a direction that only turns degenerate orbitals, as in an atom, the energy falls by as much as the points of the
# grid make of it: 0.05 meV in oxygen.
NO_DESCENT_EV = 2e-4
LAST_WITHOUT_CORE_POTENTIAL = 36  # krypton: beyond, def2 bases belong to an effective core potential


class NotConverged(InputError, SCFError):
    """No solution was found for this geometry; labels of others are still good."""


def require_pyscf() -> str:
    """Name and version of PySCF.

    Raises:
        InputError: it is not installed; the extra is named.
    """
    return require_package("pyscf", module="pyscf.dft", need="PBE/def2-SVP needs PySCF", extra="pbe")


class PBECalculator(Calculator):
    """Energy (eV) and forces (eV/Angstrom) of a neutral molecule or atom, Kohn-Sham.

    Coulomb integrals by density fitting (RI-J, auxiliary basis def2-universal-jfit), no dispersion correction. Every
    call starts from the same guess, so a geometry has one energy, whatever was computed before it. `results` also has
    `spin_squared`, the expectation value of S squared, 0 where the calculation was restricted.

    Args:
        spin: unpaired electrons, which makes every call unrestricted; 0 is a singlet whose electrons may part. None: an
            atom has those of Hund's rules, a molecule none.
        field_V_per_A: a uniform electric field (x, y, z), volt/Angstrom; a positive charge is pushed along it.
    Raises:
        InputError: PySCF is not installed, a negative spin, a field that is none; at a call: a cell, electrons that the
            spin does not fit.
        NotConverged: at a call: no self-consistent or no stable solution was found.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 (ASE's protocol)

    def __init__(self, *, spin: int | None = None, field_V_per_A: Field | None = None) -> None:
        if spin is not None and spin < 0:
            raise InputError(f"spin is a number of unpaired electrons, >= 0, got {spin}")
        self.spin = spin
        self.field_V_per_A = None if field_V_per_A is None else check_field(field_V_per_A)
        require_pyscf()
        super().__init__()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces"),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy and forces; both, whichever was asked for."""
        super().calculate(atoms, properties, system_changes)
        structure = self.atoms
        if structure is None:
            raise InputError("no structure was given; call with atoms")
        if structure.pbc.any():
            raise InputError(
                f"pbc is {structure.pbc.tolist()}, PBE/def2-SVP is computed for molecules; set it to False"
            )
        spin = self._unpaired(structure)
        link, stretched = weakest_link(structure.numbers, structure.positions)
        molecule = _molecule(structure, spin=spin)
        method, why = None, ""
        if self.spin is not None or spin > 0:
            why = f"{spin} unpaired electrons"
        elif stretched > STRETCHED:
            why = f"the bond of atoms {link[0]} and {link[1]} has {stretched:.2f} times its usual length"
        else:
            method, why = self._restricted(molecule)
        spin_squared = 0.0
        if method is None:
            logger.debug("%s: unrestricted, %s", structure.get_chemical_formula(), why)
            method = self._unrestricted(molecule, formula=structure.get_chemical_formula())
            spin_squared = float(method.spin_square()[0])
        gradient = method.nuc_grad_method()
        if self.field_V_per_A is not None:
            _put_gradient_into_field(gradient, molecule, self.field_V_per_A)
        forces = -gradient.kernel() * (units.Hartree / units.Bohr)
        energy = float(method.e_tot) * units.Hartree
        self.results = {"energy": energy, "free_energy": energy, "forces": forces, "spin_squared": spin_squared}

    def _unpaired(self, structure: Atoms) -> int:
        """Unpaired electrons of a structure."""
        n_electrons, formula = int(structure.numbers.sum()), structure.get_chemical_formula()
        alone = len(structure) == 1
        spin = self.spin if self.spin is not None else unpaired_in_atom(int(structure.numbers[0])) if alone else 0
        if spin > n_electrons or (n_electrons - spin) % 2:
            odd = n_electrons % 2
            raise InputError(
                f"{formula} has {n_electrons} electrons, of which {spin} cannot be unpaired; say how many are: "
                f"spin={2 - odd} (`--spin {2 - odd}`) or another {'odd' if odd else 'even'} number"
            )
        return spin

    def _method(self, kind: str, molecule: Any) -> Any:
        from pyscf import dft

        method = getattr(dft, kind)(molecule, xc="PBE").density_fit()
        method.grids.level = GRID_LEVEL
        method.conv_tol = CONVERGENCE_HARTREE
        if self.field_V_per_A is not None:
            _put_into_field(method, molecule, self.field_V_per_A)
        return method

    def _restricted(self, molecule: Any) -> tuple[Any, str]:
        """The restricted solution, or None and why it is none to be trusted."""
        method = self._method("RKS", molecule)
        method.kernel()
        if not method.converged:
            return None, "restricted it does not converge"
        occupied = molecule.nelectron // 2
        if occupied < len(method.mo_energy):
            gap = float(method.mo_energy[occupied] - method.mo_energy[occupied - 1]) * units.Hartree
            if gap < SMALL_GAP_EV:
                return None, f"the gap is {gap:.2f} eV"
        return method, ""

    def _unrestricted(self, molecule: Any, *, formula: str) -> Any:
        """A stable unrestricted solution, reached from frontier orbitals that are mixed apart for the two spins."""
        method = self._method("UKS", molecule)
        density, before = _mixed_guess(method, molecule), np.inf
        for _ in range(MAX_DESCENTS):
            method.kernel(dm0=density)
            if not method.converged:  # second order: slower a step, but it gets there
                second = method.newton()
                second.kernel(method.mo_coeff, method.mo_occ)
                if not second.converged:
                    raise NotConverged(f"unrestricted PBE/def2-SVP of {formula} did not converge")
                for name in ("mo_coeff", "mo_occ", "mo_energy", "e_tot", "converged"):
                    setattr(method, name, getattr(second, name))
            if (before - method.e_tot) * units.Hartree < NO_DESCENT_EV:
                return method
            orbitals, stable = _stability(method, molecule)
            if stable:
                return method
            before = method.e_tot
            density = method.make_rdm1(orbitals, method.mo_occ)
        raise NotConverged(f"no stable unrestricted PBE/def2-SVP solution of {formula} in {MAX_DESCENTS} attempts")


def unpaired_in_atom(atomic_number: int) -> int:
    """Unpaired electrons of a free atom in its ground state, by Hund's rules from its configuration."""
    from pyscf.data.elements import CONFIGURATION

    unpaired = 0
    for momentum, n_electrons in enumerate(CONFIGURATION[atomic_number]):
        places = 2 * (2 * momentum + 1)
        unpaired += min(n_electrons % places, places - n_electrons % places)
    return unpaired


def _molecule(structure: Atoms, *, spin: int) -> Any:
    from pyscf import gto

    symbols = structure.get_chemical_symbols()
    heavy = {symbol for symbol, z in zip(symbols, structure.numbers, strict=True) if z > LAST_WITHOUT_CORE_POTENTIAL}
    return gto.M(
        atom=list(zip(symbols, structure.positions.tolist(), strict=True)),
        unit="Angstrom",
        basis="def2-svp",
        ecp=dict.fromkeys(heavy, "def2-svp"),
        spin=spin,
        verbose=0,
    )


def _mixed_guess(method: Any, molecule: Any) -> NDArray[np.float64]:
    """Densities of both spins, [2, orbitals, orbitals]: highest occupied and lowest empty orbital rotated into each
    other by an eighth of a turn, for one spin there and for the other back. Without this a singlet stays restricted.
    """
    alpha, beta = molecule.nelec
    start = method.get_init_guess()
    fock = method.get_fock(dm=start)[0]
    _, orbitals = method.eig((fock, fock), method.get_ovlp())
    densities = []
    for n_occupied, sign, of_spin in ((alpha, 1.0, orbitals[0].copy()), (beta, -1.0, orbitals[1].copy())):
        if alpha == beta and 0 < n_occupied < of_spin.shape[1]:
            highest, lowest = of_spin[:, n_occupied - 1].copy(), of_spin[:, n_occupied].copy()
            of_spin[:, n_occupied - 1] = (highest + sign * lowest) / np.sqrt(2.0)
        occupied = of_spin[:, :n_occupied]
        densities.append(occupied @ occupied.T)
    return np.array(densities)


def _stability(method: Any, molecule: Any) -> tuple[Any, bool]:
    """Orbitals moved in the direction in which a solution is unstable, if there is one, and whether there is none."""
    from pyscf.dft import gen_grid

    if molecule.nelectron == 1:  # one orbital, found by diagonalising: there is none lower
        return method.mo_coeff, True
    coarse = method.copy()
    coarse.grids = gen_grid.Grids(molecule)
    coarse.grids.level = STABILITY_GRID_LEVEL
    orbitals, _, stable, _ = coarse.stability(return_status=True)
    return orbitals, bool(stable)


def _put_into_field(method: Any, molecule: Any, field_V_per_A: Field) -> None:
    """Add the energy of electrons and nuclei in the field: minus the dipole times the field."""
    field = _atomic_units(field_V_per_A)
    core, nuclear = method.get_hcore, method.energy_nuc
    electrons = np.einsum("x,xij->ij", field, molecule.intor_symmetric("int1e_r", comp=3))
    nuclei = float(molecule.atom_charges() @ molecule.atom_coords() @ field)
    method.get_hcore = lambda *given: core(*given) + electrons
    method.energy_nuc = lambda *given: nuclear(*given) - nuclei


def _put_gradient_into_field(gradient: Any, molecule: Any, field_V_per_A: Field) -> None:
    """The derivatives of what `_put_into_field` adds, with respect to the nuclei."""
    field = _atomic_units(field_V_per_A)
    core, nuclear = gradient.get_hcore, gradient.grad_nuc
    n_orbitals = molecule.nao
    # <i| r_x d/dy j>, so its transpose has the derivative of the first function
    moments = molecule.intor("int1e_irp", comp=9).reshape(3, 3, n_orbitals, n_orbitals)
    electrons = np.einsum("x,xyij->yji", field, moments)
    nuclei = molecule.atom_charges()[:, None] * field[None, :]

    def nuclear_in_field(mol: Any = None, atmlst: Any = None) -> Any:
        found = nuclear(mol, atmlst)
        return found - (nuclei if atmlst is None else nuclei[np.asarray(atmlst)])

    gradient.get_hcore = lambda mol=None: core(mol) - electrons
    gradient.grad_nuc = nuclear_in_field


def _atomic_units(field_V_per_A: Field) -> NDArray[np.float64]:
    return np.array(field_V_per_A) * (units.Bohr / units.Hartree)
