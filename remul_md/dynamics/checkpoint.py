"""The state of a run and its checkpoint: everything that the next step depends on, in float64."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from remul_md.dynamics.momenta import Array
from remul_md.dynamics.recording import write_atomically
from remul_md.errors import InputError

Phase = Literal["equilibration", "production"]
FORMAT_VERSION = 1
_ARRAYS = ("positions", "momenta", "forces", "first_positions")


@dataclass(kw_only=True)
class RunState:
    """Where a run stands. Changed in place by `remul_md.dynamics.run`.

    Args:
        phase: equilibration (Langevin) or production.
        step: steps done in this phase.
        n_dof: degrees of freedom in this phase.
        positions: [N, 3], Angstrom.
        momenta: [N, 3], in ASE's unit: a conversion to and fro could change the last bit.
        forces: at `positions`, [N, 3], eV/Angstrom; kept so that the next step sees the very same numbers.
        first_positions: of the structure that was given, [N, 3], Angstrom.
        rng_state: of the thermostat's generator.
        excess_sum: sum of (potential - internal kinetic energy), eV, over the second half of equilibration.
        excess_count: number of terms in it.
        temperature_sum: sum of the temperatures in the log of production, K.
        n_rows: rows of that log.
        n_frames: frames in the trajectory.
        first_total_energy: at the first step of this phase, eV.
        potential_energy: at `positions`, eV, in NVE: the shadow energy of the next step begins with it.
        steps_done: steps of all phases that this and earlier processes made.
        wall_s: the time they took.
        thermostat: its own variables, see `remul_md.dynamics.integrators`.
        marks: lengths of the files, see `Recorder.marks`.
    """

    phase: Phase
    positions: Array
    momenta: Array
    forces: Array
    first_positions: Array
    rng_state: dict[str, Any]
    n_dof: int
    step: int = 0
    excess_sum: float = 0.0
    excess_count: int = 0
    temperature_sum: float = 0.0
    n_rows: int = 0
    n_frames: int = 0
    first_total_energy: float | None = None
    potential_energy: float | None = None
    steps_done: int = 0
    wall_s: float = 0.0
    marks: dict[str, Any] = field(default_factory=dict)
    thermostat: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, state: RunState) -> None:
    """Write the state, replacing the last checkpoint at once."""
    scalars = {name: value for name, value in vars(state).items() if name not in _ARRAYS}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        scalars=np.array(json.dumps({"format_version": FORMAT_VERSION, **scalars})),
        **{name: getattr(state, name) for name in _ARRAYS},
    )
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> RunState:
    """Read a state; nothing is unpickled.

    Raises:
        InputError: the file cannot be read or is of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            scalars = json.loads(str(archive["scalars"]))
            arrays = {name: archive[name] for name in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read checkpoint {str(path)!r}: {error}; start anew under another name") from error
    version = scalars.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise InputError(
            f"checkpoint {str(path)!r} has format version {version}, this package reads {FORMAT_VERSION}; "
            "finish the run with the package version that began it (see the run's .json)"
        )
    return RunState(**scalars, **arrays)
