"""Evaluating a fold next to one pass of the bare network over its distinct slices.

Run by name: `uv run pytest tests/benchmarks/bench_evaluation.py`. Two queries of 12 slices of 256 x 256, four organs and nine
rows. Times are not asserted.
"""

import pytest
import torch
from benchmarks import evaluated_fold as fold
from benchmarks.table import in_turns, print_at_end

from fsseg.evaluation.evaluate import evaluate


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(
        request, "evaluating a fold                                         fsseg  bare network"
    )


@pytest.mark.parametrize("name", fold.NETWORKS)
@pytest.mark.parametrize("count", [1, 9])
def test_a_fold(benchmark, table, name, count):
    backbone, made = fold.network(name), fold.scans(slices=12)
    assigned, variants = fold.assignments(made), fold.rows(backbone, count)
    images = fold.distinct_images(made, assigned)
    device = torch.device("cpu")

    @torch.no_grad()
    def bare():
        for part in images.split(4):
            backbone(part[:, None].expand(-1, 3, -1, -1))

    def ours():
        return list(evaluate(backbone, variants, assigned, made, fold.FOLD, seed=0, device=device))

    assert len(ours()) == 2 * 4 * count
    ours_s, bare_s = in_turns(ours, bare, rounds=3)
    table.add(f"{name}, 4 organs x {count} rows", ours_s, bare_s, "bare", inverse=True)
    benchmark.pedantic(ours, rounds=1)
