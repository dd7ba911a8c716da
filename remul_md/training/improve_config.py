"""The options of `remul-md improve`, checked before a file is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from remul_md.dynamics.options import MDOptions
from remul_md.errors import InputError

if TYPE_CHECKING:
    from remul_md.training.config import TrainConfig

# How members are trained where nothing else is asked: the schedule of every training, short, half the rate.
TRAINING: dict[str, Any] = {
    "n_steps": 1000,
    "fine_tuning_learning_rate": 5e-4,
    "warmup_steps": 50,
    "validate_every": 250,
    "checkpoint_every": 250,
    "monitor_per_decade": 0,
}
SHARES = (1 / 16, 1 / 4, 1.0)  # of `until_ps`: a round ends at the first of these lengths that a run does not reach


@dataclass(frozen=True, kw_only=True)
class ImproveOptions:
    """How a potential is improved.

    Args:
        temperature_K: of the hot runs, one or several, separated by commas.
        until_ps: what every run has to hold.
        budget_labels: labels in all, those that the method refuses included.
        labels_per_round: at most so many in a round.
        n_replicas: runs at each temperature.
        n_members: models of the ensemble that is made of one potential, >= 2.
        uncertainty: a run stops where the least certain atom has so many times the mean of that on the validation
            frames.
        stretched: label the molecule with each kind of bond squeezed and stretched first.
        compile: compile the forces of the runs, once for all rounds.
        timestep_fs: of the runs.
        frame_interval_fs: between two geometries that can be chosen, a multiple of `timestep_fs`.
        window_ps: geometries are chosen from so long before a run ended.
        max_rounds: rounds after the first; None: as many as the budget pays for.
        jobs: processes that label side by side.
        seed: of velocities, thermostats, stretched bonds and trainings.
    Raises:
        InputError: a value out of range.
    """

    temperature_K: str = field(default="300,500,700", metadata={"help": "Kelvin, several with commas."})
    until_ps: float = field(default=100.0, metadata={"help": "What every run has to hold, picoseconds."})
    budget_labels: int = field(default=200, metadata={"help": "Labels in all."})
    labels_per_round: int = field(default=40, metadata={"help": "At most, in one round."})
    n_replicas: int = field(default=4, metadata={"help": "Runs at each temperature."})
    n_members: int = field(default=3, metadata={"help": "Models made of one potential."})
    uncertainty: float = field(
        default=10.0, metadata={"help": "A run stops at so many times the error bar of the validation frames."}
    )
    stretched: bool = True
    compile: bool = False
    timestep_fs: float = field(default=0.5, metadata={"help": "Femtoseconds."})
    frame_interval_fs: float = field(default=5.0, metadata={"help": "Between geometries to choose from."})
    window_ps: float = field(default=1.0, metadata={"help": "Geometries are chosen from so long before the end."})
    max_rounds: int | None = field(default=None, metadata={"help": "At most, after the first."})
    jobs: int = field(default=1, metadata={"help": "Processes that label side by side."})
    seed: int = field(default=0, metadata={"help": "Of dynamics, stretched bonds and trainings."})

    def __post_init__(self) -> None:
        lowest = {"budget_labels": 1, "labels_per_round": 1, "n_replicas": 1, "n_members": 2, "jobs": 1, "seed": 0}
        for name, least in lowest.items():
            self._check_whole(name, least)
        if self.max_rounds is not None:
            self._check_whole("max_rounds", 0)
        for name in ("until_ps", "uncertainty", "window_ps"):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not (math.isfinite(value) and value > 0)
            ):
                raise InputError(f"{name} must be a number > 0, got {value!r}")
        if len(set(self.temperatures_K)) < len(self.temperatures_K):
            raise InputError(f"temperature_K {self.temperature_K!r} names one twice; give each once")
        for temperature in self.temperatures_K:
            self.md_options(temperature, length_ps=self.lengths_ps[0], max_uncertainty=1.0, seed=0)  # checks the rest

    def _check_whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} must be a whole number >= {least}, got {value!r}")

    @property
    def temperatures_K(self) -> list[float]:
        """Of the runs, Kelvin, the hottest first: where one of these ends early, the others need not be long."""
        try:
            found = [float(value) for value in str(self.temperature_K).replace(",", " ").split()]
        except ValueError as error:
            raise InputError(f"temperature_K {self.temperature_K!r} is no list of numbers; give 300,500") from error
        if not found or not all(math.isfinite(value) and value > 0 for value in found):
            raise InputError(f"temperature_K must be numbers > 0, as in 300,500, got {self.temperature_K!r}")
        return sorted(found, reverse=True)

    @property
    def lengths_ps(self) -> list[float]:
        """How long the runs of a round are let run before they are looked at, the last time `until_ps`."""
        step = self.frame_interval_fs / 1000.0
        return sorted({min(self.until_ps, max(step, self.until_ps * share)) for share in SHARES})

    def md_options(self, temperature_K: float, *, length_ps: float, max_uncertainty: float, seed: int) -> MDOptions:
        """The options of the runs at one temperature."""
        return MDOptions(
            ensemble="langevin",
            temperature_K=temperature_K,
            timestep_fs=self.timestep_fs,
            length_ps=length_ps,
            equilibrate_ps=0.0,  # its frames are chosen from, too
            frame_interval_fs=self.frame_interval_fs,
            log_interval=max(1, round(2.0 / self.timestep_fs)),
            stop_when=f"uncertainty={max_uncertainty!r},domain,bond",
            seed=seed,
        )

    def to_json(self) -> dict[str, Any]:
        """What decides the result; `jobs` does not."""
        return {name: value for name, value in asdict(self).items() if name != "jobs"}


def improve_training(overrides: Sequence[str] = ()) -> tuple[TrainConfig, dict[str, Any]]:
    """How members are trained, `TRAINING` with overrides such as `train.n_steps=500`; and what overrides say of data.

    Raises:
        InputError: another section than train and data, an unknown or unfit option.
    """
    from remul_md.training.config import load_config  # after the options, whose flags need no torch
    from remul_md.training.sections import apply_override, check_learning_rate_named

    values: dict[str, Any] = {}
    for override in overrides:
        apply_override(values, override, example="train.n_steps=500")
    if unknown := sorted(set(values) - {"train", "data"}):
        raise InputError(
            f"the model is that of the potential: --set takes train.KEY and data.KEY here, got {unknown[0]}"
        )
    check_learning_rate_named(overrides, fine_tuning=True)
    given = values.get("train", {})
    for name, fixed in (("trained", "all"), ("forces", "conservative"), ("axis", None)):
        if given.get(name, fixed) != fixed:
            raise InputError(
                f"train.{name}={given[name]} cannot be used here: hot runs need energies and conservative forces of a "
                "molecule in no field; leave it out"
            )
    named = [override for override in overrides if override.startswith("train.")]
    defaults = [f"train.{key}={value}" for key, value in TRAINING.items()]
    return load_config(None, overrides=[*defaults, *named]).train, values.get("data", {})
