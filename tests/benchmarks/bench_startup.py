"""How long the shell takes to say anything, as whole processes on a warm machine.

Run by name: `uv run pytest tests/benchmarks/bench_startup.py`. Times are not asserted; that torch stays out of it is.
"""

import os
import subprocess
import sys

import pytest
from benchmarks.table import in_turns, print_at_end
from helpers import dummy_plugins

CODE = "import sys; from fsseg.cli.main import main; sys.argv = ['fsseg', *{0}]; main()"


WARM = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""A warm machine has modules compiled."""


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(
        request, "start of the shell                                        fsseg  bare Python"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "--help"]])
def test_a_command(benchmark, table, arguments):
    command = [sys.executable, "-c", CODE.format(arguments)]
    ours = lambda: subprocess.run(command, check=True, capture_output=True, env=WARM)  # noqa: E731
    bare = lambda: subprocess.run([sys.executable, "-c", "pass"], check=True, env=WARM)  # noqa: E731
    table.add(
        " ".join(["fsseg", *arguments]), *in_turns(ours, bare, rounds=9), "bare", inverse=True
    )
    told = subprocess.run(
        [sys.executable, "-X", "importtime", *command[1:]], capture_output=True, text=True
    ).stderr
    assert "fsseg.cli.main" in told and "| torch" not in told.replace("  ", "")
    benchmark.pedantic(ours, rounds=3)


def test_a_list_with_fifty_plugins(benchmark, table, tmp_path):
    dummy_plugins(tmp_path, 50)
    environment = WARM | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", CODE.format(["list"])]
    ours = lambda: subprocess.run(command, check=True, capture_output=True, env=environment)  # noqa: E731
    alone = lambda: subprocess.run(command, check=True, capture_output=True, env=WARM)  # noqa: E731
    table.add(
        "fsseg list, 50 plugins more",
        *in_turns(ours, alone, rounds=9),
        "without them",
        inverse=True,
    )
    assert ours().stdout.decode().count("fsseg-dummy-") == 50
    benchmark.pedantic(ours, rounds=3)
