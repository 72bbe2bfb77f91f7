import pytest
import torch
import torch.nn.functional as F

from fsseg import EmGmm, FssegError, MaskedAverage
from fsseg.model.pixels import Pixels


def blob_masks(generator, ways=2, shots=3, size=(40, 56)):
    noise = torch.rand(ways * shots, 1, 5, 7, generator=generator)
    return (F.interpolate(noise, size=size, mode="bicubic")[:, 0] > 0.5).unflatten(0, (ways, shots))


def test_map_equals_pooling_of_resized_features():
    """Against the definition: resize every feature map to the image, average under the mask, then over shots."""
    generator = torch.Generator().manual_seed(0)
    features, masks = torch.randn(2, 3, 8, 5, 7, generator=generator), blob_masks(generator)
    expected = torch.zeros(2, 8)
    for way in range(2):
        for shot in range(3):
            fine = F.interpolate(
                features[way, shot][None], size=(40, 56), mode="bilinear", align_corners=False
            )[0]
            expected[way] += (
                fine[:, masks[way, shot]].sum(dim=1) / (masks[way, shot].sum() + 1e-5) / 3
            )
    made = MaskedAverage()(features, masks)
    assert torch.allclose(made.foreground[:, 0], expected, rtol=0, atol=1e-6)
    assert made.weights.tolist() == [[1.0], [1.0]]


def test_map_of_an_empty_mask_is_zero():
    made = MaskedAverage()(torch.randn(1, 1, 4, 3, 3), torch.zeros(1, 1, 24, 24, dtype=torch.bool))
    assert made.foreground.abs().max() == 0


def pixels_around(centres, count, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = centres.repeat_interleave(count, dim=0)
    return F.normalize(points + spread * torch.randn(points.shape, generator=generator), dim=1)


def slow_em(pixels, means, weights, sigma, steps):
    """The update equations of a mixture on the sphere, one pixel and one component at a time."""
    likelihoods = []
    for _ in range(steps):
        densities = torch.exp((pixels @ means.T - 1) / sigma**2)
        joint = densities * weights
        likelihoods.append(joint.sum(dim=1).log().sum().item())
        shares = joint / joint.sum(dim=1, keepdim=True)
        weights = shares.mean(dim=0)
        means = torch.stack(
            [
                F.normalize((shares[:, j, None] * pixels).sum(dim=0), dim=0)
                for j in range(len(means))
            ]
        )
    return means, weights, likelihoods


def slow_loss(pixels, means, weights, sigma):
    """The negative log-likelihood, up to a constant, pixel by pixel."""
    total = 0.0
    for pixel in pixels.double():
        densities = [
            w * torch.exp(-(pixel - m).square().sum() / (2 * sigma**2))
            for m, w in zip(means.double(), weights)
        ]
        total -= float(sum(densities).log())
    return total


@pytest.mark.parametrize("sizes", [(32, 40, 5, 7), (30, 33, 8, 9), (9, 7, 9, 7), (12, 8, 1, 1)])
def test_pixels_are_those_of_resized_features(sizes):
    """Products, sums and lengths of vectors that are never written out, against vectors that are."""
    height, width, h, w = sizes
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 6, h, w, generator=generator, dtype=torch.float64)
    masks = torch.rand(2, height, width, generator=generator) > 0.7
    fine = F.interpolate(features, size=(height, width), mode="bilinear", align_corners=False)
    vectors = fine.movedim(1, -1)[masks]
    means, shares = (
        torch.randn(3, 6, generator=generator).double(),
        torch.rand(3, len(vectors), generator=generator).double(),
    )
    pixels = Pixels.under(features, masks)
    for made, expected in (
        (pixels, vectors),
        (pixels.normalised(), F.normalize(vectors, dim=1)),
        (Pixels.of(vectors), vectors),
    ):
        torch.testing.assert_close(made.products(means), means @ expected.T)
        torch.testing.assert_close(made.weighted_sums(shares), shares @ expected)
        torch.testing.assert_close(made.mean(), expected.mean(dim=0))
        torch.testing.assert_close(made.squares, expected.square().sum(dim=1))


def test_em_equals_the_plain_updates():
    pixels = pixels_around(torch.eye(3, 12, dtype=torch.float64), 40, 0.15)
    extractor = EmGmm(count=3, iterations=12, tolerance=0.0)
    sigma = torch.tensor(0.3, dtype=torch.float64)
    means, weights = extractor.fit(Pixels.of(pixels), sigma)
    start = extractor._start(Pixels.of(pixels))
    expected_means, expected_weights, _ = slow_em(pixels, *start, 0.3, 12)
    assert torch.allclose(means, expected_means, atol=1e-9)
    assert torch.allclose(weights, expected_weights, atol=1e-9)


@pytest.mark.parametrize("space", ["sphere", "euclidean"])
def test_the_likelihood_never_falls(space):
    pixels = pixels_around(torch.eye(4, 32), 60, 0.2)
    sigma = torch.tensor(0.32)
    losses = []
    for steps in (1, 2, 3, 5, 8, 12, 17, 23):
        extractor = EmGmm(count=5, space=space, iterations=steps, tolerance=0.0)
        losses.append(slow_loss(pixels, *extractor.fit(Pixels.of(pixels), sigma), 0.32))
    assert all(after <= before + 1e-6 * abs(before) for before, after in zip(losses, losses[1:]))
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("space", ["sphere", "euclidean"])
def test_em_fits_the_pixels_of_all_shots_together(space):
    """A shot with more pixels weighs more: the fit is that of the pooled pixels, gathered here shot by shot."""
    generator = torch.Generator().manual_seed(2)
    features, masks = torch.randn(2, 3, 8, 5, 7, generator=generator), blob_masks(generator)
    masks[0, 1, 20:], masks[0, 1, :20] = False, True
    extractor = EmGmm(count=3, space=space)
    made = extractor(features, masks)
    for way in range(2):
        pooled = []
        for shot in range(3):
            fine = F.interpolate(
                features[way, shot][None], size=(40, 56), mode="bilinear", align_corners=False
            )[0]
            pooled += [fine[:, y, x] for y, x in masks[way, shot].nonzero().tolist()]
        pixels = torch.stack(pooled)
        means, weights = extractor.fit(
            Pixels.of(F.normalize(pixels, dim=1) if space == "sphere" else pixels),
            torch.tensor(0.1).sqrt(),
        )
        assert torch.allclose(made.foreground[way], means, atol=1e-4)
        assert torch.allclose(made.weights[way], weights, atol=1e-4)


def test_one_component_is_the_direction_of_map():
    generator = torch.Generator().manual_seed(1)
    # One feature cell per pixel, so that resizing does not change lengths.
    features = F.normalize(torch.randn(1, 2, 16, 12, 12, generator=generator), dim=2)
    masks = torch.zeros(1, 2, 12, 12, dtype=torch.bool)
    masks[:, :, 3:9, 2:7] = True
    single = EmGmm(count=1)(features, masks)
    pooled = F.normalize(MaskedAverage()(features, masks).foreground, dim=2)
    assert torch.allclose(single.foreground, pooled, atol=1e-5)
    assert single.weights.tolist() == [[1.0]]


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_two_separated_modes_are_recovered(share):
    centres = F.normalize(torch.tensor([[1.0, 0.15, 0, 0, 0, 0], [0.0, 0.1, 1, 0, 0, 0]]), dim=1)
    first = pixels_around(centres[:1], int(1000 * share), 0.05)
    second = pixels_around(centres[1:], 1000 - int(1000 * share), 0.05, seed=1)
    means, weights = EmGmm(count=2).fit(Pixels.of(torch.cat([first, second])), torch.tensor(0.32))
    order = (means @ centres.T).argmax(dim=0)
    assert (means[order] * centres).sum(dim=1).min() > 0.999
    assert weights[order].tolist() == pytest.approx([share, 1 - share], abs=0.01)


@pytest.mark.parametrize("pixels", [torch.ones(1, 8), torch.ones(30, 8), torch.zeros(4, 8)])
@pytest.mark.parametrize("space", ["sphere", "euclidean"])
def test_one_pixel_and_constant_features_stay_finite(pixels, space):
    extractor = EmGmm(count=5, space=space)
    means, weights = extractor.fit(Pixels.of(extractor._project(pixels)), torch.tensor(0.3))
    assert means.isfinite().all() and weights.isfinite().all()
    assert weights.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("pixels", [1, 3])
def test_fewer_pixels_than_prototypes(pixels):
    """Copies of the pixels change nothing, as the published code relies on; one pixel is every prototype."""
    masks = torch.zeros(1, 1, 24, 24, dtype=torch.bool)
    masks[0, 0, 10, 8 : 8 + pixels] = True
    extractor = EmGmm(count=5)
    made = extractor(
        torch.randn(1, 1, 8, 24, 24, generator=torch.Generator().manual_seed(1)), masks
    )
    assert (
        made.weights.sum().item() == pytest.approx(1, abs=1e-6) and made.foreground.isfinite().all()
    )
    points = F.normalize(torch.randn(pixels, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    means, weights = extractor.fit(Pixels.of(points), torch.tensor(0.32))
    copied = extractor.fit(Pixels.of(points.repeat(5, 1)), torch.tensor(0.32))
    torch.testing.assert_close((means, weights), copied, atol=1e-5, rtol=0)
    if pixels == 1:
        assert torch.allclose(means, points.expand(5, -1), atol=1e-6)


def test_a_seed_decides_and_ambient_randomness_does_not():
    features, masks = torch.randn(1, 1, 8, 6, 6), torch.ones(1, 1, 24, 24, dtype=torch.bool)
    state = torch.get_rng_state()
    first = EmGmm(seed=3)(features, masks)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(EmGmm(seed=3)(features, masks).foreground, first.foreground)
    assert not torch.equal(EmGmm(seed=4)(features, masks).foreground, first.foreground)


def test_an_empty_mask_is_an_error():
    with pytest.raises(FssegError, match="a mask is empty"):
        EmGmm()(torch.randn(1, 1, 8, 6, 6), torch.zeros(1, 1, 24, 24, dtype=torch.bool))
