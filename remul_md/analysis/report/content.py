"""What a report shows besides the analysis: the molecule in 3D, spectrum, vibrations at a minimum, parity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.parity import Parity
from remul_md.analysis.report.molecule import MoleculeView, molecule_view
from remul_md.analysis.spectrum import Spectrum, trajectory_spectrum
from remul_md.analysis.trajectory import TrajectoryAnalysis
from remul_md.analysis.vibrations import Vibrations, vibrations
from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from remul_md.dynamics.trajectory import TrajectoryArrays

Array = NDArray[np.float64]

MAX_MOMENTA = 30_000_000  # numbers, 240 MB: a million frames of ethanol
MAX_VIBRATING_ATOMS = 30  # 6N force calls and the relaxation: seconds for the molecules of rMD17, minutes beyond


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContent:
    """Parts of a report; a part that could not be made has its reason in `missing`, one that nobody asked for has none.

    Args:
        molecule: for the 3D view.
        spectrum: density of states of the run.
        vibrations: at the minimum nearest to its first frame.
        parity: labels of known frames beside the forces and energies of the potential.
        missing: sentences, by `molecule`, `spectrum`, `vibrations`, `parity`.
    """

    molecule: MoleculeView | None = None
    spectrum: Spectrum | None = None
    vibrations: Vibrations | None = None
    parity: Parity | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; null where a part is missing."""
        parts = {
            "molecule": self.molecule,
            "spectrum": self.spectrum,
            "vibrations": self.vibrations,
            "parity": self.parity,
        }
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
    parity: Callable[[], Parity] | None = None,
) -> RunContent:
    """Make what can be made; never fails for a part that the run has no data for.

    Args:
        blocks: consecutive parts of the run that was analysed, or all of it as one; read once.
        analysis: of it.
        atoms: a frame with a calculator in double precision: its minimum is sought and its vibrations are computed.
        any_size: vibrations of more than 30 atoms too.
        parity: predicts known frames; an `InputError` of it says why there is no such plot.
    """
    missing: dict[str, str] = {}
    molecule = spectrum = harmonic = compared = None
    heads: list[TrajectoryArrays] = []
    momenta: list[Array | None] = []
    stream = _keeping_momenta(blocks, heads, momenta)
    try:
        molecule = molecule_view(stream, analysis)
    except InputError as error:
        missing["molecule"] = f"No 3D view: {error}."
    for _ in stream:  # what the view did not read
        pass
    try:
        spectrum = trajectory_spectrum(_moving(heads, momenta, analysis))
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
    if parity is not None:
        try:
            compared = parity()
        except InputError as error:
            missing["parity"] = f"No parity plot: {error}."
    return RunContent(molecule=molecule, spectrum=spectrum, vibrations=harmonic, parity=compared, missing=missing)


def _keeping_momenta(
    blocks: Iterable[TrajectoryArrays], heads: list[TrajectoryArrays], momenta: list[Array | None]
) -> Iterator[TrajectoryArrays]:
    """The blocks one after the other; the first of them and all momenta, up to a size, are kept in the lists."""
    n_kept = 0
    for block in blocks:
        if not heads:
            heads.append(block)
        n_kept += block.positions.size
        momenta.append(block.momenta if n_kept <= MAX_MOMENTA else None)
        yield block


def _moving(
    heads: list[TrajectoryArrays], momenta: list[Array | None], analysis: TrajectoryAnalysis
) -> TrajectoryArrays:
    """The run as a spectrum reads it: all momenta, and frame 0 for the shape of the molecule.

    Raises:
        InputError: more momenta than are kept.
    """
    known = [part for part in momenta if part is not None]
    if heads[0].momenta is not None and len(known) < len(momenta):
        raise InputError(
            f"{len(analysis.time_ps):,} frames of {analysis.n_atoms:,} atoms are too many to keep their momenta; "
            "use `remul-md spectrum`"
        )
    positions = np.broadcast_to(heads[0].positions[0], (len(analysis.time_ps), analysis.n_atoms, 3))
    return replace(
        heads[0],
        positions=positions,
        time_ps=analysis.time_ps,
        momenta=np.concatenate(known) if known else None,
        forces=None,
        energy=None,
    )
