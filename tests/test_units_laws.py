"""Laws of units: any spelling is known, factors agree with each other, and what is written in a unit is read back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remul_md import InputError
from remul_md.datasets import read_frames
from remul_md.datasets.units import (
    ENERGY_UNITS,
    LENGTH_UNITS,
    canonical_energy,
    canonical_length,
    choose_units,
    energy_factor,
    length_factor,
)

ENERGIES, LENGTHS = st.sampled_from(ENERGY_UNITS), st.sampled_from(LENGTH_UNITS)
BLANKS = st.text(alphabet=" \t", max_size=3)
CASES = st.sampled_from([str, str.lower, str.upper, str.title])


@given(ENERGIES, LENGTHS, BLANKS, CASES)
def test_a_unit_is_known_in_any_case_and_its_name_is_itself(energy: str, length: str, blanks: str, case) -> None:
    assert canonical_energy(blanks + case(energy) + blanks) == energy
    assert canonical_length(blanks + case(length) + blanks) == length
    assert canonical_energy(canonical_energy(energy)) == energy


@given(st.text(max_size=8))
def test_what_is_no_unit_is_refused_by_name(text: str) -> None:
    for canonical, known in ((canonical_energy, ENERGY_UNITS), (canonical_length, LENGTH_UNITS)):
        try:
            outcome = canonical(text)
        except InputError as error:
            outcome = str(error)
        assert outcome in known or repr(text) in outcome


@given(ENERGIES, LENGTHS, st.none() | st.tuples(ENERGIES, LENGTHS))
def test_factors_agree(energy: str, length: str, force: tuple[str, str] | None) -> None:
    units = choose_units(
        energy_unit=energy,
        length_unit=length,
        force_unit=None if force is None else "/".join(force),
        default=("eV", "Angstrom"),
    )
    assert units.to_eV == energy_factor(energy)
    assert units.to_angstrom == length_factor(length)
    energy_of_force, length_of_force = force or (energy, length)
    assert units.to_eV_per_angstrom == pytest.approx(
        energy_factor(energy_of_force) / length_factor(length_of_force), rel=1e-15
    )
    written = f"{units.force_energy}/{units.force_length}"
    again = choose_units(energy_unit=units.energy, length_unit=units.length, force_unit=written, default=("eV", "Bohr"))
    assert again == units
    assert choose_units(energy_unit=None, length_unit=None, force_unit=written, default=(energy, length)) == units


@given(energy=ENERGIES, length=LENGTHS, force=st.none() | st.tuples(ENERGIES, LENGTHS), seed=st.integers(0, 2**32 - 1))
def test_what_was_written_in_a_unit_is_read_in_eV_and_angstrom(
    energy: str, length: str, force: tuple[str, str] | None, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    positions, energies, forces = rng.normal(size=(2, 5, 3)), rng.normal(size=2) - 7e3, rng.normal(size=(2, 5, 3))
    to_eV, to_angstrom = energy_factor(energy), length_factor(length)
    force_energy, force_length = force or (energy, length)
    to_force = energy_factor(force_energy) / length_factor(force_length)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        z=np.array([6, 1, 1, 8, 1]),
        R=positions / to_angstrom,
        E=energies / to_eV,
        F=forces / to_force,
        e_unit=np.array(energy),
        r_unit=np.array(length),
    )
    path: Path = tmp_path_factory.getbasetemp() / "units.npz"
    path.write_bytes(buffer.getvalue())
    frames = read_frames(path, force_unit=None if force is None else "/".join(force), allow_implausible=True)
    np.testing.assert_allclose(frames.positions.reshape(2, 5, 3), positions, rtol=1e-14)
    np.testing.assert_allclose(frames.energy, energies, rtol=1e-14)
    np.testing.assert_allclose(frames.forces.reshape(2, 5, 3), forces, rtol=1e-14)
