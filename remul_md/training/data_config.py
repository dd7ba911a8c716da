"""The options of a training that say which frames it has."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from remul_md.datasets.file_options import HELP, FileOptions


class DataConfig(BaseModel):
    """Which frames train a potential; units of a file are said here, inside everything is eV and Angstrom."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    molecule: str | None = Field(None, description="a packaged rMD17 molecule; short for source rmd17/NAME/train-01")
    source: str | None = Field(None, description="a file, or a registered name such as rmd17/ethanol/train-01")
    n_train: int = Field(950, ge=1, description="training frames")
    n_validation: int = Field(50, ge=1, description="validation frames, out of the same source")
    split_seed: int = Field(0, ge=0, description="seed of the split")
    energy_unit: str | None = Field(None, description=HELP["energy_unit"])
    length_unit: str | None = Field(None, description=HELP["length_unit"])
    force_unit: str | None = Field(None, description=HELP["force_unit"])
    energy_key: str | None = Field(None, description=HELP["energy_key"])
    forces_key: str | None = Field(None, description=HELP["forces_key"])
    isolated_atoms: str | None = Field(
        None,
        description="a file of single atoms with their energies, in the units of the data; left out: single atoms "
        "among the frames of the source, for rmd17/... those of the package",
    )
    stretched: str | None = Field(
        None,
        description="further training frames with stretched and squeezed bonds, in eV and Angstrom: a file of "
        "remul-md label ... --stretched-bonds, or a molecule whose packaged ones are meant, such as ethanol",
    )
    unlabelled: str | None = Field(
        None, description="a file or registered name of geometries for the equivariance loss; its labels are not read"
    )
    unlabelled_length_unit: str | None = Field(None, description="unit of its positions where the file does not say it")
    allow_implausible: bool = Field(False, description="accept forces or distances that look like a wrong unit")

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if self.molecule is not None and self.source is not None:
            raise ValueError(
                f"data.molecule ({self.molecule}) and data.source ({self.source}) exclude each other; give one"
            )
        if self.unlabelled_length_unit is not None and self.unlabelled is None:
            raise ValueError(
                f"data.unlabelled_length_unit={self.unlabelled_length_unit} has no effect without data.unlabelled"
            )
        FileOptions.of(self)  # whose units are known ones
        return self

    @property
    def resolved_source(self) -> str:
        """The file or registered name the frames are read from."""
        return self.source if self.source is not None else f"rmd17/{self.molecule or 'ethanol'}/train-01"
