"""Functions of tensors compiled ahead of time for their shapes and kept on disk: a call costs no Python and no check.

A kept function is machine code that this package wrote into the user's own cache; potentials never carry any.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from remul_md.errors import InputError
from remul_md.files import cache_directory

Function = Callable[..., list[Tensor]]  # of tensors


def require_compiler(device: torch.device, *, option: str) -> None:
    """See that what `torch.compile` needs on this device is there.

    Args:
        device: where the code shall run.
        option: the name of what was asked for, for the message.
    Raises:
        InputError: no C++ compiler, or no Triton for a GPU.
    """
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # as torch looks for it
    if shutil.which(name) is None:
        raise InputError(f"{option} needs a C++ compiler; {name!r} was not found: install it, or leave it off")
    if device.type == "cuda" and find_spec("triton") is None:
        raise InputError(f"{option} needs Triton on a GPU, and it is not installed; leave it off")


def compiled_file(example: Sequence[Tensor], *, identity: Mapping[str, Any]) -> Path:
    """Where a function is kept once it is compiled.

    Args:
        example: its arguments.
        identity: JSON-able; two functions that differ differ in it. What the machine, torch and the number of threads
            add is added here.
    """
    arguments = [[list(argument.shape), str(argument.dtype)] for argument in example]
    everything = {**identity, **_machine(example[0].device), "arguments": arguments}
    name = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:32]
    return cache_directory() / "compiled" / f"{name}.pt2"


def compiled_function(
    function: Function, example: Sequence[Tensor], *, file: Path, say: Callable[[str], None]
) -> Function:
    """`function`, compiled for arguments like `example`; from its file if the same was compiled here before.

    Args:
        function: of tensors; derivatives inside are fine, no graph may leave it.
        example: its arguments, by which it is traced.
        file: see `compiled_file`.
        say: told in a line when compilation starts and how long it took.
    Raises:
        InputError: the cache cannot be written, or the function cannot be compiled here.
    """
    if file.is_file():
        try:
            return _load(file)
        except RuntimeError:  # cut off by a full disk, for example
            file.unlink(missing_ok=True)
    require_compiler(example[0].device, option="compile=True")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{file.parent}: cannot be made ({error}); choose another folder with REMUL_MD_CACHE"
        ) from error
    say("compiling energies and forces (one to five minutes; kept for the next time) ...")
    started = time.perf_counter()
    _compile(function, example, file)
    say(f"compiled in {time.perf_counter() - started:.0f} s")
    return _load(file)


def plain_graph(function: Callable[..., Any], example: Sequence[Any]) -> torch.fx.GraphModule:
    """A function as one graph of tensor operations, in which nothing is left to be differentiated.

    Args:
        function: of tensors, or of lists of them; derivatives inside are fine.
        example: its arguments, by which it is traced.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    graph: torch.fx.GraphModule = make_fx(function)(*example)
    # The compiler lays some tensors out otherwise than they were when traced, and those cannot be viewed.
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    graph.recompile()
    return graph


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode() + values.numpy().tobytes())
    return digest.hexdigest()


def digest_of_sources(package: Any) -> str:
    """sha256 over the Python files of a package: code compiled from other sources is never used again."""
    digest = hashlib.sha256()
    for file in sorted(Path(package.__path__[0]).rglob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _compile(function: Function, example: Sequence[Tensor], file: Path) -> None:
    # Compiled under another name and moved: whoever compiles the same at the same time does no harm.
    with tempfile.TemporaryDirectory(dir=file.parent) as folder, _torch_about_itself():
        part = Path(folder) / "function.pt2"
        try:
            # A bound method would be asked for one argument more.
            graph = plain_graph(lambda *arguments: function(*arguments), example)
            with torch.no_grad():
                exported = torch.export.export(graph, tuple(example))
                torch._inductor.aoti_compile_and_package(exported, package_path=str(part))
        except Exception as error:  # torch raises many types; what the machine lacks stands in the first line
            raise InputError(
                f"energies and forces could not be compiled ({type(error).__name__}: {str(error).strip()[:300]}); "
                "leave compile off"
            ) from error
        part.replace(file)


def _torch_about_itself() -> AbstractContextManager[Any]:
    """Nothing that torch warns of in here can be mended by who reads it."""
    return warnings.catch_warnings(action="ignore")


def _load(file: Path) -> Function:
    with _torch_about_itself():
        return torch._inductor.aoti_load_package(str(file))


def _machine(device: torch.device) -> dict[str, Any]:
    """What compiled code depends on beside the function: it holds instructions of one CPU and a number of threads."""
    cpu = platform.processor()
    description = Path("/proc/cpuinfo")
    if description.is_file():
        wanted = ("model name", "flags", "Features")
        cpu = "\n".join(
            sorted({line for line in description.read_text(encoding="utf-8").splitlines() if line.startswith(wanted)})
        )
    return {
        "torch": torch.__version__,
        "cpu": f"{platform.machine()} {cpu}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "n_threads": torch.get_num_threads(),
    }
