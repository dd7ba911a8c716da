"""Geometries labelled by an ASE calculator, one after another, each kept as soon as it is paid for."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        frames: the geometries that it could label, with energies (eV) and forces (eV/Angstrom).
        figures: further figures of these frames, each [B], by name; see `LabelSource.figures`.
        refused: geometries without a label: their number among those given, and why; for the caller to tell.
        provenance: which method and geometries, JSON-able.
    """

    frames: Frames
    figures: Mapping[str, NDArray[np.float64]]
    refused: Mapping[int, str]
    provenance: Mapping[str, Any]


@dataclass(kw_only=True)
class _Done:
    """What a run has so far: of each labelled frame its values, of each refused one the reason."""

    energies: list[float] = field(default_factory=list)
    forces: list[NDArray[np.float64]] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.energies) + len(self.refused)


def calculate_labels(frames: Frames, source: LabelSource, *, partial: Path, progress: bool = False) -> CalculatedLabels:
    """Energies and forces of a method on geometries; labels that the frames have are not looked at.

    A geometry on which the method says that it failed (ASE's `CalculationFailed`, such as no convergence) is left out
    and told, the others are labelled; any other error ends the run.

    Args:
        frames: geometries.
        source: the method; each frame has a calculator of its own, so that a stopped run ends with the same labels.
        partial: an npz file for what is done so far; goes on from it, and leaves it for the caller to remove.
        progress: show a bar.
    Raises:
        InputError: a partial file of other labels, charged molecules for a method of neutral ones, a calculator that
            fails, labels that are not finite, not one geometry that could be labelled.
    """
    source.require_charges(frames)
    geometries, provenance = frames.without_labels(), calculation_record(frames, source)
    done = _read_done(partial, provenance, figures=source.figures)
    saved = time.perf_counter()
    bar = progress_bar(shown=progress, total=len(frames), initial=len(done), desc=source.name, unit="frame")
    try:
        with bar:
            for index in range(len(done), len(frames)):
                _label(frames, index, source, done)
                bar.update()
                if time.perf_counter() - saved > SAVE_INTERVAL_S:
                    _save(partial, done, provenance)
                    saved = time.perf_counter()
    finally:  # whatever stops it
        _save(partial, done, provenance)
    if not done.energies:
        reason = next(iter(done.refused.values()))
        raise InputError(f"{frames.name}: {source.name} labelled none of {len(frames)} frames; the first: {reason}")
    if done.refused:
        provenance["refused"] = {str(index): why for index, why in done.refused.items()}
    kept = geometries.select([index for index in range(len(frames)) if index not in done.refused])
    electric = source.conditions.get("field_V_per_A")
    return CalculatedLabels(
        frames=replace(
            kept,
            energy=np.array(done.energies),
            forces=np.concatenate(done.forces),
            field_V_per_A=None if electric is None else np.tile(np.array(electric, dtype=np.float64), (len(kept), 1)),
        ),
        figures={name: np.array(values) for name, values in done.figures.items()},
        refused=done.refused,
        provenance=provenance,
    )


def calculation_record(frames: Frames, source: LabelSource) -> dict[str, Any]:
    """What labels of a method on these geometries say of their origin, JSON-able."""
    return {
        "labelled_by": f"remul-md {__version__}",
        "method": source.name,
        "calculator": source.version,
        **source.conditions,
        "geometries": frames.name,
        "geometries_sha256": frames.without_labels().content_hash(),
    }


def _label(frames: Frames, index: int, source: LabelSource, done: _Done) -> None:
    """Put the label of a frame, or why it has none, to what is done."""
    from ase.calculators.calculator import CalculationFailed

    atoms = frames.atoms(index)
    atoms.calc = source.make()
    try:
        energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces(), dtype=np.float64)
    except CalculationFailed as error:
        done.refused[index] = f"{type(error).__name__}: {error}"
        return
    except InputError as error:
        raise InputError(f"{frames.name}, frame {index}: {error}") from error
    except Exception as error:  # a user's calculator raises whatever it raises
        raise InputError(
            f"{frames.name}, frame {index}: {source.name} failed ({type(error).__name__}: {error}); "
            "look at the geometry, or leave the frame out"
        ) from error
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise InputError(f"{frames.name}, frame {index}: {source.name} gave labels that are not finite; leave it out")
    done.energies.append(energy)
    done.forces.append(forces)
    for name in source.figures:
        done.figures[name].append(float(atoms.calc.results[name]))


def _read_done(partial: Path, provenance: Mapping[str, Any], *, figures: Sequence[str]) -> _Done:
    """Labels that an earlier, interrupted run has kept."""
    if not partial.is_file():
        return _Done(figures={name: [] for name in figures})
    arrays = load_arrays(partial)
    record = json.loads(str(arrays["provenance"]))
    if changed := changed_values(record, json.loads(json.dumps(dict(provenance)))):
        raise InputError(f"{partial}: holds other labels: {'; '.join(changed)}; remove it, or give another output")
    return _Done(
        energies=arrays["energy"].tolist(),
        forces=np.split(arrays["forces"], np.cumsum(arrays["n_atoms"])[:-1]) if len(arrays["energy"]) else [],
        figures={name: arrays[f"figure_{name}"].tolist() for name in figures},
        refused={int(index): why for index, why in json.loads(str(arrays["refused"])).items()},
    )


def _save(partial: Path, done: _Done, provenance: Mapping[str, Any]) -> None:
    if not len(done):
        return
    buffer = io.BytesIO()
    figures: dict[str, Any] = {f"figure_{name}": np.array(values) for name, values in done.figures.items()}
    np.savez(
        buffer,
        energy=np.array(done.energies),
        forces=np.concatenate([np.zeros((0, 3)), *done.forces]),
        n_atoms=np.array([len(vectors) for vectors in done.forces], dtype=np.int64),
        refused=np.array(json.dumps(done.refused)),
        provenance=np.array(json.dumps(dict(provenance))),
        **figures,
    )
    try:
        replace_atomically(partial, buffer.getvalue())
    except OSError as error:
        raise InputError(f"{partial}: cannot be written ({error}); free space or choose another folder") from error
