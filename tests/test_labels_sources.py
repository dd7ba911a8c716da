"""Where cheap labels come from: GFN2-xTB, a factory, and what is said when neither is there."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase.build import molecule

from remul_md.errors import InputError
from remul_md.labels.sources import imported_calculator, label_source


def test_xtb_is_gfn2_of_tblite() -> None:
    """Energies against tblite's own interface, which takes Bohr and gives Hartree."""
    interface = pytest.importorskip("tblite.interface", reason='needs tblite (pip install "remul-md[xtb]")')
    source = label_source("xtb")
    assert source.name == "GFN2-xTB"
    assert source.version.startswith("tblite ")
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=2)
    atoms.calc = source.make()
    raw = interface.Calculator("GFN2-xTB", atoms.numbers, atoms.positions / 0.529177210903)
    raw.set("verbosity", 0)
    found = raw.singlepoint()
    assert atoms.get_potential_energy() == pytest.approx(27.211386 * found.get("energy"), abs=1e-4)
    forces = -27.211386 / 0.529177210903 * found.get("gradient")
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-3)
    assert np.abs(forces).max() > 0.5
    assert source.make() is not atoms.calc  # without a past: the last charges would start the next call


def test_without_tblite_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite.ase", None)  # what import does with a package that is not there
    with pytest.raises(InputError, match=r'GFN2-xTB needs tblite.*install it with `pip install "remul-md\[xtb\]"`'):
        label_source("xtb")


def test_a_factory_makes_a_new_calculator_each_time() -> None:
    source = label_source("ase.calculators.emt:EMT")
    assert (source.name, source.version) == ("ase.calculators.emt:EMT", "")
    one, other = source.make(), source.make()
    assert one is not other
    assert type(one) is type(imported_calculator("ase.calculators.emt:EMT"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nosuch_module:make", "nosuch_module:make: ModuleNotFoundError: .*MODULE:FACTORY names something"),
        ("ase.calculators.emt:EMTT", "ase.calculators.emt:EMTT: AttributeError: .*is called without arguments"),
        ("math:tau", "math:tau: TypeError: 'float' object is not callable"),
        ("builtins:dict", "builtins:dict made a dict, which is no ASE calculator"),
    ],
)
def test_what_makes_no_calculator_is_refused(target: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_source(target)
