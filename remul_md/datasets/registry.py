"""The data sets that have a name: what they are, where they come from, and where they lie on this machine.

A name such as `rmd17/ethanol/test-01` means the packaged copy where there is one (float32 positions and forces,
works offline), else the file that `fetch` put into the cache.
"""

from __future__ import annotations

import difflib
import hashlib
import shlex
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from remul_md.errors import InputError
from remul_md.files import cache_directory

PACKAGED_DATA = "remul_md.data.rmd17"  # the folder data/rmd17, mapped into the package by pyproject.toml
PACKAGED_STRETCHED = "remul_md.data.stretched"


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """One named file of frames.

    Args:
        name: what users type.
        molecule: what it holds, in words.
        n_frames: how many frames.
        url: the file at a pinned commit.
        sha256: of the file at `url`.
        licence: of the file at `url`, with what is not certain said.
        citation: the paper to cite.
        layout: of the npz, rMD17 or sGDML; both in kcal/mol and Angstrom.
        note: what else one should know, or empty.
        temperature_K: of the dynamics that the frames are from, or None where they are from no one temperature.
        isolated_atoms: packaged file of isolated atoms at the same level of theory, or empty.
    """

    name: str
    molecule: str
    n_frames: int
    url: str
    sha256: str
    licence: str
    citation: str
    layout: Literal["rMD17", "sGDML"]
    note: str = ""
    temperature_K: float | None = None
    isolated_atoms: str = ""

    @property
    def file_name(self) -> str:
        """Name of the file, the same at the source, in the cache and in the package."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True, kw_only=True)
class DatasetStatus:
    """A line of `list_datasets`: the entry and where its file is."""

    entry: DatasetEntry
    where: Literal["packaged", "cached", "fetchable"]


_RMD17_URL = "https://raw.githubusercontent.com/andersx/rmd17-npz/4f6bb0a186822c90d47cd98b7a27991fe0b3173b/rmd17-npz"
_RMD17_CITATION = (
    "A. S. Christensen, O. A. von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020), arXiv:2007.09593"
)
_RMD17_SHA256 = {
    "aspirin": {
        "train": "d460f0e43a1a9411b55cdcd9cdbeb9466ae62851ac91392516ab88e4ebc68143",
        "test": "a3c3b61e782d01e6dd649a126004903f7873e8e7ee5034135abfdb8873be711d",
    },
    "benzene": {
        "train": "6e69deb5dc8663c2d2461cc50e522c74742acea7b4185da348fc08585a15cdc7",
        "test": "4aad4aa2f5ae6aa78d2d9f5da7cb285c97864cfbdf054b67de12a1429b249534",
    },
    "ethanol": {
        "train": "096946747b8d9dcfa042b44f8debbd3da387dfe1586b659e3be789cc4927316a",
        "test": "c3594a0f93d5992e02f9eb671392fb2e5021b3fa4f902417886966d1e4f64e1e",
    },
    "malonaldehyde": {
        "train": "95723385cdfd7f8446a84cdff607f14901e4c2b3949db7a965147dc5098d8ee1",
        "test": "147404574d4fe3204dea7eb3799426d264e36b7900012f27fd2d26a26832fdaf",
    },
    "naphthalene": {
        "train": "940f41110785fb0d3fa5feac68800cf4c68bd05fd55d563d3adacf5247d7688a",
        "test": "80a19bca6aaa5cdf241007d6a7332e7b96a8e6ef362c1badcdb86a574ac3fe06",
    },
    "salicylic": {
        "train": "9f96d79ec7a66dec666dbba60307c083ede80ecc919e0c9513ad9accfe43b5c0",
        "test": "4a03f66c719d7684f39620b2bae6842613482a86cdd4e6f95115ae4d37f03cc0",
    },
    "toluene": {
        "train": "24d0642f897a1da1fdc4dbdd0a9c2a7f6082dd88e02954b12896a45a7a5fbac7",
        "test": "8a658b9bf1b7a5c1abaa03846ee6302725e02bdcd2ab720ef94da0be55625faa",
    },
}
_RMD17_MOLECULES = {"salicylic": "salicylic acid"}
_RMD17_TEMPERATURE_K = 500.0
# Published as 500 K like the others, but its frames are colder (data/rmd17/README.md; a test holds it).
_RMD17_COLDER_K = {"benzene": 300.0}


def _rmd17_entries() -> list[DatasetEntry]:
    return [
        DatasetEntry(
            name=f"rmd17/{key}/{part}-01",
            molecule=_RMD17_MOLECULES.get(key, key),
            n_frames=1000,
            url=f"{_RMD17_URL}/rmd17_{key}_{part}_01.npz",
            sha256=sha256,
            licence="CC0-1.0",
            citation=_RMD17_CITATION,
            layout="rMD17",
            note="the fetched file also holds float64 positions and the old MD17 labels",
            temperature_K=_RMD17_COLDER_K.get(key, _RMD17_TEMPERATURE_K),
            isolated_atoms="isolated_atoms.extxyz",
        )
        for key, parts in _RMD17_SHA256.items()
        for part, sha256 in parts.items()
    ]


ENTRIES: dict[str, DatasetEntry] = {
    entry.name: entry
    for entry in [
        *_rmd17_entries(),
        DatasetEntry(
            name="ccsdt/ethanol/train",
            molecule="ethanol",
            n_frames=1000,
            url="https://raw.githubusercontent.com/learningmatter-mit/NeuralForceField/"
            "07fec92f9f09b98677763e32d8d32719e2c6c78c/tutorials/data/ethanol_ccsd_t-train.npz",
            sha256="c94db6a0cfac60c5172c9a22dbc5276a3a6e725fcb2f3ecbde67f0081dca5be2",
            licence="MIT (repository; no licence of the data set itself was found)",
            citation="S. Chmiela et al., Nat. Commun. 9, 3887 (2018)",
            layout="sGDML",
            note="CCSD(T)/cc-pVTZ; rows 280 = 736 and 773 = 826; 7 geometries are also in rMD17 ethanol",
        ),
        DatasetEntry(
            name="md17/ethanol/first-2000",
            molecule="ethanol",
            n_frames=2000,
            url="https://raw.githubusercontent.com/thorben-frank/mlff/"
            "02107c2b625d0db028d1fe614e3dd5ebb37f46ce/tests/test_data/ethanol.npz",
            sha256="1f5919561e69c12754e10b335721be7cc59ce9fbba3970188303f88d462cdd57",
            licence="MIT (repository; the same labels are CC0 inside rMD17)",
            citation="S. Chmiela et al., Sci. Adv. 3, e1603015 (2017)",
            layout="sGDML",
            note="consecutive frames, 0.5 fs apart, thermostatted at 500 K: split by time, never at random",
            temperature_K=500.0,
        ),
    ]
}


def _fetch_command(name: str) -> str:
    return shlex.join(["remul-md", "data", "fetch", name])


def find_entry(name: str) -> DatasetEntry:
    """The registered data set of this name.

    Raises:
        InputError: no such name; the nearest ones are listed.
    """
    if name in ENTRIES:
        return ENTRIES[name]
    raise InputError(f"{name!r} is no registered data set; {nearest_names(name)}")


def nearest_names(name: str) -> str:
    """The end of an error message: registered names like `name`, and the command that lists all."""
    near = difflib.get_close_matches(name, ENTRIES, n=3, cutoff=0.5)
    meant = f"did you mean {', '.join(near)}? " if near else ""
    return f"{meant}`remul-md data list` shows all names"


def list_datasets(*, cache_dir: str | Path | None = None) -> list[DatasetStatus]:
    """All registered data sets in the order of the registry, each with where it is: the package, the cache, or the net.

    Args:
        cache_dir: where fetched files lie; default `cache_directory()`.
    """
    return [DatasetStatus(entry=entry, where=_where(entry, cache_dir=cache_dir)) for entry in ENTRIES.values()]


def local_file(name: str, *, cache_dir: str | Path | None = None) -> Path:
    """The packaged or fetched file of a registered name; nothing is downloaded.

    Raises:
        InputError: unknown name, not fetched yet, or a fetched file that is damaged.
    """
    entry = find_entry(name)
    packaged = packaged_file(entry)
    if packaged.is_file():
        return packaged
    cached = cached_file(entry, cache_dir=cache_dir)
    if not cached.is_file():
        raise InputError(
            f"data set {name!r} is neither packaged nor fetched to {cached.parent}; run `{_fetch_command(name)}`"
        )
    found = hashlib.sha256(cached.read_bytes()).hexdigest()
    if found != entry.sha256:
        raise InputError(
            f"{cached}: sha256 is {found}, expected {entry.sha256}; the file is damaged: "
            f"`{_fetch_command(name)}` replaces it"
        )
    return cached


def packaged_file(entry: DatasetEntry) -> Path:
    """Where the packaged copy of an entry is, if it has one."""
    return Path(str(resources.files(PACKAGED_DATA))) / entry.file_name


def stretched_file(source: str) -> Path:
    """The file of labels of stretched bonds: a path first, else that of a packaged molecule, such as `ethanol`.

    Raises:
        InputError: neither is there; the packaged ones are listed.
    """
    given = Path(source).expanduser()
    if given.is_file():
        return given
    packaged = {path.stem: path for path in Path(str(resources.files(PACKAGED_STRETCHED))).glob("*.npz")}
    if source in packaged:
        return packaged[source]
    raise InputError(
        f"stretched bonds {source!r}: is no file, and the package has those of {', '.join(sorted(packaged))}; "
        "`remul-md label pbe FRAMES OUTPUT --stretched-bonds 0` makes others"
    )


def cached_file(entry: DatasetEntry, *, cache_dir: str | Path | None = None) -> Path:
    """Where the fetched copy of an entry is or will be."""
    return (Path(cache_dir) if cache_dir is not None else cache_directory()) / entry.file_name


def _where(entry: DatasetEntry, *, cache_dir: str | Path | None) -> Literal["packaged", "cached", "fetchable"]:
    if packaged_file(entry).is_file():
        return "packaged"
    return "cached" if cached_file(entry, cache_dir=cache_dir).is_file() else "fetchable"
