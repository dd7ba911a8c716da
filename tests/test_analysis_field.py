"""A molecule of springs whose fixed charges feel a field: what changes rightly is no error about the field's axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import all_changes
from spring_molecule import SpringMolecule, spring_molecule

from remul_md.analysis import run_audit
from remul_md.analysis.momentum import momentum_change
from remul_md.analysis.rotation import rotational_error_along
from remul_md.analysis.trajectory import TrajectoryAnalysis, analyze_trajectory
from remul_md.dynamics import run_md
from remul_md.dynamics.options import MDOptions
from remul_md.dynamics.read import read_trajectory
from remul_md.errors import InputError

FIELD = np.array([0.3, -0.6, 0.6])  # V/Angstrom
AXIS = (1.0, -2.0, 2.0)
CHARGES = np.array([-0.1, 0.15, -0.65, 0.35, 0.05, 0.05, 0.05, 0.05, 0.05])  # of ethanol, neutral
JUDGED = {"forces turn with the molecule", "no torque from nowhere", "angular momentum kept"}


class InField(SpringMolecule):
    def __init__(self, reference: Atoms, *, swirl: float = 0.0) -> None:
        super().__init__(reference)
        self.swirl = swirl

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        places = self.atoms.positions
        self.results["energy"] -= float(CHARGES @ places @ FIELD)
        self.results["forces"] = self.results["forces"] + CHARGES[:, None] * FIELD
        # A torque about the field has no place there: what a potential may get wrong.
        self.results["forces"] += self.swirl * np.cross(FIELD, places - places.mean(axis=0))


def in_field(*, swirl: float = 0.0) -> Atoms:
    atoms = spring_molecule()
    atoms.calc = InField(atoms, swirl=swirl)
    return atoms


def verdicts(analysis: TrajectoryAnalysis) -> dict[str, bool | None]:
    return {verdict.name: verdict.passed for verdict in analysis.verdicts if verdict.name in JUDGED}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("field") / "run.traj"
    options = MDOptions(length_ps=0.5, equilibrate_ps=0.0, seed=3, frame_interval_fs=5.0)
    run_md(in_field(), options, output=path, provenance={"axis": list(AXIS)})
    return path


def test_a_run_in_a_field_is_judged_about_the_axis_of_its_record(run: Path) -> None:
    chosen = {"atoms": in_field(), "n_rotation_frames": 5, "n_draws": 4}
    recorded = analyze_trajectory(run, **chosen)
    assert verdicts(recorded) == dict.fromkeys(JUDGED, True)
    assert recorded.axis == pytest.approx(np.array(AXIS) / 3)
    figures = recorded.to_json()
    assert figures["axis"] == list(recorded.axis)
    assert figures["rotational_error"] < 1e-9
    assert figures["net_torque_rms_eV"] < 1e-12
    assert figures["angular_momentum_change"] < 1e-10
    about = [verdict.why for verdict in recorded.verdicts if verdict.name in JUDGED]
    assert all("(0.333333 -0.666667 0.666667)" in why for why in about)
    everywhere = analyze_trajectory(run, axis=None, **chosen)
    assert verdicts(everywhere) == dict.fromkeys(JUDGED, False)
    assert "axis" not in everywhere.to_json()
    across = analyze_trajectory(run, axis=(0, 1, 1), **chosen)
    assert verdicts(across)["forces turn with the molecule"] is False


def test_what_is_wrong_about_the_axis_is_seen(run: Path) -> None:
    """A torque about the field turns with the molecule, but not when it is mirrored, and energy is not kept."""
    swirled = rotational_error_along(
        in_field(swirl=0.1), read_trajectory(run).positions[::30], n_draws=6, group="O3", axis=AXIS
    )
    assert swirled.mean_error_meV_per_A > 10
    proper = rotational_error_along(in_field(swirl=0.1), read_trajectory(run).positions[::30], n_draws=6, axis=AXIS)
    assert proper.mean_error_meV_per_A < 1e-9
    assert (swirled.axis, swirled.group) == (proper.axis, "O3")
    result = run_audit(in_field(swirl=0.1), only=["rotation", "mirror", "net_torque"], axis=AXIS)
    assert {check.name: check.passed for check in result.checks} == {
        "rotation": True,
        "mirror": False,
        "net_torque": False,
    }


def test_only_the_part_along_the_axis_counts(run: Path) -> None:
    frames = read_trajectory(run)
    assert frames.momenta is not None
    unit = np.array(AXIS) / 3
    found = momentum_change(frames.positions, frames.momenta, masses=frames.masses, axis=AXIS)
    whole = momentum_change(frames.positions, frames.momenta, masses=frames.masses)
    assert found is not None
    assert whole is not None
    assert found.max_relative_change < 1e-10 < 0.01 < whole.max_relative_change
    moving = frames.momenta - frames.momenta.sum(axis=1, keepdims=True) * (frames.masses / frames.masses.sum())[:, None]
    centre = (frames.masses[:, None] * frames.positions[0]).sum(axis=0) / frames.masses.sum()
    atoms = np.cross(frames.positions[0] - centre, moving[0]) @ unit
    expected = abs(atoms.sum()) if abs(atoms.sum()) > 0.01 * np.sqrt((atoms**2).sum()) else np.sqrt((atoms**2).sum())
    assert found.reference_hbar == pytest.approx(expected / 6.350779922e-3, rel=1e-9)


def test_an_audit_about_the_axis() -> None:
    names = ["rotation", "mirror", "net_force", "net_torque"]
    about, anywhere = (run_audit(in_field(), only=names, axis=axis) for axis in (AXIS, None))
    assert about.passed
    assert {check.name for check in anywhere.checks if not check.passed} == {"rotation", "mirror", "net_torque"}
    assert about.to_json()["audited"]["axis"] == pytest.approx(np.array(AXIS) / 3)
    assert "axis" not in anywhere.to_json()["audited"]
    with pytest.raises(InputError, match="axis must be 3 numbers"):
        run_audit(in_field(), only=names, axis=(0, 0, 0))
