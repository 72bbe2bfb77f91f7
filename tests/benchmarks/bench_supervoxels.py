"""How fast the supervoxels are, next to the same method written down plainly, and how much memory they take.

Run by name: `uv run pytest tests/benchmarks/bench_supervoxels.py`. Both sides are compiled before the clock starts and
use one thread. Times are not asserted, the results' equality is.
"""

import subprocess
import sys

import numpy as np
import pytest
from benchmarks import plain_supervoxels

from fsseg.data.supervoxels import felzenszwalb as supervoxels

SIDES = {"product": supervoxels.felzenszwalb, "plain": plain_supervoxels.plain_supervoxels}
ROUNDS = {("product", 36): 7, ("plain", 36): 3, ("product", 96): 5, ("plain", 96): 1}
LIMITS = {36: 400, 96: 800}
"""MiB that a whole process may take, by the number of slices."""

CHILD = """
import resource, sys
import numpy as np
from fsseg.data.supervoxels.felzenszwalb import felzenszwalb
path, spacing, min_size = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
image = np.load(path)
felzenszwalb(image[:2, :9, :9].copy(), spacing=spacing, min_size=5)  # loads the compiled code
before = peak()
felzenszwalb(image, spacing=spacing, min_size=min_size)
print(before, peak())
"""


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Has both sides compiled, whatever the number of the volumes chosen."""
    image = np.random.default_rng(0).uniform(0, 255, (3, 20, 20))
    for segment in SIDES.values():
        segment(image, spacing=(3.0, 1.0, 1.0), min_size=30)


class Table:
    """Medians and peaks by volume and side, as the last thing that the run prints."""

    def __init__(self):
        self.rows = {}

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter):
        write = terminalreporter.write_line
        write(f"{'':24}{'product':>10}{'plain':>10}{'ratio':>8}{'peak, MiB (of the call)':>26}")
        for name, row in self.rows.items():
            product, plain = (
                row.get("product", np.nan),
                row.get("plain", np.nan),
            )  # either may have been left out
            times = f"{product:9.2f}s{plain:9.2f}s{plain / product:7.1f}x"
            peak = (
                f"{row['peak']:.0f} (+{row['peak'] - row['before']:.0f})" if "peak" in row else ""
            )
            write(f"{name:24}{times}{peak:>26}")


@pytest.fixture(scope="module")
def measured(request):
    """The rows of the table, to be filled in."""
    table = Table()
    request.config.pluginmanager.register(table)
    return table.rows


@pytest.fixture(scope="module", params=plain_supervoxels.VOLUMES)
def prepared(request):
    """Name, image and options of a volume, and the results of both sides as they come."""
    about = plain_supervoxels.VOLUMES[request.param]
    options = {"spacing": about["spacing"], "min_size": about["min_size"]}
    return request.param, plain_supervoxels.volume(request.param), options, {}


@pytest.mark.parametrize("side", SIDES)
def test_supervoxels(benchmark, prepared, measured, side):
    name, image, options, results = prepared
    benchmark.group = name
    rounds = ROUNDS[side, len(image)]
    results[side] = benchmark.pedantic(
        SIDES[side], (image,), options, rounds=rounds, warmup_rounds=side == "product"
    )
    row = measured.setdefault(name, {})
    row[side] = benchmark.stats.stats.median
    if len(results) == len(SIDES):
        benchmark.extra_info["times as long as the product"] = round(
            row["plain"] / row["product"], 1
        )
        np.testing.assert_array_equal(results["plain"], results["product"])


def test_memory(prepared, measured, tmp_path):
    """The peak of a fresh process, and how much of it came with the call."""
    name, image, options, _ = prepared
    np.save(tmp_path / "image.npy", image)
    arguments = [str(tmp_path / "image.npy"), str(options["spacing"]), str(options["min_size"])]
    # A shell in between: a process starts with the peak of the one that it was split off from.
    command = ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", CHILD, *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, peak = map(float, printed.split())
    measured.setdefault(name, {}).update(before=before, peak=peak)
    assert peak < LIMITS[len(image)]
