"""Where cheap labels come from: GFN2-xTB, a factory, and what is said when neither is there."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT

from remul_md.errors import InputError
from remul_md.labels.sources import LabelSource, imported_calculator, label_source
from remul_md.structures.frames import frames_from_atoms


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
    with pytest.raises(InputError, match=r'tblite.*`pip install "remul-md\[xtb\]"`'):
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
        ("ase.calculators.emt:EMTT", r"ase\.calculators\.emt:EMTT: AttributeError: "),
        ("math:tau", "math:tau: TypeError: 'float' object is not callable"),
        ("builtins:dict", "builtins:dict made a dict"),
    ],
)
def test_what_makes_no_calculator_is_refused(target: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_source(target)


def test_a_method_of_neutral_molecules_refuses_ions() -> None:
    """What is not read is not passed over: the labels would be those of the neutral molecule."""
    frames = frames_from_atoms([molecule("CH3OH"), molecule("CH3OH")])
    neutral = LabelSource(name="some method", version="1", make=EMT, neutral_only=True)
    neutral.require_charges(frames)
    ions = replace(frames, charge=np.array([0, -1]))
    with pytest.raises(InputError, match=r"frame 1 .*charge -1; some method"):
        neutral.require_charges(ions)
    replace(neutral, neutral_only=False).require_charges(ions)
