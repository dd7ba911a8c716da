"""From what size on does an audit find which fault? Each is planted into ethanol of Morse springs and audited.

python benchmarks/audit_faults.py [--seed 0] [--only NAME] [--json results/audit_faults.json]

A fault hangs on one coordinate: a C-H bond, an H-C-H angle, the C-C-O-H torsion, the distance of two hydrogens, or the
axes of the laboratory. For each size the checks that fail are written down, with the time of the process. Sizes of
kinks: the change of the force, per Angstrom or radian.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit_molecule import Fault, springs
from script import run_script, told_command
from torch import Tensor

from remul_md.analysis import run_audit

Coordinate = Callable[[Tensor], Tensor]  # positions [R, N, 3] to [R], Angstrom or radians

# Ethanol of ASE: C0 C1 O2, H3 on the oxygen, H4 H5 on C1, H6 H7 H8 on C0. The bond is none of those pulled apart.
BOND, ANGLE, TORSION, PAIR = (1, 4), (6, 0, 7), (0, 1, 2, 3), (3, 7)
AT = {"bond": 1.17, "angle": 2.05, "torsion": 1.75, "pair": 3.0, "lab frame": 0.4}
SMALL, MIDDLE = (0.3, 1.0, 10.0, 100.0), (3.0, 10.0, 30.0, 100.0)


def distance(first: int, second: int) -> Coordinate:
    return lambda x: (x[:, second] - x[:, first]).norm(dim=-1)


def angle(x: Tensor) -> Tensor:
    one, other = (x[:, ANGLE[end]] - x[:, ANGLE[1]] for end in (0, 2))
    return torch.atan2(torch.linalg.cross(one, other).norm(dim=-1), (one * other).sum(-1))


def torsion(x: Tensor) -> Tensor:
    i, j, k, end = (x[:, atom] for atom in TORSION)
    axis = k - j
    before, after = torch.linalg.cross(j - i, axis), torch.linalg.cross(axis, end - k)
    sine = axis.norm(dim=-1) * ((j - i) * after).sum(-1)
    return torch.atan2(sine, (before * after).sum(-1)).abs()


def cosine(x: Tensor) -> Tensor:
    """Of the C-O bond with z."""
    bond = x[:, 2] - x[:, 1]
    return bond[:, 2] / bond.norm(dim=-1)


COORDINATES: dict[str, Coordinate] = {
    "bond": distance(*BOND),
    "angle": angle,
    "torsion": torsion,
    "pair": distance(*PAIR),
    "lab frame": cosine,
}


def faults() -> Iterator[Fault]:
    """All of them."""
    for where, q in COORDINATES.items():
        at = AT[where]
        yield Fault(
            name="step", where=where, unit="meV", sizes=SMALL,
            energy=lambda x, _, size, q=q, at=at: 1e-3 * size * (q(x) > at),
        )  # fmt: skip
        yield Fault(
            name="kink", where=where, unit="meV/Å" if where in ("bond", "pair") else "meV", sizes=MIDDLE,
            exact=lambda x, _, size, q=q, at=at: 1e-3 * size * (q(x) - at).clamp(min=0.0),
        )  # fmt: skip
        yield Fault(
            name="swirl", where=where, unit="meV/Å", sizes=MIDDLE,
            forces=_stirred if where == "lab frame" else _pulled_by(q),
        )  # fmt: skip
    for element, atoms in (("C", [0, 1]), ("H", list(range(3, 9))), ("O", [2])):
        yield Fault(name="scale", where=f"forces of {element}", unit="%", sizes=(0.1, 0.3, 1.0), forces=_scaled(atoms))
    for name, where in (("anisotropy", "bond"), ("anisotropy", "pair")):
        first, second = (1, 2) if where == "bond" else PAIR
        yield Fault(
            name=name, where=f"{where}, lab frame", unit="meV", sizes=(1.0, 5.0, 20.0, 100.0),
            exact=lambda x, _, size, i=first, j=second: 1e-3 * size
            * ((x[:, j] - x[:, i])[:, 2] / (x[:, j] - x[:, i]).norm(dim=-1)) ** 2,
        )  # fmt: skip
    yield Fault(name="energy noise", where="everywhere", unit="eV", sizes=(1e-5, 1e-4, 3e-4, 1e-3), noise=1.0)
    yield Fault(
        name="force noise", where="everywhere", unit="eV/Å", sizes=(1e-4, 1e-3, 3e-3, 1e-2),
        forces=lambda _, f, size, rng: f + size * torch.from_numpy(rng.standard_normal(tuple(f.shape))),
    )  # fmt: skip
    ordered = {
        "bond": distance(1, 4), "angle": angle, "torsion": torsion, "pair": distance(*PAIR)
    }  # of the atoms in the order in which they are given  # fmt: skip
    for where, q in ordered.items():
        yield Fault(
            name="order of atoms", where=where, unit="meV", sizes=(0.1, 1.0, 10.0),
            exact=lambda _, given, size, q=q: 1e-3 * size * torch.cos(q(given)),
        )  # fmt: skip
    for reach in (3.0, 5.5):
        yield Fault(
            name="cutoff without envelope", where=f"pairs at {reach:g} Å", unit="meV", sizes=(0.1, 0.3, 1.0),
            exact=lambda x, _, size, reach=reach: _cut_off(x, 1e-3 * size, reach),
        )  # fmt: skip


def _stirred(x: Tensor, f: Tensor, size: float, _: np.random.Generator) -> Tensor:
    """Round z, about the centre."""
    d = x - x.mean(dim=1, keepdim=True)
    return f + 1e-3 * size * torch.stack([-d[..., 1], d[..., 0], 0.0 * d[..., 0]], dim=-1)


def _pulled_by(q: Coordinate) -> Callable[[Tensor, Tensor, float, np.random.Generator], Tensor]:
    """A pull along C-O that depends on another coordinate: it turns with the molecule, and belongs to no energy."""

    def forces(x: Tensor, f: Tensor, size: float, _: np.random.Generator) -> Tensor:
        d = x[:, 2] - x[:, 1]
        pull = 1e-3 * size * torch.sin(4.0 * q(x))[:, None] * d / d.norm(dim=-1, keepdim=True)
        f = f.clone()
        f[:, 2] += pull
        f[:, 1] -= pull
        return f

    return forces


def _scaled(atoms: list[int]) -> Callable[[Tensor, Tensor, float, np.random.Generator], Tensor]:
    def forces(_: Tensor, f: Tensor, size: float, __: np.random.Generator) -> Tensor:
        f = f.clone()
        f[:, atoms] *= 1.0 + 0.01 * size
        return f

    return forces


def _cut_off(x: Tensor, jump: float, reach: float) -> Tensor:
    """Dispersion of all pairs, which is `jump` deep, eV, where it ends."""
    first, second = np.triu_indices(x.shape[1], k=1)
    r = (x[:, second] - x[:, first]).norm(dim=-1)
    damped = (reach**6 + 2.0**6) / (r**6 + 2.0**6)  # finite where atoms touch
    return torch.where(r < reach, -jump * damped, 0.0).sum(-1)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """All faults in all sizes."""
    rows: list[dict[str, Any]] = []
    for fault in faults():
        if options.only and fault.name not in options.only:
            continue
        began, found = time.process_time(), {}
        for size in fault.sizes:
            atoms = springs("CH3CH2OH", fault=fault, size=size, seed=options.seed, rattle_A=0.01)
            result = run_audit(atoms, seed=options.seed)
            found[f"{size:g}"] = [check.name for check in result.checks if check.applicable and not check.passed]
        spent = round(time.process_time() - began, 1)
        rows.append(
            {"fault": fault.name, "where": fault.where, "unit": fault.unit, "found_by": found, "cpu_seconds": spent}
        )
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    if options.json:
        if options.json.is_file():  # faults that are not planted now keep what was found before
            before = json.loads(options.json.read_text())["rows"]
            planted = {(row["fault"], row["where"]) for row in rows}
            rows = [row for row in before if (row["fault"], row["where"]) not in planted] + rows
        content = {
            "command": told_command("audit_faults", given, {str(options.json): options.json.name}),
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "rows": rows,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="this fault only; may be repeated")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser


if __name__ == "__main__":
    run_script(parser(), run)
