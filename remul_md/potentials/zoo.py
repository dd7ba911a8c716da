"""The zoo: what every potential in the package is, how good and how fast."""

from __future__ import annotations

import logging
import shlex
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from remul_md.files import read_json
from remul_md.potentials.potential import ForcesChoice, Potential, load_potential, shipped_potentials
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch

logger = logging.getLogger(__name__)

N_CALLS = 21  # timed calls, of which the median counts


@dataclass(frozen=True, kw_only=True)
class ShippedPotential:
    """One row of `remul-md potentials`.

    Args:
        name: what `RemulCalculator` takes.
        molecule: its formula; several if it was trained on several.
        heads: conservative, direct or both.
        n_members: 1, or the members of an ensemble.
        data: what it was trained on.
        pretraining: the cheap labels that it was trained on before, in words, or "".
        training_minutes: time of its training, that of both heads, pretraining and its labels included.
        megabytes: size of its file.
        sha256: of its file.
        force_mae_original: meV/Angstrom, on the test frames `tested_on`; this and the next two None if not measured.
        force_mae_rotated: in random orientations, likewise.
        rotational_spread: s per component, likewise.
        force_mae_direct: of the direct forces of a potential with both heads, in random orientations, on the same
            frames; None if not measured. The three figures above are those of the conservative forces then.
        tested_on: name of the test frames, or "".
        latency_ms: neighbour list, energy and forces of one geometry, on this machine; None if not asked for.
        latency_direct_ms: the same with direct forces, of a potential with both heads.
        group: rotations of the labelled frames that trained it, in words: "O3", "SO3 about (0 0 1)".
        field_V_per_A: the electric field of its labels, V/Angstrom, or None.
    """

    name: str
    molecule: str
    heads: str
    n_members: int
    data: str
    pretraining: str
    training_minutes: float
    megabytes: float
    sha256: str
    force_mae_original: float | None
    force_mae_rotated: float | None
    rotational_spread: float | None
    force_mae_direct: float | None
    tested_on: str
    latency_ms: float | None
    latency_direct_ms: float | None
    group: str
    field_V_per_A: list[float] | None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return asdict(self)


def describe_shipped(*, measure_latency: bool = True) -> list[ShippedPotential]:
    """All potentials in the package, by name.

    Test figures are those of `remul-md evaluate NAME TEST --json data/potentials/NAME.json`, kept beside the file;
    those of the direct forces of a potential with both heads stand in NAME.direct.json (`--forces direct`).

    Args:
        measure_latency: time each of them on the CPU, with the threads that torch has now.
    Raises:
        InputError: a potential or the figures beside it cannot be read.
    """
    return [_describe(name, file, measure_latency) for name, file in shipped_potentials().items()]


def measured_latency_ms(potential: Potential, *, forces: ForcesChoice = "auto") -> float:
    """Median wall time of a neighbour list, energy and forces of its reference geometry, milliseconds."""
    domain = potential.domain
    frames = Frames(
        positions=np.array(domain.reference_positions),
        atomic_numbers=np.array(domain.reference_numbers),
        n_atoms=np.array([len(domain.reference_numbers)]),
        pbc=np.zeros((1, 3), dtype=bool),
    )
    head = potential.resolve_forces(forces)
    times = []
    for _ in range(N_CALLS + 2):  # the first calls load libraries and warm up
        start = time.perf_counter()
        batch = build_batch(frames, cutoff=potential.cutoff).to(potential.device)
        out = potential.predict(batch, forces=head)
        assert out.energy is not None
        out.energy.sum().item()  # waits for a GPU
        times.append(time.perf_counter() - start)
    return 1000.0 * statistics.median(times[2:])


def _describe(name: str, file: Path, measure_latency: bool) -> ShippedPotential:
    potential = load_potential(file)
    figures = _told_figures(file, potential, forces=potential.resolve_forces("auto"))
    has_both = potential.provenance.trained_forces == "both"
    fields = potential.provenance.fields_V_per_A
    direct = _told_figures(file, potential, forces="direct") if has_both else {}
    return ShippedPotential(
        name=name,
        molecule=", ".join(_formula(entry) for entry in potential.domain.compositions),
        heads=potential.provenance.trained_forces,
        n_members=potential.n_members,
        data=str(potential.provenance.data.get("name", "")),
        pretraining=potential.provenance.pretraining,
        training_minutes=potential.provenance.total_seconds / 60.0,
        megabytes=file.stat().st_size / 1e6,
        sha256=potential.sha256,
        force_mae_original=figures.get("force_mae_original"),
        force_mae_rotated=figures.get("force_mae_rotated"),
        rotational_spread=figures.get("rotational_spread"),
        force_mae_direct=direct.get("force_mae_rotated") if direct.get("data") == figures.get("data") else None,
        tested_on=str(figures.get("data", "")),
        latency_ms=measured_latency_ms(potential) if measure_latency else None,
        latency_direct_ms=measured_latency_ms(potential, forces="direct") if measure_latency and has_both else None,
        group=potential.provenance.group,
        field_V_per_A=fields[0] if fields else None,
    )


def _formula(composition: dict[str, int]) -> str:
    return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in sorted(composition.items()))


def stored_figures(
    file: Path, potential: Potential, *, forces: Literal["conservative", "direct"]
) -> tuple[dict[str, Any], str]:
    """The figures of `remul-md evaluate` that lie beside a file, for this potential and these forces.

    Args:
        file: of a shipped potential.
        potential: as it was loaded, from this file or another.
        forces: the kind that was evaluated.
    Returns:
        The figures, empty where there are none for them; then also why, and what makes them.
    Raises:
        InputError: they cannot be read.
    """
    served = forces == potential.resolve_forces("auto")
    stored = file.with_suffix(".json" if served else f".{forces}.json")
    chosen = [] if served else ["--forces", forces]
    again = f"`{shlex.join(['remul-md', 'evaluate', file.stem, 'TEST', *chosen, '--json', stored.name])}` makes them"
    if not stored.is_file():
        what = "test figures" if served else f"test figures of its {forces} forces"
        return {}, f"{file.name}: no {what} beside it; {again}"
    figures = read_json(stored, hint=again)
    if figures.get("potential_sha256") != potential.sha256:
        return {}, f"{stored.name}: are figures of another file than {file.name} and not shown; {again}"
    if figures.get("forces", forces) != forces:
        return {}, f"{stored.name}: are figures of {figures['forces']} forces and not shown; {again}"
    return figures, ""


def _told_figures(file: Path, potential: Potential, *, forces: Literal["conservative", "direct"]) -> dict[str, Any]:
    figures, why = stored_figures(file, potential, forces=forces)
    if why:
        logger.warning("%s", why)
    return figures
