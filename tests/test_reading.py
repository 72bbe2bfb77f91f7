"""Files of scans as people and programs leave them: sizes, units, places and values that cannot be, and advice that helps."""

import gzip
import struct

import nibabel
import numpy as np
import pytest
from helpers import make_folder, write_nifti

from fsseg import FssegError
from fsseg.data.datasets.check import check_folder
from fsseg.data.datasets.folders import NiftiFolder
from fsseg.data.datasets.nifti import read_nifti
from fsseg.data.geometry import check_affine, distance_in_voxels
from fsseg.data.grids import working_grid
from fsseg.prediction.files import _save, read_volume
from fsseg.prepare.read import read_pair
from fsseg.system import memory

SHAPE = (24, 20, 4)
AFFINE = np.diag([1.5, 1.5, 6.0, 1.0])


def content_of(voxels=None, affine=AFFINE, **fields):
    """The bytes of a NIfTI file, with these fields of its header set to whatever is given."""
    if voxels is None:
        voxels = np.random.default_rng(0).integers(0, 400, SHAPE).astype(np.int16)
    content = bytearray(nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype).to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    return bytes(content)


def refusal(path):
    """The sentence with which a file is refused: one line that begins with its name."""
    with pytest.raises(FssegError) as caught:
        read_nifti(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and len(text.splitlines()) == 1
    return text


def write(path, content):
    path.write_bytes(gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)
    return path


HUGE = [3, 30000, 30000, 30000, 1, 1, 1, 1]


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"dim": HUGE}, "its header says 30000 x 30000 x 30000 voxels, 49.1 TiB, and a file of"),
        (
            {"dim": [3, 24, 20, -4, 1, 1, 1, 1]},
            "its header says 24 x 20 x -4 voxels, expected some",
        ),
        ({"vox_offset": np.inf}, "its voxels begin at byte inf"),
        ({"vox_offset": -np.inf}, "its voxels begin at byte -inf"),
        ({"vox_offset": np.nan}, "its voxels begin at byte nan"),
        ({"vox_offset": 1e30}, "voxels, 9.09e+17 TiB, and a file of"),
        ({"vox_offset": -352}, "vox offset -352 too low"),
        ({"pixdim": [1, 1.5, 0, 6, 1, 1, 1, 1]}, "its header says voxels of 1.5 x 0 x 6 mm"),
        ({"pixdim": [1, 1.5, np.nan, 6, 1, 1, 1, 1]}, "its header says voxels of 1.5 x nan x 6"),
        ({"pixdim": [1, np.inf, 1.5, 6, 1, 1, 1, 1]}, "its header says voxels of inf x 1.5 x 6"),
        ({"datatype": 77}, "data code 77 not recognized"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "its affine maps voxels to no place in space"),
        ({"srow_x": [0, 0, 0, 5]}, "its affine maps voxels to no place in space"),
        ({"srow_x": [1, 1, 1, 0], "srow_y": [1, 1, 1, 0]}, "expected axes of three directions"),
        ({"srow_x": [1e30, 0, 0, 0]}, "its voxels are 1e+30 x 1.5 x 6 mm by the affine"),
        ({"srow_x": [1e-9, 0, 0, 0]}, "expected sizes from 1e-06 to 10000 mm"),
        ({"scl_slope": 2, "scl_inter": np.nan}, "Valid slope but invalid intercept"),
        ({"scl_slope": np.inf}, "its voxels are scaled by inf"),
        ({"scl_slope": -np.inf}, "its voxels are scaled by -inf"),
    ],
)
def test_headers_that_cannot_be_true(tmp_path, name, fields, expected):
    assert expected in refusal(write(tmp_path / name, content_of(**fields)))


def test_a_header_of_no_dimension(tmp_path):
    """A scalar has no sizes to take apart; cut short and packed, as a fuzz found it."""
    content = bytearray(content_of())
    content[40] = 0
    for length in (len(content), 352, 360):
        text = refusal(write(tmp_path / "scan.nii.gz", bytes(content[:length])))
        assert "expected 3; a single picture is no scan" in text


@pytest.mark.parametrize(("at", "value"), [(40, 1), (40, 8), (41, 255), (42, 255), (344, 0)])
def test_single_bytes_of_a_header(tmp_path, at, value):
    content = bytearray(content_of())
    content[at] = value
    refusal(write(tmp_path / "scan.nii.gz", bytes(content)))


def test_a_small_file_that_claims_to_be_large_takes_no_memory(tmp_path):
    """Some bytes of gzip with a whole header: what it asks for is not tried."""
    path = write(tmp_path / "scan.nii.gz", content_of(dim=HUGE)[:352])
    assert f"a file of {path.stat().st_size} bytes holds" in refusal(path)


@pytest.mark.parametrize("length", [-8, -1, 0, 2**31 - 1])
def test_extensions_of_a_header_are_passed_over(tmp_path, length):
    """Whatever length they claim: a negative one would read all of the file, however much it unpacks to."""
    plain = content_of()
    content = (
        content_of(vox_offset=368)[:348] + b"\1\0\0\0" + struct.pack("<ii", length, 6) + bytes(8)
    )
    scan = read_nifti(write(tmp_path / "scan.nii.gz", content + plain[352:]))
    assert (scan.voxels == read_nifti(write(tmp_path / "plain.nii", plain)).voxels).all()


def test_a_scan_that_the_machine_cannot_hold(tmp_path, monkeypatch):
    """The limit is named, with what raises it; and it is about what is unpacked, not about the file."""
    voxels = np.zeros((64, 64, 40), dtype=np.uint8)
    voxels[0, 0, 0] = 9
    path = write(tmp_path / "scan.nii.gz", content_of(voxels))
    monkeypatch.setattr(memory, "_physical_memory", lambda: 2**21)
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path / "none")
    text = refusal(path)
    assert "says 64 x 64 x 40 voxels, 640 KiB in memory, expected at most 512 KiB" in text
    assert "a quarter of the 2 MiB of memory" in text and "set FSSEG_MAX_SCAN_GIB=1 if" in text
    monkeypatch.setenv("FSSEG_MAX_SCAN_GIB", "1")
    assert read_nifti(path).voxels.shape == (64, 64, 40)
    for wrong in ("much", "-1", "nan", "inf", "0"):
        monkeypatch.setenv("FSSEG_MAX_SCAN_GIB", wrong)
        with pytest.raises(FssegError, match=f"FSSEG_MAX_SCAN_GIB: is '{wrong}', expected the GiB"):
            read_nifti(path)


def test_memory_is_that_of_the_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path / "memory.max")
    whole = memory.machine_memory()
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.machine_memory() == whole > 2**28
    (tmp_path / "memory.max").write_text("1048576\n")
    assert memory.machine_memory() == 2**20


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.nii.gz", content_of(), "(it is not compressed); rename it to a.nii"),
        ("a.nii", gzip.compress(content_of(), mtime=0), "(it is compressed); rename it to a.nii.gz"),
        ("a.nii.gz", b"", "(it is empty); it is damaged or cut off, copy it again"),
        ("a.nii.gz", b"<!DOCTYPE html><html>", "no gzip file but begins with '<!DOCTYPE html><html'"),
        ("a.nii", b"version https://git-lfs.github.com/spec/v1\n", "fetch the file itself with git lfs"),
        ("a.nii", b"\x93NUMPY" + bytes(400), "(it does not begin as NIfTI files do)"),
        ("a.nii.gz", gzip.compress(content_of(), mtime=0)[:-9], "damaged or cut off, copy it again"),
        ("a.nii.gz", gzip.compress(content_of()[:-20], mtime=0), "Expected 3840 bytes, got 3820 bytes from"),
        ("a.nii.gz", gzip.compress(content_of()[:2], mtime=0), "(it ends within its header)"),
        ("a.nii.gz", gzip.compress(content_of()[:340], mtime=0), "(it ends within its header)"),
        ("a.nii", content_of()[:340], "(it ends within its header)"),
        ("a.nii", content_of()[:-20], "4.09 KiB, and a file of 4.07 KiB holds 4.07 KiB at most"),
    ],
)  # fmt: skip
def test_files_that_are_something_else(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert expected in refusal(tmp_path / name)


def test_a_folder_or_a_pipe_in_place_of_a_scan(tmp_path):
    import os

    (tmp_path / "a.nii.gz").mkdir()
    assert "is a folder, expected a NIfTI image" in refusal(tmp_path / "a.nii.gz")
    os.mkfifo(tmp_path / "b.nii.gz")
    assert "is no regular file" in refusal(tmp_path / "b.nii.gz")


def test_a_flipped_bit_is_found_by_the_checksum_at_the_end(tmp_path):
    """Voxels that are stored, not packed, change without a complaint; what follows the end is no damage."""
    content = content_of()
    packed = bytearray(gzip.compress(content, 0, mtime=0))
    (tmp_path / "a.nii.gz").write_bytes(bytes(packed) + bytes(20))
    assert read_nifti(tmp_path / "a.nii.gz").voxels.shape == SHAPE
    (tmp_path / "a.nii.gz").write_bytes(bytes(packed) + b"left by another program")
    assert read_nifti(tmp_path / "a.nii.gz").voxels.shape == SHAPE
    packed[1000] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(packed)
    assert "CRC check failed" in refusal(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((24, 20), "has 2 dimensions (24 x 20), expected 3; a single picture is no scan"),
        ((24,), "has 1 dimensions (24), expected 3"),
        ((24, 20, 4, 1, 3), "has 4 dimensions (24 x 20 x 4 x 1 x 3), expected 3; split it"),
        ((24, 20, 4, 2), "has 4 dimensions (24 x 20 x 4 x 2), expected 3; split it"),
        ((24, 20, 4, 2, 3), "has 5 dimensions"),
        ((24, 20, 0), "its header says 24 x 20 x 0 voxels, expected some along each axis"),
        ((24, 20, 4, 1), None),
        ((24, 20, 4, 1, 1), None),
        ((24, 20, 4, 1, 1, 1, 1), None),
        ((24, 20, 1), None),
    ],
)
def test_dimensions(tmp_path, shape, expected):
    voxels = np.arange(np.prod(shape)).reshape(shape).astype(np.int16)
    path = tmp_path / "a.nii"
    content = bytearray(nibabel.Nifti1Image(voxels, AFFINE).to_bytes())
    content[42:56] = np.array([*shape, *[1] * (7 - len(shape))], "<i2").tobytes()
    path.write_bytes(content)
    if expected is None:
        assert (read_nifti(path).voxels == voxels.reshape(shape[:3])).all()
    else:
        assert expected in refusal(path)


def test_a_channel_is_taken_of_a_fifth_axis_too(tmp_path):
    voxels = np.arange(24 * 20 * 4 * 3).reshape(24, 20, 4, 1, 3).astype(np.int16)
    path = write(tmp_path / "a.nii.gz", content_of(voxels))
    assert (read_nifti(path, channel=2).voxels == voxels[..., 0, 2]).all()
    with pytest.raises(FssegError, match="has 3 channels, expected one with number 3"):
        read_nifti(path, channel=3)


@pytest.mark.parametrize(
    ("unit", "factor"), [("micron", 1000), ("meter", 0.001), ("mm", 1), ("unknown", 1)]
)
def test_lengths_are_millimetres_whatever_the_unit(tmp_path, unit, factor):
    affine = np.array([[-1.5, 0, 0, 30], [0, 1.5, 0, -20], [0, 0, 6, 5], [0, 0, 0, 1.0]])
    stored = affine * factor
    stored[3, 3] = 1
    image = nibabel.Nifti1Image(np.arange(1920).reshape(SHAPE).astype(np.int16), stored)
    image.header.set_xyzt_units(unit, "sec")
    image.to_filename(tmp_path / "a.nii.gz")
    scan = read_nifti(tmp_path / "a.nii.gz")
    assert scan.voxel_sizes == pytest.approx((1.5, 1.5, 6), rel=1e-5)
    assert np.allclose(scan.affine, affine, rtol=1e-5)
    assert read_volume(tmp_path / "a.nii.gz").spacing == pytest.approx((6, 1.5, 1.5), rel=1e-5)


@pytest.mark.parametrize("unit", ["micron", "meter", "unknown"])
def test_predictions_keep_the_unit_of_their_scan(tmp_path, unit):
    """Fields of the header are copied as they are, so what they count in must be, too."""
    voxels = np.arange(1920).reshape(SHAPE).astype(np.int16)
    image = nibabel.Nifti1Image(voxels, AFFINE)
    image.header.set_xyzt_units(unit, "sec")
    image.to_filename(tmp_path / "scan.nii.gz")
    _save(tmp_path / "out.nii.gz", tmp_path / "scan.nii.gz", voxels.astype(np.uint8))
    scan, written = (read_nifti(tmp_path / f"{name}.nii.gz") for name in ("scan", "out"))
    assert np.allclose(scan.affine, written.affine) and scan.voxel_sizes == written.voxel_sizes
    lengths, times = nibabel.load(tmp_path / "out.nii.gz").header.get_xyzt_units()
    assert (lengths, times) == ("mm" if unit == "unknown" else unit, "unknown")


OTHER_FORMATS = {
    "a.mgz": nibabel.MGHImage,
    "a.img": nibabel.Nifti1Pair,
    "a.hdr": nibabel.Nifti1Pair,
    "a.nii": nibabel.Nifti2Image,
    "a.nii.bz2": nibabel.Nifti1Image,
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_other_formats_are_read_or_refused(tmp_path, name):
    voxels = np.random.default_rng(0).integers(0, 400, SHAPE).astype(np.int16)
    OTHER_FORMATS[name](voxels, AFFINE).to_filename(tmp_path / name)
    scan = read_nifti(tmp_path / name)
    assert (scan.voxels == voxels).all() and np.allclose(scan.affine, AFFINE)
    assert scan.voxel_sizes == (1.5, 1.5, 6)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2] if name != "a.hdr" else content[:40])
    refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["a.par", "a.mnc", "a.gii", "a.HEAD", "a.nii.zst", "a.txt"])
def test_files_of_no_format_at_all(tmp_path, name):
    (tmp_path / name).write_bytes(b"\1\2\3hello" * 60)
    assert "a format that is not read, convert it to NIfTI" in refusal(tmp_path / name)


def test_the_unit_of_a_pair_counts(tmp_path):
    image = nibabel.Nifti1Pair(np.arange(1920).reshape(SHAPE).astype(np.int16), AFFINE)
    image.header.set_xyzt_units("micron")
    image.to_filename(tmp_path / "a.img")
    assert read_nifti(tmp_path / "a.hdr").voxel_sizes == pytest.approx((0.0015, 0.0015, 0.006))


def test_volumes_are_those_of_the_unit(tmp_path):
    """In micrometres a folder has the same table as in millimetres, and the labels may have another unit."""
    root = make_folder(tmp_path / "scans", cases=4)
    expected = check_folder(root).table()
    for path in root.glob("*.nii.gz"):
        file = nibabel.load(path)
        affine = file.affine * 1000
        affine[3, 3] = 1
        image = nibabel.Nifti1Image(np.asanyarray(file.dataobj), affine)
        image.header.set_xyzt_units("micron")
        if path.name != "label_1.nii.gz":
            image.to_filename(path)
    checked = check_folder(root)
    assert checked.findings == []
    for row, before in zip(checked.table(), expected, strict=True):
        assert row["ml"] == pytest.approx(before["ml"], rel=1e-5)


def turned(degrees):
    radians = np.deg2rad(degrees)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]]
    return rotation


def moved(affine, axis, voxels):
    """The affine of a grid that is shifted by so many voxels along an axis of the file."""
    shift = np.eye(4)
    shift[axis, 3] = voxels
    return affine @ shift


SMALL = np.diag([4e-3, 4e-3, 4e-3, 1.0])
PLACES = {
    "the same": (AFFINE, AFFINE, True),
    "a header rounded to three digits": (np.diag([0.703125, 0.703125, 5, 1]), np.diag([0.7031, 0.7031, 5, 1]), True),
    "a fifth of a voxel": (AFFINE, moved(AFFINE, 0, 0.2), True),
    "a fifth of a slice": (AFFINE, moved(AFFINE, 2, 0.2), True),
    "half a voxel": (AFFINE, moved(AFFINE, 1, 0.5), False),
    "half a slice": (AFFINE, moved(AFFINE, 2, 0.5), False),
    "half a voxel of micrometres": (SMALL, moved(SMALL, 0, 0.5), False),
    "a tenth of a voxel far from the origin": (moved(AFFINE, 0, 9000), moved(AFFINE, 0, 9000.1), True),
    "half a voxel far from the origin": (moved(AFFINE, 0, 9000), moved(AFFINE, 0, 9000.5), False),
    "half a degree": (AFFINE, turned(0.5) @ AFFINE, False),
    "a hundredth of a degree": (AFFINE, turned(0.01) @ AFFINE, True),
    "slices in the other order": (AFFINE, moved(AFFINE, 2, 3) @ np.diag([1, 1, -1, 1.0]), False),
    "slices 2 percent apart": (np.diag([1, 1, 5, 1.0]), np.diag([1, 1, 5.1, 1.0]), True),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_grids_are_compared_where_the_corners_lie(tmp_path, place):
    """The doctor, a run, prediction and preparation agree; 200 rows make a degree and a digit matter."""
    image_affine, label_affine, is_same = PLACES[place]
    image = np.random.default_rng(0).integers(0, 400, (200, 40, 4)).astype(np.int16)
    labels = (image > 200).astype(np.uint8)
    (tmp_path / "dataset.toml").write_text("[classes]\na = 1\n")
    image_path, label_path = (tmp_path / f"{what}_1.nii.gz" for what in ("image", "label"))
    image_path.write_bytes(gzip.compress(content_of(image, image_affine), 1, mtime=0))
    label_path.write_bytes(gzip.compress(content_of(labels, label_affine), 1, mtime=0))
    readers = (
        lambda: NiftiFolder(root=str(tmp_path)).load("1"),
        lambda: read_volume(image_path, label_path),
        lambda: read_pair(image_path, label_path),
    )
    problems = [finding.text for finding in check_folder(tmp_path).findings]
    told = [text for text in problems if text.startswith(f"{label_path}: its a")]
    assert len(told) == (0 if is_same else 1)
    for read in readers:
        if is_same:
            read()
            continue
        with pytest.raises(FssegError) as caught:
            read()
        assert str(caught.value) == told[0]


def test_distances_are_in_voxels_of_the_first():
    assert distance_in_voxels(AFFINE, moved(AFFINE, 2, 0.5), SHAPE) == pytest.approx(0.5)
    wider = np.diag([1.515, 1.5, 6, 1])
    assert distance_in_voxels(AFFINE, wider, (101, 5, 5)) == pytest.approx(1.0)
    assert distance_in_voxels(AFFINE, wider, (1, 5, 5)) == 0
    assert np.isnan(distance_in_voxels(AFFINE, np.full((4, 4), np.nan), SHAPE))


def test_small_voxels_are_a_place():
    """A determinant below 1e-9 is that of voxels below a micrometre."""
    check_affine("scan", np.diag([5e-4, 5e-4, 5e-4, 1]))
    check_affine("scan", np.diag([1e-5, 1e-5, 1e-4, 1]))


def sheared(file):
    affine = AFFINE.copy()
    affine[1, 2] = 3
    file.set_sform(affine, 1)
    file.header["pixdim"][3] = np.hypot(6, 3)


def told_twice(file):
    file.set_sform(AFFINE, 1)
    file.set_qform(moved(AFFINE, 0, 5), 1)


def no_rotation(file):
    file.set_sform(AFFINE, 1)
    file.header["qform_code"] = 1
    file.header["quatern_b"] = 0.9
    file.header["quatern_c"] = 0.9


def metres(file):
    file.header.set_xyzt_units("meter")


def negative_sizes(file):
    file.header["pixdim"][1] = -1.5


def both_the_same(file):
    file.set_sform(AFFINE, 1)
    file.set_qform(AFFINE, 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (sheared, "its axes are not at right angles (a sheared affine"),
        (told_twice, "its qform puts it 5 voxels from where its sform does"),
        (no_rotation, "its qform puts it nan voxels from where its sform does"),
        (
            metres,
            "its voxels are 1.5e+03 x 1.5e+03 x 6e+03 mm; is the unit of length in its header",
        ),
        (negative_sizes, "pixdim[1,2,3] should be positive"),
        (both_the_same, None),
    ],
)
@pytest.mark.parametrize("what", ["image", "label", "both"])
def test_the_doctor_warns_of_strange_headers_once(tmp_path, capfd, change, expected, what):
    root = make_folder(tmp_path / "scans", cases=4)
    for name in ("image", "label") if what == "both" else (what,):
        path = root / f"{name}_2.nii.gz"
        file = nibabel.load(path)
        image = nibabel.Nifti1Image(np.asanyarray(file.dataobj), file.affine)
        change(image)
        content = bytearray(image.to_bytes())
        content[:348] = image.header.binaryblock
        path.write_bytes(gzip.compress(content, 1, mtime=0))
    findings = [f.text for f in check_folder(root).findings if f.severity == "warning"]
    assert capfd.readouterr() == ("", "")
    if expected is None:
        assert findings == []
    else:
        [finding] = findings
        first = "image" if what == "both" else what
        assert finding.startswith(f"{root / first}_2.nii.gz: {expected}")


STRANGE = {
    "ignored": (-1, "has label values -1, expected whole numbers from 0 to 65535"),
    "infinite": (np.inf, "inf"),
    "negative infinite": (-np.inf, "-inf"),
    "not a number": (np.nan, "nan"),
    "enormous": (1e20, "1e+20"),
    "half": (0.5, "0.5"),
    "too large": (70000, "70000"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_label_is_none_to_any_command(tmp_path, name):
    """Whatever the type that holds it; and where others are background, only whole numbers are."""
    value, expected = STRANGE[name]
    image = np.random.default_rng(0).integers(0, 400, (4, 20, 24)).astype(np.int16)
    labels = (image > 200).astype(np.float64)
    labels[0, 0, 0] = value
    kinds = [np.float64, np.int32] if name in ("ignored", "too large") else [np.float64]
    for kind in kinds:
        write_nifti(tmp_path / "image_1.nii.gz", image)
        write_nifti(tmp_path / "label_1.nii.gz", labels.astype(kind))
        for reader in (read_volume, read_pair):
            with pytest.raises(FssegError) as caught:
                reader(tmp_path / "image_1.nii.gz", tmp_path / "label_1.nii.gz")
            assert expected in str(caught.value) and "label_1.nii.gz: has label values" in str(
                caught.value
            )
        for others in ("error", "background"):
            (tmp_path / "dataset.toml").write_text(f"other_labels = '{others}'\n[classes]\na = 1\n")
            refused = any("has labels" in f.text for f in check_folder(tmp_path).findings)
            assert refused == (others == "error" or not float(value).is_integer())


def test_an_image_in_place_of_labels(tmp_path):
    """Intensities differ from voxel to voxel; labels form areas, however many there are."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 250, (6, 40, 40)).astype(np.int16)
    write_nifti(tmp_path / "image_1.nii.gz", image)
    for given in (image, image.astype(np.float32), image.astype(np.uint8)):
        write_nifti(tmp_path / "label_1.nii.gz", given)
        for reader in (read_volume, read_pair):
            with pytest.raises(
                FssegError, match="has 250 values, and neighbouring voxels mostly differ"
            ) as caught:
                reader(tmp_path / "image_1.nii.gz", tmp_path / "label_1.nii.gz")
            assert str(caught.value).endswith("is it the image?")
    (tmp_path / "dataset.toml").write_text("other_labels = 'background'\n[classes]\na = 1\n")
    assert any("is it the image?" in finding.text for finding in check_folder(tmp_path).findings)
    many = np.arange(100).reshape(1, 10, 10).repeat(6, 0).repeat(4, 1).repeat(4, 2)
    write_nifti(tmp_path / "label_1.nii.gz", many.astype(np.uint16))
    volume = read_volume(tmp_path / "image_1.nii.gz", tmp_path / "label_1.nii.gz")
    assert len(np.unique(volume.labels)) == 100


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(np.uint8, np.uint8), (np.int16, np.int16), (np.float32, np.uint8), (np.float64, np.uint8)],
)
def test_labels_come_as_whole_numbers(tmp_path, kind, expected):
    image = np.random.default_rng(0).integers(0, 400, (4, 20, 24)).astype(np.int16)
    write_nifti(tmp_path / "i.nii.gz", image)
    write_nifti(tmp_path / "l.nii.gz", (image // 100).astype(kind))
    labels = read_volume(tmp_path / "i.nii.gz", tmp_path / "l.nii.gz").labels
    assert labels.dtype == expected and sorted(np.unique(labels).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e300, "its intensities go from 0 to 1e+300, expected single precision (up to 3.4e+38)"),
        (-1e39, "its intensities go from -1e+39 to"),
        (np.nan, "1 voxels are NaN or infinite"),
        (np.inf, "1 voxels are NaN or infinite"),
    ],
)
def test_intensities_beyond_single_precision(tmp_path, value, expected):
    root = make_folder(tmp_path / "scans", cases=4)
    image = np.abs(read_nifti(root / "image_2.nii.gz").voxels.T.astype(np.float64))
    image[0, 0, 0] = value
    image[0, 0, 1] = 0
    write_nifti(root / "image_2.nii.gz", image)
    for read in (
        lambda: read_volume(root / "image_2.nii.gz"),
        lambda: NiftiFolder(root=str(root)).load("2"),
    ):
        with pytest.raises(FssegError) as caught:
            read()
        assert f"image_2.nii.gz: {expected}" in str(caught.value)
    assert [expected in f.text for f in check_folder(root).findings] == [True]


@pytest.mark.parametrize(
    "rule", ["window = [5000, 6000]", "window = [-9, -5]", "percentiles = [0, 0.001]"]
)
def test_a_window_that_leaves_nothing_of_a_scan(tmp_path, rule):
    root = make_folder(tmp_path / "scans", cases=4)
    write_nifti(
        root / "image_2.nii.gz", np.maximum(read_nifti(root / "image_2.nii.gz").voxels.T, 300)
    )
    description = (root / "dataset.toml").read_text()
    (root / "dataset.toml").write_text(f"{description}\n[intensity]\n{rule}\n")
    texts = [finding.text for finding in check_folder(root).findings]
    [text] = [text for text in texts if "image_2.nii.gz" in text]
    assert "once clipped to the" in text and "correct [intensity]" in text
    with pytest.raises(FssegError, match="image_2.nii.gz: every voxel is"):
        NiftiFolder(root=str(root)).load("2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[intensity]\nwindow = [-inf, 3.0]", "intensity.window: expected a finite number"),
        ("[intensity]\nwindow = [nan, 3.0]", "intensity.window: expected a finite number"),
        ("[intensity]\nwindow = [0.0, 1e300]", "intensity.window: expected 0 or a number from"),
        ("[intensity]\npercentiles = [0.0, nan]", "intensity.percentiles: expected a finite"),
        ("", "classes: names 300 classes, expected at most 255"),
    ],
)
def test_descriptions_of_numbers_that_are_none(tmp_path, text, expected):
    count = 1 if text else 300
    classes = "\n".join(f"c{number} = {number}" for number in range(1, count + 1))
    (tmp_path / "dataset.toml").write_text(f"[classes]\n{classes}\n{text}\n")
    with pytest.raises(FssegError) as caught:
        NiftiFolder(root=str(tmp_path))
    assert expected in str(caught.value)


def test_least_sizes_of_supervoxels_are_bounded(tmp_path):
    (tmp_path / "dataset.toml").write_text(f"supervoxel_min_size = {2**40}\n[classes]\na = 1\n")
    with pytest.raises(FssegError, match="supervoxel_min_size: expected less than or equal"):
        NiftiFolder(root=str(tmp_path))


@pytest.mark.parametrize(
    ("own", "pixel", "options", "expected"),
    [
        ((48, 48), (1250.0, 1250.0), {"spacing": 1.25}, "4.8e+04 x 4.8e+04 pixels (slices of 6e+04"),
        ((512, 512), (0.7, 0.7), {"spacing": 0.05}, "7168 x 7168 pixels (slices of 358.4 x 358.4 mm"),
        ((64, 64), (1.0, 1.0), {"size": 5000}, "5000 x 5000 pixels (grid.size = 5000)"),
        ((5000, 64), (1.0, 1.0), {"max_size": 8000}, "5000 x 64 pixels (slices of 5000 x 64 pixels)"),
        ((9000, 9000), (1.0, 1.0), {"max_size": 4500}, "4500 x 4500 pixels (slices of 9000 x"),
        ((64, 64), (1e300, 1.0), {"spacing": 1e-300}, "inf x"),
        ((64, 64), (np.nan, 1.0), {"spacing": 1.0}, "nan x 64 pixels"),
    ],
)  # fmt: skip
def test_working_grids_that_are_too_large(own, pixel, options, expected):
    with pytest.raises(FssegError) as caught:
        working_grid(own, pixel, **options)
    assert expected in str(caught.value) and "expected at most 4096 a side" in str(caught.value)
    assert working_grid((4096, 4096), (1.0, 1.0), max_size=4096).is_own


def test_scans_of_one_slice_are_not_ready_to_run(tmp_path):
    root = make_folder(tmp_path / "scans", cases=4, slices=1)
    assert (root / "dataset.toml").is_file()
    for case in range(1, 5):
        labels = read_nifti(root / f"label_{case}.nii.gz").voxels.T.copy()
        labels[0, 36:56, 34:54] = 2
        write_nifti(root / f"label_{case}.nii.gz", labels)
    checked = check_folder(root)
    [finding] = checked.findings
    assert finding.severity == "problem" and not checked.usable
    assert "the scans that fold 0 of disjoint2 trains on have one slice each" in finding.text


def test_a_scan_of_one_slice_among_others_is_named(tmp_path):
    root = make_folder(tmp_path / "scans", cases=5)
    for what in ("image", "label"):
        voxels = read_nifti(root / f"{what}_3.nii.gz").voxels.T
        write_nifti(root / f"{what}_3.nii.gz", voxels[2:3])
    checked = check_folder(root)
    [finding] = checked.findings
    assert checked.usable and finding.text.startswith(f"{root}: 1 scan(s) of one slice: 3;")


def test_slices_along_the_wrong_axis_are_named(tmp_path):
    root = make_folder(tmp_path / "scans", cases=4, size=64, slices=4)
    (root / "dataset.toml").write_text(f"axis = 0\n{(root / 'dataset.toml').read_text()}")
    texts = [finding.text for finding in check_folder(root).findings]
    [text] = [text for text in texts if "pixels" in text]
    assert "slices of less than 8 pixels in 4 scan(s): 1, 2, 3, 4;" in text
