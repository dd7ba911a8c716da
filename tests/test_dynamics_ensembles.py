"""Thermostats sample the canonical ensemble of the degrees of freedom that are there, and ramps follow their line."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from spring_molecule import spring_molecule
from test_dynamics_run import columns, log_of, options

from remul_md.dynamics import run_md
from remul_md.dynamics.checkpoint import load_checkpoint

# Springs of rest length 0 between all pairs, 0.5 eV/Angstrom^2: exactly harmonic, and free to move and to turn.
STIFFNESS = 0.5


class HarmonicCluster(Calculator):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def check_state(self, atoms, tol=0.0):
        """ASE's own check costs more than all the rest of a step."""
        known = self.atoms is not None and np.array_equal(self.atoms.positions, atoms.positions)
        return [] if known else list(all_changes)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        methods = self.atoms.positions - self.atoms.positions.mean(0)
        n_atoms = len(methods)
        self.results = {
            "energy": float(0.5 * STIFFNESS * n_atoms * (methods**2).sum()),
            "forces": -STIFFNESS * n_atoms * methods,
        }


def harmonic_cluster():
    """Five atoms of unlike masses, spread as they are at 300 K; the fastest mode has a period of 140 fs."""
    rng = np.random.default_rng(4)
    positions = rng.normal(scale=np.sqrt(units.kB * 300.0 / (5 * STIFFNESS)), size=(5, 3))
    atoms = Atoms("CNOFS", positions=positions)
    atoms.calc = HarmonicCluster()
    return atoms


def harmonic_run(tmp_path, *, length_ps, **changes):
    chosen = options(
        **{
            "length_ps": length_ps,
            "equilibrate_ps": 0.4,
            "timestep_fs": 4.0,
            "frame_interval_fs": 1000.0,
            "thermostat_time_fs": 25.0,
            "max_bond_stretch": None,
            **changes,
        }
    )
    result = run_md(harmonic_cluster(), chosen, output=tmp_path / "run.traj", progress=False)
    return result, log_of(result)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ensemble", "rotation", "n_dof"),
    [("bussi", "thermal", 12), ("bussi", "zero", 9), ("nose-hoover", "zero", 9)],
)
def test_kinetic_energies_are_canonical(tmp_path, ensemble, rotation, n_dof):
    """K is a Gamma variable: mean n kT/2, variance n (kT)^2/2.

    The energy relaxes within about 100 fs, so 40 ps hold some 400 independent values: 2 % for the mean temperature
    and 8 % for the variance. NVE would have half of the variance or less, and a count of 3N = 15 degrees of freedom
    would be 25 or 67 % too hot. The variance is not asked of the chain: it is deterministic and uncoupled harmonic
    modes exchange no energy, so it does not visit all states of this system (of a real molecule it does).
    """
    result, log = harmonic_run(tmp_path, length_ps=40.0, ensemble=ensemble, rotation=rotation)
    assert result.n_degrees_of_freedom == n_dof
    kT, kinetic = units.kB * 300.0, log["kinetic_energy_eV"]
    assert kinetic.mean() == pytest.approx(0.5 * n_dof * kT, rel=0.08)
    if ensemble == "bussi":
        assert kinetic.var() == pytest.approx(0.5 * n_dof * kT**2, rel=0.3)
    np.testing.assert_allclose(columns(log, "momentum"), 0.0, atol=1e-12)
    if rotation == "zero":
        np.testing.assert_allclose(columns(log, "angular"), 0.0, atol=1e-12)


@pytest.mark.parametrize("ensemble", ["bussi", "nose-hoover"])
def test_energy_given_and_taken_adds_up(tmp_path, ensemble):
    """Total energy + thermostat energy is conserved to the second order of the time step."""
    scatter, exchanged = [], []
    for timestep in (1.0, 0.5):
        chosen = options(
            ensemble=ensemble, timestep_fs=timestep, length_ps=0.4, frame_interval_fs=10.0, thermostat_time_fs=30.0
        )
        result = run_md(spring_molecule(), chosen, output=tmp_path / f"{timestep}.traj", progress=False)
        log = log_of(result)
        assert list(log)[-1] == "thermostat_energy_eV"
        scatter.append((log["total_energy_eV"] + log["thermostat_energy_eV"]).std())
        exchanged.append(np.ptp(log["thermostat_energy_eV"]))
    assert min(exchanged) > 0.2
    assert scatter[1] < 0.02 * exchanged[1]
    if ensemble == "nose-hoover":  # the random numbers of Bussi fall at other times when the step is halved
        assert np.log2(scatter[0] / scatter[1]) == pytest.approx(2.0, abs=0.5)


def test_nose_hoover_ties_the_spin_of_a_free_molecule_to_its_chain(tmp_path):
    """L exp(eta_1) is conserved beside the energy, so docs/dynamics.md advises rotation "zero"."""
    result, log = harmonic_run(tmp_path, length_ps=0.64, ensemble="nose-hoover")
    chain = load_checkpoint(result.trajectory.with_suffix(".checkpoint.npz")).thermostat
    spin = columns(log, "angular")
    assert abs(chain["eta"][0]) > 0.1
    np.testing.assert_allclose(spin[-1] * np.exp(chain["eta"][0]), spin[0], rtol=1e-9)


@pytest.mark.parametrize("ensemble", ["langevin", "bussi", "nose-hoover"])
def test_a_ramp_is_linear_in_time(tmp_path, ensemble):
    _, log = harmonic_run(
        tmp_path,
        length_ps=12.0,
        ensemble=ensemble,
        friction_per_ps=40.0,
        temperature_K=200.0,
        final_temperature_K=800.0,
    )
    line = np.polynomial.Polynomial.fit(log["time_ps"], log["temperature_K"], 1)
    # About 120 independent temperatures that scatter by 40 %: 10 to 12 % at the ends of the line.
    assert line(0.0) == pytest.approx(200.0, abs=100.0)
    assert line(12.0) == pytest.approx(800.0, abs=150.0)


def test_the_target_of_each_step():
    chosen = options(ensemble="bussi", temperature_K=300.0, final_temperature_K=500.0, length_ps=0.2)
    assert [chosen.temperature_at(step) for step in (0, 100, 400)] == [300.0, 350.0, 500.0]
    assert options(temperature_K=70.0).temperature_at(17) == 70.0
