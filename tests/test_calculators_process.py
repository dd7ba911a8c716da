"""A calculator among other code: threads, forks, pickles, inference mode, default types, and tools that look at it."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.db import connect
from potentials import untrained_potential

from remul_md import RemulCalculator
from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.potentials.potential import Potential, load_potential


def ethanol() -> Atoms:
    return read_frames("rmd17/ethanol/train-01").atoms(0)


@pytest.fixture(scope="module")
def potential() -> Potential:
    return untrained_potential(read_frames("rmd17/ethanol/train-01").select(range(0, 40, 8)), seed=3)


def forces_of(calc: RemulCalculator, atoms: Atoms) -> np.ndarray:
    moved = atoms.copy()
    moved.calc = calc
    return moved.get_forces()


def test_one_thread_is_taken_whatever_torch_has_and_torch_keeps_its_own(potential: Potential) -> None:
    seen = []
    counting = RemulCalculator(potential, device="cpu")
    hook = counting.potential.model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        forces_of(counting, ethanol())
        counting.copies(ethanol(), n_copies=2)(np.tile(ethanol().positions, (2, 1, 1)))
        assert torch.get_num_threads() == 3
        for n_threads in (2, None):
            forces_of(RemulCalculator(counting.potential, device="cpu", n_threads=n_threads), ethanol())
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
        hook.remove()
    assert seen == [1, 1, 2, 3]


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, True])
def test_a_number_of_threads_that_is_none_is_refused(potential: Potential, n_threads: object) -> None:
    with pytest.raises(InputError, match=r"n_threads .*>= 1"):
        RemulCalculator(potential, device="cpu", n_threads=n_threads)  # type: ignore[arg-type]


FORK = """
import multiprocessing, sys
import numpy as np
from remul_md import RemulCalculator
from remul_md.datasets import read_frames
atoms = read_frames("rmd17/ethanol/train-01").atoms(0)
def forces(shift):
    moved = atoms.copy()
    moved.positions[0] += shift
    return calc.get_forces(moved)
calc = RemulCalculator("ethanol", device="cpu", dtype="float64", symmetrize=24)
here = forces(0.0)  # many orientations in double precision: enough work for torch to start threads if it may
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map_async(forces, [0.0, 0.01]).get(timeout=60)
assert np.array_equal(found[0], here)
print("done")
"""


def test_a_process_may_fork_after_it_has_calculated(tmp_path: Path) -> None:
    """Threads of OpenMP do not come along into a fork, which then waits for them for ever."""
    environment = {**os.environ, "OMP_NUM_THREADS": "4"}
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, env=environment, timeout=170, check=False
    )
    assert done.stdout.strip().endswith("done"), done.stderr[-2000:]


def test_a_pickle_of_a_used_calculator_gives_the_same(potential: Potential) -> None:
    calc = RemulCalculator(potential, device="cpu")
    expected = forces_of(calc, ethanol())
    for other in (pickle.loads(pickle.dumps(calc)), copy.deepcopy(calc)):
        np.testing.assert_array_equal(forces_of(other, ethanol()), expected)


@pytest.mark.slow
def test_a_used_compiled_calculator_goes_to_a_spawned_process() -> None:
    # The smallest graph that there is to compile.
    sizes = {"kind": "painn", "width": 8, "n_layers": 1, "n_radial": 3}
    potential = untrained_potential(read_frames("rmd17/ethanol/train-01").select(range(0, 40, 8)), seed=3, **sizes)
    calc = RemulCalculator(potential, device="cpu", compile=True)
    expected = forces_of(calc, ethanol())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(forces_of, (calc, ethanol()))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("options", [{}, {"symmetrize": 3}, {"forces": "direct"}])
def test_inference_mode_changes_nothing(potential: Potential, tmp_path: Path, options: dict) -> None:
    potential.save(tmp_path / "p.pt")
    expected = forces_of(RemulCalculator(tmp_path / "p.pt", device="cpu", **options), ethanol())
    calc = RemulCalculator(potential, device="cpu", **options)
    with torch.inference_mode():
        np.testing.assert_array_equal(forces_of(calc, ethanol()), expected)
        made_inside = RemulCalculator(tmp_path / "p.pt", device="cpu", dtype="float64", **options)
        forces_of(made_inside, ethanol())
        assert torch.is_inference_mode_enabled()
    np.testing.assert_allclose(forces_of(made_inside, ethanol()), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("process", [torch.float64, torch.float16, torch.bfloat16])
def test_the_default_type_of_a_process_does_not_reach_a_potential(
    potential: Potential, tmp_path: Path, dtype: str, process: torch.dtype
) -> None:
    potential.save(tmp_path / "p.pt")
    expected = forces_of(RemulCalculator(tmp_path / "p.pt", device="cpu", dtype=dtype), ethanol())  # type: ignore[arg-type]
    exact = forces_of(RemulCalculator(tmp_path / "p.pt", device="cpu", dtype=dtype, symmetry="exact"), ethanol())  # type: ignore[arg-type]
    state = load_potential(tmp_path / "p.pt").model.state_dict()
    torch.set_default_dtype(process)
    try:
        loaded = load_potential(tmp_path / "p.pt")
        for name, value in loaded.model.state_dict().items():
            assert value.dtype == state[name].dtype == torch.float32, name
            assert torch.equal(value, state[name]), name
        for name, buffer in loaded.model.named_buffers():
            assert buffer.dtype in (torch.float32, torch.int64, torch.bool), name
        calc = RemulCalculator(tmp_path / "p.pt", device="cpu", dtype=dtype)  # type: ignore[arg-type]
        np.testing.assert_array_equal(forces_of(calc, ethanol()), expected)
        cut = RemulCalculator(calc.potential, device="cpu", dtype=dtype, symmetry="exact")  # type: ignore[arg-type]
        np.testing.assert_array_equal(forces_of(cut, ethanol()), exact)
        assert torch.get_default_dtype() == process
    finally:
        torch.set_default_dtype(torch.float32)


def test_there_are_no_energies_of_atoms(potential: Potential) -> None:
    """Their share of the energy is set by reference energies that were fitted, not by isolated atoms."""
    atoms = ethanol()
    atoms.calc = RemulCalculator(potential, device="cpu")
    atoms.get_potential_energy()
    assert "energies" not in atoms.calc.results
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energies()


def test_options_cannot_be_changed_afterwards(potential: Potential) -> None:
    calc = RemulCalculator(potential, device="cpu")
    assert calc.set(device="cpu", dtype="float32") == {}
    for option in ({"device": "cuda"}, {"forces": "direct"}, {"compile": True}, {"cutoff": 4.0}):
        with pytest.raises(InputError, match=f"{next(iter(option))}=.* has no effect here .* make a new"):
            calc.set(**option)


def test_a_database_tells_calculators_apart(potential: Potential, tmp_path: Path) -> None:
    potential.save(tmp_path / "mine.pt")
    rows = {}
    with connect(tmp_path / "rows.db") as database:
        for name, options in {
            "plain": {},
            "direct": {"forces": "direct"},
            "exact": {"symmetry": "exact"},
            "mean": {"symmetrize": 4, "seed": 7},
        }.items():
            atoms = ethanol()
            atoms.calc = RemulCalculator(tmp_path / "mine.pt", device="cpu", **options)  # type: ignore[arg-type]
            atoms.get_forces()
            rows[name] = database.write(atoms)
    found = {name: connect(tmp_path / "rows.db").get(row).calculator_parameters for name, row in rows.items()}
    sha256 = load_potential(tmp_path / "mine.pt").sha256
    for parameters in found.values():
        assert (parameters["potential"], parameters["potential_sha256"]) == ("mine", sha256)
    assert found["plain"] | {"forces": "direct"} == found["direct"]
    assert found["plain"] | {"symmetry": "exact", "group": "O3, built in"} == found["exact"] != found["plain"]
    assert found["plain"] | {"symmetrize": 4, "seed": 7} == found["mean"]


def test_tools_find_elements_and_options(potential: Potential) -> None:
    calc = RemulCalculator(potential, device="cpu", forces="direct")
    assert calc.allowed_atomic_numbers == [1, 6, 8]
    assert calc.parameters["forces"] == "direct"
    assert calc.todict() == dict(calc.parameters)
