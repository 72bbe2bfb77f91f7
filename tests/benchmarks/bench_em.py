"""EM-GMM next to the published formulation, which writes a tensor of pixels x prototypes x channels in every iteration.

Run by name: `uv run pytest tests/benchmarks/bench_em.py`. One thread; times are not asserted, equality is.
"""

import pytest
import torch
import torch.nn.functional as F
from benchmarks.table import in_turns, print_at_end

from fsseg.model.pixels import Pixels
from fsseg.model.prototypes import EmGmm

SIGMA = torch.tensor(0.1).sqrt()
PIXELS, CHANNELS, COUNT = 20_000, 256, 5


@pytest.fixture(scope="module")
def table(request):
    torch.set_num_threads(1)
    return print_at_end(
        request, "EM-GMM (one thread)                                       fsseg   published"
    )


def published_em(pixels, means, weights, sigma, iterations=100, tolerance=1e-3):
    """As the TPM paper's code is described: squared distances from differences, all pixels with all prototypes."""

    def joint(means, weights):
        squared = (pixels[:, None] - means[None]).square().sum(dim=2)
        return weights.log() - squared / (2 * sigma**2)

    reference = -joint(means, weights).logsumexp(dim=1).sum().item()
    for step in range(iterations):
        means = F.normalize(means, dim=1)
        shares = joint(means, weights).softmax(dim=1)
        mass = shares.sum(dim=0)
        updated = (shares[:, :, None] * pixels[:, None]).sum(dim=0) / mass[:, None]
        weights = mass / mass.sum()
        loss = -joint(means, weights).logsumexp(dim=1).sum().item()
        means = updated
        if reference / (loss + 1e-8) - 1 < tolerance:
            if step >= 5:
                break
        else:
            reference = (reference + loss) / 2
    return F.normalize(means, dim=1), weights


def smooth_features(shots=1):
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(
        torch.randn(shots, CHANNELS, 6, 6, generator=generator), size=(32, 32), mode="bilinear"
    )
    return smooth + 0.3 * torch.randn(smooth.shape, generator=generator)


def test_vectors_at_hand(benchmark, table):
    """20,000 unit vectors of 256 channels, five prototypes."""
    fine = (
        F.interpolate(smooth_features(), size=(160, 160), mode="bilinear")[0].flatten(1).T[:PIXELS]
    )
    pixels = F.normalize(fine, dim=1).contiguous()
    extractor = EmGmm(count=COUNT)
    ours = lambda: extractor.fit(Pixels.of(pixels), SIGMA)  # noqa: E731
    start = extractor._start(Pixels.of(pixels))
    baseline = lambda: published_em(pixels, *start, SIGMA)  # noqa: E731
    for got, expected in zip(ours(), baseline()):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    table.add(f"{PIXELS} vectors", *in_turns(ours, baseline, rounds=3), "published")
    benchmark(ours)


@pytest.mark.parametrize("side", [22, 141])
def test_a_mask_of_a_slice(benchmark, table, side):
    """What runs in practice: features of 32 x 32 cells under a mask of a 256 x 256 slice."""
    features, masks = smooth_features()[None], torch.zeros(1, 1, 256, 256, dtype=torch.bool)
    masks[..., 40 : 40 + side, 60 : 60 + side] = True
    extractor = EmGmm(count=COUNT)

    def baseline():
        fine = F.interpolate(features[0], size=(256, 256), mode="bilinear")
        pixels = F.normalize(fine.movedim(1, -1)[masks[0]], dim=1)
        return published_em(pixels, *extractor._start(Pixels.of(pixels)), SIGMA)

    ours = lambda: extractor(features, masks, SIGMA)  # noqa: E731
    means, weights = baseline()
    torch.testing.assert_close(ours().foreground[0], means, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours().weights[0], weights, atol=1e-4, rtol=0)
    table.add(f"a mask of {side * side} pixels", *in_turns(ours, baseline, rounds=3), "published")
    benchmark(ours)
