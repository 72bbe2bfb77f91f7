"""Evaluating a fold with refiners next to the same fold without any.

Run by name: `uv run pytest tests/benchmarks/bench_refiners.py`. Two queries of 37 slices of 256 x 256, four organs, one row:
LinEst with five prototypes. Times are not asserted.
"""

import pytest
import torch
from benchmarks import evaluated_fold as fold
from benchmarks.table import in_turns, print_at_end

from fsseg import Component3d, EmGmm, LinEst, Position, QueryInformed, Segmenter, Tpm
from fsseg.evaluation.evaluate import evaluate
from fsseg.model.variants import Variant

CHAINS = {
    "component_3d": [Component3d()],
    "position": [Position()],
    "query_informed": [QueryInformed()],
    "position, query_informed, component_3d": [Position(), QueryInformed(), Component3d()],
}


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(
        request, "refiners, evaluating a fold                          with them       without"
    )


@pytest.mark.parametrize("name", CHAINS)
def test_a_fold_with(benchmark, table, name):
    backbone, made = fold.network("EfficientNet-Lite0"), fold.scans(slices=37)
    assigned, device, head, linear = fold.assignments(made), torch.device("cpu"), Tpm(), LinEst()
    linear.load_state({"coefficients": [-1.0, 20.0, -3.0]})

    def evaluated(refiners):
        segmenter = Segmenter(backbone, EmGmm(count=5), head, linear, refiners=refiners).eval()
        variants = [Variant("LinEst", segmenter, "5")]
        return lambda: list(
            evaluate(backbone, variants, assigned, made, fold.FOLD, seed=0, device=device)
        )

    refined, plain = evaluated(CHAINS[name]), evaluated([])
    assert len(refined()) == len(plain()) == 2 * 4
    refined_s, plain_s = in_turns(refined, plain, rounds=5)
    table.add(name, refined_s, plain_s, "LinEst alone", inverse=True)
    benchmark.pedantic(refined, rounds=1)
