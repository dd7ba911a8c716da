"""What an output may take the place of: no input, nothing that others made, and what cost much only if told to."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from remul_md._version import __version__
from remul_md.errors import InputError
from remul_md.files import replace_atomically, write_json

GENERATOR = f"remul-md {__version__}"
# How each format says what made it: HTML, JSON, PNG, SVG, PDF, Markdown, YAML.
_MARKS = (
    b'<meta name="generator" content="',
    b'"generator": "',
    b"Software\x00",
    b"<dc:title>",
    b"/Creator (",
    b"<!-- generator: ",
    b"# generator: ",
)
_MARK = re.compile(b"(?:" + b"|".join(map(re.escape, _MARKS)) + b")remul-md ")
_SEARCHED = 8192  # bytes of the beginning and of the end: a mark stands in one of them
_PICTURE_KEYS = {".png": "Software", ".svg": "Creator", ".pdf": "Creator"}
Inputs = Iterable[str | Path | None]


def check_reports(*paths: Path | None, picture: Path | None = None, inputs: Inputs = ()) -> None:
    """Refuse reports, tables of figures and pictures that would take the place of anything but earlier ones.

    Args:
        paths: of the files to write; None: nothing is written.
        picture: another of them, whose ending says its format.
        inputs: what the command reads; names that are no files do not matter.
    Raises:
        InputError: one is an input, another of them, a folder, or a file that does not say that this package made it;
            a picture of another format than PNG, SVG and PDF.
    """
    if picture is not None and picture.suffix.lower() not in _PICTURE_KEYS:
        raise InputError(f"{picture}: cannot be written as a picture; use one of {', '.join(_PICTURE_KEYS)}")
    given = [path for path in (*paths, picture) if path is not None]
    for path in given:
        if sum(path.resolve() == other.resolve() for other in given) > 1:
            raise InputError(f"{path}: is named for two outputs; give each a name of its own")
        check_no_input([path], inputs)
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file in it")
        if path.is_file() and not _is_marked(path):
            raise InputError(
                f"{path}: was not written as a report by remul-md and is not replaced; choose another name, or remove "
                "it"
            )


def check_no_input(outputs: Iterable[Path], inputs: Inputs) -> None:
    """Refuse outputs that are inputs, however both are spelt.

    Raises:
        InputError: one of them is the same file as, or would take the place of, one of `inputs`.
    """
    read = [_file_of(str(each)) for each in inputs if each is not None]
    for output in outputs:
        for source in read:
            same = source.samefile(output) if source.exists() and output.exists() else False
            if same or (source.is_file() and source.resolve() == output.resolve()):
                raise InputError(f"{output}: is read by this command (as {source}); choose another output")


def _file_of(source: str) -> Path:
    """The file of `frames.xyz:17`, too."""
    name, colon, number = source.rpartition(":")
    return Path(name if colon and number.isdigit() and not Path(source).exists() else source)


def check_existing(
    existing: Sequence[Path],
    *,
    resume: bool | None = False,
    overwrite: bool,
    inputs: Inputs = (),
    option: str = "output",
) -> None:
    """Decide what becomes of an output that cost much and is there already: gone on with, replaced, or refused.

    Args:
        existing: its files and folders.
        resume: they are gone on with; None: the command cannot.
        overwrite: they are replaced.
        inputs: what the command reads, which never is.
        option: what the user would choose anew, for the message.
    Raises:
        InputError: both are asked for; neither is, and there is something; an input would be replaced.
    """
    if resume and overwrite:
        raise InputError("--resume goes on with what is there, --overwrite replaces it; give one of them")
    if existing and not (resume or overwrite):
        going_on = "" if resume is None else "go on with it (--resume), "
        raise InputError(
            f"{str(existing[0])!r} exists already; {going_on}replace it (--overwrite), or choose another {option}"
        )
    if overwrite:
        check_no_input([*existing, *(file for path in existing if path.is_dir() for file in path.rglob("*"))], inputs)


def make_way(
    existing: Iterable[Path], *, resume: bool, overwrite: bool, inputs: Inputs = (), option: str = "output"
) -> None:
    """`check_existing`, and with `overwrite` remove what is there.

    Raises:
        InputError: as `check_existing`, or something cannot be removed.
    """
    present = list(existing)
    check_existing(present, resume=resume, overwrite=overwrite, inputs=inputs, option=option)
    for path in present if overwrite else ():
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be removed ({error}); choose another {option}") from error


def write_figures(path: Path, content: Mapping[str, Any], *, hint: str = "choose another --json file") -> None:
    """Write the figures of a command as JSON that says what made it.

    Raises:
        InputError: as `check_reports` and `write_json`.
    """
    check_reports(path)
    write_json(path, {"generator": GENERATOR, **content}, hint=hint)


def write_text(path: Path, text: str) -> None:
    """Write a page, whose head says what made it, or a table in Markdown, which is given a first line that does.

    Raises:
        InputError: as `check_reports`, or the file cannot be written.
    """
    check_reports(path)
    content = text.encode()
    if not _MARK.search(content[:_SEARCHED]):
        content = f"<!-- generator: {GENERATOR} -->\n".encode() + content
    _write(path, content)


def save_picture(figure: Any, path: str | Path, *, dpi: float = 130.0) -> None:
    """Save a figure of matplotlib as PNG, SVG or PDF that says what made it.

    Args:
        figure: with a canvas.
        path: of the file; its folder is made.
        dpi: dots an inch.
    Raises:
        InputError: as `check_reports`, or the file cannot be written.
    """
    target = Path(path)
    check_reports(picture=target)
    suffix = target.suffix.lower()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix[1:], dpi=dpi, metadata={_PICTURE_KEYS[suffix]: GENERATOR})
    _write(target, buffer.getvalue())


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another file") from error


def _is_marked(path: Path) -> bool:
    """Whether a file says that a command of this package wrote it as a report."""
    with path.open("rb") as file:
        begin = file.read(_SEARCHED)
        file.seek(max(path.stat().st_size - _SEARCHED, 0))
        return bool(_MARK.search(begin) or _MARK.search(file.read()))
