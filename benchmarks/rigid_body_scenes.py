"""Scenes of rigid bodies in a file, and how many are made in a second.

python benchmarks/rigid_body_scenes.py scenes.h5 [--scenes 20000] [--world floor] [--jobs 2]

A call that was killed goes on. The time is that on the clock, and the computing time of all processes.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from script import run_script

from remul_md.studies.rigid_bodies import SceneOptions, read_scenes, write_scenes
from remul_md.studies.rigid_meshes import KINDS


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Make the scenes and say how long it took."""
    scenes = SceneOptions(world=options.world, kinds=tuple(options.kinds))
    began, before = time.perf_counter(), os.times()
    write_scenes(options.file, n_scenes=options.scenes, seed=options.seed, options=scenes, n_jobs=options.jobs)
    seconds, after = time.perf_counter() - began, os.times()
    computed = sum(getattr(after, name) - getattr(before, name) for name in ("user", "children_user"))
    touched = (read_scenes(options.file).contact_steps > 0).mean()
    print(
        f"{options.scenes} scenes in {seconds:.1f} s ({options.scenes / seconds:.0f} a second), {computed:.1f} s of "
        f"computing ({options.scenes / computed:.0f} a second of a core); contacts in {100 * touched:.0f} % of them"
    )


def main(arguments: list[str] | None = None) -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--world", choices=["free", "floor"], default="free")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS], choices=[*KINDS])
    parser.add_argument("--jobs", type=int, default=1)
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
