"""Supervoxels by clustering: what must hold of them, whatever scikit-image does inside."""

import sys

import numpy as np
import pytest
from helpers import NoScans
from scipy import ndimage

from fsseg.data.datasets.phantom.dataset import generate_case
from fsseg.data.grids import FileGrid
from fsseg.data.supervoxels.felzenszwalb import body_mask, scaled_image
from fsseg.data.supervoxels.slic import Slic
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.plugins.options import options_of


@pytest.fixture(scope="module")
def abdomen() -> Volume:
    return generate_case(seed=0, index=0, size=64)


@pytest.fixture(scope="module")
def regions(abdomen):
    return Slic()(abdomen, NoScans(200))


def volume_of(image: np.ndarray, spacing: tuple[float, float, float] = (2.0, 1.0, 1.0)) -> Volume:
    return Volume("7", image.astype(np.float32), None, spacing, FileGrid(np.eye(4)))


def noisy_block(shape: tuple[int, int, int]) -> np.ndarray:
    """A body that fills the volume, with nothing to follow but a little noise (and one dark voxel for contrast)."""
    image = np.random.default_rng(0).uniform(99, 101, shape)
    image[0, 0, 0] = 0
    return image


def extents(regions: np.ndarray) -> np.ndarray:
    """Median extent of the regions in voxels along (slice, height, width)."""
    boxes = [box for box in ndimage.find_objects(regions) if box is not None]
    return np.median([[side.stop - side.start for side in box] for box in boxes], axis=0)


def test_regions_fill_the_body_and_are_numbered_from_1(abdomen, regions):
    body = body_mask(scaled_image(abdomen))
    assert regions.dtype == np.int32
    np.testing.assert_array_equal(regions > 0, body)
    ids = np.unique(regions)
    assert ids.tolist() == list(range(len(ids)))


def test_the_same_scan_gives_the_same_regions(abdomen, regions):
    np.testing.assert_array_equal(Slic()(abdomen, NoScans(200)), regions)


def test_the_inputs_are_left_as_they_are(abdomen, regions):
    np.testing.assert_array_equal(abdomen.image, generate_case(seed=0, index=0, size=64).image)


@pytest.mark.parametrize("count", [20, 80])
def test_there_are_about_as_many_regions_as_asked_for(abdomen, count):
    assert 0.8 * count <= Slic(count=count)(abdomen, NoScans(200)).max() <= 1.1 * count


def test_by_default_a_region_has_about_the_datasets_voxels(regions):
    sizes = np.bincount(regions.ravel())[1:]
    assert np.median(sizes) == pytest.approx(200, rel=0.3)


@pytest.mark.parametrize("count", [None, 1])
def test_one_region_is_the_whole_body(count):
    volume = volume_of(noisy_block((2, 6, 6)))  # fewer voxels than a region should have
    regions = Slic(count=count)(volume, NoScans(200))
    assert regions.dtype == np.int32
    np.testing.assert_array_equal(regions, body_mask(scaled_image(volume)))


def test_a_body_of_fewer_voxels_than_regions_is_divided_all_the_same():
    regions = Slic(count=200)(volume_of(noisy_block((2, 6, 6))), NoScans(200))
    assert (regions > 0).sum() == 71


def test_thicker_slices_make_regions_that_span_fewer_of_them():
    image = noisy_block((24, 24, 24))
    method = Slic(count=27, compactness=100.0)  # by place alone
    thin, thick = (method(volume_of(image, (gap, 1.0, 1.0)), NoScans(200)) for gap in (1.0, 4.0))
    assert extents(thick)[0] < 0.75 * extents(thin)[0]
    assert (extents(thick)[1:] > extents(thin)[1:]).all()


def test_only_the_ratio_of_the_spacings_matters():
    image = noisy_block((8, 20, 20))
    small, large = (
        Slic(count=12)(volume_of(image, (3 * unit, unit, unit)), NoScans(200))
        for unit in (0.5, 2.0)
    )
    np.testing.assert_array_equal(small, large)


def test_sigma_is_in_millimetres(abdomen):
    # A mask is found in the image as it is, so that only the clusters can differ.
    near, far = (
        Volume(
            "7", abdomen.image, None, tuple(unit * size for size in (4.0, 1.0, 1.0)), abdomen.grid
        )
        for unit in (1, 2)
    )
    smooth = Slic(sigma=1.5)(near, NoScans(200))
    np.testing.assert_array_equal(Slic(sigma=3.0)(far, NoScans(200)), smooth)
    assert (Slic()(near, NoScans(200)) != smooth).any()


def test_regions_follow_intensities_unless_they_are_to_be_compact():
    image = noisy_block((6, 30, 30))
    image[:, :, 13:] += 60
    loose, compact = (
        Slic(count=8, compactness=value)(volume_of(image), NoScans(200)) for value in (0.01, 100.0)
    )
    assert not set(np.unique(loose[:, :, :13])) & set(np.unique(loose[:, :, 13:]))
    assert set(np.unique(compact[:, :, :13])) & set(np.unique(compact[:, :, 13:]))


def test_without_scikit_image_the_error_says_what_to_install(monkeypatch, abdomen):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(DataError, match=r"scikit-image is not installed; install fsseg\[slic\]$"):
        Slic()(abdomen, NoScans(200))


def test_an_image_without_contrast_is_an_error_that_names_the_case():
    with pytest.raises(DataError, match=r"case 7: every voxel is 3, expected .*; \w+"):
        Slic()(volume_of(np.full((2, 4, 4), 3.0)), NoScans(200))


def test_every_option_has_a_meaning():
    assert [option.name for option in options_of(Slic)] == ["count", "compactness", "sigma"]
    assert all(option.meaning for option in options_of(Slic))
