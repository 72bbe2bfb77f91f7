"""Folders of scans, and every mistake in them that a user is likely to make."""

import gzip

import nibabel
import numpy as np
import pytest
from helpers import make_folder, write_nifti

from fsseg import FssegError
from fsseg.data.datasets.folders import ChaosT2, Cmr, NiftiFolder, Sabs, find_dataset
from fsseg.data.datasets.nifti import read_nifti
from fsseg.data.supervoxels.stored import Stored


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "scans", cases=3, size=32, slices=4)


def test_a_volume_keeps_axes_spacing_and_affine(tmp_path):
    affine = np.array([[-1.25, 0, 0, 190.0], [0, 1.5, 0, -200.0], [0, 0, 7.7, -77.0], [0, 0, 0, 1]])
    image = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.int16)  # slices, height, width
    (tmp_path / "dataset.toml").write_text("[classes]\nliver = 1\n")
    write_nifti(tmp_path / "image_7.nii.gz", image, affine)
    write_nifti(tmp_path / "label_7.nii.gz", (image > 20).astype(np.uint8), affine)
    volume = NiftiFolder(root=str(tmp_path), orientation="file").load("7")
    assert volume.image.tolist() == image.tolist()
    assert volume.labels.sum() == 3
    assert volume.spacing == pytest.approx((7.7, 1.5, 1.25))
    assert np.allclose(volume.grid.affine, affine)
    turned = NiftiFolder(root=str(tmp_path)).load("7")
    assert turned.image.tolist() == image[:, ::-1].tolist(), "rows run to the back"
    assert turned.labels.tolist() == volume.labels[:, ::-1].tolist()


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


def write_flat(path, image):
    """A file whose affine has no third dimension; nibabel itself refuses to make one, so the bytes are changed."""
    file = nibabel.Nifti1Image(np.ascontiguousarray(image.T), np.eye(4))
    file.header["sform_code"], file.header["srow_z"] = 2, [0, 0, 0, 5]
    plain = path.with_suffix("")
    nibabel.save(file, plain)
    content = bytearray(plain.read_bytes())
    content[280 + 32 : 280 + 48] = np.array([0, 0, 0, 5], dtype="<f4").tobytes()
    path.write_bytes(gzip.compress(content))
    plain.unlink()


def spoil(root, name):
    """Makes one mistake in the folder."""
    image, labels = (read_nifti(root / f"{what}_2.nii.gz").voxels.T for what in ("image", "label"))
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
        write_nifti(root / "image_2.nii.gz", np.stack([image, image]))
    elif name == "colours":
        colours = np.zeros(image.T.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), root / "image_2.nii.gz")
    elif name == "turned labels":
        write_nifti(root / "label_2.nii.gz", labels, np.diag([-1.5, 1.5, 6.0, 1]))
    elif name == "flat affine":
        write_flat(root / "image_2.nii.gz", image)
    elif name == "more slices":
        write_nifti(root / "label_2.nii.gz", np.concatenate([labels, labels[:1]]))
    elif name == "halves":
        write_nifti(root / "label_2.nii.gz", labels + np.float32(0.5))
    elif name == "two for one":
        (root / "dataset.toml").write_text(
            "image = 'image_{case}.nii*'\n[classes]\nbright = 1\ndark = 2\n"
        )
        write_nifti(root / "image_2.nii", image)
    elif name == "shared value":
        (root / "dataset.toml").write_text("[classes]\nliver = 1\nspleen = [2, 1]\n")
    elif name == "window upside down":
        (root / "dataset.toml").write_text(
            "[intensity]\nwindow = [5, -5]\npercentiles = [-1, 90]\n[classes]\na = 1\n"
        )
    elif name == "one fold":
        (root / "dataset.toml").write_text("folds = [['1', '2']]\n[classes]\na = 1\n")
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
    "other shape": "label_2.nii.gz: has shape 32 x 20 x 4, expected 32 x 32 x 4 as image_2.nii.gz",
    "more slices": "label_2.nii.gz: has shape 32 x 32 x 5, expected 32 x 32 x 4 as image_2.nii.gz",
    "turned labels": "label_2.nii.gz: its axes run towards LAS, expected RAS as those of image_2.nii.gz",
    "colours": "image_2.nii.gz: has colours (RGB) or complex numbers, expected one number per voxel",
    "flat affine": "image_2.nii.gz: its affine maps voxels to no place in space",
    "halves": "label_2.nii.gz: has labels 0.5, 1.5, expected 0 and 1 bright, 2 dark",
    "two for one": "image_{case}.nii* finds two files for case 2: image_2.nii and image_2.nii.gz",
    "shared value": "dataset.toml: classes: value 1 stands for two classes",
    "window upside down": "intensity.window: is [5.0, -5.0], expected [low, high] with low below high",
    "one fold": "dataset.toml: folds: lists one fold, expected at least two",
    "other grid": "label_2.nii.gz: its affine differs",
    "unknown label": "label_2.nii.gz: has labels 5, 6, expected 0 and 1 bright, 2 dark",
    "nan": "image_2.nii.gz: 1 voxels are NaN or infinite",
    "constant": "image_2.nii.gz: every voxel is 0, expected an image",
    "truncated": "image_2.nii.gz: cannot be read as NIfTI",
    "not nifti": "image_2.nii.gz: cannot be read as NIfTI",
    "four dimensions": "image_2.nii.gz: has 4 dimensions (32 x 32 x 4 x 2), expected 3",
    "no description": "dataset.toml: is missing; write it with the classes",
    "misspelt description": "dataset.toml: imege: unknown key; did you mean 'image'?",
    "broken description": "dataset.toml: not valid TOML",
    "pattern without a case": "image: 'image.nii.gz' lacks {case}, expected it where the id is",
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
    spoil(root, "window upside down")
    with pytest.raises(
        FssegError, match="intensity.percentiles: is .-1.0, 90.0., expected numbers from 0 to 100"
    ):
        NiftiFolder(root=str(root))


def test_a_description_says_how_values_become_classes(tmp_path):
    """Several values make one class; a class is numbered by its first value, or by rank where values are large."""
    root = make_folder(tmp_path / "scans", cases=1)
    (root / "dataset.toml").write_text("other_labels = 'background'\n[classes]\nboth = [2, 1]\n")
    dataset = NiftiFolder(root=str(root))
    labels = read_nifti(root / "label_1.nii.gz").voxels.T
    assert dataset.classes == {2: "both"}
    assert dataset.load("1").labels.tolist() == np.flip(np.where(labels > 0, 2, 0), (1, 2)).tolist()
    (root / "dataset.toml").write_text(
        "other_labels = 'background'\n[classes]\nouter = 600\ninner = 2\n"
    )
    dataset = NiftiFolder(root=str(root))
    assert dataset.classes == {1: "inner", 2: "outer"}
    assert (dataset.load("1").labels == 1).sum() == (labels == 2).sum() > 0


def test_intensities_are_clipped_as_described_and_options_win(root):
    description = (root / "dataset.toml").read_text()
    (root / "dataset.toml").write_text(
        f"name = 'x'\n{description}\n[intensity]\nwindow = [250, 400]\nstatistics = 'training'\n"
    )
    dataset = NiftiFolder(root=str(root))
    image = dataset.load("1").image
    assert (image.min(), image.max(), dataset.name, dataset.statistics) == (
        250,
        400,
        "x",
        "training",
    )
    assert image.dtype == np.float32
    raw = read_nifti(root / "image_1.nii.gz").voxels
    other = NiftiFolder(root=str(root), window=(0, 5000), percentiles=(0, 90), statistics="volume")
    assert (
        other.load("1").image.max() == pytest.approx(np.percentile(raw, 90))
        and other.statistics == "volume"
    )


def test_scaled_and_big_endian_files_have_the_values_they_mean(root):
    image = read_nifti(root / "image_1.nii.gz").voxels
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    file = nibabel.Nifti1Image(image, np.diag([1.5, 1.5, 6, 1]), header)
    file.header.set_slope_inter(0.5, -20)
    nibabel.save(file, root / "image_1.nii.gz")
    stored = nibabel.load(root / "image_1.nii.gz")
    assert stored.header.endianness == ">" and stored.dataobj.slope == 0.5
    assert (
        NiftiFolder(root=str(root), orientation="file").load("1").image == 0.5 * image.T - 20
    ).all()


def test_a_fourth_axis_of_one_is_none(root):
    image = read_nifti(root / "image_1.nii.gz").voxels
    nibabel.save(
        nibabel.Nifti1Image(image[..., None], np.diag([1.5, 1.5, 6, 1])), root / "image_1.nii.gz"
    )
    assert (
        NiftiFolder(root=str(root), orientation="file").load("1").image.tolist() == image.T.tolist()
    )


def test_patterns_find_files_in_folders_of_their_own(tmp_path):
    image = np.arange(60).reshape(3, 4, 5).astype(np.int16)
    for case in ("b10", "b9"):
        write_nifti(tmp_path / f"sub-{case}/anat/sub-{case}_T2w.nii.gz", image)
        write_nifti(
            tmp_path / f"derivatives/x/sub-{case}_seg.nii.gz", (image > 20).astype(np.uint8)
        )
    write_nifti(
        tmp_path / "sub-b9/anat/sub-b10_T2w.nii.gz", image
    )  # whose id does not match its folder's
    (tmp_path / "sub-b9/anat/._sub-b9_T2w.nii.gz").write_text("left by macOS")
    (tmp_path / "dataset.toml").write_text(
        "image = 'sub-{case}/anat/sub-{case}_T2w.nii.gz'\nlabel = 'derivatives/**/sub-{case}_*.nii.gz'\n[classes]\na = 1\n"
    )
    dataset = NiftiFolder(root=str(tmp_path))
    assert dataset.cases == ["b9", "b10"] and dataset.folds.name == "disjoint2"
    assert dataset.load("b9").labels.sum() == 39
    with pytest.raises(FssegError, match="there is no case 'b1'; the cases are b9, b10"):
        dataset.load("b1")


def test_published_ct_and_its_empty_last_row(tmp_path):
    """257 x 257 files are read without their last row and column; predictions have the file's shape again."""
    image = np.random.default_rng(0).uniform(0, 255, size=(3, 257, 257))
    image[:, -1], image[:, :, -1], image[-1] = 0, 0, 0
    labels = (image > 128).astype(np.uint8) * np.arange(1, 4, dtype=np.uint8)[:, None, None] * 3
    for case in range(3):
        write_nifti(tmp_path / f"sabs_CT_normalized/image_{case}.nii.gz", image)
        write_nifti(tmp_path / f"sabs_CT_normalized/label_{case}.nii.gz", labels)
    dataset = Sabs(
        **{key: value for key, value in find_dataset(tmp_path).items() if key != "name"},
        statistics="training",
    )
    volume = dataset.load("0")
    assert (dataset.name, dataset.statistics, dataset.folds.name) == (
        "sabs",
        "training",
        "tpm_sabs",
    )
    assert dataset.classes == {1: "spleen", 2: "right_kidney", 3: "left_kidney", 6: "liver"}
    assert volume.image.shape == volume.labels.shape == (3, 256, 256)
    assert set(np.unique(volume.labels)) == {0, 3, 6}, "the third slice's 9 is no class"
    assert volume.grid.to_file(volume.labels).shape == (257, 257, 3)
    assert (volume.grid.to_file(volume.labels)[..., :2] == labels.T[..., :2]).all()


def test_cardiac_labels_keep_their_codes_in_the_file_only(tmp_path):
    image = np.random.default_rng(0).uniform(0, 255, size=(3, 16, 16)).astype(np.float32)
    labels = np.zeros(image.shape, dtype=np.uint16)
    labels[0], labels[1], labels[2] = 200, 500, 600
    for case in (2, 10):
        write_nifti(tmp_path / f"cmr_MR_normalized/image_{case}.nii.gz", image)
        write_nifti(tmp_path / f"cmr_MR_normalized/label_{case}.nii.gz", labels)
    dataset = Cmr(root=find_dataset(tmp_path)["root"])
    assert dataset.cases == ["2", "10"] and list(dataset.classes) == [1, 2, 3]
    assert dataset.load("2").labels[:, 0, 0].tolist() == [1, 2, 3]


def test_what_a_folder_is(root, tmp_path):
    assert find_dataset(root) == {"name": "nifti", "root": str(root)}
    (tmp_path / "a" / "chaos_MR_T2_normalized").mkdir(parents=True)
    assert find_dataset(tmp_path / "a")["name"] == "chaos_t2"
    with pytest.raises(
        FssegError,
        match="is no dataset, expected a dataset.toml or one of chaos_MR_T2_normalized/, ",
    ):
        find_dataset(tmp_path)
    with pytest.raises(FssegError, match="there is no such folder"):
        find_dataset(tmp_path / "b")


def test_missing_folders():
    with pytest.raises(FssegError, match="/nowhere: there is no such folder; .* --data DIR"):
        NiftiFolder(root="/nowhere")
    with pytest.raises(FssegError, match="there is no such folder"):
        ChaosT2(root="/nowhere")
    with pytest.raises(FssegError, match="it needs the folder with the scans"):
        ChaosT2()
