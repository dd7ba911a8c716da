"""A compiled potential gives what the uncompiled one gives, is kept on disk, and is never taken for another."""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from potentials import molecule_frames, untrained_potential

import remul_md.potentials.compiled
from remul_md import RemulCalculator
from remul_md.errors import InputError
from remul_md.potentials.compiled import CompiledPotential
from remul_md.potentials.ensemble import make_ensemble, with_std_scale
from remul_md.potentials.potential import Potential
from remul_md.structures.batch import Batch
from remul_md.structures.frames import frames_from_atoms
from remul_md.structures.moving_systems import MAX_ATOMS_ALL_PAIRS, MovingSystems

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
]  # compiling takes seconds of CPU time, minutes where others have the cores
TINY = {"width": 8, "n_layers": 1, "n_heads": 2, "pair_width": 4, "n_radial": 3, "n_tensors": 3, "max_degree": 1}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for this file, so that what one test compiled the next one finds."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMUL_MD_CACHE", str(folder))
        yield folder


def kept(cache: Path) -> set[Path]:
    return set((cache / "compiled").glob("*"))


def two_molecules(*, shift: float = 0.0) -> Batch:
    """Two molecules of 7 and 5 atoms with all pairs, moved at random by about `shift` Angstrom."""
    frames = molecule_frames()
    systems = MovingSystems(frames, cutoff=5.0, device=torch.device("cpu"))
    moved = frames.positions + shift * np.random.default_rng(3).normal(size=frames.positions.shape)
    return systems.at(torch.from_numpy(moved))


def tiny_potential(*, seed: int = 0, forces: str = "both", **options: object) -> Potential:
    frames = molecule_frames()
    return untrained_potential(frames, trained_forces=forces, seed=seed, **TINY | options).to(dtype="float64")


def differences(potential: Potential, compiled: CompiledPotential, batch: Batch, *, forces: str) -> list[float]:
    """Largest difference of each output, relative to its size."""
    right, found = potential.predict(batch, forces=forces), compiled.predict(batch.positions)
    names = ["energy", "atomic_energies", "forces" if forces == "conservative" else "direct_forces"]
    pairs = [(getattr(right, name), getattr(found, name)) for name in names]
    assert [pair[0].shape for pair in pairs] == [pair[1].shape for pair in pairs] == [(2,), (12,), (12, 3)]
    return [float((a - b).abs().max() / a.abs().max()) for a, b in pairs]


def file_of(potential: Potential, *, forces: str) -> Path:
    """Where the compiled potential would be kept; nothing is compiled."""

    class Stopped(Exception):
        pass

    def stop(*given: object, file: Path, **options: object) -> None:
        raise Stopped(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remul_md.potentials.compiled, "compiled_function", stop)
        with pytest.raises(Stopped) as stopped:
            CompiledPotential(potential, two_molecules(), forces=forces)
    return Path(stopped.value.args[0])


def test_compiled_is_uncompiled_at_other_positions() -> None:
    potential, batch = tiny_potential(), two_molecules(shift=0.1)
    compiled = CompiledPotential(potential, two_molecules(), forces="conservative")
    assert max(differences(potential, compiled, batch, forces="conservative")) < 1e-12
    assert potential.predict(batch, forces="conservative").direct_forces is None  # one head only
    assert compiled.predict(batch.positions).energy.dtype == torch.float64


def test_what_was_compiled_is_found_again(cache: Path) -> None:
    said: list[str] = []
    CompiledPotential(tiny_potential(), two_molecules(), forces="conservative", say=said.append)
    files, said = kept(cache), []
    again = CompiledPotential(tiny_potential(), two_molecules(shift=0.05), forces="conservative", say=said.append)
    assert said == []
    assert kept(cache) == files
    assert max(differences(tiny_potential(), again, two_molecules(), forces="conservative")) < 1e-12


def test_the_other_head_another_network_and_another_precision_have_other_files() -> None:
    cases = [
        (tiny_potential(**options), forces) for options in ({}, {"width": 4}) for forces in ("conservative", "direct")
    ]
    cases.append((tiny_potential().to(dtype="float32"), "direct"))
    # What is compiled holds the field of the labels.
    potential = tiny_potential()
    for z in (0.1, 0.2):
        record = replace(potential.provenance, data={**potential.provenance.data, "fields_V_per_A": [[0.0, 0.0, z]]})
        cases.append((replace(potential, provenance=record), "direct"))
    assert len({file_of(potential, forces=forces) for potential, forces in cases}) == 7


def test_potentials_of_one_architecture_share_what_is_compiled(cache: Path) -> None:
    """Weights and energy scale are arguments; the first use of another potential compiles nothing."""
    CompiledPotential(tiny_potential(), two_molecules(), forces="conservative")
    files, said, batch = kept(cache), [], two_molecules(shift=0.1)
    other = tiny_potential(seed=1, energy_scale=1.7)
    compiled = CompiledPotential(other, two_molecules(), forces="conservative", say=said.append)
    assert (said, kept(cache)) == ([], files)
    assert max(differences(other, compiled, batch, forces="conservative")) < 1e-12
    assert not torch.allclose(tiny_potential().predict(batch).forces, compiled.predict(batch.positions).forces)


def test_an_ensemble_compiles_with_its_error_bars(tmp_path: Path) -> None:
    scales = (0.6, 1.7, 1.1)
    for seed, scale in enumerate(scales):
        tiny_potential(seed=seed, energy_scale=scale).save(tmp_path / f"{seed}.pt")
    ensemble = with_std_scale(make_ensemble([tmp_path / f"{seed}.pt" for seed in range(3)]), 2.5, record={})
    references = ensemble.reference_energies + torch.tensor([[-0.1], [0.3], [-0.2]])  # as of other training frames
    ensemble = replace(ensemble, member_references=references).to(dtype="float64")
    compiled, batch = CompiledPotential(ensemble, two_molecules(), forces="conservative"), two_molecules(shift=0.1)
    assert max(differences(ensemble, compiled, batch, forces="conservative")) < 1e-12
    right, found = ensemble.predict(batch), compiled.predict(batch.positions)
    assert len(found.members) == 3
    assert found.std_scale == 2.5
    for one, other in zip(right.members, found.members, strict=True):
        torch.testing.assert_close(other.energy, one.energy, rtol=0, atol=1e-11)
    for name in ("energy", "forces"):
        torch.testing.assert_close(found.std(name), right.std(name), rtol=0, atol=1e-11)


def test_a_file_of_another_potential_is_refused(cache: Path) -> None:
    """The name says what a file is; that the forces are right is seen by computing them."""
    first = CompiledPotential(tiny_potential(), two_molecules(), forces="conservative")
    shutil.copy(first.file, file_of(tiny_potential(seed=1), forces="direct"))
    with pytest.raises(InputError, match="compiled forces differ"):
        CompiledPotential(tiny_potential(seed=1), two_molecules(), forces="direct")


def test_serves_only_these_systems() -> None:
    compiled = CompiledPotential(tiny_potential(), two_molecules(), forces="conservative")
    batch = two_molecules(shift=0.3)
    assert compiled.serves(batch)
    numbers = batch.atomic_numbers.clone()
    numbers[3] = 8
    assert not compiled.serves(replace(batch, atomic_numbers=numbers))
    assert not compiled.serves(batch.repeated(2))


def test_what_cannot_be_compiled_is_refused() -> None:
    potential = tiny_potential()
    periodic = replace(two_molecules(), pbc=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(InputError, match="compile=True takes isolated molecules"):
        CompiledPotential(potential, periodic, forces="conservative")


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REMUL_MD_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=re.escape("compile=True needs a C++ compiler; 'no-such-compiler'")):
        CompiledPotential(tiny_potential(), two_molecules(), forces="conservative")


def water_calculators(**options: object) -> tuple[Atoms, Atoms]:
    """A water molecule with the compiled and the uncompiled calculator of one tiny potential."""
    water = molecule("H2O")
    # The smallest graph that there is to compile; the tests above compile the transformer.
    sizes = {"kind": "painn", "width": 8, "n_layers": 1, "n_radial": 3}
    potential = untrained_potential(frames_from_atoms([water]), **sizes)
    pair = water.copy(), water.copy()
    for atoms, compile in zip(pair, (True, False), strict=True):
        atoms.calc = RemulCalculator(potential, dtype="float64", compile=compile, **options)
    return pair


def test_the_calculator_compiles(
    cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was cut off, by a full disk for example, is made again, and nothing half written is left."""
    caplog.set_level(logging.WARNING)
    found, name = kept(cache), remul_md.potentials.compiled.compiled_file

    def cut_off(*given: Any, **options: Any) -> Path:
        file = name(*given, **options)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"PK" + bytes(5000))
        return file

    monkeypatch.setattr(remul_md.potentials.compiled, "compiled_file", cut_off)
    ours, theirs = water_calculators(forces="direct", symmetrize="tetrahedral", remove_net_torque=True)
    rng = np.random.default_rng(5)
    for _ in range(3):
        moved = ours.positions + rng.normal(scale=0.05, size=(3, 3))
        for atoms in (ours, theirs):
            atoms.positions = moved
        np.testing.assert_allclose(ours.get_forces(), theirs.get_forces(), atol=1e-10)
        assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-10)
        assert ours.calc.diagnostics["rotational_spread"] == pytest.approx(theirs.calc.diagnostics["rotational_spread"])
    assert caplog.text.count("compiling energies and forces") == 1
    assert len(kept(cache) - found) == 1
    (compiled,) = ours.calc._compiled
    copies = torch.from_numpy(ours.positions).repeat(12, 1)
    assert compiled.predict(copies).direct_forces.shape == (36, 3)
    assert compiled.predict(copies).forces is None  # one head only
    ours.positions[1] = ours.positions[0]
    with pytest.raises(InputError, match="atoms 0 and 1 are 0 Angstrom apart"):
        ours.get_forces()
    ours.positions[1] = np.nan
    with pytest.raises(InputError, match=r"positions .*not finite"):
        ours.get_forces()


def test_the_calculator_refuses_what_changes_its_neighbours() -> None:
    silicon = bulk("Si", cubic=True)
    potential = untrained_potential(frames_from_atoms([silicon]), **TINY)
    silicon.calc = RemulCalculator(potential, compile=True)
    with pytest.raises(InputError, match=rf"isolated molecules of up to {MAX_ATOMS_ALL_PAIRS} atoms"):
        silicon.get_forces()
