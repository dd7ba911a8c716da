"""The energy that velocity Verlet really conserves, to fourth order in the time step."""

from __future__ import annotations

from remul_md.dynamics.momenta import Array, momenta_to_ase


def shadow_energy_eV(
    potential_energies: tuple[float, float],
    forces: tuple[Array, Array],
    momenta: Array,
    *,
    masses: Array,
    timestep_fs: float,
) -> float:
    """Shadow energy over one step of velocity Verlet, eV: mean of that at its start and at its end.

    Backward error analysis: the steps of size h follow, but for terms of order h^4, the exact motion of

        H~ = K + U + h^2 (v.U''.v / 12 - sum_i |F_i|^2 / (24 m_i)),

    so H~ stays where H = K + U oscillates with an amplitude of order h^2. Its mean over the two ends of a step needs
    no second derivative: there v.U''.v is -v.(F_1 - F_0) / h with the velocity v of the half step, to an error of
    order h^2. It needs no call of the forces either: the half step's momenta are those of the end less h F_1 / 2.
    The formula does not ask the forces to be a gradient; what they add to H each step they add to this.

    Args:
        potential_energies: at the start and at the end of the step, eV.
        forces: at the start and at the end, each [N, 3], eV/Angstrom.
        momenta: at the end, [N, 3], amu Angstrom/fs.
        masses: [N], amu.
        timestep_fs: fs.
    Source: Hairer, Lubich and Wanner, Acta Numerica 12 (2003), 399, for H~ of Stoermer-Verlet with kick, drift and
        kick; that it can be read off a trajectory: Engle, Skeel and Drees, J. Comput. Phys. 206 (2005), 432. They
        interpolate over several steps; this is the shortest such formula that is symmetric in time.
    """
    from ase import units

    step = timestep_fs * units.fs
    end = momenta_to_ase(momenta)
    half = end - 0.5 * step * forces[1]
    start = half - 0.5 * step * forces[0]
    inverse_masses = 1.0 / masses[:, None]
    kinetic = 0.25 * float(((start**2 + end**2) * inverse_masses).sum())
    curvature = -float((half * (forces[1] - forces[0]) * inverse_masses).sum()) / step
    squares = 0.5 * float(((forces[0] ** 2 + forces[1] ** 2) * inverse_masses).sum())
    return 0.5 * sum(potential_energies) + kinetic + step**2 * (curvature / 12.0 - squares / 24.0)
