"""Folders of scans, and every mistake in them that a user is likely to make."""

import numpy as np
import pytest
from helpers import make_folder, write_nifti

from fsseg import FssegError
from fsseg.data.folders import ChaosT2, NiftiFolder, Stored, read_nifti


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "scans", cases=3, size=32, slices=4)


def test_a_volume_keeps_axes_spacing_and_affine(tmp_path):
    affine = np.array([[-1.25, 0, 0, 190.0], [0, 1.5, 0, -200.0], [0, 0, 7.7, -77.0], [0, 0, 0, 1]])
    image = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.int16)  # slices, height, width
    (tmp_path / "dataset.toml").write_text("[classes]\nliver = 1\n")
    write_nifti(tmp_path / "image_7.nii.gz", image, affine)
    write_nifti(tmp_path / "label_7.nii.gz", (image > 20).astype(np.uint8), affine)
    volume = NiftiFolder(root=str(tmp_path)).load("7")
    assert volume.image.tolist() == image.tolist()
    assert volume.labels.sum() == 3
    assert volume.spacing == pytest.approx((7.7, 1.5, 1.25))
    assert np.allclose(volume.affine, affine)


def test_cases_come_in_numeric_order(tmp_path):
    dataset = NiftiFolder(root=str(make_folder(tmp_path / "scans", cases=11, size=16, slices=3)))
    assert dataset.cases == [str(number) for number in range(1, 12)]
    assert dataset.classes == {1: "bright", 2: "dark"}


def test_chaos_layout_and_its_supervoxels(tmp_path):
    folder = tmp_path / "chaos_MR_T2_normalized"
    image = np.random.default_rng(0).integers(0, 900, size=(3, 16, 16)).astype(np.int16)
    for case in ("10", "9"):
        write_nifti(folder / f"image_{case}.nii.gz", image)
        write_nifti(folder / f"label_{case}.nii.gz", (image % 5).astype(np.uint8))
        write_nifti(tmp_path / f"supervoxels_5000/superpix-MIDDLE_{case}.nii.gz", image, np.eye(4))
    dataset = ChaosT2(root=str(tmp_path))
    assert dataset.cases == ["9", "10"]
    assert list(dataset.classes.values()) == ["liver", "right_kidney", "left_kidney", "spleen"]
    assert Stored()(dataset.load("9"), dataset).tolist() == image.tolist()


def test_stored_supervoxels_need_a_dataset_that_has_them(root):
    dataset = NiftiFolder(root=str(root))
    with pytest.raises(FssegError, match='has none of its own; use supervoxels = "felzenszwalb"'):
        Stored()(dataset.load("1"), dataset)


def spoil(root, name):
    """Makes one mistake in the folder."""
    image, _, _ = read_nifti(root / "image_2.nii.gz")
    labels, _, _ = read_nifti(root / "label_2.nii.gz")
    if name == "missing label":
        (root / "label_2.nii.gz").unlink()
    elif name == "missing image":
        (root / "image_2.nii.gz").unlink()
    elif name == "other shape":
        write_nifti(root / "label_2.nii.gz", labels[:, :20])
    elif name == "other grid":
        write_nifti(root / "label_2.nii.gz", labels, np.diag([1.5, 1.5, 3.0, 1]))
    elif name == "unknown label":
        write_nifti(root / "label_2.nii.gz", labels + 5)
    elif name == "nan":
        image = image.astype(np.float32)
        image[1, 2, 3] = np.nan
        write_nifti(root / "image_2.nii.gz", image)
    elif name == "constant":
        write_nifti(root / "image_2.nii.gz", np.zeros_like(image))
    elif name == "truncated":
        path = root / "image_2.nii.gz"
        path.write_bytes(path.read_bytes()[:-400])
    elif name == "not nifti":
        (root / "image_2.nii.gz").write_text("hello")
    elif name == "four dimensions":
        write_nifti(root / "image_2.nii.gz", image[None])
    elif name == "no description":
        (root / "dataset.toml").unlink()
    elif name == "misspelt description":
        (root / "dataset.toml").write_text("imege = 'x'\n[classes]\nliver = 'one'\n")
    elif name == "broken description":
        (root / "dataset.toml").write_text("[classes\n")
    elif name == "pattern without a case":
        (root / "dataset.toml").write_text("image = 'image.nii.gz'\n[classes]\nliver = 1\n")
    elif name == "empty folder":
        for path in root.glob("*.nii.gz"):
            path.unlink()


MISTAKES = {
    "missing label": "image without its partner for 1 case(s): 2; expected label_{case}.nii.gz for each",
    "missing image": "label without its partner for 1 case(s): 2",
    "other shape": "label_2.nii.gz: has shape 32 x 20 x 4 (width, height, slices), expected 32 x 32 x 4 as image_2.nii.gz",
    "other grid": "label_2.nii.gz: its affine differs",
    "unknown label": "label_2.nii.gz: has labels 5, 6, expected 0 and 1 bright, 2 dark",
    "nan": "image_2.nii.gz: 1 voxels are NaN or infinite",
    "constant": "image_2.nii.gz: every voxel is 0, expected an image",
    "truncated": "image_2.nii.gz: cannot be read as NIfTI",
    "not nifti": "image_2.nii.gz: cannot be read as NIfTI",
    "four dimensions": "image_2.nii.gz: has 4 dimensions, expected 3",
    "no description": "dataset.toml: is missing; write it with the classes",
    "misspelt description": "dataset.toml: imege: unknown key; did you mean 'image'?",
    "broken description": "dataset.toml: not valid TOML",
    "pattern without a case": "image is 'image.nii.gz', expected one {case} in it",
    "empty folder": "found no image, expected files named image_{case}.nii.gz",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(root, name):
    spoil(root, name)
    with pytest.raises(FssegError) as caught:
        dataset = NiftiFolder(root=str(root))
        for case in dataset.cases:
            dataset.load(case)
    assert MISTAKES[name] in str(caught.value)


def test_all_problems_of_a_description_are_reported_at_once(root):
    spoil(root, "misspelt description")
    with pytest.raises(FssegError) as caught:
        NiftiFolder(root=str(root))
    assert "classes.liver: expected a valid integer" in str(caught.value)


def test_missing_folders():
    with pytest.raises(FssegError, match="/nowhere: there is no such folder; .* --data DIR"):
        NiftiFolder(root="/nowhere")
    with pytest.raises(FssegError, match="there is no such folder"):
        ChaosT2(root="/nowhere")
    with pytest.raises(FssegError, match="it needs the folder with the scans"):
        ChaosT2()
