"""Masked average pooling next to its definition, which resizes all channels to the image first.

Run by name: `uv run pytest tests/benchmarks/bench_pooling.py`. One thread; times are not asserted, equality is.
"""

import pytest
import torch
import torch.nn.functional as F
from benchmarks.table import in_turns, print_at_end

from fsseg.model.prototypes import MaskedAverage


@pytest.fixture(scope="module")
def table(request):
    torch.set_num_threads(1)
    return print_at_end(
        request, "masked average pooling (one thread)                       fsseg    resizing"
    )


def test_four_organs(benchmark, table):
    """256 channels of 32 x 32 cells, four masks of 256 x 256 pixels in one slice."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 256, 32, 32, generator=generator)
    blobs = F.interpolate(
        torch.rand(4, 1, 6, 6, generator=generator), size=(256, 256), mode="bicubic"
    )
    masks = blobs > 0.6
    spread = features.expand(4, 1, 256, 32, 32)

    def baseline():
        """For each organ, as published: resize, multiply, sum."""
        made = []
        for mask in masks:
            fine = F.interpolate(features, size=(256, 256), mode="bilinear", align_corners=False)
            made.append((fine * mask).sum(dim=(-2, -1)) / (mask.sum() + 1e-5))
        return torch.stack(made)

    ours = lambda: MaskedAverage()(spread, masks).foreground  # noqa: E731
    torch.testing.assert_close(ours(), baseline(), atol=1e-6, rtol=0)
    table.add("4 organs", *in_turns(ours, baseline), "resizing")
    benchmark(ours)
