"""The ASE calculator."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray
from remul_md.calculators.copies import Copies, Geometries
from torch import Tensor

from remul_md.errors import InputError
from remul_md.models import Symmetry
from remul_md.potentials.compiled import CompiledPotential
from remul_md.potentials.domain import require_known_charge, require_known_composition
from remul_md.potentials.potential import Dtype, ForcesChoice, Potential, load_potential, resolve_device
from remul_md.potentials.settings import check_threads, own_settings
from remul_md.potentials.structure_check import StructureCheck
from remul_md.structures.batch import Batch, Prediction
from remul_md.structures.frames import Frames, frames_from_atoms, states_spin, total_charge
from remul_md.structures.moving_systems import MAX_ATOMS_ALL_PAIRS, MovingSystems
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rigid import rigid_part_of
from remul_md.symmetry.rotations import FixedSet, rotate_vectors, rotated_copies, symmetrizing_rotations

logger = logging.getLogger(__name__)


class RemulCalculator(Calculator):
    """Energies (eV) and forces (eV/Angstrom) of a trained potential, for anything in ASE.

    Args:
        potential: a file, else the name of a shipped potential, or a loaded `Potential`.
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
        dtype: float32, or float64 for finite differences and tight optimisations.
        forces: conservative (minus the gradient of the energy), direct (the fast head), or auto: what was trained.
        symmetry: "exact" cuts the raw directions of a relaxed potential, so that energy and forces turn with the
            molecule exactly; for an isolated molecule this costs nothing (`docs/symmetry.md`). Refused where training
            measured that the raw directions carry the potential. Default: as trained.
        symmetrize: average over a fixed set of rotations in one batched call: tetrahedral (12), octahedral (24),
            icosahedral (60), or that many seeded Haar draws. The set is fixed for the calculator's life, so an
            averaged conservative potential is still conservative.
        seed: seed of those draws.
        remove_net_torque: take net force and net torque off the forces, see `remul_md.symmetry.rigid`: angular
            momentum is then conserved, and energy exactly so only where the molecule does not turn.
        allow_unseen: accept compositions that were never trained on (their elements must be known).
        compile: compile energies and forces for each molecule that is met, once, for minutes; it is kept on disk and
            several times as fast afterwards (`docs/speed.md`). Isolated molecules up to 64 atoms, no ensembles.
        n_threads: of its own calls on the CPU, whatever torch is set to; small molecules are fastest with one, and
            with one a process may fork. None: as torch is set.
    Raises:
        InputError: no such potential, an untrained head, an unknown option or device, or nothing to compile with.

    `calc.parameters` holds what the numbers hang on: among them `group`, the rotations that the potential was taught or
    that are built in, and `field_V_per_A`, the electric field of its labels, or None.

    `calc.diagnostics` holds what the last calculation says about itself: `forces` (the head used), `n_rotations`,
    with `symmetrize` `rotational_spread` (meV/Angstrom per component) and `energy_spread` (meV), the scatter
    over the rotations, and for an ensemble `forces_std` ([N, 3], eV/Angstrom) and `energy_std` (eV), the standard
    deviations over its members. `in_domain` says whether an isolated molecule is like the training data,
    `outside_training` holds a line for each way in which it is not (a warning says the same). With `remove_net_torque`
    it holds what was taken off, `net_force` (eV/Angstrom) and `net_torque` (eV), [3] each. It stands outside `results`,
    where ASE's exporters refuse unknown keys.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 (ASE's protocol)

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
        remove_net_torque: bool = False,
        allow_unseen: bool = False,
        compile: bool = False,
        n_threads: int | None = 1,
    ) -> None:
        super().__init__()  # nothing is forwarded: ASE would keep a misspelt option without complaint
        check_threads(n_threads)
        self._n_threads = n_threads
        chosen = resolve_device(device)
        with own_settings(n_threads=n_threads):
            self._rotations = None if symmetrize is None else symmetrizing_rotations(symmetrize, seed=seed)
            if isinstance(potential, Potential):
                loaded = potential.to(device=chosen, dtype=dtype)
            else:
                loaded = load_potential(potential, device=chosen, dtype=dtype)
            self.potential = loaded.with_symmetry(symmetry)
        self._forces = self.potential.resolve_forces(forces)
        self._remove_net_torque = remove_net_torque
        self._allow_unseen = allow_unseen
        self._compile = compile
        self._systems: MovingSystems | None = None
        self._compiled: list[CompiledPotential] = []
        self._structures = StructureCheck(self.potential.domain)
        self._known_numbers: np.ndarray | None = None
        self.diagnostics: dict[str, Any] = {}
        # What tools find in `parameters` and databases in `todict`: all that the numbers hang on.
        self.parameters.update(
            potential="" if isinstance(potential, Potential) else Path(potential).stem,
            potential_sha256=self.potential.sha256,
            forces=self._forces,
            symmetry=self.potential.symmetry,
            group=self.potential.group,
            field_V_per_A=next(iter(self.potential.provenance.fields_V_per_A), None),
            symmetrize=symmetrize,
            seed=seed if isinstance(symmetrize, int) else None,
            remove_net_torque=remove_net_torque,
            dtype=dtype,
            device=str(self.potential.device),
            compile=compile,
        )

    def set(self, **options: Any) -> dict[str, Any]:
        """Nothing can be changed afterwards: what is named as it is passes, all else is refused.

        Raises:
            InputError: an option that is unknown, or is something else.
        """
        for name, value in options.items():
            if name not in self.parameters or self.parameters[name] != value:
                now = f"is {self.parameters[name]!r}" if name in self.parameters else "is no option"
                raise InputError(f"{name}={value!r} has no effect here ({name} {now}); make a new RemulCalculator")
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """For pickles and copies; compiled functions are found in the cache again where they are needed."""
        return {**self.__dict__, "_compiled": []}

    @property
    def allowed_atomic_numbers(self) -> list[int]:
        """Elements it knows, where tools look for them."""
        return list(self.potential.species)

    @property
    def head(self) -> Literal["conservative", "direct"]:
        """Which of the potential's forces it gives."""
        return self._forces

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What changed since the last calculation; only what the model sees, so this costs microseconds.

        ASE's own check compares every array and costs more than a small model (0.5 ms).
        """
        if self.atoms is None:
            return list(all_changes)
        changes = []
        if not np.array_equal(self.atoms.arrays["positions"], atoms.arrays["positions"]):
            changes.append("positions")
        if not np.array_equal(self.atoms.arrays["numbers"], atoms.arrays["numbers"]):
            changes.append("numbers")
        if not np.array_equal(self.atoms.cell.array, atoms.cell.array):
            changes.append("cell")
        if not np.array_equal(self.atoms.pbc, atoms.pbc):
            changes.append("pbc")
        if total_charge(self.atoms) != total_charge(atoms):
            changes.append("initial_charges")
        if states_spin(self.atoms) != states_spin(atoms):
            changes.append("initial_magmoms")
        if self._remove_net_torque and not np.array_equal(self.atoms.get_masses(), atoms.get_masses()):
            changes.append("masses")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces"),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy and forces of `atoms`; both, whichever was asked for.

        Raises:
            InputError: a composition never trained on, a periodic cell for a molecule-only potential, positions
                that are not finite, two atoms at one place, no atoms.
        """
        structure = self.atoms if atoms is None else atoms
        if structure is None:
            raise InputError("no structure was given; call with atoms")
        periodic = self.require_known(structure)
        outside = () if periodic else self.outside_training(structure.numbers, structure.positions)
        self.atoms = structure.copy()
        with own_settings(n_threads=self._n_threads):
            batch = self._batch_of(structure)
            energy, forces = self._evaluate(batch)
        self.diagnostics["outside_training"] = outside
        if not periodic:
            self.diagnostics["in_domain"] = not outside
        if self._compile and not math.isfinite(energy):
            # Without a search nobody has looked at the geometry: this says which atoms are at one place, or nowhere.
            build_batch(frames_from_atoms([structure], name="structure"), cutoff=self.potential.cutoff)
        if self._remove_net_torque:
            rest = rigid_part_of(forces, batch, torch.from_numpy(structure.get_masses()))
            self.diagnostics |= {"net_force": rest.net_force[0].numpy(), "net_torque": rest.net_torque[0].numpy()}
            forces = rest.forces
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": forces.double().cpu().numpy(),
        }

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Energies [B], eV, float64, and forces [A, 3], eV/Angstrom, of many systems at once; not checked, not kept.

        With the options of this calculator but `remove_net_torque`, since a batch has no masses.

        Args:
            batch: on the potential's device.
        """
        energies, forces, _ = self._of_batch(batch, with_std=False)
        return energies, forces

    def _of_batch(self, batch: Batch, *, with_std: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        with own_settings(n_threads=self._n_threads):
            orientations, rotations = self._orientations(batch)
            out = self._predict(orientations)
            energies, forces = self._rotated_back(out, rotations, batch.n_atoms)
            std = self._std(out, rotations, batch)[1] if with_std and out.members is not None else None
            return _mean(energies.view(-1, batch.n_systems)), _mean(forces), std

    def copies(self, atoms: Atoms, *, n_copies: int, diagnose: bool = False) -> Copies:
        """A function of positions [R, N, 3], Angstrom, of R copies of `atoms`: energies [R], eV, and forces.

        All copies go through the model in one call, with the options of this calculator.

        Args:
            atoms: the molecule.
            n_copies: R.
            diagnose: keep in its `diagnostics` what is told of each copy, which runs with `stop_when` read.
        Raises:
            InputError: as `calculate`.
        """
        isolated = not self.require_known(atoms)
        masses = torch.from_numpy(np.tile(atoms.get_masses(), n_copies))

        def evaluated(batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
            energies, forces, std = self._of_batch(batch, with_std=diagnose)
            if self._remove_net_torque:
                forces = rigid_part_of(forces, batch, masses).forces
            return energies, forces, std

        return Copies(
            self._fixed_systems(frames_from_atoms([atoms] * n_copies, name="structure")),
            atomic_numbers=atoms.numbers.copy(),
            evaluated=evaluated,
            warn=self.outside_training if isolated else None,
            check=self._structures if diagnose else None,
        )

    def _batch_of(self, structure: Atoms) -> Batch:
        """The batch of one structure, on the potential's device."""
        if not self._compile:
            # Nothing is kept from the last call, not even the padding: a resumed run must give the same bits.
            frames = frames_from_atoms([structure], name="structure")
            return build_batch(frames, cutoff=self.potential.cutoff).to(self.potential.device)
        systems = self._systems
        if systems is None or structure.pbc.any() or not np.array_equal(systems.atomic_numbers, structure.numbers):
            frames = frames_from_atoms([structure], name="structure")
            systems = self._systems = self._fixed_systems(frames)
        return systems.at(torch.from_numpy(structure.positions))

    def _fixed_systems(self, frames: Frames) -> MovingSystems:
        systems = MovingSystems(frames, cutoff=self.potential.cutoff, device=self.potential.device)
        if self._compile and systems.searches:
            raise InputError(
                f"compile=True takes isolated molecules of up to {MAX_ATOMS_ALL_PAIRS} atoms, whose neighbours never "
                f"change; this one has {int(frames.n_atoms.max())} atoms, pbc {frames.pbc[0].tolist()}; leave it off"
            )
        return systems

    def _predict(self, batch: Batch) -> Prediction:
        if not self._compile:
            return self.potential.predict(batch, forces=self._forces)
        for compiled in self._compiled:
            if compiled.serves(batch):
                return compiled.predict(batch.positions)
        # Seen without any setting of logs: minutes of silence look like a hang.
        compiled = CompiledPotential(self.potential, batch, forces=self._forces, say=logger.warning)
        self._compiled.append(compiled)
        return compiled.predict(batch.positions)

    def _orientations(self, batch: Batch) -> tuple[Batch, Tensor | None]:
        """The batch in all orientations to average over, and their rotations [G, 3, 3]; as it is without
        `symmetrize`."""
        if self._rotations is None:
            return batch, None
        rotations = self._rotations.to(batch.positions.device)
        return rotated_copies(batch, rotations.unsqueeze(1).expand(-1, batch.n_systems, 3, 3)), rotations

    def _evaluate(self, batch: Batch) -> tuple[float, Tensor]:
        self.diagnostics = {"forces": self._forces, "n_rotations": 1}
        orientations, rotations = self._orientations(batch)
        out = self._predict(orientations)
        energies, forces = self._rotated_back(out, rotations, batch.n_atoms)
        if rotations is not None:
            several = len(rotations) > 1
            self.diagnostics |= {
                "n_rotations": len(rotations),
                "rotational_spread": 1000.0 * float(forces.var(dim=0).mean().sqrt()) if several else 0.0,
                "energy_spread": 1000.0 * float(energies.std()) if several else 0.0,
            }
        if out.members is not None:
            energy_std, forces_std = self._std(out, rotations, batch)
            self.diagnostics |= {"energy_std": float(energy_std), "forces_std": forces_std.double().cpu().numpy()}
        return float(_mean(energies)), _mean(forces)

    def _std(self, out: Prediction, rotations: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """Error bars from the members: of energies [B] and forces [A, 3]."""
        assert out.members is not None
        members = [self._rotated_back(member, rotations, batch.n_atoms) for member in out.members]
        energies = torch.stack([_mean(energy.view(-1, batch.n_systems)) for energy, _ in members])
        forces = torch.stack([_mean(forces) for _, forces in members])
        return energies.std(0) * out.std_scale, forces.std(0) * out.std_scale

    def _rotated_back(self, out: Prediction, rotations: Tensor | None, n_atoms: int) -> tuple[Tensor, Tensor]:
        """Energies [G * B] and forces [G, N, 3] of the orientations, rotated back to the original orientation."""
        forces = out.of_head(self._forces)
        assert out.energy is not None
        if rotations is not None:
            back = rotations.mT.repeat_interleave(len(out.energy) // len(rotations), dim=0)
            forces = rotate_vectors(forces.double(), back, system_index=out.system_index)
        return out.energy, forces.view(-1, n_atoms, 3)

    def require_known(self, atoms: Atoms) -> bool:
        """Refuse what this potential cannot know, and warn of a stated spin, which it cannot read.

        Returns:
            Whether the structure is periodic.
        Raises:
            InputError: a composition or a total charge never trained on, a periodic cell for a molecule-only
                potential, or a periodic cell with `remove_net_torque`.
        """
        domain = self.potential.domain
        periodic = bool(atoms.pbc.any())
        if periodic and not domain.periodic:
            raise InputError(
                f"pbc is {atoms.pbc.tolist()}, but this potential was trained on isolated molecules; "
                "set atoms.pbc = False, or give --ignore-cell on the command line, if it is a molecule in a box"
            )
        if periodic and self._remove_net_torque:
            raise InputError(
                f"pbc is {atoms.pbc.tolist()}: a periodic system has no net torque to remove; "
                "leave remove_net_torque out"
            )
        require_known_charge(domain, total_charge(atoms))
        if states_spin(atoms):
            warnings.warn(
                "the structure states a spin or magnetic moments, which no network here reads: the energy is that of "
                "the electronic state of the training data",
                UserWarning,
                stacklevel=4,
            )
        # What follows hangs on the numbers alone, so it is the same as for the last structure that had them.
        if self._known_numbers is not None and np.array_equal(self._known_numbers, atoms.numbers):
            return periodic
        if not self._allow_unseen or len(atoms) == 0:
            require_known_composition(domain, atoms.numbers, species=self.potential.species)
        elif unknown := set(atoms.numbers.tolist()) - set(self.potential.species):
            raise InputError(f"atomic numbers {sorted(unknown)} were never trained on; no option can help that")
        self._known_numbers = atoms.numbers.copy()
        return periodic

    def outside_training(self, numbers: NDArray[np.int64], positions: Geometries) -> tuple[str, ...]:
        """Why geometries of an isolated molecule are outside the training data, warned of and returned.

        Every structure is looked at anew. Bonds and distances know no periodic images, so there is nothing to call
        this for in a periodic system.

        Args:
            numbers: atomic numbers, [N].
            positions: [N, 3] or [R, N, 3], Angstrom.
        """
        return self._warned(self._structures.outside(numbers, positions))

    def rows_outside_training(self, numbers: NDArray[np.int64], positions: Tensor) -> tuple[str, ...]:
        """As `outside_training`, for [R, N, 3] on any device."""
        return self._warned(self._structures.rows_outside(numbers, positions))

    @staticmethod
    def _warned(reasons: tuple[str, ...]) -> tuple[str, ...]:
        for line in reasons:
            warnings.warn(f"{line}: outside the training data, errors may be large", UserWarning, stacklevel=4)
        return reasons


def _mean(values: Tensor) -> Tensor:
    """Mean over the orientations, [G, ...] -> [...]; without `symmetrize` the one orientation as it is."""
    return values[0] if len(values) == 1 else values.mean(0)
