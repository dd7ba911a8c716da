"""Vibrational density of states: which frequencies the atoms of a run move at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.drawing import INK, drawn_panels
from remul_md.analysis.temperature import counted_degrees_of_freedom
from remul_md.dynamics.constraints import SeenConstraints
from remul_md.dynamics.momenta import kinetic_energy_eV
from remul_md.dynamics.trajectory import TrajectoryArrays, joined
from remul_md.dynamics.velocities import boltzmann_eV_per_K, temperature_K
from remul_md.errors import InputError
from remul_md.outputs import save_picture
from remul_md.structures.topology import bond_pairs

if TYPE_CHECKING:
    from remul_md.dynamics.trajectory import FrameStream

Array = NDArray[np.float64]

# 1/cm. No molecule vibrates faster than H2, whose harmonic wavenumber this is (Huber and Herzberg 1979).
FASTEST_PER_CM = 4401.0
HYDROGEN_AMU = 2.5  # lighter is hydrogen or deuterium
MIN_FRAMES = 16
NOTHING_MOVES = "all momenta are zero: nothing vibrates; give a run that moves"
HANN_WIDTH = 1.44  # full width at half maximum of the power of a line under a Hann window, in bins of 1 / (n dt)


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """Vibrational density of states.

    Args:
        wavenumbers_per_cm: [W], from 0 in even steps.
        density: degrees of freedom per 1/cm, [W]; its integral is the number of them that are excited.
        resolution_per_cm: full width at half maximum that a sharp line has, 1/cm.
        n_segments: overlapping pieces of the run that were averaged.
        warning: why it cannot be trusted, empty if it can.
    """

    wavenumbers_per_cm: Array
    density: Array
    resolution_per_cm: float
    n_segments: int
    warning: str

    @property
    def integral(self) -> float:
        """Number of degrees of freedom: 2 <kinetic energy> / (k T)."""
        return float(self.density.sum() * (self.wavenumbers_per_cm[1] - self.wavenumbers_per_cm[0]))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; 1/cm and degrees of freedom per 1/cm."""
        return {
            "wavenumber_step_per_cm": float(self.wavenumbers_per_cm[1]),
            "density": self.density.tolist(),
            "resolution_per_cm": self.resolution_per_cm,
            "integral": self.integral,
            "n_segments": self.n_segments,
            "warning": self.warning,
        }


def density_of_states(
    momenta: Array,
    *,
    masses: Array,
    frame_interval_fs: float,
    temperature_K: float,
    resolution_per_cm: float = 10.0,
) -> Spectrum:
    """Density of states from the mass-weighted velocity autocorrelation, D(nu) = 2/(k T) sum_i m_i FT<v_i(0) v_i(t)>.

    Computed as a power spectrum, which is the same by the theorem of Wiener and Khinchin: the run is cut into pieces
    that overlap by half, each is multiplied by a Hann window, and their spectra are averaged (Welch). The window keeps
    strong lines from leaking over weak ones; it is what the resolution comes from. Each D integrates to 1 for each
    degree of freedom with its share of kT: frozen ones count less, a rotating molecule has its rotations near 0 and
    its lines split by twice the speed of its rotation.

    Args:
        momenta: [T, N, 3], amu Angstrom/fs, T >= 16, at even times.
        masses: [N], amu.
        frame_interval_fs: between two frames, fs.
        temperature_K: of the run, with its degrees of freedom counted, K.
        resolution_per_cm: width asked for; a run too short for it gives what it can, and says so.
    Raises:
        InputError: shapes that do not fit, too few frames, options that are not > 0, momenta that are all zero.
    Source: Berens et al., J. Chem. Phys. 79 (1983), 2375; Welch, IEEE Trans. Audio Electroacoust. 15 (1967), 70.
    """
    _check_options(
        frame_interval_fs=frame_interval_fs, temperature_K=temperature_K, resolution_per_cm=resolution_per_cm
    )
    if momenta.ndim != 3 or momenta.shape[1:] != (len(masses), 3) or len(momenta) < MIN_FRAMES:
        raise InputError(
            f"momenta {momenta.shape} and masses {masses.shape} must be [T, N, 3] and [N], T at least {MIN_FRAMES}"
        )
    if not momenta.any():
        raise InputError(NOTHING_MOVES)
    pieces = _Pieces(masses, _piece_length(len(momenta), frame_interval_fs, resolution_per_cm))
    pieces.update(momenta)
    return pieces.spectrum(
        frame_interval_fs=frame_interval_fs, temperature_K=temperature_K, resolution_per_cm=resolution_per_cm
    )


def trajectory_spectrum(frames: FrameStream, *, resolution_per_cm: float = 10.0) -> Spectrum:
    """Density of states of a run at its own mean temperature, with the degrees of freedom counted in frame 0.

    A frame that is the one before once more, as programs write it where a run is begun again, is left out, and those
    after it move up: it would shift all lines.

    Args:
        frames: a file or arrays; of a file, some frames at a time are in memory.
        resolution_per_cm: as `density_of_states`.
    Raises:
        InputError: no momenta, frames at uneven times, or as `density_of_states`.
    """
    _check_options(resolution_per_cm=resolution_per_cm)
    if frames.n_frames < MIN_FRAMES:
        raise InputError(f"a spectrum needs at least {MIN_FRAMES} frames, got {frames.n_frames}")
    pieces: _Pieces | None = None
    times, kinetic = [], []
    once = _WithoutRepeats()
    for block in once.blocks(frames):
        if block.momenta is None:
            raise InputError("the trajectory has no momenta (or not in all frames); a spectrum needs them")
        times.append(block.time_ps)
        kinetic.append(kinetic_energy_eV(block.momenta, block.masses))
        if pieces is None:
            if len(block) < 2:  # a huge system: the interval between frames is not known yet
                raise InputError(f"{len(block.masses)} atoms are too many for a spectrum; select some of them")
            length = _piece_length(frames.n_frames, even_interval_fs(block.time_ps), resolution_per_cm)
            pieces = _Pieces(block.masses, length)
            start = block.positions[0], block.momenta[0]
            masses, pbc = block.masses, block.pbc
            bonds = np.empty((0, 2), np.int64) if block.pbc.any() else bond_pairs(block.atomic_numbers, start[0])
            seen = SeenConstraints(start[0], bonds)
        seen.update(block.positions)
        pieces.update(block.momenta)
    assert pieces is not None  # a trajectory has at least one frame
    mean_kinetic = float(np.concatenate(kinetic).mean())
    interval_fs = even_interval_fs(np.concatenate(times))
    if mean_kinetic <= 0.0:
        raise InputError(NOTHING_MOVES)
    n_dof, _ = counted_degrees_of_freedom(*start, masses=masses, pbc=pbc, constraints=seen.result())
    temperature = temperature_K(mean_kinetic, n_dof)
    found = pieces.spectrum(
        frame_interval_fs=interval_fs, temperature_K=temperature, resolution_per_cm=resolution_per_cm
    )
    return replace(found, warning=" ".join(filter(None, [once.note(), found.warning])))


class _WithoutRepeats:
    """Frames without those that repeat the one before, at times that close the gap."""

    def __init__(self) -> None:
        self._n_repeats, self._shift_ps = 0, 0.0

    def blocks(self, frames: FrameStream) -> Iterator[TrajectoryArrays]:
        """The frames some at a time, as they are where nothing repeats."""
        last: TrajectoryArrays | None = None
        for block in frames.blocks():
            before = block if last is None else joined([last, block])
            same = (before.positions[1:] == before.positions[:-1]).all(axis=(1, 2))
            if before.momenta is not None:
                same &= (before.momenta[1:] == before.momenta[:-1]).all(axis=(1, 2))
            repeats = np.concatenate([[False], same]) if last is None else same
            gaps = np.diff(before.time_ps, prepend=before.time_ps[:1])[-len(block) :]
            shifts = self._shift_ps + np.cumsum(np.where(repeats, gaps, 0.0))
            self._n_repeats += int(repeats.sum())
            self._shift_ps = float(shifts[-1])
            last = block.part(slice(len(block) - 1, len(block)))
            if repeats.any() or self._shift_ps:
                kept = np.flatnonzero(~repeats)
                block = replace(block, time_ps=block.time_ps - shifts).part(kept)
            if len(block):
                yield block

    def note(self) -> str:
        """What was left out, or nothing."""
        if not self._n_repeats:
            return ""
        return f"{self._n_repeats} frames repeat the one before (a run begun again?) and were left out."


def _check_options(**options: float) -> None:
    for name, value in options.items():
        if not (np.isfinite(value) and value > 0.0):
            raise InputError(f"{name} must be > 0, got {value}")


def _piece_length(n_frames: int, frame_interval_fs: float, resolution_per_cm: float) -> int:
    """Frames of a piece whose lines are as wide as was asked, or as many as there are."""
    wanted = round(HANN_WIDTH / (frame_interval_fs * _per_cm_fs() * resolution_per_cm))
    return int(min(max(wanted, MIN_FRAMES), n_frames))


class _Pieces:
    """Sums the power of pieces of a run that overlap by half, from consecutive frames.

    Args:
        masses: [N], amu.
        length: frames of a piece.
    """

    def __init__(self, masses: Array, length: int) -> None:
        from scipy.signal import get_window

        self._masses, self._length = masses, length
        self._window: Array = get_window("hann", length)
        self._power = np.zeros(length // 2 + 1)
        self._n_pieces = 0
        self._waiting = np.empty((0, len(masses), 3))

    def update(self, momenta: Array) -> None:
        """Add the next frames, [T, N, 3], amu Angstrom/fs."""
        frames = np.concatenate([self._waiting, momenta]) if len(self._waiting) else momenta
        start = 0
        while start + self._length <= len(frames):
            piece = frames[start : start + self._length] / np.sqrt(self._masses)[:, None]
            for atom in range(len(self._masses)):  # one at a time: memory does not grow with the molecule
                amplitudes = np.fft.rfft(piece[:, atom] * self._window[:, None], axis=0)
                self._power += (np.abs(amplitudes) ** 2).sum(axis=1)
            self._n_pieces += 1
            start += max(self._length // 2, 1)
        self._waiting = frames[start:].copy()

    def spectrum(self, *, frame_interval_fs: float, temperature_K: float, resolution_per_cm: float) -> Spectrum:
        """Of all frames so far; options as `density_of_states`."""
        from ase import units

        if self._n_pieces == 0 and len(self._waiting) < self._length:  # fewer frames than were announced
            if len(self._waiting) < MIN_FRAMES:
                raise InputError(f"a spectrum needs at least {MIN_FRAMES} frames, got {len(self._waiting)}")
            fewer = _Pieces(self._masses, len(self._waiting))
            fewer.update(self._waiting)
            return fewer.spectrum(
                frame_interval_fs=frame_interval_fs, temperature_K=temperature_K, resolution_per_cm=resolution_per_cm
            )
        power, length = self._power.copy(), self._length
        power[1 : (length + 1) // 2] *= 2.0  # the negative frequencies
        # Parseval: the sum over the bins is n sum(w^2) times the mean of sum_i m_i v_i^2 = 2 K.
        twice_kinetic = power / (self._n_pieces * length * (self._window**2).sum()) / units.fs**2  # eV in each bin
        step_per_cm = 1.0 / (frame_interval_fs * _per_cm_fs())  # 1 over the interval, as a wavenumber
        bin_per_cm = step_per_cm / length
        resolution = HANN_WIDTH * bin_per_cm
        return Spectrum(
            wavenumbers_per_cm=np.asarray(bin_per_cm * np.arange(length // 2 + 1), dtype=np.float64),
            density=twice_kinetic / (boltzmann_eV_per_K() * temperature_K * bin_per_cm),
            resolution_per_cm=resolution,
            n_segments=self._n_pieces,
            warning=_warning(0.5 * step_per_cm, self._masses, resolution=resolution, asked=resolution_per_cm),
        )


def even_interval_fs(time_ps: Array) -> float:
    """Time between frames, fs, of times [T], ps.

    Raises:
        InputError: fewer than two frames, or intervals that differ by more than a thousandth.
    """
    if len(time_ps) < 2:
        raise InputError(f"a time between frames needs at least 2 of them, got {len(time_ps)}")
    intervals = np.diff(time_ps)
    interval = float(intervals.mean())
    if np.abs(intervals - interval).max() > 1e-3 * interval:
        raise InputError(
            f"the frames are {1e3 * intervals.min():g} to {1e3 * intervals.max():g} fs apart; "
            "a spectrum needs even times: write every frame at one interval"
        )
    return 1e3 * interval


def strongest_lines(spectrum: Spectrum, *, share: float = 0.02) -> Array:
    """Wavenumbers of the local maxima higher than a share of the highest, ascending, 1/cm."""
    density = spectrum.density
    peak = (density[1:-1] > density[:-2]) & (density[1:-1] >= density[2:]) & (density[1:-1] > share * density.max())
    return np.asarray(spectrum.wavenumbers_per_cm[1:-1][peak])


def _per_cm_fs() -> float:
    """Speed of light in cm/fs: a wavenumber times this is a frequency in 1/fs."""
    from ase import units

    return float(units._c * 100.0 * 1e-15)


def _warning(highest_per_cm: float, masses: Array, *, resolution: float, asked: float) -> str:
    if masses.min() < HYDROGEN_AMU and highest_per_cm < FASTEST_PER_CM:
        needed = 1.0 / (2.0 * FASTEST_PER_CM * _per_cm_fs())
        return (
            f"Frames end at {highest_per_cm:.0f} 1/cm; hydrogens move faster, and what they do appears elsewhere. "
            f"Write a frame every {needed:.1f} fs or more often."
        )
    if resolution > 1.5 * asked:
        return f"The run is too short for {asked:g} 1/cm; its lines are {resolution:.0f} 1/cm wide."
    return ""


def write_spectrum_png(spectrum: Spectrum, path: str | Path, *, title: str) -> None:
    """Draw the density of states.

    Args:
        spectrum: what to draw.
        path: a .png file; its folder is made.
        title: above it.
    Raises:
        InputError: the file cannot be written.
    """
    with drawn_panels(1, n_columns=1, inches=(9.0, 3.8)) as (figure, (axes,)):
        axes.plot(spectrum.wavenumbers_per_cm, 1e3 * spectrum.density, color=INK, linewidth=1.0)
        axes.set(xlabel="wavenumber (1/cm)", ylabel="density (per 1000 1/cm)", title=title)
        axes.set_xlim(0.0, min(float(spectrum.wavenumbers_per_cm[-1]), FASTEST_PER_CM))
        axes.set_ylim(bottom=0.0)
        save_picture(figure, path)
