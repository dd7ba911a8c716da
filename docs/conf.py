"""The site, built by `make docs` from the pages beside this file, docstrings and examples; warnings are errors."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

from remul_md import __version__ as release

project, author, html_title = "remul-md", "the remul-md developers", f"remul-md {release}"
ROOMS = (
    *("structures", "datasets", "symmetry", "models", "potentials", "calculators", "dynamics", "analysis", "labels"),
    *("training", "studies"),
)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["images"]
html_theme = "furo"
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "top_of_page_buttons": [],
    # Fonts that exist everywhere and the colours of the reports.
    "light_css_variables": {"color-brand-primary": "#b8431f", "color-brand-content": "#9c3414"},
    "dark_css_variables": {"color-brand-primary": "#f08a5d", "color-brand-content": "#f08a5d"},
}
myst_heading_anchors = 4  # links such as dynamics.md#replicas
suppress_warnings = ["ref.python"]  # a type of two modules: the link goes to one of them
highlight_language = "none"
default_role = "code"  # docstrings are plain text: one backtick is code
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
python_maximum_signature_line_length = 100  # longer ones have a line for each argument
napoleon_google_docstring, napoleon_numpy_docstring = True, False


def _plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are no reStructuredText: stars, bars and underscores mean themselves."""
    for place, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        lines[place] = "".join(
            part if part.startswith("`") else re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part) for part in parts
        )


def _reference_pages(app: Any) -> None:
    """A page a room of the package, with its modules in the order of their names."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for room in ROOMS:
        package = import_module(f"remul_md.{room}")
        walked = walk_packages(package.__path__, prefix=f"{package.__name__}.")
        modules = [package.__name__, *sorted(found.name for found in walked if not found.ispkg)]
        blocks = [f"```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in modules]
        blocks[0] = blocks[0].replace("\n```\n", "\n   :no-members:\n```\n")  # its names stand under their modules
        titled = [f"## {name}\n\n{block}" for name, block in zip(modules[1:], blocks[1:], strict=True)]
        text = "\n".join([f"# remul_md.{room}\n", blocks[0], *titled])
        page = folder / f"{room}.md"
        if not page.is_file() or page.read_text() != text:  # what did not change is not built anew
            page.write_text(text)


def _downloads(app: Any, page: str, source: list[str]) -> None:
    """Markdown outside of this folder is no page of the site: its links give the file."""
    if "/" not in page:
        source[0] = re.sub(r"\]\(\.\./([^)#]+\.md)(#[^)]*)?\)", r"](path:../\1)", source[0])


def setup(app: Any) -> None:
    """Pages of the reference first; docstrings before napoleon reads their sections."""
    app.connect("builder-inited", _reference_pages)
    app.connect("source-read", _downloads)
    app.connect("autodoc-process-docstring", _plain_text, priority=100)
