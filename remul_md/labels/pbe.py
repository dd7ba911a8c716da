"""PBE/def2-SVP of closed-shell molecules by PySCF, the level of theory of the rMD17 labels, as an ASE calculator."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes

from remul_md.errors import InputError

GRID_LEVEL = 4  # of PySCF; with it and RI-J the labels of rMD17 come back within 0.1 meV/Angstrom
CONVERGENCE_HARTREE = 1e-9


def require_pyscf() -> str:
    """Name and version of PySCF.

    Raises:
        InputError: it is not installed; the extra is named.
    """
    try:
        import pyscf.dft  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"PBE/def2-SVP needs PySCF, which cannot be imported ({error}); "
            'install it with `pip install "remul-md[pbe]"`'
        ) from error
    return f"pyscf {metadata.version('pyscf')}"


class PBECalculator(Calculator):
    """Energy (eV) and forces (eV/Angstrom) of a neutral molecule with paired electrons, restricted Kohn-Sham.

    Coulomb integrals by density fitting (RI-J, auxiliary basis def2-universal-jfit), no dispersion correction. Every
    call starts from the same guess, so a geometry has one energy, whatever was computed before it.

    Raises:
        InputError: PySCF is not installed; at a call: a cell, an odd number of electrons, no convergence.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 (ASE's protocol)

    def __init__(self) -> None:
        require_pyscf()
        super().__init__()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces"),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy and forces; both, whichever was asked for."""
        from pyscf import dft, gto

        super().calculate(atoms, properties, system_changes)
        structure = self.atoms
        if structure is None:
            raise InputError("no structure was given; call with atoms")
        if structure.pbc.any():
            raise InputError(
                f"pbc is {structure.pbc.tolist()}, PBE/def2-SVP is computed for molecules; set it to False"
            )
        n_electrons = int(structure.numbers.sum())
        if n_electrons % 2:
            raise InputError(
                f"{structure.get_chemical_formula()} has {n_electrons} electrons; this calculator pairs all of them: "
                "write a factory of your own (MODULE:FACTORY) for radicals and ions"
            )
        molecule = gto.M(
            atom=list(zip(structure.get_chemical_symbols(), structure.positions.tolist(), strict=True)),
            unit="Angstrom",
            basis="def2-svp",
            verbose=0,
        )
        method = dft.RKS(molecule, xc="PBE").density_fit()
        method.grids.level = GRID_LEVEL
        method.conv_tol = CONVERGENCE_HARTREE
        energy = float(method.kernel()) * units.Hartree
        if not method.converged:
            raise InputError(
                f"PBE/def2-SVP of {structure.get_chemical_formula()} did not converge; look at the geometry, or leave "
                "the frame out"
            )
        forces = -method.nuc_grad_method().kernel() * (units.Hartree / units.Bohr)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
