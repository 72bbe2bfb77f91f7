"""BTCV / Synapse (Landman et al., 2015): abdominal CT in NIfTI, preprocessed as ALPNet's `sabs` is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fsseg.data.datasets.patterns import find_files
from fsseg.errors import DataError
from fsseg.prepare.plan import CasePlan, Plan, Prepared, first_folder, pair_up
from fsseg.prepare.read import check_values, read_pair
from fsseg.prepare.resample import itk, resample, resample_labels
from fsseg.prepare.scan import Scan, refuse_shear, shift

WINDOW = (-125.0, 275.0)
RAW_SIZE = 512
MARGIN = 32
STRETCH = 1.75
"""448 pixels, what the margin leaves of 512, become 256."""

ORGANS = (
    "spleen,right_kidney,left_kidney,gallbladder,esophagus,liver,stomach,aorta,vena_cava,portal_and_splenic_vein,"
    "pancreas,right_adrenal_gland,left_adrenal_gland"
)
VALUES = dict(enumerate(ORGANS.split(","), start=1))
CLASSES = {"spleen": 1, "right_kidney": 2, "left_kidney": 3, "liver": 6}
"""The classes that are evaluated; the other organs are kept in the files."""

EXPECTED = "the BTCV training set with img/img0001.nii.gz and label/label0001.nii.gz"
IMAGE, LABEL = "sabs_CT_normalized/image_{case}.nii.gz", "sabs_CT_normalized/label_{case}.nii.gz"


def plan(source: Path, as_published: bool = False) -> Plan:
    """The scans of the training set, sorted by name and numbered from 0, as published.

    Args:
        source: The folder with img and label, or one with RawData/Training in it.
        as_published: Keep the published files' 257 x 257 pixels, empty last slice, float64 and uncropped origin.

    Raises:
        DataError: There is no scan, a partner is missing, or SimpleITK is.
    """
    itk()
    places = (".", "Training", "RawData/Training", "Abdomen/RawData/Training")
    folder = first_folder(source, places, "img/img*.nii*", EXPECTED)
    images, labels = (
        find_files(folder, "img/img{case}.nii*"),
        find_files(folder, "label/label{case}.nii*"),
    )
    pairs = pair_up(folder, images, labels, "img/img{case}.nii.gz", "label/label{case}.nii.gz")
    cases = tuple(
        CasePlan(str(index), (image,), (label,), {"as_published": as_published})
        for index, (image, label) in enumerate(pairs.values())
    )
    return Plan("btcv", source, IMAGE, LABEL, cases, make, describe)


def describe(cases: int, values: list[int]) -> tuple[dict[str, Any], list[str]]:
    """The dataset.toml."""
    description = {
        "name": "sabs",
        "modality": "CT",
        "image": IMAGE,
        "label": LABEL,
        **({"folds": "tpm_sabs"} if cases == 30 else {}),
        "orientation": "file",
        "other_labels": "background",
        "classes": CLASSES,
    }
    return description, []


def make(case: CasePlan) -> Prepared:
    """One scan."""
    path, as_published = case.image[0], case.options["as_published"]
    raw, labels = read_pair(path, case.label[0])
    check_values(case.label[0], labels, VALUES)
    if raw.voxels.shape[:2] != (RAW_SIZE, RAW_SIZE):
        raise DataError(
            f"{path}: has {raw.voxels.shape[0]} x {raw.voxels.shape[1]} pixels a slice, expected {RAW_SIZE} x {RAW_SIZE} "
            "as all of BTCV; use `fsseg prepare nifti` for other scans"
        )
    refuse_shear(raw, path)
    # Both files say the same place within a hundredth of a millimetre; one of them counts.
    image, labels = (
        _cut(scan, as_published)
        for scan in (_to_grey(raw, path), replace(labels, affine=raw.affine))
    )
    spacing = (raw.spacing[0] * STRETCH, raw.spacing[1] * STRETCH, raw.spacing[2])
    image, labels = (
        resample(image, spacing, as_published),
        resample_labels(labels, spacing, as_published),
    )
    kind = np.float64 if as_published else np.float32
    steps = [
        f"clipped to {WINDOW[0]:g}..{WINDOW[1]:g}, scaled to 0..255",
        f"cut {MARGIN} pixels on each side of a slice",
        f"resampled in plane by {STRETCH:g}, linear; labels where above one half",
        "as published: one sample more than fits, float64, uncropped origin"
        if as_published
        else "float32, origin moved with the cut",
    ]
    return Prepared(
        image.with_voxels(image.voxels.astype(kind)),
        labels.with_voxels(labels.voxels.astype(np.float64 if as_published else np.uint8)),
        raw.geometry(),
        steps,
    )


def _to_grey(scan: Scan, path: Path) -> Scan:
    """Scaled by the volume's own smallest and largest values after clipping, normally the window's."""
    clipped = np.clip(scan.voxels.astype(np.float64), *WINDOW)
    low, high = clipped.min(), clipped.max()
    if low == high:
        raise DataError(
            f"{path}: every voxel is {low:g} after clipping to {WINDOW[0]:g}..{WINDOW[1]:g}, expected Hounsfield units; "
            "check that the scan is CT"
        )
    return scan.with_voxels((clipped - low) / (high - low) * 255)


def _cut(scan: Scan, as_published: bool) -> Scan:
    """Without the margin; the published files keep the uncut origin."""
    inner = scan.voxels[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return Scan(inner, scan.affine if as_published else shift(scan.affine, (MARGIN, MARGIN, 0)))
