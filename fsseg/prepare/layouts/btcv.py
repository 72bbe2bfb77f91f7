"""BTCV / Synapse (Landman et al., 2015): abdominal CT in NIfTI, preprocessed as ALPNet's `sabs` is."""

from pathlib import Path
from typing import Any

import numpy as np

from fsseg.data.datasets.finding import match_pairs
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

VALUES = {
    1: "spleen",
    2: "right_kidney",
    3: "left_kidney",
    4: "gallbladder",
    5: "esophagus",
    6: "liver",
    7: "stomach",
    8: "aorta",
    9: "vena_cava",
    10: "portal_and_splenic_vein",
    11: "pancreas",
    12: "right_adrenal_gland",
    13: "left_adrenal_gland",
}
CLASSES = {"spleen": 1, "right_kidney": 2, "left_kidney": 3, "liver": 6}
"""The classes that are evaluated; the other organs are kept in the files."""

EXPECTED = "the BTCV training set with img/img0001.nii.gz and label/label0001.nii.gz"
IMAGE = "sabs_CT_normalized/image_{case}.nii.gz"
LABEL = "sabs_CT_normalized/label_{case}.nii.gz"


def plan(source: Path, as_published: bool = False) -> Plan:
    """Plans the scans of the training set, sorted by name and numbered from 0, as published.

    Args:
        source: The folder with img and label, or one with RawData/Training in it.
        as_published: Keep the published files' 257 x 257 pixels, empty last slice, float64 and uncropped origin.

    Raises:
        DataError: There is no scan, a partner is missing, or SimpleITK is.
    """
    itk()
    places = (".", "Training", "RawData/Training", "Abdomen/RawData/Training")
    folder = first_folder(source, places, "img/img*.nii*", EXPECTED)
    image_name = "img/img{case}.nii*"
    label_name = "label/label{case}.nii*"
    found = match_pairs(folder, image_name, label_name)
    found.raise_problems()
    pairs = pair_up(folder, found.images, found.labels, image_name, label_name)
    options = {"as_published": as_published}
    cases: list[CasePlan] = []
    for number, (image, label) in enumerate(pairs.values()):
        cases.append(CasePlan(str(number), (image,), (label,), options))
    return Plan("btcv", source, IMAGE, LABEL, tuple(cases), make, describe)


def describe(cases: int, values: list[int]) -> tuple[dict[str, Any], list[str]]:
    """Returns the contents of dataset.toml for so many cases, and notes for the user."""
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
    """Makes one scan: windowed, cut and resampled in plane."""
    as_published = case.options["as_published"]
    path = case.image[0]
    raw, labels, notes = read_pair(path, case.label[0])
    check_values(case.label[0], labels, VALUES)
    width, height, _ = raw.voxels.shape
    if (width, height) != (RAW_SIZE, RAW_SIZE):
        raise DataError(
            f"{path}: has {width} x {height} pixels a slice, expected {RAW_SIZE} x {RAW_SIZE} "
            "as all of BTCV; use `fsseg prepare nifti` for other scans"
        )
    refuse_shear(raw, path)
    # Both files say the same place within a hundredth of a millimetre; one of them counts.
    labels = raw.with_voxels(labels.voxels)
    x, y, z = raw.spacing
    spacing = (x * STRETCH, y * STRETCH, z)
    image = resample(_cut(_to_grey(raw, path), as_published), spacing, as_published)
    labels = resample_labels(_cut(labels, as_published), spacing, as_published)
    image_type = np.float64 if as_published else np.float32
    label_type = np.float64 if as_published else np.uint8
    low, high = WINDOW
    steps = [
        f"clipped to {low:g}..{high:g}, scaled to 0..255",
        f"cut {MARGIN} pixels on each side of a slice",
        f"resampled in plane by {STRETCH:g}, linear; labels where above one half",
        "as published: one sample more than fits, float64, uncropped origin"
        if as_published
        else "float32, origin moved with the cut",
    ]
    return Prepared(
        image=image.with_voxels(image.voxels.astype(image_type)),
        label=labels.with_voxels(labels.voxels.astype(label_type)),
        before=raw.geometry(),
        steps=steps,
        notes=notes,
    )


def _to_grey(scan: Scan, path: Path) -> Scan:
    """Scaled by the volume's own smallest and largest values after clipping, normally the window's."""
    least, most = WINDOW
    clipped = np.clip(scan.voxels.astype(np.float64), least, most)
    low = clipped.min()
    high = clipped.max()
    if low == high:
        raise DataError(
            f"{path}: every voxel is {low:g} after clipping to {least:g}..{most:g}, expected Hounsfield units; "
            "check that the scan is CT"
        )
    return scan.with_voxels((clipped - low) / (high - low) * 255)


def _cut(scan: Scan, as_published: bool) -> Scan:
    """Without the margin; the published files keep the uncut origin."""
    inner = scan.voxels[MARGIN:-MARGIN, MARGIN:-MARGIN]
    if as_published:
        return scan.with_voxels(inner)
    return Scan(inner, shift(scan.affine, (MARGIN, MARGIN, 0)))
