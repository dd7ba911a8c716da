"""What the package computed when the figures in `tests/golden/` were recorded, computed again.

    python tests/golden_figures.py record     # writes tests/golden/*.json; after a change that is meant to change them
    python tests/golden_figures.py check      # the same bits? On the machine that recorded them, after a move of code

`tests/test_golden.py` makes the same comparison with tolerances, since another processor rounds otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from planted_faults import (
    alloy_emt,
    cutoff_without_envelope,
    depends_on_orientation,
    forces_off_by_one_percent,
    non_conservative,
    planted,
)
from potentials import read_test_frames

from remul_md import RemulCalculator, load_potential, read_frames
from remul_md.analysis import run_audit
from remul_md.analysis.accuracy import evaluate_potential
from remul_md.analysis.audit.limits import NAMES
from remul_md.analysis.energy import energy_drift
from remul_md.datasets.structure_source import read_structure
from remul_md.dynamics import MDOptions, read_trajectory, run_md
from remul_md.potentials.potential import shipped_potentials
from remul_md.training.config import PUBLISHED, validated_config
from remul_md.training.train import train_potential

FOLDER = Path(__file__).parent / "golden"
FRAMES = (0, 333, 777)  # of each test split, counted on from the start where it is shorter
EVALUATED = range(0, 1000, 250)  # four frames: what is compared is the code, not the potential
ROUNDING_SHARE = 1e-6  # of its threshold; a check that finds more has found something
AUDITED = tuple(name for name in NAMES if name not in ("nve", "smoothness"))


def potential_figures(name: str) -> dict[str, Any]:
    """Energies and forces of each trained head on three test frames, and the evaluation of four."""
    potential = load_potential(name)
    test = read_test_frames(name)
    heads: dict[str, Any] = {}
    trained = potential.provenance.trained_forces
    for head in ("conservative", "direct") if trained == "both" else (trained,):
        calculator = RemulCalculator(potential, forces=head, device="cpu")
        found = []
        for index in FRAMES:
            atoms = test.atoms(index % len(test))
            atoms.calc = calculator
            found.append({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist()})
        heads[head] = found
    chosen = test.select([index % len(test) for index in EVALUATED])
    figures = evaluate_potential(potential, chosen, n_draws=3, seed=5, axis=potential.provenance.axis).to_json()
    return {"frames": heads, "evaluation": figures}


def audit_figures() -> dict[str, Any]:
    """Verdicts and values of an honest calculator and of planted faults."""
    cases = {
        "emt": alloy_emt(),
        "forces 1 % off": planted(forces_off_by_one_percent),
        "depends on orientation": planted(depends_on_orientation),
        "non-conservative": planted(non_conservative),
        "cutoff without envelope": planted(cutoff_without_envelope),
    }
    results = {}
    for name, atoms in cases.items():
        only = {"emt": None, "cutoff without envelope": ["smoothness"]}.get(name, AUDITED)
        result = run_audit(atoms, seed=3, only=only)
        # Where a check finds rounding alone, in energies and forces, chance decides which of the two it tells, and so
        # the threshold.
        results[name] = [
            {"name": check.name, "passed": check.passed, "value": check.value}
            | ({"threshold": check.threshold} if abs(check.value) > ROUNDING_SHARE * check.threshold else {})
            for check in result.checks
        ]
    return results


def drift_figures() -> dict[str, Any]:
    """The drift of a slope of 0.004 meV/atom/ps in correlated noise."""
    rng = np.random.default_rng(20261128)
    time_ps = np.arange(4000) * 0.0025
    noise = np.zeros(len(time_ps))
    for step in range(1, len(noise)):
        noise[step] = 0.9 * noise[step - 1] + 1e-5 * rng.standard_normal()
    drift = energy_drift(time_ps, -4.1 + 4e-6 * time_ps + noise)
    figures = {key: value for key, value in vars(drift).items() if isinstance(value, int | float)}
    return {**figures, "ci95_meV_per_atom_ps": list(drift.ci95_meV_per_atom_ps)}


def training_figures() -> dict[str, Any]:
    """Twelve steps of REMUL as published on a small network: every weight, and what it predicts."""
    config = validated_config(
        {
            "data": {"molecule": "ethanol", "n_train": 40, "n_validation": 7},
            "model": {"width": 16, "n_layers": 2, "n_heads": 4, "n_radial": 6, "n_tensors": 4, "pair_width": 6},
            "train": {
                "n_steps": 12, "batch_size": 5, "warmup_steps": 3, "forces": "both", "seed": 4,
                "validate_every": 6, "checkpoint_every": 12, "log_every": 3, "ema_decay": 0.5,
                **PUBLISHED,
            },
        },
        origin="tests/golden_figures.py",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        potential = train_potential(config, run_dir=folder, progress=False)
    frames = read_frames("rmd17/ethanol/test-01").select([11, 12])
    figures = evaluate_potential(potential, frames, n_draws=2)
    weights = potential.model.state_dict()
    return {
        "n_weights": int(sum(value.numel() for value in weights.values())),
        "norms": {name: float(value.double().norm()) for name, value in weights.items() if value.is_floating_point()},
        "weights_sha256": _sha256(value for _, value in sorted(weights.items())),
        "force_mae": figures.to_json()["force_mae_rotated"],
        "energy_mae": figures.energy_mae_rotated,
    }


def dynamics_figures() -> dict[str, Any]:
    """60 steps of Langevin dynamics and NVE of the shipped ethanol potential: the last frame of each."""
    results = {}
    for ensemble in ("langevin", "nve"):
        atoms = read_structure("ethanol")
        atoms.calc = RemulCalculator("ethanol", device="cpu")
        options = MDOptions(
            ensemble=ensemble, temperature_K=300.0, length_ps=0.03, equilibrate_ps=0.01, frame_interval_fs=2.5, seed=7
        )
        with tempfile.TemporaryDirectory() as folder:
            made = run_md(atoms, options, output=Path(folder) / "run.traj", progress=False)
            run = read_trajectory(made.trajectory)
        assert run.momenta is not None
        assert run.energy is not None
        results[ensemble] = {
            "positions": run.positions[-1].tolist(),
            "momenta": run.momenta[-1].tolist(),
            "energy": run.energy.tolist(),
        }
    return results


def _sha256(tensors: Any) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    **{name: (lambda name=name: potential_figures(name)) for name in shipped_potentials()},
    "audit": audit_figures,
    "drift": drift_figures,
    "training": training_figures,
    "dynamics": dynamics_figures,
}


def computed(case: str) -> dict[str, Any]:
    """The figures of a case on one thread, as JSON gives them back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return dict(json.loads(json.dumps(CASES[case]())))
    finally:
        torch.set_num_threads(threads)


def recorded(case: str) -> dict[str, Any]:
    """The figures of a case as they stand in the file."""
    return dict(json.loads((FOLDER / f"{case}.json").read_text()))


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every plain value with its place; lists of numbers as one array."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value and not isinstance(value[0], dict):
        yield path, np.array(value)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves(inner, (*path, str(place)))
    else:
        yield path, value


def same_bits(found: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether every recorded figure is what it was; figures that were not recorded may have come."""
    now = dict(leaves(found))
    return all(path in now and np.array_equal(now[path], value) for path, value in leaves(before))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["record", "check"])
    parser.add_argument("cases", nargs="*", help="default: all")
    options = parser.parse_args()
    changed = []
    for case in options.cases or CASES:
        found = computed(case)
        if options.action == "record":
            (FOLDER / f"{case}.json").write_text(json.dumps(found, indent=1) + "\n")
        elif not same_bits(found, recorded(case)):
            changed.append(case)
        print(f"{case}: {'recorded' if options.action == 'record' else 'CHANGED' if case in changed else 'same bits'}")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
