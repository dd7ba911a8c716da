"""Geometries labelled by an ASE calculator, in one process or several, each kept as soon as it is paid for."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md._version import __version__
from remul_md.datasets.readers.npz import load_arrays
from remul_md.errors import InputError
from remul_md.files import changed_values, replace_atomically
from remul_md.labels.sources import LabelSource
from remul_md.processes import process_pool
from remul_md.progress import progress_bar
from remul_md.structures.frames import Frames

if TYPE_CHECKING:
    from ase import Atoms

SAVE_INTERVAL_S = 10.0  # a kill loses no more, or one label, if that takes longer


class NoneLabelled(InputError):
    """The method failed on every geometry.

    Args:
        message: what is told.
        refused: of each geometry why.
    """

    def __init__(self, message: str, *, refused: Mapping[int, str]) -> None:
        super().__init__(message)
        self.refused = refused


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


@dataclass(frozen=True, kw_only=True)
class _Label:
    energy: float
    forces: NDArray[np.float64]
    figures: Mapping[str, float]


_Found = _Label | str  # or why there is none


def calculate_labels(
    frames: Frames, source: LabelSource, *, partial: Path, jobs: int = 1, progress: bool = False
) -> CalculatedLabels:
    """Energies and forces of a method on geometries; labels that the frames have are not looked at.

    A geometry on which the method says that it failed (ASE's `CalculationFailed`, such as no convergence) is left out
    and told, the others are labelled; any other error ends the run.

    Args:
        frames: geometries.
        source: the method; each frame has a calculator of its own, so that a stopped run ends with the same labels.
        partial: an npz file for what is done so far; goes on from it, and leaves it for the caller to remove.
        jobs: processes that label side by side, each with one thread of torch; 1: this one. More need a source by name
            (`label_source`) and give the same labels.
        progress: show a bar.
    Raises:
        InputError: `jobs` < 1, a partial file of other labels, charged molecules for a method of neutral ones, a
            calculator that fails, labels that are not finite, not one geometry that could be labelled.
    """
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise InputError(f"jobs must be a whole number >= 1, got {jobs!r}")
    source.require_charges(frames)
    geometries, provenance = frames.without_labels(), calculation_record(frames, source)
    done = _read_done(partial, provenance, figures=source.figures)
    waiting = [index for index in range(len(frames)) if index not in done]
    saved = time.perf_counter()
    bar = progress_bar(shown=progress, total=len(frames), initial=len(done), desc=source.name, unit="frame")
    try:
        with bar, closing(_labelled(frames, waiting, source, jobs=jobs)) as labelled:
            for index, found in labelled:
                done[index] = found
                bar.update()
                if time.perf_counter() - saved > SAVE_INTERVAL_S:
                    _save(partial, done, provenance, figures=source.figures)
                    saved = time.perf_counter()
    finally:  # whatever stops it
        _save(partial, done, provenance, figures=source.figures)
    labels = {index: found for index, found in sorted(done.items()) if isinstance(found, _Label)}
    refused = {index: found for index, found in sorted(done.items()) if isinstance(found, str)}
    if not labels:
        reason = next(iter(refused.values()))
        message = f"{frames.name}: {source.name} labelled none of {len(frames)} frames; the first: {reason}"
        raise NoneLabelled(message, refused=refused)
    if refused:
        provenance["refused"] = {str(index): why for index, why in refused.items()}
    kept = geometries.select(list(labels))
    electric = source.conditions.get("field_V_per_A")
    return CalculatedLabels(
        frames=replace(
            kept,
            energy=np.array([label.energy for label in labels.values()]),
            forces=np.concatenate([label.forces for label in labels.values()]),
            field_V_per_A=None if electric is None else np.tile(np.array(electric, dtype=np.float64), (len(kept), 1)),
        ),
        figures={name: np.array([label.figures[name] for label in labels.values()]) for name in source.figures},
        refused=refused,
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


def _labelled(
    frames: Frames, indices: Sequence[int], source: LabelSource, *, jobs: int
) -> Generator[tuple[int, _Found], None, None]:
    """The label of each of these frames, or why it has none, as they come."""
    tasks = [(index, frames.atoms(index), f"{frames.name}, frame {index}") for index in indices]
    if jobs == 1 or len(tasks) < 2:
        for index, atoms, told in tasks:
            yield index, _label(atoms, source, told=told)
        return
    pool = process_pool(min(jobs, len(tasks)))
    try:
        futures = {pool.submit(_label, atoms, source, told=told): index for index, atoms, told in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _label(atoms: Atoms, source: LabelSource, *, told: str) -> _Found:
    """The label of a structure, or why it has none."""
    from ase.calculators.calculator import CalculationFailed

    atoms.calc = source.make()
    try:
        energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces(), dtype=np.float64)
    except CalculationFailed as error:
        return f"{type(error).__name__}: {error}"
    except InputError as error:
        raise InputError(f"{told}: {error}") from error
    except Exception as error:  # a user's calculator raises whatever it raises
        raise InputError(
            f"{told}: {source.name} failed ({type(error).__name__}: {error}); "
            "look at the geometry, or leave the frame out"
        ) from error
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise InputError(f"{told}: {source.name} gave labels that are not finite; leave it out")
    figures = {name: float(atoms.calc.results[name]) for name in source.figures}
    return _Label(energy=energy, forces=forces, figures=figures)


def _read_done(partial: Path, provenance: Mapping[str, Any], *, figures: Sequence[str]) -> dict[int, _Found]:
    """Labels that an earlier, interrupted run has kept, by the number of the frame."""
    if not partial.is_file():
        return {}
    arrays = load_arrays(partial)
    wanted = {"index", "energy", "forces", "n_atoms", "refused", "provenance", *(f"figure_{name}" for name in figures)}
    if missing := sorted(wanted - arrays.keys()):
        raise InputError(f"{partial}: lacks {', '.join(missing)}, so it holds no labels of a run like this; remove it")
    record = json.loads(str(arrays["provenance"]))
    if changed := changed_values(record, json.loads(json.dumps(dict(provenance)))):
        raise InputError(f"{partial}: holds other labels: {'; '.join(changed)}; remove it, or give another output")
    done: dict[int, _Found] = {int(index): why for index, why in json.loads(str(arrays["refused"])).items()}
    ends = np.cumsum(arrays["n_atoms"])
    for row, index in enumerate(arrays["index"].tolist()):
        done[index] = _Label(
            energy=float(arrays["energy"][row]),
            forces=arrays["forces"][ends[row] - arrays["n_atoms"][row] : ends[row]],
            figures={name: float(arrays[f"figure_{name}"][row]) for name in figures},
        )
    return done


def _save(partial: Path, done: Mapping[int, _Found], provenance: Mapping[str, Any], *, figures: Sequence[str]) -> None:
    if not done:
        return
    labels = {index: found for index, found in done.items() if isinstance(found, _Label)}
    refused = {index: found for index, found in done.items() if isinstance(found, str)}
    buffer = io.BytesIO()
    further: dict[str, Any] = {
        f"figure_{name}": np.array([label.figures[name] for label in labels.values()]) for name in figures
    }
    np.savez(
        buffer,
        index=np.array(list(labels), dtype=np.int64),
        energy=np.array([label.energy for label in labels.values()]),
        forces=np.concatenate([np.zeros((0, 3)), *(label.forces for label in labels.values())]),
        n_atoms=np.array([len(label.forces) for label in labels.values()], dtype=np.int64),
        refused=np.array(json.dumps(refused)),
        provenance=np.array(json.dumps(dict(provenance))),
        **further,
    )
    try:
        replace_atomically(partial, buffer.getvalue())
    except OSError as error:
        raise InputError(f"{partial}: cannot be written ({error}); free space or choose another folder") from error
