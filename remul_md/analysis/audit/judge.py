"""From measured numbers to verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from remul_md.analysis.audit.checks import measured, not_applicable, worst_of
from remul_md.analysis.audit.derivatives import Derivatives
from remul_md.analysis.audit.invariance import Changes
from remul_md.analysis.audit.limits import TEMPERATURE_K, THERMAL_ENERGY, WEAKEST_FORCE, Limits, REACHABLE_eV
from remul_md.analysis.audit.nve import ShortRun
from remul_md.analysis.audit.probe import Array, ProbedFrames
from remul_md.analysis.audit.smoothness import Scan
from remul_md.analysis.rotation import about_axis, net_force, net_torque
from remul_md.analysis.verdicts import Bounds, Verdict, energy_verdict
from remul_md.potentials.provenance import axis_in_words


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Makes verdicts of measurements on one structure.

    Args:
        limits: what is good enough.
        rms_force: root mean square force component at the probed geometries, eV/Angstrom.
        axis: the only one, of length 1, about which rotation leaves the energy as it is; None: all do.
    """

    limits: Limits
    rms_force: float
    axis: tuple[float, float, float] | None = None

    @property
    def force_scale(self) -> float:
        """F of the limits, eV/Angstrom: the RMS force, at least kT/Angstrom."""
        return max(self.rms_force, THERMAL_ENERGY)

    def _force(self, name: str, value: float, share: float) -> Verdict:
        return measured(name, 1e3 * value, 1e3 * share * self.force_scale, "meV/Å")

    def _energy(self, name: str, value: float, share: float) -> Verdict:
        return measured(name, 1e3 * value, 1e3 * share * THERMAL_ENERGY, "meV")

    def orientations(self, name: str, changes: Changes, *, periodic: bool) -> Verdict:
        """rotation and mirror."""
        how = "rotated at random" if name == "rotation" else "mirrored and rotated at random"
        if self.axis is not None:
            how += f" about {axis_in_words(self.axis)}"
        return worst_of(
            name,
            [
                self._force(
                    "mean error of a force component",
                    float(np.abs(changes.forces).mean()),
                    self.limits.orientation_force_share,
                ),
                self._energy(
                    "RMS change of the energy",
                    float(np.sqrt(np.mean(changes.energies**2))),
                    self.limits.orientation_energy_share,
                ),
            ],
            f"{len(changes.energies)} times {how}{', the cell with the atoms' if periodic else ''}; a force component "
            f"is {1e3 * self.force_scale:.3g} meV/Å.",
        )

    def exact(self, name: str, changes: Changes) -> Verdict:
        """translation, permutation and repeatability: nothing but rounding may change."""
        force_share, energy_share = self.limits.exact_force_share, self.limits.exact_energy_share
        how = {
            "translation": "Moved as a whole by some 10 Å",
            "permutation": "The atoms in another order",
            "repeatability": "The same geometry again, after another one",
        }[name]
        return worst_of(
            name,
            [
                self._force("largest change of a force component", float(np.abs(changes.forces).max()), force_share),
                self._energy("largest change of the energy", float(np.abs(changes.energies).max()), energy_share),
            ],
            f"{how}, {len(changes.energies)} times: only rounding may differ.",
        )

    def gradient(self, derivatives: Derivatives) -> Verdict:
        """Forces against central differences of the energy."""
        scale = max(self.rms_force, WEAKEST_FORCE)
        limit = 1e3 * self.limits.gradient_share * scale
        measure = measured("RMS error of a force component", 1e3 * derivatives.gradient_error, limit, "meV/Å")
        return worst_of(
            "gradient",
            [measure],
            f"Forces against central differences of the energy along {derivatives.slope.size} random directions: they "
            f"differ by {100.0 * derivatives.gradient_error / scale:.2g} % of the RMS force.",
        )

    def jacobian(self, derivatives: Derivatives) -> Verdict:
        """Symmetry of the Jacobian of the forces."""
        asymmetry = derivatives.jacobian_asymmetry
        if asymmetry is None:
            return not_applicable("jacobian", "the forces do not change with the positions")
        return worst_of(
            "jacobian",
            [measured("asymmetry", asymmetry, self.limits.jacobian_asymmetry, "of |J|")],
            "lambda = |(J - Jᵀ)/2| / |J| of the Jacobian J of the forces; 0 if they are the slope of any energy.",
        )

    def closed_loop(self, works: Array) -> Verdict:
        """Work round closed loops."""
        return worst_of(
            "closed_loop",
            [self._energy("largest work round a loop", float(np.abs(works).max()), self.limits.loop_energy_share)],
            f"{works.size} loops of thermal size through all coordinates; forces that are the slope of an energy do "
            f"none, others heat or cool with every vibration.",
        )

    def net_force(self, frames: ProbedFrames) -> Verdict:
        """Sum of the forces, as a share for each atom."""
        total = np.linalg.norm(net_force(frames.forces), axis=1).max()
        return worst_of(
            "net_force",
            [self._force("net force per atom", float(total) / frames.forces.shape[1], self.limits.exact_force_share)],
            "The forces of atoms on each other cancel; what is left pushes the whole structure.",
        )

    def net_torque(self, frames: ProbedFrames) -> Verdict:
        """Net torque about the centre."""
        torque = about_axis(net_torque(frames.positions, frames.forces), self.axis)
        where = "In free space" if self.axis is None else f"About {axis_in_words(self.axis)}"
        return worst_of(
            "net_torque",
            [self._energy("RMS net torque", float(np.sqrt((torque**2).sum(axis=1).mean())), self.limits.torque_share)],
            f"{where} there is none. What is left is the slope of the energy under rotation, per radian.",
        )

    def smoothness(self, scans: Sequence[Scan]) -> Verdict:
        """Jumps along the scans, wells that should not be there, and what could not be resolved."""
        depths = [
            (depth, s.path.label, at) for s in scans for at, depth, barrier in s.minima if barrier <= REACHABLE_eV
        ]
        depth, label, at = max(depths, default=(0.0, "", 0.0))
        steps = max(scans, key=lambda s: s.energy_jump)
        kinks = max(scans, key=lambda s: s.force_jump)
        limits = self.limits
        unresolved = sum(s.n_unresolved for s in scans)
        measures = [
            self._energy(
                f"largest jump of the energy ({steps.path.label})", steps.energy_jump, limits.jump_energy_share
            ),
            measured(
                f"sharpest change of a force component ({kinks.path.label})",
                1e3 * kinks.force_jump,
                1e3 * limits.jump_force_share * THERMAL_ENERGY,
                "meV/Å",
            ),
            self._energy(
                f"deepest second minimum ({label} at {at:.3g})" if depths else "deepest second minimum",
                depth,
                limits.minimum_depth_share,
            ),
            measured(
                f"intervals that could not be resolved ({unresolved})",
                100.0 * unresolved / sum(s.n_intervals for s in scans),
                100.0 * limits.unresolved_share,
                "%",
            ),
        ]
        return worst_of("smoothness", measures, self._about_scans(scans))

    def _about_scans(self, scans: Sequence[Scan]) -> str:
        counts = Counter(s.path.kind for s in scans)
        kinds = ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counts.items())
        why = f"Scanned: {kinds}; {sum(len(s.values) for s in scans)} points."
        deep = self.limits.minimum_depth_share * THERMAL_ENERGY
        far = [1 for s in scans for _, depth, barrier in s.minima if barrier > REACHABLE_eV and depth > deep]
        if far:
            why += (
                f" {len(far)} more {'minimum lies' if len(far) == 1 else 'minima lie'} behind barriers of more than "
                f"{REACHABLE_eV:g} eV, out of reach at {TEMPERATURE_K:g} K."
            )
        barriers = [s.barrier_to(at) for s in scans for at in s.jump_at]
        if barriers:
            why += f" {len(barriers)} jumps, the first behind a barrier of {min(barriers):.2g} eV."
        failures = [reason for s in scans for reason in s.failures]
        if failures:
            why += f" {len(failures)} points could not be calculated, {failures[0]}."
        early = [reason for s in scans for reason in s.ended_early]
        return why + (f" {'; '.join(early)}." if early else "")

    def nve(self, run: ShortRun) -> Verdict:
        """Drift of a short run at constant energy."""
        limits = self.limits
        verdict = energy_verdict(
            run.drift, run.conservation, bounds=Bounds(drift_meV_per_atom_ps=limits.drift_meV_per_atom_ps)
        )
        return replace(
            verdict,
            name="nve",
            why=f"{verdict.why} {run.drift.length_ps:.2g} ps at {TEMPERATURE_K:g} K with steps of "
            f"{run.timestep_fs:.2g} fs.",
            limit_from="",
        )
