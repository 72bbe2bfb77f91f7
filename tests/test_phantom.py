"""The embedded dataset: what a case promises, that a seed determines it, and that no intensity window solves it."""

import doctest

import numpy as np
import pytest
from scipy import ndimage

from fsseg.data.datasets.phantom import dataset
from fsseg.data.datasets.phantom.dataset import CLASSES, AbdomenPhantom, generate_case
from fsseg.errors import DataError
from fsseg.interfaces import Dataset
from fsseg.plugins.options import options_of

VOLUME_ML = {
    "liver": (750, 1600),
    "right_kidney": (60, 190),
    "left_kidney": (60, 190),
    "spleen": (110, 290),
}
SLICES = {"liver": 14, "right_kidney": 8, "left_kidney": 8, "spleen": 7}
BINS = 64


@pytest.fixture(scope="module", params=[4, pytest.param(20, marks=pytest.mark.slow)])
def volumes(request):
    """Cases of the default dataset at full size: some, and all."""
    dataset = AbdomenPhantom()
    return [dataset.load(case) for case in dataset.cases[: request.param]]


def same(a, b):
    return (
        a.image.shape == b.image.shape
        and np.array_equal(a.image, b.image)
        and np.array_equal(a.labels, b.labels)
    )


def test_a_case_is_a_scan(volumes):
    for number, volume in enumerate(volumes, start=1):
        assert volume.case == f"phantom_{number:02d}"
        assert 20 <= len(volume.image) <= 28 and volume.image.shape[1:] == (192, 192)
        assert volume.labels.shape == volume.image.shape
        assert volume.image.dtype == np.float32 and volume.labels.dtype == np.uint8
        assert np.array_equal(volume.image, np.rint(volume.image))
        assert volume.image.min() >= 0 and 500 < volume.image.max() < 2500


def test_spacing_and_affine_agree(volumes):
    for volume in volumes:
        depth, height, width = volume.spacing
        assert 6.5 < depth < 9 and 1.5 < height < 1.9 and height == width
        assert volume.grid.affine.dtype == np.float64
        assert np.array_equal(volume.grid.affine, np.diag([-width, -height, depth, 1]))


@pytest.mark.parametrize("value", CLASSES)
def test_an_organ_is_one_piece_of_plausible_size(volumes, value):
    low, high = VOLUME_ML[CLASSES[value]]
    for volume in volumes:
        organ = volume.labels == value
        assert ndimage.label(organ)[1] == 1, volume.case
        assert low < organ.sum() * np.prod(volume.spacing) / 1000 < high, volume.case
        assert organ.any(axis=(1, 2)).sum() >= SLICES[CLASSES[value]], volume.case


def test_organs_lie_where_they_belong(volumes):
    """Liver and right kidney on the image's left, the kidneys lower than the spleen, the liver above its kidney."""
    for volume in volumes:
        z, _, x = np.array([ndimage.center_of_mass(volume.labels == value) for value in CLASSES]).T
        liver, right, left, spleen = x
        assert liver < 96 and right < 96 and left > 96 and spleen > left
        assert z[1] < z[3] and z[2] < z[3] and z[1] < z[0]
        top = [np.flatnonzero((volume.labels == value).any(axis=(1, 2)))[-1] for value in CLASSES]
        assert top[0] > top[1] and top[3] > top[2]


def test_most_scans_begin_and_end_without_organs(volumes):
    ends = np.array([volume.labels[[0, -1]].any(axis=(1, 2)) for volume in volumes])
    assert (ends.mean(axis=0) < 0.5).all()


def best_window(counts, organ):
    """Largest Dice of any run of neighbouring bins, given the voxels and the organ's voxels in each bin."""
    all_before, organ_before = (np.concatenate([[0], np.cumsum(c)]) for c in (counts, organ))
    chosen, hits = (
        np.triu(before[None] - before[:, None]) for before in (all_before, organ_before)
    )
    return (2 * hits / (chosen + organ.sum())).max()


def scaled(volume):
    low, high = np.percentile(volume.image, [1, 99.5])
    return np.clip((volume.image - low) / (high - low), 0, 1)


def window_scores(images, labels):
    """Dice of the best window per organ; windows start and end at quantiles of the images, the air's apart."""
    values, truth = (
        np.concatenate([array.ravel() for array in arrays]) for arrays in (images, labels)
    )
    body = values[values > 0.05]
    edges = np.unique(
        [0.05, *np.quantile(body[:: 1 + body.size // 500_000], np.arange(1, BINS) / BINS)]
    )
    counts = np.stack(
        [np.bincount(b, minlength=5) for b in np.split(*_sorted_bins(edges, values, truth))]
    )
    return np.array([best_window(counts.sum(axis=1), counts[:, value]) for value in CLASSES])


def _sorted_bins(edges, values, truth):
    """The labels in the order of the values, and where a new bin begins."""
    order = np.argsort(values)
    return truth[order], np.searchsorted(values[order], edges)


def test_the_best_window_is_found():
    counts, organ = np.array([10, 5, 5, 10]), np.array([0, 4, 4, 2])
    assert best_window(counts, organ) == pytest.approx(2 * 8 / (10 + 10))


def test_no_intensity_window_solves_it(volumes):
    """The task cannot be solved by thresholds, not even by ones that know the answer.

    Each scan's 1st to 99.5th percentile is scaled to [0, 1]. For each organ, all windows [lo, hi] between 64 quantiles
    of the body's intensities are tried with the ground truth, by cumulative histograms: once one window for all
    cases (Dice of the pooled voxels), once the best window of each case (Dice averaged over cases). Both stay below 0.6
    in the mean over organs and below 0.7 for each. All cases are used at full size.
    """
    images, labels = [scaled(volume) for volume in volumes], [volume.labels for volume in volumes]
    pooled = window_scores(images, labels)
    per_case = np.mean(
        [window_scores([image], [label]) for image, label in zip(images, labels, strict=True)],
        axis=0,
    )
    for scores in (pooled, per_case):
        assert scores.mean() < 0.6
        assert (scores < 0.7).all()


def test_organs_are_bounded_by_edges(volumes):
    """Not solvable by thresholds must not mean invisible: intensities are far steeper at an organ's rim than in it."""
    disc = np.ones((1, 3, 3), bool)
    for volume in volumes:
        slope = np.hypot(*np.gradient(volume.image, axis=(1, 2)))
        for value, name in CLASSES.items():
            organ = volume.labels == value
            rim = ndimage.binary_dilation(organ, disc) & ~organ
            inside = ndimage.binary_erosion(organ, disc, iterations=3)
            assert np.median(slope[rim]) > 2.5 * np.median(slope[inside]), (volume.case, name)


def test_a_seed_determines_a_case(volumes):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    again = generate_case(0, 3)
    assert same(again, volumes[3])
    assert again.spacing == volumes[3].spacing and np.array_equal(
        again.grid.affine, volumes[3].grid.affine
    )
    assert np.array_equal(np.random.get_state()[1], before)


def test_seeds_and_cases_differ():
    first = generate_case(0, 0, 64)
    assert not same(first, generate_case(1, 0, 64))
    assert not same(first, generate_case(0, 1, 64))


def test_size_changes_the_resolution_only(volumes):
    small = generate_case(0, 2, 64)
    large = volumes[2]
    assert small.image.shape == (len(large.image), 64, 64)
    assert small.spacing == pytest.approx((large.spacing[0], *(3 * s for s in large.spacing[1:])))
    agreeing = small.labels == large.labels[:, 1::3, 1::3]
    assert agreeing.mean() > 0.97
    for value in CLASSES:
        assert ndimage.label(small.labels == value)[1] == 1
        ratio = (small.labels == value).sum() * 9 / (large.labels == value).sum()
        assert 0.9 < ratio < 1.1


def test_the_component():
    dataset = AbdomenPhantom(seed=5, count=3, size=64)
    assert isinstance(dataset, Dataset)
    assert dataset.classes == CLASSES and dataset.cases == [
        "phantom_01",
        "phantom_02",
        "phantom_03",
    ]
    assert same(dataset.load("phantom_02"), generate_case(5, 1, 64))
    assert [(option.name, option.default) for option in options_of(AbdomenPhantom)] == [
        ("seed", "0"), ("count", "20"), ("size", "192"),
    ]  # fmt: skip
    assert all(option.meaning for option in options_of(AbdomenPhantom))


def test_the_size_of_supervoxels_follows_the_pixels():
    full, small = AbdomenPhantom().supervoxel_min_size, AbdomenPhantom(size=96).supervoxel_min_size
    assert isinstance(full, int) and full == pytest.approx(4 * small, rel=0.01)


def test_cases_are_kept_and_a_damaged_copy_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSEG_CACHE", str(tmp_path))
    dataset = AbdomenPhantom(count=2, size=64)
    first = dataset.load("phantom_02")
    [kept] = (tmp_path / "phantom").iterdir()
    written = kept.stat().st_mtime_ns
    second = dataset.load("phantom_02")
    assert same(first, second) and kept.stat().st_mtime_ns == written
    assert second.spacing == first.spacing and np.array_equal(second.grid.affine, first.grid.affine)
    kept.write_bytes(kept.read_bytes()[:1000])
    assert same(dataset.load("phantom_02"), first)
    AbdomenPhantom(count=2, size=64, seed=1).load("phantom_02")
    assert len(list((tmp_path / "phantom").iterdir())) == 2


@pytest.mark.parametrize("case", ["phantom_21", "phantom_00", "1", ""])
def test_an_unknown_case_is_explained(case):
    with pytest.raises(
        DataError, match=rf"no case '{case}', expected phantom_01 to phantom_20; correct the id"
    ):
        AbdomenPhantom().load(case)


def test_the_example_is_true():
    ran = doctest.testmod(dataset)
    assert ran.attempted and not ran.failed
