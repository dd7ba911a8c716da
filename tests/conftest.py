"""Fixtures that several test files share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from browser_session import CHROMIUM, DRIVER
from hypothesis import HealthCheck, settings

# The same examples in every run, on every machine. `pytest --hypothesis-profile search` looks for new ones.
settings.register_profile(
    "seeded", derandomize=True, deadline=None, database=None, max_examples=40, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.register_profile("search", parent=settings.get_profile("seeded"), derandomize=False, max_examples=400)
settings.load_profile("seeded")

# Files of few tests that take long. Begun last, one process would end minutes after the other.
BEGUN_FIRST = ("cuda_check", "compiled", "potentials_compiled", "soak", "train_resume", "studies_lab", "train")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; `make test` gives files to its processes in this order."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(BEGUN_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))  # stable: the rest stays as it was


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A shell starts its background jobs deaf to it, and so would be every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    selenium = pytest.importorskip("selenium", reason="selenium is not installed (pip install remul-md[dev])")
    from selenium import webdriver

    assert selenium is not None
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The entry point in this process: exit code, stdout, stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        from remul_md.cli.app import main

        monkeypatch.setattr(sys, "argv", ["remul-md", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run
