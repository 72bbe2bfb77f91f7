"""Augmentations against plain and slow references, how they are drawn, and what is said of bad ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import block_scan, published_rules
from scipy import ndimage

from fsseg import FssegError, load_recipe, registry
from fsseg.errors import PluginError
from fsseg.training.augment import affine_matrix, draw_affine
from fsseg.training.augmentations import (
    AffineWarp,
    BiasField,
    ElasticWarp,
    Flip,
    Gamma,
    Noise,
    RandomCurve,
    RandomNetwork,
    Warp,
)
from fsseg.training.drawn import SliceFacts
from fsseg.training.episodes import EpisodeSampler

ROOT = Path(__file__).parents[1]
SHAPE = (24, 32)


def image_of(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def masks_of(size=SHAPE):
    masks = torch.zeros(2, *size, dtype=torch.bool)
    masks[0, 4:12, 5:14] = True
    masks[1, 14:20, 20:30] = True
    return masks


def changed(augmentation, image, seed=0, masks=None):
    """The numbers that an augmentation draws, and what it makes of an image and of masks."""
    drawn = augmentation.draw(np.random.default_rng(seed), SliceFacts(tuple(image.shape)))
    numbers = np.asarray(drawn, dtype=np.float32)
    masks = masks_of(image.shape[-2:]) if masks is None else masks
    return numbers, *augmentation(image, masks, torch.from_numpy(numbers))


@pytest.mark.parametrize("seed", range(6))
def test_a_random_curve_is_an_interpolation_between_its_knots(seed):
    image = image_of(*SHAPE)
    numbers, got, _ = changed(RandomCurve(pieces=5, falling=0.5), image, seed)
    values = np.cumsum(numbers)
    low, high = image.min().item(), image.max().item()
    places = np.linspace(low, high, 6)
    expected = low + (high - low) * np.interp(image.numpy(), places, values)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert sorted([values[0], values[-1]]) == pytest.approx([0, 1], abs=1e-6)
    steps = np.diff(values)
    assert (steps > 0).all() or (steps < 0).all()


def test_a_share_of_the_curves_falls():
    falls = [changed(RandomCurve(falling=0.25), image_of(4, 4), seed)[0][0] for seed in range(400)]
    assert np.mean(falls) == pytest.approx(0.25, abs=0.06)


def slow_network(image, numbers, layers, channels, slope):
    """The random network by loops over its channels."""
    count = image.shape[0]
    widths = [count, *[channels] * (layers - 1), count]
    features, start = list(image.astype(np.float64)), 1
    for layer, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:])):
        if layer:
            features = [np.where(f > 0, f, slope * f) for f in features]
        kernels = numbers[start : start + 9 * inputs * outputs].reshape(outputs, inputs, 3, 3)
        offsets = numbers[start + kernels.size :][:outputs]
        start += kernels.size + outputs
        features = [
            offset + sum(ndimage.correlate(f, k, mode="nearest") for f, k in zip(features, row))
            for row, offset in zip(kernels.astype(np.float64), offsets)
        ]
    assert start == len(numbers)
    mixed = numbers[0] * np.array(features) + (1 - numbers[0]) * image
    return mixed * np.linalg.norm(image) / np.linalg.norm(mixed)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_random_network_equals_one_of_loops(channels):
    image = image_of(channels, *SHAPE)
    one_pixel = set()
    for seed in range(4):
        numbers, got, _ = changed(RandomNetwork(layers=3, channels=2, slope=0.1), image, seed)
        expected = slow_network(image.numpy(), numbers, 3, 2, 0.1)
        np.testing.assert_allclose(got, expected, atol=2e-4)
        first = numbers[1 : 1 + 9]
        one_pixel.add(bool((np.delete(first, 4) == 0).all()))
    assert one_pixel == {True, False}, "kernels of one pixel and of nine"


def test_a_random_network_keeps_the_norm_and_a_plane_without_channels():
    image = image_of(*SHAPE)
    _, got, _ = changed(RandomNetwork(), image)
    assert got.norm().item() == pytest.approx(image.norm().item(), rel=1e-5)
    _, alike, _ = changed(RandomNetwork(), image[None])
    assert torch.equal(alike[0], got)
    _, nothing, _ = changed(RandomNetwork(), torch.zeros(SHAPE))
    assert not nothing.any(), "its norm is 0"


def test_a_bias_field_is_the_exponential_of_a_polynomial():
    image = image_of(*SHAPE)
    numbers, got, _ = changed(BiasField(order=2, strength=0.4), image)
    assert len(numbers) == 9 and np.abs(numbers).max() <= 0.4
    low = image.min().item()
    for y, x in [(0, 0), (3, 30), (23, 31), (12, 7)]:
        down, right = (2 * y + 1) / 24 - 1, (2 * x + 1) / 32 - 1
        terms = {(i, j): numbers[3 * i + j] for i in range(3) for j in range(3)}
        b = sum(c * down**i * right**j for (i, j), c in terms.items() if 1 <= i + j <= 2)
        expected = low + (image[y, x].item() - low) * np.exp(b)
        assert got[y, x].item() == pytest.approx(expected, abs=1e-5)


def test_noise_has_the_strength_that_was_drawn():
    image = 3 + 2 * image_of(64, 64)
    shares = []
    for seed in range(60):
        _, got, _ = changed(Noise(strength=0.5), image, seed)
        shares.append(((got - image).std() / image.std()).item())
        assert (got - image).mean().abs() < 0.1
    assert max(shares) < 0.53 and np.mean(shares) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("axis, turned", [("width", -1), ("height", -2)])
def test_a_flip_takes_the_masks_along(axis, turned):
    image, masks = image_of(2, *SHAPE), masks_of()
    _, got, moved = changed(Flip(axis=axis), image, masks=masks)
    assert np.array_equal(got, np.flip(image.numpy(), turned))
    assert np.array_equal(moved, np.flip(masks.numpy(), turned))


def test_a_random_flip_is_each_of_three():
    drawn = [tuple(changed(Flip(axis="random"), image_of(2, 2), s)[0]) for s in range(300)]
    shares = [drawn.count(pair) / 300 for pair in [(1, 0), (0, 1), (1, 1)]]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.08)


def test_each_channel_has_a_gamma_within_its_own_range():
    image = torch.stack([image_of(*SHAPE), 50 + 9 * image_of(*SHAPE, seed=1)])
    _, got, _ = changed(Gamma(), image)
    for channel in range(2):
        assert torch.equal(got[channel], changed(Gamma(), image[channel])[1])


def test_affine_and_elastic_are_the_two_parts_of_a_warp():
    image = image_of(*SHAPE)
    plain = Warp(elastic=0.0)
    assert torch.equal(changed(AffineWarp(), image)[1], changed(plain, image)[1])
    still = Warp(angle=0.0, shift=0.0, shear=0.0, zoom=(1.0, 1.0), elastic=30.0)
    bent = changed(ElasticWarp(strength=30.0), image)[1]
    assert torch.equal(bent, changed(still, image)[1]) and not torch.equal(bent, image)


def test_a_warp_of_several_channels_is_that_of_each():
    image = image_of(3, *SHAPE)
    _, got, masks = changed(Warp(), image)
    for channel in range(3):
        _, alone, alike = changed(Warp(), image[channel])
        assert torch.allclose(got[channel], alone, atol=1e-6) and torch.equal(masks, alike)


# How they are drawn.


def sampler(**rules):
    return EpisodeSampler([block_scan(), block_scan("b", seed=1)], published_rules(**rules))


def test_the_default_list_draws_in_the_published_order():
    """By hand: the exponent, two coins and a seed, from which an affine map, the seed of noise and further maps follow."""
    ours = sampler()
    for number in range(12):
        draw = ours.draw(np.random.default_rng(number))
        rng = np.random.default_rng(number)
        assert ours.source.pair(ours.scans, rng) == draw.pair
        gamma, gamma_coin, warp_coin = rng.uniform(0.5, 1.5), rng.random(), rng.random()
        rng = np.random.default_rng(int(rng.integers(2**62)))
        one, two = draw.augmentations
        assert (one.on, two.on) == (int(gamma_coin < 0.5), int(warp_coin < 0.5))
        assert one.numbers.tolist() == [np.float32(gamma)]
        limits = {"angle": 5.0, "shift": 5.0, "shear": 5.0, "zoom": (0.9, 1.2)}
        first = draw_affine(rng, **limits)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        expected = 2 * torch.rand(2, 32, 32, generator=noise) - 1
        assert np.array_equal(two.numbers[: 2 * 32 * 32], expected.numpy().ravel())
        maps = two.numbers[2 * 32 * 32 + 1 :].reshape(15, 2, 3)
        second = draw_affine(rng, **limits)
        for affine, got in zip((first, second), maps):
            inverse = np.linalg.inv(affine_matrix(affine, (32, 32)))[:2]
            assert np.array_equal(got, inverse.astype(np.float32))
        assert (len(np.unique(maps, axis=0)) == 5) == bool(two.on), "5 tries for a query, else 15"


def test_what_is_added_left_out_or_moved_changes_no_other():
    few = sampler(augmentations=["gamma", "warp", {"name": "noise", "slices": "both"}])
    many = sampler(
        augmentations=["noise", "random_curve", "warp", {"name": "noise", "slices": "both"}]
    )
    several = sampler(
        augmentations=["flip", {"name": "noise", "slices": "both", "chance": 0.5}, "warp"]
    )
    for number in range(10):
        first, second, third = (
            each.draw(np.random.default_rng(number), 2) for each in (few, many, several)
        )
        for other in (second, third):
            assert (first.pair, first.regions) == (other.pair, other.regions)
        warps = [d.augmentations[n] for d, n in ((first, 1), (second, 2), (third, -1))]
        assert all(np.array_equal(warps[0].numbers, warp.numbers) for warp in warps)
        assert len({warp.on for warp in warps}) == 1
        assert np.array_equal(first.augmentations[2].numbers, third.augmentations[1].numbers), (
            "of the first noise, whatever its chance"
        )
        assert not np.array_equal(
            second.augmentations[0].numbers, second.augmentations[3].numbers
        ), "the second of a name draws others"


def test_to_which_slices_and_how_often():
    listed = [
        {"name": "flip", "slices": "support"},
        {"name": "flip", "slices": "query"},
        {"name": "noise", "slices": "both", "chance": 0.3},
        {"name": "flip", "slices": "either"},
    ]
    ours = sampler(augmentations=listed)
    drawn = [ours.draw(np.random.default_rng(number)).augmentations for number in range(300)]
    for support, query, first, second, either in drawn:
        assert (support.on, query.on, first.on, second.on) == (0, 1, 0, 1)
        assert support.is_applied and query.is_applied and either.is_applied
        assert not np.array_equal(first.numbers, second.numbers)
    shares = [np.mean([each[n].is_applied for each in drawn]) for n in (2, 3)]
    assert shares == pytest.approx([0.3, 0.3], abs=0.08)
    assert np.mean([each[4].on for each in drawn]) == pytest.approx(0.5, abs=0.08)


def test_a_list_of_all_is_the_same_recorded_and_plain():
    listed = [
        {"name": name, "slices": slices, "chance": chance}
        for name, slices, chance in zip(
            registry().names("augmentation"),
            ["both", "either", "query", "support"] * 3,
            [1.0, 0.5, 0.6] * 3,
        )
    ]
    ours = sampler(augmentations=listed)
    for number in range(12):
        draw = ours.draw(np.random.default_rng(number), 2)
        plain = ours.make(draw)
        recorded = ours.compose(ours.ingredients(draw, ways=4)).trimmed().episode()
        assert torch.equal(plain.support.images, recorded.support.images)
        assert torch.equal(plain.query.images, recorded.query.images)
        assert torch.equal(plain.target, recorded.target)


def test_an_empty_list_leaves_the_slices_alone():
    ours = sampler(augmentations=[])
    draw = ours.draw(np.random.default_rng(0))
    episode, scan = ours.make(draw), ours.scans[draw.support.scan]
    assert torch.equal(episode.support.images[0, 0], scan.images[draw.support.slice])
    assert torch.equal(episode.query.images[0], scan.images[draw.query.slice])


# What is said of bad ones.


class Bad:
    """An augmentation that does what a test says."""

    def __init__(self, call, count=lambda rng: 1):
        self.call, self.count = call, count

    def draw(self, rng, about):
        return rng.random(self.count(rng))

    def __call__(self, image, masks, numbers):
        return self.call(image, masks)


BAD = {
    "gives an image of 32 x 31 float32, expected 32 x 32 float32": lambda i, m: (i[:, 1:], m),
    "gives an image of 32 x 32 float64": lambda i, m: (i.double(), m),
    "gives masks of 1 x 32 x 32 float32, expected 1 x 32 x 32 bool": lambda i, m: (i, m.float()),
    "gives Tensor, expected a pair of image and masks": lambda i, m: i,
    "gives intensities that are not finite": lambda i, m: (i / (i > 0), m),
    "leaves nothing of the masks of a slice": lambda i, m: (i, m & False),
}


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("sentence", BAD)
def test_a_bad_augmentation_is_named(sentence, recorded):
    ours = sampler(augmentations=["gamma", {"name": "noise", "slices": "both"}])
    ours.entries[1] = type(ours.entries[1])("bad", Bad(BAD[sentence]), "both")
    draw = ours.draw(np.random.default_rng(0))
    with pytest.raises(PluginError, match=f"^augmentation Bad: it {sentence}.*leave it out of"):
        if recorded:
            ours.compose(ours.ingredients(draw))
        else:
            ours.make(draw)


@pytest.mark.parametrize(
    "sentence, count",
    [
        (r"draws numbers of shape \(1, 1\), expected an array with one axis", lambda rng: (1, 1)),
        (r"draws \d+ numbers after \d+ for a slice", lambda rng: rng.integers(1, 1000)),
    ],
)
def test_bad_numbers_are_named(sentence, count):
    ours = sampler(augmentations=["noise"])
    ours.entries[0] = type(ours.entries[0])("bad", Bad(lambda i, m: (i, m), count))
    with pytest.raises(PluginError, match=f"^augmentation Bad: it {sentence}"):
        for number in range(5):
            ours.draw(np.random.default_rng(number))


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"augmentations": ["gama"]}, "no augmentation 'gama'; did you mean 'gamma'"),
        ({"augmentations": [{"name": "flip", "slices": "one"}]}, "slices: expected 'support', "),
        ({"augmentations": [{"name": "flip", "chance": 0.0}]}, "chance: expected greater than 0"),
        ({"augmentations": [{"name": "noise", "stength": 1}]}, "did you mean 'strength'"),
        ({"augmentations": ["warp"], "gamma": [0.5, 3.0]}, "gamma: expected 'gamma' among"),
    ],
)
def test_what_a_recipe_cannot_say(changes, sentence):
    changes = {f"episodes.{key}": value for key, value in changes.items()}
    with pytest.raises(FssegError, match=sentence):
        load_recipe(ROOT / "recipes" / "tpm_mp5_linest.toml", changes)


def test_the_older_keys_are_options_of_the_published_list():
    rules = published_rules(gamma=(0.2, 0.3), angle=1.0, elastic_sigma=2.0)
    gamma, warp = (table.options for table in rules.written_out())
    assert gamma == {"gamma": (0.2, 0.3)} and (warp["angle"], warp["elastic_sigma"]) == (1.0, 2.0)
    own = published_rules(angle=1.0, augmentations=[{"name": "warp", "angle": 3.0}, "gamma"])
    assert own.written_out()[0].options["angle"] == 3.0
