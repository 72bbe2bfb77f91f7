"""MS-CMRSeg 2019 (Zhuang, 2019): cardiac bSSFP MR in NIfTI.

How the published `cmr_MR_normalized` files were made has never been told. What is done here is this toolbox's own
choice, in the manner of the abdominal MR: results on it compare with published ones only roughly.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fsseg.data.datasets.finding import match_pairs
from fsseg.errors import DataError
from fsseg.prepare.plan import CasePlan, Plan, Prepared, check_source, file_ids, pair_up
from fsseg.prepare.read import check_values, read_pair
from fsseg.prepare.resample import itk, resample, resample_labels
from fsseg.prepare.scan import TOP, as_integers, clip_top, crop_or_pad, refuse_shear

IN_PLANE = 1.25
SIZE = 256
CLASSES = {"lv_myocardium": 200, "lv_blood_pool": 500, "right_ventricle": 600}
EXPECTED = "the MS-CMRSeg set with patient1_C0.nii.gz and patient1_C0_manual.nii.gz"
IMAGE = "cmr_MR_normalized/image_{case}.nii.gz"
LABEL = "cmr_MR_normalized/label_{case}.nii.gz"


def plan(source: Path) -> Plan:
    """Plans the bSSFP scans that have labels, anywhere below the source; the others are noted.

    Raises:
        DataError: There is no scan, labels lack their image, or SimpleITK is missing.
    """
    itk()
    check_source(source, EXPECTED)
    image_name = "**/patient{case}_C0.nii*"
    label_name = "**/patient{case}_C0_manual.nii*"
    found = match_pairs(source, image_name, label_name)
    found.raise_problems()
    images = found.images
    labels = found.labels
    if not labels:
        raise DataError(
            f"{source}: found no patient<k>_C0_manual.nii.gz in it; expected {EXPECTED}, check --source"
        )
    labelled = {case: path for case, path in images.items() if case in labels}
    pairs = pair_up(source, labelled, labels, image_name, label_name)
    ids = file_ids(pairs, source)
    cases: list[CasePlan] = []
    for case, (image, label) in pairs.items():
        cases.append(CasePlan(ids[case], (image,), (label,)))
    notes: list[str] = []
    unlabelled = [case for case in images if case not in labels]
    if unlabelled:
        patients = ", ".join(unlabelled)
        notes.append(f"{source}: patient {patients} have no manual labels and are left out")
    return Plan("cmr", source, IMAGE, LABEL, tuple(cases), make, describe, tuple(notes))


def describe(cases: int, values: list[int]) -> tuple[dict[str, Any], list[str]]:
    """Returns the contents of dataset.toml for so many cases, and notes for the user."""
    description = {
        "name": "cmr",
        "modality": "MR",
        "image": IMAGE,
        "label": LABEL,
        **({"folds": "hansen2022"} if cases == 35 else {}),
        "orientation": "file",
        "supervoxel_min_size": 1000,
        "classes": CLASSES,
    }
    return description, []


def make(case: CasePlan) -> Prepared:
    """Makes one scan: clipped, resampled in plane and cropped."""
    path = case.label[0]
    raw, labels, notes = read_pair(case.image[0], path)
    check_values(path, labels, {value: name for name, value in CLASSES.items()})
    refuse_shear(raw, case.image[0])
    clipped, limit = clip_top(raw)
    spacing = (IN_PLANE, IN_PLANE, raw.spacing[2])
    image = resample(clipped, spacing)
    image = crop_or_pad(image, SIZE, float(image.voxels.min()))
    is_whole = raw.voxels.dtype.kind in "iu"
    voxels = as_integers(image.voxels) if is_whole else image.voxels.astype(np.float32)
    labels = resample_labels(raw.with_voxels(labels.voxels), spacing)
    labels = crop_or_pad(labels, SIZE, 0)
    steps = [
        f"clipped at {limit:g}, the {TOP:g}th percentile",
        f"resampled in plane to {IN_PLANE:g} x {IN_PLANE:g} mm, linear; labels where above one half",
        f"centre cropped or padded to {SIZE} x {SIZE}, origin moved with the crop",
        "rounded to integers" if is_whole else "float32",
    ]
    return Prepared(
        image=image.with_voxels(voxels),
        label=labels.with_voxels(labels.voxels.astype(np.uint16)),
        before=raw.geometry(),
        steps=steps,
        notes=notes,
    )
