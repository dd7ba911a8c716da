"""Files that cannot be used are refused with a message that says what, which value and what to do."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from messages import pattern

from remul_md import InputError
from remul_md.datasets import read_frames

FORMATS = Path(__file__).parent / "data" / "formats"
SGDML = FORMATS / "ethanol_ccsdt_sgdml.npz"
ETHANOL = FORMATS / "ethanol_kcal.xyz"


def refused(text: str):
    return pytest.raises(InputError, match=pattern(text))


def changed_npz(path: Path, **changes: np.ndarray | None) -> Path:
    arrays = dict(np.load(SGDML)) | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_missing_file() -> None:
    with refused("'no/such/file.npz' ... `remul-md data list`"):
        read_frames("no/such/file.npz")


def test_folder(tmp_path: Path) -> None:
    with refused(f"{tmp_path}: is a folder; give one file"):
        read_frames(tmp_path)


def test_unknown_ending(tmp_path: Path) -> None:
    (tmp_path / "frames.h5").write_bytes(b"something")
    with refused("ending '.h5' ... .npz, .xyz, .extxyz"):
        read_frames(tmp_path / "frames.h5")


@pytest.mark.parametrize("name", ["rmd17/etanol/test-01", "rmd17/ethanol/test"])
def test_unknown_name_lists_the_nearest(name: str) -> None:
    with refused("did you mean rmd17/ethanol/test-01"):
        read_frames(name)


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.98])
def test_truncated_npz(tmp_path: Path, kept: float) -> None:
    content = SGDML.read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: int(kept * len(content))])
    with refused("cut.npz: truncated"):
        read_frames(tmp_path / "cut.npz")


def test_damaged_array_in_npz(tmp_path: Path) -> None:
    content = bytearray(SGDML.read_bytes())
    start = content.index(b"R.npy") + 200  # inside the compressed array R
    content[start : start + 40] = bytes(byte ^ 0xFF for byte in content[start : start + 40])
    (tmp_path / "damaged.npz").write_bytes(bytes(content))
    with refused("damaged.npz: ... 'R' cannot be read"):
        read_frames(tmp_path / "damaged.npz")


def test_npz_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    with refused("no npz archive ... b'he'"):
        read_frames(tmp_path / "text.npz")


class Bomb:
    """Its unpickling makes a folder, so a test can see that it never ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_array_is_never_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    path = changed_npz(tmp_path / "pickled.npz", E=np.array([Bomb(trap)] * 7, dtype=object))
    with refused("pickled.npz: array 'E' is pickled"):
        read_frames(path)
    assert not trap.exists()
    # the trap is armed: whoever allows pickles runs it
    with np.load(path, allow_pickle=True) as archive:
        _ = archive["E"]
    assert trap.exists()


def test_wrong_keys_are_named_with_the_expected_ones(tmp_path: Path) -> None:
    np.savez(tmp_path / "keys.npz", species=np.ones(5), xyz=np.ones((7, 5, 3)))
    with refused("['species', 'xyz'] ... nuclear_charges, coords, energies, forces"):
        read_frames(tmp_path / "keys.npz")


def test_missing_label_array(tmp_path: Path) -> None:
    with refused("arrays ['F'] are missing ... forces_key"):
        read_frames(changed_npz(tmp_path / "no_forces.npz", F=None))
    with refused("arrays ['old_energies'] are missing"):
        read_frames(SGDML, energy_key="old_energies")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("E", np.zeros(6), "E has shape (6,), expected (7,)"),
        ("F", np.zeros((7, 8, 3)), "F has shape (7, 8, 3), expected (7, 9, 3)"),
        ("z", np.ones(8, dtype=int), "z has shape (8,), expected (9,)"),
        ("R", np.zeros((7, 27)), "R has shape (7, 27), expected (frames, atoms, 3)"),
        ("R", np.zeros((0, 9, 3)), "expected (0,) from R (0, 9, 3)"),
        ("E", np.array(["low"] * 7), "E has type <U3, expected numbers"),
        ("R", np.full((7, 9, 3), "x"), "R has type <U1, expected numbers"),
    ],
)
def test_arrays_that_do_not_belong_together(tmp_path: Path, key: str, value: np.ndarray, text: str) -> None:
    with refused(text):
        read_frames(changed_npz(tmp_path / "shapes.npz", **{key: value}))


@pytest.mark.parametrize(
    ("key", "row", "text"),
    [
        ("E", 4, "energy ... not finite ... frame 4"),
        ("F", 3, "forces ... not finite ... atom row 27"),
        ("R", 2, "positions ... not finite ... atom row 18"),
    ],
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_labels_that_are_not_finite(tmp_path: Path, key: str, row: int, text: str, bad: float) -> None:
    values = np.load(SGDML)[key].copy()
    values.reshape(7, -1)[row, 0] = bad
    with refused(text):
        read_frames(changed_npz(tmp_path / "nan.npz", **{key: values}))


def test_nan_in_extxyz(tmp_path: Path) -> None:
    text = ETHANOL.read_text().replace("energy=-97079.92222178938", "energy=nan", 1)
    (tmp_path / "nan.xyz").write_text(text)
    with refused("nan.xyz: energy ... not finite ... frame 0"):
        read_frames(tmp_path / "nan.xyz", energy_unit="kcal/mol")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"energy_unit": "kcal"}, "energy unit 'kcal' ... kcal/mol"),
        ({"length_unit": "nm"}, "length unit 'nm' ... Angstrom, Bohr"),
        ({"force_unit": "eV"}, "force unit 'eV' ... eV/Angstrom"),
        ({"force_unit": "Ry/Bohr"}, "energy unit 'Ry' is unknown"),
        ({"require": ["stress"]}, "require names ['stress']"),
    ],
)
def test_bad_options_are_refused_before_the_file_is_opened(option: dict, text: str) -> None:
    with refused(text):
        read_frames("no/such/file.xyz", **option)


def test_unknown_unit_declared_in_the_file(tmp_path: Path) -> None:
    with refused("odd.npz: e_unit: energy unit 'furlong' is unknown"):
        read_frames(changed_npz(tmp_path / "odd.npz", e_unit=np.array(b"furlong")))


def test_kcal_read_as_eV_is_implausible() -> None:
    with refused("ethanol_kcal.xyz: the RMS force component is 2"):
        read_frames(ETHANOL)
    assert len(read_frames(ETHANOL, allow_implausible=True)) == 12


def test_small_forces_only_warn(caplog: pytest.LogCaptureFixture) -> None:
    read_frames(FORMATS / "magnesium_relaxation.extxyz")  # steps of a relaxation: 0.04 eV/Angstrom
    assert "0.041 eV/Angstrom" in caplog.text


@pytest.mark.parametrize("name", ["aspirin_eV.xyz", "magnesium_relaxation.extxyz", "carbon_periodic.xyz"])
@pytest.mark.parametrize(("factor", "unit"), [(1 / 0.529177, "Angstrom"), (1.0, "Bohr"), (0.1, "Angstrom")])
def test_lengths_in_the_wrong_unit_are_implausible(tmp_path: Path, name: str, factor: float, unit: str) -> None:
    structures = ase.io.read(FORMATS / name, index=":")
    for atoms in structures:
        atoms.calc = None
        atoms.set_cell(atoms.cell * factor, scale_atoms=False)
        atoms.positions *= factor
    ase.io.write(tmp_path / "scaled.xyz", structures, format="extxyz")
    with refused("implausible outside 0.65 to 1.5"):
        read_frames(tmp_path / "scaled.xyz", length_unit=unit)
    assert len(read_frames(tmp_path / "scaled.xyz", length_unit=unit, allow_implausible=True)) == len(structures)


def test_noble_gases_have_no_bonds_and_are_not_refused(tmp_path: Path) -> None:
    from ase.build import bulk

    ase.io.write(tmp_path / "argon.xyz", bulk("Ar", "fcc", a=5.3, cubic=True))
    assert len(read_frames(tmp_path / "argon.xyz").positions) == 4
    ase.io.write(tmp_path / "iron.xyz", bulk("Fe", "fcc", a=5.7, cubic=True))
    with refused("implausible"):
        read_frames(tmp_path / "iron.xyz")


def test_two_atoms_at_one_place(tmp_path: Path) -> None:
    positions = np.load(SGDML)["R"].copy()
    positions[0, 5] = positions[0, 8]
    with refused("frame 0: atoms 5 and 8 are 0 Angstrom apart"):
        read_frames(changed_npz(tmp_path / "clash.npz", R=positions))


def test_periodic_frame_without_cell(tmp_path: Path) -> None:
    text = (FORMATS / "aspirin_eV.xyz").read_text().replace('pbc="F F F"', 'pbc="T T T"')
    (tmp_path / "no_cell.xyz").write_text(text)
    with refused("no_cell.xyz, frame 0: pbc is [ True  True  True] ... no cell"):
        read_frames(tmp_path / "no_cell.xyz")


def test_fewer_values_than_the_checksum_was_made_of(tmp_path: Path) -> None:
    """The header of an array says half the frames, and so do those of all others: only the checksum knows."""
    positions, frames = np.zeros((8, 5, 3)), np.arange(8)
    np.savez(tmp_path / "half.npz", z=np.array([1, 6, 8, 1, 1]), R=positions, E=0.0 + frames, F=positions)
    content = (tmp_path / "half.npz").read_bytes()
    for whole, half in ((b"(8, 5, 3)", b"(4, 5, 3)"), (b"(8,)", b"(4,)")):
        content = content.replace(whole, half)
    (tmp_path / "half.npz").write_bytes(content)
    with refused("half.npz: ... 'R' cannot be read ... Bad CRC-32"):
        read_frames(tmp_path / "half.npz", allow_implausible=True)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("z", np.array([6.5, *[1.0] * 8]), "z holds 6.5, which is no element"),
        ("z", np.array([np.nan, *[1.0] * 8]), "z holds nan, which is no element"),
        ("z", np.array([6, *[119] * 8]), "z holds 119, which is no element"),
        ("e_unit", np.array(["eV", "eV"]), "e_unit has shape (2,) and type <U2"),
        ("e_unit", np.array(b"\xff"), "e_unit: energy unit '\ufffd' is unknown"),
        ("e_unit", np.array(3), "e_unit has shape () and type int64"),
        ("r_unit", np.array(["A", "n", "g"]), "r_unit has shape (3,) and type <U1"),
        ("r_unit", np.array(0.529), "r_unit has shape () and type float64"),
        ("z", np.array([5.99, *[1.0] * 8]), "z holds 5.99, which is no element"),
    ],
)
def test_values_that_cannot_be_meant(tmp_path: Path, key: str, value: np.ndarray, text: str) -> None:
    with refused(text):
        read_frames(changed_npz(tmp_path / "odd.npz", **{key: value}))


@pytest.mark.parametrize("option", ["energy_unit", "length_unit", "force_unit"])
@pytest.mark.parametrize("unit", [3, 0.529, True, ["e", "V", "/"], b"eV"])
@pytest.mark.parametrize("path", [SGDML, ETHANOL])
def test_a_unit_that_is_no_name(path: Path, option: str, unit: object) -> None:
    with pytest.raises(InputError, match=f"{option.removesuffix('_unit')} unit must be a name, got"):
        read_frames(path, **{option: unit})


def test_a_unit_that_is_said_when_reading_replaces_one_that_is_no_name(tmp_path: Path) -> None:
    damaged = changed_npz(tmp_path / "unit.npz", r_unit=np.array(3))
    np.testing.assert_array_equal(read_frames(damaged, length_unit="Angstrom").positions, read_frames(SGDML).positions)


def test_atomic_numbers_that_arithmetic_has_gone_over(tmp_path: Path) -> None:
    z = np.load(SGDML)["z"]
    path = changed_npz(tmp_path / "nearly.npz", z=z - 1e-6 * np.arange(1, 10))
    assert read_frames(path).frame_numbers(0).tolist() == z.tolist()


def test_rows_that_a_json_database_does_not_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    with connect(path) as database:
        for atoms in ase.io.read(FORMATS / "aspirin_eV.xyz", index=":3"):
            database.write(atoms)
    whole = path.read_text()
    assert len(read_frames(path)) == 3
    for written, damaged in (('"ids": [1, 2, 3]', '"ids": [1, 2, 2]'), ('"ids": [1, 2, 3],', "")):
        path.write_text(whole.replace(written, damaged))
        with refused("rows.json: ... it holds 3 rows"):
            read_frames(path)


def test_rows_that_sqlite_has_lost(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    with connect(path) as database:
        for atoms in ase.io.read(FORMATS / "aspirin_eV.xyz", index=":3"):
            database.write(atoms)
    assert len(read_frames(path)) == 3
    with closing(sqlite3.connect(path)) as database:
        ((root,),) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'systems'").fetchall()
        ((size,),) = database.execute("PRAGMA page_size").fetchall()
    content, page = bytearray(path.read_bytes()), (root - 1) * size
    if content[page] == 5:  # an inner page: its last leaf
        page = (int.from_bytes(content[page + 8 : page + 12], "big") - 1) * size
    n_cells = int.from_bytes(content[page + 3 : page + 5], "big")
    content[page + 3 : page + 5] = (n_cells - 1).to_bytes(2, "big")
    path.write_bytes(bytes(content))
    with refused("rows.db: ... after 0 good frames ... damaged"):
        read_frames(path)


def test_keys_that_are_no_text(tmp_path: Path) -> None:
    atoms = Atoms("HF", positions=[[0, 0, 0], [0, 0, 0.92]], info={7: 1.0})
    ase.io.write(tmp_path / "keys.traj", atoms)
    with refused("'REF_energy' ... found ['7']"):
        read_frames(tmp_path / "keys.traj", energy_key="REF_energy")


@pytest.mark.parametrize("value", ["", "=T", "=true"])
def test_a_truth_value_is_no_energy(tmp_path: Path, value: str) -> None:
    (tmp_path / "flag.xyz").write_text(f"2\nenergy{value}\nH 0 0 0\nF 0 0 0.92\n")
    with refused("flag.xyz: 'energy' of frame 0 is True"):
        read_frames(tmp_path / "flag.xyz")


FRAME = "2\nProperties=species:S:1:pos:R:3:forces:R:3\nH 0 0 0 1 0 0\nF 0 0 0.92 -1 0 0\n"


@pytest.mark.parametrize(
    ("written", "damaged", "text"),
    [
        ("0.92 -1 0 0\n", "0.92 -1 0\n", "line 4 is 'F 0 0 0.92 -1 0', 6 columns, but ... has 7"),
        ("0.92 -1 0 0\n", "0.92 5 -1 0 0\n", "line 4 is 'F 0 0 0.92 5 -1 0 0', 8 columns"),
        ("F 0 0 0.92 -1 0 0\n", "\n", "line 4 is '', 0 columns, but ... has 7"),
        ("F 0", "Fx 0", "line 4 ... 'Fx' is no element"),
        (
            ":pos:R:3",
            ":sop:R:3",
            "line 2: Properties=species:S:1:sop:R:3:forces:R:3 needs pos",
        ),
        (
            "species:S:1",
            "kind:S:1",
            "Properties=kind:S:1:pos:R:3:forces:R:3 needs ... species or Z",
        ),
        (":forces:R:3", ":forces:R", "line 2: Properties=species:S:1:pos:R:3:forces:R ... NAME:TYPE:COLUMNS"),
        ("2\n", "999999999\n", "line 1 announces 999999999 atoms ... after 2"),
        ("2\n", "two\n", "after 0 good frames (line 1 is 'two'"),
        ("2\n", "-2\n", "line 1 is '-2'"),
        ("2\n", "0\n", "line 1 is '0'"),
    ],
)
def test_damaged_extxyz_says_where(tmp_path: Path, written: str, damaged: str, text: str) -> None:
    assert written in FRAME
    (tmp_path / "frame.xyz").write_text(FRAME.replace(written, damaged, 1))
    with refused(text):
        read_frames(tmp_path / "frame.xyz")


@pytest.mark.parametrize("lines", [5, 11 * 3 + 1, 11 * 3 + 6])
def test_truncated_extxyz(tmp_path: Path, lines: int) -> None:
    (tmp_path / "cut.xyz").write_text("".join(ETHANOL.read_text().splitlines(keepends=True)[:lines]))
    with refused("cut.xyz: cannot be read"):
        read_frames(tmp_path / "cut.xyz", energy_unit="kcal/mol")


@pytest.mark.parametrize("name", ["empty.xyz", "empty.db"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with refused(name):
        read_frames(tmp_path / name)


@pytest.mark.parametrize("ending", [".db", ".json", ".traj", ".xyz"])
def test_content_of_another_format(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"text{ending}").write_text("this is not what the ending says\n" * 40)
    with refused(f"text{ending}: cannot be read as"):
        read_frames(tmp_path / f"text{ending}")


def test_labels_asked_for_that_are_not_there() -> None:
    with refused("aspirin_eV.xyz: no entry 'REF_energy' ... set energy_key"):
        read_frames(FORMATS / "aspirin_eV.xyz", energy_key="REF_energy")
    with refused("no entry 'REF_forces'"):
        read_frames(FORMATS / "aspirin_eV.xyz", forces_key="REF_forces")


def test_labels_that_only_some_frames_have(tmp_path: Path) -> None:
    text = (FORMATS / "aspirin_eV.xyz").read_text()
    start = text.index("energy=", text.index("energy=") + 1)
    (tmp_path / "some.xyz").write_text(text[:start] + "level=" + text[start + len("energy=") :])
    with refused("some.xyz: frame 1 has no 'energy'"):
        read_frames(tmp_path / "some.xyz")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"energy_key": "castep_file_name"}, "'castep_file_name' of frame 0 is '1.castep'"),
        ({"energy_key": "virial"}, "energy of frame 0 has shape (3, 3)"),
        ({"forces_key": "virial"}, "forces of frame 0 have shape (3, 3), expected (4, 3)"),
    ],
)
def test_labels_of_the_wrong_kind(options: dict, text: str) -> None:
    with refused(text):
        read_frames(FORMATS / "carbon_periodic.xyz", **options)
