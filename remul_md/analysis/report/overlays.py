"""The plots of several runs over one another, each run in a look of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.comparison import Comparison
from remul_md.analysis.distributions import PAIR_DISTANCES
from remul_md.analysis.report.figures import MAX_POINTS, Figure, Trace, orientation_angles, thin
from remul_md.analysis.report.subject import Subject
from remul_md.analysis.spectrum import FASTEST_PER_CM

N_BLOCKS = 60  # means over them: the vibration of the total energy would hide what drifts

Array = NDArray[np.float64]
Curve = tuple[Array, Array]


def overlay_figures(
    subjects: Sequence[Subject], *, comparisons: Mapping[str, Comparison], reference: str
) -> list[Figure]:
    """Energy, rotational error, torque, h(r) and spectrum, each where a run has it."""
    made = [
        _figure(
            subjects,
            _energy,
            key="total-energy",
            title="Total energy per atom",
            reading=f"Means over {N_BLOCKS} parts of each run, from its first: a flat line means that energy is "
            "conserved.",
            x_title="time (ps)",
            y_title="energy − start (meV/atom)",
        ),
        _figure(
            subjects,
            _rotational,
            key="rotational-error",
            title="Rotational error against orientation",
            reading="How wrong the forces turn, frame by frame, against the angle from the orientation of the training "
            "data, or of the first frame where these are not known: lower is better, and zero is exact symmetry.",
            x_title="angle (degrees)",
            y_title="force error (meV/Å)",
            marks=True,
            log_y=True,
        ),
        _figure(
            subjects,
            _torque,
            key="net-torque",
            title="Net torque",
            reading="An isolated molecule feels none.",
            x_title="time (ps)",
            y_title="net torque (meV)",
            log_y=True,
        ),
        _pair_distances(subjects, comparisons=comparisons, reference=reference),
        _figure(
            subjects,
            _spectrum,
            key="spectrum",
            title="Vibrations",
            reading="Density of states: where the atoms of each run move. Lines at other places mean other bonds.",
            x_title="wavenumber (1/cm)",
            y_title="density (per 1000 1/cm)",
        ),
    ]
    return [figure for figure in made if figure is not None]


def _figure(
    subjects: Sequence[Subject],
    curve: Callable[[Subject], Curve | None],
    *,
    key: str,
    title: str,
    reading: str,
    x_title: str,
    y_title: str,
    marks: bool = False,
    log_y: bool = False,
    last: tuple[Trace, ...] = (),
) -> Figure | None:
    traces = []
    for place, each in enumerate(subjects):
        if (found := curve(each)) is not None:
            x, y = thin(*found, at_most=MAX_POINTS // len(subjects))
            traces.append(Trace(x=x, y=y, name=each.name, role=f"run-{place}", marks=marks))
    if not traces:
        return None
    ranges = "; ".join(f"{trace.name} {np.nanmin(trace.y):.3g} to {np.nanmax(trace.y):.3g}" for trace in traces)
    return Figure(
        key=key,
        title=title,
        reading=reading,
        description=f"{title}, {y_title}: {ranges}.",
        x_title=x_title,
        y_title=y_title,
        traces=(*traces, *last),
        log_y=log_y and all(float(trace.y.min()) > 0.0 for trace in traces),
    )


def _energy(subject: Subject) -> Curve | None:
    energies = subject.analysis.energies
    if energies is None:
        return None
    parts = np.array_split(np.arange(len(energies.time_ps)), min(N_BLOCKS, len(energies.time_ps)))
    means = np.array([energies.total_energy[part].mean() for part in parts]) / subject.analysis.n_atoms
    return np.array([energies.time_ps[part].mean() for part in parts]), 1e3 * (means - means[0])


def _rotational(subject: Subject) -> Curve | None:
    if subject.analysis.rotational is None:
        return None
    angle, _ = orientation_angles(subject.analysis)
    order = np.argsort(angle)
    return angle[order], subject.analysis.rotational.error_meV_per_A[order]


def _torque(subject: Subject) -> Curve | None:
    torque = subject.analysis.net_torque_eV
    if torque is None or not torque.any():
        return None
    return subject.analysis.time_ps[subject.analysis.torque_frames], 1e3 * np.linalg.norm(torque, axis=1)


def _spectrum(subject: Subject) -> Curve | None:
    if subject.spectrum is None:
        return None
    wanted = subject.spectrum.wavenumbers_per_cm <= FASTEST_PER_CM
    return subject.spectrum.wavenumbers_per_cm[wanted], 1e3 * subject.spectrum.density[wanted]


def _pair_distances(
    subjects: Sequence[Subject], *, comparisons: Mapping[str, Comparison], reference: str
) -> Figure | None:
    """h(r) of every run; a reference that is no run, such as a data set, is a dashed line."""
    last: tuple[Trace, ...] = ()
    if comparisons and reference not in {each.name for each in subjects}:
        known = next(iter(comparisons.values())).other[PAIR_DISTANCES]
        shown = known.filled()
        last = (Trace(x=known.centers[shown], y=known.density[shown], name=reference, role="bound"),)

    def curve(subject: Subject) -> Curve | None:
        found = subject.analysis.pair_distances
        return None if found is None else (found.centers[found.filled()], found.density[found.filled()])

    return _figure(
        subjects,
        curve,
        key="pair-distances",
        title="Distances of all pairs of atoms, h(r)",
        reading="Curves that lie on each other mean the same structures, as far as these runs are long enough.",
        x_title="distance (Å)",
        y_title="density (1/Å)",
        last=last,
    )
