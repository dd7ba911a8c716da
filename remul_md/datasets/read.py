"""`read_frames`: one function for every source of labelled geometries; and what a potential remembers of its own."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from remul_md.datasets.file_options import KEYS, UNITS, FileOptions
from remul_md.datasets.plausibility import check_plausible
from remul_md.datasets.readers.ase_files import FORMATS, entries_of_first, read_ase
from remul_md.datasets.readers.npz import array_names, read_npz
from remul_md.datasets.registry import ENTRIES, local_file, nearest_names
from remul_md.errors import InputError
from remul_md.structures.frames import Frames

logger = logging.getLogger(__name__)

Label = Literal["energy", "forces"]


def read_frames(
    source: str | Path,
    *,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    force_unit: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    require: Collection[Label] = (),
    with_labels: bool = True,
    allow_implausible: bool = False,
    cache: str | Path | None = None,
) -> Frames:
    """Labelled geometries in eV and Angstrom from a file or a registered name.

    The units that were assumed are logged (level INFO), never guessed from the numbers.

    Args:
        source: a file (.npz in rMD17 or sGDML layout, .xyz / .extxyz, ASE .db / .json / .traj), else a registered name:
            packaged (`rmd17/ethanol/test-01`) or fetched before (`ccsdt/ethanol/train`). A file wins over a name.
        energy_unit: eV, kcal/mol, kJ/mol or Hartree; default kcal/mol for npz, eV otherwise.
        length_unit: Angstrom (default) or Bohr.
        force_unit: such as Hartree/Bohr; default energy_unit / length_unit.
        energy_key: entry of the energies where it is not the usual one, such as `REF_energy`.
        forces_key: entry of the forces, likewise.
        require: labels that must be there; others may be missing and are then None.
        with_labels: False reads geometries only: labels may be missing or in any unit.
        allow_implausible: take forces and distances that no usual system has in these units.
        cache: folder of fetched files; default `remul_md.files.cache_directory()`.
    Returns:
        The frames in the order of the file.
    Raises:
        InputError: no such file or name, unknown unit, a file that is damaged or has the wrong content, labels that
            are missing, not finite, or implausible in the unit.
    """
    unknown = sorted(set(require) - {"energy", "forces"})
    if unknown:
        raise InputError(f"require names {unknown}; labels are energy and forces")
    if require and not with_labels:
        raise InputError(f"require={sorted(require)} asks for labels, with_labels=False leaves them out; choose one")
    options = FileOptions(  # unknown units are refused before a file is opened
        energy_unit=energy_unit,
        length_unit=length_unit,
        force_unit=force_unit,
        energy_key=energy_key,
        forces_key=forces_key,
    )
    path, name = _resolve(source, cache=cache)
    read = read_npz if path.suffix.lower() == ".npz" else read_ase
    frames = replace(read(path, options, with_labels=with_labels), name=name)
    for label in require:
        if getattr(frames, label) is None:
            raise InputError(
                f"{source}: has no {label}, which is needed here; "
                f"name its entry with {label}_key, or give a file with labels"
            )
    if not allow_implausible:
        check_plausible(frames)
    return frames


def _resolve(source: str | Path, *, cache: str | Path | None) -> tuple[Path, str]:
    """File and display name of a source."""
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix.lower() not in (".npz", *FORMATS):
            raise InputError(
                f"{path}: ending {path.suffix!r} is unknown; files are read that end in {', '.join(('.npz', *FORMATS))}"
            )
        return path, path.name
    if str(source) in ENTRIES:
        return local_file(str(source), cache_dir=cache), str(source)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give one file")
    raise InputError(f"{str(source)!r} is neither a file nor a registered data set; {nearest_names(str(source))}")


def seen_in_training(record: Mapping[str, Any], data: str) -> Frames | None:
    """The frames that a potential has seen, for training and for validation, if `data` is of the same trajectory.

    Args:
        record: `data` of the potential's provenance: a name and the split.
        data: name of the frames that are asked about; only registered names say which trajectory they are of.
    """
    name = str(record.get("name", ""))
    if not (name in ENTRIES and data in ENTRIES and name.rsplit("/", 1)[0] == data.rsplit("/", 1)[0]):
        return None
    split = record.get("split")
    if split is None:
        return None
    return read_frames(name).select([*split["train"], *split["validation"]])


def recorded_options(
    source: str | Path, given: FileOptions, *, record: Mapping[str, Any], trained_on: str
) -> FileOptions:
    """The options for a file, with those of a potential's training data where the user gives none.

    Keys: the record's if no key is given and the file has them all. Units: the record's if no unit is given, the keys
    in use are the record's, and the file is of the format that was trained on. Registered data sets say their own.

    Args:
        source: the file; what cannot be read here says so where it is read in earnest.
        given: by the user.
        record: `FileOptions` by name, of the training data.
        trained_on: name of the file that was trained on.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        return given
    recorded = {name: str(value) for name in (*KEYS, *UNITS) if (value := record.get(name)) is not None}
    keys = {name: recorded[name] for name in KEYS if name in recorded}
    chosen = dict(given.given)
    if keys and not set(KEYS) & set(chosen) and set(keys.values()) <= _entry_names(path):
        chosen |= keys
    own_keys = {name: chosen[name] for name in KEYS if name in chosen}
    same_format = _format(path) == _format(Path(trained_on))
    if own_keys == keys and same_format and not set(UNITS) & set(chosen):
        chosen |= {name: recorded[name] for name in UNITS if name in recorded}
    taken = {name: value for name, value in chosen.items() if name not in given.given}
    if taken:
        logger.info(
            "%s: read with %s, as the training data of the potential were; options of yours replace them",
            path, ", ".join(f"{name}={value}" for name, value in taken.items()),
        )  # fmt: skip
    return FileOptions(**chosen)


def _format(path: Path) -> str:
    return FORMATS.get(path.suffix.lower(), path.suffix.lower())


def _entry_names(path: Path) -> set[str]:
    """All that could be labels in a file; empty for what cannot be read, which its reader will say."""
    try:
        if path.suffix.lower() == ".npz":
            return array_names(path)
        return entries_of_first(path) if path.suffix.lower() in FORMATS else set()
    except InputError:
        return set()
