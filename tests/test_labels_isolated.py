"""Energies of isolated atoms, for whatever needs the level of theory's zero."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.calculators.calculator import SCFError
from ase.calculators.emt import EMT

from remul_md.errors import InputError
from remul_md.labels.isolated import isolated_atoms
from remul_md.labels.sources import LabelSource, label_source


def test_atoms_of_a_method() -> None:
    found = isolated_atoms(label_source("ase.calculators.emt:EMT"), [8, 6, 29, 6])
    assert list(found) == [6, 8, 29]
    for number, energy in found.items():
        atom = Atoms(numbers=[number])
        atom.calc = EMT()
        assert energy == atom.get_potential_energy()


@pytest.mark.parametrize("elements", [[1], pytest.param([8, 1, 6], marks=pytest.mark.slow)])
def test_atoms_of_the_level_of_rmd17(elements: list[int]) -> None:
    pytest.importorskip("pyscf", reason='needs PySCF (pip install "remul-md[pbe]")')
    expected = {1: -13.568, 6: -1027.263, 8: -2038.532}
    found = isolated_atoms(label_source("pbe"), elements)
    assert found == pytest.approx({number: expected[number] for number in elements}, abs=1.5e-3)


def test_an_atom_without_a_solution_is_named() -> None:
    class Unsure(EMT):
        def calculate(self, *_: object, **__: object) -> None:
            raise SCFError("went round in circles")

    made = 0

    def make() -> EMT:
        nonlocal made
        made += 1
        return Unsure() if made == 2 else EMT()

    with pytest.raises(InputError, match="O: SCFError: went round in circles"):
        isolated_atoms(LabelSource(name="unsure", version="", make=make), [6, 8])
