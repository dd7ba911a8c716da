"""What a set of frames holds, in a few lines of text."""

from __future__ import annotations

from collections import Counter

import numpy as np

from remul_md.datasets.agreement import label_agreement
from remul_md.datasets.plausibility import nearest_pair, rms_force
from remul_md.datasets.splits import duplicate_labels
from remul_md.structures.frames import Frames

MAX_FORMULAS, MAX_FIELDS = 8, 4


def describe(frames: Frames, *, n_sampled: int = 1000) -> str:
    """Frames, formulas, energies, forces, distances and hash as aligned lines.

    Args:
        frames: in eV and Angstrom.
        n_sampled: frames, evenly spaced, whose distances are measured; the text says so when not all are.
    """
    from ase.formula import Formula

    compositions = [tuple(frames.frame_numbers(index)) for index in range(len(frames))]
    formulas = Counter(_formula(numbers) for numbers in compositions)
    shown = ", ".join(f"{formula} ({count})" for formula, count in formulas.most_common(MAX_FORMULAS))
    if len(formulas) > MAX_FORMULAS:
        shown += f" and {len(formulas) - MAX_FORMULAS} more"
    n_atoms = frames.n_atoms
    lines = {
        "name": frames.name,
        "frames": f"{len(frames)}",
        "formulas (frames)": shown,
        "elements": ", ".join(sorted({symbol for formula in formulas for symbol in Formula(formula).count()})),
        "atoms per frame": f"{n_atoms.min()}"
        if n_atoms.min() == n_atoms.max()
        else f"{n_atoms.min()} to {n_atoms.max()}",
        "periodic frames": f"{int(frames.pbc.any(axis=1).sum())}",
        "units": "eV, Angstrom, eV/Angstrom (after conversion)",
        "energy": "none" if frames.energy is None else _energy_line(frames),
        "RMS force component": "none" if frames.forces is None else f"{rms_force(frames.forces):.4f} eV/Angstrom",
        "largest force component": "none"
        if frames.forces is None
        else f"{np.abs(frames.forces).max():.4f} eV/Angstrom",
        **({"electric field": _field_line(frames)} if frames.field_V_per_A is not None else {}),
        "nearest pair": _distance_line(frames, n_sampled=n_sampled),
        "energies against forces": _agreement_line(frames),
        "copies of earlier frames": f"{int((duplicate_labels(frames) != np.arange(len(frames))).sum())}",
        "content hash": frames.content_hash(),
    }
    width = max(len(key) for key in lines)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in lines.items())


def _formula(numbers: tuple[int, ...]) -> str:
    from ase.data import chemical_symbols
    from ase.formula import Formula

    return Formula.from_list([chemical_symbols[number] for number in numbers]).format("hill")


def _energy_line(frames: Frames) -> str:
    assert frames.energy is not None
    per_atom = frames.energy / frames.n_atoms
    if frames.n_atoms.min() == frames.n_atoms.max():
        return f"mean {frames.energy.mean():.4f} eV, standard deviation {frames.energy.std():.4f} eV"
    return f"per atom: mean {per_atom.mean():.4f} eV, standard deviation {per_atom.std():.4f} eV"


def _agreement_line(frames: Frames) -> str:
    if frames.energy is None or frames.forces is None:
        return "not both there"
    found = label_agreement(frames)
    return "too few frames near each other to tell" if found is None else found.complaint or str(found)


def _field_line(frames: Frames) -> str:
    fields = frames.distinct_fields
    told = ", ".join(f"({' '.join(f'{component:g}' for component in field)})" for field in fields[:MAX_FIELDS])
    return f"{told} V/Angstrom" + (f" and {len(fields) - MAX_FIELDS} more" if len(fields) > MAX_FIELDS else "")


def _distance_line(frames: Frames, *, n_sampled: int) -> str:
    sample = np.unique(np.linspace(0, len(frames) - 1, min(n_sampled, len(frames))).astype(np.int64))
    distances = np.array([nearest_pair(frames, int(index))[0] for index in sample])
    distances = distances[np.isfinite(distances)]
    if len(distances) == 0:
        return "no pair"
    of = "all frames" if len(sample) == len(frames) else f"{len(sample)} of {len(frames)} frames"
    return f"{distances.min():.4f} Angstrom, median {np.median(distances):.4f} ({of})"
