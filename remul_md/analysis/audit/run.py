"""`run_audit`: twelve checks of any ASE calculator on one structure."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from remul_md._version import __version__
from remul_md.analysis.audit.checks import not_applicable, not_measured
from remul_md.analysis.audit.derivatives import Derivatives, finite_differences, loop_works
from remul_md.analysis.audit.invariance import (
    orientation_changes,
    permutation_changes,
    repeat_changes,
    translation_changes,
)
from remul_md.analysis.audit.judge import Judge
from remul_md.analysis.audit.limits import NAMES, TEMPERATURE_K, THERMAL_ENERGY, Limits
from remul_md.analysis.audit.nve import ShortRun, short_nve
from remul_md.analysis.audit.paths import scan_paths
from remul_md.analysis.audit.probe import CalculationFailed, Probe, ProbedFrames, probed_frames
from remul_md.analysis.audit.reference import Stretch, bond_stretches
from remul_md.analysis.audit.smoothness import Scan, scan
from remul_md.analysis.verdicts import Verdict
from remul_md.errors import InputError
from remul_md.progress import progress_bar

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

N_FRAMES = 3
N_TURNS, N_MIRRORS, N_DRAWS = 8, 4, 3
N_PROBES = 16  # 120 pairs a frame: the asymmetry is then known to some 5 %
N_LOOPS, N_LOOP_POINTS = 4, 16
AMPLITUDE_A = 0.02  # a bond then changes by 0.028 Angstrom, the root of kT over 33 eV/Angstrom^2, as at 300 K
SHIFT_A = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditResult:
    """What an audit found.

    Args:
        checks: one for each of `NAMES` (or those asked for), in that order.
        formula: of the structure.
        n_atoms: atoms of it.
        calculator: class of the calculator.
        force_scale_meV_per_A: F of the limits, meV/Angstrom.
        scans: energies behind `smoothness`.
        nve: the run behind `nve`; None where there is none.
        n_calls: calculations made.
        wall_s: time taken, s.
        seed: of everything random.
        axis: the only one that rotations, mirrors and the torque were judged about, of length 1; None: all.
        stretches: bonds pulled by the calculator and by a reference; empty without one.
    """

    checks: tuple[Verdict, ...]
    formula: str
    n_atoms: int
    calculator: str
    force_scale_meV_per_A: float
    scans: tuple[Scan, ...]
    nve: ShortRun | None
    n_calls: int
    wall_s: float
    seed: int
    axis: tuple[float, float, float] | None = None
    stretches: tuple[Stretch, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check that applies is passed; one that cannot be decided is not."""
        return all(check.passed or not check.applicable for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """`passed`, `checks` and what was audited; nothing in it depends on the time."""
        return {
            "passed": self.passed,
            **({"stretches": [stretch.to_json() for stretch in self.stretches]} if self.stretches else {}),
            "checks": [{**asdict(check), "outcome": check.outcome} for check in self.checks],
            "audited": {
                "calculator": self.calculator,
                "formula": self.formula,
                "n_atoms": self.n_atoms,
                "force_scale_meV_per_A": self.force_scale_meV_per_A,
                "temperature_K": TEMPERATURE_K,
                "n_calls": self.n_calls,
                "seed": self.seed,
                **({} if self.axis is None else {"axis": list(self.axis)}),
                "version": __version__,
            },
        }


def run_audit(
    atoms: Atoms,
    *,
    limits: Limits | None = None,
    only: Sequence[str] | None = None,
    seed: int = 0,
    axis: Sequence[float] | None = None,
    reference: Calculator | None = None,
    progress: bool = False,
) -> AuditResult:
    """Check whether a calculator is fit for dynamics: symmetries, conservation, smoothness, repeatability.

    Costs about 400 calculations, some 100 for each scanned bond, and 600 to 2400 steps of dynamics. What has no
    meaning for a structure (the torque of a crystal) passes with `why` saying "not applicable".

    Args:
        atoms: structure with any ASE calculator attached; not changed. Constraints are ignored.
        limits: what is good enough; the defaults are explained there.
        only: names of the checks to make; all of them by default.
        seed: of displacements, turns, directions and velocities, >= 0.
        axis: of what acts on the structure, such as an electric field: rotations and the torque are judged about it,
            mirrors through planes that hold it, since others change the energy rightly.
        reference: a calculator of which is known that it is good: bonds are pulled with it, too, and what differs is
            told; nothing is judged by it. Its calculations are not counted.
        progress: show a progress bar on stderr.
    Raises:
        InputError: an unknown check, no calculator, or one that fails at the structure itself.
    """
    from remul_md.symmetry.rotations import unit_axis

    limits, about = limits or Limits(), None if axis is None else unit_axis(axis)
    names = [name for name in NAMES if only is None or name in only]
    unknown = sorted(set(only or ()) - set(NAMES))
    if unknown or not names:
        raise InputError(f"only: {unknown or 'nothing'} is no check; choose among {', '.join(NAMES)}")
    began = time.perf_counter()
    scans: list[Scan] = []
    runs: list[ShortRun] = []
    with progress_bar(shown=progress, total=len(names), unit="check") as bar, warnings.catch_warnings():
        # Scans leave the training data on purpose, and the report tells where they went.
        warnings.filterwarnings("ignore", message=".*outside the training data", category=UserWarning)
        bar.miniters = 0  # a check takes long: the calls tell that it goes on

        def tell(n_calls: int) -> None:
            bar.set_postfix(calls=n_calls, refresh=False)
            bar.update(0)  # draws now and then only

        probe = Probe(atoms, on_call=tell)
        known = None if reference is None else _reference_probe(atoms, reference)
        rng = {name: np.random.default_rng([seed, index]) for index, name in enumerate((*NAMES, "frames"))}
        frames = probed_frames(probe, n_frames=N_FRAMES, amplitude_A=AMPLITUDE_A, rng=rng["frames"])
        judge = Judge(limits=limits, rms_force=float(np.sqrt(np.mean(frames.forces**2))), axis=about)
        measure = _measurements(probe, frames, judge, rng=rng, seed=seed, scans=scans, runs=runs)
        checks = []
        for name in names:
            bar.set_description(name, refresh=False)
            try:
                checks.append(measure[name]())
            except CalculationFailed as error:
                checks.append(not_measured(name, str(error)))
            bar.update()
        stretches = () if known is None else bond_stretches(probe, known, scan_paths(probe.atoms))
    return AuditResult(
        checks=tuple(checks),
        formula=atoms.get_chemical_formula(),
        n_atoms=len(atoms),
        calculator=type(atoms.calc).__name__,
        force_scale_meV_per_A=1e3 * judge.force_scale,
        scans=tuple(scans),
        nve=runs[0] if runs else None,
        n_calls=probe.n_calls,
        wall_s=time.perf_counter() - began,
        seed=seed,
        axis=about,
        stretches=stretches,
    )


def _reference_probe(atoms: Atoms, reference: Calculator) -> Probe:
    if atoms.pbc.any():
        raise InputError(f"a reference is for bonds of molecules, and pbc is {atoms.pbc.tolist()}; leave it out")
    known = atoms.copy()
    known.calc = reference
    try:
        return Probe(known)
    except InputError as error:
        raise InputError(f"the reference: {error}") from error


def _measurements(
    probe: Probe,
    frames: ProbedFrames,
    judge: Judge,
    *,
    rng: dict[str, np.random.Generator],
    seed: int,
    scans: list[Scan],
    runs: list[ShortRun],
) -> dict[str, Callable[[], Verdict]]:
    """What measures and judges each check; scans and the run are kept for the report."""
    import torch

    from remul_md.symmetry.rotations import mirrored, random_rotations

    n_frames, n_atoms, _ = frames.positions.shape
    periodic = bool(probe.atoms.pbc.any())
    one = "one atom has no internal coordinate"

    def orientations(name: str, n_draws: int, *, mirror: bool) -> Verdict:
        generator = torch.Generator().manual_seed(int(rng[name].integers(2**31)))
        draws = random_rotations(n_frames * n_draws, generator=generator, axis=judge.axis)
        draws = (mirrored(draws, axis=judge.axis) if mirror else draws).view(n_frames, n_draws, 3, 3)
        changes = orientation_changes(probe, frames, draws.numpy())
        return judge.orientations(name, changes, periodic=periodic)

    def translation() -> Verdict:
        shifts = SHIFT_A * rng["translation"].standard_normal((n_frames, N_DRAWS, 3))
        return judge.exact("translation", translation_changes(probe, frames, shifts))

    def permutation() -> Verdict:
        if n_atoms == 1:
            return not_applicable("permutation", "there is one atom only")
        rows = np.tile(np.arange(n_atoms), (n_frames, N_DRAWS, 1))
        return judge.exact("permutation", permutation_changes(probe, frames, rng["permutation"].permuted(rows, axis=2)))

    derivatives: list[Derivatives] = []

    def differences() -> Derivatives:
        # Energies and forces of one stencil serve two checks.
        if not derivatives:
            derivatives.append(finite_differences(probe, frames, n_probes=N_PROBES, rng=rng["gradient"]))
        return derivatives[0]

    def closed_loop() -> Verdict:
        works = loop_works(
            probe,
            frames,
            n_loops=N_LOOPS,
            n_points=N_LOOP_POINTS,
            amplitude_A=AMPLITUDE_A,
            rng=rng["closed_loop"],
        )
        return judge.closed_loop(works)

    def smoothness() -> Verdict:
        paths = scan_paths(probe.atoms)
        if not paths:
            return not_applicable("smoothness", one)
        limits = judge.limits
        for path in paths:
            scans.append(
                scan(
                    probe,
                    path,
                    energy_limit=limits.jump_energy_share * THERMAL_ENERGY,
                    force_limit=limits.jump_force_share * THERMAL_ENERGY,
                    depth_limit=limits.minimum_depth_share * THERMAL_ENERGY,
                )
            )
        return judge.smoothness(scans)

    def torque() -> Verdict:
        if periodic or n_atoms == 1:
            return not_applicable("net_torque", "a periodic structure has no centre" if periodic else one)
        return judge.net_torque(frames)

    def nve() -> Verdict:
        if n_atoms == 1:
            return not_applicable("nve", one)
        bound = judge.limits.drift_meV_per_atom_ps
        runs.append(short_nve(probe, bound_meV_per_atom_ps=bound, seed=int(rng["nve"].integers(2**31))))
        return judge.nve(runs[0])

    return {
        "rotation": lambda: orientations("rotation", N_TURNS, mirror=False),
        "mirror": lambda: orientations("mirror", N_MIRRORS, mirror=True),
        "translation": translation,
        "permutation": permutation,
        "gradient": lambda: judge.gradient(differences()),
        "closed_loop": closed_loop,
        "jacobian": lambda: judge.jacobian(differences()),
        "smoothness": smoothness,
        "net_force": lambda: judge.net_force(frames),
        "net_torque": torque,
        "repeatability": lambda: judge.exact("repeatability", repeat_changes(probe, frames, n_repeats=N_DRAWS)),
        "nve": nve,
    }
