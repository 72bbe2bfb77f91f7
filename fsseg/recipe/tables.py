"""Recipes: a whole experiment in one TOML file, its tables in the order in which the data flows."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fsseg.data.folds import FOLD_SCHEMES, SupportChoice
from fsseg.errors import RecipeError
from fsseg.plugins.manager import registry
from fsseg.plugins.options import explain
from fsseg.recipe.protocols import PROTOCOLS
from fsseg.system.files import fingerprint


class Table(BaseModel):
    """A table of a recipe with fixed keys; assigning to a field checks the value."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class ComponentTable(BaseModel):
    """A table that names a component; the other keys are the component's options."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The component's options as written."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """The name, with the options as written."""
        told = ", ".join(f"{key} {value}" for key, value in self.options.items())
        return f"{self.name} ({told})" if told else self.name

    def build(self, kind: str) -> Any:
        """The component, of this kind, with these options."""
        return registry().build(kind, self.name, self.options)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


ComponentField = Annotated[ComponentTable, BeforeValidator(_named)]
"""A component's table, or just its name."""


def _listed(value: Any) -> Any:
    """Refiners as a list, also where there is one; "none" is no refiner."""
    return [
        one
        for one in (value if isinstance(value, list) else [value])
        if one not in ("none", {"name": "none"})
    ]


class GridTable(Table):
    """The working grid: the pixels on which slices are segmented. Predictions return to the scan's own grid."""

    max_size: int = Field(
        256,
        ge=16,
        description="larger slices are resized to fit, unless spacing or size says something else",
    )
    spacing: float | None = Field(None, gt=0, description="pixel size to resize slices to, mm")
    size: int | None = Field(
        None, ge=16, description="height and width to crop or pad slices to, about the centre"
    )


class EpisodeTable(Table):
    """How training episodes are drawn: two neighbouring slices of one supervoxel, augmented."""

    setting: Literal[1, 2] = Field(
        1,
        description="2 leaves out the slices of training scans that show an evaluated class; 1 trains on all",
    )
    min_pixels: int | None = Field(
        None,
        ge=1,
        description="pixels of the region in the first slice of the pair, at least; when omitted, "
        "200 of 256 x 256 scaled to the slice",
    )
    min_slice_pixels: int | None = Field(
        None,
        ge=0,
        description="slices with no more pixels of the region are passed over; when omitted, 20 of 256 x 256, likewise",
    )
    gamma: tuple[float, float] = Field(
        (0.5, 1.5), description="range of the exponent of the intensity change"
    )
    angle: float = Field(5.0, ge=0, description="largest rotation, degrees")
    shift: float = Field(5.0, ge=0, description="largest translation, pixels")
    shear: float = Field(5.0, ge=0, description="largest shear, degrees")
    zoom: tuple[float, float] = Field((0.9, 1.2), description="range of the zoom")
    elastic: float = Field(10.0, ge=0, description="strength of the elastic deformation")
    elastic_sigma: float = Field(
        5.0, gt=0, description="smoothness of the elastic deformation, pixels"
    )


class TrainingTable(Table):
    """What is trained and how; the defaults are the paper's."""

    head: ComponentField = Field(
        ComponentTable(name="tpm"), description="the head whose state is trained"
    )
    prototypes: ComponentField = Field(
        ComponentTable(name="map"), description="the extractor to train with"
    )
    classes: int = Field(
        1,
        ge=1,
        description="supervoxels of an episode at most; 5 for multi-foreground training, as in the paper",
    )
    steps: int = Field(50_000, ge=0, description="optimiser steps, one episode each")
    learning_rate: float = Field(1e-3, gt=0, description="of SGD, at the start")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="of SGD, on everything trainable")
    decay: float = Field(
        0.95, gt=0, le=1, description="factor on the learning rate every decay_every steps"
    )
    decay_every: int = Field(
        1000, ge=1, description="steps between two decays of the learning rate"
    )
    gradient_clip: float = Field(
        1.0, gt=0, description="largest absolute value of a gradient's elements"
    )
    background_weight: float = Field(
        0.1, gt=0, description="weight of background pixels in the query loss"
    )
    alignment: float = Field(1.0, ge=0, description="weight of the prototype alignment loss")
    t_loss: float = Field(0.0, ge=0, description="weight of ADNet's T loss; 0 for TPM")
    average_rate: float = Field(1e-3, gt=0, le=1, description="rate of the running averages")


class SpeedTable(Table):
    """How a run is made fast. Results differ by round-off only, except for the precision."""

    determinism: Literal["fast", "deterministic"] = Field(
        "fast",
        description="deterministic: a GPU uses only operations whose digits are the same each time; those of a CPU always "
        "are",
    )
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="threads that a CPU computes with, on which digits depend; auto: one for each core",
    )

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of the network in training; auto: bfloat16 where the device is faster with it",
    )
    capture: Literal["auto", "on", "off"] = Field(
        "auto", description="steps of fixed shapes, recorded once and replayed; auto: on GPUs"
    )
    channels_last: bool = Field(
        True, description="the network's weights and features with their channels last"
    )
    fused: bool = Field(True, description="the optimiser's update of all weights in one go")
    together: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="trainings (of folds and seeds) at a time; auto: as many as a GPU has room for, else 1",
    )
    checkpoint_every: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="steps after which training saves its state, from which it goes on should it be killed; "
        "auto: every half minute, less often where writing takes more than a fiftieth of the time",
    )


SLURM_OPTIONS = {
    "begin", "clusters", "comment", "constraint", "contiguous", "core-spec", "cores-per-socket", "cpu-freq",
    "cpus-per-gpu", "deadline", "dependency", "exclude", "exclusive", "extra-node-info", "gpu-freq", "gpus",
    "gpus-per-task", "gres", "hint", "licenses", "mail-type", "mail-user", "mem-per-cpu", "mem-per-gpu", "mincpus",
    "nice", "nodelist", "power", "prefer", "priority", "reservation", "sockets-per-node", "spread-job", "switches",
    "threads-per-core", "time-min", "tmp", "use-min-nodes", "wckey",
}  # fmt: skip
"""What `launcher.extra` may say to sbatch: where and when a job runs, nothing that names files, variables or commands."""


def _check_slurm_word(value: str) -> str:
    """It will stand in the script that sbatch reads: with a line break in it, a recipe could add commands of its own."""
    if not re.fullmatch(r"[\w.,:;=@%+*&|()\[\]/-]+", value, flags=re.ASCII):
        raise ValueError(
            "a word of letters, digits and .,:;=@%+*&|()[]/-_ without spaces or line breaks"
        )
    return value


def _check_slurm_options(options: dict[str, Any]) -> dict[str, Any]:
    if not SLURM_OPTIONS.issuperset(key.replace("_", "-") for key in options):
        raise ValueError(f"of sbatch's options only {', '.join(sorted(SLURM_OPTIONS))}")
    return options


SlurmWord = Annotated[str, AfterValidator(_check_slurm_word)]


class LauncherTable(Table):
    """Where the trainings of several folds and seeds run. No result depends on it."""

    name: Literal["local", "slurm"] = Field(
        "local", description="processes of this machine, or jobs of a Slurm cluster"
    )
    jobs: int | None = Field(
        None,
        ge=1,
        description="local: jobs at a time; one after the other in this process when omitted",
    )
    time: int = Field(
        1440,
        ge=1,
        description="slurm: minutes of a job; one that needs more is queued again and goes on",
    )
    gpus: int = Field(1, ge=0, description="slurm: GPUs of a job")
    cpus: int = Field(
        4,
        ge=1,
        description="slurm: processors of a job, and its threads where speed.threads is auto",
    )
    memory: str = Field("16G", pattern=r"^\d+[KMGT]?$", description="slurm: memory of a job")
    parallelism: int = Field(256, ge=1, description="slurm: jobs at a time")
    partition: SlurmWord | None = Field(
        None, description="slurm: the partition; the cluster's own when omitted"
    )
    account: SlurmWord | None = Field(None, description="slurm: the account that pays")
    qos: SlurmWord | None = Field(None, description="slurm: the quality of service")
    extra: Annotated[dict[str, bool | int | SlurmWord], AfterValidator(_check_slurm_options)] = (
        Field(
            {},
            description='slurm: other options of sbatch about where and when a job runs, such as exclude = "node7"',
        )
    )


class CalibrationTable(Table):
    """How thresholds are fitted: on the ideal priors of training-fold episodes."""

    episodes: int = Field(
        1000, ge=2, description="episodes to draw; each is encoded once for all variants"
    )
    classes: int | None = Field(
        None,
        ge=1,
        description="classes of an episode at most; when omitted 1, or 5 where all classes are segmented together",
    )


class ProtocolTable(Table):
    """How the trained segmenter is evaluated."""

    name: Literal[tuple(PROTOCOLS)] = Field("ep2", description="the evaluation protocol")
    folds: Literal[("dataset", *FOLD_SCHEMES)] = Field(
        "dataset", description="how cases are divided into folds; dataset: as the dataset says"
    )
    fold: int | Literal["all"] = Field(0, description="which fold to run")
    support: SupportChoice | None = Field(
        None,
        description="which case gives the support: the fold's last, the next fold's first (circular), or each in turn; "
        "when omitted, as the protocol or the folds say",
    )
    shots: int = Field(1, ge=1, description="labelled slices of a support, all of the same scan")
    classes: list[str] | None = Field(
        None,
        min_length=1,
        description="which of the dataset's classes are evaluated; all when omitted",
    )
    save_labels: bool = Field(True, description="write the predicted label maps")
    save_margins: bool = Field(
        True,
        description="write what decided each slice, at feature resolution, which a report lets one explore",
    )


class VariantTable(Table):
    """One row of the table: what to evaluate the trained backbone with."""

    name: str = Field(min_length=1, description="the row's name")
    prototypes: ComponentField = Field(ComponentTable(name="map"), description="the extractor")
    head: ComponentField = Field(
        ComponentTable(name="tpm"), description="the head; it takes the trained state"
    )
    threshold: ComponentField = Field(description="the threshold policy")
    refiners: Annotated[list[ComponentField], BeforeValidator(_listed)] = Field(
        [],
        description="what decides again over the whole volume, one after the other; one name or table, or a list",
    )
    training: dict[str, Any] = Field(
        {}, description="what differs from [training]: a training of this row's own"
    )

    @property
    def scoring(self) -> str:
        """Equal for rows with the same prototypes and head, whose logits are the same after the same training."""
        return fingerprint([self.prototypes.model_dump(), self.head.model_dump()])[:16]


def _check_seeds(value: Any) -> Any:
    seeds = value if isinstance(value, list) else [value]
    fine = (
        bool(seeds)
        and all(type(seed) is int and seed >= 0 for seed in seeds)
        and len(set(seeds)) == len(seeds)
    )
    if not fine:
        raise ValueError("a whole number from 0 up, or a list of different ones, such as [0, 1, 2]")
    return value


class Recipe(Table):
    """A whole experiment. Fields can be changed; `check` says what is wrong with the result."""

    seed: Annotated[int | list[int], BeforeValidator(_check_seeds)] = Field(
        0,
        description="seed of training, calibration and what a protocol draws; several for a run with each",
    )
    mode: Literal["default", "reference"] = Field(
        "default",
        description="resize logits and decide at image size, or as the published code does",
    )
    dataset: ComponentField = Field(description="the scans")
    grid: GridTable = GridTable()
    supervoxels: ComponentField = Field(
        ComponentTable(name="felzenszwalb"), description="pseudo-classes for training"
    )
    episodes: EpisodeTable = EpisodeTable()
    backbone: ComponentField = Field(description="the feature extractor")
    training: TrainingTable = TrainingTable()
    speed: SpeedTable = SpeedTable()
    calibration: CalibrationTable = CalibrationTable()
    protocol: ProtocolTable = ProtocolTable()
    variants: list[VariantTable] = Field(min_length=1, description="the rows of the table")
    metrics: list[ComponentField] = Field([], description="what is measured besides Dice")
    sweep: dict[str, list[Any]] = Field(
        {},
        description='values by key of a row, such as "prototypes.count" = [1, 3, 5]: every combination becomes a row',
    )
    trackers: list[ComponentField] = Field([], description="who else is told how the run goes")
    launcher: LauncherTable = LauncherTable()

    def check(self) -> None:
        """Raises RecipeError listing every component, option or name that cannot be run."""
        problems = _component_problems(self.dumps())
        if problems:
            raise RecipeError(_report("recipe", problems))

    @property
    def seeds(self) -> list[int]:
        """The seeds to run with."""
        return [self.seed] if isinstance(self.seed, int) else list(self.seed)

    def training_of(self, variant: VariantTable) -> TrainingTable:
        """The training that this variant is evaluated with."""
        return TrainingTable.model_validate(self.training.model_dump() | variant.training)

    def dumps(self) -> dict[str, Any]:
        """The recipe as plain values, with every default written out."""
        return self.model_dump(mode="json", exclude_none=True)

    def toml(self) -> str:
        """The recipe as TOML, complete and ready to run again."""
        return tomli_w.dumps(self.dumps())


TABLES = {
    "grid": GridTable,
    "episodes": EpisodeTable,
    "training": TrainingTable,
    "speed": SpeedTable,
    "launcher": LauncherTable,
    "calibration": CalibrationTable,
    "protocol": ProtocolTable,
    "variants": VariantTable,
}
"""The tables with fixed keys."""

COMPONENTS = {
    "": ("dataset", "supervoxels", "backbone"),
    "training": ("head", "prototypes"),
    "variants": ("prototypes", "head", "threshold"),
}
"""Where a recipe names components: the keys of each table, which are also the components' kinds."""


LISTS = {"metrics": "metric", "trackers": "tracker"}
"""Keys of a recipe that hold a list of components, and their kind."""

ROW_LISTS = {"refiners": "refiner"}
"""The same of a row."""


def _valid_keys(location: tuple[int | str, ...]) -> list[str]:
    """The fixed keys of the table at this place; components' tables are checked against the components."""
    table = TABLES.get(str(location[0])) if location else Recipe
    return list(table.model_fields) if table else []


def _component_problems(tables: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a recipe's components and rows, also where other parts did not validate."""
    problems = []
    for where, kind, named in _components(tables):
        options = {key: value for key, value in named.items() if key != "name"}
        problems += [
            (f"{where}.{key}", text)
            for key, text in registry().problems(kind, named["name"], options)
        ]
    rows = [row for row in _rows(tables) if isinstance(row.get("name"), str)]
    names = [row["name"] for row in rows]
    for number, row in enumerate(rows):
        if names.index(row["name"]) != number:
            problems.append(
                (
                    f"variants.{number}.name",
                    f"{row['name']!r} is used twice; give each row a name of its own",
                )
            )
        problems += [
            (f"variants.{number}.training.{key}", text)
            for key, text in _training_problems(tables, row)
        ]
    return problems


def _training_problems(tables: dict[str, Any], row: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a row's own training; complaints about [training] itself are made there."""
    own, shared = row.get("training"), tables.get("training", {})
    if not isinstance(own, dict) or not isinstance(shared, dict):
        return []
    try:
        TrainingTable.model_validate_json(json.dumps(shared | own, default=str), strict=True)
    except ValidationError as error:
        found = explain(error, lambda _: list(TrainingTable.model_fields))
        return [(key, text) for key, text in found if key.split(".")[0] in own]
    return []


def _components(tables: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every component named in the tables: where, of which kind, and its table."""
    places = [("", "", tables), ("training.", "training", tables.get("training"))]
    for number, row in enumerate(_rows(tables)):
        places += [
            (f"variants.{number}.", "variants", row),
            (f"variants.{number}.training.", "training", row.get("training")),
        ]
    for where, of, table in places:
        for kind in COMPONENTS[of]:
            named = _named(table.get(kind)) if isinstance(table, dict) else None
            if isinstance(named, dict) and isinstance(named.get("name"), str):
                yield where + kind, kind, named
    lists = [("", tables, LISTS)] + [
        (f"variants.{number}.", row, ROW_LISTS) for number, row in enumerate(_rows(tables))
    ]
    for where, table, keys in lists:
        for key, kind in keys.items():
            for number, value in enumerate(_listed(table.get(key, []))):
                named = _named(value)
                if isinstance(named, dict) and isinstance(named.get("name"), str):
                    yield f"{where}{key}.{number}", kind, named


def _rows(tables: dict[str, Any]) -> list[dict[str, Any]]:
    rows = tables.get("variants")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _report(source: str, problems: list[tuple[str, str]]) -> str:
    """One line per problem, each with its table and key as they stand in the file."""
    lines = []
    for where, sentence in problems:
        *table, key = where.split(".")
        place = f"[{'.'.join(table)}]" if table else "top level"
        if len(table) > 1 and table[0] == "variants":
            place = f"[[variants]] number {int(table[1]) + 1}" + "".join(
                f", {part}" for part in table[2:]
            )
        lines.append(f"{source}: {place}: {key}: {sentence}")
    return "\n".join(lines)
