"""What made a number: versions and machine, written beside every result."""

from __future__ import annotations

import os
import platform
from typing import Any

from remul_md._version import __version__


def provenance(command: str, *, n_jobs: int) -> dict[str, Any]:
    """Command, versions and kind of machine as JSON-able values; no names of hosts, users or folders."""
    import numpy as np
    import torch

    from remul_md.potentials.provenance import source_commit

    return {
        "command": command,
        "versions": {
            "remul_md": __version__,
            "commit": source_commit(),
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "numpy": np.__version__,
        },
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "jobs": n_jobs,
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }
