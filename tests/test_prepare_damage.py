"""Manifests that are not as they were written, outputs that are no files, and sources that are none: sentences, no loss."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from raw_trees import write_chaos, write_pairs

from fsseg import FssegError
from fsseg.prepare.engine import prepare
from fsseg.prepare.layouts import chaos, nifti
from fsseg.prepare.plan import file_ids, name_classes


@pytest.fixture
def source(tmp_path):
    return write_pairs(tmp_path / "raw", cases=("1", "2"))


def plan_of(source):
    return nifti.plan(source, "sub-{case}/anat/*.nii.gz", "labels/{case}_seg.nii.gz")


def changed(table, place, value):
    """A table with another value at a place; without that key if the value is KeyError."""
    *parents, last = place.split("/")
    inner = table
    for key in parents:
        inner = inner[key]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return table


@pytest.mark.parametrize(
    "place, value",
    [
        ("layout", KeyError),
        ("layout", 1),
        ("description", None),
        ("classes", []),
        ("classes", {"liver": "one"}),
        ("cases", []),
        ("cases/1", None),
        ("cases/1/voxels", KeyError),
        ("cases/1/voxels", {"x": 1}),
        ("cases/1/voxels", {"1": "many"}),
        ("cases/1/voxels", {"1" * 5000: 1}),
        ("cases/1/voxels", {"1": -1}),
        ("cases/1/outputs", ["image_1.nii.gz"]),
        ("cases/1/outputs", {"image_1.nii.gz": 7}),
        ("cases/1/sources", None),
        ("cases/1/prepare_version", "1"),
        ("cases/1/after", 3),
        ("cases/1/intensity_percentiles", {"50": None}),
    ],
)
def test_a_damaged_manifest_is_a_sentence_and_nothing_is_lost(tmp_path, source, place, value):
    out = tmp_path / "out"
    prepare(plan_of(source), out, jobs=1).raise_problems()
    path = out / "manifest.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), place, value)))
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(FssegError, match="is no manifest of fsseg prepare") as caught:
        prepare(plan_of(source), out, jobs=1)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert place.split("/")[-1] in str(caught.value)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe{\0}\0", b"[" * 100_000, b'{"layout": NaN}']
)
def test_a_manifest_that_is_no_json_is_a_sentence(tmp_path, source, content):
    out = tmp_path / "out"
    prepare(plan_of(source), out, jobs=1).raise_problems()
    (out / "manifest.json").write_bytes(content)
    with pytest.raises(FssegError) as caught:
        prepare(plan_of(source), out, jobs=1)
    assert str(caught.value).startswith(f"{out / 'manifest.json'}: ") and "\n" not in str(
        caught.value
    )


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"image_1.nii.gz": "same"},
        {"../elsewhere": "x", "image_1.nii.gz": "same", "label_1.nii.gz": "same"},
    ],
)
def test_a_case_whose_record_does_not_know_its_files_is_made_again(tmp_path, source, outputs):
    out = tmp_path / "out"
    prepare(plan_of(source), out, jobs=1).raise_problems()
    path = out / "manifest.json"
    table = json.loads(path.read_text())
    written = table["cases"]["1"]["outputs"]
    table["cases"]["1"]["outputs"] = {
        name: written.get(name, digest) if digest == "same" else digest
        for name, digest in outputs.items()
    }
    path.write_text(json.dumps(table))
    (out / "label_1.nii.gz").write_bytes(b"damaged")
    outcome = prepare(plan_of(source), out, jobs=1)
    assert outcome.made == ["1"] and outcome.skipped == ["2"]
    assert (out / "label_1.nii.gz").read_bytes() != b"damaged"


def test_a_manifest_with_notes_is_written_the_same_way_again(tmp_path, source):
    out = tmp_path / "out"
    prepare(plan_of(source), out, jobs=1).raise_problems()
    path = out / "manifest.json"
    table = json.loads(path.read_text())
    record = table["cases"]["1"]
    table["cases"]["1"] = {"notes": ["strange"]} | record
    path.write_text(json.dumps(table, indent=1) + "\n")
    before = path.read_bytes()
    assert prepare(plan_of(source), out, jobs=1).skipped == ["1", "2"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["manifest.json", "dataset.toml"])
@pytest.mark.parametrize(
    "make, expected", [(os.mkdir, "is a folder"), (os.mkfifo, "is a pipe or a device")]
)
def test_what_is_no_file_in_the_output_folder_stays(tmp_path, source, name, make, expected):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out" / name)
    with pytest.raises(FssegError, match=f"{name}: {expected}, expected a"):
        prepare(plan_of(source), tmp_path / "out", jobs=1)
    assert os.listdir(tmp_path / "out") == [name]


@pytest.mark.parametrize(
    "make, expected", [(os.mkdir, "is a folder"), (os.mkfifo, "is a pipe or a device")]
)
def test_what_takes_the_place_of_an_output_is_not_replaced(tmp_path, source, make, expected):
    out = tmp_path / "out"
    prepare(plan_of(source), out, jobs=1).raise_problems()
    (out / "image_1.nii.gz").unlink()
    make(out / "image_1.nii.gz")
    outcome = prepare(plan_of(source), out, jobs=1)
    assert f"image_1.nii.gz: {expected}, expected a file" in outcome.problems["1"]
    assert (out / "image_1.nii.gz").exists() and not (out / "image_1.nii.gz").is_file()


def test_an_output_folder_that_is_a_device_is_a_sentence(source):
    with pytest.raises(FssegError, match="/dev: a file is where a folder is expected|/dev/null: "):
        prepare(plan_of(source), Path("/dev/null"), jobs=1)


@pytest.mark.parametrize(
    "make, expected",
    [
        (os.mkfifo, "is a pipe or a device, expected a file"),
        (
            lambda path: path.symlink_to(path.name),
            "cannot be read (Too many levels of symbolic links)",
        ),
        (lambda path: path.symlink_to("gone.dcm"), "is a link to gone.dcm, where nothing is"),
        (os.mkdir, "is a folder, expected a file"),
    ],
)
@pytest.mark.parametrize("place", ["DICOM_anon/IMG-0002-00002.dcm", "Ground/IMG-0002-00002.png"])
def test_a_slice_that_is_no_file_is_named(tmp_path, make, expected, place):
    root = write_chaos(tmp_path / "raw", patients=("1",))
    path = root / "MR/1/T2SPIR" / place
    path.unlink()
    make(path)
    problems = prepare(chaos.plan(root), tmp_path / "out", jobs=1).problems
    assert problems["1"].startswith(f"{path}: {expected}")


@pytest.mark.parametrize(
    "names, expected",
    [
        (["mean", "liver"], "'mean' has the name of a column"),
        (["A+", "a+"], "differ in nothing but capitals"),
        (["a/b", "a b"], "'a/b' holds a /"),
        (["...", "x"], "has nothing but dots"),
        (["", "x"], "is empty"),
        (["x" * 300], "has 300 characters, expected at most"),
    ],
)
def test_classes_that_no_dataset_can_have_are_refused_before_the_work(names, expected):
    with pytest.raises(FssegError, match=re.escape(expected)) as caught:
        name_classes("here", [(name, [value]) for value, name in enumerate(names, 1)])
    assert str(caught.value).startswith("here: ")


def test_long_ids_make_files_of_their_own(tmp_path):
    long = ["肝" * 80 + end for end in ("a", "b")]
    first, second = file_ids(long, tmp_path).values()
    assert first != second and max(len(name.encode()) for name in (first, second)) <= 200
    usual = "x" * 200
    assert file_ids([usual], tmp_path) == {usual: usual}
    source = write_pairs(tmp_path / "raw", cases=("1",))
    for path, name in (
        ("labels/1_seg.nii.gz", "{}_seg.nii.gz"),
        ("sub-1/anat/sub-1_T2w.nii.gz", "{}.nii.gz"),
    ):
        shutil.copy(source / path, tmp_path / "raw" / name.format("肝" * 79))
    plan = nifti.plan(tmp_path / "raw", "{case}.nii.gz", "{case}_seg.nii.gz")
    prepare(plan, tmp_path / "out", jobs=1).raise_problems()
    assert len(list((tmp_path / "out").glob("image_*.nii.gz"))) == 1
