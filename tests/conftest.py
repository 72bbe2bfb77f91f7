"""Shapes are executed: every jaxtyping annotation of fsseg is checked by beartype while the tests run."""

import os
import sys
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

FOLDER = Path(__file__).resolve().parents[1] / "fsseg"
MODULES = [
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    # numba compiles plain functions only; typer hands over None for flags that were not given; and a package's name
    # would stand for all modules in it.
    if path.name != "__init__.py"
    and path.relative_to(FOLDER).as_posix()
    not in {"data/supervoxels/kernels.py", "cli/main.py", "interfaces.py"}
]
# Benchmarks measure what users run, which is not checked.
if not any("bench_" in argument for argument in sys.argv):
    install_import_hook(MODULES, "typecheck.typecheck")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _cache_of_our_own(tmp_path_factory):
    """The tests neither use nor fill the user's cache."""
    os.environ["FSSEG_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def shared():
    """The reference numbers beside the project; a checkout without them skips, continuous integration fails."""
    if not SHARED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SHARED} is missing")
        pytest.skip(f"needs the reference numbers in {SHARED}")
    return SHARED


@pytest.fixture
def tell(record_property):
    """Says something in the summary at the end, also of a test that passes."""
    return lambda text: record_property("told", text)


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in report.user_properties:
            if name == "told" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {text}")
