"""CHAOS (Kavur et al., 2021): abdominal T2-SPIR MR, DICOM slices with PNG masks, as ALPNet, ADNet and TPM use it.

The published label maps number the organs by the rank of their grey value, which is wrong where an organ is absent;
here the grey values' ranges decide. Everything else is the published preprocessing, without its slips unless they are
asked for (`as_published`).
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from fsseg.data.datasets.nifti import ScanFile, first_few
from fsseg.data.datasets.patterns import by_number
from fsseg.data.datasets.scans import image_problems
from fsseg.errors import DataError
from fsseg.prepare.dicom import read_mask, read_series
from fsseg.prepare.dicom_pixels import dicom
from fsseg.prepare.plan import CasePlan, Plan, Prepared, first_folder
from fsseg.prepare.resample import itk, resample, resample_labels
from fsseg.prepare.scan import TOP, as_integers, clip_top, crop_or_pad, refuse_shear

SPACING = (1.25, 1.25, 7.70)
SIZE = 256
IMAGE = "chaos_MR_T2_normalized/image_{case}.nii.gz"
LABEL = "chaos_MR_T2_normalized/label_{case}.nii.gz"


class Organ(NamedTuple):
    """An organ in the masks: its class value, and its lowest and highest grey as the challenge defines them."""

    value: int
    lowest: int
    highest: int


GREYS = {
    "liver": Organ(1, 55, 70),
    "right_kidney": Organ(2, 110, 135),
    "left_kidney": Organ(3, 175, 200),
    "spleen": Organ(4, 240, 255),
}

EXPECTED = "the CHAOS training set with MR/<patient>/T2SPIR/DICOM_anon/*.dcm and MR/<patient>/T2SPIR/Ground/*.png"


def plan(source: Path, as_published: bool = False) -> Plan:
    """Plans the patients of the training set.

    Args:
        source: The set's root, its Train_Sets or its MR folder.
        as_published: Keep the published files' truncation, sizes, float64 voxels and uncropped origin.

    Raises:
        DataError: There is no patient, or SimpleITK or pydicom is missing.
    """
    itk()
    dicom()
    places = (".", "MR", "Train_Sets/MR", "CHAOS_Train_Sets/Train_Sets/MR")
    folder = first_folder(source, places, "*/T2SPIR/DICOM_anon", EXPECTED)
    patients = [path.parents[1] for path in folder.glob("*/T2SPIR/DICOM_anon")]
    patients.sort(key=lambda patient: by_number(patient.name))
    cases = tuple(_plan_case(patient, as_published) for patient in patients)
    for case, patient in zip(cases, patients):
        if not case.image:
            raise DataError(
                f"{patient}: T2SPIR/DICOM_anon has no *.dcm, expected {EXPECTED}; copy the files or remove it"
            )
    return Plan("chaos", source, IMAGE, LABEL, cases, make, describe)


def _plan_case(patient: Path, as_published: bool) -> CasePlan:
    return CasePlan(
        patient.name,
        image=_files(patient / "T2SPIR/DICOM_anon", ".dcm"),
        label=_files(patient / "T2SPIR/Ground", ".png"),
        options={"as_published": as_published},
    )


def describe(cases: int, values: list[int]) -> tuple[dict[str, Any], list[str]]:
    """Returns the contents of dataset.toml for so many cases, and notes for the user."""
    description = {
        "name": "chaos_t2",
        "modality": "MR",
        "image": IMAGE,
        "label": LABEL,
        **({"folds": "hansen2022"} if cases == 20 else {}),
        "orientation": "file",
        "supervoxel_min_size": 5000,
        "classes": {name: organ.value for name, organ in GREYS.items()},
    }
    return description, []


def make(case: CasePlan) -> Prepared:
    """Makes one patient's scan: clipped, resampled and cropped."""
    as_published = case.options["as_published"]
    raw, order, notes = read_series(case.image)
    folder = case.image[0].parent
    refuse_shear(raw, folder)
    problems = list(image_problems(ScanFile(folder, raw.voxels, raw.affine, raw.spacing)))
    if problems:
        raise DataError("\n".join(problems))
    columns, rows, slices = raw.voxels.shape
    labels = raw.with_voxels(_read_masks(case, order, (columns, rows)))
    # dcm2nii, which made the published files, turns the rows; image and labels are turned together.
    clipped, limit = clip_top(raw.flip_rows(), as_published)
    image = resample(clipped, SPACING, as_published)
    labels = resample_labels(labels.flip_rows(), SPACING, as_published)
    darkest = float(image.voxels.min())
    image = crop_or_pad(image, SIZE, darkest, keep_origin=as_published)
    labels = crop_or_pad(labels, SIZE, 0.0, keep_origin=as_published)
    if as_published:
        image = image.with_voxels(image.voxels.astype(np.float64))
        labels = labels.with_voxels(labels.voxels.astype(np.float64))
    else:
        image = image.with_voxels(as_integers(image.voxels))
    across, down, between = SPACING
    steps = [
        f"{slices} slices sorted by position, rows flipped",
        f"clipped at {limit:g}, the {TOP:g}th percentile",
        f"resampled to {across:g} x {down:g} x {between:g} mm, linear; labels where above one half",
        f"centre cropped or padded to {SIZE} x {SIZE}",
        "as published: truncated toward zero, one sample more than fits, float64, uncropped origin"
        if as_published
        else "rounded to integers, origin moved with the crop",
    ]
    return Prepared(image, labels, raw.geometry(), steps, tuple(notes))


def number_greys(path: Path, greys: Integer[np.ndarray, "x y"]) -> UInt8[np.ndarray, "x y"]:
    """Returns the class values of a mask's grey values; raises DataError for a grey of no organ."""
    labels = np.zeros(greys.shape, dtype=np.uint8)
    for organ in GREYS.values():
        is_organ = (greys >= organ.lowest) & (greys <= organ.highest)
        labels[is_organ] = organ.value
    strange = greys[(labels == 0) & (greys != 0)]
    if strange.size:
        ranges = [f"{organ.lowest}-{organ.highest} {name}" for name, organ in GREYS.items()]
        raise DataError(
            f"{path}: has the grey value {strange[0]}, expected 0, {', '.join(ranges)}; correct the mask"
        )
    return labels


def _files(folder: Path, suffix: str) -> tuple[Path, ...]:
    files: list[Path] = []
    for path in folder.glob("*"):
        is_hidden = path.name.startswith(".")
        if path.suffix.lower() == suffix and not is_hidden:
            files.append(path)
    return tuple(sorted(files))


def _read_masks(
    case: CasePlan, order: list[Path], size: tuple[int, int]
) -> UInt8[np.ndarray, "x y z"]:
    """The masks of the slices, in their order."""
    masks = {path.stem: path for path in case.label}
    names = [path.stem for path in order]
    folder = case.image[0].parent
    _require_all(folder.with_name("Ground"), "PNG", "DICOM", set(names) - set(masks))
    _require_all(folder, "DICOM", "PNG", set(masks) - set(names))
    labels: list[np.ndarray] = []
    for path in order:
        mask = masks[path.stem]
        greys = read_mask(mask, size, path.name)
        labels.append(number_greys(mask, greys))
    return np.stack(labels, axis=2)


def _require_all(folder: Path, kind: str, partner: str, missing: set[str]) -> None:
    if missing:
        names = first_few(sorted(missing))
        raise DataError(
            f"{folder}: lacks the {kind} of {names}, expected one of the same name for every {partner}; copy it"
        )
