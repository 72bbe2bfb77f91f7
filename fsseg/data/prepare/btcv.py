"""BTCV / Synapse (Landman et al., 2015): abdominal CT with 13 organs, as ALPNet's SABS and TPM's ABD-CT use it."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from fsseg.data.prepare.plan import CasePlan, Plan, Prepared, first_folder
from fsseg.data.prepare.read import check_values, read_pair
from fsseg.data.prepare.resample import itk, resample, resample_labels
from fsseg.data.prepare.scan import Scan, refuse_shear, shift
from fsseg.errors import DataError

WINDOW = (-125.0, 275.0)
"""Hounsfield units."""

RAW, MARGIN, SIZE = 512, 32, 256
"""Pixels of a raw slice along a side, those cut off at each edge, and those that are left after resampling."""

FACTOR = (RAW - 2 * MARGIN) / SIZE
"""Raw pixels for one resampled: 1.75."""

ORGANS = {
    1: "spleen", 2: "right kidney", 3: "left kidney", 4: "gallbladder", 5: "esophagus", 6: "liver", 7: "stomach",
    8: "aorta", 9: "inferior vena cava", 10: "portal and splenic vein", 11: "pancreas", 12: "right adrenal gland",
    13: "left adrenal gland",
}  # fmt: skip

EXPECTED = "the challenge's RawData/Training with img/img<number>.nii.gz and label/label<number>.nii.gz"


def plan(source: Path, as_published: bool = False) -> Plan:
    """The scans of the training set, numbered anew from 0 in order of their names, as published.

    Args:
        source: The folder with img and label, or one above it.
        as_published: Keep the published files' size (257 x 257 and one empty slice more), float64 and uncropped origin.

    Raises:
        DataError: There is no scan, one lacks its labels, or SimpleITK is missing.
    """
    itk()
    places = (".", "Training", "RawData/Training", "Abdomen/RawData/Training")
    folder = first_folder(source, places, "img/img*.nii*", EXPECTED)
    images, labels = _numbered(folder / "img", "img"), _numbered(folder / "label", "label")
    for have, lack, what in ((images, labels, "label"), (labels, images, "image")):
        missing = [number for number in have if number not in lack]
        if missing:
            raise DataError(f"{folder}: {', '.join(missing[:5])} have no {what}, expected {EXPECTED}; add the files")
    cases = tuple(
        CasePlan(str(rank), (images[number],), (labels[number],), {"as_published": as_published})
        for rank, number in enumerate(sorted(images))
    )
    return Plan(
        layout="btcv",
        source=source,
        image="sabs_CT_normalized/image_{case}.nii.gz",
        label="sabs_CT_normalized/label_{case}.nii.gz",
        cases=cases,
        make=make,
        describe=describe,
    )


def describe(cases: int, values: list[int]) -> tuple[dict[str, Any], list[str]]:
    """The dataset.toml: the four organs that the field evaluates; the others belong to no class."""
    description = {
        "name": "sabs",
        "modality": "CT",
        "image": "sabs_CT_normalized/image_{case}.nii.gz",
        "label": "sabs_CT_normalized/label_{case}.nii.gz",
        **({"folds": "tpm_sabs"} if cases == 30 else {}),
        "orientation": "file",
        "other_labels": "background",
        "classes": {"spleen": 1, "right_kidney": 2, "left_kidney": 3, "liver": 6},
    }
    return description, []


def make(case: CasePlan) -> Prepared:
    """One scan."""
    as_published = case.options["as_published"]
    raw, labels = read_pair(case.image[0], case.label[0])
    check_values(case.label[0], labels, ORGANS)
    refuse_shear(raw, case.image[0])
    if raw.voxels.shape[:2] != (RAW, RAW):
        sizes = " x ".join(str(length) for length in raw.voxels.shape[:2])
        raise DataError(
            f"{case.image[0]}: has slices of {sizes}, expected {RAW} x {RAW} as in the challenge; "
            "use fsseg prepare nifti for other scans"
        )
    spacing = (raw.spacing[0] * FACTOR, raw.spacing[1] * FACTOR, raw.spacing[2])
    image = resample(_without_margin(_scale(raw), as_published), spacing, as_published)
    labels = resample_labels(_without_margin(labels, as_published), spacing, as_published)
    image = image.with_voxels(image.voxels.astype(np.float64 if as_published else np.float32))
    if as_published:
        labels = labels.with_voxels(labels.voxels.astype(np.float64))
    steps = [
        f"clipped to {WINDOW[0]:g} to {WINDOW[1]:g}, scaled to 0 to 255",
        f"{MARGIN} pixels cut off on each side of a slice",
        f"resampled in plane by {FACTOR:g}, linear; labels where above one half",
        "as published: a sample more than fits along each axis, float64, uncropped origin"
        if as_published
        else "all samples within the scan, float32, origin moved with the crop",
    ]
    return Prepared(image, labels, raw.geometry(), [f"raw name {case.image[0].name}", *steps])


def _scale(scan: Scan) -> Scan:
    clipped = np.clip(scan.voxels.astype(np.float64), *WINDOW)
    low, high = clipped.min(), clipped.max()
    return scan.with_voxels((clipped - low) / max(high - low, np.finfo(np.float64).tiny) * 255)


def _without_margin(scan: Scan, keep_origin: bool) -> Scan:
    """Without the margin of each slice; as published, the origin is still that of the whole slice."""
    voxels = scan.voxels[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return Scan(voxels, scan.affine if keep_origin else shift(scan.affine, (MARGIN, MARGIN, 0)))


def _numbered(folder: Path, stem: str) -> dict[str, Path]:
    """The files by the number in their names."""
    found = {}
    for path in sorted(folder.glob("*")):
        match = re.fullmatch(rf"{stem}(\d+)\.nii(\.gz)?", path.name)
        if match:
            found[match[1]] = path
    return found
