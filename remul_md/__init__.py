"""remul-md: molecular-dynamics potentials whose symmetry is a dial, for ASE.

Everything that a script needs is here: `from remul_md import RemulCalculator, run_md`. Names are resolved on first use,
so that `import remul_md` loads neither torch nor ASE; editors and type checkers see the block under TYPE_CHECKING.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from remul_md._version import __version__

if TYPE_CHECKING:
    from remul_md.analysis import mdanalysis
    from remul_md.analysis.accuracy import evaluate_potential
    from remul_md.analysis.audit.report import write_audit_report
    from remul_md.analysis.audit.run import run_audit
    from remul_md.analysis.energy import energy_drift
    from remul_md.analysis.spectrum import trajectory_spectrum
    from remul_md.analysis.trajectory import analyze_trajectory
    from remul_md.analysis.vibrations import vibrations
    from remul_md.calculators.ase import RemulCalculator
    from remul_md.datasets.read import read_frames
    from remul_md.datasets.structure_source import read_structure
    from remul_md.datasets.writers import write_frames
    from remul_md.dynamics.engine import SimulationStopped
    from remul_md.dynamics.options import MDOptions
    from remul_md.dynamics.read import read_trajectory
    from remul_md.dynamics.replicas import run_replicas
    from remul_md.dynamics.run import MDResult, run_md
    from remul_md.dynamics.velocities import initial_velocities
    from remul_md.errors import InputError
    from remul_md.potentials.potential import Potential, load_potential
    from remul_md.structures.batch import Batch, Prediction
    from remul_md.structures.frames import Frames
    from remul_md.training.config import load_config
    from remul_md.training.train import train_potential

# The same names for the running program; a test compares the lists.
_PUBLIC = {
    "Batch": "remul_md.structures.batch",
    "Frames": "remul_md.structures.frames",
    "InputError": "remul_md.errors",
    "MDOptions": "remul_md.dynamics.options",
    "MDResult": "remul_md.dynamics.run",
    "Potential": "remul_md.potentials.potential",
    "Prediction": "remul_md.structures.batch",
    "RemulCalculator": "remul_md.calculators.ase",
    "SimulationStopped": "remul_md.dynamics.engine",
    "analyze_trajectory": "remul_md.analysis.trajectory",
    "energy_drift": "remul_md.analysis.energy",
    "evaluate_potential": "remul_md.analysis.accuracy",
    "initial_velocities": "remul_md.dynamics.velocities",
    "load_config": "remul_md.training.config",
    "load_potential": "remul_md.potentials.potential",
    "mdanalysis": "remul_md.analysis",
    "read_frames": "remul_md.datasets.read",
    "read_structure": "remul_md.datasets.structure_source",
    "read_trajectory": "remul_md.dynamics.read",
    "run_audit": "remul_md.analysis.audit.run",
    "run_md": "remul_md.dynamics.run",
    "run_replicas": "remul_md.dynamics.replicas",
    "train_potential": "remul_md.training.train",
    "trajectory_spectrum": "remul_md.analysis.spectrum",
    "vibrations": "remul_md.analysis.vibrations",
    "write_audit_report": "remul_md.analysis.audit.report",
    "write_frames": "remul_md.datasets.writers",
}

__all__ = [
    "Batch",
    "Frames",
    "InputError",
    "MDOptions",
    "MDResult",
    "Potential",
    "Prediction",
    "RemulCalculator",
    "SimulationStopped",
    "__version__",
    "analyze_trajectory",
    "energy_drift",
    "evaluate_potential",
    "initial_velocities",
    "load_config",
    "load_potential",
    "mdanalysis",
    "read_frames",
    "read_structure",
    "read_trajectory",
    "run_audit",
    "run_md",
    "run_replicas",
    "train_potential",
    "trajectory_spectrum",
    "vibrations",
    "write_audit_report",
    "write_frames",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'remul_md' has no attribute {name!r}")
    if name == "mdanalysis":  # a module: its classes need MDAnalysis
        return import_module("remul_md.analysis.mdanalysis")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
