"""CHAOS (Kavur et al., 2021): abdominal T2-SPIR MR, DICOM slices with PNG masks, as ALPNet, ADNet and TPM use it.

The published label maps number the organs by the rank of their grey value, which is wrong where an organ is absent;
here the grey values' ranges decide. Everything else is the published preprocessing, without its slips unless they are
asked for (`as_published`).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from fsseg.data.datasets.patterns import by_number
from fsseg.errors import DataError
from fsseg.prepare.dicom import read_mask, read_series
from fsseg.prepare.plan import CasePlan, Plan, Prepared, first_folder
from fsseg.prepare.resample import itk, resample, resample_labels
from fsseg.prepare.scan import TOP, Scan, as_integers, clip_top, crop_or_pad, refuse_shear

SPACING = (1.25, 1.25, 7.70)
SIZE = 256
GREYS = {
    "liver": (1, 55, 70),
    "right_kidney": (2, 110, 135),
    "left_kidney": (3, 175, 200),
    "spleen": (4, 240, 255),
}
"""Value, lowest and highest grey of each organ, as the challenge defines them."""

EXPECTED = "the CHAOS training set with MR/<patient>/T2SPIR/DICOM_anon/*.dcm and MR/<patient>/T2SPIR/Ground/*.png"


def plan(source: Path, as_published: bool = False) -> Plan:
    """The patients of the training set.

    Args:
        source: The set's root, its Train_Sets or its MR folder.
        as_published: Keep the published files' truncation, sizes, float64 voxels and uncropped origin.

    Raises:
        DataError: There is no patient, or SimpleITK is missing.
    """
    itk()
    places = (".", "MR", "Train_Sets/MR", "CHAOS_Train_Sets/Train_Sets/MR")
    folder = first_folder(source, places, "*/T2SPIR/DICOM_anon", EXPECTED)
    patients = sorted(
        (path.parents[1] for path in folder.glob("*/T2SPIR/DICOM_anon")),
        key=lambda p: by_number(p.name),
    )
    cases = tuple(
        CasePlan(
            patient.name,
            image=_files(patient / "T2SPIR/DICOM_anon", ".dcm"),
            label=_files(patient / "T2SPIR/Ground", ".png"),
            options={"as_published": as_published},
        )
        for patient in patients
    )
    empty = [folder / case.case for case in cases if not case.image]
    if empty:
        raise DataError(
            f"{empty[0]}: T2SPIR/DICOM_anon has no *.dcm, expected {EXPECTED}; copy the files or remove it"
        )
    return Plan(
        layout="chaos",
        source=source,
        image="chaos_MR_T2_normalized/image_{case}.nii.gz",
        label="chaos_MR_T2_normalized/label_{case}.nii.gz",
        cases=cases,
        make=make,
        describe=describe,
    )


def describe(cases: int, values: list[int]) -> tuple[dict[str, Any], list[str]]:
    """The dataset.toml."""
    description = {
        "name": "chaos_t2",
        "modality": "MR",
        "image": "chaos_MR_T2_normalized/image_{case}.nii.gz",
        "label": "chaos_MR_T2_normalized/label_{case}.nii.gz",
        **({"folds": "hansen2022"} if cases == 20 else {}),
        "orientation": "file",
        "supervoxel_min_size": 5000,
        "classes": {name: value for name, (value, _, _) in GREYS.items()},
    }
    return description, []


def make(case: CasePlan) -> Prepared:
    """One patient."""
    as_published = case.options["as_published"]
    raw, order = read_series(case.image)
    refuse_shear(raw, case.image[0].parent)
    labels = raw.with_voxels(_read_masks(case, order, raw.voxels.shape[:2]))
    # dcm2nii, which made the published files, turns the rows; image and labels are turned together.
    image, labels = raw.flip_rows(), labels.flip_rows()
    clipped, limit = clip_top(image, as_published)
    finish = partial(_finish, as_published=as_published)
    image = finish(resample(clipped, SPACING, as_published), None)
    labels = finish(resample_labels(labels, SPACING, as_published), 0)
    if not as_published:
        image = image.with_voxels(as_integers(image.voxels))
    steps = [
        f"{len(order)} slices sorted by position, rows flipped",
        f"clipped at {limit:g}, the {TOP:g}th percentile",
        f"resampled to {SPACING[0]:g} x {SPACING[1]:g} x {SPACING[2]:g} mm, linear; labels where above one half",
        f"centre cropped or padded to {SIZE} x {SIZE}",
        _ending(as_published),
    ]
    return Prepared(image, labels, raw.geometry(), steps)


def number_greys(path: Path, greys: Integer[np.ndarray, "x y"]) -> UInt8[np.ndarray, "x y"]:
    """Class values of a mask's grey values; raises DataError for a grey of no organ."""
    labels = np.zeros(greys.shape, dtype=np.uint8)
    for value, low, high in GREYS.values():
        labels[(greys >= low) & (greys <= high)] = value
    strange = greys[(labels == 0) & (greys != 0)]
    if strange.size:
        ranges = ", ".join(f"{low}-{high} {name}" for name, (_, low, high) in GREYS.items())
        raise DataError(
            f"{path}: has the grey value {strange[0]}, expected 0, {ranges}; correct the mask"
        )
    return labels


def _files(folder: Path, suffix: str) -> tuple[Path, ...]:
    found = (
        path
        for path in folder.glob("*")
        if path.suffix.lower() == suffix and not path.name.startswith(".")
    )
    return tuple(sorted(found))


def _read_masks(
    case: CasePlan, order: list[Path], size: tuple[int, int]
) -> UInt8[np.ndarray, "x y z"]:
    masks = {path.stem: path for path in case.label}
    ground = case.image[0].parents[1] / "Ground"
    slices = {path.stem for path in order}
    for have, lack, what, where in (
        (slices, set(masks), "DICOM", ground),
        (set(masks), slices, "PNG", case.image[0].parent),
    ):
        missing = sorted(have - lack)
        if missing:
            other = "PNG" if what == "DICOM" else "DICOM"
            names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise DataError(
                f"{where}: lacks the {other} of {names}, expected one of the same name for every {what}; copy it"
            )
    read = [
        number_greys(masks[path.stem], read_mask(masks[path.stem], (size[0], size[1]), path.name))
        for path in order
    ]
    return np.stack(read, axis=2)


def _finish(scan: Scan, fill: float | None, as_published: bool) -> Scan:
    scan = crop_or_pad(
        scan, SIZE, float(scan.voxels.min() if fill is None else fill), keep_origin=as_published
    )
    return scan.with_voxels(scan.voxels.astype(np.float64)) if as_published else scan


def _ending(as_published: bool) -> str:
    if as_published:
        return "as published: truncated toward zero, one sample more than fits, float64, uncropped origin"
    return "rounded to integers, origin moved with the crop"
