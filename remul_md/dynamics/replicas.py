"""Many runs of one molecule at once: every replica is a run of its own, and all share one call of the potential.

Replica k is the run of `seed + k`, with its own trajectory, log, description and checkpoint, in any ensemble. Each
runs in a thread that waits for its forces; the calling thread collects the positions, calls the potential once for
all, and hands the forces out. The batch keeps its shape when replicas finish, so a killed set of runs goes on bit for
bit even where its replicas were checkpointed at different steps.

torch-sim has integrators for batches. They are not used here, because its Langevin noise comes from the generator of
the process (so a replica would depend on how many there are), its Nose-Hoover chain is one for all systems, and a
second engine would be needed for equilibration, logs and checkpoints. The Python time of a step, about 0.2 ms for each
replica, is what this costs: for thousands of replicas on a GPU see `remul_md.calculators.torch_sim`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from remul_md.dynamics.checkpoint import load_checkpoint
from remul_md.dynamics.engine import SimulationStopped
from remul_md.dynamics.momenta import Array
from remul_md.dynamics.options import MDOptions
from remul_md.dynamics.recording import OutputFiles
from remul_md.dynamics.run import MDResult, run_owned
from remul_md.dynamics.start import check_structure
from remul_md.errors import InputError
from remul_md.files import owned
from remul_md.outputs import make_way
from remul_md.progress import progress_bar

if TYPE_CHECKING:
    from tqdm import tqdm

Evaluate = Callable[[Array], tuple[Array, Array]]
Answer = tuple[float, Array, dict[str, Any]]  # energy, forces, diagnostics


class ReplicasAborted(RuntimeError):
    """Another replica, or the potential, failed; files are as at a kill, and the runs can be resumed."""


def replica_output(output: str | Path, replica: int) -> Path:
    """`run-3.traj` for replica 3 of `run.traj`."""
    path = Path(output)
    return path.with_name(f"{path.stem}-{replica}{path.suffix}")


def run_replicas(
    atoms: Atoms,
    options: MDOptions,
    *,
    n_replicas: int,
    output: str | Path,
    evaluate: Evaluate,
    positions: Array | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> list[MDResult | SimulationStopped]:
    """Run `n_replicas` runs of `atoms` side by side; one that falls apart does not stop the others.

    Args:
        atoms: the structure; its calculator is not used. Not modified.
        options: of all replicas; replica k has the seed `options.seed + k`.
        n_replicas: how many.
        output: replica k writes `run-k.traj` (for `run.traj`) and what `run_md` writes beside it.
        evaluate: positions [R, N, 3], Angstrom, to energies [R], eV, and forces [R, N, 3], eV/Angstrom, such as
            `RemulCalculator.copies`; called from this thread, always with R = `n_replicas`. What its `diagnostics` say
            of each copy after a call, if it has them, is what `options.stop_when` sees: each replica stops by itself.
        positions: where each replica starts, [R, N, 3], Angstrom; default: all where `atoms` is.
        resume: go on with those that were interrupted, begin those that had not begun.
        overwrite: remove runs that are there, and begin.
        progress: show one progress bar on stderr.
        provenance: as for `run_md`.
    Returns:
        What each run gave: its result, or why it stopped.
    Raises:
        InputError: as `run_md`, multiple time steps, or positions of another shape; runs that had begun can be resumed.
    """
    if isinstance(n_replicas, bool) or not isinstance(n_replicas, int) or n_replicas < 1:
        raise InputError(f"replicas must be a whole number >= 1, got {n_replicas!r}")
    if options.n_inner is not None:
        raise InputError(
            f"n_inner {options.n_inner} does not go with replicas, which share one call of one kind of forces; "
            "run them one by one"
        )
    initial_positions = np.repeat(atoms.get_positions()[None], n_replicas, axis=0) if positions is None else positions
    if initial_positions.shape != (n_replicas, len(atoms), 3):
        raise InputError(
            f"positions must have the shape ({n_replicas}, {len(atoms)}, 3), a start for each replica, "
            f"got {initial_positions.shape}"
        )
    if Path(output).suffix != ".traj":
        raise InputError(f"replicas are written as ASE trajectories: output must end in .traj, got {str(output)!r}")
    files = [OutputFiles.for_output(replica_output(output, replica)) for replica in range(n_replicas)]
    exchange = _Exchange(n_replicas)
    structures = []
    for replica in range(n_replicas):
        structures.append(atoms.copy())
        structures[replica].set_positions(initial_positions[replica], apply_constraint=False)
        structures[replica].calc = ReplicaCalculator(exchange, replica)
        check_structure(structures[replica], options)
    outcomes: dict[int, MDResult | SimulationStopped] = {}

    def run_one(replica: int) -> None:
        failure: BaseException | None = None
        try:
            outcomes[replica] = run_owned(
                structures[replica],
                replace(options, seed=options.seed + replica),
                files=files[replica],
                resume=resume,
                progress=False,
                provenance=provenance,
            )
        except SimulationStopped as stop:
            outcomes[replica] = stop
        except BaseException as error:  # handed to the calling thread, which raises it
            failure = error
        exchange.requests.put(_Request(replica, None, failure))

    threads = [
        threading.Thread(target=run_one, args=(replica,), name=f"replica-{replica}") for replica in range(n_replicas)
    ]
    with ExitStack() as stack:
        for each in files:  # all of them before any replica begins
            stack.enter_context(owned(each.trajectory, also=each.all()))
        make_way((path for each in files for path in each.existing()), resume=resume, overwrite=overwrite)
        n_done = min(_steps_done(each) for each in files)  # the last replica decides when all have ended
        for thread in threads:
            thread.start()
        try:
            n_steps = options.n_equilibration_steps + options.n_steps
            bar = progress_bar(
                shown=progress, total=n_steps, initial=n_done, unit="step", desc=f"{n_replicas} replicas"
            )
            with bar:
                exchange.serve(evaluate, initial_positions, bar=bar)
        finally:
            exchange.close()
            for thread in threads:
                thread.join()
    return [outcomes[replica] for replica in range(n_replicas)]


def _steps_done(files: OutputFiles) -> int:
    """Of a run that was interrupted; 0 if none had begun."""
    return load_checkpoint(files.checkpoint).steps_done if files.checkpoint.exists() else 0


class _Request:
    """Positions that a replica wants forces at; none when it has ended, with what it failed with."""

    def __init__(self, replica: int, positions: Array | None, failure: BaseException | None = None) -> None:
        self.replica, self.positions, self.failure = replica, positions, failure


class _Exchange:
    """Where threads leave positions and wait for forces. A queue each: only who has got forces goes on."""

    def __init__(self, n_replicas: int) -> None:
        self.requests: SimpleQueue[_Request] = SimpleQueue()
        self.answers: list[SimpleQueue[Answer | None]] = [SimpleQueue() for _ in range(n_replicas)]
        self.closed = False

    def energy_and_forces(self, replica: int, positions: Array) -> Answer:
        """Called by the threads of the replicas."""
        if not self.closed:
            self.requests.put(_Request(replica, positions))
            answer = self.answers[replica].get()
            if answer is not None:
                return answer
        raise ReplicasAborted("another replica failed")

    def serve(self, evaluate: Evaluate, first_positions: Array, *, bar: tqdm[Any]) -> None:
        """Answer until all replicas have ended; raises what one of them failed with."""
        positions = first_positions.copy()
        n_running = len(self.answers)
        while n_running:
            waiting: list[int] = []
            while len(waiting) < n_running:
                request = self.requests.get()
                if request.failure is not None:
                    raise request.failure
                if request.positions is None:
                    n_running -= 1
                else:
                    positions[request.replica] = request.positions
                    waiting.append(request.replica)
            if waiting:
                begins = np.array_equal(positions, first_positions)  # forces before the first step
                energies, forces = evaluate(positions)
                told = getattr(evaluate, "diagnostics", None) or [{}] * len(self.answers)
                for replica in waiting:
                    self.answers[replica].put((float(energies[replica]), forces[replica].copy(), told[replica]))
                bar.update(0 if begins else 1)

    def close(self) -> None:
        """Let nobody wait any more."""
        self.closed = True
        for answers in self.answers:
            answers.put(None)


class ReplicaCalculator(Calculator):
    """The potential as one replica sees it: it asks, and waits until all others have asked."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's protocol)

    def __init__(self, exchange: _Exchange, replica: int) -> None:
        super().__init__()
        self._exchange, self._replica = exchange, replica
        self.diagnostics: dict[str, Any] = {}

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Dynamics moves atoms and changes nothing else; ASE's own check costs more than the share of a small model."""
        same = self.atoms is not None and np.array_equal(self.atoms.positions, atoms.positions)
        return [] if same else list(all_changes)

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy", "forces"), system_changes: Any = None
    ) -> None:
        """Energy and forces at the positions of `atoms`.

        Raises:
            ReplicasAborted: another replica or the potential failed.
        """
        assert atoms is not None
        energy, forces, self.diagnostics = self._exchange.energy_and_forces(self._replica, atoms.get_positions())
        self.atoms = atoms.copy()
        self.results = {"energy": energy, "forces": forces}
