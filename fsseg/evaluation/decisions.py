"""What decided each slice of an evaluation, as files: margins under an even prior, and the priors that thresholds chose.

With them a slice can be decided again under any prior, without the network and without the scans.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load_file, save_file

from fsseg.evaluation.evaluate import CaseResult
from fsseg.evaluation.label_files import stem
from fsseg.system.files import read_lines

MARGINS = "margins"
"""The folder of margins, one folder in it for each kind of scoring."""

PRIORS = "priors.jsonl"
"""The file of priors, a line for each variant, case and support."""


@dataclass(frozen=True)
class Decided:
    """A scan as one variant decided it from one support, read back from a run.

    Attributes:
        variant: The row.
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


def write_margins(folder: Path, result: CaseResult, *, in_turn: bool) -> dict[str, Any]:
    """Writes a result's margins below a stage's folder, unless another variant of its scoring has; returns its line of priors."""
    decisions, first = result.decisions, result.scores[0]
    file = (
        Path(MARGINS)
        / _file_name(decisions.scoring)
        / f"{stem(result, in_turn=in_turn)}.safetensors"
    )
    if not (folder / file).exists():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        save_file({"margins": np.ascontiguousarray(decisions.margins)}, folder / file)
    return {
        "variant": first.variant,
        "case": first.case,
        "classes": [score.class_name for score in result.scores],
        "support_case": first.support_case,
        "support_slices": list(first.support_slices),
        "margins": file.as_posix(),
        "slices": decisions.slices.tolist(),
        "priors": decisions.priors.tolist(),
    }


def read_decisions(folder: Path) -> list[Decided]:
    """What was decided below a stage's folder; empty where it keeps nothing of it."""
    if not (folder / PRIORS).is_file():
        return []
    return [
        Decided(
            line["variant"],
            line["case"],
            line["classes"],
            line["support_case"],
            tuple(line["support_slices"]),
            folder / line["margins"],
            np.array(line["slices"]),
            np.array(line["priors"]),
        )
        for line in read_lines(folder / PRIORS)
    ]


def _file_name(scoring: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", scoring)
