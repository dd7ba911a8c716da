"""A potential as a model of torch-sim (`pip install remul-md[torchsim]`): thousands of systems on one device.

    import torch_sim
    model = RemulTorchSimModel("ethanol")
    torch_sim.integrate([atoms] * 512, model, integrator=torch_sim.nve, n_steps=1000, temperature=300, timestep=0.0005)

Stresses are not trained, so constant pressure and relaxation of cells are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from remul_md.calculators.ase import RemulCalculator
from torch import Tensor
from torch_sim import SimState
from torch_sim.models.interface import ModelInterface

from remul_md.errors import InputError
from remul_md.models import Symmetry
from remul_md.potentials.potential import Dtype, ForcesChoice, Potential
from remul_md.structures.frames import Frames
from remul_md.structures.moving_systems import MovingSystems
from remul_md.symmetry.rotations import FixedSet


class Outputs(dict[str, Tensor]):
    """What a call gives; who asks it for stresses is told that there are none."""

    def __missing__(self, key: str) -> Tensor:
        if key == "stress":
            raise InputError(
                "constant pressure, cell relaxation and elastic constants need stresses, which no potential here has "
                "learned; use constant volume (torch_sim.nve, nvt_langevin, fire without cell filter)"
            )
        raise KeyError(key)


class RemulTorchSimModel(ModelInterface):
    """Energies, eV, and forces, eV/Angstrom, of all systems of a torch-sim state in one call.

    States are float64 (`model.dtype`), whatever the precision of the weights: displacements are formed in float64.

    Args:
        potential: a file, else the name of a shipped potential, or a loaded `Potential`.
        device: auto, cpu, cuda or cuda:N.
        dtype: of the weights, float32 or float64.
        forces: auto, conservative or direct.
        symmetry: "exact" cuts the raw directions, see `RemulCalculator`.
        symmetrize: average over a fixed set of rotations, see `RemulCalculator`.
        seed: of drawn rotations.
        allow_unseen: accept compositions that were never trained on.
        n_threads: of its own calls on the CPU; None: as torch is set.
    Raises:
        InputError: as `RemulCalculator`.
    """

    def __init__(
        self,
        potential: str | Path | Potential,
        *,
        device: str = "auto",
        dtype: Dtype = "float32",
        forces: ForcesChoice = "auto",
        symmetry: Symmetry | None = None,
        symmetrize: FixedSet | int | None = None,
        seed: int = 0,
        allow_unseen: bool = False,
        n_threads: int | None = 1,
    ) -> None:
        super().__init__()
        self.calculator = RemulCalculator(
            potential,
            device=device,
            dtype=dtype,
            forces=forces,
            symmetry=symmetry,
            symmetrize=symmetrize,
            seed=seed,
            allow_unseen=allow_unseen,
            n_threads=n_threads,
        )
        self._device, self._dtype = self.calculator.potential.device, torch.float64
        self._compute_forces, self._compute_stress = True, False
        # Molecules stand in cells of any size, which say nothing about their neighbours.
        periodic = self.calculator.potential.domain.periodic
        self._memory_scales_with = "n_atoms_x_density" if periodic else "n_atoms"
        self._known: tuple[Any, ...] | None = None
        self._kinds: list[tuple[NDArray[np.int64], Tensor]] = []
        self._systems: MovingSystems | None = None

    def forward(self, state: SimState | dict[str, Any]) -> dict[str, Tensor]:
        """`energy` [B], float64, and `forces` [A, 3] in the precision of the state; the state is left alone.

        Raises:
            InputError: a composition never trained on, a periodic state for a molecule-only potential; and, when the
                outputs are asked for them, stresses.
        """
        if not isinstance(state, SimState):
            state = SimState(**{"masses": torch.ones_like(state["positions"][:, 0]), **state})
        systems = self._systems_of(state)
        for numbers, atoms in self._kinds:
            self.calculator.rows_outside_training(numbers, state.positions.detach()[atoms])
        batch = systems.at(state.positions, cell=state.cell.mT if state.pbc else None)
        energy, forces = self.calculator.evaluate_batch(batch)
        return Outputs(energy=energy, forces=forces.to(state.positions.dtype))

    def _systems_of(self, state: SimState) -> MovingSystems:
        # Tensors are compared by identity and version: comparing values would wait for the device at every step.
        tensors = (state.atomic_numbers, state.system_idx)
        versions = tuple(tensor._version for tensor in tensors)
        if self._systems is not None and self._known is not None:
            known, known_versions, pbc = self._known
            same = all(a is b for a, b in zip(known, tensors, strict=True))
            if same and versions == known_versions and pbc == bool(state.pbc):
                return self._systems
        periodic = bool(state.pbc)
        n_atoms = torch.bincount(state.system_idx).cpu().numpy()
        frames = Frames(
            positions=state.positions.detach().double().cpu().numpy(),
            atomic_numbers=state.atomic_numbers.cpu().numpy().astype(np.int64),
            n_atoms=n_atoms.astype(np.int64),
            pbc=np.full((len(n_atoms), 3), periodic),
            cell=state.cell.mT.detach().double().cpu().numpy() if periodic else None,
            name="torch-sim state",
        )
        for system in range(len(frames)):
            self.calculator.require_known(frames.atoms(system))
        self._kinds = [] if periodic else self._atoms_by_kind(frames)
        self._systems = MovingSystems(frames, cutoff=self.calculator.potential.cutoff, device=self._device)
        self._known = (tensors, versions, periodic)
        return self._systems

    def _atoms_by_kind(self, frames: Frames) -> list[tuple[NDArray[np.int64], Tensor]]:
        """Atomic numbers [N] that systems share, and the atoms of those systems, [R, N], on the device."""
        found: dict[bytes, list[int]] = {}
        for system in range(len(frames)):
            found.setdefault(frames.frame_numbers(system).tobytes(), []).append(system)
        kinds = []
        for systems in found.values():
            numbers = frames.frame_numbers(systems[0]).copy()
            rows = frames.first_atom[systems][:, None] + np.arange(len(numbers))
            kinds.append((numbers, torch.from_numpy(rows).to(self._device)))
        return kinds
