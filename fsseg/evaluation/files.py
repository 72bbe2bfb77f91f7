"""What an evaluation writes: label maps on the scans' own grids, and what decided each slice.

What decided is margins under an even prior and the priors that thresholds chose. With them a slice
can be decided again under any prior, without the network and without the scans.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load_file, save_file

from fsseg.data.grids import FileGrid
from fsseg.evaluation.evaluate import CaseResult
from fsseg.evaluation.scores import SCORES, CaseScore
from fsseg.system.files import read_lines, write_lines

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
    file = label_file(folder, result.scores, in_turn=in_turn)
    file.parent.mkdir(parents=True, exist_ok=True)
    voxels = grid.to_file(result.labels)
    image = nibabel.Nifti1Image(voxels, grid.affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, file)


def label_file(folder: Path, scores: Sequence[CaseScore], *, in_turn: bool) -> Path:
    """The path of the label map of which these are all the scores, one for each class that was segmented together."""
    variant = _words(scores[0].variant).strip("_")
    return folder / variant / f"{stem(scores, in_turn=in_turn)}.nii.gz"


def stem(scores: Sequence[CaseScore], *, in_turn: bool) -> str:
    """The beginning of the names of a result's files.

    It tells the class where there is one, and the support where there are several classes or cases
    take turns: `<case>_<class>`, `<case>_from_<support>` or `<case>_<class>_from_<support>`.
    """
    first = scores[0]
    single = len(scores) == 1
    parts = [first.case]
    if single:
        parts.append(first.class_name)
    if in_turn or not single:
        parts.append(f"from_{first.support_case}")
    return "_".join(parts)


def write_margins(folder: Path, result: CaseResult, *, in_turn: bool) -> dict[str, Any]:
    """Writes a result's margins below a folder, unless another variant of its scoring has.

    Returns:
        Its line of priors.
    """
    decisions = result.decisions
    first = result.scores[0]
    name = f"{stem(result.scores, in_turn=in_turn)}.safetensors"
    below = Path(MARGINS) / _plain_words(decisions.scoring) / name
    file = folder / below
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
    return [_read_decision(folder, line) for line in read_lines(file)]


def _read_decision(folder: Path, line: dict[str, Any]) -> Decided:
    return Decided(
        variant=line["variant"],
        case=line["case"],
        classes=line["classes"],
        support_case=line["support_case"],
        support_slices=tuple(line["support_slices"]),
        margins_file=folder / line["margins"],
        slices=np.array(line["slices"]),
        priors=np.array(line["priors"]),
    )


def _words(name: str) -> str:
    """The name with an underscore for everything but letters and digits."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _plain_words(name: str) -> str:
    """The name with an underscore for everything but ASCII letters and digits."""
    return re.sub(r"[^A-Za-z0-9]", "_", name)
