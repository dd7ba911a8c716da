"""The house rules that a reader relies on, checked on the syntax trees: layers, sizes, names, no global state."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import remul_md

ROOT = Path(__file__).parents[1]
# Every part of the package, from the bottom to the top: each imports from those before it and from itself, none after.
# A new module fails `test_every_part_has_its_place` until somebody has thought about its place.
ORDER = (
    "data",
    "_version",
    "errors",
    "files",
    "outputs",
    "progress",
    "processes",
    "structures",
    "datasets",
    "symmetry",
    "models",
    "potentials",
    "calculators",
    "dynamics",
    "analysis",
    "labels",
    "training",
    "studies",
    "cli",
)
MAX_LINES = 400


def source_files() -> dict[str, Path]:
    """Module name and file of the whole package; `calculators/` and `data/` are mapped into it."""
    found = {}
    for folder, package in (
        ("remul_md", "remul_md"),
        ("calculators", "remul_md.calculators"),
        ("data", "remul_md.data"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = source_files()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def part_of(module: str) -> str:
    """The part a module belongs to; "" is the package's own __init__."""
    return module.split(".")[1] if "." in module else ""


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Every module of remul_md that is imported anywhere: at the top, in functions, for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "remul_md")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            if node.module == "remul_md":
                yield from (f"remul_md.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("remul_md."):
                yield node.module


def named_imports(tree: ast.Module) -> Iterator[str]:
    """As `imports_of`, but `from package import module` means the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module
    yield from imports_of(ast.Module([node for node in ast.walk(tree) if isinstance(node, ast.Import)], []))  # type: ignore[misc]


def circles(imported: dict[str, set[str]]) -> set[str]:
    """The modules that import each other in a circle, and those that import them."""
    waiting = dict(imported)
    while ready := [name for name, targets in waiting.items() if not targets & waiting.keys()]:
        for name in ready:
            del waiting[name]
    return set(waiting)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def executed_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes that run when a module is imported: everything outside the bodies of functions."""
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        stack.extend(ast.iter_child_nodes(node))


def test_the_walk_sees_the_package() -> None:
    assert len(MODULES) > 50
    assert "remul_md.symmetry.rotations" in set(imports_of(TREES["remul_md.calculators.ase"]))
    assert "remul_md.calculators" in set(imports_of(TREES["remul_md.cli.app"]))  # inside a function
    for name in ("remul_md.cli.app", "remul_md.calculators.ase", "remul_md.data"):
        file = importlib.import_module(name).__file__
        assert file is not None
        assert Path(file).resolve() == MODULES[name].resolve()


def test_every_part_has_its_place() -> None:
    unplaced = {part_of(name) for name in MODULES} - {"", *ORDER}
    assert not unplaced, f"give {sorted(unplaced)} a place in ORDER"


def test_imports_go_down() -> None:
    for name, tree in TREES.items():
        own = part_of(name)
        allowed = set(ORDER) if own == "" else set(ORDER[: ORDER.index(own) + 1])  # "": the public names
        if own not in ("cli", ""):  # the commands make calculators, the rooms below are handed them
            allowed -= {"calculators"} - {own}
        wrong = {target for target in imports_of(tree) if part_of(target) not in allowed}
        assert not wrong, f"{name} imports {sorted(wrong)}"


def test_rooms_are_few_and_modules_form_no_circle() -> None:
    """A circle between modules: to understand one of them, all have to be read at once."""
    assert len(list((ROOT / "remul_md").glob("*.py"))) <= 8
    imported = {name: set(named_imports(TREES[name])) & MODULES.keys() - {name} for name in MODULES}
    assert not circles(imported), f"imports form a circle among {sorted(circles(imported))}"
    assert circles({"a": {"b", "d"}, "b": {"c"}, "c": {"a"}, "d": set()}) == {"a", "b", "c"}
    assert "remul_md.dynamics.trajectory" in imported["remul_md.dynamics.readers.h5md"]


def test_public_names_are_typed_listed_and_resolved_alike() -> None:
    """An editor sees the names under TYPE_CHECKING, the running program those of the table."""
    (block,) = [node for node in TREES["remul_md"].body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert typed == remul_md._PUBLIC
    assert set(remul_md.__all__) == {"__version__", *typed}
    needed = {"RemulCalculator", "load_potential", "read_structure", "train_potential", "run_md"}
    assert needed | {"analyze_trajectory", "run_audit", "evaluate_potential"} <= typed.keys()


def test_readme_and_examples_need_the_public_names_only() -> None:
    texts = {path.name: path.read_text() for path in (ROOT / "examples").iterdir()}
    texts["README.md"] = (ROOT / "README.md").read_text()
    for name, text in texts.items():
        assert not re.findall(r"(?:from|import) remul_md\.\S+", text), name


def test_public_names_are_there_and_lazy() -> None:
    for name in remul_md.__all__:
        assert getattr(remul_md, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'RemulCalculatr'"):
        _ = remul_md.RemulCalculatr


def test_modules_stay_readable() -> None:
    for name, path in MODULES.items():
        n_lines = len(path.read_text().splitlines())
        assert n_lines <= MAX_LINES, f"{name} has {n_lines} lines; split it by topic"
        assert ast.get_docstring(TREES[name]), f"{name} does not say what it is for"


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "misc", "common", "helpers", "helper", "tools", "stuff", "core", "base"}
    assert not {name for name in MODULES if set(name.split(".")) & drawers}
    assert not {path for path in (ROOT / "tests").glob("*.py") if path.stem.removeprefix("test_") in drawers}


def test_files_are_written_in_two_modules() -> None:
    """Elsewhere nobody would think of locks, of half-written files, and of whose file stands there."""
    never = (
        "write_text",
        "write_bytes",
        "savefig",
        "os.replace",
        "os.rename",
        "copyfile",
        "copy2",
        "rmtree",
        "np.save",
    )
    at_home = {"remul_md.files", "remul_md.outputs"}
    own = {"write_text"}  # of remul_md.outputs, imported by name
    for name, tree in TREES.items():
        found = {called for called, _ in calls(tree) if called.endswith(never) and called not in own}
        assert name in at_home or not found, f"{name} calls {sorted(found)}"
    assert any(called.endswith("savefig") for called, _ in calls(TREES["remul_md.outputs"]))


def test_files_are_loaded_without_executing_them() -> None:
    found = [(name, call) for name, tree in TREES.items() for called, call in calls(tree) if called == "torch.load"]
    assert len(found) >= 2
    for name, call in found:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options.get("weights_only") == "True", f"{name}: torch.load without weights_only=True"
    for name, tree in TREES.items():
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not names & {"pickle", "dill", "joblib", "shelve"}, name


def test_npz_files_are_loaded_without_executing_them() -> None:
    found = [(name, call) for name, tree in TREES.items() for called, call in calls(tree) if called == "np.load"]
    assert found
    for name, call in found:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options.get("allow_pickle", "False") == "False", f"{name}: np.load with allow_pickle"


def test_nothing_global_is_changed() -> None:
    never = {"torch.set_default_dtype", "torch.set_default_device", "torch.set_default_tensor_type", "np.seterr"}
    never |= {"np.random.seed", "random.seed", "torch.use_deterministic_algorithms", "warnings.simplefilter"}
    for name, tree in TREES.items():
        # The one place that changes the default type, within a call, and gives it back (test_calculators_process.py).
        undone = {"torch.set_default_dtype"} if name == "remul_md.potentials.settings" else set()
        assert not (never - undone) & {called for called, _ in calls(tree)}, name
        assigned = {ast.unparse(t) for node in ast.walk(tree) if isinstance(node, ast.Assign) for t in node.targets}
        assert not {target for target in assigned if "allow_tf32" in target or "os.environ[" in target}, name


def test_importing_has_no_side_effects() -> None:
    harmful = ("manual_seed", "set_num_threads", "basicConfig", "filterwarnings", "simplefilter", "setLevel", "mkdir")
    for name, tree in TREES.items():
        for node in executed_at_import(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert not called.endswith(harmful), f"{name} calls {called} when it is imported"


def test_seeding_the_global_generator_is_undone() -> None:
    """`torch.manual_seed` acts on the whole process: allowed only inside fork_rng, which restores the state."""
    for name, tree in TREES.items():
        forked = [
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item) for item in node.items)
            for inner in ast.walk(node)
        ]
        for called, call in calls(tree):
            assert called != "torch.manual_seed" or call in forked, name


def test_only_commands_print() -> None:
    for name, tree in TREES.items():
        is_command = name == "remul_md.cli.app" or "__name__ == '__main__'" in ast.unparse(tree)
        assert is_command or not any(called == "print" for called, _ in calls(tree)), f"{name} prints; log instead"


@pytest.mark.parametrize(
    "part", ["cli.app", "dynamics.run", "analysis.trajectory", "analysis.comparison", "analysis.spectrum"]
)
def test_what_needs_no_network_does_not_load_torch(part: str) -> None:
    """It takes a second and 180 MB, more than the analysis of a run."""
    program = f"import sys, remul_md.{part}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_options_are_not_swallowed() -> None:
    """A public function with **kwargs accepts every misspelt option."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            # `set` of ASE's calculators is there to refuse what it is given.
            refuses = (name, getattr(node, "name", "")) == ("remul_md.calculators.ase", "set")
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not refuses:
                assert node.args.kwarg is None, f"{name}.{node.name} takes **{node.args.kwarg and node.args.kwarg.arg}"


@pytest.mark.slow
def test_the_calculator_loads_no_plots_and_no_readers() -> None:
    heavy = "vesin MDAnalysis matplotlib plotly h5py tensorboard pydantic typer"
    code = f"import sys, remul_md.calculators; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
