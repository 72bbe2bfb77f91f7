"""Predicted label maps, on the grids of the scans' own files."""

from collections.abc import Sequence
from pathlib import Path

import nibabel

from fsseg.data.grids import FileGrid
from fsseg.evaluation.evaluate import CaseResult
from fsseg.evaluation.scores import CaseScore


def write_labels(folder: Path, result: CaseResult, grid: FileGrid, *, in_turn: bool) -> None:
    """Writes a label map in the row's folder, as `<stem>.nii.gz`."""
    file = label_file(folder, result.scores, in_turn=in_turn)
    file.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(grid.to_file(result.labels), grid.affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, file)


def label_file(folder: Path, scores: Sequence[CaseScore], *, in_turn: bool) -> Path:
    """Where the label map lies of which these are all the scores, one for each class that was segmented together."""
    return folder / _slug(scores[0].variant) / f"{_stem(scores, in_turn=in_turn)}.nii.gz"


def stem(result: CaseResult, *, in_turn: bool) -> str:
    """What the names of a result's files begin with.

    It tells the class where there is one, and the support where there are several classes or cases take turns:
    `<case>_<class>`, `<case>_from_<support>` or `<case>_<class>_from_<support>`.
    """
    return _stem(result.scores, in_turn=in_turn)


def _stem(scores: Sequence[CaseScore], *, in_turn: bool) -> str:
    first, single = scores[0], len(scores) == 1
    return "_".join(
        [first.case]
        + single * [first.class_name]
        + (in_turn or not single) * [f"from_{first.support_case}"]
    )


def _slug(name: str) -> str:
    """A row's name as the name of a folder."""
    return "".join(character if character.isalnum() else "_" for character in name).strip("_")
