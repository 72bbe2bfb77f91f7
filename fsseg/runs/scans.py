"""The scans of a run: read when they are needed, while what is asked of all of them is kept as facts."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from fsseg.data.cache import Note, cached, content_key
from fsseg.data.facts import Facts, kept_facts, require_same
from fsseg.data.intensity import Scaling, measure
from fsseg.data.on_demand import InTurn, OnDemand
from fsseg.data.supervoxels.kept import cached_supervoxels
from fsseg.data.supervoxels.stored import Stored
from fsseg.data.volume import Volume, on_working_grid
from fsseg.evaluation.scans import EvaluationScan, evaluation_scan
from fsseg.interfaces import Dataset, Intensity, Supervoxels
from fsseg.recipe.tables import ComponentTable, GridTable
from fsseg.runs.identity import component_identity, reading_identity, supervoxel_identity
from fsseg.system.files import fingerprint
from fsseg.system.parallel import at_once
from fsseg.system.progress import Progress
from fsseg.training.labels import training_classes
from fsseg.training.mapped import kept_training_scan
from fsseg.training.scans import TrainingScan, regions_for, training_scan


class RunScans:
    """The scans of some cases of a dataset, on their own grids and on the working grid.

    Attributes:
        dataset: Where they come from.
        original: The scans by case, on their own grids; read when they are looked at.
        working: The same on the working grid.
        facts: By case, what is known of a scan without its voxels.
    """

    def __init__(
        self,
        dataset: Dataset,
        table: ComponentTable,
        grid: GridTable,
        cases: Sequence[str],
        progress: Progress,
    ) -> None:
        """Looks at every scan once, or at what is kept of it; raises DataError for one that cannot be read."""
        self.dataset = dataset
        self._grid = grid.model_dump()
        self._reading = reading_identity(table, self._grid)
        self._scalings: dict[str, Scaling] = {}
        self._note = progress.note
        self.original: Mapping[str, Volume] = OnDemand(cases, self._load)
        self.working: Mapping[str, Volume] = OnDemand(
            cases, lambda case: self._resize(self.original[case])
        )
        self.facts: dict[str, Facts] = dict(
            zip(cases, at_once(self._look_up, cases, progress, "data"))
        )

    def _look_up(self, case: str) -> Facts:
        return kept_facts(
            self.dataset, case, self._reading, lambda: self._look_at(case), self._note
        )

    def _look_at(self, case: str) -> Facts:
        volume = self.dataset.load(case)  # not kept: there may be many
        return Facts.of(volume, self._resize(volume), self.dataset)

    def _load(self, case: str) -> Volume:
        volume = self.dataset.load(case)
        require_same(volume, self.facts[case], self.dataset, self._reading)
        return volume

    def _resize(self, volume: Volume) -> Volume:
        return on_working_grid(volume, self._grid)

    def scaling(self, intensity: "IntensitySource", cases: Sequence[str]) -> Scaling:
        """An intensity rule's measurement over these scans together, made once.

        Of some thousand scans together it takes minutes.
        """
        images = [self.facts[case].image for case in cases]
        key = content_key(intensity.identity, self._reading, images)
        if key not in self._scalings:
            text = cached("scaling", key, lambda: self._measure(intensity.rule, cases), self._note)
            measured = json.loads(text.tobytes())
            self._scalings[key] = Scaling(intensity.rule, measured)
        return self._scalings[key]

    def _measure(self, rule: Intensity, cases: Sequence[str]) -> UInt8[np.ndarray, "byte"]:
        """What the rule measures, as the bytes of its JSON."""
        scaling = measure(rule, InTurn(lambda case: self.working[case].image, cases))
        text = json.dumps(scaling.measured, sort_keys=True)
        return np.frombuffer(text.encode(), dtype=np.uint8)

    def evaluation_scan(self, case: str, scaling: Scaling) -> EvaluationScan:
        """A scan with its ground truth; raises DataError for one without labels."""
        return evaluation_scan(self.original[case], self.working[case], scaling)

    def training_scan(
        self,
        case: str,
        supervoxels: "SupervoxelSource",
        pairs: "PairSource",
        intensity: "IntensitySource",
        scaling: Scaling,
        hidden: Bool[np.ndarray, "slice"] | None,
    ) -> TrainingScan:
        """A scan with the regions of which episodes are made, kept between runs.

        Args:
            case: The case.
            supervoxels: How it is cut.
            pairs: The source of episodes.
            intensity: The intensity rule.
            scaling: What the intensity rule measured.
            hidden: Slices that training must not see; None where it may see all.
        """

        def make() -> TrainingScan:
            volume = self.working[case]
            cut = partial(supervoxels.cut, volume, self.dataset, self._note)
            regions = regions_for(pairs.source, volume, cut, pairs.classes)
            return training_scan(volume, regions, scaling, hidden)

        if isinstance(supervoxels.method, Stored):
            return make()  # they are read from the dataset, which may have changed
        facts = self.facts[case]
        key = content_key(
            facts.image,
            intensity.identity,
            scaling.measured,
            self._reading,
            supervoxels.identity,
            supervoxels.min_size or facts.min_size,
            pairs.regions_key(facts),
            hidden_key(hidden),
        )
        return kept_training_scan(case, key, make, self._note)


@dataclass(frozen=True)
class IntensitySource:
    """An intensity rule, ready to measure scans.

    Attributes:
        rule: The rule.
        identity: Stands for the rule, its options and its source.
    """

    rule: Intensity
    identity: str

    @staticmethod
    def of(table: ComponentTable) -> "IntensitySource":
        """The rule that a table names."""
        identity = fingerprint(component_identity("intensity", table))
        return IntensitySource(table.build("intensity"), identity)


@dataclass(frozen=True)
class PairSource:
    """A source of episodes, ready to make regions of scans.

    Attributes:
        table: The recipe's table of it.
        source: The source.
        identity: Stands for the source, its options and its code.
        classes: The classes whose labels it sees, by label value; none of them is evaluated.
    """

    table: ComponentTable
    source: Any
    identity: str
    classes: dict[int, str]

    @staticmethod
    def of(
        table: ComponentTable, classes: Mapping[int, str], evaluated: Collection[str]
    ) -> "PairSource":
        """The source that a recipe names.

        Args:
            table: Its table.
            classes: The dataset's classes.
            evaluated: The names of those that are evaluated.

        Raises:
            FssegError: It would train on a class that is evaluated, or that the dataset does not have.
        """
        source = table.build("episodes")
        identity = fingerprint(component_identity("episodes", table))
        wanted = getattr(source, "classes", ())
        return PairSource(table, source, identity, training_classes(wanted, classes, evaluated))

    def regions_key(self, facts: Facts) -> list[str] | None:
        """What a scan's regions depend on besides its supervoxels; None where they are the supervoxels."""
        if not hasattr(self.source, "regions"):
            return None
        return [self.identity, self.labels_key(facts)]

    def labels_key(self, facts: Facts) -> str:
        """What stands for the labels that it sees of a scan."""
        return facts.scan if self.classes else ""


@dataclass(frozen=True)
class SupervoxelSource:
    """A recipe's supervoxel method, ready to cut scans.

    Attributes:
        method: The method.
        identity: Stands for the method, its options and its source.
        min_size: Its option of this name, if it has one and it was given.
    """

    method: Supervoxels
    identity: str
    min_size: int | None

    @staticmethod
    def of(table: ComponentTable) -> "SupervoxelSource":
        """The method that a recipe names."""
        method = table.build("supervoxels")
        return SupervoxelSource(method, supervoxel_identity(table), table.options.get("min_size"))

    def cut(
        self, volume: Volume, dataset: Dataset, note: Note
    ) -> Int32[np.ndarray, "slice height width"]:
        """The supervoxels of a scan, computed once and kept."""
        return cached_supervoxels(volume, self.method, dataset, self.identity, self.min_size, note)


def hidden_key(hidden: Bool[np.ndarray, "slice"] | None) -> str | None:
    """A text that stands for the slices that training must not see."""
    return None if hidden is None else content_key(hidden)
