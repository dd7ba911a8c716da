"""How often does an audit raise a false alarm? Two hundred audits of calculators that plant nothing.

python benchmarks/audit_honest.py [--only WORD] [--json results/audit_honest.json]

Analytic potentials and tight self-consistent ones must pass. Where a kind of calculator may rightly fail, the checks
and the reason stand in `KINDS`: what fails beyond them is a false alarm.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from against_mace import untrained_mace
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from audit_molecule import springs
from script import run_script, told_command

from remul_md import RemulCalculator
from remul_md.analysis import run_audit
from remul_md.datasets.structure_source import read_structure
from remul_md.models import build_model
from remul_md.potentials.domain import domain_of
from remul_md.potentials.potential import Potential
from remul_md.potentials.provenance import Provenance
from remul_md.structures.frames import frames_from_atoms

MOLECULES = ("CH3CH2OH", "CH3OH", "H2O", "C2H6", "NH3", "CH3CHO", "C2H4", "CH3SH")
BOND_A = 2.55  # of copper in a small cluster


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Some calculators of one kind.

    Args:
        name: as the table has it.
        made: the structure with its calculator, of a seed.
        n_runs: seeds 0, 1, ...
        rightly: checks that it may fail.
        reason: why.
    """

    name: str
    made: Callable[[int], Atoms]
    n_runs: int
    rightly: frozenset[str] = frozenset()
    reason: str = ""


def cluster(seed: int) -> Atoms:
    """Four to six atoms of copper, each within some 0.08 Angstrom of a compact cluster."""
    ring = [[np.cos(a), np.sin(a), 0.0] for a in 2 * np.pi * np.arange(3) / 3]
    compact = (
        np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(8.0),
        np.array([*ring, [0, 0, 1.42], [0, 0, -1.42]]) / np.sqrt(3.0),
        np.array([*np.eye(3), *-np.eye(3)]) / np.sqrt(2.0),
    )[seed % 3]
    atoms = Atoms(f"Cu{len(compact)}", BOND_A * compact)
    atoms.rattle(0.05, seed=seed)
    return atoms


def lennard_jones(seed: int, *, smooth: bool) -> Atoms:
    atoms = cluster(seed)
    options = {"rc": 9.0, "ro": 7.0, "smooth": True} if smooth else {"rc": 3 * 2.338}
    atoms.calc = LennardJones(sigma=2.27, epsilon=0.409, **options)
    return atoms


def morse(seed: int) -> Atoms:
    atoms = cluster(seed)
    atoms.calc = MorsePotential(epsilon=0.5, r0=BOND_A, rho0=4.0, rcut1=2.5, rcut2=3.5)
    return atoms


def emt(seed: int) -> Atoms:
    if seed % 5 == 0:
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.rattle(0.05, seed=seed)
    else:
        atoms = cluster(seed)
        atoms.symbols[:] = np.random.default_rng(seed).choice(["Cu", "Ag", "Au", "Pd"], len(atoms))
        atoms.positions *= 1.05
    atoms.calc = EMT()
    return atoms


def tight_binding(seed: int, *, accuracy: float) -> Atoms:
    from tblite.ase import TBLite

    atoms = molecule(MOLECULES[seed % len(MOLECULES)])
    atoms.rattle(0.02, seed=seed)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0, accuracy=accuracy)
    return atoms


def shipped(_seed: int) -> Atoms:
    atoms = read_structure("ethanol")
    atoms.calc = RemulCalculator("ethanol")
    return atoms


def untrained(seed: int, *, kind: str) -> Atoms:
    """Weights as they are drawn."""
    atoms = molecule("CH3CH2OH")
    frames = frames_from_atoms([atoms])
    torch.manual_seed(seed)
    model = build_model(kind, {"species": (1, 6, 8), "width": 32, "n_layers": 2}).eval().requires_grad_(False)
    potential = Potential(
        model=model,
        reference_energies=torch.zeros(3, dtype=torch.float64),
        domain=domain_of(frames),
        provenance=Provenance(trained_forces="conservative"),
    )
    atoms.calc = RemulCalculator(potential, dtype="float64")
    return atoms


def mace(seed: int) -> Atoms:
    """MACE, small, with weights as they are drawn, in double precision."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = untrained_mace([1, 6, 8], channels="32x0e + 32x1o", dtype="float64", seed=seed)
    return atoms


def sprung(seed: int) -> Atoms:
    return springs(MOLECULES[seed % len(MOLECULES)], seed=seed, rattle_A=0.03)


MACE = "MACE, random weights"  # in an environment of its own: benchmarks/against_mace.py
SMOOTH = frozenset({"smoothness"})
WELLS = "wells or sharp turns of the force where bonds are broken, which few data or none forbade"
KINDS = (
    Kind(name="Morse springs, 8 molecules", made=sprung, n_runs=100),
    Kind(name="Lennard-Jones, smoothed cutoff, Cu₄₋₆", made=partial(lennard_jones, smooth=True), n_runs=10),
    Kind(name="Lennard-Jones, cut and shifted, Cu₄₋₆", made=partial(lennard_jones, smooth=False), n_runs=10),
    Kind(name="Morse, Cu₄₋₆", made=morse, n_runs=20),
    Kind(name="EMT, alloys of 4 to 6 atoms and a crystal", made=emt, n_runs=40),
    Kind(name="GFN2-xTB, tight SCF", made=partial(tight_binding, accuracy=0.01), n_runs=12),
    Kind(
        name="GFN2-xTB, loose SCF (accuracy 30)",
        made=partial(tight_binding, accuracy=30.0),
        n_runs=4,
        rightly=frozenset(
            ("translation", "permutation", "gradient", "closed_loop", "jacobian", "smoothness", "repeatability", "nve")
        ),
        reason="forces of a field that is not converged are no gradient",
    ),
    Kind(name="shipped ethanol potential", made=shipped, n_runs=1, rightly=SMOOTH, reason=WELLS),
    Kind(name="PaiNN, random weights", made=partial(untrained, kind="painn"), n_runs=2, rightly=SMOOTH, reason=WELLS),
    Kind(
        name="transformer, random weights",
        made=partial(untrained, kind="transformer"),
        n_runs=1,
        rightly=frozenset(("rotation", "mirror", "net_torque", "smoothness", "nve")),
        reason="its symmetry is learned",
    ),
    Kind(name=MACE, made=mace, n_runs=2, rightly=SMOOTH, reason=WELLS),
)


def audited(kinds: tuple[Kind, ...]) -> Iterator[dict[str, object]]:
    """A row for each kind."""
    for kind in kinds:
        began = time.process_time()
        failed: Counter[str] = Counter()
        alarms = []
        for seed in range(kind.n_runs):
            checks = run_audit(kind.made(seed), seed=seed).checks
            names = [check.name for check in checks if check.applicable and not check.passed]
            failed.update(names)
            wrong = [check for check in checks if check.name in names and check.name not in kind.rightly]
            if wrong:
                alarms.append({"seed": seed, "said": {check.name: f"{check.measured} {check.why}" for check in wrong}})
        yield {
            "kind": kind.name,
            "runs": kind.n_runs,
            "failed": dict(failed),
            "false_alarms": alarms,
            "rightly": sorted(kind.rightly),
            "reason": kind.reason,
            "cpu_seconds": round(time.process_time() - began),
        }


def run(options: argparse.Namespace, given: list[str]) -> None:
    """All kinds, or those named."""
    warnings.filterwarnings("ignore")
    chosen = tuple(kind for kind in KINDS if options.only is None or any(word in kind.name for word in options.only))
    if find_spec("mace") is None:
        chosen = tuple(kind for kind in chosen if kind.name != MACE)
    found = {}
    for row in audited(chosen):
        found[row["kind"]] = row
        print(json.dumps(row, ensure_ascii=False), flush=True)
    if options.json:
        if options.json.is_file():  # kinds that are not run now keep what was found before
            found = {row["kind"]: row for row in json.loads(options.json.read_text())["rows"]} | found
        rows = [found[kind.name] for kind in KINDS if kind.name in found]
        content = {
            "command": told_command("audit_honest", given, {str(options.json): options.json.name}),
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "not_run": {} if MACE in found else {MACE: "not installed"},
            "rows": rows,
        }
        options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="kinds whose name has this in it; may be repeated")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser


if __name__ == "__main__":
    run_script(parser(), run)
