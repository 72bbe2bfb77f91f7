"""DICOM files whose header and pixels do not agree, or that do not say where they lie: a sentence, and no voxel."""

import logging
import warnings

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless
from raw_trees import Notes, chaos_scan, write_chaos, write_dicom

from fsseg import FssegError
from fsseg.prepare.dicom import read_series
from fsseg.prepare.engine import prepare
from fsseg.prepare.layouts import chaos

PIXELS = np.random.default_rng(0).integers(0, 4000, (24, 20)).astype(np.uint16)
EXPECTED = PIXELS.T


def write_series(folder, count=3):
    files = [folder / f"{number}.dcm" for number in range(count)]
    for number, path in enumerate(files):
        write_dicom(path, PIXELS, (0, 0, 5 * number), series="1.2.3", number=number)
    return files


def change(path, **values):
    """Sets elements of a file, or takes them out where they are None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = pydicom.dcmread(path)
        for name, value in values.items():
            if value is None:
                delattr(file, name)
            else:
                setattr(file, name, value)
        file.save_as(path)


def compress(path, kind):
    """Stores the pixels of a file in another way."""
    file = pydicom.dcmread(path)
    if kind == "deflated":
        file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    elif kind == "RLE":
        file.compress(RLELossless)
    else:
        writer = SimpleITK.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(kind)
        other = path.with_name("compressed")
        writer.SetFileName(str(other))
        writer.Execute(SimpleITK.GetImageFromArray(PIXELS[None]))
        compressed = pydicom.dcmread(other)
        other.unlink()
        file.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
        file.PixelData = compressed.PixelData
        file["PixelData"].VR = "OB"
        file["PixelData"].is_undefined_length = True
    file.save_as(path)


KINDS = ["deflated", "RLE", "JPEG", "JPEG2000"]


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_pixels_come_as_they_are_however_they_are_stored(tmp_path, kind):
    files = write_series(tmp_path)
    if kind is not None:
        for path in files:
            compress(path, kind)
    scan, order, notes = read_series(files[::-1])
    assert order == files and notes == []
    assert (scan.voxels == EXPECTED[..., None]).all() and scan.spacing == (5, 5, 5)


def test_pixels_have_their_height_and_width(tmp_path):
    files = write_series(tmp_path)
    for path in files:
        change(path, PixelSpacing=[1.5, 0.75])
    assert read_series(files).scan.spacing == (0.75, 1.5, 5), "DICOM has the distance of rows first"


@pytest.mark.parametrize(
    "values, expected",
    [
        (
            {"PixelSpacing": None},
            "lacks PixelSpacing, expected 2 numbers that say how large a pixel",
        ),
        ({"PixelSpacing": [0, 0]}, r"its PixelSpacing is 0\\0, expected two numbers above 0"),
        ({"PixelSpacing": [1.5, 0]}, r"its PixelSpacing is 1.5\\0"),
        ({"PixelSpacing": [-1, 1]}, r"its PixelSpacing is -1\\1"),
        ({"PixelSpacing": ""}, "lacks PixelSpacing"),
        ({"PixelSpacing": [1.5]}, "lacks PixelSpacing|cannot be read as DICOM"),
        ({"PixelSpacing": [1e300, 1e300]}, "lacks PixelSpacing"),
        ({"ImagePositionPatient": None}, "lacks ImagePositionPatient, expected 3 numbers"),
        ({"ImagePositionPatient": [0, 1e30, 0]}, "lacks ImagePositionPatient"),
        ({"ImagePositionPatient": ""}, "lacks ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "lacks ImageOrientationPatient, expected 6 numbers"),
        (
            {"ImageOrientationPatient": [0] * 6},
            r"its ImageOrientationPatient is 0\\0\\0.* length 1",
        ),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "at right angles; export the series"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "its RescaleSlope is 0, expected a number"),
        ({"SamplesPerPixel": 3}, "has colours or several frames"),
        ({"NumberOfFrames": 4}, "has colours or several frames"),
        ({"Rows": 25}, "has 960 bytes of pixels, expected 1000 of 20 columns and 25 rows"),
        ({"Rows": 23}, "has 960 bytes of pixels, expected 920"),
        ({"Columns": 21}, "has 960 bytes of pixels, expected 1008"),
        ({"Rows": 65535, "Columns": 65535}, "has 960 bytes of pixels, expected 8589672450"),
        ({"BitsAllocated": 32}, "has 960 bytes of pixels, expected 1920"),
        ({"Rows": None}, "has no pixels"),
        ({"BitsAllocated": 0}, "has no pixels"),
        ({"PixelData": None}, "has no pixels .*; it is cut off or no image"),
        ({"PixelData": b""}, "has no pixels"),
        ({"PixelData": PIXELS.tobytes()[:100]}, "has 100 bytes of pixels, expected 960"),
    ],
)
def test_what_a_header_lacks_is_not_made_up(tmp_path, values, expected):
    files = write_series(tmp_path)
    for path in files:  # all of them: one alone would differ from the others
        change(path, **values)
    with pytest.raises(FssegError, match=expected) as caught:
        read_series(files)
    assert str(caught.value).startswith(f"{files[0]}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"Rows": 20, "Columns": 24},
        {"PixelSpacing": [5, 6]},
        {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]},
    ],
)
def test_slices_of_one_scan_are_alike(tmp_path, values):
    files = write_series(tmp_path)
    change(files[1], **values)
    with pytest.raises(
        FssegError, match="its size, pixel spacing or direction differs|at the same place"
    ):
        read_series(files)


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_never_read(tmp_path, kind, share):
    files = write_series(tmp_path)
    if kind is not None:
        compress(files[1], kind)
    content = files[1].read_bytes()
    files[1].write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FssegError) as caught:
        read_series(files)
    assert str(caught.value).startswith(f"{files[1]}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["RLE", "JPEG", "JPEG2000"])
@pytest.mark.parametrize("change_frame", ["short", "rows", "syntax", "start"])
def test_compressed_pixels_that_are_not_those_of_the_header(tmp_path, kind, change_frame):
    files = write_series(tmp_path)
    compress(files[1], kind)
    file = pydicom.dcmread(files[1])
    if change_frame == "short":
        frame = next(generate_frames(file.PixelData, number_of_frames=1))
        file.PixelData = encapsulate([frame[: len(frame) // 2]])
    elif change_frame == "start":  # GDCM ends the process where an RLE frame has no parts
        frame = next(generate_frames(file.PixelData, number_of_frames=1))
        file.PixelData = encapsulate([b"\0" * 4 + frame[4:]])
    elif change_frame == "rows":
        for path in (files[0], files[2]):
            change(path, Rows=48, PixelData=PIXELS.tobytes() * 2)
        file.Rows = 48
    else:
        file.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.3.4")
    file.save_as(files[1], implicit_vr=False, little_endian=True)
    with pytest.raises(
        FssegError, match="its pixels .*; .*(copy it again|export the series)"
    ) as caught:
        read_series(files)
    assert str(caught.value).startswith(f"{files[1]}: ") and "\n" not in str(caught.value)


@pytest.fixture
def warning_pydicom(monkeypatch):
    """pydicom with something to say of every file, on two lines and with an escape sequence."""
    read = pydicom.dcmread

    def warn(path, **options):
        warnings.warn("two\nlines", UserWarning, stacklevel=1)
        logging.getLogger("pydicom").warning("logged \x1b[31m")
        return read(path, **options)

    monkeypatch.setattr(pydicom, "dcmread", warn)


@pytest.mark.parametrize(
    "kind, at, value",
    [
        ("JPEG", 6, b"\x11"),  # 17 bits, for which GDCM ends the process
        ("JPEG", 7, b"\0\x19"),
        ("JPEG", 11, b"\x03"),
        ("JPEG", 3, b"\xd8"),
        ("JPEG2000", 8, b"\0\0\0\x19"),
        ("JPEG2000", 40, b"\0\x03"),
    ],
)
def test_compressed_pixels_whose_own_header_is_damaged(tmp_path, kind, at, value):
    files = write_series(tmp_path)
    compress(files[1], kind)
    file = pydicom.dcmread(files[1])
    frame = next(generate_frames(file.PixelData, number_of_frames=1))
    file.PixelData = encapsulate([frame[:at] + value + frame[at + len(value) :]])
    file.save_as(files[1])
    with pytest.raises(FssegError, match="are no grey image of 20 columns and 24 rows"):
        read_series(files)


def test_what_pydicom_warns_of_is_told_on_one_line(tmp_path, capfd, warning_pydicom):
    files = write_series(tmp_path)
    notes = read_series(files).notes
    assert notes == [
        f"{files[0]} (and 2 more slices): pydicom warns: logged \\x1b[31m",
        f"{files[0]} (and 2 more slices): pydicom warns: two lines",
    ]
    change(files[0], PixelSpacing=None)
    warned = r"lacks PixelSpacing.*\(pydicom warns: logged .*; two lines\)"
    with pytest.raises(FssegError, match=warned):
        read_series(files)
    assert capfd.readouterr().err == ""


def test_warnings_reach_the_user_and_the_manifest(tmp_path, warning_pydicom):
    root = write_chaos(tmp_path / "raw", patients=("1",))
    notes = Notes()
    outcome = prepare(chaos.plan(root), tmp_path / "out", jobs=1, progress=notes)
    outcome.raise_problems()
    assert len(notes.texts) == 2 and all("pydicom warns" in text for text in notes.texts)
    assert outcome.manifest.cases["1"]["notes"] == notes.texts


def test_a_constant_series_is_no_image(tmp_path):
    root = write_chaos(tmp_path / "raw", patients=("1", "2"))
    image, _ = chaos_scan()
    for path in (root / "MR/1/T2SPIR/DICOM_anon").iterdir():
        change(path, PixelData=np.full_like(image[0], 7).tobytes())
    outcome = prepare(chaos.plan(root), tmp_path / "out", jobs=1)
    assert "DICOM_anon: every voxel is 7, expected an image" in outcome.problems["1"]
