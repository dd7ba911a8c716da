"""What a report shows besides the analysis: the molecule in 3D, the spectrum of the run, vibrations at a minimum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from remul_md.analysis.report.molecule import MoleculeView, molecule_view
from remul_md.analysis.spectrum import Spectrum, trajectory_spectrum
from remul_md.analysis.trajectory import TrajectoryAnalysis
from remul_md.analysis.vibrations import Vibrations, vibrations
from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from remul_md.dynamics.trajectory import TrajectoryArrays

MAX_VIBRATING_ATOMS = 30  # 6N force calls and the relaxation: seconds for the molecules of rMD17, minutes beyond


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContent:
    """Parts of a report; a part that could not be made has its reason in `missing`, one that nobody asked for has none.

    Args:
        molecule: for the 3D view.
        spectrum: density of states of the run.
        vibrations: at the minimum nearest to its first frame.
        missing: sentences, by `molecule`, `spectrum`, `vibrations`.
    """

    molecule: MoleculeView | None = None
    spectrum: Spectrum | None = None
    vibrations: Vibrations | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; null where a part is missing."""
        parts = {"molecule": self.molecule, "spectrum": self.spectrum, "vibrations": self.vibrations}
        return {
            **{name: None if part is None else part.to_json() for name, part in parts.items()},
            "missing": dict(self.missing),
        }


def collect_content(
    blocks: Iterable[TrajectoryArrays],
    analysis: TrajectoryAnalysis,
    *,
    atoms: Atoms | None = None,
    any_size: bool = False,
) -> RunContent:
    """Make what can be made; never fails for a part that the run has no data for.

    Args:
        blocks: consecutive parts of the run that was analysed, or all of it as one; read once.
        analysis: of it.
        atoms: a frame with a calculator in double precision: its minimum is sought and its vibrations are computed.
        any_size: vibrations of more than 30 atoms too.
    """
    missing: dict[str, str] = {}
    parts = list(blocks)
    molecule = spectrum = harmonic = None
    try:
        molecule = molecule_view(parts, analysis)
    except InputError as error:
        missing["molecule"] = f"No 3D view: {error}."
    try:
        spectrum = trajectory_spectrum(_joined(parts))
    except InputError as error:
        missing["spectrum"] = f"No spectrum: {error}."
    if atoms is not None and len(atoms) > MAX_VIBRATING_ATOMS and not any_size:
        missing["vibrations"] = (
            f"No vibrations: {len(atoms)} atoms take {6 * len(atoms)} force calls and a relaxation; ask for them with "
            "--vibrations."
        )
    elif atoms is not None:
        try:
            harmonic = vibrations(atoms)
        except InputError as error:
            missing["vibrations"] = f"No vibrations: {error}."
    return RunContent(molecule=molecule, spectrum=spectrum, vibrations=harmonic, missing=missing)


def _joined(parts: list[TrajectoryArrays]) -> TrajectoryArrays:
    """One run of consecutive parts, with what a spectrum reads."""
    from dataclasses import replace

    if len(parts) == 1:
        return parts[0]
    momenta = [part.momenta for part in parts if part.momenta is not None]
    return replace(
        parts[0],
        time_ps=np.concatenate([part.time_ps for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
        momenta=np.concatenate(momenta) if len(momenta) == len(parts) else None,
    )
