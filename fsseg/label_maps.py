"""Predicted label maps, on the grids of the scans' own files."""

from pathlib import Path

import nibabel

from fsseg.evaluation import CaseResult
from fsseg.grids import FileGrid


def write_labels(folder: Path, result: CaseResult, grid: FileGrid, *, in_turn: bool) -> None:
    """Writes a label map in the row's folder, as `<stem>.nii.gz`."""
    place = folder / _slug(result.scores[0].variant)
    place.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(grid.to_file(result.labels), grid.affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, place / f"{stem(result, in_turn=in_turn)}.nii.gz")


def stem(result: CaseResult, *, in_turn: bool) -> str:
    """What the names of a result's files begin with.

    It tells the class where there is one, and the support where there are several classes or cases take turns:
    `<case>_<class>`, `<case>_from_<support>` or `<case>_<class>_from_<support>`.
    """
    first, single = result.scores[0], len(result.scores) == 1
    return "_".join(
        [first.case] + single * [first.class_name] + (in_turn or not single) * [f"from_{first.support_case}"]
    )


def _slug(name: str) -> str:
    """A row's name as the name of a folder."""
    return "".join(character if character.isalnum() else "_" for character in name).strip("_")
