"""The description of a run, `run.json`: what was asked, with which software, and whether it is the same run."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remul_md._version import __version__
from remul_md.dynamics.constraints import constraints_of
from remul_md.dynamics.options import MDOptions
from remul_md.errors import InputError
from remul_md.files import changed_values

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


_SAME = ("formula", "structure_sha256", "calculator")
_SAME_IF_SAID = ("scheme", "fast_calculator", "momenta_sha256", "constraints")  # of runs whose options need them


def describe_run(
    atoms: Atoms, options: MDOptions, *, fast: Calculator | None = None, provenance: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Description of a run that begins, JSON-able.

    Raises:
        InputError: `provenance` holds something that JSON does not know.
    """
    try:
        facts = json.loads(json.dumps(dict(provenance or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"provenance is not JSON-able: {error}; give numbers, strings, lists and dicts") from error
    return {
        "status": "running",
        "finished": False,
        "stopped": None,
        "options": asdict(options),
        "formula": atoms.get_chemical_formula(),
        "n_atoms": len(atoms),
        "structure_sha256": structure_hash(atoms),
        "pbc": [bool(flag) for flag in atoms.pbc],
        "bonds_checked": options.max_bond_stretch is not None and not bool(atoms.pbc.any()),
        "calculator": type(atoms.calc).__name__,
        **_constraints(atoms),
        **_scheme(options, fast),
        **({"momenta_sha256": momenta_hash(atoms)} if options.velocities == "given" else {}),
        "provenance": facts,
        "versions": software_versions(),
    }


def _constraints(atoms: Atoms) -> dict[str, Any]:
    held = constraints_of(atoms)
    return {"constraints": held.to_json()} if held.n_removed else {}


def _scheme(options: MDOptions, fast: Calculator | None) -> dict[str, Any]:
    if options.n_inner is None:
        return {}
    scheme = f"reversible RESPA: {options.n_inner} inner steps of {options.timestep_fs:g} fs to one outer step"
    return {"scheme": scheme, "fast_calculator": type(fast).__name__}


def momenta_hash(atoms: Atoms) -> str:
    """sha256 of the momenta that a run is given."""
    return hashlib.sha256(atoms.get_momenta().tobytes()).hexdigest()


def structure_hash(atoms: Atoms) -> str:
    """sha256 of numbers, positions, masses, cell and pbc: what a run begins from."""
    digest = hashlib.sha256()
    for array in (atoms.numbers.astype("<i8"), atoms.positions, atoms.get_masses(), atoms.cell.array, atoms.pbc):
        digest.update(array.tobytes())
    return digest.hexdigest()


def software_versions() -> dict[str, str]:
    """Versions of what computes, read from the installed packages without importing them."""
    versions = {"remul-md": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in ("ase", "numpy", "torch"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def resumed_description(before: Mapping[str, Any], now: Mapping[str, Any], *, path: Path) -> dict[str, Any]:
    """The description of a run that is gone on with: that of before, and what is new about it.

    A run may be given a longer `length_ps`, unless the temperature depends on it; it then ends as if it had been asked
    for at once. Files are compared by their content, however they are spelt.

    Args:
        before: description of the run.
        now: what a run with the options of now would be described as.
        path: of the description, for messages.
    Raises:
        InputError: another option, composition, calculator or provenance differs; or `before` is no description.
    """
    missing = [key for key in ("finished", "options", "versions", "provenance", *_SAME) if key not in before]
    if missing:
        raise InputError(f"{str(path)!r} lacks {', '.join(missing)}; it is no description of a run")
    # A run made by an older version lacks the options that came later; it ran as their defaults do.
    then_options, options = {**asdict(MDOptions()), **before["options"]}, dict(now["options"])
    longer = options["length_ps"] > then_options["length_ps"] and options["final_temperature_K"] is None
    if longer:
        options["length_ps"] = then_options["length_ps"]
    hashes = {"structure_sha256": before["structure_sha256"]}
    facts = {**dict.fromkeys(before["provenance"]), **now["provenance"], "structure_sha256": now["structure_sha256"]}
    differences = changed_values(then_options, options)
    differences += changed_values({**before["provenance"], **hashes}, facts)
    differences += changed_values(before, {name: now.get(name) for name in (*_SAME, *_SAME_IF_SAID)})
    if differences:
        raise InputError(
            f"cannot resume {str(path)!r} with other options: {'; '.join(dict.fromkeys(differences))}; "
            "give the same ones, or choose another output name"
        )
    found = dict(before)
    if before["versions"] != now["versions"]:
        found["resumed_with"] = now["versions"]
    if longer:
        lengths = [*before.get("extended_from_ps", []), then_options["length_ps"]]
        found |= {"options": now["options"], "finished": False, "status": "running", "extended_from_ps": lengths}
    return found
