"""Where a potential comes from: the runs that trained it, on what, for how long and with which result."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from remul_md._version import __version__
from remul_md.structures.frames import field_axis

# What a record says of a single run of training.
RUN_FIELDS = ("config", "data", "metrics", "package_version", "commit", "seconds", "origin")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a potential comes from, JSON-able.

    Args:
        trained_forces: which head was trained: conservative, direct or both.
        config: the resolved config of the run.
        data: name, sha256 of the content and the split; of weights trained on cheap labels before, `pretraining`.
        metrics: validation figures of the saved weights.
        package_version: version of remul-md that trained it.
        commit: commit of the source tree, or "" if it was no checkout.
        seconds: training time on the data, that of `direct_head` included.
        origin: sha256 of the potential it was fine-tuned from, or "".
        members: of an ensemble, sha256 of the file (`sha256`) and provenance of each member.
        direct_head: where the direct head was trained alone, after everything else: config, data, metrics and the
            like of that run, with the sha256 of the potential that it started from as `origin`; else empty. The
            fields above are then those of the conservative forces.
        earlier: the runs that the weights went through before they were trained on from `origin`, oldest first: config,
            data, metrics and the like of each.
    """

    trained_forces: Literal["conservative", "direct", "both"]
    config: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    package_version: str = __version__
    commit: str = ""
    seconds: float = 0.0
    origin: str = ""
    members: list[dict[str, Any]] = field(default_factory=list)
    direct_head: dict[str, Any] = field(default_factory=dict)
    earlier: list[dict[str, Any]] = field(default_factory=list)

    def with_direct_head(self, run: Provenance) -> Provenance:
        """The record of this potential after a run that trained its direct head and nothing else."""
        record = {key: getattr(run, key) for key in RUN_FIELDS}
        record["seconds"] += self.direct_head.get("seconds", 0.0)  # of the head that this run went on from
        return replace(self, trained_forces="both", seconds=self.seconds + run.seconds, direct_head=record)

    def run_of(self, forces: Literal["conservative", "direct"]) -> dict[str, Any]:
        """Config, data, metrics, versions, seconds and origin of the run that trained this head."""
        if forces == "direct" and self.direct_head:
            return dict(self.direct_head)
        record = {key: getattr(self, key) for key in RUN_FIELDS}
        return record | {"seconds": self.seconds - self.direct_head.get("seconds", 0.0)}

    def to_json(self) -> dict[str, Any]:
        """Plain values; what only some potentials have is left out of the others."""
        of_some = ("members", "direct_head", "earlier")
        return {key: value for key, value in self.__dict__.items() if value or key not in of_some}

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs behind the weights, oldest first: what `earlier` is for a potential that is trained on from here.

        Training on cheap labels is not among them: it has a record of its own, `pretraining` in the data.
        """
        on_cheap_labels = not self.origin and "pretraining" in self.data
        last = [] if on_cheap_labels else [self.run_of("conservative")]
        return [*self.earlier, *last, *([self.direct_head] if self.direct_head else [])]

    @property
    def pretraining(self) -> str:
        """The cheap labels that the weights saw first, told beside every figure: "20,000 GFN2-xTB labels", or ""."""
        records = self._pretrainings()
        told = sorted({f"{record['n_labels']:,} {record['method']} labels" for record in records})
        some = f" ({len(records)} of {len(self.members)} members)" if 0 < len(records) < len(self.members) else ""
        return ", ".join(told) + some

    @property
    def total_seconds(self) -> float:
        """`seconds`, those of earlier runs, and those of labelling and training on cheap labels before."""
        earlier = [run for runs in (self.earlier, *(m.get("earlier", []) for m in self.members)) for run in runs]
        return self.seconds + float(sum(run["seconds"] for run in earlier)) + self.pretraining_seconds

    @property
    def pretraining_seconds(self) -> float:
        """Of labelling and training on cheap labels."""
        return float(sum(one["labelling_seconds"] + one["training_seconds"] for one in self._pretrainings()))

    @property
    def file_options(self) -> dict[str, Any]:
        """How the file of its training data calls the labels and in which units, as `config.data` says it; empty where
        the members of an ensemble say different things.
        """
        names = ("energy_key", "forces_key", "energy_unit", "length_unit", "force_unit")
        configs = [member["config"] for member in self.members] or [self.config]
        records = [{name: config.get("data", {}).get(name) for name in names} for config in configs]
        return records[0] if all(record == records[0] for record in records) else {}

    @property
    def fields_V_per_A(self) -> list[list[float]]:
        """The electric fields in which the labels were computed, V/Angstrom, each once; empty without one."""
        records = [member["data"] for member in self.members] or [self.data]
        return [list(field) for field in sorted({tuple(f) for data in records for f in data.get("fields_V_per_A", ())})]

    @property
    def axis(self) -> tuple[float, float, float] | None:
        """The axis whose rotations and mirrors are all that leaves the energy as it is: the direction of the field of
        the labels, else the `train.axis` of all members; None where all rotations do.
        """
        if (of_field := field_axis(self.fields_V_per_A)) is not None:
            return of_field
        asked = [options.get("axis") for options in self._training_options()]
        if asked[0] is None or any(axis != asked[0] for axis in asked):
            return None
        x, y, z = asked[0]
        return x, y, z

    @property
    def group(self) -> str:
        """Which rotations of the labelled frames trained the potential, in words: "O3", "SO3 about (0 0 1)", "none"."""
        return ", ".join(sorted({_group(options) for options in self._training_options()}))

    @property
    def direction_load(self) -> float | None:
        """The largest direction load that training measured, over heads and members; None where it measured none."""
        records = [
            record for member in self.members or [self.__dict__] for record in (member, member.get("direct_head"))
        ]
        loads = [(record or {}).get("metrics", {}).get("direction_load") for record in records]
        return max((load for load in loads if load is not None), default=None)

    def _training_options(self) -> list[dict[str, Any]]:
        configs = [member["config"] for member in self.members] or [self.config]
        return [config.get("train", {}) for config in configs]

    def _pretrainings(self) -> list[dict[str, Any]]:
        everyone = [member["data"] for member in self.members] or [self.data]
        return [data["pretraining"] for data in everyone if data.get("pretraining")]


def axis_in_words(axis: Sequence[float]) -> str:
    """An axis as reports name it: "(0 0 1)"."""
    return f"({' '.join(f'{component:.6g}' for component in axis)})"


def _group(options: dict[str, Any]) -> str:
    if options.get("beta", 1.0) == 0.0 and options.get("first_orientation", "original") == "original":
        return "none"
    axis = options.get("axis")
    return f"{options.get('group', 'O3')}" + ("" if axis is None else f" about {axis_in_words(axis)}")


def source_commit() -> str:
    """Commit of the checkout this package runs from, or "" for an installed one."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
        tracked = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 and tracked.returncode == 0 else ""
