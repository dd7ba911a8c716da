"""Two thousand damaged files, the same in every run: a reader gives the right frames or an InputError, never less.

What counts as right: never another exception; as many frames as the damaged file says it has; frames that the damage
did not touch as they were; nothing that is not finite; and the file left alone. A number that became another number is
a legal file, of course.
"""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from file_faults import BYTES, LINES, changed_array, npz_bytes

from remul_md import Frames, InputError, read_frames
from remul_md.dynamics import export_h5md, read_trajectory
from remul_md.dynamics.trajectory import TrajectoryArrays

FORMATS = Path(__file__).parent / "data" / "formats"
Read = Frames | TrajectoryArrays


def lines_say(content: bytes) -> int | None:
    """Frames of an xyz file; None if its counts do not fit its lines."""
    lines = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", errors="replace").readlines()
    at, n_frames = 0, 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        if not lines[at].strip().isdecimal():
            return None
        at, n_frames = at + int(lines[at]) + 2, n_frames + 1
    return n_frames if at == len(lines) else None


def header_says(content: bytes) -> int | None:
    """Frames of an ASE trajectory: the number in its header."""
    return struct.unpack("<q", content[32:40])[0] if len(content) >= 40 else None


def keys_say(content: bytes) -> int | None:
    """Rows of an ASE database in JSON."""
    try:
        return sum(key.isdecimal() for key in json.loads(content))
    except (ValueError, AttributeError, TypeError):
        return None


def shape_says(content: bytes) -> int | None:
    """Frames of an H5MD file."""
    try:
        with h5py.File(io.BytesIO(content)) as handle:
            (group,) = handle["particles"].values()
            return int(group["position/value"].shape[0])
    except Exception:
        return None


def every_frame(content: bytes) -> int | None:
    """Formats with checksums, or whose rows cannot be counted otherwise: as many as there were."""
    return N_FRAMES


N_FRAMES = 6


@dataclass(frozen=True)
class Source:
    """An undamaged file, and how it is read."""

    suffix: str
    content: bytes
    read: Callable[..., Read]
    claimed: Callable[[bytes], int | None]

    def whole(self, folder: Path) -> Read:
        """What is in the undamaged file."""
        found = self.outcome(self.content, folder)
        assert found is not None
        return found

    def outcome(self, content: bytes, folder: Path, *, allow_implausible: bool = True) -> Read | None:
        """What the reader gives, None for an InputError; everything else is a failure."""
        path = folder / f"damaged{self.suffix}"
        path.write_bytes(content)
        message = path.name
        try:
            found = self.read(path, allow_implausible=allow_implausible)
        except InputError as error:
            found, message = None, str(error)
        assert path.name in message
        assert path.read_bytes() == content
        assert [entry.name for entry in folder.iterdir()] == [path.name]
        if found is not None:
            for entry in fields(found):
                values = getattr(found, entry.name)
                if isinstance(values, np.ndarray) and values.dtype.kind == "f":
                    assert np.isfinite(values).all(), entry.name
        return found


def as_frames(path: Path, *, allow_implausible: bool) -> Read:
    unit = "eV" if path.suffix == ".npz" else None
    return read_frames(path, energy_unit=unit, allow_implausible=allow_implausible)


def as_trajectory(path: Path, *, allow_implausible: bool) -> Read:
    return read_trajectory(path)


def parts(found: Read) -> list[dict[str, Any]]:
    """Each frame as its arrays."""
    cut = [found.select([k]) if isinstance(found, Frames) else found.part(slice(k, k + 1)) for k in range(len(found))]
    names = [entry.name for entry in fields(found) if entry.name not in ("name", "trajectory_step")]
    return [{name: getattr(part, name) for name in names} for part in cut]


def same_frame(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return all(
        (left[name] is None) == (right[name] is None)
        and (left[name] is None or (left[name].shape == right[name].shape and (left[name] == right[name]).all()))
        for name in right
    )


def same(left: Read, right: Read) -> bool:
    return len(left) == len(right) and all(map(same_frame, parts(left), parts(right)))


def structures() -> list[Atoms]:
    frames = read_frames("rmd17/ethanol/train-01").select(range(N_FRAMES))
    found = []
    for k in range(N_FRAMES):
        atoms = frames.atoms(k)
        atoms.info |= {"time_ps": 0.0025 * k, "step": 5 * k}
        atoms.set_momenta(np.random.default_rng(k).normal(size=(9, 3)))
        atoms.calc = SinglePointCalculator(atoms, energy=frames.energy[k], forces=frames.forces[9 * k : 9 * k + 9])
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    folder, frames = tmp_path_factory.mktemp("sources"), structures()
    ase.io.write(folder / "run.extxyz", frames)
    ase.io.write(folder / "run.traj", frames)
    export_h5md(folder / "run.traj", folder / "run.h5md")
    for suffix in (".db", ".json"):
        with connect(folder / f"run{suffix}") as database:
            for atoms in frames:
                database.write(atoms, level=1.5, data={"other": [1.0, 2.0]})
    arrays = {
        "nuclear_charges": frames[0].numbers,
        "coords": np.array([atoms.positions for atoms in frames]),
        "energies": np.array([atoms.get_potential_energy() for atoms in frames]),
        "forces": np.array([atoms.get_forces() for atoms in frames]),
        "old_indices": np.arange(N_FRAMES),
    }
    np.savez(folder / "run.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    carbon = (FORMATS / "carbon_periodic.xyz").read_text().splitlines(keepends=True)[: 6 * N_FRAMES]
    (folder / "carbon.xyz").write_text("".join(carbon))
    found = {}
    for name, read, claimed in (
        ("run.npz", as_frames, every_frame),
        ("packed.npz", as_frames, every_frame),
        ("run.extxyz", as_frames, lines_say),
        ("carbon.xyz", as_frames, lines_say),
        ("run.traj", as_frames, header_says),
        ("run.db", as_frames, every_frame),
        ("run.json", as_frames, keys_say),
        ("run.extxyz", as_trajectory, lines_say),
        ("run.traj", as_trajectory, header_says),
        ("run.h5md", as_trajectory, shape_says),
    ):
        path = folder / name
        source = Source(path.suffix, path.read_bytes(), read, claimed)
        found[f"{name} {read.__name__}"] = source
        assert claimed(source.content) == N_FRAMES
    return found


NAMES = [
    "run.npz as_frames", "packed.npz as_frames", "run.extxyz as_frames", "carbon.xyz as_frames", "run.traj as_frames",
    "run.db as_frames", "run.json as_frames", "run.extxyz as_trajectory", "run.traj as_trajectory",
    "run.h5md as_trajectory",
]  # fmt: skip
TEXTS = [name for name in NAMES if "xyz" in name]
N_BYTES, N_LINES, N_WORDS, N_ARRAYS = 14, 18, 40, 60  # of each test: 2,030 in all


@pytest.mark.parametrize("fault", sorted(BYTES))
@pytest.mark.parametrize("name", [name for name in NAMES if "h5md" not in name])
def test_damaged_bytes(name: str, fault: str, sources: dict[str, Source], tmp_path: Path) -> None:
    source = sources[name]
    rng = np.random.default_rng([NAMES.index(name), sorted(BYTES).index(fault)])
    for case in range(N_BYTES):
        content = BYTES[fault](source.content, rng)
        found = source.outcome(content, tmp_path, allow_implausible=case % 4 > 0)
        if found is not None:
            assert len(found) == source.claimed(content), case


READ_ALL = """
import sys
from pathlib import Path
from remul_md import InputError
from remul_md.dynamics import read_trajectory
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, end=" ", flush=True)
    try:
        print(len(read_trajectory(path)), flush=True)
    except InputError as error:
        print("refused" if path.name in str(error) else error, flush=True)
    except BaseException as error:
        print(repr(error), flush=True)
"""


def test_damaged_bytes_of_hdf5(sources: dict[str, Source], tmp_path: Path) -> None:
    """In a process of its own: the HDF5 library itself runs for ever, or crashes, at some damage of its structure."""
    source, rng = sources["run.h5md as_trajectory"], np.random.default_rng(500)
    for fault in sorted(BYTES):
        for case in range(N_BYTES):
            name = f"{fault}-{case}.h5md"
            (tmp_path / name).write_bytes(BYTES[fault](source.content, rng))
    command = [sys.executable, "-c", READ_ALL, str(tmp_path)]
    try:
        said = subprocess.run(command, capture_output=True, timeout=30, text=True, check=False).stdout
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode()
    outcomes = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    assert len(outcomes) > N_BYTES
    for name, outcome in outcomes.items():
        if outcome not in ("refused", ""):
            assert outcome == str(source.claimed((tmp_path / name).read_bytes())), name


@pytest.mark.parametrize("fault", sorted(LINES))
@pytest.mark.parametrize("name", TEXTS)
def test_damaged_lines(
    name: str, fault: str, sources: dict[str, Source], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = sources[name]
    lines = source.content.decode().splitlines()
    reference = parts(source.whole(tmp_path))
    per_frame = len(lines) // N_FRAMES
    rng = np.random.default_rng([NAMES.index(name), 100 + sorted(LINES).index(fault)])
    for case in range(N_LINES):
        damaged, first, last = LINES[fault](list(lines), rng)
        content = "\n".join([*damaged, ""]).encode()
        caplog.clear()
        found = source.outcome(content, tmp_path, allow_implausible=case % 4 > 0)
        if found is None:
            continue
        assert len(found) == source.claimed(content) == N_FRAMES, case
        touched = range(max(first, 0) // per_frame, last // per_frame + 1)
        for k in set(range(N_FRAMES)) - set(touched):
            kept = {key: value for key, value in parts(found)[k].items() if value is not None}
            left_out = reference[k].keys() - kept.keys()
            assert same_frame(kept, {key: reference[k][key] for key in kept}), (case, k)
            # what only some frames have is left out of all, which is said
            assert all(reference[k][key] is None or key in caplog.text for key in left_out), (case, k)


@pytest.mark.parametrize("name", TEXTS)
def test_another_number_is_another_number_there_and_nowhere_else(
    name: str, sources: dict[str, Source], tmp_path: Path
) -> None:
    source = sources[name]
    text, reference = source.content.decode(), parts(source.whole(tmp_path))
    numbers = list(re.finditer(r"(?<=[ =\"])-?[0-9]+\.[0-9]{3,}(?=[ \n\"])", text))
    rng = np.random.default_rng([NAMES.index(name), 200])
    n_seen = 0
    for _ in range(N_WORDS):
        match = numbers[int(rng.integers(len(numbers)))]
        content = text[: match.start()] + f"{float(match.group()) + 0.125:.8f}" + text[match.end() :]
        found = source.outcome(content.encode(), tmp_path)
        if found is None:
            continue
        n_changed = sum(
            int((after[key] != before[key]).sum())
            for after, before in zip(parts(found), reference, strict=True)
            for key in before
            if before[key] is not None
        )
        assert n_changed <= 1  # none for a column that is not read
        n_seen += n_changed
    assert n_seen > N_WORDS // 3


def with_latin_letters(content: bytes) -> bytes:
    return content.replace(b" energy=", b" author=M\xfcller energy=")


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "blank lines between frames": lambda content: re.sub(rb"(?m)^(?=[0-9]+$)", b"\n  \n", content),
    "blank lines at the end": lambda content: content + b"\n\n \n",
    "no end of the last line": lambda content: content.removesuffix(b"\n"),
    "line ends of Windows": lambda content: content.replace(b"\n", b"\r\n"),
    "blanks at line ends": lambda content: content.replace(b"\n", b" \t\n"),
    "tabs": lambda content: re.sub(rb"(?m)(?<=[0-9A-Z]) +(?=[-0-9])", b"\t", content),
    "mark of UTF-8": lambda content: b"\xef\xbb\xbf" + content,
    "letters of Latin-1": with_latin_letters,
    "letters of UTF-8": lambda content: with_latin_letters(content).replace(b"\xfc", "ü".encode()),
    "another key": lambda content: content.replace(b" energy=", b' note="a = b, {c}" energy='),
}


@pytest.mark.parametrize("change", sorted(HARMLESS))
@pytest.mark.parametrize("name", TEXTS)
def test_what_matters_to_no_number_changes_none(
    name: str, change: str, sources: dict[str, Source], tmp_path: Path
) -> None:
    source = sources[name]
    content = HARMLESS[change](source.content)
    assert content != source.content
    found = source.outcome(content, tmp_path)
    assert found is not None
    assert same(found, source.whole(tmp_path))


@pytest.mark.parametrize("name", ["run.npz as_frames", "sgdml"])
def test_damaged_arrays(name: str, sources: dict[str, Source], tmp_path: Path) -> None:
    source = sources["run.npz as_frames"]
    whole = FORMATS / "ethanol_ccsdt_sgdml.npz" if name == "sgdml" else io.BytesIO(source.content)
    with np.load(whole) as archive:
        arrays = dict(archive)
    if name == "sgdml":
        arrays |= {"e_unit": np.array("kcal/mol"), "r_unit": np.array("Ang")}
    positions = "R" if name == "sgdml" else "coords"
    rng = np.random.default_rng([len(name), 300])
    for case in range(2 * N_ARRAYS):
        damaged, key = dict(arrays), str(rng.choice(sorted(arrays)))
        if case % 8 == 0:
            del damaged[key]
        elif case % 8 == 1:
            damaged[str(rng.choice(["other", "z", "F", "coords"]))] = damaged.pop(key)
        else:
            damaged[key] = changed_array(arrays[key], rng)
        found = source.outcome(npz_bytes(damaged), tmp_path, allow_implausible=case % 4 > 0)
        assert found is None or len(found) == len(damaged[positions]), (case, key)


def test_damaged_datasets(sources: dict[str, Source], tmp_path: Path) -> None:
    source = sources["run.h5md as_trajectory"]
    whole = source.whole(tmp_path)
    rng = np.random.default_rng(400)
    for case in range(2 * N_ARRAYS):
        buffer = io.BytesIO(source.content)
        with h5py.File(buffer, "r+") as handle:
            names: list[str] = []
            handle.visit(names.append)
            name = str(rng.choice(sorted(names)))
            damaged = spoiled(handle, name, rng) if case % 4 else handle.__delitem__(name)
        found = source.outcome(buffer.getvalue(), tmp_path)
        if found is None:
            continue
        assert len(found) == source.claimed(buffer.getvalue()), (case, name)
        if damaged is None and len(found) == N_FRAMES:  # what was taken away is missing, the rest is as it was
            for key in ("positions", "atomic_numbers", "time_ps", "momenta", "forces", "energy"):
                value = getattr(found, key)
                assert value is None or np.array_equal(value, getattr(whole, key)), (case, name, key)


def spoiled(handle: Any, name: str, rng: np.random.Generator) -> str:
    """Change a data set, or an attribute, or put a group in the place of a data set."""
    entry = handle[name]
    attributes = dict(entry.attrs)
    if attributes and rng.integers(3) == 0:
        key = str(rng.choice(sorted(attributes)))
        entry.attrs[key] = [0, "nm", "ps", b"\xff", np.zeros(3), ["none"] * 2][int(rng.integers(6))]
    elif isinstance(entry, h5py.Dataset):
        value = changed_array(np.asarray(entry), rng)
        del handle[name]
        handle[name] = value.astype("S20") if value.dtype.kind == "U" else value
        handle[name].attrs.update(attributes)
    else:
        del handle[name]
        handle[name] = np.arange(4.0)
    return name
