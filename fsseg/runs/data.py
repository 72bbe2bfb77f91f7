"""The data of a run: its scans, folds and what is made of them, shared by all trainings, seeds and rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fsseg.data.cache import cached, content_key
from fsseg.data.facts import Facts, kept_facts, require_labels, require_same, slices_showing
from fsseg.data.folds import Fold, SupportChoice, find_scheme, make_fold
from fsseg.data.intensity import Scaling, measure
from fsseg.data.supervoxels.kept import cached_supervoxels
from fsseg.data.supervoxels.stored import Stored
from fsseg.data.volume import Volume, on_working_grid
from fsseg.errors import FssegError
from fsseg.evaluation.assignments import (
    Assignment,
    Choice,
    Shown,
    assign,
    choose,
    choose_every_support,
    with_supports,
)
from fsseg.evaluation.scans import EvaluationScan, evaluation_scan
from fsseg.interfaces import Dataset
from fsseg.recipe.protocols import choose_classes, find_protocol
from fsseg.recipe.tables import Recipe
from fsseg.runs.identity import reading_identity, supervoxel_identity
from fsseg.system.files import fingerprint
from fsseg.system.parallel import Made, at_once
from fsseg.system.progress import Progress
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.mapped import kept_training_scan
from fsseg.training.scans import TrainingScan, training_scan

AT_HAND = 8
"""Scans that stay in memory after they were read: those of a fold of the published benchmarks."""


class OnDemand(Mapping[str, Made]):
    """What is made of each case, when it is looked at; the last few stay in memory."""

    def __init__(self, cases: Iterable[str], make: Callable[[str], Made]) -> None:
        self._cases, self._make = list(cases), lru_cache(AT_HAND)(make)

    def __getitem__(self, case: str) -> Made:
        return self._make(case)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cases)

    def __len__(self) -> int:
        return len(self._cases)


class InTurn(Sequence[np.ndarray]):
    """Arrays that are read one after the other, and again when they are looked at again."""

    def __init__(self, read: Callable[[str], np.ndarray], cases: Sequence[str]) -> None:
        self._read, self._cases = read, cases

    def __getitem__(self, place: int) -> np.ndarray:
        return self._read(self._cases[place])

    def __len__(self) -> int:
        return len(self._cases)


class RunData:
    """What a recipe says of data. Scans are read when they are needed; what is asked of all of them is kept.

    Attributes:
        dataset: The dataset.
        protocol: How folds are evaluated, with what the recipe changes about it.
        classes: The classes that are evaluated.
        scheme: How cases are divided into folds.
        folds: The folds to run.
        volumes: The scans by case, on the working grid.
        own: The same on their own grids.
        facts: By case that the folds need, what is known of it without its voxels.
        hidden: By case, the slices that training must not see.
    """

    def __init__(self, recipe: Recipe, progress: Progress) -> None:
        """Looks at the scans that the recipe's folds need; raises FssegError if they cannot be used."""
        self._recipe, self._progress = recipe, progress
        self._reading = reading_identity(recipe.dataset.name, recipe.grid.model_dump())
        self._samplers: dict[tuple[Fold, str], EpisodeSampler] = {}
        self._scalings: dict[str, Scaling] = {}
        self.dataset: Dataset = recipe.dataset.build("dataset")
        asked, named = recipe.protocol, find_protocol(recipe.protocol.name)
        self.protocol = replace(named, support=asked.support or named.support, shots=asked.shots)
        self.classes = choose_classes(self.dataset.classes, asked.classes)
        cases = self.dataset.cases
        self.scheme = self.dataset.folds if asked.folds == "dataset" else find_scheme(asked.folds)
        wanted = range(self.scheme.folds) if asked.fold == "all" else [asked.fold]
        self.folds = [
            make_fold(self.scheme, cases, index, self.protocol.support) for index in wanted
        ]
        evaluated = {case for fold in self.folds for case in (fold.support, *fold.queries)}
        trained = {case for fold in self.folds for case in fold.training}
        needed = [case for case in cases if case in evaluated | trained]
        self.own = OnDemand(needed, self._load)
        self.volumes = OnDemand(needed, lambda case: self._resize(self.own[case]))
        self.facts: dict[str, Facts] = {}
        self.hidden: dict[str, Bool[np.ndarray, "slice"]] = {}
        for case, facts in zip(needed, at_once(self._find_facts, needed, progress, "data")):
            self.facts[case] = facts
            if case in evaluated:
                require_labels(case, facts)
            if recipe.episodes.setting == 2 and case in trained:
                self.hidden[case] = slices_showing(case, facts, self.classes)

    def _find_facts(self, case: str) -> Facts:
        def look() -> Facts:
            own = self.dataset.load(case)  # not kept: there may be many
            return Facts.of(own, self._resize(own), self.dataset)

        return kept_facts(self.dataset, case, self._reading, look)

    def _load(self, case: str) -> Volume:
        own = self.dataset.load(case)
        require_same(own, self.facts[case], self.dataset, self._reading)
        return own

    def _resize(self, own: Volume) -> Volume:
        return on_working_grid(own, self._recipe.grid.model_dump())

    @property
    def support(self) -> SupportChoice:
        """Which case gives the support."""
        return self.protocol.support or self.scheme.support

    def require_evaluated(self, kept: Mapping[str, str], run: Path) -> None:
        """Raises FssegError unless the folds' scans are those of which a finished run kept these keys by fold."""
        for fold in self.folds:
            key = self.evaluation_key(fold)
            if kept.get(str(fold.index)) != key:
                raise FssegError(
                    f"{run}: the scans of fold {fold.index} are not those that were evaluated ({key}, not "
                    f"{kept.get(str(fold.index))}); put the scans back, or run the recipe again with these"
                )

    def evaluation_key(self, fold: Fold) -> str:
        """What stands for all that the fold's scores depend on besides the method."""
        return fingerprint(self.evaluation_content(fold))[:16]

    def every_support(self, fold: Fold, scans: Mapping[str, EvaluationScan]) -> list[Assignment]:
        """Every slice of the fold that could be the support, for all other cases."""
        return with_supports(
            choose_every_support(self.protocol, fold, self._shown(fold), self.classes), scans
        )

    def check_hidden(self, fold: Fold) -> None:
        """Raises FssegError where no training scan has two slices left; supervoxels may still find them too small."""
        if self.hidden and all((~self.hidden[case]).sum() < 2 for case in fold.training):
            raise FssegError(
                f"episodes.setting: is 2, but none of the {len(fold.training)} training scans of fold {fold.index} has two "
                f"slices without {' or '.join(self.classes.values())}, expected one at least; evaluate fewer classes with "
                "protocol.classes, or set it to 1"
            )

    def check_assignments(self, fold: Fold, seed: int) -> None:
        """Raises DataError where a support does not show what it should; reads no scan."""
        self.choices(fold, seed)

    def choices(self, fold: Fold, seed: int) -> list[Choice]:
        """What `assignments` makes of the fold, without the supports' voxels; reads no scan."""
        return choose(self.protocol, fold, self._shown(fold), self.classes, seed)

    def scans(self, fold: Fold, rule: str) -> OnDemand:
        """The fold's support and queries under an intensity rule, by case."""
        make = lambda case: evaluation_scan(  # noqa: E731
            self.own[case], self.volumes[case], self.scaling(case, fold, rule)
        )
        return OnDemand((fold.support, *fold.queries), make)

    def assignments(
        self, fold: Fold, scans: Mapping[str, EvaluationScan], seed: int
    ) -> list[Assignment]:
        """What the protocol makes of the fold."""
        return assign(self.protocol, fold, scans, self.classes, seed, self._shown(fold))

    def _shown(self, fold: Fold) -> dict[str, Shown]:
        return {case: self.facts[case].working for case in (fold.support, *fold.queries)}

    def sampler(self, fold: Fold, rule: str) -> EpisodeSampler:
        """The fold's sampler; made once, for all trainings and calibrations."""
        if (fold, rule) not in self._samplers:
            self._samplers[fold, rule] = self._make_sampler(fold, rule)
        return self._samplers[fold, rule]

    def training_content(self, fold: Fold) -> dict[str, list[Any]]:
        """What stands for each training scan, its hidden slices, and the size of its supervoxels where nobody says."""
        return {
            case: [self.facts[case].image, self.facts[case].min_size, self._hidden_key(case)]
            for case in fold.training
        }

    def evaluation_content(self, fold: Fold) -> dict[str, Any]:
        """All that decides which voxels of which scans are segmented from which support, and counted."""
        cases = (fold.support, *fold.queries)
        return {
            "protocol": asdict(self.protocol),
            "fold": asdict(fold),
            "classes": self.classes,
            "grid": self._recipe.grid.model_dump(),
            "scans": {case: self.facts[case].scan for case in cases},
        }

    def scaling(self, case: str, fold: Fold, rule: str) -> Scaling:
        """What the backbone's intensity rule measures: the volume itself, or the fold's training scans together."""
        cases = (case,) if self.dataset.statistics == "volume" else fold.training
        # Measured once: of some thousand scans together that takes minutes.
        key = content_key(rule, self._reading, [self.facts[each].image for each in cases])
        if key not in self._scalings:
            measured = cached("scaling", key, lambda: self._measure(rule, cases))
            self._scalings[key] = Scaling(float(measured[0]), float(measured[1]), bool(measured[2]))
        return self._scalings[key]

    def _measure(self, rule: str, cases: Sequence[str]) -> Float[np.ndarray, "3"]:
        scaling = measure(rule, InTurn(lambda case: self.volumes[case].image, cases))
        return np.array([scaling.subtract, scaling.divide, scaling.bounded])

    def _hidden_key(self, case: str) -> str | None:
        return content_key(self.hidden[case]) if case in self.hidden else None

    def _make_sampler(self, fold: Fold, rule: str) -> EpisodeSampler:
        table = self._recipe.supervoxels
        method = table.build("supervoxels")
        identity, min_size = (
            supervoxel_identity(table.name, table.options),
            table.options.get("min_size"),
        )

        def make(case: str) -> TrainingScan:
            volume, scaling = self.volumes[case], self.scaling(case, fold, rule)
            regions = cached_supervoxels(volume, method, self.dataset, identity, min_size)
            return training_scan(volume, regions, scaling, self.hidden.get(case))

        def kept(case: str) -> TrainingScan:
            if isinstance(method, Stored):
                return make(case)  # they are read from the dataset, which may have changed
            facts, scaling = self.facts[case], self.scaling(case, fold, rule)
            parts = [
                facts.image,
                scaling,
                self._reading,
                identity,
                min_size or facts.min_size,
                self._hidden_key(case),
            ]
            return kept_training_scan(case, content_key(*parts), lambda: make(case))

        scans = at_once(kept, fold.training, self._progress, "supervoxels")
        return EpisodeSampler(list(scans), self._recipe.episodes)
