"""The way from a file to the working grid and back."""

import doctest
import itertools

import nibabel
import numpy as np
import pytest
import torch
from helpers import TIMM, write_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import fsseg
from fsseg.data import folds, grids, volume
from fsseg.data.grids import FileGrid, WorkingGrid, anisotropic_axis, find_grid, working_grid
from fsseg.model.ops import restore_labels

SIGNED_AXES = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(order, signs, sizes, tilt=0.0):
    """File axis k runs along world axis order[k], in the direction signs[k]; all turned by `tilt` degrees."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * sizes[axis]
    affine[:3, :3] = (
        Rotation.from_euler("xyz", [tilt, -tilt / 2, tilt / 3], degrees=True).as_matrix()
        @ affine[:3, :3]
    )
    affine[:3, 3] = [11, -7, 40]
    return affine


@pytest.mark.parametrize(("order", "signs"), SIGNED_AXES)
@pytest.mark.parametrize("tilt", [0, 20])
def test_scans_are_turned_alike_whatever_their_file(order, signs, tilt):
    """Slices along the thick axis; columns to the left (or back), rows to the back (or down), by the affine itself."""
    sizes = np.ones(3)
    sizes[1] = 4.0
    affine = affine_of(order, signs, sizes, tilt)
    grid = find_grid(affine, tuple(sizes))
    assert grid.axes[0] == 1
    towards = []
    for place in range(3):
        step = affine[:3, grid.axes[place]] * (-1 if grid.flipped[place] else 1)
        towards.append((int(np.abs(step).argmax()), bool(step[np.abs(step).argmax()] > 0)))
    slice_axis, height_axis, width_axis = towards
    assert slice_axis[1] and not height_axis[1] and not width_axis[1]
    assert width_axis[0] < height_axis[0]


@pytest.mark.parametrize(
    ("sizes", "axis"),
    [
        ((0.7, 0.7, 5), 2),
        ((6, 1.4, 1.4), 0),
        ((1, 8, 1.2), 1),
        ((1, 1, 1), 2),
        ((1.02, 1, 1), 2),
        ((1, 1, 0.4), 2),
    ],
)
def test_the_most_anisotropic_axis(sizes, axis):
    assert anisotropic_axis(sizes) == axis


def test_the_axis_can_be_chosen_and_the_orientation_left():
    affine = np.diag([-1.0, 1, 5, 1])
    grid = find_grid(affine, (1, 1, 5), axis=0, orientation="file")
    assert (grid.axes, grid.flipped) == ((0, 2, 1), (False, False, False))


@given(
    st.permutations(range(3)), st.tuples(*[st.booleans()] * 3), st.tuples(*[st.integers(1, 5)] * 3)
)
def test_to_the_file_and_back(axes, flipped, shape):
    voxels = np.arange(np.prod(shape)).reshape(shape)
    grid = FileGrid(np.eye(4), tuple(axes), flipped)
    volume = grid.from_file(voxels)
    assert volume.shape == tuple(shape[axis] for axis in axes)
    np.testing.assert_array_equal(grid.to_file(volume), voxels)
    if flipped[1]:
        index = [0, 0, 0]
        index[axes[1]] = shape[axes[1]] - 1
        at = [0 if not flipped[place] else volume.shape[place] - 1 for place in range(3)]
        at[1] = 0
        assert volume[tuple(at)] == voxels[tuple(index)]


def test_what_a_volume_leaves_out_is_zero_in_the_file():
    grid = FileGrid(np.eye(4), size=(2, 3, 4))
    whole = grid.to_file(np.ones((2, 2, 3), dtype=np.uint8))
    assert whole.shape == (4, 3, 2) and whole[:3, :2].all() and whole.sum() == 12


@pytest.mark.parametrize(
    ("own", "pixel", "options", "resized", "size"),
    [
        ((200, 100), (1.0, 1.0), {}, (200, 100), (200, 100)),
        ((512, 384), (0.7, 0.7), {}, (256, 192), (256, 192)),
        ((512, 512), (0.7, 0.7), {"max_size": 512}, (512, 512), (512, 512)),
        ((512, 512), (0.625, 1.25), {"spacing": 1.25}, (256, 512), (256, 512)),
        ((300, 200), (1.0, 1.0), {"size": 256}, (300, 200), (256, 256)),
        ((300, 200), (1.0, 1.0), {"spacing": 2.0, "size": 96}, (150, 100), (96, 96)),
    ],
)
def test_the_rule_of_the_working_grid(own, pixel, options, resized, size):
    grid = working_grid(own, pixel, **options)
    assert (grid.own, grid.resized, grid.size) == (own, resized, size)
    assert grid.is_own == (own == resized == size)


def test_cropping_and_padding_are_about_the_centre():
    image = np.arange(2 * 5 * 4, dtype=np.float32).reshape(2, 5, 4)
    cropped = WorkingGrid((5, 4), (5, 4), (2, 2)).image(image)
    assert cropped.tolist() == image[:, 1:3, 1:3].tolist()  # the centre of 5 is 2, that of 2 is 1
    padded = WorkingGrid((5, 4), (5, 4), (8, 3)).image(image + 7)
    assert padded.shape == (2, 8, 3) and (padded[:, :2] == 7).all() and (padded[:, 7:] == 7).all()
    assert padded[:, 2:7].tolist() == (image + 7)[:, :, 1:4].tolist()


@settings(max_examples=60, deadline=None)
@given(
    own=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    factor=st.sampled_from([0.5, 0.8, 1.0, 1.3, 2.0]),
    size=st.one_of(st.none(), st.integers(16, 90)),
)
def test_labels_return_to_where_they_came_from(own, factor, size):
    """A block that is inside the working grid comes back within half a working pixel of its edges."""
    grid = working_grid(own, (1.0, 1.0), spacing=1 / factor, size=size)
    middle = tuple(length // 2 for length in own)
    labels = np.zeros((1, *own), dtype=np.uint8)
    labels[0, middle[0] - 3 : middle[0] + 4, middle[1] - 3 : middle[1] + 4] = 1
    working = grid.labels(labels)
    assert working.shape[1:] == grid.size
    scores = torch.from_numpy(np.stack([1 - working, working], axis=1).astype(np.float32))
    restored = restore_labels(scores, grid).numpy()
    assert restored.shape == labels.shape
    reach = int(np.ceil(1 / factor))
    inner = labels[
        0,
        middle[0] - 3 + reach : middle[0] + 4 - reach,
        middle[1] - 3 + reach : middle[1] + 4 - reach,
    ]
    kept = restored[
        0,
        middle[0] - 3 + reach : middle[0] + 4 - reach,
        middle[1] - 3 + reach : middle[1] + 4 - reach,
    ]
    assert (kept == inner).all()
    grown = np.zeros_like(labels)
    grown[
        0,
        middle[0] - 3 - reach : middle[0] + 4 + reach,
        middle[1] - 3 - reach : middle[1] + 4 + reach,
    ] = 1
    assert not (restored & ~grown & 1).any()


def test_what_was_cropped_is_background():
    grid = working_grid((64, 64), (1.0, 1.0), size=32)
    everything = torch.stack([torch.zeros(2, 32, 32), torch.ones(2, 32, 32)], dim=1)
    restored = restore_labels(everything, grid)
    assert restored[:, 16:48, 16:48].all() and restored.sum() == 2 * 32 * 32


PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}


@settings(max_examples=2, deadline=None)
@given(
    plane=st.sampled_from(list(PLANES)),
    orientation=st.sampled_from(SIGNED_AXES),
    tilt=st.sampled_from([0.0, 17.0]),
    grid=st.sampled_from([{}, {"grid.spacing": 2.0}, {"grid.size": 40}, {"grid.max_size": 32}]),
)
def test_predictions_lie_on_the_scans_own_grid(tmp_path_factory, plane, orientation, tilt, grid):
    """Shape, affine and orientation of what a run writes are those of its input files, and Dice is counted there."""
    folder = tmp_path_factory.mktemp("planes")
    order, signs = orientation
    thick = order.index(PLANES[plane])
    sizes = np.ones(3)
    sizes[thick] = 5.0
    affine = affine_of(order, signs, sizes, tilt)
    _write_scans(folder / "scans", affine, thick)
    changes = {
        "protocol.folds": "dataset",
        "backbone": TIMM | {"strides": [2], "weights": "package"},
        **grid,
    }
    recipe = fsseg.load_recipe(write_recipe(folder, folder / "scans", steps=0), changes)
    recipe.variants = recipe.variants[2:]  # the oracle, which comes near the truth without training
    results = fsseg.run(recipe, runs_dir=folder / "runs")
    for score in results.scores:
        saved = nibabel.load(
            results.path / f"fold0/labels/OCP/{score.case}_{score.class_name}.nii.gz"
        )
        source = nibabel.load(folder / f"scans/image_{score.case}.nii.gz")
        assert saved.shape == source.shape
        np.testing.assert_allclose(saved.affine, source.affine, atol=1e-4)
        assert nibabel.aff2axcodes(saved.affine) == nibabel.aff2axcodes(source.affine)
        truth = np.asarray(nibabel.load(folder / f"scans/label_{score.case}.nii.gz").dataobj) == 1
        predicted = np.asarray(saved.dataobj) == 1
        counts = ((truth & predicted).sum(), predicted.sum(), truth.sum())
        assert counts == (score.intersection, score.predicted, score.actual)
        assert score.dice > 0.5


def _write_scans(folder, affine, thick):
    """Four scans of a bright block off centre, of which every axis has another length."""
    folder.mkdir()
    (folder / "dataset.toml").write_text("[classes]\nblock = 1\n")
    shape = [52, 44, 44]
    shape[thick] = 4
    for case in range(4):
        rng = np.random.default_rng(case)
        labels = np.zeros(shape, dtype=np.uint8)
        block = [slice(8 + case, 30 + case) if axis != thick else slice(1, 4) for axis in range(3)]
        labels[tuple(block)] = 1
        image = (300 + 300 * (labels == 1) + rng.normal(0, 10, shape)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"image_{case}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, affine), folder / f"label_{case}.nii.gz")


@pytest.mark.parametrize("module", [folds, grids, volume])
def test_examples_are_true(module):
    ran = doctest.testmod(module)
    assert ran.attempted and not ran.failed
