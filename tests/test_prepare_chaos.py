"""CHAOS, from DICOM and PNG to a dataset: values and geometry against a slow resampler of our own."""

import nibabel
import numpy as np
import pytest
import SimpleITK
from raw_trees import chaos_scan, write_chaos, write_chaos_patient

from fsseg.prepare.engine import prepare
from fsseg.prepare.layouts import chaos
from fsseg.prepare.plan import CasePlan
from fsseg.prepare.resample import resample, resample_labels
from fsseg.prepare.scan import Scan, as_integers, clip_top, crop_or_pad


def slow_linear(voxels, factors, sizes):
    """Trilinear samples at index * factor; 0 beyond the last voxel's outer edge, clamped within its outer half."""
    result = voxels.astype(np.float64)
    for axis, (factor, size) in enumerate(zip(factors, sizes)):
        length, place = result.shape[axis], np.arange(size) * factor
        low = np.minimum(np.floor(place).astype(int), length - 1)
        high = np.minimum(low + 1, length - 1)
        part = (place - low).reshape([-1 if other == axis else 1 for other in range(3)])
        inside = (place < length - 0.5).reshape(part.shape)
        result = ((1 - part) * result.take(low, axis) + part * result.take(high, axis)) * inside
    return result


def slow_labels(labels, factors, sizes):
    """Each label as a mask, in ascending order, where above one half."""
    result = np.zeros(sizes, dtype=labels.dtype)
    for value in np.unique(labels):
        result[slow_linear(labels == value, factors, sizes) > 0.5] = value
    return result


def middle(voxels, fill, size=256):
    """Cropped or padded around voxel N // 2 of both in-plane axes."""
    result = np.full((size, size, voxels.shape[2]), fill, dtype=voxels.dtype)
    for x in range(size):
        for y in range(size):
            source = x - size // 2 + voxels.shape[0] // 2, y - size // 2 + voxels.shape[1] // 2
            if 0 <= source[0] < voxels.shape[0] and 0 <= source[1] < voxels.shape[1]:
                result[x, y] = voxels[source]
    return result


def load(out, case, what="image"):
    file = nibabel.load(out / f"chaos_MR_T2_normalized/{what}_{case}.nii.gz")
    return np.asanyarray(file.dataobj), file


def as_file(volume):
    """Slices-first DICOM rows in the order of the published files: x, rows from back to front, slices."""
    return volume.transpose(2, 1, 0)[:, ::-1]


@pytest.mark.parametrize(
    "pixel", [5.0, 6.1]
)  # too few samples for 256, which are padded; and too many
@pytest.mark.parametrize("as_published", [False, True])
def test_values_are_those_of_a_slow_resampler(tmp_path, pixel, as_published):
    image, labels = chaos_scan(seed=3)
    write_chaos_patient(tmp_path / "raw/MR/3", image, labels, pixel=(pixel, pixel))
    prepare(chaos.plan(tmp_path / "raw", as_published), tmp_path / "out", jobs=1).raise_problems()
    factors = (1.25 / pixel, 1.25 / pixel, 7.7 / 6.0)
    if as_published:
        sizes = [
            int(length * old / new + 1)
            for length, old, new in zip((64, 64, 6), (pixel, pixel, 6), (1.25, 1.25, 7.7))
        ]
        assert sizes[2] == 5 and sizes[0] in (257, 313)
    else:
        sizes = [254, 254, 5] if pixel == 5.0 else [310, 310, 5]
    limit = np.percentile(image, 99.5)
    clipped = np.minimum(as_file(image), int(limit) if as_published else limit)
    exact = slow_linear(clipped, factors, sizes)
    written, file = load(tmp_path / "out", "3")
    difference = written - middle(exact, exact.min())
    # Rounding errors of the two resamplers tip over what lies just between two integers.
    if as_published:
        assert (
            (written == np.trunc(written)).all()
            and difference.max() < 1e-6
            and difference.min() > -1 - 1e-6
        )
        assert (difference > -1 + 1e-6).mean() > 0.999
    else:
        assert np.abs(difference).max() < 0.5 + 1e-6
    marks, _ = load(tmp_path / "out", "3", "label")
    assert (marks == middle(slow_labels(as_file(labels), factors, sizes), 0)).mean() > 1 - 1e-5
    assert set(np.unique(marks)) == {0, 1, 2, 3, 4}
    kinds = ("float64", "float64") if as_published else ("int16", "uint8")
    assert (str(written.dtype), str(marks.dtype)) == kinds
    assert nibabel.aff2axcodes(file.affine) == ("L", "A", "S")
    assert np.allclose(file.header.get_zooms(), (1.25, 1.25, 7.7))


def test_the_published_rules_as_measured():
    line = Scan(
        np.array([0, 1, 2, 3, 10], dtype=np.int16).reshape(5, 1, 1), np.diag([1.0, 1, 1, 1])
    )
    published = resample(line, (0.7, 1.0, 1.0), as_published=True).voxels[:, 0, 0]
    # 0.7 -> 0 and 2.8 -> 2 are truncated; 4.2 is clamped to the last voxel; 4.9 is outside and 0.
    assert published.tolist() == [0, 0, 1, 2, 2, 6, 10, 0]
    clean = resample(line, (0.7, 1.0, 1.0)).voxels[:, 0, 0]
    assert clean.tolist() == pytest.approx([0, 0.7, 1.4, 2.1, 2.8, 6.5, 10])
    halves = line.with_voxels(np.array([0, 1, 1, 0, 0], dtype=np.uint8).reshape(5, 1, 1))
    assert resample_labels(halves, (0.5, 1, 1)).voxels[:, 0, 0].tolist() == [
        0,
        0,
        1,
        1,
        1,
        0,
        0,
        0,
        0,
    ], "one half is 0"
    assert as_integers(np.array([0.8, 2.8, -0.8, 70_000.4]).reshape(4, 1, 1)).ravel().tolist() == [
        1,
        3,
        -1,
        70_000,
    ]


def test_a_volume_ends_with_an_empty_slice_only_as_published():
    scan = Scan(np.full((3, 3, 3), 7, dtype=np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    published = resample(scan, (2.0, 2.0, 5.0), as_published=True).voxels
    assert published.shape == (4, 4, 4) and (published[:3, :3, :3] == 7).all()
    assert not published[3].any() and not published[:, 3].any() and not published[:, :, 3].any()
    clean = resample(scan, (2.0, 2.0, 5.0)).voxels
    assert clean.shape == (3, 3, 3) and (clean == 7).all()


def test_the_clip_is_at_the_top_only_and_truncated_as_published():
    values = np.concatenate([np.arange(-5, 194), [5000]]).reshape(200, 1, 1).astype(np.int16)
    limit = np.percentile(values, 99.5)
    assert limit != int(limit)
    clipped, at = clip_top(Scan(values, np.eye(4)))
    assert at == limit and clipped.voxels.max() == limit and clipped.voxels.min() == -5
    clipped, at = clip_top(Scan(values, np.eye(4)), as_published=True)
    assert clipped.voxels.dtype == np.int16 and clipped.voxels.max() == int(limit) == at


@pytest.mark.parametrize("length", [255, 256, 257, 279, 310, 5])
def test_cropping_keeps_the_centre_and_every_place(length):
    voxels = np.random.default_rng(length).integers(1, 99, size=(length, 259, 2))
    affine = np.array([[0, -1.2, 0, 3.0], [1.1, 0, 0, -4], [0, 0, 7, 5], [0, 0, 0, 1]])
    cropped = crop_or_pad(Scan(voxels, affine), 256, fill=0)
    assert (cropped.voxels == middle(voxels, 0)).all()
    assert cropped.voxels[128, 128, 0] == voxels[length // 2, 129, 0]
    assert np.allclose(cropped.affine @ [128, 128, 1, 1], affine @ [length // 2, 129, 1, 1])
    assert crop_or_pad(Scan(voxels, affine), 256, 0, keep_origin=True).affine is affine


def test_padding_is_the_smallest_value(tmp_path):
    write_chaos(tmp_path / "raw", patients=("1",), pixel=(3.0, 3.0))
    prepare(chaos.plan(tmp_path / "raw"), tmp_path / "out", jobs=1).raise_problems()
    image, _ = load(tmp_path / "out", "1")
    assert image[0, 0, 0] == image.min() > 0
    published = tmp_path / "published"
    prepare(chaos.plan(tmp_path / "raw", as_published=True), published, jobs=1).raise_problems()
    assert load(published, "1")[0][0, 0, 0] == 0, (
        "the published samples outside the volume are its smallest value"
    )


OBLIQUE = (0.96, 0.28, 0.0, -0.224, 0.768, 0.6)


@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 1, 0), OBLIQUE, (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, 1, 0)]
)
@pytest.mark.parametrize("backwards", [False, True])
def test_a_bright_voxel_stays_where_it_was_in_the_scanner(tmp_path, direction, backwards):
    image = np.full((6, 64, 64), 10, dtype=np.uint16)
    labels = np.zeros(image.shape, dtype=np.uint8)
    image[3, 12:28, 33:49] = (
        500  # more than half a percent of the volume, so that it is not clipped away
    )
    labels[3, 12:28, 33:49] = 2
    corner, step = np.array([-31.0, 12.0, 55.0]), 7.0
    write_chaos_patient(
        tmp_path / "raw/MR/9", image, labels, origin=corner, direction=direction, step=step, pixel=(5.0, 4.0), backwards=backwards
    )  # fmt: skip
    prepare(chaos.plan(tmp_path / "raw"), tmp_path / "out", jobs=1).raise_problems()
    across, down = np.array(direction[:3]), np.array(direction[3:])
    # DICOM: columns count along the row direction; PixelSpacing is height, then width.
    place = corner + 40.5 * 4.0 * across + 19.5 * 5.0 * down + 3 * step * np.cross(across, down)
    expected = place * (-1, -1, 1)  # left and back in DICOM, right and front in NIfTI
    marks, file = load(tmp_path / "out", "9", "label")
    image, _ = load(tmp_path / "out", "9")
    found = (file.affine @ [*np.argwhere(marks == 2).mean(axis=0), 1])[:3]
    bright = np.argwhere(image > 250)
    assert np.linalg.norm((file.affine @ [*bright.mean(axis=0), 1])[:3] - found) < 1.25, (
        "labels cover what is bright"
    )
    sides = np.abs(np.linalg.solve(file.affine[:3, :3], found - expected))
    assert (sides <= 0.51).all(), "to half a voxel"


def test_the_order_of_slices_is_that_of_their_positions_not_of_their_names(tmp_path):
    image, labels = chaos_scan(seed=5)
    for backwards in (False, True):
        write_chaos_patient(tmp_path / f"{backwards}/MR/5", image, labels, backwards=backwards)
        prepare(
            chaos.plan(tmp_path / f"{backwards}"), tmp_path / f"out_{backwards}", jobs=1
        ).raise_problems()
    for what in ("image", "label"):
        forward, backward = (load(tmp_path / f"out_{flag}", "5", what)[0] for flag in (False, True))
        assert (forward == backward).all()


def test_an_absent_organ_does_not_renumber_the_others(tmp_path):
    write_chaos_patient(tmp_path / "raw/MR/4", *chaos_scan(seed=4, organs=(2, 4)))
    prepare(chaos.plan(tmp_path / "raw"), tmp_path / "out", jobs=1).raise_problems()
    assert set(np.unique(load(tmp_path / "out", "4", "label")[0])) == {0, 2, 4}


def test_grey_values_count_by_their_ranges(tmp_path):
    greys = np.array([[0, 55, 70], [110, 135, 175], [200, 240, 255]])
    assert chaos.number_greys(tmp_path, greys).tolist() == [[0, 1, 1], [2, 2, 3], [3, 4, 4]]
    for grey in (1, 54, 71, 109, 136, 174, 201, 239):
        with pytest.raises(Exception, match=f"grey value {grey}, expected 0, 55-70 liver"):
            chaos.number_greys(tmp_path, np.array([[grey]]))


@pytest.mark.parametrize("below", [".", "MR", "Train_Sets", "CHAOS_Train_Sets"])
def test_the_source_may_be_given_at_any_level(tmp_path, below):
    places = {
        ".": tmp_path,
        "MR": tmp_path,
        "Train_Sets": tmp_path / "Train_Sets",
        "CHAOS_Train_Sets": tmp_path / "CHAOS_Train_Sets/Train_Sets",
    }
    write_chaos(places[below], patients=("2", "10"))
    source = tmp_path / "MR" if below == "MR" else tmp_path
    assert [case.case for case in chaos.plan(source).cases] == ["2", "10"]


def test_the_whole_set_is_read_as_the_published_one(tmp_path):
    described, notes = chaos.describe(20, [1, 2, 3, 4])
    assert (
        described["folds"] == "hansen2022"
        and described["supervoxel_min_size"] == 5000
        and not notes
    )
    assert "folds" not in chaos.describe(19, [1])[0]
    write_chaos(tmp_path / "raw")
    prepare(chaos.plan(tmp_path / "raw"), tmp_path / "out", jobs=1).raise_problems()
    from fsseg.data.datasets.folders import ChaosT2, NiftiFolder

    for dataset in (ChaosT2(root=str(tmp_path / "out")), NiftiFolder(root=str(tmp_path / "out"))):
        assert list(dataset.classes.values()) == ["liver", "right_kidney", "left_kidney", "spleen"]
        volume = dataset.load("2")
        assert volume.image.shape == (5, 256, 256) and set(np.unique(volume.labels)) == {
            0,
            1,
            2,
            3,
            4,
        }
    itself = SimpleITK.ReadImage(str(tmp_path / "out/chaos_MR_T2_normalized/image_2.nii.gz"))
    assert itself.GetSpacing() == pytest.approx((1.25, 1.25, 7.7)), (
        "other readers find the same geometry"
    )


def test_one_patient_by_hand(tmp_path):
    """The functions beneath, without an engine."""
    folder = tmp_path / "MR/1/T2SPIR"
    write_chaos_patient(tmp_path / "MR/1", *chaos_scan(seed=1), pixel=(1.25, 1.25), step=7.7)
    image, labels = chaos_scan(seed=1)
    case = CasePlan(
        "1",
        tuple(sorted((folder / "DICOM_anon").iterdir())),
        tuple(sorted((folder / "Ground").iterdir())),
        {"as_published": False},
    )
    made = chaos.make(case)
    inner = (slice(96, 160), slice(96, 160))  # 64 pixels in the middle of 256
    assert (made.label.voxels[inner] == as_file(labels)).all()
    assert (
        made.image.voxels[inner] == np.rint(np.minimum(as_file(image), np.percentile(image, 99.5)))
    ).all()
    assert made.before == {"shape": [64, 64, 6], "spacing": [1.25, 1.25, 7.7], "axes": "LPS"}
