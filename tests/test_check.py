"""The doctor: a healthy folder, and one with everything wrong at once."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from helpers import make_folder, write_nifti
from typer.testing import CliRunner

from fsseg import FssegError
from fsseg.cli.main import app
from fsseg.data.datasets.check import check_folder
from fsseg.data.datasets.contact_sheet import write_contact_sheet
from fsseg.data.datasets.nifti import read_nifti


def texts(checked, severity):
    return [finding.text for finding in checked.findings if finding.severity == severity]


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "scans", cases=4)


def test_a_healthy_folder_and_its_table(root):
    checked = check_folder(root)
    assert checked.usable and checked.findings == [] and len(checked.cases) == 4
    bright, dark = checked.table()
    # A block of 22 x 22 pixels in 5 slices, one of 20 x 20 in 3; a voxel is 1.5 x 1.5 x 6 mm.
    assert bright == {
        "class": "bright",
        "cases": 4,
        "slices": 5,
        **dict.fromkeys(["ml", "ml_min", "ml_max"], 5 * 484 * 13.5 / 1000),
    }
    assert dark["slices"] == 3 and dark["ml"] == pytest.approx(3 * 400 * 13.5 / 1000)
    case = checked.cases[0]
    assert (case.case, case.shape, case.axes) == ("1", (5, 64, 64), "RAS")
    assert case.snapshot.labels.shape == (64, 64) and set(np.unique(case.snapshot.labels)) == {
        0,
        1,
        2,
    }


def spoil_everything(root):
    """Every mistake in a folder of its own case, of 16."""
    image, labels = (read_nifti(root / f"{what}_1.nii.gz").voxels.T for what in ("image", "label"))
    (root / "label_1.nii.gz").unlink()
    (root / "image_2.nii.gz").unlink()
    write_nifti(root / "label_3.nii.gz", labels[:, :50])
    write_nifti(root / "label_4.nii.gz", labels, np.diag([1.5, 1.5, 4.0, 1]))
    write_nifti(root / "label_5.nii.gz", labels, np.diag([-1.5, 1.5, 6.0, 1]))
    write_nifti(root / "label_6.nii.gz", labels + 7)
    broken = image.astype(np.float32)
    broken[0, 0, :3] = np.nan, np.inf, -np.inf
    write_nifti(root / "image_7.nii.gz", broken)
    write_nifti(root / "image_8.nii.gz", np.full_like(image, 12))
    write_nifti(root / "label_16.nii.gz", np.where(labels == 2, 0, labels))
    shutil.copy(root / "image_10.nii.gz", root / "image_11.nii.gz")
    (root / "image_12.nii.gz").write_text("not an image")
    write_nifti(root / "label_12.nii.gz", labels[None].repeat(2, 0))
    for what in ("image", "label"):
        shutil.copy(root / f"{what}_13.nii.gz", root / f"{what}_013.nii.gz")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    file = nibabel.Nifti1Image(
        np.ascontiguousarray(read_nifti(root / "image_14.nii.gz").voxels),
        np.diag([1.5, 1.5, 6, 1]),
        header,
    )
    file.header["pixdim"][3] = 3.0
    nibabel.save(file, root / "image_14.nii.gz")


PROBLEMS = [
    "image without its partner for 1 case(s): 1; expected label_{case}.nii.gz",
    "label without its partner for 1 case(s): 2; expected image_{case}.nii.gz",
    "label_3.nii.gz: has shape 64 x 50 x 5, expected 64 x 64 x 5",
    "label_4.nii.gz: its affine differs from that of image_4.nii.gz",
    "label_5.nii.gz: its axes run towards LAS, expected RAS",
    "label_6.nii.gz: has labels 7, 8, 9, expected 0 and 1 bright, 2 dark",
    "image_7.nii.gz: 3 voxels are NaN or infinite",
    "image_8.nii.gz: every voxel is 12",
    "image_12.nii.gz: cannot be read as NIfTI",
    "label_12.nii.gz: has 4 dimensions",
    "case 16 is the support of fold 4 of disjoint5 but shows no dark",
]
WARNINGS = [
    "label_16.nii.gz: shows no dark",
    "ids 013 and 13 are the same number",
    "cases 10 and 11 have the same image",
    "image_14.nii.gz: its header says voxels of 1.5 x 1.5 x 3 mm and its affine 1.5 x 1.5 x 6 mm",
]


def test_every_problem_is_listed_at_once(tmp_path):
    root = make_folder(tmp_path / "scans", cases=16)
    spoil_everything(root)
    checked = check_folder(root)
    assert not checked.usable
    for severity, expected in (("problem", PROBLEMS), ("warning", WARNINGS)):
        found = texts(checked, severity)
        for sentence in expected:
            assert [sentence in text for text in found].count(True) == 1, (sentence, found)
    assert len(texts(checked, "problem")) == len(PROBLEMS)
    assert {case.case for case in checked.cases} == {"9", "10", "11", "013", "13", "14", "15", "16"}


def test_a_folder_that_cannot_be_divided(tmp_path):
    root = make_folder(tmp_path / "scans", cases=3)
    [text] = texts(check_folder(root), "problem")
    assert "cases leave 1 for it" in text or "no case is left" in text


def test_a_broken_description_is_a_finding(root):
    (root / "dataset.toml").write_text("imege = 'x'\nclasses = {a = 0}\n")
    found = texts(check_folder(root), "problem")
    assert len(found) == 2 and any(
        "imege: unknown key; did you mean 'image'?" in text for text in found
    )
    with pytest.raises(FssegError, match="is no dataset"):
        check_folder(root.parent)


def test_files_that_are_turned_differently(root):
    image, labels = (read_nifti(root / f"{what}_2.nii.gz").voxels for what in ("image", "label"))
    for what, voxels in (("image", image), ("label", labels)):
        nibabel.save(
            nibabel.Nifti1Image(voxels, np.diag([-1.5, -1.5, 6.0, 1])), root / f"{what}_2.nii.gz"
        )
    assert check_folder(root).findings == [], "they are turned alike"
    (root / "dataset.toml").write_text(
        "orientation = 'file'\n" + (root / "dataset.toml").read_text()
    )
    [text] = texts(check_folder(root), "warning")
    assert "files are turned differently (RAS: 1, 3, 4; LPS: 2)" in text


def test_published_supervoxels_are_paired_by_id(tmp_path):
    """Their files have no geometry of their own; shape and id are all there is to compare."""
    rng = np.random.default_rng(0)
    for case in range(20):
        labels = np.repeat(np.arange(10, dtype=np.uint8)[None, :, None] // 2, 3, 0).repeat(10, 2)
        write_nifti(
            tmp_path / f"chaos_MR_T2_normalized/image_{case}.nii.gz",
            rng.integers(0, 900, labels.shape).astype(np.int16),
        )
        write_nifti(tmp_path / f"chaos_MR_T2_normalized/label_{case}.nii.gz", labels)
        if case != 4:
            regions = labels if case != 7 else labels[:2]
            write_nifti(
                tmp_path / f"supervoxels_5000/superpix-MIDDLE_{case}.nii.gz", regions, np.eye(4)
            )
    checked = check_folder(tmp_path)
    assert checked.name == "chaos_t2" and len(checked.cases) == 20
    [problem], [warning] = texts(checked, "problem"), texts(checked, "warning")
    assert (
        "superpix-MIDDLE_7.nii.gz: has 2 x 10 x 10 voxels (slices, height, width), expected 3 x 10 x 10"
        in problem
    )
    assert "has no superpix-MIDDLE_<id>.nii.gz for 4;" in warning


def test_the_command_prints_all_and_exits_with_1(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["check", str(root)])
    assert done.exit_code == 0, done.output
    assert "nifti: 4 usable cases, 0 problems, 0 warnings; ready to run" in done.output
    assert (tmp_path / "check-nifti.png").read_bytes().startswith(b"\x89PNG")
    (root / "label_2.nii.gz").unlink()
    done = CliRunner().invoke(app, ["check", str(root), "--no-sheet"])
    assert done.exit_code == 1 and "not ready: solve the problems first" in done.output
    done = CliRunner().invoke(
        app, ["check", str(root), "--json", "--sheet", str(tmp_path / "x" / "sheet.png")]
    )
    told = json.loads(done.stdout)
    assert (
        done.exit_code == 1
        and told["findings"][0]["severity"] == "problem"
        and told["classes"][0]["cases"] == 3
    )
    assert (tmp_path / "x" / "sheet.png").is_file()


def test_the_contact_sheet_shows_every_outline(root, tmp_path):
    """The colours of both classes are in the picture, and no half picture is left where it cannot be written."""
    from matplotlib.image import imread

    checked = check_folder(root)
    write_contact_sheet(checked, tmp_path / "sheet.png")
    pixels = imread(tmp_path / "sheet.png")[..., :3].reshape(-1, 3)
    for colour in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)):
        assert (np.abs(pixels - np.array(colour) / 255).max(axis=1) < 0.02).sum() > 100
    (tmp_path / "file").write_text("")
    with pytest.raises(
        FssegError, match="a file is where a folder is expected .* choose another folder"
    ):
        write_contact_sheet(checked, tmp_path / "file" / "sheet.png")
