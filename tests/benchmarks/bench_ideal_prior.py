"""The ideal prior of slices next to a full sort of their margins.

Run by name: `uv run pytest tests/benchmarks/bench_ideal_prior.py`. One thread; times are not asserted, equality is.
"""

import pytest
import torch
from benchmarks.table import in_turns, print_at_end

from fsseg.model.ops import ideal_prior


@pytest.fixture(scope="module")
def table(request):
    torch.set_num_threads(1)
    return print_at_end(
        request, "ideal prior (one thread)                                  fsseg  torch.sort"
    )


@pytest.mark.parametrize("slices", [1, 37])
def test_slices_of_a_scan(benchmark, table, slices):
    generator = torch.Generator().manual_seed(0)
    margins = torch.randn(slices, 256, 256, generator=generator)
    counts = torch.randint(100, 30_000, (slices,), generator=generator)

    def baseline():
        ordered = margins.flatten(1).sort(dim=1, descending=True).values
        above, below = (ordered.gather(1, counts[:, None] + more)[:, 0] for more in (-1, 0))
        return -(below + (above - below) / 2)

    ours = lambda: ideal_prior(margins, counts)  # noqa: E731
    assert torch.equal(ours(), baseline())
    table.add(f"{slices} slices of 256 x 256", *in_turns(ours, baseline), "torch.sort")
    benchmark(ours)
