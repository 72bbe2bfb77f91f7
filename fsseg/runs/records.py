"""What run.json must hold before anybody makes a table of it: one schema, checked when a run is read."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fsseg.errors import FssegError
from fsseg.evaluation.scores import CaseScore
from fsseg.plugins.options import explain
from fsseg.system.files import read_json

FORMAT = 1
"""Of run.json; goes up when a reader must know."""

Name = Annotated[str, Field(min_length=1)]
Index = Annotated[int, Field(ge=0)]


class MetricFacts(BaseModel):
    """What a reader of a metric's values must know.

    Attributes:
        unit: Of its values.
        best: Its best value.
        better: Whether "higher" or "lower" values are better, or those "nearer" to the best.
    """

    model_config = ConfigDict(strict=True)

    unit: str
    best: float
    better: Literal["higher", "lower", "nearer"]


class RunRecord(BaseModel):
    """run.json: how a run was evaluated.

    Attributes:
        format: The version of this list.
        dataset: The dataset's name.
        protocol: The protocol's name.
        protocol_hash: Stands for everything about the protocol that counts in a comparison.
        uses_truth: Whether the protocol looks at the truth of the queries.
        options: What the recipe changes about the evaluation, in words.
        fold_scheme: How cases are shared among folds.
        folds: The folds that were run.
        seeds: The seeds that were run.
        classes: The classes, in the order of columns.
        metrics: What was measured besides Dice.
        scaling: By fold, the intensities of its training scans, where they scale the others.
        data: By fold, what stands for its scans.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    format: int = FORMAT
    dataset: Name
    protocol: Name
    protocol_hash: str
    uses_truth: bool = False
    options: list[str] = Field(default_factory=list)
    fold_scheme: str = ""
    folds: list[Index] = Field(min_length=1)
    seeds: list[Index] = Field(min_length=1)
    classes: list[Name] = Field(min_length=1)
    metrics: dict[str, MetricFacts] = Field(default_factory=dict)
    scaling: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)


def read_record(path: Path) -> dict[str, Any]:
    """Reads run.json.

    Returns:
        Its values; what an earlier version left out has its default.

    Raises:
        FssegError: It is damaged, of another version, or lacks what a table needs.
    """
    values = read_json(path)
    version = values.get("format", FORMAT) if isinstance(values, dict) else FORMAT
    if version != FORMAT:
        raise FssegError(
            f"{path}: has format {version}, expected {FORMAT}; read it with the fsseg that wrote it"
        )
    try:
        record = RunRecord.model_validate(values)
    except ValidationError as error:
        [(where, sentence), *_] = explain(error, lambda _: list(RunRecord.model_fields))
        place = f"{path}: {where}" if where else str(path)
        raise FssegError(f"{place}: {sentence}; run the recipe again") from None
    defaults = {key: value for key, value in record.model_dump().items() if key not in values}
    return values | defaults


def require_of_run(path: Path, scores: list[CaseScore], record: dict[str, Any]) -> None:
    """Checks that scores are of the run that the record describes.

    Raises:
        FssegError: There is none, or one is of a class, fold, seed or metric that the run does not have.
    """
    if not scores:
        raise FssegError(
            f"{path}: holds no scores, expected one for each case and row; run the recipe again"
        )
    known: dict[str, set[Any]] = {
        "class": set(record["classes"]),
        "fold": set(record["folds"]),
        "seed": set(record["seeds"]),
        "metric": set(record["metrics"]),
    }
    for number, score in enumerate(scores, start=1):
        told: dict[str, set[Any]] = {
            "class": {score.class_name},
            "fold": {score.fold},
            "seed": {score.seed},
            "metric": set(score.measures),
        }
        for kind, values in told.items():
            strange = values - known[kind]
            if strange:
                raise FssegError(
                    f"{path}: line {number} is of {kind} {strange.pop()!r}, which run.json does not name; "
                    "expected what fsseg wrote, run the recipe again"
                )
