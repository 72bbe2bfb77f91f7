"""BTCV and cardiac MR against a slow resampler; the Decathlon, nnU-Net and pairs of files as they were."""

import json
import tomllib

import nibabel
import numpy as np
import pytest
from raw_trees import (
    OBLIQUE,
    Notes,
    blob_scan,
    write_any,
    write_btcv,
    write_cmr,
    write_msd,
    write_nnunet,
    write_pairs,
    write_raw_nifti,
)
from test_prepare_chaos import middle, slow_labels, slow_linear

from fsseg import FssegError
from fsseg.data.datasets.folders import NiftiFolder, Sabs
from fsseg.prepare.engine import prepare
from fsseg.prepare.layouts import btcv, cmr, msd, nifti
from fsseg.prepare.plan import file_ids, identifier

ROTATED = np.array([[0, -0.8, 0, 12.0], [-0.64, 0, 1.8, -7], [0.48, 0, 2.4, 99], [0, 0, 0, 1]])
"""Oblique, at right angles: pixels of 0.8 mm, slices of 3 mm."""


def make(plan, out):
    notes = Notes()
    outcome = prepare(plan, out, jobs=1, progress=notes)
    outcome.raise_problems()
    return outcome, notes.texts


def load(path):
    file = nibabel.load(path)
    return np.asanyarray(file.dataobj), file.affine


def described(out):
    return tomllib.loads((out / "dataset.toml").read_text())


@pytest.mark.parametrize("as_published", [False, True])
def test_btcv(tmp_path, as_published):
    source = write_btcv(tmp_path / "raw/RawData/Training", numbers=(21,), affine=ROTATED)
    make(btcv.plan(tmp_path / "raw", as_published), tmp_path / "out")
    image, affine = load(tmp_path / "out/sabs_CT_normalized/image_0.nii.gz")
    labels, label_affine = load(tmp_path / "out/sabs_CT_normalized/label_0.nii.gz")
    raw, marked = load(source / "img/img0021.nii.gz")[0], load(source / "label/label0021.nii.gz")[0]
    grey = (np.clip(raw, -125, 275).astype(float) + 125) / 400 * 255
    sizes = (257, 257, 4) if as_published else (256, 256, 3)
    assert image.shape == labels.shape == sizes
    assert (str(image.dtype), str(labels.dtype)) == (
        ("float64",) * 2 if as_published else ("float32", "uint8")
    )
    expected = slow_linear(grey[32:-32, 32:-32], (1.75, 1.75, 1), sizes)
    assert np.abs(image - expected).max() < 1e-4
    assert (labels == slow_labels(marked[32:-32, 32:-32], (1.75, 1.75, 1), sizes)).all()
    assert set(np.unique(labels)) == set(range(14))
    if as_published:
        assert not image[256].any() and not image[:, 256].any() and not image[:, :, 3].any()
    stretched = ROTATED @ np.diag([1.75, 1.75, 1, 1])
    if not as_published:
        stretched[:, 3] = ROTATED @ [32, 32, 0, 1]
    assert np.allclose(affine, stretched, atol=1e-5) and np.allclose(label_affine, affine)


def test_btcv_is_numbered_anew_in_order_of_names(tmp_path):
    write_btcv(tmp_path / "raw", numbers=(21, 3, 10), slices=2)
    plan = btcv.plan(tmp_path / "raw")
    assert [(case.case, case.image[0].name) for case in plan.cases] == [
        ("0", "img0003.nii.gz"), ("1", "img0010.nii.gz"), ("2", "img0021.nii.gz")
    ]  # fmt: skip
    make(plan, tmp_path / "out")
    assert described(tmp_path / "out") == {
        "name": "sabs",
        "modality": "CT",
        "image": "sabs_CT_normalized/image_{case}.nii.gz",
        "label": "sabs_CT_normalized/label_{case}.nii.gz",
        "orientation": "file",
        "other_labels": "background",
        "classes": {"spleen": 1, "right_kidney": 2, "left_kidney": 3, "liver": 6},
    }
    assert btcv.describe(30, [])[0]["folds"] == "tpm_sabs"
    assert Sabs(root=str(tmp_path / "out")).load("2").image.shape == (2, 256, 256)


@pytest.mark.parametrize("pixel", [1.0, 3.0])  # 150 pixels of 1 mm are padded, of 3 mm are cut
def test_cmr(tmp_path, pixel):
    source = write_cmr(tmp_path / "raw/below", numbers=(3,), unlabelled=(4, 11), pixel=pixel)
    _, notes = make(cmr.plan(tmp_path / "raw"), tmp_path / "out")
    assert notes == [f"{tmp_path / 'raw'}: patient 4, 11 have no manual labels and are left out"]
    image, affine = load(tmp_path / "out/cmr_MR_normalized/image_3.nii.gz")
    labels, _ = load(tmp_path / "out/cmr_MR_normalized/label_3.nii.gz")
    raw, raw_affine = load(source / "patient3_C0.nii.gz")
    marked, _ = load(source / "patient3_C0_manual.nii.gz")
    factors = (1.25 / pixel, 1.25 / pixel, 1)
    sizes = [int(np.ceil((length - 0.5) * pixel / 1.25)) for length in raw.shape[:2]] + [4]
    exact = slow_linear(np.minimum(raw, np.percentile(raw, 99.5)), factors, sizes)
    assert np.abs(image - middle(exact, exact.min())).max() < 0.5 + 1e-6 and image.dtype == np.int16
    assert (
        labels == middle(slow_labels(marked, factors, sizes), 0)
    ).all() and labels.dtype == np.uint16
    assert set(np.unique(labels)) == {0, 200, 500, 600}
    centres = [
        (where @ [*np.argwhere(of == 500).mean(axis=0), 1])[:3]
        for where, of in ((affine, labels), (raw_affine, marked))
    ]
    assert np.abs(centres[0] - centres[1]).max() < 0.63, "half a voxel"
    assert described(tmp_path / "out")["classes"] == {
        "lv_myocardium": 200,
        "lv_blood_pool": 500,
        "right_ventricle": 600,
    }
    assert (
        cmr.describe(35, [])[0]["folds"] == "hansen2022" and "folds" not in cmr.describe(34, [])[0]
    )


def test_msd_keeps_intensities_and_a_sheared_affine(tmp_path):
    source = write_msd(tmp_path / "raw", cases=("liver_0", "liver_10", "liver_9"))
    outcome, _ = make(msd.plan(source), tmp_path / "out")
    for index, case in enumerate(("liver_0", "liver_10", "liver_9")):
        for what, expected in zip(("image", "label"), blob_scan(seed=index)):
            written, affine = load(tmp_path / f"out/{what}_{case}.nii.gz")
            assert written.dtype == expected.dtype and (written == expected).all()
            assert (affine == OBLIQUE).all()
    assert described(tmp_path / "out") == {
        "name": "task_liver",
        "modality": "CT",
        "image": "image_{case}.nii.gz",
        "label": "label_{case}.nii.gz",
        "intensity": {"window": [-125, 275]},
        "classes": {"liver": 1, "liver_tumour": 2},
    }
    assert outcome.manifest.cases["liver_0"]["after"]["shape"] == [20, 18, 6]


@pytest.mark.parametrize("chosen, number", [("1", 1), ("t2", 1), ("ADC", 0)])
def test_a_channel_of_a_four_dimensional_file(tmp_path, chosen, number):
    source = write_msd(
        tmp_path / "raw", cases=("p_1",), modality={"0": "ADC", "1": "T2"}, channels=2
    )
    with pytest.raises(
        FssegError,
        match=r"several channels \(0 ADC, 1 T2\), expected one; choose it with --channel",
    ):
        msd.plan(source)
    with pytest.raises(
        FssegError, match="--channel CT: there is no such channel, expected one of 0 ADC, 1 T2"
    ):
        msd.plan(source, "CT")
    make(msd.plan(source, chosen), tmp_path / "out")
    assert (
        load(tmp_path / "out/image_p_1.nii.gz")[0] == blob_scan(seed=0)[0] + 1000 * number
    ).all()
    assert described(tmp_path / "out")["intensity"] == {"percentiles": [0, 99.5]}


def test_nnunet_has_a_file_for_each_channel(tmp_path):
    source = write_nnunet(tmp_path / "Dataset007_Mine", channels=("T1w", "FLAIR"))
    make(msd.plan(source, "flair"), tmp_path / "out")
    assert (load(tmp_path / "out/image_a_002.nii.gz")[0] == blob_scan(seed=1)[0] + 1000).all()
    table = described(tmp_path / "out")
    assert table["name"] == "dataset007_mine" and table["modality"] == "MR"
    assert table["classes"] == {"liver": 1, "spleen": 2}
    (source / "imagesTr/a_002_0001.nii.gz").unlink()
    with pytest.raises(FssegError, match=r"label without its partner for 1 case\(s\): a_002"):
        msd.plan(source, "1")


def test_all_channels_are_kept_along_a_fourth_axis(tmp_path):
    """From either kind of source; what comes out is a dataset of scans with channels."""
    sources = {
        "msd": write_msd(tmp_path / "m", modality={"0": "ADC", "1": "T2"}, channels=2),
        "nnunet": write_nnunet(tmp_path / "n", channels=("ADC", "T2")),
    }
    for name, source in sources.items():
        out = tmp_path / f"out_{name}"
        outcome, _ = make(msd.plan(source, "all"), out)
        assert described(out)["channels"] == ["ADC", "T2"]
        case = sorted(outcome.manifest.cases)[1]
        first = blob_scan(seed=1)[0]
        written, _ = load(out / f"image_{case}.nii.gz")
        assert written.shape == (20, 18, 6, 2)
        assert (written[..., 0] == first).all() and (written[..., 1] == first + 1000).all()
        record = outcome.manifest.cases[case]
        assert record["after"]["shape"] == [20, 18, 6]
        assert "channels ADC, T2 along the fourth axis" in record["steps"]
        volume = NiftiFolder(root=str(out)).load(case)
        assert volume.image.shape[1] == 2 and volume.channels == ("ADC", "T2")
    (sources["nnunet"] / "imagesTr/a_002_0001.nii.gz").unlink()
    with pytest.raises(FssegError, match="channel T2 is missing for a_002, expected every channel"):
        msd.plan(sources["nnunet"], "all")


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii"])
def test_nnunet_file_endings(tmp_path, ending):
    source = write_nnunet(tmp_path / "raw", ending=ending)
    make(msd.plan(source), tmp_path / "out")
    written, affine = load(tmp_path / "out/image_a_001.nii.gz")
    assert (written == blob_scan(seed=0)[0]).all() and np.allclose(
        affine, np.diag([1.5, 1.5, 6, 1])
    )


def test_nnunet_first_format_lists_cases_without_their_channels(tmp_path):
    source = write_msd(tmp_path / "raw", cases=("c_1",))
    (source / "imagesTr/c_1.nii.gz").rename(source / "imagesTr/c_1_0000.nii.gz")
    make(msd.plan(source), tmp_path / "out")
    assert (load(tmp_path / "out/image_c_1.nii.gz")[0] == blob_scan(seed=0)[0]).all()


def test_a_dataset_json_may_list_files_elsewhere(tmp_path):
    source = write_msd(tmp_path / "raw", cases=("c_1",))
    elsewhere = tmp_path / "disk/c_1.nii.gz"
    elsewhere.parent.mkdir()
    (source / "imagesTr/c_1.nii.gz").rename(elsewhere)
    table = json.loads((source / "dataset.json").read_text())
    table["training"][0]["image"] = str(elsewhere)
    (source / "dataset.json").write_text(json.dumps(table))
    outcome, _ = make(msd.plan(source), tmp_path / "out")
    assert list(outcome.manifest.cases["c_1"]["sources"]) == [
        "../disk/c_1.nii.gz",
        "labelsTr/c_1.nii.gz",
    ]


def test_what_is_to_be_ignored_becomes_background(tmp_path):
    source = write_nnunet(tmp_path / "raw", labels={"background": 0, "liver": 1, "ignore": 2})
    _, notes = make(msd.plan(source), tmp_path / "out")
    assert any("voxels labelled 2 (ignore) become background" in note for note in notes)
    assert set(np.unique(load(tmp_path / "out/label_a_001.nii.gz")[0])) == {0, 1}
    assert described(tmp_path / "out")["classes"] == {"liver": 1}


@pytest.mark.parametrize(
    "labels, expected, told",
    [
        ({"0": "background", "2": "Left Kidney", "10": "1st node"}, {"left_kidney": 2, "class_1st_node": 10}, 0),
        ({"background": 0, "kidneys": [2, 3], "liver": 1}, {"kidneys": [2, 3], "liver": 1}, 0),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, {"label_1": 1, "label_2": 2, "enhancing": 3}, 1),
    ],
)  # fmt: skip
def test_labels_of_a_dataset_json(tmp_path, labels, expected, told):
    read = msd.read_labels(tmp_path, labels)
    assert read.classes == expected and read.ignore == [] and len(read.notes) == told


def test_pairs_are_made_by_id(tmp_path):
    source = write_pairs(tmp_path / "raw", cases=("10", "9", "b c"))
    write_raw_nifti(
        source / "sub-9/anat/sub-10_T2w.nii.gz", np.zeros((2, 2, 2), dtype=np.int16)
    )  # two ids in one path
    image, label = "sub-{case}/anat/sub-{case}_T2w.nii.gz", "**/{case}_seg.nii.gz"
    plan = nifti.plan(source, image, label, {"liver": 1}, name="My Scans", modality="MR")
    assert [case.case for case in plan.cases] == ["9", "10", "b_c"]
    _, notes = make(plan, tmp_path / "out")
    assert notes == ["label values 4 have no --class and are taken as background"]
    assert (load(tmp_path / "out/image_9.nii.gz")[0] == blob_scan(seed=1)[0]).all()
    assert described(tmp_path / "out") == {
        "name": "my_scans",
        "modality": "MR",
        "image": "image_{case}.nii.gz",
        "label": "label_{case}.nii.gz",
        "other_labels": "background",
        "intensity": {"percentiles": [0, 99.5]},
        "classes": {"liver": 1},
    }
    assert NiftiFolder(root=str(tmp_path / "out")).load("b_c").labels.max() == 1


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".mhd"])
def test_other_formats_keep_their_place(tmp_path, ending):
    source = write_pairs(tmp_path / "raw", ending=ending, affine=ROTATED)
    plan = nifti.plan(source, f"sub-{{case}}/anat/*{ending}", f"labels/{{case}}_seg{ending}")
    assert len(plan.cases[0].image) == (2 if ending == ".mhd" else 1), (
        "a .mhd file has its voxels elsewhere"
    )
    _, notes = make(plan, tmp_path / "out")
    assert notes[1].startswith("no --class: every label value became one (label_1, label_4)")
    image, affine = load(tmp_path / "out/image_01.nii.gz")
    assert (image == blob_scan(seed=0)[0]).all() and np.allclose(affine, ROTATED, atol=1e-5)


def test_scaled_and_big_endian_files_give_the_right_numbers(tmp_path):
    voxels, labels = blob_scan()
    scaled = nibabel.Nifti1Image(voxels, np.diag([1.0, 1, 3, 1]))
    scaled.header.set_slope_inter(0.5, -10)
    big = nibabel.Nifti1Image(
        voxels, np.diag([1.0, 1, 3, 1]), header=nibabel.Nifti1Header(endianness=">")
    )
    for case, file in (("scaled", scaled), ("big", big)):
        nibabel.save(file, tmp_path / f"{case}.nii.gz")
        write_raw_nifti(
            tmp_path / f"{case}_seg.nii.gz", labels.astype(np.float32), np.diag([1.0, 1, 3, 1])
        )
    (tmp_path / "labels").mkdir()
    for case in ("scaled", "big"):
        (tmp_path / f"{case}_seg.nii.gz").rename(tmp_path / f"labels/{case}.nii.gz")
    stored = nibabel.load(tmp_path / "scaled.nii.gz")
    assert (stored.dataobj.slope, stored.dataobj.inter) == (0.5, -10)
    assert nibabel.load(tmp_path / "big.nii.gz").header.endianness == ">"
    make(nifti.plan(tmp_path, "{case}.nii.gz", "labels/{case}.nii.gz"), tmp_path / "out")
    written, _ = load(tmp_path / "out/image_scaled.nii.gz")
    assert written.dtype == np.float32 and (written == 0.5 * voxels - 10).all()
    assert (load(tmp_path / "out/image_big.nii.gz")[0] == voxels).all()
    assert load(tmp_path / "out/label_big.nii.gz")[0].dtype == np.uint8


def test_a_last_axis_of_one_is_dropped(tmp_path):
    voxels, labels = blob_scan()
    write_raw_nifti(tmp_path / "raw/a.nii.gz", voxels[..., None])
    write_any(tmp_path / "raw/seg/a.nrrd", labels)
    make(nifti.plan(tmp_path / "raw", "{case}.nii.gz", "seg/{case}.nrrd"), tmp_path / "out")
    assert (load(tmp_path / "out/image_a.nii.gz")[0] == voxels).all()


def test_names(tmp_path):
    assert [identifier(name) for name in ("Liver", " Left  Kidney", "L4/L5", "2nd")] == [
        "liver", "left_kidney", "l4_l5", "class_2nd"
    ]  # fmt: skip
    assert file_ids(["a b", "c"], tmp_path) == {"a b": "a_b", "c": "c"}
    with pytest.raises(
        FssegError, match="cases 'a b' and 'a_b' would both be written as a_b; rename one"
    ):
        file_ids(["a b", "a_b"], tmp_path)


@pytest.mark.parametrize("text", ["liver", "liver=", "=3", "liver=0", "liver=x", "liver=70000"])
def test_a_class_has_a_name_and_a_value(text):
    with pytest.raises(FssegError, match="expected NAME=VALUE"):
        nifti.parse_classes([text])


def test_classes_of_several_values():
    assert nifti.parse_classes(["Liver=1", "kidneys=2, 3"]) == {"liver": 1, "kidneys": [2, 3]}
    for texts in (["liver=1", "spleen=1"], ["liver=1,1"], ["liver=2,1", "spleen=3,1"]):
        with pytest.raises(FssegError, match="the value 1 has a class already"):
            nifti.parse_classes(texts)


def test_a_dataset_json_that_says_too_little(tmp_path):
    for table, expected in (
        ("{", "dataset.json: not valid JSON"),
        ("[]", "is a list, expected a table"),
        ('{"labels": {"0": "background", "1": "a"}}', "lacks the channels"),
        ('{"modality": {"0": "CT"}}', "lacks the labels"),
        (
            '{"modality": {"0": "CT"}, "labels": {"0": "background"}}',
            "no class besides the background",
        ),
        ('{"modality": {"0": "CT"}, "labels": {"liver": "x"}}', "its labels cannot be read"),
        (
            json.dumps({"modality": {"0": "CT"}, "labels": {"a": 1}, "file_ending": ".png"}),
            "two-dimensional pictures",
        ),
        (
            json.dumps({"modality": {"0": "CT"}, "labels": {"a": 1}, "training": [1]}),
            "training list cannot be read",
        ),
    ):
        (tmp_path / "dataset.json").write_text(table)
        with pytest.raises(FssegError, match=expected):
            msd.plan(tmp_path)
