"""Shapes are executed: every jaxtyping annotation of fsseg is checked by beartype while the tests run."""

import gc
import os
import subprocess
import sys
from pathlib import Path

# Benchmarks measure what users run: on all processors, and not checked.
BENCHMARK = any("bench_" in argument for argument in sys.argv)
if not BENCHMARK:
    # Before torch is loaded. The processors are shared by processes of pytest; threads of each would wait for each other.
    os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import typecheck  # noqa: E402
from filelock import FileLock  # noqa: E402

FOLDER = Path(__file__).resolve().parents[1] / "fsseg"
MODULES = [
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    # numba compiles plain functions only; typer hands over None for flags that were not given; and a package's name
    # would stand for all modules in it.
    if path.name != "__init__.py"
    and "jaxtyping" in path.read_text()
    and path.relative_to(FOLDER).as_posix() not in {"data/supervoxels/kernels.py", "cli/main.py"}
    and "interfaces" not in path.parts
]
if not BENCHMARK:
    typecheck.install(MODULES)

# Of processes that tests start as well.
INSTALLED = str(Path(__file__).parent / "installed")
sys.path.append(INSTALLED)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), INSTALLED]))

SHARED = Path(__file__).resolve().parents[2] / "shared"


# The same examples each time, however slow the machine. `max_examples` of a test's own and the slow tests' differ.
hypothesis.settings.register_profile(
    "tests", derandomize=True, database=None, deadline=None, max_examples=50
)
hypothesis.settings.load_profile("tests")


def pytest_xdist_auto_num_workers(config):
    """How many processes share the tests: one for each processor, for a file or a test by its name none."""
    if BENCHMARK or config.getoption("file_or_dir"):
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


NOT_BY_DEFAULT = ("processes", "slow", "browser", "slurm", "real_data")
"""Marks of tests that the README's command leaves out, and that may start processes."""

UNMARKED = []
"""The test that runs, where it has none of these marks."""


def _watch(event, arguments):
    if event == "subprocess.Popen" and UNMARKED and str(arguments[0]).startswith(sys.prefix):
        pytest.fail(f"{UNMARKED[0]} starts a process and has no mark `processes`")


sys.addaudithook(_watch)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test that starts Python has the mark for it: each takes seconds to import what it needs."""
    typecheck.begin_test()
    is_marked = any(item.get_closest_marker(mark) for mark in NOT_BY_DEFAULT)
    UNMARKED[:] = [] if is_marked or BENCHMARK else [item.nodeid]
    try:
        return (yield)
    finally:
        UNMARKED.clear()


def pytest_collection_finish():
    """What is loaded stays; the garbage collector need not look at it again."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder of all processes that share the tests."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def _cache_of_our_own(shared_folder):
    """The tests neither use nor fill the user's cache."""
    os.environ["FSSEG_CACHE"] = str(shared_folder / "cache")


@pytest.fixture(scope="session", autouse=True)
def _disk_in_its_own_time():
    """No test takes the power away, so nothing is waited for until it is on the disk."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def finished_run(shared_folder):
    """Gives a finished run of the recipe of `helpers` with some changes, by default of 30 steps on ten scans.

    It is made once for all tests that ask for the same. They copy what they change.
    """
    from helpers import make_folder, write_recipe

    import fsseg
    from fsseg.system.files import fingerprint

    def make(changes=None, cases=10):
        folder = shared_folder / f"runs_of_{cases}_cases"
        told = folder / f"{fingerprint(changes or {})[:16]}.txt"
        with FileLock(f"{folder}.lock"):
            if not told.exists():
                root = folder / "scans"
                if not root.exists():
                    make_folder(root, cases=cases)
                recipe = fsseg.load_recipe(write_recipe(folder, root, steps=30), changes)
                told.write_text(str(fsseg.run(recipe, runs_dir=folder / "runs", device="cpu").path))
        return fsseg.load_results(told.read_text())

    return make


@pytest.fixture
def shared():
    """The reference numbers beside the project; a checkout without them skips, continuous integration fails."""
    if not SHARED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SHARED} is missing")
        pytest.skip(f"needs the reference numbers in {SHARED}")
    return SHARED


@pytest.fixture
def shell(monkeypatch, capfd):
    """Calls the shell's entry point within this process, which has its imports behind it; gives what a process would."""

    def call(*words):
        from fsseg.cli.main import main

        monkeypatch.setattr("sys.argv", ["fsseg", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(words, ended.value.code, out, err)

    yield call
    if "fsseg.plugins.manager" in sys.modules:
        sys.modules["fsseg.plugins.manager"].choose_plugins(files=[], without=[])


@pytest.fixture
def tell(record_property):
    """Says something in the summary at the end, also of a test that passes."""
    return lambda text: record_property("told", text)


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in report.user_properties:
            if name == "told" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {text}")
