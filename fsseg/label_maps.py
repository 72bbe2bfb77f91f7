"""Predicted label maps, on the grids of the scans' own files."""

from pathlib import Path

import nibabel

from fsseg.evaluation import CaseResult
from fsseg.grids import FileGrid


def write_labels(folder: Path, result: CaseResult, grid: FileGrid) -> None:
    """Writes a label map `<row>/<case>_<class>.nii.gz`, or `<row>/<case>_from_<support>.nii.gz` for several classes."""
    first = result.scores[0]
    place = folder / _slug(first.variant)
    name = first.class_name if len(result.scores) == 1 else f"from_{first.support_case}"
    place.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(grid.to_file(result.labels), grid.affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, place / f"{first.case}_{name}.nii.gz")


def _slug(name: str) -> str:
    """A row's name as the name of a folder."""
    return "".join(character if character.isalnum() else "_" for character in name).strip("_")
