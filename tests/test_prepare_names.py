"""What raw scans and their classes are called: letters of any script, and no two names that become one."""

import json
import re
import unicodedata

import pytest
from raw_trees import blob_scan, write_msd, write_raw_nifti

from fsseg import FssegError
from fsseg.data.datasets.check import check_folder
from fsseg.prepare.engine import prepare
from fsseg.prepare.layouts import msd, nifti
from fsseg.prepare.plan import file_ids


@pytest.mark.parametrize(
    "names, expected",
    [
        (["肝臓", "脾臓"], ["肝臓", "脾臓"]),
        (["Leber", "Müller-Gang", "Straße"], ["leber", "müller_gang", "straße"]),
        (["tumor+", "tumor-", "Tumor 2"], ["tumor+", "tumor-", "tumor_2"]),
        (["< 2 cm", "> 2 cm"], ["< 2 cm", "> 2 cm"]),
        (["L4/L5", "+", "-"], ["l4_l5", "+", "-"]),
        (["हृदय", "ตับ", "قلب"], ["हृदय", "ตับ", "قلب"]),
        (["ΑΒ", "αβ γ"], ["αβ", "αβ_γ"]),
        ([unicodedata.normalize("NFD", "Größe")], ["größe"]),
    ],
)
def test_classes_of_any_script_keep_names_of_their_own(tmp_path, names, expected):
    assert list(nifti.parse_classes([f"{name}={i}" for i, name in enumerate(names, 1)])) == expected
    labels = {"background": 0} | {name: i for i, name in enumerate(names, 1)}
    assert list(msd.read_labels(tmp_path, labels).classes) == expected
    labels = {"0": "background"} | {str(i): name for i, name in enumerate(names, 1)}
    assert list(msd.read_labels(tmp_path, labels).classes) == expected


@pytest.mark.parametrize(
    "first, second",
    [("liver", " liver "), ("é", unicodedata.normalize("NFD", "é")), ("+", "+ ")],
)
def test_two_classes_of_one_name_are_refused_with_both(first, second):
    with pytest.raises(FssegError) as caught:
        nifti.parse_classes([f"{first}=1", f"{second}=2"])
    assert f"the classes {first!a} and {second!a} would both be called" in str(caught.value)


def test_ids_of_any_script_are_names_of_files(tmp_path):
    ids = ["张三", "李四", "Müller 1", "ก็", "a/b"]
    assert list(file_ids(ids, tmp_path).values()) == ["张三", "李四", "Müller_1", "ก็", "a_b"]
    for first, second in (("a b", "a_b"), ("Ä", "ä"), ("..", ".")):
        with pytest.raises(
            FssegError, match=re.escape(f"cases {first!r} and {second!r} would both")
        ):
            file_ids([first, second], tmp_path)


def test_a_folder_of_chinese_names_becomes_a_dataset(tmp_path):
    voxels, labels = blob_scan(values=(1, 4))
    for case in ("张三", "李四"):
        write_raw_nifti(tmp_path / f"raw/{case}.nii.gz", voxels)
        write_raw_nifti(tmp_path / f"raw/{case}_标.nii.gz", labels)
    classes = nifti.parse_classes(["肝臓=1", "脾臓=4"])
    plan = nifti.plan(tmp_path / "raw", "{case}.nii.gz", "{case}_标.nii.gz", classes)
    prepare(plan, tmp_path / "out", jobs=1).raise_problems()
    checked = check_folder(tmp_path / "out")
    assert [case.case for case in checked.cases] == ["张三", "李四"]
    assert list(checked.classes) == ["肝臓", "脾臓"]


@pytest.mark.parametrize(
    "labels",
    [
        {"liver": 1.5},
        {"liver": True},
        {"liver": -1},
        {"liver": 70000},
        {"liver": "9" * 5000},
        {"liver": []},
        {"liver": [1, None]},
        {"1": ["liver"]},
    ],
)
def test_label_values_that_are_none(tmp_path, labels):
    with pytest.raises(FssegError, match="its labels cannot be read, expected"):
        msd.read_labels(tmp_path, labels)


@pytest.mark.parametrize(
    "training, expected",
    [
        ([{"image": 1, "label": "a.nii.gz"}], "its training list cannot be read"),
        (["a.nii.gz"], "its training list cannot be read"),
        ([{"image": "a.nii.gz", "label": "x/a.nii.gz"}, {"image": "b.nii.gz", "label": "y/a.nii.gz"}], "two entries whose label is called 'a'"),
        ([{"image": "a" * 5000, "label": "a" * 5000}], "found no label map|images that are not there"),
        ([{"image": "a\0b", "label": "a\0b"}], "found no label map|images that are not there"),
    ],
)  # fmt: skip
def test_training_lists_that_cannot_be(tmp_path, training, expected):
    source = write_msd(tmp_path / "raw", cases=("1",))
    table = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps(table | {"training": training}))
    with pytest.raises(FssegError, match=expected) as caught:
        msd.plan(source)
    assert "\n" not in str(caught.value)
