"""The memory that evaluating a scan takes with the paper's network, as the peak of a process of its own.

Run by name: `uv run pytest tests/benchmarks/bench_evaluation_memory.py`. Includes Python, torch and the weights.
"""

import subprocess
import sys

import pytest
from benchmarks.table import print_at_end

CHILD = """
import resource, sys
import torch
from benchmarks import evaluated_fold as fold
from fsseg.evaluation.evaluate import evaluate
slices, count = int(sys.argv[1]), int(sys.argv[2])
backbone, made = fold.network("the paper's ResNet-101"), fold.scans(slices)
assigned = [a for a in fold.assignments(made) if a.query_case == fold.FOLD.queries[0]]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
list(evaluate(backbone, fold.rows(backbone, count), assigned, made, fold.FOLD, seed=0, device=torch.device("cpu")))
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(
        request, "peak memory of evaluating a scan of 256 x 256 x slices, the paper's network, CPU"
    )


@pytest.mark.parametrize(("slices", "count"), [(37, 1), (37, 9), (148, 9)])
def test_a_scan(benchmark, table, slices, count):
    """At most 2 GB for a usual scan, which is no matter of time and so asserted."""
    command = [sys.executable, "-c", CHILD, str(slices), str(count)]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True, cwd="tests"),
        rounds=1,
    )
    before, peak = map(float, done.stdout.split())
    table.rows.append(
        f"{slices:4} slices, 4 organs x {count} rows: {peak:6.0f} MiB, {before:.0f} before it began"
    )
    assert slices > 37 or peak < 2000 * 1000**2 / 2**20
