"""Jobs in processes of their own, and what is left of them when the study is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from remul_md.errors import InputError
from remul_md.studies.jobs import run_jobs

STUDY = """
import sys, time
from pathlib import Path
from remul_md.studies.jobs import run_jobs

def work(folder):
    import os
    Path(folder, "pid").write_text(str(os.getpid()))
    time.sleep(120)
    return {}

if __name__ == "__main__":
    run_jobs(work, {"one": (sys.argv[1],)}, n_jobs=1)
"""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended but was not collected yet still has a number.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def _until(condition: object, *, seconds: float = 60.0) -> bool:
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_killed_study_leaves_no_process_behind(tmp_path: Path) -> None:
    script, pid_file = tmp_path / "study.py", tmp_path / "pid"
    script.write_text(STUDY)
    study = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.DEVNULL)
    try:
        assert _until(lambda: pid_file.exists() and pid_file.read_text())
        worker = int(pid_file.read_text())
        assert _alive(worker)
    finally:
        study.send_signal(signal.SIGKILL)
        study.wait()
    assert _until(lambda: not _alive(worker), seconds=20.0)


def square(number: int) -> dict[str, int]:
    return {"square": number * number}


@pytest.mark.slow
def test_results_stand_in_the_order_of_the_jobs() -> None:
    found = run_jobs(square, {"three": (3,), "two": (2,)}, n_jobs=2)
    assert list(found.items()) == [("three", {"square": 9}), ("two", {"square": 4})]
    with pytest.raises(InputError, match="got 0"):
        run_jobs(square, {}, n_jobs=0)
