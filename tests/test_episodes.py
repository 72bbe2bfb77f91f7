from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import block_scan, published_rules
from scipy import ndimage

from fsseg import FssegError
from fsseg.data.supervoxels.regions import count_regions
from fsseg.training.applied import Placed
from fsseg.training.augment import (
    Affine,
    affine_matrix,
    change_gamma,
    draw_noise,
    elastic_field,
    warp_grids,
    warp_slice,
)
from fsseg.training.augmentations.spatial import Warp
from fsseg.training.compose import Ingredients, Slices, compose, compose_plainly
from fsseg.training.drawn import Applied, Entry, SliceFacts
from fsseg.training.episodes import EpisodeSampler


def test_region_counts_equal_a_scan_of_the_volume():
    regions = np.random.default_rng(0).integers(0, 6, size=(5, 9, 8)).astype(np.int32)
    regions[regions == 3] = 0  # ids need not be dense
    table = count_regions(regions)
    assert table.ids.tolist() == [1, 2, 4, 5]
    for row, region in enumerate(table.ids):
        assert table.counts[row].tolist() == [(slice_ == region).sum() for slice_ in regions]


def draws(sampler, count=400):
    return [sampler.draw(np.random.default_rng([0, i])) for i in range(count)]


def test_pairs_follow_the_published_rules():
    """Region 1 has 256 pixels in all slices; region 2 has 16, 220 and 220 in slices 1 to 3, so 16 is passed over."""
    sampler = EpisodeSampler([block_scan(), block_scan("b")], published_rules())
    drawn = draws(sampler)
    for draw in drawn:
        assert abs(draw.support.slice - draw.query.slice) == 1
        if draw.regions == (1,):
            assert {draw.support.slice, draw.query.slice} == {2, 3}
    shares = [np.mean([d.support.scan for d in drawn]), np.mean([d.regions for d in drawn])]
    shares += [np.mean([draw.augmentations[number].on for draw in drawn]) for number in (0, 1)]
    assert shares == pytest.approx([0.5] * 4, abs=0.08)
    assert np.mean([d.support.slice < d.query.slice for d in drawn]) == pytest.approx(0.5, abs=0.08)
    gammas = [draw.augmentations[0].numbers[0] for draw in drawn]
    assert 0.5 <= min(gammas) < 0.55 and 1.45 < max(gammas) <= 1.5


def test_the_first_of_a_pair_is_large_enough():
    """With 230 pixels asked for, region 2 (at most 220) is never drawn."""
    sampler = EpisodeSampler([block_scan()], published_rules(min_pixels=230))
    assert {draw.regions for draw in draws(sampler, 60)} == {(0,)}


def test_an_episode_is_a_function_of_its_draw():
    sampler = EpisodeSampler([block_scan()], published_rules())
    draw = sampler.draw(np.random.default_rng(5))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = sampler.make(draw), sampler.make(draw)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.support.images, second.support.images)
    assert torch.equal(first.query.images, second.query.images)
    assert torch.equal(first.target, second.target)


def test_exactly_one_slice_is_warped_and_one_recoloured():
    scan = block_scan()
    sampler = EpisodeSampler([scan], published_rules())
    for seed in range(12):
        draw = sampler.draw(np.random.default_rng(seed))
        episode = sampler.make(draw)
        region = int(scan.table.ids[draw.regions[0]])
        masks = {
            "support": (episode.support.masks[0, 0], draw.support.slice),
            "query": (episode.target[0] > 0, draw.query.slice),
        }
        moved = {
            name
            for name, (mask, index) in masks.items()
            if not torch.equal(mask, scan.supervoxels[index] == region)
        }
        recoloured, warped = (["support", "query"][one.on] for one in draw.augmentations)
        assert moved == {warped}
        images = {"support": episode.support.images[0, 0], "query": episode.query.images[0]}
        originals = {
            "support": scan.images[draw.support.slice],
            "query": scan.images[draw.query.slice],
        }
        changed = {name for name in images if not torch.equal(images[name], originals[name])}
        assert changed == {recoloured, warped}


def test_locations_are_places_in_the_scan():
    sampler = EpisodeSampler([block_scan(slices=6)], published_rules())
    draw = sampler.draw(np.random.default_rng(1))
    episode = sampler.make(draw)
    assert episode.support.location.item() == pytest.approx(draw.support.slice / 5)
    assert episode.query.location.item() == pytest.approx(draw.query.slice / 5)


def test_no_usable_region_is_an_error():
    with pytest.raises(
        FssegError, match="none of the 1 training scans has a supervoxel with 5000 pixels"
    ):
        EpisodeSampler([block_scan()], published_rules(min_pixels=5000))


def test_gamma_by_hand():
    image = torch.tensor([[1.0, 3.0], [2.0, 5.0]])
    span = 4 + 1e-5
    expected = span * ((np.array([[0, 2], [1, 4]]) + 1e-5) / span) ** 2 + 1
    assert torch.allclose(
        change_gamma(image, 2.0), torch.tensor(expected, dtype=torch.float32), atol=1e-5
    )


def affine(**changes):
    return Affine(**{"angle": 0.0, "shift": (0.0, 0.0), "shear": 0.0, "zoom": 1.0} | changes)


def grids_of(*affines, size, elastic=0.0):
    inverses = [np.linalg.inv(affine_matrix(one, size))[:2] for one in affines]
    return warp_grids(
        elastic_field(draw_noise(0, size), elastic, 5.0), torch.tensor(np.array(inverses)).float()
    )


def test_affine_parts_move_points_as_they_should():
    """Pixel coordinates (x, y), rows downwards: a counter-clockwise quarter turn takes right of the centre to above it."""
    size = (100, 100)
    move = lambda w, x, y: (affine_matrix(w, size) @ [x, y, 1])[:2].tolist()  # noqa: E731
    assert move(affine(angle=90.0), 60, 50) == pytest.approx([50, 40])
    assert move(affine(shift=(3.0, -2.0)), 10, 20) == pytest.approx([13, 18])
    assert move(affine(zoom=1.2), 60, 40) == pytest.approx([62, 38])
    assert move(affine(shear=30.0), 0, 10) == pytest.approx([-5, 10 * np.cos(np.pi / 6)])
    both = affine(angle=90.0, shift=(3.0, 0.0), zoom=2.0)  # rotate, then shift, then zoom
    assert move(both, 60, 50) == pytest.approx([56, 30])
    sheared = affine(shift=(0.0, 10.0), shear=30.0)  # shift, then shear
    assert move(sheared, 0, 0) == pytest.approx([-5, 10 * np.cos(np.pi / 6)])


def test_the_warp_equals_scipys_affine_interpolation():
    size = (40, 48)
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=size), 2).astype(
        np.float32
    )
    parameters = affine(angle=4.0, shift=(3.0, -2.0), shear=3.0, zoom=1.1)
    inverse = np.linalg.inv(affine_matrix(parameters, size))
    flip = np.array([[0, 1], [1, 0]])  # scipy counts (row, column), the matrix (x, y)
    expected = ndimage.affine_transform(
        image, flip @ inverse[:2, :2] @ flip, flip @ inverse[:2, 2], order=1, cval=0.0
    )
    grids = grids_of(affine(), parameters, size=size)
    [own, got], _ = warp_slice(
        torch.from_numpy(image), torch.zeros(1, *size, dtype=torch.bool), grids, fill=0.0
    )
    np.testing.assert_allclose(own, image, atol=2e-5)
    inside = slice(3, -3)
    np.testing.assert_allclose(got[inside, inside], expected[inside, inside], atol=2e-5)


def test_the_elastic_field_has_the_published_strength():
    """Uniform noise smoothed by a Gaussian of sigma 5 and multiplied by 10: about 0.36 pixels."""
    plain, bent = (grids_of(affine(), size=(128, 128), elastic=e) for e in (0.0, 10.0))
    displacement = (bent - plain) * 128 / 2
    assert displacement.std().item() == pytest.approx(0.36, abs=0.06)
    assert displacement.abs().max().item() < 2.5


def test_what_comes_from_outside_is_fill_and_background():
    grids = grids_of(affine(shift=(20.0, 0.0)), size=(32, 32))
    [image], [[mask]] = warp_slice(
        torch.ones(32, 32), torch.ones(1, 32, 32, dtype=torch.bool), grids, fill=-0.5
    )
    assert image[:, :19].unique().tolist() == [-0.5] and not mask[:, :19].any()
    assert torch.allclose(image[:, 21:], torch.ones(32, 11)) and mask[:, 21:].all()


def many_regions(size=64, slices=5):
    """A scan of 16 square regions of 256 pixels, the last two of which are smaller in the odd slices."""
    scan = block_scan(slices=slices, size=size)
    row = np.arange(size) // 16
    regions = np.repeat((1 + row[:, None] * 4 + row)[None], slices, axis=0).astype(np.int32)
    regions[1::2, 60:] = 0
    return replace(scan, supervoxels=torch.from_numpy(regions), table=count_regions(regions))


def test_episodes_of_several_classes():
    """Distinct regions that all are large enough in the support, as many as asked for, each with its number."""
    scan = many_regions()
    sampler = EpisodeSampler([scan], published_rules(zoom=(1.0, 1.0)))
    sizes = set()
    for number in range(60):
        draw = sampler.draw(np.random.default_rng(number), 5)
        assert len(set(draw.regions)) == len(draw.regions) <= 5
        counts = scan.table.counts[list(draw.regions), draw.support.slice]
        assert (counts[1:] >= 200).all()
        episode = sampler.make(draw)
        ways = len(episode.support.masks)
        sizes.add(ways)
        assert episode.support.shared == (ways > 1) and episode.support.images.shape == (
            ways,
            1,
            64,
            64,
        )
        assert (episode.support.masks.sum(dim=0) <= 1).all() and episode.target.max() <= ways
        assert torch.equal(
            episode.support.target,
            (episode.support.masks[:, 0] * torch.arange(1, ways + 1)[:, None, None]).amax(dim=0)[
                None
            ],
        )
        if draw.augmentations[1].on == 0 and ways == len(draw.regions):  # the query is as it was
            expected = sum(
                (scan.supervoxels[draw.query.slice] == int(scan.table.ids[region])) * (way + 1)
                for way, region in enumerate(draw.regions)
            )
            assert torch.equal(episode.target[0], expected)
    assert 5 in sizes and min(sizes) >= 1


BLOCK_FACTS = SliceFacts((64, 64), fill=-1.0)


class Shift(Warp):
    """A warp whose affine maps are given: shifts to the right, in pixels."""

    def __init__(self, *pixels):
        super().__init__(elastic=0.0)
        maps = [affine(shift=(float(one), 0.0)) for one in pixels]
        self.maps = maps + maps[-1:] * 15

    def _draw_affine(self, rng):
        self.maps = [*self.maps[1:], self.maps[0]]
        return self.maps[-1]


def block_slices(*blocks, least=200):
    """Blocks (rows, columns) of a 64 x 64 support and the same in the query."""
    supervoxels = torch.zeros(2, 64, 64, dtype=torch.int32)
    for region, (rows, columns) in enumerate(blocks, start=1):
        supervoxels[:, slice(*rows), slice(*columns)] = region
    return Slices(
        images=torch.arange(2 * 64 * 64.0).view(2, 64, 64),
        supervoxels=supervoxels,
        regions=torch.arange(1, len(blocks) + 1, dtype=torch.int32),
        least=torch.tensor(least),
        location=torch.tensor([0.0, 1.0]),
    )


def test_a_class_that_the_support_hardly_shows_is_dropped_but_never_the_last():
    large, small, larger = ((0, 20), (0, 20)), ((30, 34), (0, 8)), ((40, 64), (40, 64))
    slices = block_slices(large, small, larger)
    composed = compose(Ingredients(slices, ()), [])
    assert composed.masks.flatten(2).sum(dim=2).tolist() == [[400, 0, 576], [400, 0, 576]]
    for episode in (composed.trimmed().episode(), compose_plainly(slices, (), [])):
        assert episode.support.masks.flatten(1).sum(dim=1).tolist() == [400, 576]
        assert episode.target.max() == 2 and episode.target.dtype == torch.int64
    alone = block_slices(small)
    for episode in (
        compose(Ingredients(alone, ()), []).trimmed().episode(),
        compose_plainly(alone, (), []),
    ):
        assert episode.support.masks.sum() == 32


@pytest.mark.parametrize("warped", [0, 1])
def test_the_first_warp_that_leaves_something_counts(warped):
    """A shift by 100 pixels empties the masks; those by 2 and by 4 do not."""
    slices = block_slices(((8, 24), (8, 24)))
    expected = slices.masks[:, 0].clone()
    expected[warped] = expected[warped].roll(2, dims=1)

    def both(*pixels):
        warp = Shift(*pixels)
        entries = [Entry("warp", warp)]
        numbers = np.float32(warp.draw(np.random.default_rng(0), BLOCK_FACTS))
        drawn = [Applied(0, warped, True, numbers)]
        recorded = compose(Ingredients(slices, (Placed.of(drawn[0]),)), entries)
        plain = compose_plainly(slices, drawn, entries)
        assert torch.equal(recorded.images[0], plain.support.images[0, 0])
        assert torch.equal(recorded.images[1:], plain.query.images)
        assert torch.equal(recorded.masks[1, 0].long(), plain.target[0])
        return recorded

    moved = both(100, 100, 2, 4)
    assert torch.equal(moved.masks[:, 0], expected)
    assert (moved.images[warped, :, :2] == -1).all() and (moved.images[1 - warped] >= 0).all()
    stays = both(100)
    assert stays.masks[:, 0].sum() == 512 and (stays.images >= 0).all()


def warps_needed(sampler, draw):
    """How many warps the plain path works out for an episode."""
    with pytest.MonkeyPatch.context() as patched:
        seen = []
        warp = lambda *inputs: seen.append(1) or warp_slice(*inputs)  # noqa: E731
        patched.setattr("fsseg.training.augmentations.spatial.warp_slice", warp)
        sampler.make(draw)
    return len(seen)


def test_all_warps_at_once_and_ways_filled_up_are_the_same_episode():
    """What a device works out in one go equals what the host works out as far as it needs to."""
    sampler = EpisodeSampler(
        [many_regions()], published_rules(shift=90.0, angle=90.0, zoom=(0.3, 1.0))
    )
    again = 0
    for number in range(60):
        draw = sampler.draw(np.random.default_rng(number), 3)
        once, full = sampler.make(draw), sampler.compose(sampler.ingredients(draw, ways=5))
        again += warps_needed(sampler, draw) > 1
        made = full.trimmed().episode()
        assert full.masks.shape[1] == 5 and torch.equal(made.target, once.target)
        assert torch.equal(made.support.images, once.support.images)
        assert torch.equal(made.support.masks, once.support.masks) and torch.equal(
            made.query.images, once.query.images
        )
    assert again > 5, "some needed more than one warp"


def test_an_episode_always_has_a_class():
    """Warps so strong that they move most regions out: whatever is left, the largest is a way and has pixels."""
    sampler = EpisodeSampler(
        [many_regions()], published_rules(shift=60.0, angle=90.0, zoom=(0.3, 1.0))
    )
    alone = 0
    for number in range(150):
        episode = sampler.make(sampler.draw(np.random.default_rng(number), 5))
        sizes = episode.support.masks.sum(dim=(1, 2, 3))
        assert len(sizes) >= 1 and (sizes > 0).all()
        assert len(sizes) == 1 or (sizes >= 200).all() or (sizes < 200).sum() == 1
        alone += len(sizes) == 1 and sizes.item() < 200
    assert alone > 5, "all were too small, and one was kept"


def test_several_classes_change_nothing_for_one():
    """The first class, its slices and its augmentation are those of the same generator with one class."""
    scan = many_regions()
    sampler = EpisodeSampler([scan], published_rules())
    for number in range(20):
        one, five = (sampler.draw(np.random.default_rng(number), classes) for classes in (1, 5))
        assert replace(five, regions=five.regions[:1]) == one and len(one.regions) == 1


@pytest.mark.parametrize("size", [(8, 64), (64, 3), (2, 2), (1, 5), (1, 1), (10, 11)])
def test_slices_narrower_than_the_field_is_smooth_are_mirrored_as_often_as_needed(size):
    """Against numpy, whose mirroring has no such limit; the kernel of sigma 5 reaches 10 pixels to each side."""
    noise = draw_noise(3, size)
    taps = np.exp(-0.5 * (np.arange(-10, 11) / 5) ** 2)
    taps /= taps.sum()
    padded = np.pad(noise.numpy().astype(np.float64), [(0, 0), (10, 10), (10, 10)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (21, 21), axis=(1, 2))
    expected = 2 * np.einsum("pyxab,a,b->pyx", windows, taps, taps)
    field = elastic_field(noise, strength=2.0, sigma=5.0)
    assert np.allclose(field.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size, sigma", [(8, 5.0), (32, 40.0), (16, 1000.0)])
def test_episodes_of_slices_smaller_than_the_elastic_field(size, sigma):
    regions = np.ones((4, size, size), dtype=np.int32)
    scan = replace(
        block_scan(slices=4, size=32),
        images=torch.randn(4, size, size),
        supervoxels=torch.from_numpy(regions),
        table=count_regions(regions),
    )
    sampler = EpisodeSampler(
        [scan], published_rules(min_pixels=1, min_slice_pixels=0, elastic_sigma=sigma)
    )
    episode = sampler.make(sampler.draw(np.random.default_rng(0)))
    assert episode.query.images.shape[-2:] == (size, size)
    assert episode.query.images.isfinite().all() and episode.support.images.isfinite().all()
