"""A training step next to forward pass, backward pass and update of the bare network on the same two slices, on the CPU.

Run by name: `uv run pytest tests/benchmarks/bench_training.py`. Slices of 256 x 256; the step includes drawing and augmenting
its episode. Times are not asserted.
"""

import pytest
import torch
from benchmarks import evaluated_fold as fold
from benchmarks.table import print_at_end
from benchmarks.trained_step import PAPERS, in_seconds, training

from fsseg.recipe.tables import SpeedTable

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(
        request, "a training step                                           fsseg  bare network"
    )


@pytest.mark.parametrize(
    ("name", "precision"), [(name, "float32") for name in fold.NETWORKS] + [(PAPERS, "bfloat16")]
)
def test_on_a_cpu(benchmark, table, name, precision):
    speed = SpeedTable(precision=precision)
    ours, bare = in_seconds(name, CPU, speed, rounds=5 if name == PAPERS else 25)
    table.add(f"CPU, {name}, {precision}", ours, bare, "bare", inverse=True)
    benchmark.pedantic(training(name, CPU, speed).advance, rounds=1)
