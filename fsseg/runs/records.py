"""What the files of a run must hold before anything is made of them: one schema for each, checked when it is read."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from fsseg.errors import FssegError
from fsseg.evaluation.scores import CaseScore
from fsseg.plugins.options import explain
from fsseg.system.files import read_json, read_lines

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
    record = _checked(path, RunRecord, values)
    defaults = {key: value for key, value in record.items() if key not in values}
    return values | defaults


class SampleRecord(BaseModel):
    """An episode of the calibration: `CalibrationSample` as it is written.

    Attributes:
        scoring: The prototypes and the head that scored it.
        prior: Log-odds of the ideal prior.
        sizes: Share of the support image that each class covers.
        location: Position of the query slice in its scan.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    scoring: str
    prior: float
    sizes: list[float] = Field(min_length=1)
    location: float


class CalibrationRecord(BaseModel):
    """calibration.json: what the thresholds learned, and of what.

    Attributes:
        states: By variant, what its threshold learned.
        samples: The episodes.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    states: dict[str, dict[str, Any]]
    samples: list[SampleRecord]


class LogRecord(RootModel[dict[str, float]]):
    """A line of train.jsonl: numbers by name, `step` among them."""

    model_config = ConfigDict(strict=True)


def read_calibration(path: Path) -> dict[str, Any]:
    """Reads calibration.json: `states` and `samples`; raises FssegError for a damaged file."""
    return _checked(path, CalibrationRecord, read_json(path))


def read_log(path: Path) -> list[dict[str, float]]:
    """Reads train.jsonl, a table of numbers for each line; raises FssegError for a damaged file."""
    records = []
    for number, values in enumerate(read_lines(path), start=1):
        record = _checked(path, LogRecord, values, f"line {number}: ")
        if "step" not in record:
            raise FssegError(f"{path}: line {number}: has no step; run the recipe again")
        records.append(record)
    return records


def read_environment(path: Path) -> dict[str, Any]:
    """Reads environment.json; raises FssegError for a damaged file."""
    environment = read_json(path)
    if not isinstance(environment, dict) or not isinstance(environment.get("data", {}), dict):
        raise FssegError(
            f"{path}: damaged, expected a table of what digits depend on, with a table data; run the recipe again"
        )
    return environment


def _checked(path: Path, schema: type[BaseModel], values: Any, place: str = "") -> Any:
    """The values of a file, as plain values; raises FssegError for those that do not fit."""
    try:
        return schema.model_validate(values).model_dump()
    except ValidationError as error:
        [(where, sentence), *_] = explain(error, lambda _: list(schema.model_fields))
        at = f"{where}: " if where else ""
        raise FssegError(f"{path}: {place}{at}{sentence}; run the recipe again") from None


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
