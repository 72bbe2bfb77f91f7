"""Small raw trees in their true formats: what `fsseg prepare` starts from."""

import gzip
import json
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

GREY = {0: 0, 1: 63, 2: 126, 3: 189, 4: 252}


def write_dicom(
    path: Path,
    pixels,
    position,
    *,
    series,
    number,
    direction=(1, 0, 0, 0, 1, 0),
    pixel=(5.0, 5.0),
    leave_out=(),
):
    """One MR slice; `pixels` are rows x columns, `pixel` is the height and width in mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path), str(number)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    slice_.SOPClassUID = MRImageStorage
    slice_.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    slice_.Modality, slice_.PatientID, slice_.PatientName = "MR", "anonymous", "anonymous"
    slice_.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    slice_.SeriesInstanceUID, slice_.InstanceNumber = series, number
    slice_.ImagePositionPatient = [round(float(mm), 6) for mm in position]
    slice_.ImageOrientationPatient = [round(float(cosine), 9) for cosine in direction]
    slice_.PixelSpacing, slice_.SliceThickness = list(pixel), 5.0
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.Rows, slice_.Columns = pixels.shape
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = (
        16,
        16,
        15,
        0,
    )
    slice_.PixelData = np.ascontiguousarray(pixels, dtype="<u2").tobytes()
    for name in leave_out:
        delattr(slice_, name)
    slice_.save_as(path, enforce_file_format=True)


def write_png(path: Path, pixels):
    """A PNG: grey from rows x columns, in colours from rows x columns x 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=pixels.ndim == 3), str(path))


def chaos_scan(seed=0, slices=6, rows=64, columns=64, organs=(1, 2, 3, 4)):
    """Intensities and labels, slices first, rows and columns as in DICOM: a bright block per organ in noise."""
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 400, size=(slices, rows, columns))
    labels = np.zeros(image.shape, dtype=np.uint8)
    for organ in organs:
        top, left = 6 + 12 * organ, 4 + 11 * organ
        labels[1 + organ % 2 : slices - 1, top : top + 9, left : left + 10] = organ
    image[labels > 0] += 200 * labels[labels > 0]
    return image.astype(np.uint16), labels


def write_chaos_patient(
    folder: Path,
    image,
    labels,
    *,
    pixel=(5.0, 5.0),
    step=6.0,
    origin=(-100.0, -120.0, -40.0),
    direction=(1, 0, 0, 0, 1, 0),
    backwards=False,
):
    """`MR/<pid>/T2SPIR` with a DICOM file and a PNG a slice; with `backwards`, numbered from top to bottom."""
    direction = np.asarray(direction, dtype=float)
    normal = np.cross(direction[:3], direction[3:])
    series = generate_uid(entropy_srcs=[str(folder)])
    for index in range(len(image)):
        number = len(image) - index if backwards else index + 1
        stem = f"IMG-0002-{number:05d}"
        position = np.asarray(origin) + index * step * normal
        write_dicom(
            folder / f"T2SPIR/DICOM_anon/{stem}.dcm",
            image[index],
            position,
            series=series,
            number=number,
            direction=direction,
            pixel=pixel,
        )
        greys = np.vectorize(GREY.get)(labels[index]).astype(np.uint8)
        write_png(folder / f"T2SPIR/Ground/{stem}.png", greys)


def write_chaos(root: Path, patients=("1", "2"), **options) -> Path:
    """A CHAOS training set."""
    for patient in patients:
        write_chaos_patient(root / "MR" / patient, *chaos_scan(seed=int(patient)), **options)
    return root


def write_raw_nifti(path: Path, voxels, affine=None, dtype=None):
    """A NIfTI file of voxels in the file's own order (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.5, 1.5, 6.0, 1.0]) if affine is None else affine
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(voxels), affine, dtype=dtype or np.asarray(voxels).dtype),
        path,
    )


def write_btcv(root: Path, numbers=(1, 2), slices=3, size=512, affine=None) -> Path:
    """`img/imgNNNN.nii.gz` and `label/labelNNNN.nii.gz`, 512 x 512."""
    affine = np.diag([-0.8, 0.8, 3.0, 1.0]) if affine is None else affine
    for number in numbers:
        rng = np.random.default_rng(number)
        image = rng.integers(-1000, -900, size=(size, size, slices)).astype(np.int16)
        labels = np.zeros(image.shape, dtype=np.uint8)
        for value in range(1, 14):
            x, y = 60 + 25 * value, 50 + 28 * value
            labels[x : x + 20, y : y + 22, :] = value
        image[labels > 0] = -200 + 40 * labels[labels > 0].astype(np.int16)
        write_raw_nifti(root / f"img/img{number:04d}.nii.gz", image, affine)
        write_raw_nifti(root / f"label/label{number:04d}.nii.gz", labels, affine)
    return root


def write_cmr(
    root: Path, numbers=(1, 2, 10), unlabelled=(), slices=4, size=(150, 140), pixel=1.0
) -> Path:
    """`patient<k>_C0.nii.gz` and `patient<k>_C0_manual.nii.gz`."""
    affine = np.diag([-pixel, -pixel, 10.0, 1.0])
    affine[:3, 3] = [70, 60, -20]
    for number in (*numbers, *unlabelled):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 300, size=(*size, slices)).astype(np.int16)
        labels = np.zeros(image.shape, dtype=np.uint16)
        for index, value in enumerate((200, 500, 600)):
            labels[40 + 20 * index : 58 + 20 * index, 50:80, 1:3] = value
        image[labels > 0] += labels[labels > 0].astype(np.int16)
        write_raw_nifti(root / f"patient{number}_C0.nii.gz", image, affine)
        if number in numbers:
            write_raw_nifti(root / f"patient{number}_C0_manual.nii.gz", labels, affine)
    return root


OBLIQUE = np.array(
    [[-1.2, 0.3, 0.5, 40.0], [0.35, 1.4, 0.6, -30.0], [-0.3, 0.4, 4.9, 12.5], [0.0, 0.0, 0.0, 1.0]],
    dtype=np.float32,
).astype(np.float64)
"""A general affine, with shear: exact in the file's single precision."""


def blob_scan(seed=0, shape=(20, 18, 6), values=(1, 2)):
    """Intensities and labels in the file's order."""
    rng = np.random.default_rng(seed)
    image = rng.integers(-500, 900, size=shape).astype(np.int16)
    labels = np.zeros(shape, dtype=np.uint8)
    for index, value in enumerate(values):
        labels[2 + 5 * index : 6 + 5 * index, 3:9, 1:5] = value
    return image, labels


def write_msd(
    root: Path, cases=("liver_0", "liver_1"), modality=None, labels=None, affine=None, channels=1
) -> Path:
    """A Medical Segmentation Decathlon task; several channels lie along a fourth axis."""
    modality, labels = (
        modality or {"0": "CT"},
        labels or {"0": "background", "1": "Liver", "2": "Liver tumour"},
    )
    for index, case in enumerate(cases):
        image, marked = blob_scan(seed=index)
        if channels > 1:
            image = np.stack(
                [image + 1000 * channel for channel in range(channels)], axis=3
            ).astype(np.int16)
        write_raw_nifti(
            root / f"imagesTr/{case}.nii.gz", image, OBLIQUE if affine is None else affine
        )
        write_raw_nifti(
            root / f"labelsTr/{case}.nii.gz", marked, OBLIQUE if affine is None else affine
        )
        (root / f"imagesTr/._{case}.nii.gz").write_bytes(b"macOS")
    training = [
        {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
        for case in cases
    ]
    described = {"name": "Task Liver", "modality": modality, "labels": labels, "training": training}
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def write_nnunet(
    root: Path, cases=("a_001", "a_002"), channels=("CT",), labels=None, ending=".nii.gz"
) -> Path:
    """An nnU-Net v2 dataset, one file a channel."""
    for index, case in enumerate(cases):
        image, marked = blob_scan(seed=index)
        for channel in range(len(channels)):
            write_any(
                root / f"imagesTr/{case}_{channel:04d}{ending}", image + np.int16(1000 * channel)
            )
        write_any(root / f"labelsTr/{case}{ending}", marked)
    described = {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": labels or {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": len(cases),
        "file_ending": ending,
    }
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def write_any(path: Path, voxels, affine=None):
    """NIfTI, NRRD or MetaImage by the file's name; axis-aligned."""
    if path.name.endswith((".nii", ".nii.gz")):
        write_raw_nifti(path, voxels, affine)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.5, 1.5, 6.0, 1.0]) if affine is None else affine
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T))
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:, 3].tolist())
    SimpleITK.WriteImage(image, str(path), path.suffix != ".mhd")


def write_pairs(root: Path, cases=("01", "02"), ending=".nii.gz", affine=None) -> Path:
    """`sub-<case>/anat/sub-<case>_T2w` and `labels/<case>_seg`."""
    for index, case in enumerate(cases):
        image, labels = blob_scan(seed=index, values=(1, 4))
        write_any(root / f"sub-{case}/anat/sub-{case}_T2w{ending}", image, affine)
        write_any(root / f"labels/{case}_seg{ending}", labels, affine)
    return root


def cut_off(path: Path, share=0.5):
    """The file as a broken copy leaves it."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def write_gzip(path: Path, content: bytes):
    """Compressed bytes."""
    path.write_bytes(gzip.compress(content))


class Notes:
    """Progress that remembers what was said."""

    def __init__(self):
        self.texts = []

    def track(self, items, description, total):
        yield from items

    def note(self, text):
        self.texts.append(text)
