"""Options of the dynamics on which `remul-md distill` teaches a head, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from remul_md.dynamics.options import MDOptions
from remul_md.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which geometries a head is taught on: Langevin dynamics of the potential, from its training reference frame or
    from frames of a data set.

    Args:
        n_frames: geometries, at least; the runs are equally long.
        temperature_K: at which each run begins, > 0.
        final_temperature_K: to which it is heated linearly in time, so that all between are sampled.
        n_replicas: runs side by side, at least 2: some are held out.
        timestep_fs: integration step; may be longer for sampling than for the conservation of energy.
        frame_interval_fs: time between two frames, a multiple of `timestep_fs`.
        equilibrate_ps: at the first temperature, before the first frame.
        seed: of velocities and thermostat; replica k has `seed + k`.
    Raises:
        InputError: a value out of range, or fewer than two frames for each run.
    """

    n_frames: int = field(default=20_000, metadata={"help": "Geometries of its own dynamics."})
    temperature_K: float = field(default=300.0, metadata={"help": "Kelvin, where every run begins."})
    final_temperature_K: float = field(default=600.0, metadata={"help": "Kelvin, to which every run is heated."})
    n_replicas: int = field(default=64, metadata={"help": "Runs side by side; one in twenty is held out."})
    timestep_fs: float = field(default=1.0, metadata={"help": "Femtoseconds."})
    frame_interval_fs: float = field(default=20.0, metadata={"help": "Time between two geometries of a run."})
    equilibrate_ps: float = field(default=1.0, metadata={"help": "Picoseconds before the first geometry of a run."})
    seed: int = field(default=0, metadata={"help": "Of velocities and thermostats."})

    def __post_init__(self) -> None:
        if self.n_replicas < 2:
            raise InputError(f"distilling needs at least 2 replicas, of which one is held out, got {self.n_replicas}")
        if self.n_frames < 2 * self.n_replicas:
            raise InputError(
                f"n_frames ({self.n_frames}) must be at least twice the number of replicas ({self.n_replicas}); "
                "ask for more frames or for fewer replicas"
            )
        self.md_options()  # which checks the rest

    def md_options(self) -> MDOptions:
        """The options of each run."""
        frames_each = math.ceil(self.n_frames / self.n_replicas)
        return MDOptions(
            ensemble="langevin",
            temperature_K=self.temperature_K,
            final_temperature_K=self.final_temperature_K,
            timestep_fs=self.timestep_fs,
            length_ps=(frames_each - 1) * self.frame_interval_fs / 1000.0,
            equilibrate_ps=self.equilibrate_ps,
            frame_interval_fs=self.frame_interval_fs,
            # Of the log only the bonds matter here, and the trajectory shows them.
            log_interval=max(1, round(self.frame_interval_fs / self.timestep_fs)),
            checkpoint_interval=500,
            seed=self.seed,
        )
