"""Molecular dynamics on ASE for any calculator: initial velocities, NVE and Langevin runs, trajectories."""

from remul_md.dynamics.engine import SimulationStopped
from remul_md.dynamics.options import MDOptions
from remul_md.dynamics.read import read_trajectory
from remul_md.dynamics.readers.h5md import export_h5md
from remul_md.dynamics.run import MDResult, run_md
from remul_md.dynamics.trajectory import TrajectoryArrays
from remul_md.dynamics.velocities import initial_velocities, n_degrees_of_freedom, temperature_K

__all__ = [
    "MDOptions",
    "MDResult",
    "SimulationStopped",
    "TrajectoryArrays",
    "export_h5md",
    "initial_velocities",
    "n_degrees_of_freedom",
    "read_trajectory",
    "run_md",
    "temperature_K",
]
