"""MS-CMRSeg 2019 (Zhuang, 2019): cardiac bSSFP MR, short-axis slices with the codes 200, 500 and 600.

No code that made the published `cmr_MR_normalized` was ever published. The steps here are our choice, after what the
field does with abdominal MR: bright outliers clipped, pixels of 1.25 mm, 256 x 256; slices are left as they are.
"""

import re
from pathlib import Path
from typing import Any

from fsseg.data.prepare.plan import CasePlan, Plan, Prepared, check_source
from fsseg.data.prepare.read import check_values, read_pair
from fsseg.data.prepare.resample import itk, resample, resample_labels
from fsseg.data.prepare.scan import TOP, as_integers, clip_top, crop_or_pad, refuse_shear
from fsseg.errors import DataError

PIXEL = 1.25
SIZE = 256
CODES = {200: "lv_myocardium", 500: "lv_blood_pool", 600: "right_ventricle"}
EXPECTED = "the challenge's patient<number>_C0.nii.gz and patient<number>_C0_manual.nii.gz"


def plan(source: Path) -> Plan:
    """The labelled bSSFP scans, anywhere below the source.

    Raises:
        DataError: There is no labelled scan, two have one number, or SimpleITK is missing.
    """
    itk()
    check_source(source, EXPECTED)
    images, labels = _by_patient(source, ""), _by_patient(source, "_manual")
    labelled = [number for number in images if number in labels]
    if not labelled:
        raise DataError(f"{source}: found no labelled scan, expected {EXPECTED}; give that folder with --source")
    notes = []
    for have, lack, what in ((images, labels, "labels"), (labels, images, "image")):
        missing = [str(number) for number in have if number not in lack]
        if missing:
            notes.append(f"{source}: left out patients {', '.join(missing)}, which have no {what}")
    cases = tuple(CasePlan(str(number), (images[number],), (labels[number],)) for number in labelled)
    return Plan(
        layout="cmr",
        source=source,
        image="cmr_MR_normalized/image_{case}.nii.gz",
        label="cmr_MR_normalized/label_{case}.nii.gz",
        cases=cases,
        make=make,
        describe=describe,
        notes=tuple(notes),
    )


def describe(cases: int, values: list[int]) -> tuple[dict[str, Any], list[str]]:
    """The dataset.toml."""
    description = {
        "name": "cmr",
        "modality": "MR",
        "image": "cmr_MR_normalized/image_{case}.nii.gz",
        "label": "cmr_MR_normalized/label_{case}.nii.gz",
        **({"folds": "hansen2022"} if cases == 35 else {}),
        "orientation": "file",
        "supervoxel_min_size": 1000,
        "classes": {name: code for code, name in CODES.items()},
    }
    return description, []


def make(case: CasePlan) -> Prepared:
    """One patient."""
    raw, labels = read_pair(case.image[0], case.label[0])
    check_values(case.label[0], labels, CODES)
    refuse_shear(raw, case.image[0])
    clipped, limit = clip_top(raw)
    spacing = (PIXEL, PIXEL, raw.spacing[2])
    image = resample(clipped, spacing)
    image = crop_or_pad(image.with_voxels(as_integers(image.voxels)), SIZE, float(image.voxels.min()))
    labels = crop_or_pad(resample_labels(labels, spacing), SIZE, 0)
    steps = [
        f"clipped at {limit:g}, the {TOP:g}th percentile",
        f"resampled to {PIXEL:g} x {PIXEL:g} mm in plane, linear; labels where above one half",
        f"centre cropped or padded to {SIZE} x {SIZE}",
        "rounded to integers, origin moved with the crop",
    ]
    return Prepared(image, labels, raw.geometry(), steps)


def _by_patient(source: Path, suffix: str) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for path in sorted(source.glob(f"**/patient*_C0{suffix}.nii*")):
        match = re.fullmatch(rf"patient(\d+)_C0{suffix}\.nii(\.gz)?", path.name)
        if match is None:
            continue
        first = found.setdefault(int(match[1]), path)
        if first != path:
            raise DataError(f"{source}: {first} and {path} are of one patient, expected one file each; remove one")
    return dict(sorted(found.items()))
