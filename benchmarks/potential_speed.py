"""Error beside milliseconds: what a call of each kind of potential costs, and the force error that it was trained to.

Ethanol through ASE on one thread, all calls in turns at new positions. On a CPU the clock is the computing time of the
process. Time does not depend on what the weights are, so networks that do not ship are timed untrained; their errors
are those of `results/` (one seed each) and of the potentials that ship, in random orientations of 1,000 test frames.
`none` was trained for a fraction of the time of the others. A potential is on the Pareto front if none is both faster
and more accurate.

python benchmarks/potential_speed.py [--rows NAME ...] [--calls 100] [--no-compile] [--json FILE] [--plot PNG]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from calculator_overhead import N_WARM, forces_of
from script import run_script, told_command
from speed_tables import on_front, potential_rows

from remul_md import RemulCalculator, load_potential
from remul_md.analysis.drawing import ACCENT, INK, SOFT, drawn_panels
from remul_md.datasets.structure_source import read_structure
from remul_md.outputs import save_picture
from remul_md.potentials.domain import domain_of
from remul_md.potentials.potential import Potential
from remul_md.potentials.provenance import Provenance
from remul_md.studies.figures import plain_numbers
from remul_md.studies.record import provenance
from remul_md.training.config import load_config
from remul_md.training.prepare import prepare_training

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = "ships"
# Name -> (options of the model or SHIPPED, forces, file of the error, its row, what it was trained with).
MINUTES, SHORT = "13 minutes of one thread", "2,000 steps"
ROWS: dict[str, tuple[Any, str, str, str, str]] = {
    "relaxed": ((), "conservative", "results/demo_evaluation.json", "", MINUTES),
    "exact": (("symmetry=exact",), "conservative", "results/ethanol_no_raw_directions.json", "", MINUTES),
    "relaxed, 2 layers": (("n_layers=2",), "conservative", "results/ethanol_two_layers.json", "", MINUTES),
    "PaiNN": (("kind=painn",), "conservative", "results/ethanol_painn.json", "", MINUTES),
    "none, distances": (
        ("symmetry=none", "distances=true"),
        "conservative",
        "results/plain_screening.json",
        "distances, muon 6e-3",
        SHORT,
    ),
    "none": (("symmetry=none",), "conservative", "results/plain_screening.json", "rank 1, muon 6e-3", SHORT),
    "none, distances, direct": (
        ("symmetry=none", "distances=true"),
        "direct",
        "results/plain_screening.json",
        "direct, distances, muon 6e-3",
        SHORT,
    ),
    "shipped": (SHIPPED, "conservative", "data/potentials/ethanol.json", "", SHIPPED),
    "shipped, exact": (SHIPPED, "conservative", "data/potentials/ethanol.json", "exact", SHIPPED),
    "shipped, direct": (SHIPPED, "direct", "data/potentials/ethanol.direct.json", "", SHIPPED),
}


def force_error(name: str) -> float:
    """Mean absolute force component in random orientations, meV/Angstrom, from the file of a row."""
    _, _, file, row, _ = ROWS[name]
    found = json.loads((ROOT / file).read_text())
    if row == "exact":
        return float(found["force_mae_exact"])
    if row:
        found = next(each for each in found["rows"] if each["run"] == row)
    return float(found["force_mae_rotated"])


def potential_of(name: str) -> Potential:
    """The potential of a row: that which ships, or one with the weights that training starts from."""
    options, forces, *_ = ROWS[name]
    if options == SHIPPED:
        return load_potential("ethanol")
    overrides = [f"model.{option}" for option in options]
    config = load_config(
        None, overrides=["data.molecule=ethanol", "train.device=cpu", f"train.forces={forces}", *overrides]
    )
    prepared = prepare_training(config)
    return Potential(
        model=prepared.model,
        reference_energies=prepared.reference_energies,
        domain=domain_of(prepared.frames),
        provenance=Provenance(trained_forces=config.train.forces),
    )


def milliseconds(names: Sequence[str], *, n_calls: int, compiled: bool) -> dict[str, dict[str, float]]:
    """Median computing time of a call, by row and by "eager" or "compiled"."""
    atoms = read_structure("ethanol")
    calls = {}
    for name in names:
        potential, forces, symmetry = potential_of(name), ROWS[name][1], "exact" if ROWS[name][3] == "exact" else "auto"
        options: dict[str, Any] = {"device": "cpu", "forces": forces}
        if symmetry == "exact":
            options["symmetry"] = "exact"
        for kind in ("eager", "compiled") if compiled else ("eager",):
            calls[name, kind] = forces_of(RemulCalculator(potential, compile=kind == "compiled", **options), atoms)
    rng, seconds = np.random.default_rng(0), {key: [] for key in calls}
    for turn in range(N_WARM + n_calls):
        positions = atoms.get_positions() + rng.normal(scale=0.01, size=(len(atoms), 3))
        for key, call in calls.items():
            began = time.process_time()
            call(positions)
            if turn >= N_WARM:
                seconds[key].append(time.process_time() - began)
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for (name, kind), values in seconds.items():
        found[name][kind] = 1000.0 * float(np.median(values))
    return found


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Error against milliseconds, uncompiled and compiled, and the front through the best."""
    points = {(row["name"], kind): (ms, row["force_mae"]) for row in rows for kind, ms in row["ms"].items()}
    with drawn_panels(1, n_columns=1, inches=(7.0, 4.6)) as (figure, (axes,)):
        for kind, marker, color in (("eager", "o", INK), ("compiled", "s", ACCENT)):
            chosen = {name: point for (name, each), point in points.items() if each == kind}
            if not chosen:
                continue
            label = {"eager": "uncompiled"}.get(kind, kind)
            axes.plot(*zip(*chosen.values(), strict=True), marker, color=color, label=label)
            for number, (name, point) in enumerate(chosen.items()):
                place = (5, (4, -9)[number % 2])  # two of a kind stand close together
                axes.annotate(name, point, xytext=place, textcoords="offset points", fontsize=7.5)
        front = sorted(points[key] for key in on_front(points))
        axes.plot(*zip(*front, strict=True), "--", color=SOFT, label="Pareto front")
        axes.set(xscale="log", yscale="log", xlabel="ms a call of energy and forces, ethanol, one thread")
        axes.set_ylabel("force MAE, meV/Å, random orientations")
        axes.margins(x=0.12)
        plain_numbers(axes)
        axes.legend()
        save_picture(figure, path, dpi=140)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Times and errors; a table."""
    found = milliseconds(options.rows, n_calls=options.calls, compiled=not options.no_compile)
    rows = [
        {
            "name": name,
            "forces": ROWS[name][1],
            "trained": ROWS[name][4],
            "force_mae": force_error(name),
            "error_of": ROWS[name][2],
            "ms": ms,
        }
        for name, ms in found.items()
    ]
    if options.json:
        told = {str(path): path.name for path in (options.json, options.plot) if path}
        made_by = provenance(told_command("potential_speed", given, told), n_jobs=1)
        content = {**made_by, "threads": 1, "dtype": "float32", "calls": options.calls, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    if options.plot:
        draw(rows, options.plot)
    print(potential_rows(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=[*ROWS], choices=ROWS)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--no-compile", action="store_true", help="uncompiled only; compiling takes minutes each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
