"""Counts of voxels by case, class and variant, as evaluations write them; plain values, without torch."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from fsseg.errors import FssegError
from fsseg.system.files import reading

Count = Annotated[int, Field(ge=0)]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class CaseScore:
    """Voxel counts of one case, class and variant; ratios come last.

    Attributes:
        variant: The variant's name.
        oracle: True if the variant used the ground truth.
        fold: Index of the fold.
        seed: Seed of the run.
        case: The query case.
        class_name: The class.
        support_case: The case that gave the support.
        support_slices: Its labelled slices.
        intersection: Voxels that are the class in truth and prediction.
        predicted: Voxels predicted as the class.
        actual: Voxels of the class in the ground truth.
        measures: By name, the values of the recipe's metrics; None where one is not defined.
    """

    variant: str
    oracle: bool
    fold: int
    seed: int
    case: str
    class_name: str
    support_case: str
    support_slices: tuple[int, ...]
    intersection: Count
    predicted: Count
    actual: Count
    measures: dict[str, float | None] = field(default_factory=dict)

    @property
    def dice(self) -> float:
        """Dice over the scan's voxels; NaN where the class is in neither truth nor prediction."""
        total = self.predicted + self.actual
        return 2 * self.intersection / total if total else math.nan


SCORES = "scores.jsonl"
"""The file of a run's or an evaluation's scores."""


def read_scores(path: Path) -> list[CaseScore]:
    """Reads scores that `write_lines` wrote; raises FssegError for a damaged file."""
    line_of_scores = TypeAdapter(CaseScore)
    scores = []
    with reading(path):
        lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            scores.append(line_of_scores.validate_json(line, strict=True))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            problem = f"{place}: {first['msg']}" if place else first["msg"]
            raise FssegError(
                f"{path}: line {number}: damaged ({problem}), expected what fsseg wrote; run the recipe again"
            ) from None
    return scores
