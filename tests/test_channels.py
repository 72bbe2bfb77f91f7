"""Scans with several channels, from NIfTI files as BraTS and nnU-Net have them to training, evaluation and prediction."""

import json
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from helpers import TIMM, write_nifti, write_recipe

import fsseg
from fsseg import DataError, FssegError, Volume
from fsseg.data.datasets.check import check_folder
from fsseg.data.datasets.contact_sheet import write_contact_sheet
from fsseg.data.datasets.folders import NiftiFolder
from fsseg.data.grids import FileGrid
from fsseg.data.intensity import measure
from fsseg.data.intensity_rules import Nyul, ZScore
from fsseg.data.supervoxels.felzenszwalb import Felzenszwalb
from fsseg.data.supervoxels.regions import default_min_size
from fsseg.data.supervoxels.slic import Slic
from fsseg.data.volume import on_working_grid

NAMES = ["flair", "t1", "t1ce", "t2"]
CLASSES = "supervoxel_min_size = 100\n\n[classes]\ntumour = 1\noedema = 2\n"
SPACING = (6.0, 1.5, 1.5)


def brain(case):
    """Four modalities of a made-up brain, slice channel height width, and its labels; the skull is taken off."""
    random = np.random.default_rng(case)
    labels = np.zeros((5, 48, 48), dtype=np.uint8)
    shift = case % 5
    labels[1:4, 14 + shift : 34 + shift, 12:32] = 2
    labels[1:4, 18 + shift : 28 + shift, 16:28] = 1
    down, right = np.mgrid[:48, :48] - 23.5
    inside = (down / 23) ** 2 + (right / 20) ** 2 < 1
    brightness = {
        "flair": (300, 250, 500),
        "t1": (500, 350, 400),
        "t1ce": (480, 800, 420),
        "t2": (350, 600, 550),
    }
    channels = []
    for name in NAMES:
        tissue, tumour, oedema = brightness[name]
        image = np.choose(labels, [tissue, tumour, oedema]) + random.normal(0, 15, labels.shape)
        channels.append(np.where(inside, image, 0).astype(np.int16))
    labels *= inside
    return np.stack(channels, axis=1), labels


def write_brats(root, cases=10):
    """A folder for each case with a file for each modality, as BraTS has them."""
    for case in range(1, cases + 1):
        image, labels = brain(case)
        folder = root / f"BraTS_{case:03}"
        for channel, name in enumerate(NAMES):
            write_nifti(folder / f"BraTS_{case:03}_{name}.nii.gz", image[:, channel])
        write_nifti(folder / f"BraTS_{case:03}_seg.nii.gz", labels)
    lines = [f'{name} = "BraTS_{{case}}/BraTS_{{case}}_{name}.nii.gz"\n' for name in NAMES]
    (root / "dataset.toml").write_text(
        f'label = "BraTS_{{case}}/BraTS_{{case}}_seg.nii.gz"\n{CLASSES}\n[channels]\n{"".join(lines)}'
    )
    return root


def write_4d(path, image):
    """Slices-first voxels with channels, as a file with a fourth axis."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.ascontiguousarray(image.transpose(3, 2, 0, 1))  # x y z channel
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.5, 1.5, 6.0, 1.0])), path)


def write_4d_folder(root, cases=10):
    """A file with a fourth axis for each case, as the Medical Segmentation Decathlon has its brains."""
    for case in range(1, cases + 1):
        image, labels = brain(case)
        write_4d(root / f"image_{case:03}.nii.gz", image)
        write_nifti(root / f"label_{case:03}.nii.gz", labels)
    (root / "dataset.toml").write_text(f"channels = {json.dumps(NAMES)}\n{CLASSES}")
    return root


@pytest.fixture(scope="module")
def brats(tmp_path_factory):
    return write_brats(tmp_path_factory.mktemp("brats"))


@pytest.fixture(scope="module")
def with_axis(tmp_path_factory):
    return write_4d_folder(tmp_path_factory.mktemp("axis"))


def test_files_of_channels_and_a_fourth_axis_are_the_same_scans(brats, with_axis):
    separate, together = NiftiFolder(root=str(brats)), NiftiFolder(root=str(with_axis))
    assert separate.cases == together.cases and len(separate.cases) == 10
    a, b = separate.load("003"), together.load("003")
    image, labels = brain(3)
    expected = image[:, :, ::-1, ::-1]  # canonical: rows to the back, columns to the left
    assert a.image.shape == (5, 4, 48, 48) and a.image.dtype == np.float32
    assert np.array_equal(a.image, expected) and np.array_equal(a.image, b.image)
    assert np.array_equal(a.labels, labels[:, ::-1, ::-1]) and np.array_equal(a.labels, b.labels)
    assert a.channels == b.channels == tuple(NAMES) and a.shape == (5, 48, 48)
    assert separate.fingerprint("003") != separate.fingerprint("004")


def test_one_channel_is_a_scan_as_ever(brats, tmp_path):
    text = (brats / "dataset.toml").read_text()
    root = tmp_path / "one"
    shutil.copytree(brats, root)
    (root / "dataset.toml").write_text(text[: text.index("t1 = ")])
    one = NiftiFolder(root=str(root)).load("003")
    image = 'image = "BraTS_{case}/BraTS_{case}_flair.nii.gz"\n'
    (root / "dataset.toml").write_text(image + text[: text.index("[channels]")])
    usual = NiftiFolder(root=str(root)).load("003")
    assert one.image.ndim == 3 and np.array_equal(one.image, usual.image) and one.channels == ()


def test_nnunets_names_beside_labels_of_the_same_folder(tmp_path):
    """`{case}.nii.gz` is found by no channel's pattern, and finds no channel."""
    for case in range(1, 5):
        image, labels = brain(case)
        for channel in range(2):
            write_nifti(tmp_path / f"brain_{case}_{channel:04}.nii.gz", image[:, channel])
        write_nifti(tmp_path / f"brain_{case}.nii.gz", labels)
    (tmp_path / "dataset.toml").write_text(
        f'label = "{{case}}.nii.gz"\n{CLASSES}\n[channels]\na = "{{case}}_0000.nii.gz"\nb = "{{case}}_0001.nii.gz"\n'
    )
    dataset = NiftiFolder(root=str(tmp_path))
    assert dataset.cases == [f"brain_{case}" for case in range(1, 5)]
    assert dataset.load("brain_2").image.shape == (5, 2, 48, 48)
    assert check_folder(tmp_path).usable


def small(folder, cases=3):
    return write_brats(folder, cases)


def test_a_channel_that_a_case_lacks_is_a_sentence(tmp_path):
    root = small(tmp_path)
    (root / "BraTS_002" / "BraTS_002_t1ce.nii.gz").unlink()
    told = r"channel t1ce is missing for 1 case\(s\): 002; expected BraTS_\{case\}/BraTS_\{case\}_t1ce.nii.gz"
    with pytest.raises(DataError, match=told):
        list(NiftiFolder(root=str(root)).cases)
    findings = [
        finding.text for finding in check_folder(root).findings if finding.severity == "problem"
    ]
    assert any("channel t1ce is missing" in text for text in findings)


@pytest.mark.parametrize(
    "voxels, affine, told",
    [
        (
            np.ones((4, 48, 48)),
            None,
            "BraTS_002_t2.nii.gz: has shape 48 x 48 x 4, expected 48 x 48 x 5 as BraTS_002_flair",
        ),
        (
            None,
            np.diag([1.5, 1.5, 5.0, 1.0]),
            "BraTS_002_t2.nii.gz: its affine differs from that of BraTS_002_flair",
        ),
        (None, np.diag([-1.5, 1.5, 6.0, 1.0]), "its axes run towards"),
        (np.full((5, 48, 48), 7), None, "BraTS_002_t2.nii.gz, channel t2: every voxel is 7"),
    ],
)
def test_channels_that_do_not_lie_on_one_another(tmp_path, voxels, affine, told):
    root = small(tmp_path)
    image, _ = brain(2)
    voxels = image[:, 3] if voxels is None else voxels.astype(np.int16)
    write_nifti(root / "BraTS_002" / "BraTS_002_t2.nii.gz", voxels, affine)
    with pytest.raises(DataError, match=told):
        NiftiFolder(root=str(root)).load("002")
    assert not check_folder(root).usable


def test_a_file_with_other_channels_is_a_sentence(tmp_path):
    root = write_4d_folder(tmp_path, 3)
    image, _ = brain(2)
    for changed, count in ((image[:, :3], 3), (image[:, 0], 1)):
        if changed.ndim == 4:
            write_4d(root / "image_002.nii.gz", changed)
        else:
            write_nifti(root / "image_002.nii.gz", changed)
        told = rf"image_002.nii.gz: has {count} channel\(s\) .*expected 4 \(flair, t1, t1ce, t2\) along the fourth axis"
        with pytest.raises(DataError, match=told):
            NiftiFolder(root=str(root)).load("002")


@pytest.mark.parametrize(
    "text, told",
    [
        ('channels = ["a", "a"]', "channels: names a twice"),
        ("channels = []", "channels"),
        (
            'image = "x_{case}.nii"\n[channels]\na = "a_{case}.nii"',
            "image: is given beside [channels]",
        ),
        (
            '[channels]\na = "a_{case}.nii"\nb = "a_{case}.nii"',
            "'a_{case}.nii' stands for two of channels and label",
        ),
        ('[channels]\na = "a.nii"', "channels.a: 'a.nii'"),
    ],
)
def test_descriptions_of_channels_that_cannot_be(tmp_path, text, told):
    first, _, table = text.partition("[channels]")
    (tmp_path / "dataset.toml").write_text(
        f"{first}\n[classes]\nx = 1\n" + (f"[channels]{table}\n" if table else "")
    )
    with pytest.raises(DataError) as caught:
        NiftiFolder(root=str(tmp_path))
    assert told in str(caught.value)


def volume_of(image, **parts):
    return Volume("7", image, None, SPACING, FileGrid(np.eye(4)), **parts)


def test_each_channel_is_scaled_by_itself():
    image = brain(1)[0].astype(np.float32)
    for rule in (ZScore(), Nyul()):
        scaling = measure(rule, [image, 2 * image + 5])
        scaled = scaling.apply(image)
        assert scaled.shape == image.shape and len(scaling.measured) == 4
        for channel in range(4):
            alone = measure(rule, [image[:, channel], 2 * image[:, channel] + 5])
            assert np.array_equal(scaled[:, channel], alone.apply(image[:, channel]))
    with pytest.raises(DataError, match=r"case b: it has 2 channel\(s\), expected 4"):
        scaling.apply(image[:, :2], "b")


def test_each_channel_is_resized_by_itself():
    image = brain(1)[0].astype(np.float32)
    image += 100 * np.arange(4)[:, None, None]
    resized = on_working_grid(volume_of(image), {"spacing": 2.0, "size": 40, "max_size": 512})
    assert resized.image.shape == (5, 4, 40, 40) and resized.spacing == (6.0, 2.0, 2.0)
    for channel in range(4):
        alone = on_working_grid(
            volume_of(image[:, channel]), {"spacing": 2.0, "size": 40, "max_size": 512}
        )
        assert np.array_equal(resized.image[:, channel], alone.image)


def test_supervoxels_see_all_channels(brats):
    """Equal channels cut a scan as one does; a region border that one channel alone shows is seen."""
    dataset = NiftiFolder(root=str(brats))
    volume = dataset.load("001")
    first = volume.image[:, 0]
    equal = replace(volume, image=np.stack([first] * 4, axis=1))
    alone = replace(volume, image=first, channels=())
    assert default_min_size(equal, dataset) == default_min_size(alone, dataset) == 100
    assert np.array_equal(Felzenszwalb()(equal, dataset), Felzenszwalb()(alone, dataset))
    # scikit-image begins from other seeds where there is an axis of channels; their number is what must not count.
    many = replace(volume, image=np.stack([first] * 16, axis=1))
    slic = Slic(count=20)
    assert np.array_equal(slic(equal, dataset), slic(many, dataset))
    assert not np.array_equal(slic(equal, dataset), slic(volume, dataset))
    assert slic(replace(volume, image=volume.image[:, :3]), dataset).shape == volume.shape
    step = np.zeros((4, 2, 20, 20), dtype=np.float32)
    step[:, 0] = np.random.default_rng(0).normal(100, 1, (4, 20, 20))
    step[:, 1, :, 10:] = 100
    regions = Felzenszwalb(min_size=400)(volume_of(step), dataset)
    left, right = set(np.unique(regions[:, :, :10])), set(np.unique(regions[:, :, 10:]))
    assert left.isdisjoint(right)
    flat = np.stack([first, np.zeros_like(first)], axis=1)
    with pytest.raises(DataError, match="every voxel of channel t1 is 0"):
        Felzenszwalb()(replace(volume, image=flat), dataset)


def test_the_doctor_and_the_contact_sheet(brats, tmp_path):
    checked = check_folder(brats)
    assert checked.usable and len(checked.cases) == 10
    assert checked.cases[0].snapshot.image.shape == (4, 48, 48)
    write_contact_sheet(checked, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def trained(brats, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    changes = {
        "backbone": TIMM | {"in_channels": 4, "channels": 8, "context": 1},
        "dataset.statistics": "training",
        "metrics": [],
        "calibration.episodes": 4,
    }
    recipe = fsseg.load_recipe(write_recipe(folder, brats, steps=2), changes)
    return fsseg.run(recipe, runs_dir=folder / "runs", device="cpu")


def test_a_run_on_four_modalities_predicts_from_either_kind_of_files(
    trained, brats, with_axis, shell, tmp_path
):
    assert trained.frame.dice.notna().any()
    measured = json.loads((trained.path / "run.json").read_text())["scaling"]["0"]
    assert len(measured) == 4 and len({values["divide"] for values in measured}) == 4
    exported = fsseg.export_predictor(trained.path, tmp_path / "a.safetensors", variant="LinEst")
    joined = {}
    for case in ("001", "002"):
        names = [brats / f"BraTS_{case}" / f"BraTS_{case}_{name}.nii.gz" for name in NAMES]
        joined[case] = ",".join(map(str, names))
    labels = brats / "BraTS_001" / "BraTS_001_seg.nii.gz"
    words = ["--support-labels", labels, "--device", "cpu"]
    one = shell(
        "predict",
        exported,
        "--support",
        joined["001"],
        "--query",
        joined["002"],
        "--out",
        tmp_path / "a",
        *words,
    )
    assert one.returncode == 0, one.stderr
    support, query = with_axis / "image_001.nii.gz", with_axis / "image_002.nii.gz"
    other = shell(
        "predict", exported, "--support", support, "--query", query, "--out", tmp_path / "b", *words
    )
    assert other.returncode == 0, other.stderr
    a = nibabel.load(tmp_path / "a" / "BraTS_002_flair_labels.nii.gz")
    b = nibabel.load(tmp_path / "b" / "image_002_labels.nii.gz")
    assert a.shape == b.shape == (48, 48, 5) and np.array_equal(a.dataobj, b.dataobj)
    assert np.allclose(a.affine, np.diag([1.5, 1.5, 6.0, 1.0]))
    single = brats / "BraTS_002" / "BraTS_002_t1.nii.gz"
    wrong = shell(
        "predict",
        exported,
        "--support",
        support,
        "--query",
        single,
        "--out",
        tmp_path / "c",
        *words,
    )
    assert wrong.returncode == 2
    text = " ".join(wrong.stderr.split())
    assert "BraTS_002_t1.nii.gz: has 1 channel(s)" in text and "joined by commas" in text


def test_other_channels_than_the_recipe_says(brats, tmp_path):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, brats), {"backbone": TIMM})
    told = (
        r"case 001: it has 4 channel\(s\), expected 1 as backbone.in_channels says; .* \(here 4\)"
    )
    with pytest.raises(FssegError, match=told):
        fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu")


def test_a_prediction_with_other_channels_is_a_sentence(trained):
    predictor = fsseg.load_predictor(trained.path, variant="LinEst", device="cpu")
    image, labels = brain(1)
    volume = replace(volume_of(image[:, :2].astype(np.float32)), labels=labels)
    with pytest.raises(
        DataError, match=r"scan 7: it has 2 channel\(s\), expected 4 as the scans that the network"
    ):
        predictor.fit(volume)
