"""docs/architecture.md names files, functions and imports that are there, and CONTRIBUTING.md files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from test_architecture import MODULES, ORDER, ROOT, TREES, imports_of, part_of

PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = ORDER[ORDER.index("structures") :]
TEXT = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
# Files that a run writes, and what markdown marks that is no name.
NOT_NAMES = {"potential.pt"}


def names_of(path: Path) -> set[str]:
    """Everything a module defines at its top, `Class.method`, and methods alone."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        if isinstance(node, ast.ClassDef):
            methods = {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)}
            found |= methods | {f"{node.name}.{method}" for method in methods}
    return found


def is_path(token: str) -> bool:
    return "/" in token or token.endswith((".py", ".md", ".toml"))


def is_example(token: str) -> bool:
    """What a reader of the guide makes."""
    return any(name in token for name in ("mynet", "myformat", "mytask"))


def items() -> list[str]:
    """Paragraphs, rows of tables and points of lists: what a name says and where it is stand in one of them."""
    return re.split(r"\n\n|\n(?=\||\d+\. )", TEXT)


def test_every_path_exists() -> None:
    paths = {token for token in re.findall(r"`([^`]+)`", TEXT) if is_path(token)}
    assert len(paths) > 25
    assert not {path for path in paths if not (ROOT / path).exists()}
    links = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert all((ROOT / "docs" / link).exists() for link in links)


def test_every_path_of_the_guide_exists() -> None:
    guide = re.sub(r"```.*?```", "", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    paths = {token for token in re.findall(r"`([^`\s]+)`", guide) if "/" in token and not is_example(token)}
    assert len(paths) > 25
    made = {"build/typed/", "build/site/index.html"}  # by make types and make docs
    assert not {path for path in paths - made if not (ROOT / path).exists()}
    assert all((ROOT / link).exists() for link in re.findall(r"\]\((?!http)([^)#]+)\)", guide))


def test_every_name_is_in_a_file_beside_it() -> None:
    checked = 0
    for item in items():
        tokens = re.findall(r"`([^`]+)`", item)
        files = [ROOT / token for token in tokens if token.endswith(".py")]
        known = {name for file in files for name in names_of(file)}
        for token in tokens:
            if is_path(token) or token in ROOMS or token in NOT_NAMES:
                continue
            if not files:  # in the table of rooms a file would be too much
                known = {name for module in MODULES.values() for name in names_of(module)}
            elsewhere = token in {"Frames", "Batch", "RemulCalculator"}  # whose files are named on the page
            assert token in known or elsewhere, f"{token!r} is not in {[file.name for file in files]}: {item.strip()}"
            checked += 1
    assert checked > 50


def test_both_paths_have_ten_points_that_name_functions() -> None:
    for title in ("The path of one training frame", "The path of one MD step"):
        section = TEXT.split(f"## {title}\n")[1].split("\n## ")[0]
        points = re.split(r"\n(?=\d+\. )", section.strip())
        assert len(points) == 10
        assert all(re.search(r"`[A-Za-z_.]+` in\s+`[a-z_/]+\.py`", point) for point in points), title


def test_the_table_of_rooms_has_the_imports_of_the_code() -> None:
    table = TEXT.split("| room |")[1].split("\n\n")[0]
    rows = {
        room: cells.split("|")[-1] for room, cells in re.findall(r"^\| `(\w+)` \|(.*)\|$", table, flags=re.MULTILINE)
    }
    assert tuple(rows) == ROOMS
    for room, cell in rows.items():
        imported = {part_of(target) for name in TREES if part_of(name) == room for target in imports_of(TREES[name])}
        expected = " ".join(f"`{other}`" for other in ROOMS if other in imported - {room})
        assert cell.strip() == expected, f"the imports of {room} are now: {expected}"


def test_the_picture_and_the_order_name_every_room() -> None:
    picture = PAGE.split("```")[1]
    assert set(ROOMS) <= set(re.findall(r"[a-z]+", picture))
    order = re.findall(r"`(\w+)`", TEXT.split("In the order of the test: ")[1].split(". Below")[0])
    assert tuple(order) == ROOMS
