"""The tasks of the studies, one file each: what is asked, the data, and what was published."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remul_md.studies.lab import Task

# Name on the command line -> file and what is asked; nothing is imported for a list or a help text.
TASKS = {
    "nbody": ("nbody", "four bodies under gravity: trained in few orientations, tested in others"),
    "charged": ("charged", "five charged particles in space, whose data stand in all orientations"),
    "mocap": ("mocap", "people who walk and run: gravity and heading break the symmetry of all rotations"),
    "md17": ("md17", "where the heavy atoms of a hot molecule will be 3,000 steps later, by our own dynamics"),
    "force-field": ("forcefield", "ways of training a force field on rMD17: accuracy, symmetry and dynamics"),
    "field": ("field", "ethanol in an electric field: the right group, the wrong one, or none"),
    "freedom": ("freedom", "networks with more and less symmetry built in, by the number of frames"),
    "flow": ("flow", "flow matching of conformers: how fast a network learns that they have no up"),
    "voxels": ("voxels", "densities on a grid freed of noise by a U-Net: does it learn rotations as fast?"),
    "rigid-bodies": ("rigidbodies", "bodies that collide, as meshes: symmetry built in or learned from data"),
}


def find_task(name: str) -> Task[Any]:
    """The task of this name.

    Raises:
        InputError: no such task; the nearest name is told.
    """
    from remul_md.studies.options import check_names

    check_names([name], TASKS, kind="task")
    module: Any = import_module(f"remul_md.studies.tasks.{TASKS[name][0]}")
    task: Task[Any] = module.TASK
    return task
