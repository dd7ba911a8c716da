"""The command line: each command parses, calls one function and prints; heavy imports wait until they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remul_md._version import __version__
from remul_md.cli.analyze import analyze
from remul_md.cli.audit import audit
from remul_md.cli.compare import compare
from remul_md.cli.config_flags import file_flags
from remul_md.cli.data import data_app
from remul_md.cli.improve import improve
from remul_md.cli.label import _label
from remul_md.cli.md import md
from remul_md.cli.options import (
    AxisOption,
    DeviceOption,
    IgnoreCellOption,
    JsonOption,
    OverwriteOption,
    SymmetryOption,
    ThreadsOption,
    chosen_axis,
)
from remul_md.cli.potentials import _distill, ensemble, training_line
from remul_md.cli.printing import fail, print_table, write_figures
from remul_md.cli.properties import spectrum, timestep_scan, vibrations
from remul_md.cli.study import study_app
from remul_md.errors import InputError
from remul_md.outputs import check_reports

if TYPE_CHECKING:
    from remul_md.calculators import RemulCalculator
    from remul_md.potentials.potential import Potential

app = typer.Typer(
    help="Potentials of molecules whose symmetry is a dial: train them, run molecular dynamics, check both.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut the names of options off in 80 columns
)
app.add_typer(data_app, name="data")
app.add_typer(study_app, name="study")


def _template(value: bool) -> None:
    if value:
        from remul_md.training.template import config_template

        typer.echo(config_template(), nl=False)
        raise typer.Exit


PotentialArgument = Annotated[str, typer.Argument(help="A *.pt file, or the name of a shipped potential.")]


@app.command()
def train(
    config: Annotated[str | None, typer.Argument(help="YAML file or name of a preset; default: all defaults.")] = None,
    run_dir: Annotated[Path, typer.Option(help="Folder of the run; may lie anywhere.")] = ...,  # type: ignore[assignment]
    molecule: Annotated[str | None, typer.Option(help="A packaged rMD17 molecule, such as ethanol.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, such as train.beta=0.5.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run (or begin one).")] = False,
    overwrite: OverwriteOption = False,
    init_from: Annotated[str | None, typer.Option(help="Start from the weights of this potential.")] = None,
    pretrain: Annotated[
        str | None, typer.Option(help="Train on cheap labels first: xtb, or MODULE:FACTORY (docs/few-labels.md).")
    ] = None,
    template: Annotated[
        bool,
        typer.Option(
            "--template", callback=_template, is_eager=True, help="Print a config with all options, commented, and end."
        ),
    ] = False,
) -> None:
    """Train a potential; writes RUN_DIR/potential.pt, metrics.csv, tensorboard/ and the resolved config.yaml."""
    from remul_md.training.config import dump_config, load_config
    from remul_md.training.run_folder import CONFIG, POTENTIAL, holds_run, origin_of_run
    from remul_md.training.sections import check_learning_rate_named
    from remul_md.training.train import train_potential

    named = config or molecule or any(each.startswith("data.") for each in set_ or [])
    if resume and not named:
        if not holds_run(run_dir):
            raise InputError(
                f"{run_dir}: holds no run to go on with; to begin one, name a config, a --molecule or --set data.source"
            )
        config = str(run_dir / CONFIG)

    chosen = [] if molecule is None else [f"data.molecule={molecule}", "data.source=null"]
    chosen += [] if pretrain is None else [f"pretrain.method={pretrain}"]
    options = load_config(config, overrides=[*chosen, *(set_ or [])])
    if options.pretrain.method is None:  # else one rate counts in each of its two stages
        origin = origin_of_run(run_dir, init_from) if resume else init_from
        fine_tuning = options.train.fine_tunes(trained_weights=origin is not None)
        check_learning_rate_named(set_ or [], fine_tuning=fine_tuning)
    typer.echo(f"options that are not the defaults (all of them: {run_dir / CONFIG}):")
    typer.echo(dump_config(options, changed_only=True))
    potential = train_potential(options, run_dir=run_dir, resume=resume, overwrite=overwrite, init_from=init_from)
    line = training_line(
        potential.provenance, direct=options.train.trained != "all" and options.train.forces == "direct"
    )
    typer.echo(f"{run_dir / POTENTIAL}: {line}")


@app.command("evaluate")
@file_flags
def _evaluate(
    potential: PotentialArgument,
    data: Annotated[str, typer.Argument(help="A file, or a name such as rmd17/ethanol/test-01.")],
    json_file: JsonOption = None,
    forces: Annotated[str, typer.Option(help="auto, conservative or direct.")] = "auto",
    symmetry: SymmetryOption = None,
    axis: AxisOption = None,
    n_draws: Annotated[int, typer.Option(help="Random rotations of each frame.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rotations.")] = 0,
    by_angle: Annotated[
        Path | None,
        typer.Option(help="Also write errors against the angle from the original orientation: a .png or .json."),
    ] = None,
    ignore_cell: IgnoreCellOption = False,
    device: DeviceOption = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    n_threads: ThreadsOption = 1,
    **given: str | None,
) -> None:
    """Errors in the original orientation and rotated, and the share of them that imperfect symmetry causes."""
    from dataclasses import asdict

    from remul_md.analysis.accuracy import evaluate_potential
    from remul_md.analysis.orientations import check_orientation_file, orientation_errors, write_orientation_errors
    from remul_md.datasets.file_options import FileOptions
    from remul_md.datasets.read import read_frames, recorded_options, seen_in_training
    from remul_md.potentials.potential import load_potential, resolve_device

    _use_threads(n_threads)
    named = FileOptions(**given)
    loaded = load_potential(potential, device=resolve_device(device), dtype=dtype)  # type: ignore[arg-type]
    loaded = loaded.with_symmetry(symmetry)  # type: ignore[arg-type]
    head = loaded.resolve_forces(forces)  # type: ignore[arg-type]
    about = chosen_axis(axis, loaded.provenance.axis)
    if by_angle is not None:
        check_orientation_file(by_angle)
        if about is not None:
            raise InputError(
                "--by-angle rotates about all axes, which change these labels; leave it out (or --axis none)"
            )
    check_reports(json_file, by_angle, inputs=(potential, data))
    made = loaded.provenance
    named = recorded_options(data, named, record=made.file_options, trained_on=str(made.data.get("name", "")))
    frames = read_frames(data, **asdict(named), require=("energy", "forces"))
    frames = frames.isolated() if ignore_cell else frames
    training = seen_in_training(loaded.provenance.data, data)
    result = evaluate_potential(
        loaded, frames, forces=head, n_draws=n_draws, seed=seed, axis=about, training=training, progress=True
    )
    pretraining = loaded.provenance.pretraining
    print_table(
        f"{potential} on {data}: {result.n_frames} frames, {result.forces} forces, {n_draws} rotations a frame",
        [*([("pretrained on", pretraining)] if pretraining else []), *result.rows()],
    )
    # After the table: a file that cannot be written must not cost the figures.
    origin = {"potential": str(potential), "potential_sha256": loaded.sha256, "data": data}
    origin |= {"pretraining": pretraining} if pretraining else {}
    write_figures(json_file, {**origin, **result.to_json()})
    if by_angle is not None:
        write_orientation_errors(orientation_errors(loaded, frames, forces=head, seed=seed, progress=True), by_angle)


app.command("md")(md)


app.command()(analyze)


@app.command()
def potentials(
    json_file: JsonOption = None,
    latency: Annotated[bool, typer.Option(help="Time each of them here (not on a GPU).")] = True,
    n_threads: ThreadsOption = 1,
) -> None:
    """The potentials in the package: error, rotational spread, training time, speed, size."""
    from remul_md.cli.potentials import zoo_lines
    from remul_md.potentials.zoo import describe_shipped

    check_reports(json_file)
    _use_threads(n_threads)
    rows = describe_shipped(measure_latency=latency)
    for line in zoo_lines(rows):
        typer.echo(line)
    write_figures(json_file, {"potentials": [row.to_json() for row in rows]})


# After the commands that everybody needs.
for _command in (audit, vibrations, compare, spectrum, timestep_scan, ensemble, _label, _distill, improve):
    app.command(_command.__name__.strip("_").replace("_", "-"))(_command)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options of all commands."""
    context.obj = _calculator  # studies and `distill` run dynamics, but lie below the calculators


def _use_threads(n_threads: int) -> None:
    import torch

    torch.set_num_threads(n_threads)


def _calculator(potential: str | Potential, **options: Any) -> RemulCalculator:
    from remul_md.calculators import RemulCalculator

    # With the threads of the training it belongs to, which are set already.
    return RemulCalculator(potential, n_threads=None, **options)


def main() -> None:
    """Entry point: what a user can mend is one line on stderr and exit code 2, never a traceback."""
    import logging
    import os

    # Threads that wait by spinning make training on two busy cores five times slower; torch reads this when it loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        app()
    except InputError as error:
        fail(str(error), code=2)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Inside a command typer turns Ctrl-C into a silent exit with code 130.
        if isinstance(stop, SystemExit) and stop.code != 130:
            raise
        fail(
            "interrupted; `train`, `md`, `label`, `distill` and `improve` go on where they were with --resume", code=130
        )
