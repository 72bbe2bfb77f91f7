"""What an evaluation writes: label maps on the scans' own grids, and what decided each slice.

What decided is margins under an even prior and the priors that thresholds chose. With them a slice
can be decided again under any prior, without the network and without the scans.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float, Int, Shaped
from safetensors.numpy import load_file, save_file

from fsseg.data.datasets.nifti import read_nifti
from fsseg.data.grids import FileGrid
from fsseg.data.volume import Volume
from fsseg.errors import FssegError
from fsseg.evaluation.evaluate import CaseResult
from fsseg.evaluation.scores import SCORES, CaseScore
from fsseg.system.files import read_lines, reading, write_lines
from fsseg.system.names import file_name, within

LABELS = "labels"
"""The folder of label maps, one folder in it for each variant."""

MARGINS = "margins"
"""The folder of margins, one folder in it for each kind of scoring."""

PRIORS = "priors.jsonl"
"""The file of priors, a line for each variant, case and support."""


@dataclass(frozen=True)
class Kept:
    """What an evaluation keeps besides its scores.

    Attributes:
        labels: True to write label maps.
        margins: True to write margins and priors.
        in_turn: True where cases take turns as the support, so that file names must tell whose turn
            it was.
    """

    labels: bool
    margins: bool
    in_turn: bool


def write_evaluation(
    folder: Path,
    results: Iterable[CaseResult],
    grids: Mapping[str, FileGrid],
    kept: Kept,
) -> None:
    """Writes an evaluation into an empty folder, result by result: all label maps of a fold would fill the memory.

    Args:
        folder: Where to write.
        results: What `evaluate` yields.
        grids: By case, how the scan's voxels lie in its file.
        kept: What is written besides the scores.
    """
    scores: list[CaseScore] = []
    priors: list[dict[str, Any]] = []
    for result in results:
        scores += result.scores
        if kept.labels:
            grid = grids[result.scores[0].case]
            write_labels(folder / LABELS, result, grid, in_turn=kept.in_turn)
        if kept.margins:
            line = write_margins(folder, result, in_turn=kept.in_turn)
            priors.append(line)
    write_lines(folder / SCORES, scores)
    if kept.margins:
        write_lines(folder / PRIORS, priors)


def write_labels(folder: Path, result: CaseResult, grid: FileGrid, *, in_turn: bool) -> None:
    """Writes a label map in the variant's folder, as `<stem>.nii.gz`."""
    first = result.scores[0]
    file = label_file(folder, first.variant, stem(result.scores, in_turn=in_turn))
    file.parent.mkdir(parents=True, exist_ok=True)
    voxels = grid.to_file(result.labels)
    image = nibabel.Nifti1Image(voxels, grid.affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, file)


def read_labels(file: Path, scan: Volume) -> Shaped[np.ndarray, "slice height width"]:
    """Reads a label map of a scan, slices first, as far as the scan reaches.

    Raises:
        FssegError: It is not there, or of another size.
    """
    if not file.is_file():
        raise FssegError(
            f"{file}: there is no label map, expected the one that the run kept; put it back, or run "
            "the recipe again with --fresh"
        )
    shape = scan.marked.shape
    labels = scan.grid.from_file(read_nifti(file).voxels)
    labels = labels[tuple(slice(length) for length in shape)]
    if labels.shape != shape:
        raise FssegError(
            f"{file}: has {_in_words(labels.shape)} voxels, expected {_in_words(shape)} like its scan; "
            "it was changed since the run, put it back, or run the recipe again with --fresh"
        )
    return labels


def _in_words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def label_file(folder: Path, variant: str, stem_of_map: str) -> Path:
    """The path of a variant's label map, whose name begins with this stem."""
    return within(folder, file_name(variant), f"{stem_of_map}.nii.gz")


def stem(scores: Sequence[CaseScore], *, in_turn: bool) -> str:
    """The beginning of the names of a result's files, from its scores: one for each class that was segmented together."""
    first = scores[0]
    names = [score.class_name for score in scores]
    return stem_of(first.case, names, first.support_case, in_turn=in_turn)


def stem_of(case: str, classes: Sequence[str], support_case: str, *, in_turn: bool) -> str:
    """The beginning of the names of the files of a segmentation.

    It tells the class where there is one, and the support where there are several classes or cases
    take turns: `<case>_<class>`, `<case>_from_<support>` or `<case>_<class>_from_<support>`.
    """
    return file_name(*_parts(case, classes, support_case, in_turn=in_turn))


def _parts(case: str, classes: Sequence[str], support_case: str, *, in_turn: bool) -> list[str]:
    parts = [case]
    if len(classes) == 1:
        parts += classes
    if in_turn or len(classes) > 1:
        parts += ["from", support_case]
    return parts


def earlier_label_file(folder: Path, scores: Sequence[CaseScore], *, in_turn: bool) -> Path:
    """The path that earlier versions gave a label map; rows that differ in signs alone shared it.

    Raises FssegError where it leads out of the folder.
    """
    first = scores[0]
    row = earlier_row_folder(first.variant)
    names = [score.class_name for score in scores]
    parts = _parts(first.case, names, first.support_case, in_turn=in_turn)
    return within(folder, row, f"{'_'.join(parts)}.nii.gz")


def earlier_row_folder(variant: str) -> str:
    """The name that earlier versions gave the folder of a variant's label maps."""
    return "".join(letter if letter.isalnum() else "_" for letter in variant).strip("_")


def write_margins(folder: Path, result: CaseResult, *, in_turn: bool) -> dict[str, Any]:
    """Writes a result's margins below a folder, unless another variant of its scoring has.

    Returns:
        Its line of priors.
    """
    decisions = result.decisions
    first = result.scores[0]
    name = f"{stem(result.scores, in_turn=in_turn)}.safetensors"
    below = Path(MARGINS) / file_name(decisions.scoring) / name
    file = within(folder, below)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        margins = np.ascontiguousarray(decisions.margins)
        save_file({"margins": margins}, file)
    return {
        "variant": first.variant,
        "case": first.case,
        "classes": [score.class_name for score in result.scores],
        "support_case": first.support_case,
        "support_slices": list(first.support_slices),
        "margins": below.as_posix(),
        "slices": decisions.slices.tolist(),
        "priors": decisions.priors.tolist(),
    }


@dataclass(frozen=True)
class Decided:
    """A scan as one variant decided it from one support, read back from a run.

    Attributes:
        variant: The variant's name.
        case: The scan.
        classes: Names of the ways.
        support_case: The case that gave the support.
        support_slices: Its labelled slices.
        margins_file: The file of the margins, which variants of the same scoring share.
        slices: The numbers of the slices.
        priors: Log-odds of the prior.
    """

    variant: str
    case: str
    classes: list[str]
    support_case: str
    support_slices: tuple[int, ...]
    margins_file: Path
    slices: Int[np.ndarray, "slice"]
    priors: Float[np.ndarray, "slice way"]

    def margins(self) -> Float[np.ndarray, "slice way h w"]:
        """Each way's logit minus the background's, at feature resolution and an even prior."""
        return load_file(self.margins_file)["margins"]


def read_decisions(folder: Path) -> list[Decided]:
    """The decisions that an evaluation left below a folder; none where it keeps none."""
    file = folder / PRIORS
    if not file.is_file():
        return []
    with reading(file):
        return [_read_decision(folder, line) for line in read_lines(file)]


def _read_decision(folder: Path, line: dict[str, Any]) -> Decided:
    slices = np.array(line["slices"])
    priors = np.array(line["priors"], dtype=np.float64)
    classes = line["classes"]
    if slices.dtype.kind != "i" or priors.shape != (len(slices), len(classes)):
        raise ValueError("its priors are not one number for each slice and class")
    return Decided(
        variant=line["variant"],
        case=line["case"],
        classes=classes,
        support_case=line["support_case"],
        support_slices=tuple(line["support_slices"]),
        margins_file=within(folder, line["margins"]),
        slices=slices,
        priors=priors,
    )
