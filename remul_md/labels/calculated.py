"""Geometries labelled by an ASE calculator, one after another, each kept as soon as it is paid for."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md._version import __version__
from remul_md.datasets.readers.npz import load_arrays
from remul_md.errors import InputError
from remul_md.files import changed_values, replace_atomically
from remul_md.labels.sources import LabelSource
from remul_md.progress import progress_bar
from remul_md.structures.frames import Frames

SAVE_INTERVAL_S = 10.0  # a kill loses no more, or one label, if that takes longer


@dataclass(frozen=True, kw_only=True, eq=False)
class CalculatedLabels:
    """Frames with the labels of a calculator.

    Args:
        frames: the geometries with energies (eV) and forces (eV/Angstrom).
        provenance: which method and geometries, JSON-able.
    """

    frames: Frames
    provenance: Mapping[str, Any]


def calculate_labels(frames: Frames, source: LabelSource, *, partial: Path, progress: bool = False) -> CalculatedLabels:
    """Energies and forces of a method on geometries; labels that the frames have are not looked at.

    Args:
        frames: geometries.
        source: the method; each frame has a calculator of its own, so that a stopped run ends with the same labels.
        partial: an npz file for what is done so far; goes on from it, and leaves it for the caller to remove.
        progress: show a bar.
    Raises:
        InputError: a partial file of other labels, a calculator that fails, labels that are not finite.
    """
    geometries, provenance = frames.without_labels(), calculation_record(frames, source)
    energies, forces = _done(partial, provenance)
    saved = time.perf_counter()
    bar = progress_bar(shown=progress, total=len(frames), initial=len(energies), desc=source.name, unit="frame")
    try:
        with bar:
            for index in range(len(energies), len(frames)):
                energy, vectors = _label(frames, index, source)
                energies.append(energy)
                forces.append(vectors)
                bar.update()
                if time.perf_counter() - saved > SAVE_INTERVAL_S:
                    _save(partial, energies, forces, provenance)
                    saved = time.perf_counter()
    finally:  # whatever stops it
        _save(partial, energies, forces, provenance)
    labelled = replace(geometries, energy=np.array(energies), forces=np.concatenate(forces))
    return CalculatedLabels(frames=labelled, provenance=provenance)


def calculation_record(frames: Frames, source: LabelSource) -> dict[str, Any]:
    """What labels of a method on these geometries say of their origin, JSON-able."""
    return {
        "labelled_by": f"remul-md {__version__}",
        "method": source.name,
        "calculator": source.version,
        "geometries": frames.name,
        "geometries_sha256": frames.without_labels().content_hash(),
    }


def _label(frames: Frames, index: int, source: LabelSource) -> tuple[float, NDArray[np.float64]]:
    atoms = frames.atoms(index)
    atoms.calc = source.make()
    try:
        energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces(), dtype=np.float64)
    except InputError as error:
        raise InputError(f"{frames.name}, frame {index}: {error}") from error
    except Exception as error:  # a user's calculator raises whatever it raises
        raise InputError(
            f"{frames.name}, frame {index}: {source.name} failed ({type(error).__name__}: {error}); "
            "look at the geometry, or leave the frame out"
        ) from error
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise InputError(f"{frames.name}, frame {index}: {source.name} gave labels that are not finite; leave it out")
    return energy, forces


def _done(partial: Path, provenance: Mapping[str, Any]) -> tuple[list[float], list[NDArray[np.float64]]]:
    """Labels that an earlier, interrupted run has kept."""
    if not partial.is_file():
        return [], []
    arrays = load_arrays(partial)
    record = json.loads(str(arrays["provenance"]))
    if changed := changed_values(record, provenance):
        raise InputError(f"{partial}: holds other labels: {'; '.join(changed)}; remove it, or give another output")
    return arrays["energy"].tolist(), np.split(arrays["forces"], np.cumsum(arrays["n_atoms"])[:-1])


def _save(
    partial: Path, energies: list[float], forces: list[NDArray[np.float64]], provenance: Mapping[str, Any]
) -> None:
    if not energies:
        return
    buffer = io.BytesIO()
    np.savez(
        buffer,
        energy=np.array(energies),
        forces=np.concatenate(forces),
        n_atoms=np.array([len(vectors) for vectors in forces]),
        provenance=np.array(json.dumps(dict(provenance))),
    )
    try:
        replace_atomically(partial, buffer.getvalue())
    except OSError as error:
        raise InputError(f"{partial}: cannot be written ({error}); free space or choose another folder") from error
