"""NVE dynamics of aspirin, and the analysis that says whether to believe it.

    python examples/nve_aspirin.py [POTENTIAL] [--length-ps 5] [--output aspirin.traj]

`remul-md md` and `remul-md analyze` do the same from the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from remul_md import InputError, MDOptions, RemulCalculator, analyze_trajectory, read_structure, run_md


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("potential", nargs="?", default="aspirin", help="a *.pt file or a shipped name")
    parser.add_argument("--length-ps", type=float, default=5.0)
    parser.add_argument("--equilibrate-ps", type=float, default=2.0)
    parser.add_argument("--output", type=Path, default=Path("aspirin.traj"))
    options = parser.parse_args()
    atoms = read_structure("aspirin")
    try:
        atoms.calc = RemulCalculator(options.potential)
        chosen = MDOptions(temperature_K=300.0, length_ps=options.length_ps, equilibrate_ps=options.equilibrate_ps)
        result = run_md(atoms, chosen, output=options.output)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{result.n_frames} frames of {atoms.get_chemical_formula()}, {result.mean_temperature_K:.0f} K on average")

    # The forces of some frames are computed again for the molecule rotated at random.
    analysis = analyze_trajectory(result.trajectory, atoms=atoms, n_rotation_frames=10, n_draws=4)
    for verdict in analysis.verdicts:
        word = {True: "yes", False: "NO", None: "undecided"}[verdict.passed]
        print(f"{verdict.name}: {word}, {verdict.value:.3g} {verdict.unit} (limit {verdict.limit})")
    for note in analysis.notes:
        print(f"note: {note}")


if __name__ == "__main__":
    main()
