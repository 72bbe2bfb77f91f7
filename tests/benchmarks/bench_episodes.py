"""Drawing and augmenting an episode of 256 x 256 on one core, next to the published 48 ms on such a machine.

Run by name: `uv run pytest tests/benchmarks/bench_episodes.py`. Times are not asserted. What it takes on a GPU is in
`bench_training_gpu.py`.
"""

import numpy as np
import pytest
import torch
from benchmarks.table import in_turns, print_at_end, told

from fsseg.recipe.tables import EpisodeTable
from fsseg.runs.made_up import made_up_scan
from fsseg.training.episodes import EpisodeSampler


@pytest.fixture(scope="module")
def table(request):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield print_at_end(request, "an episode, drawn and augmented on one core")
    torch.set_num_threads(threads)


@pytest.mark.parametrize("classes", [1, 5])
def test_an_episode(benchmark, table, classes):
    sampler = EpisodeSampler([made_up_scan((256, 256))] * 3, EpisodeTable())
    rngs = iter(np.random.default_rng(number) for number in range(10_000))
    once = lambda: sampler.make(sampler.draw(next(rngs), classes))  # noqa: E731
    assert once().query.images.shape == (1, 256, 256)
    [seconds] = in_turns(once, rounds=200)
    table.rows.append(f"at most {classes} classes: {told(seconds)}")
    benchmark.pedantic(once, rounds=5)
