"""Many seeds at once: the potential sees all replicas in one call; mean and scatter of what they give.

    python examples/replicas.py [POTENTIAL] [--n-replicas 8] [--length-ps 2] [--folder replicas]

Each replica is a run of its own, with its own trajectory and log. The mean temperature of one short run says little;
the scatter over seeds says how little.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from remul_md import InputError, MDOptions, MDResult, RemulCalculator, read_structure, run_replicas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("potential", nargs="?", default="ethanol", help="a *.pt file or a shipped name")
    parser.add_argument("--structure", default="ethanol", help="a file or a packaged molecule")
    parser.add_argument("--n-replicas", type=int, default=8)
    parser.add_argument("--length-ps", type=float, default=2.0)
    parser.add_argument("--equilibrate-ps", type=float, default=0.5)
    parser.add_argument("--temperature-K", type=float, default=300.0, dest="temperature_K")
    parser.add_argument("--folder", type=Path, default=Path("replicas"))
    options = parser.parse_args()
    atoms = read_structure(options.structure)
    try:
        calculator = RemulCalculator(options.potential)
        chosen = MDOptions(
            ensemble="langevin",
            temperature_K=options.temperature_K,
            length_ps=options.length_ps,
            equilibrate_ps=options.equilibrate_ps,
        )
        outcomes = run_replicas(
            atoms,
            chosen,
            n_replicas=options.n_replicas,
            output=options.folder / "run.traj",
            evaluate=calculator.copies(atoms, n_copies=options.n_replicas),
        )
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    ended = [outcome for outcome in outcomes if isinstance(outcome, MDResult)]
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, MDResult):
            print(f"seed {number}: {outcome.mean_temperature_K:.1f} K, {outcome.trajectory.name}")
        else:  # a bond broke, or the energy left all bounds: that replica stopped alone
            print(f"seed {number}: {outcome}")
    values = np.array([result.mean_temperature_K for result in ended])
    if len(values) > 1:
        scatter = values.std(ddof=1)
        error = scatter / np.sqrt(len(values))
        mean = f"{values.mean():.1f} +- {error:.1f} K"
        print(f"{mean}, asked for {options.temperature_K:g}; a run scatters by {scatter:.1f}")


if __name__ == "__main__":
    main()
