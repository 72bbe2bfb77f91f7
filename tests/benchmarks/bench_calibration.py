"""Calibration next to one pass of the bare network over its images, with one row and with eight.

Run by name: `uv run pytest tests/benchmarks/bench_calibration.py`. 40 episodes of 256 x 256; the table's 1,000 take 25 times as
long. Times are not asserted, the number of images encoded is.
"""

import numpy as np
import pytest
import torch
from benchmarks import evaluated_fold as fold
from benchmarks.table import in_turns, print_at_end

from fsseg.data.datasets.phantom.dataset import AbdomenPhantom
from fsseg.data.supervoxels.regions import count_regions
from fsseg.model.segmenter import encode
from fsseg.recipe.tables import EpisodeTable
from fsseg.training.calibration import calibrate
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.scans import TrainingScan

EPISODES = 40


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(
        request, "calibration                                               fsseg  bare network"
    )


@pytest.fixture(scope="module")
def sampler():
    """Squares of 48 pixels as regions: what they show does not matter for the time."""
    volume = AbdomenPhantom(size=256).load("phantom_01")
    image = torch.from_numpy(volume.image / volume.image.std())
    row = np.arange(256) // 48
    regions = np.repeat((row[:, None] * 6 + row + 1)[None], len(image), axis=0).astype(np.int32)
    scan = TrainingScan("phantom_01", image, torch.from_numpy(regions), count_regions(regions), 0.0)
    return EpisodeSampler([scan], EpisodeTable())


@pytest.mark.parametrize("name", fold.NETWORKS)
@pytest.mark.parametrize("count", [3, 9])
def test_episodes(benchmark, table, sampler, name, count):
    backbone = fold.network(name)
    variants, device = fold.rows(backbone, count), torch.device("cpu")
    images, passed = torch.randn(2 * EPISODES, 256, 256), []

    @torch.no_grad()
    def bare():
        for part in images.split(16):
            encode(backbone, part)

    ours = lambda: calibrate(backbone, variants, sampler, EPISODES, seed=0, device=device)  # noqa: E731
    handle = backbone.register_forward_hook(lambda _, inputs, __: passed.append(len(inputs[0])))
    ours()
    handle.remove()
    assert (
        sum(passed) == 2 * EPISODES and len(passed) < EPISODES
    )  # each once, as many at a time as fit the memory
    ours_s, bare_s = in_turns(ours, bare, rounds=1)
    table.add(f"{name}, {count} rows", ours_s, bare_s, "bare", inverse=True)
    benchmark.pedantic(ours, rounds=1)
