"""What pyproject.toml lists is what the tree holds, and what `make` pins is what the package needs."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import remul_md
from remul_md._version import __version__

ROOT = Path(__file__).parents[1]
MAPPED = {"remul_md": "remul_md", "calculators": "remul_md.calculators", "data": "remul_md.data"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    entries = [line.split("==") for line in lines if line]
    assert all(len(entry) == 2 for entry in entries)
    return {canonicalize_name(name): version for name, version in entries}


def package_folders() -> dict[str, Path]:
    found = {}
    for top, name in MAPPED.items():
        for marker in sorted((ROOT / top).rglob("__init__.py")):
            found[".".join([name, *marker.parent.relative_to(ROOT / top).parts])] = marker.parent
    return found


def test_packages_are_those_of_the_tree(project: dict[str, Any]) -> None:
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(package_folders())


def test_every_source_file_lies_in_a_package() -> None:
    folders = set(package_folders().values())
    for top in MAPPED:
        assert not [path for path in (ROOT / top).rglob("*.py") if path.parent not in folders]


def test_mapped_folders_are_where_they_are_said_to_be(project: dict[str, Any]) -> None:
    listed = project["tool"]["setuptools"]["package-dir"]
    for name, folder in package_folders().items():
        # setuptools finds a package below a mapped one by itself; where it is said, it must be true
        parent = name
        while parent not in listed:
            parent = parent.rpartition(".")[0]
        below = name.removeprefix(parent).strip(".").replace(".", "/")
        assert (ROOT / listed[parent] / below).resolve() == folder.resolve(), name


def test_every_data_file_goes_into_the_wheel(project: dict[str, Any]) -> None:
    patterns = project["tool"]["setuptools"]["package-data"]
    for name, folder in package_folders().items():
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in (".py", ".pyc") and not path.name.startswith("."):
                assert any(fnmatch(path.name, pattern) for pattern in patterns.get(name, [])), f"{name}: {path.name}"


def test_promised_files_are_in_the_package() -> None:
    assert resources.files("remul_md").joinpath("py.typed").is_file()
    frames = [item.name for item in resources.files("remul_md.data.rmd17").iterdir() if item.name.endswith(".npz")]
    assert len(frames) == 14  # seven molecules, training and test frames of split 01
    assert resources.files("remul_md.data.rmd17").joinpath("README.md").is_file(), "licence and source of the data"


def test_pins_have_no_local_suffix_and_no_range(pins: dict[str, str]) -> None:
    assert len(pins) > 20
    for name, version in pins.items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}"


def test_pins_cover_and_satisfy_what_the_package_needs(project: dict[str, Any], pins: dict[str, str]) -> None:
    extras = project["project"]["optional-dependencies"]
    needed = [*project["project"]["dependencies"], *extras["dev"], *extras["docs"]]
    needed += project["build-system"]["requires"]
    assert len(needed) > 20
    for text in needed:
        requirement = Requirement(text)
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"constraints.txt lacks {requirement.name}"
        assert version in requirement.specifier, f"constraints.txt has {requirement.name}=={version}, needed {text}"


def test_every_import_is_a_declared_dependency(project: dict[str, Any]) -> None:
    names = {"MDAnalysis": "mdanalysis", "yaml": "pyyaml", "torch_sim": "torch-sim-atomistic"}
    declared = {canonicalize_name(Requirement(text).name) for text in project["project"]["dependencies"]}
    declared |= {"remul-md", "torch-cluster"}  # itself; optional, built by `make torch-cluster`
    # extras, each imported by one module: one that nobody needs, and one that imports it when it is asked for
    optional = {
        "torch-sim-atomistic": "calculators/torch_sim.py",
        "tblite": "remul_md/labels/xtb.py",
        "pyscf": "remul_md/labels/pbe.py",
        "mujoco": "remul_md/studies/rigid_bodies.py",
    }
    extras = project["project"]["optional-dependencies"]
    assert "torch-sim-atomistic>=0.3,<0.4" in extras["torchsim"]
    assert [Requirement(text).name for text in extras["xtb"]] == ["tblite"]
    assert [Requirement(text).name for text in extras["pbe"]] == ["pyscf"]
    assert [Requirement(text).name for text in extras["rigid-bodies"]] == ["mujoco"]
    for top in MAPPED:
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                for module in modules:
                    root = module.split(".")[0]
                    package = canonicalize_name(names.get(root, root))
                    known = root in sys.stdlib_module_names or package in declared
                    known = known or optional.get(package) == str(path.relative_to(ROOT))
                    assert known, f"{path.relative_to(ROOT)} imports {root}, which pyproject.toml does not list"


def test_the_version_is_one(project: dict[str, Any]) -> None:
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "remul_md._version.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_command_exists(project: dict[str, Any]) -> None:
    module, _, function = project["project"]["scripts"]["remul-md"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


@pytest.mark.slow
def test_a_type_checker_sees_the_calculator_of_an_installed_package(tmp_path: Path) -> None:
    """The folders as a wheel lays them: `calculators/` and `data/` inside the package."""
    place = ROOT / "build" / "typed"  # where `make types`, before the tests, left what it knows of the package
    if not (place / "remul_md").is_dir():
        place = tmp_path
        for package in ("remul_md", "calculators", "data"):
            ignore = shutil.ignore_patterns("__pycache__", "*.npz", "*.pt")
            target = tmp_path / "remul_md" / ("" if package == "remul_md" else package)
            shutil.copytree(ROOT / package, target, dirs_exist_ok=True, ignore=ignore)
    script = tmp_path / "script.py"
    script.write_text("import remul_md\n" + "".join(f"reveal_type(remul_md.{name})\n" for name in remul_md.__all__))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(script)],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(revealed) == len(remul_md.__all__), done.stdout + done.stderr
    assert "Any" not in revealed
    assert any(
        re.search(r"device: (builtins\.)?str .*-> remul_md\.calculators\.ase\.RemulCalculator", text)
        for text in revealed
    )
