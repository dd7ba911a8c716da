"""Options of a molecular dynamics run, checked when they are made, before any structure or potential is touched."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from remul_md.dynamics.stopping import StopWhen
from remul_md.dynamics.velocities import Rotation
from remul_md.errors import InputError

Ensemble = Literal["nve", "langevin", "bussi", "nose-hoover"]
Velocities = Literal["drawn", "given"]
THERMOSTATS_OF_A_SYSTEM_AT_REST = ("bussi", "nose-hoover")
# At the most, by default: frames this close show all vibrations in the spectrum, H2 (4401 1/cm) included.
FRAME_INTERVAL_FS = 3.75


@dataclass(frozen=True, kw_only=True)
class MDOptions:
    """What to run.

    A run is `equilibrate_ps` of Langevin dynamics, which is logged apart and not part of the trajectory, then
    `length_ps` of production in the asked ensemble.

    Args:
        ensemble: "nve" (velocity Verlet), or at constant temperature "langevin" (all 3N degrees of freedom), "bussi"
            (stochastic velocity rescaling) or "nose-hoover" (a chain of three). The last two keep the centre of mass
            at rest and leave the motion along each trajectory smooth.
        temperature_K: target temperature, >= 0; > 0 for "bussi" and "nose-hoover".
        final_temperature_K: where a ramp ends that is linear in time over production; None: no ramp. Not for NVE.
        rotation: "thermal" lets the molecule turn as it does at this temperature; "zero" removes its angular
            momentum when production begins (not with "langevin", whose thermostat turns the molecule again at once).
        velocities: "drawn" from the Maxwell-Boltzmann distribution, or those "given" with the structure, with which
            several runs begin alike; translation, and with rotation "zero" rotation, is taken off them.
        timestep_fs: integration step; with `n_inner` the inner one.
        n_inner: multiple time steps: so many steps with the fast forces to one correction by the accurate ones, see
            `remul_md.dynamics.respa`. One production step is then `n_inner * timestep_fs` long. NVE only;
            equilibration has plain steps with the accurate forces. None: plain steps, the accurate forces at each.
        length_ps: production.
        equilibrate_ps: Langevin dynamics before it, 0 for none. NVE that starts from a relaxed structure without
            it settles near half of the temperature, because half of the kinetic energy becomes potential energy.
        friction_per_ps: of the Langevin thermostat; the energy relaxes within about 1/friction.
        thermostat_time_fs: time constant of "bussi" (decay of the kinetic energy) or "nose-hoover" (period of the
            chain's first link, over 2 pi).
        match_energy: begin NVE at the canonical mean of the energy, see `remul_md.dynamics.switch`. None: yes for
            NVE after equilibration. Otherwise the energy of one moment is kept for the whole run, whose mean
            temperature then scatters by about 20 % for a molecule of nine atoms.
        seed: of the initial velocities and of the thermostat.
        log_interval: steps of `timestep_fs` between two rows of the log (with `n_inner` rounded up to whole outer
            steps, between which there is no total energy); 1 fs still resolves the oscillation of the total energy
            that X-H bonds cause, and the interval of the drift is several times narrower than with 5 fs.
        frame_interval_fs: time between two frames of the trajectory, a multiple of `timestep_fs`, with `n_inner` of
            the outer step. None: the last such multiple up to 3.75, so that the spectrum of the run holds what
            hydrogens do; one (outer) step at least.
        checkpoint_interval: steps of `timestep_fs` between two checkpoints, rounded up as `log_interval`; a killed run
            loses no more than that.
        max_bond_stretch: stop when a bond of the first structure is longer than this many times its first length;
            None: never. Checked at each row of the log, for molecules only (not for periodic systems).
        stop_when: further reasons to stop, separated by commas and checked at each row of the log:
            `uncertainty=0.2`, the error bar of the least certain atom, of an ensemble, in eV/Angstrom; `domain`, the
            structure left the training data; `bond`, as `max_bond_stretch` says. The calculator has to tell
            (`remul_md.dynamics.stopping`).
    Raises:
        InputError: a value out of range, or two options that exclude each other.
    """

    ensemble: Ensemble = field(default="nve", metadata={"help": "nve, langevin, bussi or nose-hoover."})
    temperature_K: float = field(default=300.0, metadata={"help": "Kelvin."})
    rotation: Rotation = field(default="thermal", metadata={"help": "thermal: the molecule turns; zero: it does not."})
    velocities: Velocities = "drawn"
    timestep_fs: float = field(default=0.5, metadata={"help": "Femtoseconds; of the inner step with --n-inner."})
    length_ps: float = field(default=5.0, metadata={"help": "Picoseconds of production."})
    equilibrate_ps: float = field(default=2.0, metadata={"help": "Picoseconds of Langevin dynamics before it."})
    friction_per_ps: float = field(default=10.0, metadata={"help": "Of the Langevin thermostat."})
    thermostat_time_fs: float = field(default=100.0, metadata={"help": "Time constant of bussi and nose-hoover."})
    final_temperature_K: float | None = field(
        default=None, metadata={"help": "Ramp to it, linear in time over production."}
    )
    match_energy: bool | None = None
    seed: int = field(default=0, metadata={"help": "Of velocities, thermostat and drawn rotations."})
    n_inner: int | None = field(
        default=None,
        metadata={"help": "Multiple time steps (NVE): inner ones, with direct forces, to an outer one."},
    )
    log_interval: int = 2
    frame_interval_fs: float | None = field(
        default=None,
        metadata={"help": "Time between two frames; default: as many whole (outer) steps as fit into 3.75 fs."},
    )
    checkpoint_interval: int = 1000
    max_bond_stretch: float | None = 1.6
    stop_when: str | None = field(
        default=None, metadata={"help": "Stop early: uncertainty=0.2 (eV/A, of an ensemble),domain,bond."}
    )

    def __post_init__(self) -> None:
        for name, choices in (("ensemble", Ensemble), ("rotation", Rotation), ("velocities", Velocities)):
            if getattr(self, name) not in (known := get_args(choices)):
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}")
        for name in ("timestep_fs", "length_ps", "friction_per_ps", "thermostat_time_fs"):
            self._check_number(name, above=0.0)
        for name in ("temperature_K", "equilibrate_ps"):
            self._check_number(name, at_least=0.0)
        for name, lowest in (("log_interval", 1), ("checkpoint_interval", 1), ("seed", 0)):
            self._check_whole(name, lowest)
        self._check_multiple_time_steps()
        stops = self.stops  # which must be understood
        if self.max_bond_stretch is not None:
            self._check_number("max_bond_stretch", above=1.0)
        elif stops.bond:
            raise InputError(
                f"stop_when {self.stop_when!r} watches bonds, but max_bond_stretch is None; give it, or leave bond out"
            )
        if self.n_steps < 1:
            raise InputError(
                f"length_ps {self.length_ps} is shorter than one step of {self.step_fs} fs; run for longer"
            )
        self._check_frame_interval()
        if self.ensemble == "langevin" and self.rotation == "zero":
            raise InputError(
                "rotation 'zero' and ensemble 'langevin' exclude each other: the thermostat turns the molecule; "
                "use rotation 'thermal', or ensemble 'nve'"
            )
        self._check_targets()
        if self.velocities == "given" and self.n_equilibration_steps > 0:
            raise InputError(
                f"velocities 'given' would be lost in an equilibration of {self.equilibrate_ps} ps; "
                "set equilibrate_ps to 0"
            )
        if self.match_energy and (self.ensemble != "nve" or self.n_equilibration_steps == 0):
            raise InputError(
                "match_energy needs ensemble 'nve' after an equilibration, got "
                f"ensemble {self.ensemble!r} and equilibrate_ps {self.equilibrate_ps}; "
                "set equilibrate_ps (2 is a start) or leave match_energy out"
            )

    def _check_multiple_time_steps(self) -> None:
        if self.n_inner is None:
            return
        self._check_whole("n_inner", 1)
        if self.ensemble != "nve":
            raise InputError(
                f"n_inner {self.n_inner} needs ensemble 'nve', got {self.ensemble!r}: a thermostat would hide what the "
                "fast forces do to the energy; leave n_inner out"
            )

    def _check_frame_interval(self) -> None:
        step = self.step_fs
        if self.frame_interval_fs is None:
            n_steps = max(int(FRAME_INTERVAL_FS / step + 1e-6), 1)  # 3.75 / 0.05 must not become 74
            object.__setattr__(self, "frame_interval_fs", n_steps * step)  # the record of the run says the number
        self._check_number("frame_interval_fs", above=0.0)
        ratio = self._frame_interval_fs / step
        if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6 * ratio:
            outer = "" if self.n_inner is None else f"the outer step {self.n_inner} * "
            raise InputError(
                f"frame_interval_fs {self.frame_interval_fs} is no multiple of {outer}timestep_fs {self.timestep_fs}; "
                f"take {max(round(ratio), 1) * step:g}"
            )

    def _check_targets(self) -> None:
        if self.final_temperature_K is not None:
            self._check_number("final_temperature_K", at_least=0.0)
            if self.ensemble == "nve":
                raise InputError(
                    f"final_temperature_K {self.final_temperature_K} needs a thermostat, the ensemble is 'nve'; "
                    "use langevin, bussi or nose-hoover, or leave final_temperature_K out"
                )
        if self.ensemble in THERMOSTATS_OF_A_SYSTEM_AT_REST:
            for name in ("temperature_K", "final_temperature_K"):
                if getattr(self, name) == 0.0:  # they scale momenta, and nothing scaled is still nothing
                    raise InputError(f"{name} must be > 0 with ensemble {self.ensemble!r}, got 0; use 'langevin'")

    def _check_number(self, name: str, *, above: float | None = None, at_least: float | None = None) -> None:
        value = getattr(self, name)
        wanted = f"> {above:g}" if above is not None else f">= {at_least:g}"
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or (above is not None and value <= above) or (at_least is not None and value < at_least):
            raise InputError(f"{name} must be a number {wanted}, got {value!r}")

    def _check_whole(self, name: str, lowest: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise InputError(f"{name} must be a whole number >= {lowest}, got {value!r}")

    @property
    def stops(self) -> StopWhen:
        """What `stop_when` names."""
        return StopWhen() if self.stop_when is None else StopWhen.parse(self.stop_when)

    @property
    def step_fs(self) -> float:
        """One production step, which with `n_inner` is the outer one."""
        return self.timestep_fs if self.n_inner is None else self.n_inner * self.timestep_fs

    @property
    def n_steps(self) -> int:
        """Production steps."""
        return round(1000.0 * self.length_ps / self.step_fs)

    @property
    def n_equilibration_steps(self) -> int:
        """Langevin steps before production."""
        return round(1000.0 * self.equilibrate_ps / self.timestep_fs)

    @property
    def frame_interval(self) -> int:
        """Production steps between two frames."""
        return round(self._frame_interval_fs / self.step_fs)

    @property
    def _frame_interval_fs(self) -> float:
        assert self.frame_interval_fs is not None  # set when the options were made
        return self.frame_interval_fs

    def whole_steps(self, interval: int, *, production: bool) -> int:
        """Steps of a phase in `interval` steps of `timestep_fs`, rounded up."""
        return interval if self.n_inner is None or not production else -(-interval // self.n_inner)

    @property
    def matches_energy(self) -> bool:
        """Whether NVE begins at the canonical mean of the energy."""
        if self.match_energy is None:
            return self.ensemble == "nve" and self.n_equilibration_steps > 0
        return self.match_energy

    def temperature_at(self, step: int) -> float:
        """Target temperature, K, of the step that begins after `step` steps of production."""
        if self.final_temperature_K is None:
            return self.temperature_K
        return self.temperature_K + (self.final_temperature_K - self.temperature_K) * step / self.n_steps

    def time_ps(self, step: int, *, production: bool = True) -> float:
        """Time after `step` steps of production or of equilibration, ps."""
        return step * (self.step_fs if production else self.timestep_fs) / 1000.0
