"""What an audit calls good enough, and why: every limit in one place, in units of two scales.

The *thermal scale* is kT at 300 K, 25.9 meV: an energy that is small against it changes no dynamics at room
temperature. The *force scale* F is the root mean square force component at the probed geometries, but at least
kT/Angstrom: forces below that do not move an atom at 300 K, so weak forces are not judged by their noise. The check of
the gradient alone counts in the RMS force itself (at least 1 meV/Angstrom): a wrong factor is wrong at any size.
"""

from __future__ import annotations

from dataclasses import dataclass

from remul_md.analysis.verdicts import require_positive
from remul_md.dynamics.velocities import boltzmann_eV_per_K

TEMPERATURE_K = 300.0
WEAKEST_FORCE = 1e-3  # eV/Angstrom
THERMAL_ENERGY = boltzmann_eV_per_K() * TEMPERATURE_K  # eV
# A barrier of 1 eV is crossed once in two hours at 300 K (1e13/s exp(-39)): no simulation comes behind it.
REACHABLE_eV = 1.0
NAMES = (
    "rotation",
    "mirror",
    "translation",
    "permutation",
    "gradient",
    "closed_loop",
    "jacobian",
    "smoothness",
    "net_force",
    "net_torque",
    "repeatability",
    "nve",
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the checks. Shares of forces count in F, those of energies in kT at 300 K (see the module).

    Args:
        orientation_force_share: rotation, mirror: mean absolute component of f(gx) - g f(x). The best potentials for
            small molecules miss the true forces by 0.2 % of F, so a smaller error of the orientation is lost among
            others.
        orientation_energy_share: rotation, mirror: RMS change of the energy; a tenth of kT shifts populations of
            orientations by a tenth.
        exact_force_share: translation, permutation, repeatability, net force (a share per atom): exact in exact
            arithmetic. Single precision costs 1e-6 to 1e-4 of F (positions rounded far from the origin, times stiff
            bonds), a self-consistent field that starts from the last one 2e-4.
        exact_energy_share: the same for the energy; a hundredth of kT is ten times the rounding of a float32 sum of
            some hundred eV.
        gradient_share: RMS component of forces minus central differences of the energy. Single precision costs 1e-5 to
            1e-4 of F, a missing term or a wrong unit 1e-2 and far more.
        loop_energy_share: work round a closed loop of thermal size. A vibration goes round in some 20 fs: a
            hundredth of kT each time would heat it by kT within 2 ps.
        jacobian_asymmetry: |(J - J^T)/2| / |J|, 0 for every gradient. Heads that predict forces directly have 1e-2
            and more, differences of single precision forces 1e-5 to 1e-4.
        jump_energy_share: jump of the energy along a scan; each crossing changes the total energy by as much.
        jump_force_share: change of a force component within 0.0063 Angstrom of a scan, less than the way of a hydrogen
            in a time step, that no smooth curve explains, in kT/Angstrom: a crossing costs less than a hundredth of kT.
            A jump of so much, or a kink at which the slope of the force changes by 8 to 20 eV/Angstrom^2 (of a C-H
            bond it is 30).
        unresolved_share: of all intervals of the scans, those that may hide a jump beyond the limits, since the
            calculator failed there or is too noisy to tell. Jumps lie anywhere: so large is the chance to miss one.
        minimum_depth_share: depth of a spurious minimum; one of less than kT holds nothing at 300 K.
        torque_share: RMS net torque; below kT a turn by one radian changes the energy by less than kT.
        drift_K_per_ps: NVE; the 95 % interval of the drift must lie within what heats 3 N classical vibrations by
            this, 200 K/ns (0.05 meV/atom/ps). The shadow energy of 600 to 1,200 steps resolves a third of it or
            less. Forces that are no gradient heat by several K/ps; GFN2 as it comes cools by 0.5 K/ps. It is no
            warrant for long runs, which `remul_md.analysis` judges by a fifth of it.
    Raises:
        InputError: a limit <= 0.
    """

    orientation_force_share: float = 2e-3
    orientation_energy_share: float = 0.1
    exact_force_share: float = 1e-3
    exact_energy_share: float = 1e-2
    gradient_share: float = 2e-3
    loop_energy_share: float = 1e-2
    jacobian_asymmetry: float = 1e-3
    jump_energy_share: float = 1e-2
    jump_force_share: float = 0.5
    unresolved_share: float = 0.02
    minimum_depth_share: float = 1.0
    torque_share: float = 1.0
    drift_K_per_ps: float = 0.2

    def __post_init__(self) -> None:
        require_positive(self, what="limit")

    @property
    def drift_meV_per_atom_ps(self) -> float:
        """The drift that heats classical vibrations (3 kT an atom) by `drift_K_per_ps`, meV/atom/ps."""
        return 3e3 * boltzmann_eV_per_K() * self.drift_K_per_ps
