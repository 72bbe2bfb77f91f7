"""Several trainings at a time on a GPU, in steps per second of all together, next to one alone.

Run by name: `uv run pytest tests/benchmarks/bench_training_together.py`. The paper's network, slices of 256 x 256. Skips without
a GPU. Times are not asserted.
"""

import pytest
import torch
from benchmarks.table import in_turns, print_at_end
from benchmarks.trained_step import PAPERS, repeated, training

from fsseg.recipe.tables import SpeedTable
from fsseg.system.devices import PLAIN_RUNS, pick_device

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no GPU on this machine"
)
STEPS = 50


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(request, "several trainings on a GPU")


@pytest.mark.parametrize("together", [2, 5, 8])
def test_several(benchmark, table, together):
    device = pick_device("cuda")
    trainings = [training(PAPERS, device, SpeedTable(), seed) for seed in range(together)]
    for one in trainings:
        for _ in range(PLAIN_RUNS + 1):
            one.advance()

    def all_together():
        for one in trainings:
            one.advance()

    several = repeated(all_together, STEPS, device)
    several_s, alone_s = in_turns(several, repeated(trainings[0].advance, STEPS, device), rounds=5)
    table.rows.append(
        f"{together} at a time: {together * alone_s / several_s:.2f} x the steps per second of one alone"
    )
    benchmark.pedantic(several, rounds=1)
