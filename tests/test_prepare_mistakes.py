"""Raw trees with something wrong in them: one sentence each, and no file of that case; and the shell's commands."""

import json
import shutil
import subprocess
import sys
import tomllib
from functools import partial

import nibabel
import numpy as np
import pytest
import SimpleITK
from raw_trees import (
    OBLIQUE,
    blob_scan,
    chaos_scan,
    cut_off,
    write_any,
    write_btcv,
    write_chaos,
    write_chaos_patient,
    write_cmr,
    write_dicom,
    write_msd,
    write_pairs,
    write_png,
    write_raw_nifti,
)

from fsseg import FssegError
from fsseg.prepare.engine import prepare
from fsseg.prepare.layouts import btcv, chaos, cmr, msd, nifti

DICOM = "MR/1/T2SPIR/DICOM_anon"
GROUND = "MR/1/T2SPIR/Ground"


def refuse(plan, out, case="1"):
    """Prepares a plan of which one case is bad; its sentence."""
    outcome = prepare(plan, out, jobs=1)
    assert list(outcome.problems) == [case]
    left = [path.name for path in out.rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith(".unfinished") or f"_{case}.nii.gz" in name]
    with pytest.raises(FssegError):
        outcome.raise_problems()
    sentence = outcome.problems[case]
    assert "\n" not in sentence and "; " in sentence, "where, what was expected and got; what to do"
    return sentence


def spoil_chaos(root, mistake):
    """Makes one mistake in patient 1."""
    first, second, third = sorted((root / DICOM).iterdir())[:3]
    if mistake == "missing slice":
        third.unlink()
        (root / GROUND / f"{third.stem}.png").unlink()
    elif mistake == "missing png":
        (root / GROUND / "IMG-0002-00003.png").unlink()
    elif mistake == "missing ground":
        shutil.rmtree(root / GROUND)
    elif mistake == "missing dicom":
        sorted((root / DICOM).iterdir())[-1].unlink()
    elif mistake == "mixed series":
        pixels = np.zeros((64, 64))
        write_dicom(second, pixels, (-100, -120, -34), series="1.2.3", number=2)
    elif mistake == "same place":
        shutil.copy(second, first)
    elif mistake == "uneven":
        write_like(second, root, position=(-100, -120, -36.5))
    elif mistake == "other direction":
        write_like(second, root, position=(-100, -120, -34), direction=(1, 0, 0, 0, 0.8, 0.6))
    elif mistake == "no position":
        write_like(second, root, position=(-100, -120, -34), leave_out=("ImagePositionPatient",))
    elif mistake == "tilted":
        for index, path in enumerate(sorted((root / DICOM).iterdir())):
            write_like(
                path, root, position=(-100, -120 + 2 * index, -40 + 6 * index), number=index + 1
            )
    elif mistake == "one slice":
        for path in sorted((root / DICOM).iterdir())[1:]:
            path.unlink()
    elif mistake == "no dicom":
        second.write_text("hello")
    elif mistake == "cut off":
        cut_off(second, 0.9)
    elif mistake == "colours":
        write_png(root / GROUND / f"{second.stem}.png", np.zeros((64, 64, 3), dtype=np.uint8))
    elif mistake == "no png":
        (root / GROUND / f"{second.stem}.png").write_text("hello")
    elif mistake == "small png":
        write_png(root / GROUND / f"{second.stem}.png", np.zeros((64, 63), dtype=np.uint8))
    elif mistake == "strange grey":
        write_png(root / GROUND / f"{second.stem}.png", np.full((64, 64), 100, dtype=np.uint8))


def write_like(path, root, *, number=2, **options):
    """A slice of patient 1 with something different."""
    series = SimpleITK.ImageFileReader()
    series.SetFileName(str(sorted((root / DICOM).iterdir())[3]))
    series.ReadImageInformation()
    write_dicom(
        path,
        np.zeros((64, 64)),
        series=series.GetMetaData("0020|000e").strip("\0 "),
        number=number,
        **options,
    )


@pytest.mark.parametrize(
    "mistake, expected",
    [
        (
            "missing slice",
            r"1/T2SPIR/DICOM_anon: 1 slice\(s\) are missing between IMG-0002-00002.dcm and IMG-0002-00004.dcm",
        ),
        (
            "missing png",
            "Ground: lacks the PNG of IMG-0002-00003, expected one of the same name for every DICOM",
        ),
        ("missing ground", "Ground: lacks the PNG of IMG-0002-00001, .*, IMG-0002-00005, ...,"),
        ("missing dicom", "DICOM_anon: lacks the DICOM of IMG-0002-00006"),
        (
            "mixed series",
            r"mixes 2 series \(IMG-0002-0000\d.dcm and IMG-0002-0000\d.dcm are of different ones\)",
        ),
        ("same place", "IMG-0002-0000[12].dcm and IMG-0002-0000[12].dcm are at the same place"),
        (
            "uneven",
            "the step between IMG-0002-00001.dcm and IMG-0002-00002.dcm is 3.50 mm, expected 6.00 mm",
        ),
        ("other direction", "its size, pixel spacing or direction differs from that of"),
        ("no position", "IMG-0002-00002.dcm: lacks ImagePositionPatient, expected 3 numbers"),
        (
            "tilted",
            r"its axes are not at right angles \(a sheared affine, for example of a tilted gantry\)",
        ),
        ("one slice", "has one slice, expected a volume of several"),
        ("no dicom", "IMG-0002-00002.dcm: cannot be read as DICOM"),
        ("cut off", "IMG-0002-00002.dcm: has 7.* bytes of pixels, expected 8192 of 64 columns"),
        ("colours", "IMG-0002-00002.png: has 3 colour channels, expected one of grey values"),
        ("no png", "IMG-0002-00002.png: cannot be read as PNG"),
        (
            "small png",
            "IMG-0002-00002.png: has 63 x 64 columns and rows, expected 64 x 64 as IMG-0002-00002.dcm",
        ),
        ("strange grey", "IMG-0002-00002.png: has the grey value 100, expected 0, 55-70 liver"),
    ],
)
def test_mistakes_in_dicom_and_png(tmp_path, mistake, expected, capfd):
    import re

    root = write_chaos(tmp_path / "raw", patients=("1", "2"))
    spoil_chaos(root, mistake)
    assert re.search(expected, refuse(chaos.plan(root), tmp_path / "out"))
    assert (tmp_path / "out/chaos_MR_T2_normalized/image_2.nii.gz").exists()
    assert capfd.readouterr().err == "", "SimpleITK's own words are silenced"


def nan_image():
    image = blob_scan()[0].astype(np.float32)
    image[3, 4, 5] = np.nan
    return image


def colours():
    return np.zeros((20, 18, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


def spoil_pair(image, label, mistake):
    """Makes one mistake in a pair of NIfTI files."""
    voxels, labels = blob_scan(values=(1, 4))
    if mistake == "not nifti":
        image.write_text("hello")
    elif mistake == "cut off":
        cut_off(image)
    elif mistake == "cut off labels":
        cut_off(label)
    elif mistake == "four dimensions":
        write_raw_nifti(image, np.stack([voxels, voxels], axis=3))
    elif mistake == "colours":
        write_raw_nifti(image, colours())
    elif mistake == "nan":
        write_raw_nifti(image, nan_image())
    elif mistake == "constant":
        write_raw_nifti(image, np.zeros_like(voxels))
    elif mistake == "more slices":
        write_raw_nifti(label, np.concatenate([labels, labels[..., :1]], axis=2))
    elif mistake == "other place":
        write_raw_nifti(label, labels, np.diag([1.5, 1.5, 5.0, 1]))
    elif mistake == "turned":
        write_raw_nifti(label, labels, np.diag([-1.5, 1.5, 6.0, 1]))
    elif mistake == "half labels":
        write_raw_nifti(label, labels + np.float32(0.5))
    elif mistake == "negative labels":
        write_raw_nifti(label, labels.astype(np.int16) - 1)


@pytest.mark.parametrize(
    "mistake, expected",
    [
        ("not nifti", "image.nii.gz: cannot be read as NIfTI"),
        ("cut off", "image.nii.gz: cannot be read as NIfTI"),
        ("cut off labels", "label.nii.gz: cannot be read as NIfTI"),
        ("four dimensions", "image.nii.gz: has 4 dimensions (20 x 18 x 6 x 2), expected 3"),
        (
            "colours",
            "image.nii.gz: has colours (RGB) or complex numbers, expected one number per voxel",
        ),
        ("nan", "image.nii.gz: 1 voxels are NaN or infinite"),
        ("constant", "image.nii.gz: every voxel is 0, expected an image"),
        (
            "more slices",
            "label.nii.gz: has shape 20 x 18 x 7, expected 20 x 18 x 6 as image.nii.gz",
        ),
        (
            "other place",
            "label.nii.gz: its affine differs from that of image.nii.gz, expected the same grid",
        ),
        ("turned", "its axes run towards LAS, expected RAS as those of image.nii.gz"),
        ("half labels", "label.nii.gz: has label values 0.5, 1.5, 4.5, expected whole numbers"),
        (
            "negative labels",
            "label.nii.gz: has label values -1, expected whole numbers from 0 to 65535",
        ),
    ],
)
def test_mistakes_in_nifti_files(tmp_path, mistake, expected):
    for case in ("1", "2"):
        image, labels = blob_scan(values=(1, 4))
        write_any(tmp_path / f"raw/{case}/image.nii.gz", image)
        write_any(tmp_path / f"raw/{case}/label.nii.gz", labels)
    spoil_pair(tmp_path / "raw/1/image.nii.gz", tmp_path / "raw/1/label.nii.gz", mistake)
    plan = nifti.plan(tmp_path / "raw", "{case}/image.nii.gz", "{case}/label.nii.gz")
    assert expected in refuse(plan, tmp_path / "out")
    assert (tmp_path / "out/image_2.nii.gz").exists()


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_mistakes_in_other_formats(tmp_path, ending):
    source = write_pairs(tmp_path / "raw", cases=("1", "2"), ending=ending)
    path = source / f"sub-1/anat/sub-1_T2w{ending}"
    plan = nifti.plan(source, f"sub-{{case}}/anat/*{ending}", f"labels/{{case}}_seg{ending}")
    path.write_text("hello")
    assert "cannot be read as an image" in refuse(plan, tmp_path / "out")
    coloured = SimpleITK.GetImageFromArray(np.zeros((6, 18, 20, 3), dtype=np.uint8), isVector=True)
    SimpleITK.WriteImage(coloured, str(path))
    assert "has 3 numbers per voxel (colours), expected one" in refuse(plan, tmp_path / "out")
    flat = SimpleITK.GetImageFromArray(np.zeros((18, 20), dtype=np.uint8))
    SimpleITK.WriteImage(flat, str(path))
    assert "has 2 dimensions (20 x 18), expected 3; a picture" in refuse(plan, tmp_path / "out")


def test_label_values_that_nobody_named(tmp_path):
    source = write_msd(
        tmp_path / "raw", cases=("1", "2"), labels={"0": "background", "1": "liver", "2": "tumour"}
    )
    write_raw_nifti(source / "labelsTr/1.nii.gz", blob_scan(values=(1, 7))[1], OBLIQUE)
    sentence = refuse(msd.plan(source), tmp_path / "out")
    assert "labelsTr/1.nii.gz: has label values 7, expected 0 and 1 liver, 2 tumour" in sentence
    source = write_cmr(tmp_path / "cmr", numbers=(1, 2))
    labels = np.zeros((150, 140, 4), dtype=np.uint16)
    labels[5, 5, 1] = 420
    label = source / "patient1_C0_manual.nii.gz"
    write_raw_nifti(label, labels, nibabel.load(source / "patient1_C0.nii.gz").affine)
    sentence = refuse(cmr.plan(source), tmp_path / "out_cmr")
    assert (
        "has label values 420, expected 0 and 200 lv_myocardium, 500 lv_blood_pool, 600 right_ventricle"
        in sentence
    )


def test_btcv_mistakes(tmp_path):
    source = write_btcv(tmp_path / "raw", numbers=(1, 2), slices=2)
    write_raw_nifti(
        source / "img/img0001.nii.gz", np.arange(256 * 256 * 2, dtype=np.int32).reshape(256, 256, 2)
    )
    write_raw_nifti(source / "label/label0001.nii.gz", np.zeros((256, 256, 2), dtype=np.uint8))
    assert "has 256 x 256 pixels a slice, expected 512 x 512 as all of BTCV" in refuse(
        btcv.plan(source), tmp_path / "out", "0"
    )
    voxels = np.full((512, 512, 2), 400, dtype=np.int16)
    voxels[0, 0, 0] = 500
    write_raw_nifti(source / "img/img0001.nii.gz", voxels)
    write_raw_nifti(source / "label/label0001.nii.gz", np.zeros((512, 512, 2), dtype=np.uint8))
    assert "every voxel is 275 after clipping to -125..275" in refuse(
        btcv.plan(source), tmp_path / "out", "0"
    )
    (source / "label/label0001.nii.gz").unlink()
    with pytest.raises(FssegError, match=r"image without its partner for 1 case\(s\): 0001"):
        btcv.plan(source)


def test_a_sheared_affine_cannot_be_resampled_but_an_oblique_one_can(tmp_path):
    source = write_cmr(tmp_path / "raw", numbers=(1, 2))
    for what in ("", "_manual"):
        path = source / f"patient1_C0{what}.nii.gz"
        write_raw_nifti(path, np.asanyarray(nibabel.load(path).dataobj), OBLIQUE)
    sentence = refuse(cmr.plan(source), tmp_path / "out")
    assert (
        "its axes are not at right angles (a sheared affine" in sentence
        and "SimpleITK refuses" in sentence
    )


@pytest.mark.parametrize(
    "make_plan, expected",
    [
        (
            lambda root: chaos.plan(root / "nowhere"),
            "nowhere: there is no such folder; expected the CHAOS training set",
        ),
        (
            lambda root: chaos.plan(root / "file"),
            "file: is a file; expected the CHAOS training set",
        ),
        (
            lambda root: chaos.plan(root),
            r"found no \*/T2SPIR/DICOM_anon in .*; expected the CHAOS training set with MR/",
        ),
        (
            lambda root: btcv.plan(root),
            r"found no img/img\*.nii\* in .*RawData/Training.*; expected the BTCV training set",
        ),
        (
            lambda root: cmr.plan(root),
            "found no patient<k>_C0_manual.nii.gz in it; expected the MS-CMRSeg set",
        ),
        (
            lambda root: msd.plan(root),
            "dataset.json: there is no such file; expected the folder with dataset.json",
        ),
        (
            lambda root: nifti.plan(root, "{case}.nii", "{case}_l.nii"),
            "found no image, expected files named {case}.nii",
        ),
        (
            lambda root: nifti.plan(root, "a.nii", "{case}.nii"),
            "--image 'a.nii' lacks {case}, expected it where the id is",
        ),
        (
            lambda root: nifti.plan(root, "{case}.nii", "/x/{case}"),
            "--label '/x/{case}' is an absolute path, expected one below the folder",
        ),
    ],
)
def test_sources_of_another_layout(tmp_path, make_plan, expected):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(FssegError, match=expected.replace("{case}", r"\{case\}")):
        make_plan(tmp_path)


def test_pairs_without_partners_are_listed(tmp_path):
    source = write_pairs(tmp_path / "raw", cases=("1", "2", "3"))
    (source / "sub-2/anat/sub-2_T2w.nii.gz").unlink()
    (source / "labels/3_seg.nii.gz").unlink()
    with pytest.raises(FssegError) as caught:
        nifti.plan(source, "sub-{case}/anat/sub-{case}_T2w.nii.gz", "labels/{case}_seg.nii.gz")
    assert "image without its partner for 1 case(s): 3; expected labels/{case}_seg.nii.gz" in str(
        caught.value
    )
    assert "label without its partner for 1 case(s): 2;" in str(caught.value)
    shutil.copy(source / "sub-1/anat/sub-1_T2w.nii.gz", source / "sub-1/anat/sub-1_T1w.nii.gz")
    with pytest.raises(FssegError, match="finds two files for case 1"):
        nifti.plan(source, "sub-{case}/anat/*.nii.gz", "labels/{case}_seg.nii.gz")


def test_simpleitk_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(
        FssegError, match=r"needs SimpleITK, which is not installed; install fsseg\[prepare\]"
    ):
        chaos.plan(tmp_path)
    source = write_msd(tmp_path / "raw", cases=("1",))
    prepare(msd.plan(source), tmp_path / "out", jobs=1).raise_problems()  # which resamples nothing


@pytest.fixture
def prepare_in_the_shell(shell):
    return partial(shell, "prepare")


def test_the_shell_prepares_and_says_what_comes_next(tmp_path, prepare_in_the_shell):
    write_chaos_patient(tmp_path / "raw/MR/7", *chaos_scan(organs=(1, 4)))
    done = prepare_in_the_shell(
        "chaos", "--source", tmp_path / "raw", "--out", tmp_path / "out", "--jobs", 1
    )
    assert done.returncode == 0, done.stderr
    assert (
        "1 cases prepared, 0 there already, 0 failed" in done.stdout
        and "prepare 1/1" in done.stderr
    )
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    row = next(line for line in done.stdout.splitlines() if line.startswith("spleen")).split()
    assert row == ["spleen", "1", str(manifest["cases"]["7"]["voxels"]["4"])]
    assert next(
        line for line in done.stdout.splitlines() if line.startswith("right_kidney")
    ).split()[1:] == ["0", "0"]
    assert f"fsseg check {tmp_path / 'out'}" in done.stdout
    assert f"fsseg run recipes/tpm_mp5_linest.toml --data {tmp_path / 'out'}" in done.stdout
    assert (
        "0 cases prepared, 1 there already"
        in prepare_in_the_shell(
            "chaos", "--source", tmp_path / "raw", "--out", tmp_path / "out"
        ).stdout
    )


def test_the_shell_takes_the_options_of_every_layout(tmp_path, prepare_in_the_shell):
    done = prepare_in_the_shell(
        "cmr",
        "--source",
        write_cmr(tmp_path / "cmr", numbers=(1,)),
        "--out",
        tmp_path / "out_cmr",
        "--jobs",
        1,
    )
    assert done.returncode == 0, done.stderr
    source = write_btcv(tmp_path / "btcv", numbers=(1,), slices=2)
    done = prepare_in_the_shell(
        "btcv", "--source", source, "--out", tmp_path / "out_btcv", "--as-published"
    )
    assert done.returncode == 0, done.stderr
    assert nibabel.load(tmp_path / "out_btcv/sabs_CT_normalized/image_0.nii.gz").shape == (
        257,
        257,
        3,
    )
    source = write_msd(tmp_path / "msd", modality={"0": "ADC", "1": "T2"}, channels=2)
    assert (
        prepare_in_the_shell("msd", "--source", source, "--out", tmp_path / "out_msd").returncode
        == 2
    )
    assert (
        prepare_in_the_shell(
            "msd", "--source", source, "--out", tmp_path / "out_msd", "--channel", "T2", "--jobs", 1
        ).returncode
        == 0
    )
    options = [
        "--image",
        "sub-{case}/anat/*.nii.gz",
        "--label",
        "labels/{case}_seg.nii.gz",
        "--name",
        "mine",
    ]
    options += ["--class", "liver=1", "--class", "spleen=4", "--modality", "CT", "--jobs", 1]
    done = prepare_in_the_shell(
        "nifti", "--source", write_pairs(tmp_path / "pairs"), "--out", tmp_path / "out", *options
    )
    assert done.returncode == 0, done.stderr
    table = tomllib.loads((tmp_path / "out/dataset.toml").read_text())
    assert table["classes"] == {"liver": 1, "spleen": 4} and table["intensity"] == {
        "window": [-125, 275]
    }
    assert (table["name"], table["modality"]) == ("mine", "CT")


def test_the_shell_explains_bad_cases_once_all_others_are_done(tmp_path, prepare_in_the_shell):
    source = write_pairs(tmp_path / "raw", cases=("1", "2", "3"))
    for case in ("1", "3"):
        (source / f"labels/{case}_seg.nii.gz").write_text("hello")
    options = ["--image", "sub-{case}/anat/*.nii.gz", "--label", "labels/{case}_seg.nii.gz"]
    done = prepare_in_the_shell(
        "nifti", "--source", source, "--out", tmp_path / "out", "--jobs", 1, *options
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "1 cases prepared, 0 there already, 2 failed" in done.stdout
    assert "Error: 2 of 3 cases could not be prepared" in done.stderr
    assert (
        "1_seg.nii.gz: cannot be read" in done.stderr
        and "3_seg.nii.gz: cannot be read" in done.stderr
    )
    assert "--class liver: expected NAME=VALUE" in prepare_in_the_shell(
        "nifti", "--source", source, "--out", tmp_path / "out", *options, "--class", "liver"
    ).stderr  # fmt: skip


@pytest.mark.processes
def test_the_commands_explain_themselves_and_start_fast():
    code = "import sys; import fsseg.cli.prepare; print([name for name in ('torch', 'numpy', 'SimpleITK') if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )
    code = "import sys; import fsseg.prepare.engine as e, fsseg.prepare.layouts.chaos; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "False"
    )


@pytest.mark.parametrize("command", ["chaos", "btcv", "cmr", "msd", "nifti"])
def test_help(prepare_in_the_shell, command):
    text = prepare_in_the_shell(command, "--help").stdout
    assert f"fsseg prepare {command} --source" in text and "--jobs" in text
    assert ("--as-published" in text) == (command in ("chaos", "btcv"))
    if command == "cmr":
        assert "our choice" in " ".join(text.split())
