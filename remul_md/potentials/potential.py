"""A trained model with everything needed to use it: species, reference energies, units, provenance, domain.

File format (`*.pt`): one dict of plain values, loaded with `weights_only=True`, so nothing in a file is executed:
`format_version` (integer), `metadata` (a JSON string), `weights` (name -> tensor), `reference_energies` (float64).
An ensemble has stacked weights, and `member_references`. Nothing has been released, so one format is read.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from remul_md._version import __version__
from remul_md.errors import InputError
from remul_md.files import save_tensors
from remul_md.models import (
    Forces,
    Symmetry,
    build_model,
    exact_model,
    model_config,
    symmetry_of,
    without_raw_directions,
)
from remul_md.potentials.baseline import atomic_references, with_references
from remul_md.potentials.domain import Domain
from remul_md.potentials.provenance import Provenance
from remul_md.potentials.settings import own_settings
from remul_md.structures.batch import Batch, Prediction, mapped

logger = logging.getLogger(__name__)

FORMAT_VERSION = 6
# Above it the raw directions carry so much that cutting them leaves another potential than the one that was trained.
MAX_LOAD_OF_EXACT = 1.5
UNITS = {"energy": "eV", "length": "Angstrom", "forces": "eV/Angstrom", "mass": "amu"}
ForcesChoice = Literal["auto", "conservative", "direct"]
Dtype = Literal["float32", "float64"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Potential:
    """Energies and forces in eV and eV/Angstrom from a trained model.

    Args:
        model: a registered model, in evaluation mode.
        reference_energies: energy of each species, [S], eV, float64; taken off before training, put back here.
        domain: what the training data covered.
        provenance: where it comes from.
        sha256: of the file it was loaded from, or "".
        member_references: of an ensemble, reference energies of each member, [M, S], eV, float64, whose mean is
            `reference_energies`; members that saw other frames have slightly others.
    """

    model: nn.Module
    reference_energies: Tensor
    domain: Domain
    provenance: Provenance
    sha256: str = ""
    member_references: Tensor | None = None

    @property
    def config(self) -> Any:
        """Config of the model."""
        return self.model.config

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers the model knows."""
        return tuple(self.config.species)

    @property
    def cutoff(self) -> float:
        """Pair distance limit, Angstrom."""
        return float(self.config.cutoff)

    @property
    def n_members(self) -> int:
        """1, or the number of members of an ensemble."""
        return 1 if self.member_references is None else len(self.member_references)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    @own_settings()
    def to(self, *, device: torch.device | str | None = None, dtype: Dtype | None = None) -> Potential:
        """The same potential on another device or in another precision; this one stays as it is."""
        parameter = next(self.model.parameters())
        where = parameter.device if device is None else torch.device(device)
        precision = parameter.dtype if dtype is None else torch_dtype(dtype)
        if (where, precision) == (parameter.device, parameter.dtype):
            return self
        # A copy: `Module.to` would change the model for every calculator that shares it.
        model = copy.deepcopy(self.model).to(device=where, dtype=precision)
        references = self.member_references
        return replace(
            self,
            model=model,
            reference_energies=self.reference_energies.to(device=where),
            member_references=None if references is None else references.to(device=where),
        )

    @property
    def symmetry(self) -> Symmetry:
        """ "exact" where rotations and mirror images are built in or were cut to, "none" if plain, else "relaxed"."""
        return symmetry_of(self.model)

    @own_settings()
    def with_symmetry(self, symmetry: Symmetry | None) -> Potential:
        """The potential in this mode: "exact" cuts the raw directions of a relaxed one, None leaves it as it is.

        Raises:
            InputError: an unknown mode, "relaxed" for a potential that has no raw directions, "exact" for a plain one,
                or for one whose raw directions carry it: with the direction load that training measured above
                `MAX_LOAD_OF_EXACT`.
        """
        if symmetry not in (None, "relaxed", "exact"):
            raise InputError(f"symmetry must be relaxed or exact, got {symmetry!r}")
        if symmetry is None or symmetry == self.symmetry:
            return self
        if self.symmetry == "none" and symmetry == "relaxed":
            raise InputError("symmetry='relaxed' was asked for, but this is a plain network; leave the option out")
        if self.symmetry == "none":
            return replace(self, model=exact_model(self.model))  # says why not
        if symmetry == "relaxed":
            raise InputError(
                "symmetry='relaxed' was asked for, but this potential is exactly symmetric: it has no raw directions; "
                "leave the option out"
            )
        load = self.provenance.direction_load
        if load is not None and load > MAX_LOAD_OF_EXACT:
            field = self.provenance.fields_V_per_A
            raise InputError(
                f"symmetry='exact' would make the force error {load:.1f} times as large: its direction load on the "
                f"validation frames{f', in an electric field of {field} V/Angstrom,' if field else ''} is above "
                f"{MAX_LOAD_OF_EXACT:g}, so the raw directions carry this potential; leave the option out"
            )
        return replace(self, model=exact_model(self.model))

    def without_raw_directions(self) -> Potential:
        """What is left when the raw directions are cut, whatever they carry: for its error."""
        return replace(self, model=without_raw_directions(self.model))

    @property
    def group(self) -> str:
        """Rotations and mirrors that it knows, in words: built in, or those that it was trained with."""
        return "O3, built in" if self.symmetry == "exact" else self.provenance.group

    def resolve_forces(self, forces: ForcesChoice) -> Literal["conservative", "direct"]:
        """The head to use: "auto" serves what was trained, conservative first.

        Raises:
            InputError: unknown choice, or a head that was never trained.
        """
        if forces not in ("auto", "conservative", "direct"):
            raise InputError(f"forces must be auto, conservative or direct, got {forces!r}")
        trained = self.provenance.trained_forces
        if forces == "auto":
            return "direct" if trained == "direct" else "conservative"
        if trained not in (forces, "both"):
            raise InputError(
                f"forces={forces!r} was asked for, but this potential was trained for {trained} forces; "
                f"use forces={trained!r} or train with train.forces=both"
                + (" (`remul-md distill` adds a direct head)" if forces == "direct" else "")
            )
        return forces

    def predict(self, batch: Batch, *, forces: Forces = "conservative") -> Prediction:
        """Total energies (float64, references put back) and forces of a batch; no graph is kept.

        Args:
            batch: systems on the potential's device, neighbours within `cutoff`.
            forces: as `ForceModel`.
        Returns:
            The prediction; of an ensemble the mean, with the members in `members`.
        """
        with own_settings(), torch.no_grad():
            if batch.positions.is_inference():  # made in inference mode: such tensors have no gradients anywhere
                batch = mapped(batch, torch.clone)
            out = self.model(self.in_its_field(batch), forces=forces)
            return with_references(out, self.atomic_references(batch), self.member_atomic_references(batch))

    def in_its_field(self, batch: Batch) -> Batch:
        """The batch with the electric field of the labels, where there is one and the batch has none."""
        if batch.field_V_per_A is not None or not (fields := self.provenance.fields_V_per_A):
            return batch
        of_labels = batch.positions.new_tensor(fields[0]).expand(batch.n_systems, 3)
        return replace(batch, field_V_per_A=of_labels)  # a model that reads it was taught no other

    def atomic_references(self, batch: Batch) -> Tensor:
        """Reference energy of each atom, [A], eV, float64."""
        return atomic_references(batch.atomic_numbers, self.species, self.reference_energies)

    def member_atomic_references(self, batch: Batch) -> list[Tensor]:
        """Those of each member; none of a single model."""
        each = () if self.member_references is None else self.member_references
        return [atomic_references(batch.atomic_numbers, self.species, own) for own in each]

    def save(self, path: str | Path) -> None:
        """Write the file atomically; weights are stored in float32, as they were trained.

        Raises:
            InputError: the file cannot be written.
        """
        kind, options = model_config(self.model)
        metadata = {
            "package_version": __version__,
            "units": UNITS,
            "model": {"kind": kind, "options": options},
            "domain": self.domain.to_json(),
            "provenance": self.provenance.to_json(),
        }
        ensemble = {} if self.member_references is None else {"member_references": self.member_references.cpu()}
        weights = {name: value.detach().to("cpu", torch.float32) for name, value in self.model.state_dict().items()}
        save_tensors(
            Path(path),
            {
                "format_version": FORMAT_VERSION,
                "metadata": json.dumps(metadata),
                "weights": weights,
                "reference_energies": self.reference_energies.cpu(),
                **ensemble,
            },
        )


@own_settings()
def load_potential(path: str | Path, *, device: torch.device | str = "cpu", dtype: Dtype = "float32") -> Potential:
    """A potential from its file, or a shipped one by its name; a file comes first.

    Raises:
        InputError: no such file or name, a damaged file, a pickle (never executed), a newer format.
    """
    file = find_potential(path)
    payload = _read_payload(file)
    try:
        metadata = json.loads(payload["metadata"])
        # The file replaces these weights: the caller's random state is kept.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            model = build_model(metadata["model"]["kind"], metadata["model"]["options"])
        domain = Domain.from_json(metadata["domain"])
        provenance = Provenance(**metadata["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: its metadata cannot be read ({error}); the file is damaged") from error
    try:
        model.load_state_dict(payload["weights"])
    except RuntimeError as error:
        raise InputError(
            f"{file}: the weights do not fit the model they name ({error}); the file is damaged"
        ) from error
    model.eval().requires_grad_(False)
    potential = Potential(
        model=model,
        reference_energies=payload["reference_energies"],
        domain=domain,
        provenance=provenance,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        member_references=payload.get("member_references"),
    )
    return potential.to(device=device, dtype=dtype)


def find_potential(path: str | Path) -> Path:
    """The file of a potential: a path first, else a shipped potential of that name (with or without `.pt`).

    Raises:
        InputError: neither is there; the shipped names are listed.
    """
    file = Path(path)
    if file.is_file():
        return file
    shipped = shipped_potentials()
    if str(path) in (file.stem, file.name) and file.stem in shipped and file.suffix in ("", ".pt"):
        logger.info("potential %s, shipped with remul-md %s", file.stem, __version__)
        return shipped[file.stem]
    if file.is_dir():
        raise InputError(f"{file}: is a folder; give the potential inside it, such as {file / 'potential.pt'}")
    raise InputError(f"potential {str(path)!r} is no file and not shipped; shipped: {', '.join(shipped) or 'none'}")


def shipped_potentials() -> dict[str, Path]:
    """Name and file of every potential in the package."""
    from remul_md.data import potentials

    return {file.stem: file for file in sorted(Path(potentials.__path__[0]).glob("*.pt"))}


def resolve_device(device: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU.

    Raises:
        InputError: a device that torch does not know or that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):  # torch knows more; displacements need float64, which MPS lacks
        raise InputError(f"device {device!r} cannot be used; use auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r} was asked for, but torch {torch.__version__} sees no CUDA device; use cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device!r} is not there; torch sees {torch.cuda.device_count()} CUDA device(s)")
    return chosen


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """torch's type of "float32" or "float64".

    Raises:
        InputError: anything else.
    """
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype must be float32 or float64, got {dtype!r}")
    return torch.float32 if dtype == "float32" else torch.float64


def _read_payload(file: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(file):
        raise InputError(f"{file}: is truncated or no potential of remul-md; copy it again or retrain")
    # torch.load does not look at the checksums: a flipped bit would give plausible, wrong forces.
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{file}: is damaged ({error}); copy it again or retrain") from error
    if damaged is not None:
        raise InputError(f"{file}: is damaged (checksum of {damaged}); copy it again or retrain")
    try:
        payload = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types; a pickle payload lands here unexecuted
        raise InputError(
            f"{file}: holds more than tensors and plain values, or is damaged, and was not executed "
            f"({type(error).__name__}); get the file again from a source you trust"
        ) from error
    version = payload.get("format_version") if isinstance(payload, dict) else None
    if not isinstance(version, int):
        raise InputError(f"{file}: is a torch file but no potential of remul-md (no format_version)")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{file}: has format {version}, remul-md {__version__} reads format {FORMAT_VERSION}; "
            "use the version that wrote it, or train the potential again"
        )
    missing = {"metadata", "weights", "reference_energies"} - payload.keys()
    if missing:
        raise InputError(f"{file}: lacks {', '.join(sorted(missing))}; the file is damaged")
    return payload
