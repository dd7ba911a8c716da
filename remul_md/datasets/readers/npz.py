"""Reader of the two npz layouts of MD17: rMD17 (`nuclear_charges`, `coords`, ...) and sGDML (`z`, `R`, `E`, `F`).

Both hold frames of one molecule, not periodic, all with the same atoms in the same order.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.datasets.file_options import FileOptions
from remul_md.datasets.readers.ends import check_npz_begin
from remul_md.datasets.units import FIELD, canonical_energy, canonical_length
from remul_md.errors import InputError
from remul_md.structures.frames import Frames

logger = logging.getLogger(__name__)

WHOLE = 1e-3  # how far from a whole number an atomic number may be that arithmetic has gone over
DEFAULT_UNITS = ("kcal/mol", "Angstrom")  # of MD17, rMD17 and all published sGDML data sets


@dataclass(frozen=True, kw_only=True)
class NpzLayout:
    """Names of the arrays in one npz layout."""

    name: str
    atomic_numbers: str
    positions: str
    energy: str
    forces: str
    trajectory_step: str | None = None


LAYOUTS = (
    NpzLayout(
        name="rMD17",
        atomic_numbers="nuclear_charges",
        positions="coords",
        energy="energies",
        forces="forces",
        trajectory_step="old_indices",
    ),
    NpzLayout(name="sGDML", atomic_numbers="z", positions="R", energy="E", forces="F"),
)


def read_npz(path: Path, options: FileOptions, *, with_labels: bool = True) -> Frames:
    """Frames of an rMD17 or sGDML npz file, in eV and Angstrom; the layout is recognised by its keys.

    Units not given are taken from the file's `e_unit` and `r_unit` (sGDML), else kcal/mol and Angstrom. Pickled
    arrays are refused, never executed.

    Args:
        path: the file.
        options: units; arrays of the labels, if not those of the layout (such as `old_energies`).
        with_labels: False leaves energies and forces alone.
    Raises:
        InputError: not a readable npz, keys of no known layout, shapes that disagree, a pickled array.
    """
    arrays = load_arrays(path)
    layout = _recognise(arrays, path=path)
    energy_key, forces_key = options.energy_key or layout.energy, options.forces_key or layout.forces
    missing = [key for key in (energy_key, forces_key) if with_labels and key not in arrays]
    if missing:
        raise InputError(
            f"{path}: arrays {missing} are missing, found {sorted(arrays)}; "
            "name the label arrays with energy_key and forces_key"
        )
    units = replace(
        options,
        energy_unit=_declared(arrays, "e_unit", given=options.energy_unit, canonical=canonical_energy, path=path)
        if with_labels
        else None,
        length_unit=_declared(arrays, "r_unit", given=options.length_unit, canonical=canonical_length, path=path),
    ).units(DEFAULT_UNITS)
    numbers, positions = arrays[layout.atomic_numbers], arrays[layout.positions]
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise InputError(f"{path}: {layout.positions} has shape {positions.shape}, expected (frames, atoms, 3)")
    n_frames, n_atoms = positions.shape[:2]
    expected = [(layout.atomic_numbers, numbers, (n_atoms,)), (layout.positions, positions, positions.shape)]
    if with_labels:
        energy, forces = arrays[energy_key], arrays[forces_key]
        if energy.shape == (n_frames, 1):  # sGDML stores energies as a column
            energy = energy[:, 0]
        expected[1:1] = [(energy_key, energy, (n_frames,)), (forces_key, forces, positions.shape)]
    for key, array, shape in expected:
        if array.dtype.kind not in "iuf":
            raise InputError(f"{path}: {key} has type {array.dtype}, expected numbers; save the array as floats")
        if array.shape != shape:
            raise InputError(
                f"{path}: {key} has shape {array.shape}, expected {shape} from {layout.positions} {positions.shape}; "
                "the arrays do not belong together: fetch or export the file again"
            )
    whole = np.rint(numbers)
    no_element = ~(
        (whole >= 1) & (whole <= 118) & np.isclose(numbers, whole, rtol=0.0, atol=WHOLE)
    )  # nor is what is not a number
    if no_element.any():
        raise InputError(
            f"{path}: {layout.atomic_numbers} holds {numbers[no_element][0]}, which is no element; "
            "atomic numbers are whole and run from 1 to 118"
        )
    if with_labels and energy.dtype == np.float32 and np.abs(energy).max(initial=0.0) > 1e4:
        logger.warning(
            "%s: %s is float32 and as large as %.6g %s, so energies are rounded to about %.1g %s",
            path, energy_key, float(np.abs(energy).max()), units.energy,
            float(np.spacing(np.abs(energy).max())), units.energy,
        )  # fmt: skip
    logger.info("read %d frames of %d atoms from %s (%s layout; %s)", n_frames, n_atoms, path, layout.name, units)
    return Frames(
        positions=positions.reshape(-1, 3).astype(np.float64) * units.to_angstrom,
        atomic_numbers=np.tile(whole.astype(np.int64), n_frames),
        n_atoms=np.full(n_frames, n_atoms, dtype=np.int64),
        pbc=np.zeros((n_frames, 3), dtype=bool),
        energy=energy.astype(np.float64) * units.to_eV if with_labels else None,
        forces=forces.reshape(-1, 3).astype(np.float64) * units.to_eV_per_angstrom if with_labels else None,
        name=path.name,
        field_V_per_A=_fields(arrays, n_frames, path=path) if with_labels else None,
        trajectory_step=_trajectory_steps(arrays, layout, n_frames),
    )


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file, without ever unpickling.

    Raises:
        InputError: not an npz, truncated or corrupt, or holding a pickled array.
    """
    with path.open("rb") as file:
        magic = file.read(2)
    if magic != b"PK":
        raise InputError(
            f"{path}: is no npz archive (it begins with {magic!r}); "
            "pickles and single .npy arrays are not read: save with numpy.savez"
        )
    arrays = {}
    key = "its table of contents"
    try:
        with zipfile.ZipFile(path) as archive:
            check_npz_begin(path, archive)
            for name in archive.namelist():
                key = name.removesuffix(".npy")
                # Read to the end, where the checksum is compared: a damaged header may ask for less.
                content = io.BytesIO(archive.read(name))
                if key != name:
                    arrays[key] = np.lib.format.read_array(content, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds at a broken file
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise InputError(
                f"{path}: array {key!r} is pickled, which could run code; save it as a plain array of numbers"
            ) from error
        raise InputError(
            f"{path}: truncated or corrupt npz, {key!r} cannot be read ({type(error).__name__}: {error}); "
            "copy or fetch the file again"
        ) from error
    return arrays


def array_names(path: Path) -> set[str]:
    """Names of the arrays of an npz file, which are not read.

    Raises:
        InputError: no zip archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception as error:  # of a broken file
        raise InputError(f"{path}: truncated or corrupt npz ({type(error).__name__}: {error})") from error


def _trajectory_steps(arrays: dict[str, NDArray[Any]], layout: NpzLayout, n_frames: int) -> NDArray[np.int64] | None:
    """Whole numbers, one for each frame, if the file has them; an array that is no such thing is left alone."""
    steps = arrays.get(layout.trajectory_step or "")
    if steps is None or steps.shape != (n_frames,) or steps.dtype.kind not in "iu":
        return None
    return steps.astype(np.int64)


def _fields(arrays: dict[str, NDArray[Any]], n_frames: int, *, path: Path) -> NDArray[np.float64] | None:
    """The electric field of each frame, [B, 3], V/Angstrom, if the file has one: of all frames, or of each."""
    found = arrays.get(FIELD)
    if found is None:
        return None
    if found.dtype.kind not in "iuf" or found.shape not in ((3,), (n_frames, 3)):
        raise InputError(
            f"{path}: {FIELD} has type {found.dtype} and shape {found.shape}; it is the electric field of the labels, "
            f"three numbers, or ({n_frames}, 3) of them"
        )
    return np.array(np.broadcast_to(found, (n_frames, 3)), dtype=np.float64)


def _recognise(arrays: dict[str, NDArray[Any]], *, path: Path) -> NpzLayout:
    for layout in LAYOUTS:
        if layout.atomic_numbers in arrays and layout.positions in arrays:
            return layout
    expected = " or ".join(
        f"{layout.atomic_numbers}, {layout.positions}, {layout.energy}, {layout.forces} ({layout.name})"
        for layout in LAYOUTS
    )
    raise InputError(f"{path}: found the arrays {sorted(arrays)}, expected {expected}; rename them when saving")


def _declared(
    arrays: dict[str, NDArray[Any]], key: str, *, given: str | None, canonical: Callable[[str], str], path: Path
) -> str | None:
    """The unit that the user gives, else the one that the file declares (str in some files, bytes in others)."""
    if key not in arrays:
        return given
    if arrays[key].size != 1 or arrays[key].dtype.kind not in "US":
        if given is not None:  # said twice, once well
            return given
        raise InputError(
            f"{path}: {key} has shape {arrays[key].shape} and type {arrays[key].dtype}, expected the name of one unit; "
            f"say the unit when reading ({'energy' if key == 'e_unit' else 'length'}_unit)"
        )
    value = arrays[key].item()
    declared = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if given is None:
        try:
            return canonical(declared)
        except InputError as error:
            raise InputError(f"{path}: {key}: {error}, or say the unit when reading") from error
    if declared.lower() != given.lower():
        logger.warning("%s: declares %s = %r, read as %r because that was asked for", path, key, declared, given)
    return given
