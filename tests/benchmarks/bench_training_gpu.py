"""A training step next to the bare network's on a GPU, with the same precision, memory format and recording.

Run by name: `uv run pytest tests/benchmarks/bench_training_gpu.py`. Slices of 256 x 256; the step includes drawing and
augmenting its episode. Skips without a GPU. Times are not asserted.
"""

import numpy as np
import pytest
import torch
from benchmarks import evaluated_fold as fold
from benchmarks.table import in_turns, print_at_end
from benchmarks.trained_step import PAPERS, in_seconds, repeated, training

from fsseg.recipe.tables import SpeedTable
from fsseg.system.devices import PLAIN_RUNS, pick_device

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no GPU on this machine"
)


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(
        request, "a training step on a GPU                                  fsseg  bare network"
    )


@pytest.mark.parametrize("name", fold.NETWORKS)
def test_a_step(benchmark, table, name):
    device = pick_device("cuda")
    ours, bare = in_seconds(name, device, SpeedTable(), rounds=5, steps=100)
    table.add(f"{name}, {1 / ours:.0f} steps a second", ours, bare, "bare", inverse=True)
    benchmark.pedantic(training(name, device, SpeedTable()).advance, rounds=1)


def test_making_the_episode(benchmark, table):
    """The share of a step; by itself it is not recorded, so this is an upper limit."""
    device = pick_device("cuda")
    under_way = training(PAPERS, device, SpeedTable())
    for _ in range(PLAIN_RUNS + 1):
        under_way.advance()
    sampler = under_way._sampler
    parts = sampler.ingredients(sampler.draw(np.random.default_rng(0))).to(device)
    making = repeated(lambda: sampler.compose(parts), 50, device)
    step_s, making_s = in_turns(repeated(under_way.advance, 50, device), making, rounds=5)
    table.rows.append(f"making the episode: {making_s / step_s:.1%} of a step")
    benchmark.pedantic(making, rounds=1)
