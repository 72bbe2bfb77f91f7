"""Supervoxels: against the published algorithm's results, a plain reference, and what must always hold."""

import doctest
import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks.plain_supervoxels import plain_supervoxels
from helpers import NoScans
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fsseg.data.grids import FileGrid
from fsseg.data.supervoxels import felzenszwalb as supervoxels
from fsseg.data.supervoxels import regions
from fsseg.data.supervoxels.felzenszwalb import Felzenszwalb, body_mask, cut_to_body, felzenszwalb
from fsseg.data.supervoxels.kernels import sort
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.plugins.options import options_of
from fsseg.testing import run_checks

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
CASES = ["tiny_f", "tiny_i", "iso_f", "aniso_i", "chaos_i"]
SPACING = (7.7, 1.25, 1.25)
STEPS = [
    (0, 1, 0), (0, 1, 1), (0, 0, 1), (0, 1, -1), (1, 1, 0), (1, 1, 1), (1, 0, 1),
    (1, -1, 0), (1, -1, -1), (1, 0, -1), (1, 1, -1), (1, -1, 1), (1, 0, 0),
]  # fmt: skip


def published(name: str) -> dict[str, np.ndarray]:
    path = GOLDEN / f"supervoxels_{name}.npz"
    if not path.is_file():
        reason = (
            f"{path.name} is not in {GOLDEN}: results of the published algorithm cannot be compared"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with np.load(path) as stored:
        return dict(stored)


def scaled(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return 255 * (values - values.min()) / (values.max() - values.min())


def volume_of(image: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> Volume:
    return Volume("7", image, None, spacing, FileGrid(np.eye(4)))


def reference(image, *, spacing, scale, sigma, min_size):
    """The definition, word for word: every edge in one sorted list, regions as sets of voxels."""
    channels = [image] if image.ndim == 3 else list(np.moveaxis(image, 1, 0))
    for axis in range(3) if sigma else ():
        channels = [
            ndimage.gaussian_filter1d(c, sigma / spacing[axis], axis=axis) for c in channels
        ]
    image = channels[0]
    voxels = list(np.ndindex(*image.shape))
    edges = []
    for number, step in enumerate(STEPS):
        weight = step_weight(step, spacing[0] / spacing[1])
        for place, voxel in enumerate(voxels):
            other = tuple(position + shift for position, shift in zip(voxel, step, strict=True))
            if all(0 <= position < size for position, size in zip(other, image.shape, strict=True)):
                squares = [(float(c[voxel]) - float(c[other])) ** 2 for c in channels]
                cost = math.sqrt(weight * (sum(squares) / len(squares)))
                edges.append((cost, number, place, voxel, other))
    edges.sort()
    region = {voxel: {voxel} for voxel in voxels}
    inner = {voxel: 0.0 for voxel in voxels}  # of the region the voxel is in

    def merge(a, b, cost):
        joined = region[a] | region[b]
        region.update(dict.fromkeys(joined, joined))
        inner.update(dict.fromkeys(joined, cost))

    k = scale / 255
    for cost, _, _, a, b in edges:
        limits = [float(np.float32(inner[end] + k / len(region[end]))) for end in (a, b)]
        if region[a] is not region[b] and cost < min(limits):
            merge(a, b, cost)
    for cost, _, _, a, b in edges:
        if region[a] is not region[b] and min(len(region[a]), len(region[b])) < min_size:
            merge(a, b, cost)
    ids: dict[int, int] = {}
    return np.array([ids.setdefault(id(region[voxel]), len(ids)) for voxel in voxels]).reshape(
        image.shape
    )


def step_weight(step, ratio):
    axes = sum(abs(shift) for shift in step)
    squared = ratio**2 * abs(step[0]) + abs(step[1]) + abs(step[2])
    return (math.sqrt(squared) / math.sqrt(axes)) ** 2


def noise(seed: int, shape: tuple[int, int, int], kind: str) -> np.ndarray:
    """A smooth volume with noise, from 0 to 255: "float" without ties, "integer" and "levels" full of them."""
    rng = np.random.default_rng(seed)
    smooth = 4 * ndimage.gaussian_filter(rng.normal(size=shape), 1.5) + 0.2 * rng.normal(size=shape)
    if kind == "float":
        return scaled(smooth)
    return np.round(scaled(smooth) / (1 if kind == "integer" else 32))


@pytest.mark.parametrize("name", CASES)
def test_labels_and_mask_are_the_published_ones(name):
    stored = published(name)
    image = stored["image"] if "image" in stored else scaled(stored["raw_int16"])
    labels = felzenszwalb(
        image,
        spacing=tuple(stored["spacing_zxy"].tolist()),
        scale=float(stored["scale"]),
        sigma=float(stored["sigma"]),
        min_size=int(stored["min_size"]),
    )
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, stored["labels"])
    np.testing.assert_array_equal(body_mask(image), stored["fgmask"])
    np.testing.assert_array_equal(cut_to_body(labels, stored["fgmask"]), stored["masked_labels"])


def test_the_component_gives_the_published_supervoxels():
    stored = published("tiny_i")
    method = Felzenszwalb(min_size=int(stored["min_size"]))
    volume = volume_of(
        stored["raw_int16"].astype(np.float32), tuple(stored["spacing_zxy"].tolist())
    )
    np.testing.assert_array_equal(method(volume, NoScans()), stored["masked_labels"])


@pytest.mark.parametrize("min_size", [1, 20, 200])
@pytest.mark.parametrize("sigma", [0.0, 0.8])
@pytest.mark.parametrize("scale", [1.0, 255.0, 1e3, 3e5])
@pytest.mark.parametrize("kind", ["float", "integer", "levels"])
def test_equals_the_reference(kind, scale, sigma, min_size):
    image = noise(1, (4, 10, 11), kind)
    options = {"spacing": SPACING, "scale": scale, "sigma": sigma, "min_size": min_size}
    np.testing.assert_array_equal(felzenszwalb(image, **options), reference(image, **options))


@pytest.mark.parametrize("min_size", [1, 20])
@pytest.mark.parametrize("sigma", [0.0, 0.8])
@pytest.mark.parametrize("kind", ["float", "levels"])
def test_several_channels_equal_the_reference(kind, sigma, min_size):
    """The distance of two voxels is the root of the mean of the squared differences over the channels."""
    image = np.stack([noise(seed, (3, 7, 8), kind) for seed in range(3)], axis=1)
    options = {"spacing": SPACING, "scale": 255.0, "sigma": sigma, "min_size": min_size}
    found = felzenszwalb(image, **options)
    assert np.array_equal(found, reference(image, **options))
    assert not np.array_equal(found, felzenszwalb(image[:, 0], **options)) or min_size == 1


def test_equal_channels_are_one():
    image = noise(5, (4, 9, 10), "float")
    options = {"spacing": SPACING, "scale": 255.0, "sigma": 0.0, "min_size": 20}
    several = np.stack([image] * 4, axis=1)
    assert np.array_equal(felzenszwalb(several, **options), felzenszwalb(image, **options))


@pytest.mark.parametrize(("earlier", "later"), itertools.combinations(STEPS, 2))
def test_of_two_equal_costs_the_earlier_direction_wins(earlier, later):
    # On cubic voxels every direction weighs the same. The lone voxel in the middle is as far from the region that
    # starts one step along `earlier` as from that along `later`, and joins one of them.
    image = np.full((5, 5, 5), 100.0)
    middle = np.array([2, 2, 2])
    image[tuple(middle)] = 50
    for step, value in [(earlier, 45), (later, 55)]:
        for distance in (1, 2):
            image[tuple(middle + distance * np.array(step))] = value
    labels = felzenszwalb(image, spacing=(1.25, 1.25, 1.25), min_size=2)
    assert labels[2, 2, 2] == labels[tuple(middle + earlier)] != labels[tuple(middle + later)]


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 18)),
    kind=st.sampled_from(["integer", "levels"]),
    through_plane=st.sampled_from([0.5, 1.25, 3.0, 7.7]),
    scale=st.sampled_from([1.0, 255.0, 1e3]),
    min_size=st.integers(1, 40),
)
def test_equals_the_reference_on_any_shape(seed, shape, kind, through_plane, scale, min_size):
    image = np.round(np.random.default_rng(seed).uniform(0, 255 if kind == "integer" else 4, shape))
    options = {
        "spacing": (through_plane, 1.25, 1.25),
        "scale": scale,
        "sigma": 0.0,
        "min_size": min_size,
    }
    np.testing.assert_array_equal(felzenszwalb(image, **options), reference(image, **options))


def visited_bands(monkeypatch) -> list[tuple[float, float, int]]:
    """Limits and number of edges of each band that is visited from now on."""
    bands, edges = [], supervoxels._Graph.edges

    def noted(graph, low, high):
        found = edges(graph, low, high)
        bands.append((low, high, len(found[0])))
        return found

    monkeypatch.setattr(supervoxels._Graph, "edges", noted)
    return bands


@pytest.mark.parametrize("seed", range(120))
def test_larger_volumes_equal_the_plain_port(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    kind = ["float", "integer", "levels"][seed % 3]
    image = noise(seed, (rng.integers(2, 9), *rng.integers(20, 45, 2)), kind)
    through_plane = rng.choice([0.8, 1.25, 3.0, 7.7])
    sigma, scale = rng.choice([0.0, 0.0, 1.0]), rng.choice([1.0, 1.0, 255.0, 1e4])
    options = {"spacing": (float(through_plane), 1.25, 1.25), "scale": float(scale)}
    options["min_size"] = int(rng.choice([2, 30, 200, 1000]))
    bands = visited_bands(monkeypatch)
    found = felzenszwalb(image, sigma=float(sigma), **options)
    smooth = (
        ndimage.gaussian_filter(image, [sigma / size for size in options["spacing"]])
        if sigma
        else image
    )
    np.testing.assert_array_equal(found, plain_supervoxels(smooth, **options))
    assert len(bands) > 2 or scale > 1  # a large scale may leave nothing to the second phase


@pytest.mark.parametrize("quantiles", [(), (0.5,), tuple(np.linspace(0.01, 0.99, 40)), (0.0, 1.0)])
@pytest.mark.parametrize("room", [0.0, 0.01, 20.0])
@pytest.mark.parametrize("kind", ["float", "integer", "levels"])
def test_bands_and_room_change_nothing(kind, room, quantiles, monkeypatch):
    image = noise(2, (6, 25, 37), kind)
    options = {"spacing": SPACING, "min_size": 150}
    monkeypatch.setattr(supervoxels, "BANDS", quantiles)
    monkeypatch.setattr(supervoxels, "ROOM", room)
    np.testing.assert_array_equal(
        felzenszwalb(image, **options), plain_supervoxels(image, **options)
    )


def test_later_bands_store_only_what_can_still_merge(monkeypatch):
    image = noise(4, (8, 40, 40), "float")
    bands = visited_bands(monkeypatch)
    felzenszwalb(image, spacing=SPACING, min_size=40)
    (_, _, similar), *small = bands
    assert len(small) > 4
    assert [low for low, _, _ in small[1:]] == [high for _, high, _ in small[:-1]]
    assert similar + sum(count for _, _, count in small) < 13 * image.size / 4


def test_nothing_is_searched_once_no_region_is_small(monkeypatch):
    bands = visited_bands(monkeypatch)
    felzenszwalb(noise(4, (3, 9, 9), "float"), spacing=SPACING, min_size=1)
    assert len(bands) == 1  # that of the first phase


def costs_of_any_size(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(0, 1, count) * 10.0 ** rng.integers(-12, 3, count)


@pytest.mark.parametrize(
    "costs",
    [
        np.empty(0),
        np.zeros(50),
        np.random.default_rng(0).integers(0, 20, 5000) * 255 / 915,
        # Grey values that were whole numbers once: each cost in several roundings, which differ in the last bits.
        np.abs(np.diff(np.random.default_rng(1).integers(0, 915, 5000) * 255 / 915))
        * np.sqrt(3.65),
        np.random.default_rng(2).uniform(1, 1.001, 5000),
        costs_of_any_size(np.random.default_rng(3), 5000),
    ],
    ids=["none", "zeros", "ties", "near ties", "narrow", "wide"],
)
def test_the_sort_is_by_cost_then_number_then_position(costs):
    positions = np.arange(len(costs), dtype=np.uint64)
    numbers = np.random.default_rng(4).integers(0, 13, len(costs)).astype(np.uint8)
    order = np.lexsort((positions, numbers, costs))
    keys, values = sort(costs.copy().view(np.uint64), positions.copy(), numbers)
    np.testing.assert_array_equal(values, positions[order])
    np.testing.assert_array_equal(keys.view(np.float64), costs[order])


def test_a_squared_cost_is_on_the_same_side_as_its_rounded_root():
    for limit in [0.0, np.inf, 1.0, 4 / 255, *costs_of_any_size(np.random.default_rng(5), 300)]:
        least = supervoxels._least_square(limit)
        assert np.sqrt(least) >= limit
        assert least == 0 or least == np.inf or np.sqrt(np.nextafter(least, 0)) < limit


@pytest.mark.parametrize("kind", ["integer", "levels"])
def test_a_limit_that_is_a_cost_divides_no_tie(kind, monkeypatch):
    # Every band begins at a cost that many edges have.
    image = noise(8, (4, 20, 22), kind)
    options = {"spacing": (1.25, 1.25, 1.25), "min_size": 60}
    monkeypatch.setattr(supervoxels, "_sample_costs", lambda graph: np.arange(0.0, 40.0))
    monkeypatch.setattr(supervoxels, "BANDS", tuple(np.linspace(0, 1, 40)))
    np.testing.assert_array_equal(
        felzenszwalb(image, **options), plain_supervoxels(image, **options)
    )


@pytest.mark.parametrize(
    ("scale", "difference", "regions"),
    [
        (255.0, 1.0, 2),  # cost and limit are both 1: the test is strict
        (255.0, 0.999, 1),
        (25.5, 0.1, 1),  # 0.1 in single precision is a little more than 0.1
        (178.5, 0.7, 2),  # 0.7 in single precision is a little less, and the test is strict
    ],
)
def test_the_first_phase_compares_in_single_precision(scale, difference, regions):
    image = np.array([[[0.0, difference]]])
    assert felzenszwalb(image, spacing=SPACING, scale=scale, min_size=1).max() + 1 == regions


@pytest.mark.parametrize(("min_size", "regions"), [(1, 2), (2, 2), (3, 1)])
def test_a_region_of_exactly_the_minimum_stays(min_size, regions):
    image = np.array([[[0.0, 0.0, 9.0, 9.0]]])
    assert felzenszwalb(image, spacing=SPACING, min_size=min_size).max() + 1 == regions


def test_equal_costs_are_taken_by_direction_first():
    # The pixel in the corner is as far from all three neighbours; the first direction, down, wins.
    image = np.array([[[5.0, 10.0, 10.0], [0.0, 10.0, 10.0], [0.0, 0.0, 0.0]]])
    labels = felzenszwalb(image, spacing=SPACING, min_size=4)
    assert labels.tolist() == [[[0, 1, 1], [0, 1, 1], [0, 0, 0]]]


def test_a_larger_gap_between_slices_makes_a_step_cost_more():
    # The middle slice is nearer to the first; its left voxel alone decides between growing in plane and through it.
    image = np.array([[[0.0, 0.0]], [[4.0, 9.0]]])
    near = felzenszwalb(image, spacing=(1.0, 1.0, 1.0), min_size=2)
    far = felzenszwalb(image, spacing=(6.0, 1.0, 1.0), min_size=2)
    assert near.max() == 0  # 4 joins the zeros before 9 comes
    assert far.tolist() == [[[0, 0]], [[1, 1]]]


@pytest.mark.parametrize("kind", ["float", "integer"])
@pytest.mark.parametrize("min_size", [1, 50, 400])
@pytest.mark.parametrize("scale", [1.0, 3e5])
def test_regions_are_dense_connected_and_large_enough(kind, min_size, scale):
    labels = felzenszwalb(
        noise(3, (8, 24, 28), kind), spacing=SPACING, scale=scale, min_size=min_size
    )
    ids, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    assert ids.tolist() == list(range(len(ids)))
    assert (np.diff(first) > 0).all()
    assert len(ids) == 1 or sizes.min() >= min_size
    for region, box in enumerate(ndimage.find_objects(labels + 1)):
        assert ndimage.label(labels[box] == region, structure=np.ones((3, 3, 3)))[1] == 1


def test_a_volume_smaller_than_the_minimum_is_one_region():
    assert not felzenszwalb(noise(0, (2, 5, 5), "float"), spacing=SPACING, min_size=1000).any()


def test_the_body_is_each_slices_largest_part_with_its_holes_filled():
    drawn = [
        [
            "#......##",
            ".......##",
            "..###....",
            ".#...#...",
            ".#.#.#...",  # the speck inside is another part, and part of the hole
            ".#...#...",
            "..###....",  # the ring closes over corners only
        ],
        ["........."] * 7,
        [
            "##.....##",  # as large as its twin: the first in raster order
            "##.....##",
            ".........",
            ".........",
            ".........",
            ".........",
            ".........",
        ],
    ]
    image = np.array(
        [[[10.5 if mark == "#" else 10.0 for mark in row] for row in rows] for rows in drawn]
    )
    expected = np.zeros(image.shape, dtype=bool)
    expected[0, 2, 2:5] = expected[0, 6, 2:5] = True
    expected[0, 3:6, 1:6] = True
    expected[2, :2, :2] = True
    mask = body_mask(image)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, expected)


def test_cutting_to_the_body_keeps_region_0_apart_from_the_outside():
    labels = np.array([[[0, 0, 1], [2, 2, 1]]], dtype=np.int32)
    mask = np.array([[[True, False, True], [False, True, False]]])
    cut = cut_to_body(labels, mask)
    assert cut.dtype == np.int32
    assert cut.tolist() == [[[3, 0, 1], [0, 2, 0]]]


@pytest.mark.parametrize(("option", "used"), [(None, 30), (60, 60)])
def test_the_minimum_is_the_datasets_unless_given(option, used):
    stored = 12.5 * noise(5, (4, 12, 14), "integer") - 400  # stored intensities are on any scale
    image = scaled(stored)
    expected = cut_to_body(felzenszwalb(image, spacing=SPACING, min_size=used), body_mask(image))
    np.testing.assert_array_equal(
        Felzenszwalb(min_size=option)(volume_of(stored), NoScans()), expected
    )
    assert len(np.unique(expected)) > 2


def test_scale_and_sigma_reach_the_segmentation():
    image = scaled(noise(6, (4, 12, 14), "float"))
    options = {"scale": 1e4, "sigma": 2.0, "min_size": 10}
    expected = cut_to_body(felzenszwalb(image, spacing=SPACING, **options), body_mask(image))
    np.testing.assert_array_equal(Felzenszwalb(**options)(volume_of(image), NoScans()), expected)
    plain = Felzenszwalb(min_size=10)(volume_of(image), NoScans())
    assert (plain != expected).any()


def test_the_inputs_are_left_as_they_are():
    image = noise(7, (3, 9, 9), "float")
    before = image.copy()
    felzenszwalb(image, spacing=SPACING, sigma=1.0, min_size=10)
    np.testing.assert_array_equal(image, before)


def test_an_image_without_contrast_is_an_error_that_names_the_case():
    with pytest.raises(DataError, match=r"case 7: every voxel is 3, expected .*; \w+"):
        Felzenszwalb()(volume_of(np.full((2, 4, 4), 3.0, dtype=np.float32)), NoScans())


def test_every_option_has_a_meaning():
    assert [option.name for option in options_of(Felzenszwalb)] == ["min_size", "scale", "sigma"]
    assert all(option.meaning for option in options_of(Felzenszwalb))


@pytest.mark.parametrize("module", [supervoxels, regions])
def test_examples_are_true(module):
    ran = doctest.testmod(module)
    assert ran.attempted and not ran.failed


@pytest.mark.parametrize("name", ["felzenszwalb", pytest.param("slic", marks=pytest.mark.slow)])
def test_the_built_in_supervoxels_keep_their_contract(name):
    """Except `stored`, which needs files."""
    results = run_checks(f"supervoxels/{name}")
    assert results and not [result for result in results if result.status == "failed"]
