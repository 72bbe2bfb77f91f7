"""NRRD and MetaImage whose headers say what is not so, or reach for files that are not theirs; and files that are none."""

import os
import re

import numpy as np
import pytest
import SimpleITK
from raw_trees import Notes, blob_scan, write_any, write_raw_nifti

from fsseg import FssegError
from fsseg.data.datasets.header import LIMIT
from fsseg.prepare.engine import prepare
from fsseg.prepare.layouts import nifti
from fsseg.prepare.read import read_scan, stored_with

VOXELS, LABELS = blob_scan(values=(1, 4))
PLACE = np.diag([-1.5, -1.5, 6.0, 1.0])
FILES = ["a.mha", "a.mhd", "a.nrrd"]


@pytest.fixture
def source(tmp_path):
    """A folder with a pair of NIfTI files, 2, and one that is to be changed, 1."""
    source = tmp_path / "raw"
    for case in ("1", "2"):
        write_raw_nifti(source / f"{case}_seg.nii.gz", LABELS, PLACE)
    write_raw_nifti(source / "2.nii.gz", VOXELS)
    return source


def write(path, packed=False):
    image = SimpleITK.GetImageFromArray(VOXELS.T)
    image.SetSpacing((1.5, 1.5, 6.0))
    SimpleITK.WriteImage(image, str(path), packed)
    return path


def replace_line(path, start, line):
    """Puts a line in place of the one in the header that starts so, or takes that out."""
    head, found, rest = path.read_bytes().partition(start.encode())
    assert found
    _, end, rest = rest.partition(b"\n")
    path.write_bytes(head + (line.encode() + end if line else b"") + rest)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("packed", [False, True])
def test_voxels_come_as_they_are(tmp_path, name, packed):
    path = write(tmp_path / name, packed)
    scan = read_scan(path)
    assert (scan.voxels == VOXELS).all() and scan.voxel_sizes == (1.5, 1.5, 6.0)
    assert scan.remarks == ()
    assert len(stored_with(path)) == (2 if name.endswith(".mhd") else 1)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_never_read(tmp_path, capfd, name, packed, share):
    path = write(tmp_path / name, packed)
    data = stored_with(path)[-1]
    content = data.read_bytes()
    data.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FssegError, match="; .*copy it again") as caught:
        read_scan(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "nothing is printed beside the sentence"


SIZES = {
    "a.mha": ("DimSize", "DimSize ="),
    "a.mhd": ("DimSize", "DimSize ="),
    "a.nrrd": ("sizes:", "sizes:"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sizes", ["30000 30000 30000", "-20 18 6", "200 180 60000"])
def test_a_header_may_not_ask_for_more_than_the_file_holds(
    tmp_path, monkeypatch, name, packed, sizes
):
    monkeypatch.setenv(LIMIT, "1")
    path = write(tmp_path / name, packed)
    start, line = SIZES[name]
    replace_line(path, start, f"{line} {sizes}")
    with pytest.raises(FssegError) as caught:
        read_scan(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["CompressedData = Tru", "CompressedDataX = 1", "CompressedData = 1"]
)
def test_packed_voxels_that_are_not_said_to_be_packed_are_refused(tmp_path, line):
    path = write(tmp_path / "a.mha", packed=True)
    replace_line(path, "CompressedData ", line)
    with pytest.raises(FssegError, match="; .*copy it again"):
        read_scan(path)


def test_packed_voxels_of_unknown_length_are_refused(tmp_path):
    path = write(tmp_path / "a.mha", packed=True)
    replace_line(path, "CompressedDataSize", "")
    with pytest.raises(FssegError, match="lacks CompressedDataSize"):
        read_scan(path)


def test_a_scan_that_is_too_large_for_the_machine_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(LIMIT, "0.000001")
    with pytest.raises(FssegError, match=f"expected at most 1.05 KiB .*{LIMIT}"):
        read_scan(write(tmp_path / "a.mha"))


@pytest.mark.parametrize(
    "name, start",
    [("a.mha", "ElementSpacing"), ("a.mhd", "ElementSpacing"), ("a.nrrd", "space directions")],
)
def test_a_spacing_that_is_not_there_is_told(source, tmp_path, name, start):
    path = write(source / f"1{name[1:]}")
    replace_line(path, start, "")
    if name == "a.nrrd":
        replace_line(path, "space:", "")
        replace_line(path, "space origin", "")
    assert read_scan(path).remarks == ("does not say how large a voxel is; 1 mm is taken",)
    write_any(source / "1_seg.nrrd", LABELS, np.diag([-1.0, -1.0, 1.0, 1.0]))
    notes = Notes()
    plan = nifti.plan(source, f"{{case}}{name[1:]}", "{case}_seg.nrrd", modality="MR")
    prepare(plan, tmp_path / "out", jobs=1, progress=notes).raise_problems()
    assert f"{path}: does not say how large a voxel is; 1 mm is taken" in notes.texts


def prepare_one(source, out, ending):
    """What is wrong with case 1, or None."""
    (source / "2_seg.nii.gz").unlink(missing_ok=True)
    plan = nifti.plan(source, f"{{case}}{ending}", "{case}_seg.nii.gz")
    return prepare(plan, out, jobs=1).problems.get("1")


@pytest.mark.parametrize("where", ["absolute", "above", "linked file", "linked folder", "colon"])
def test_a_header_may_not_reach_out_of_the_source(source, tmp_path, where):
    write(tmp_path / "elsewhere.mhd")
    secret = tmp_path / "elsewhere.raw"
    path = write(source / "1.mhd")
    (source / "1.raw").unlink()
    name = "1.raw"
    if where in ("absolute", "colon"):
        name = str(secret)
    elif where == "above":
        name = "../elsewhere.raw"
    elif where == "linked file":
        (source / "1.raw").symlink_to(secret)
    else:
        (source / "sub").symlink_to(tmp_path)
        name = "sub/elsewhere.raw"
    sign = ":" if where == "colon" else " ="
    replace_line(path, "ElementDataFile", f"ElementDataFile{sign} {name}")
    sentence = prepare_one(source, tmp_path / "out", ".mhd")
    assert re.match(
        f"{path}: says that its voxels are in .*, expected a file in {source}; copy", sentence
    )
    assert not (tmp_path / "out/image_1.nii.gz").exists()


def test_the_voxels_of_a_nrrd_may_not_be_elsewhere_either(source, tmp_path):
    write(tmp_path / "elsewhere.mhd")
    path = write(source / "1.nrrd")
    head, _, _ = path.read_bytes().partition(b"\n\n")
    path.write_bytes(head + b"\ndata file: ../elsewhere.raw\n\n")
    assert "expected a file in" in prepare_one(source, tmp_path / "out", ".nrrd")


@pytest.mark.parametrize("ending", [".mhd", ".nrrd"])
def test_voxels_may_lie_beside_their_header_or_elsewhere_in_the_source(source, tmp_path, ending):
    kept = tmp_path / "kept"
    kept.mkdir()
    write(kept / "1.mhd")
    if ending == ".mhd":  # both are links into one folder
        for name in ("1.mhd", "1.raw"):
            (source / name).symlink_to(kept / name)
    else:
        (source / "data").mkdir()
        (kept / "1.raw").rename(source / "data/1.raw")
        path = write(source / "1.nrrd")
        head, _, _ = path.read_bytes().partition(b"\n\n")
        path.write_bytes(head + b"\ndata file: data/1.raw\n\n")
    assert prepare_one(source, tmp_path / "out", ending) is None


@pytest.mark.parametrize(
    "name, expected",
    [
        ("LIST", "keeps its voxels in several files"),
        ("slice%03d.raw 1 6 1", "keeps its voxels in several files"),
        ("", "names no ElementDataFile|names the file '' for its voxels"),
        ("a\0b", "names the file 'a.x00b' for its voxels"),
        ("gone.raw", "gone.raw: there is no such file"),
        (".", "expected a file in"),
        ("pipe", "is a pipe or a device, expected a file"),
    ],
)
def test_what_cannot_be_the_file_with_the_voxels(source, tmp_path, name, expected):
    path = write(source / "1.mhd")
    os.mkfifo(source / "pipe")
    replace_line(path, "ElementDataFile", f"ElementDataFile = {name}")
    sentence = prepare_one(source, tmp_path / "out", ".mhd")
    assert re.search(expected, sentence) and "\n" not in sentence


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"NRRD", b"\0" * 3000, b"NRRD0004\ntype: short\n\n"]
)
def test_what_is_no_header_is_one_sentence(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FssegError, match="cannot be read as an image") as caught:
        read_scan(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_damage_to_packed_voxels_is_found(tmp_path, name):
    path = write(tmp_path / name, packed=True)
    data = stored_with(path)[-1]
    content = bytearray(data.read_bytes())
    content[-20] ^= 0xFF
    data.write_bytes(content)
    with pytest.raises(FssegError, match="cannot be read as an image") as caught:
        read_scan(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sizes", ["20 18 5", "20 17 6", "18 20 7"])
def test_a_header_of_other_sizes_than_the_voxels_have(tmp_path, name, packed, sizes):
    path = write(tmp_path / name, packed)
    start, line = SIZES[name]
    replace_line(path, start, f"{line} {sizes}")
    with pytest.raises(FssegError, match="; .*copy it again"):
        read_scan(path)


@pytest.mark.parametrize(
    "start, line",
    [
        ("NDims", "NDims = 39999"),
        ("NDims", "NDims = 0"),
        ("NDims", ""),
        ("DimSize", ""),
        ("DimSize", "DimSize = 20 18"),
        ("DimSize", "DimSize = 20 18 6 1"),
        ("DimSize", "DimSize = 0 18 6"),
        ("DimSize", "DimSize = 20 18 6\nDimSize = 20 18 6"),
        ("DimSize", "DimSize = " + "9" * 5000 + " 18 6"),
        ("ElementType", ""),
        ("ElementType", "ElementType = MET_OTHER"),
        ("ElementSpacing", "ElementSpacing = 1 nan 6"),
        ("ElementSpacing", "ElementSpacing = 1 1"),
        ("Offset", "Offset = 0 0 inf"),
        ("TransformMatrix", "TransformMatrix = 1 0 0"),
        ("BinaryData ", "ElementNumberOfChannels = 0"),
    ],
)
def test_a_meta_image_header_that_would_end_the_process(tmp_path, capfd, start, line):
    path = write(tmp_path / "a.mhd")
    replace_line(path, start, line)
    with pytest.raises(FssegError, match="cannot be read as an image .its header") as caught:
        read_scan(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert capfd.readouterr().err == ""
