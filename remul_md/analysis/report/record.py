"""What a report tells of the potential from its own record: its molecule, its data, and how accurate it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from remul_md.potentials.potential import Potential, shipped_potentials
from remul_md.potentials.zoo import stored_figures


@dataclass(frozen=True, kw_only=True)
class PotentialRecord:
    """The potential of a run, as its file and what ships beside it say.

    Args:
        molecule: name of what it was trained on, such as `ethanol`; empty where its data have no such name.
        training_data: their name.
        data_temperature_K: of the dynamics that the training data are from; None where that is not known.
        validation_force_mae_meV_per_A: of its validation frames, in their own orientations; None where not recorded.
        fields_V_per_A: electric fields in which its labels were computed, each once.
        figures: of `remul-md evaluate` for this file and these forces, where they ship beside it.
    """

    molecule: str = ""
    training_data: str = ""
    data_temperature_K: float | None = None
    validation_force_mae_meV_per_A: float | None = None
    fields_V_per_A: tuple[tuple[float, ...], ...] = ()
    figures: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, potential: Potential, *, forces: Literal["conservative", "direct"]) -> PotentialRecord:
        """The record of the run that trained these forces."""
        from remul_md.datasets.registry import find_entry
        from remul_md.errors import InputError

        run = potential.provenance.run_of(forces)
        name = str(run["data"].get("name", ""))
        try:
            entry = find_entry(name)
        except InputError:  # a file of the user's
            entry = None
        return cls(
            molecule="" if entry is None else entry.molecule,
            training_data=name,
            data_temperature_K=None if entry is None else entry.temperature_K,
            validation_force_mae_meV_per_A=run["metrics"].get("validation_force_mae_meV_per_A"),
            fields_V_per_A=tuple(tuple(field) for field in potential.provenance.fields_V_per_A),
            figures=shipped_figures(potential, forces=forces),
        )


def shipped_figures(potential: Potential, *, forces: Literal["conservative", "direct"]) -> dict[str, Any] | None:
    """The figures of `remul-md evaluate` that ship with this very file, for these forces and as it is used here."""
    for file in shipped_potentials().values():
        figures, _ = stored_figures(file, potential, forces=forces)
        if not figures:
            continue
        if figures.get("symmetry") == potential.symmetry:
            return figures
        # The other figures are of the relaxed network; of the exact one the force error alone is kept.
        exact = figures.get("force_mae_exact")
        if potential.symmetry != "exact" or exact is None:
            return None
        kept: dict[str, Any] = {key: figures[key] for key in ("data", "n_frames", "forces") if key in figures}
        return {**kept, "symmetry": "exact", "force_mae_original": exact, "force_mae_rotated": exact}
    return None
