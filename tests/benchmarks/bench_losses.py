"""A training step with the usual losses, next to one that works out the same three in place, on the CPU.

Run by name: `uv run pytest tests/benchmarks/bench_losses.py`. Both train the same on slices of 256 x 256, in turns within one
run; the step includes drawing and augmenting its episode. Times are not asserted, equal weights are.
"""

import pytest
import torch
from benchmarks import evaluated_fold as fold
from benchmarks.table import in_turns, print_at_end
from benchmarks.trained_step import PAPERS, training

from fsseg.recipe.tables import SpeedTable
from fsseg.training.losses import aligned, t_loss, weighted_nll

CPU = torch.device("cpu")


class InPlace:
    """What a training did before its losses were components: three functions, in one sum."""

    def __init__(self, objective, options):
        self.losses, self.values, self.options = objective.losses, objective.values, options

    def __call__(self, step):
        options = self.options
        query = weighted_nll(step.log_probability, step.episode.target, options.background_weight)
        alignment = aligned(
            step.extractor, step.head, step.logits, step.query_features, step.support_features,
            step.episode.support, step.mode,
        )  # fmt: skip
        threshold = t_loss(step.head.score)
        total = query + options.alignment * alignment + options.t_loss * threshold
        self.values.copy_(torch.stack([query, alignment, threshold]).detach())
        return total


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(
        request, "a training step                                           fsseg  losses in place"
    )


@pytest.mark.parametrize("name", [name for name in fold.NETWORKS if name != PAPERS])
def test_the_usual_losses(benchmark, table, name):
    ours, plain = (training(name, CPU, SpeedTable(precision="float32")) for _ in range(2))
    plain._objective = InPlace(plain._objective, plain.options)
    seconds = in_turns(ours.advance, plain.advance, rounds=25)
    table.add(f"CPU, {name}", *seconds, "in place", inverse=True)
    states = [done.states()["backbone"] for done in (ours, plain)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    benchmark.pedantic(ours.advance, rounds=1)
