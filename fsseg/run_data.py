"""The data of a run: its scans, folds and what is made of them, shared by all trainings, seeds and rows."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fsseg.assignments import Assignment, assign
from fsseg.data.cache import cached, content_key
from fsseg.data.intensity import Scaling, measure
from fsseg.data.prepared import Facts, kept_facts, kept_training_scan, require_labels, slices_showing
from fsseg.data.scans import EvaluationScan, TrainingScan, evaluation_scan, training_scan
from fsseg.data.stored import Stored
from fsseg.data.working import cached_supervoxels, on_working_grid
from fsseg.episodes import EpisodeSampler
from fsseg.errors import FssegError
from fsseg.progress import Progress
from fsseg.protocols import Fold, SupportChoice, choose_classes, find_protocol, find_scheme, make_fold
from fsseg.recipe import Recipe
from fsseg.stages import component_identity, source_digest, supervoxel_identity
from fsseg.volumes import Dataset, Volume

SCANS_AT_ONCE = 4
"""Scans whose supervoxels are computed together, at most: each takes some hundred megabytes."""

VOLUMES_AT_HAND = 8
"""Scans that stay in memory after they were read: those of a fold of the published benchmarks."""


class Volumes(Mapping[str, Volume]):
    """The scans of a dataset by case, on the working grid or on their own, read when they are looked at.

    The last few stay in memory.
    """

    def __init__(self, dataset: Dataset, grid: dict[str, Any] | None) -> None:
        self._dataset, self._grid = dataset, grid
        self._read = lru_cache(VOLUMES_AT_HAND)(self._load)

    def __getitem__(self, case: str) -> Volume:
        return self._read(case)

    def __iter__(self) -> Iterator[str]:
        return iter(self._dataset.cases)

    def __len__(self) -> int:
        return len(self._dataset.cases)

    def _load(self, case: str) -> Volume:
        own = self._dataset.load(case)
        return own if self._grid is None else on_working_grid(own, self._grid)


class EvaluationScans(Mapping[str, EvaluationScan]):
    """A fold's support and queries by case, made when they are looked at; the last few stay in memory."""

    def __init__(self, cases: Sequence[str], make: Callable[[str], EvaluationScan]) -> None:
        self._cases, self._make = cases, lru_cache(VOLUMES_AT_HAND)(make)

    def __getitem__(self, case: str) -> EvaluationScan:
        return self._make(case)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cases)

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
        self._recipe, self._progress, self._source = recipe, progress, source_digest()
        self._samplers: dict[tuple[Fold, str], EpisodeSampler] = {}
        self._scalings: dict[str, Scaling] = {}
        self.dataset: Dataset = recipe.dataset.build("dataset")
        asked, named = recipe.protocol, find_protocol(recipe.protocol.name)
        self.protocol = replace(named, support=asked.support or named.support, shots=asked.shots)
        self.classes = choose_classes(self.dataset.classes, asked.classes)
        cases = self.dataset.cases
        self.scheme = self.dataset.folds if asked.folds == "dataset" else find_scheme(asked.folds)
        wanted = range(self.scheme.folds) if asked.fold == "all" else [asked.fold]
        self.folds = [make_fold(self.scheme, cases, index, self.protocol.support) for index in wanted]
        grid = recipe.grid.model_dump()
        self.own, self.volumes = Volumes(self.dataset, None), Volumes(self.dataset, grid)
        evaluated = {case for fold in self.folds for case in (fold.support, *fold.queries)}
        trained = {case for fold in self.folds for case in fold.training}
        needed = [case for case in cases if case in evaluated | trained]
        table = recipe.dataset
        reading = content_key(component_identity("dataset", table.name, {}), self._source, grid)
        self.facts: dict[str, Facts] = {}
        self.hidden: dict[str, Bool[np.ndarray, "slice"]] = {}
        for case in progress.track(needed, "data", len(needed)):
            self.facts[case] = kept_facts(self.dataset, case, reading, lambda case=case: self._look_at(case))
            if case in evaluated:
                require_labels(case, self.facts[case])
            if recipe.episodes.setting == 2 and case in trained:
                self.hidden[case] = slices_showing(case, self.facts[case], self.classes)

    def _look_at(self, case: str) -> Facts:
        own = self.dataset.load(case)  # not kept: there may be many
        return Facts.of(own, on_working_grid(own, self._recipe.grid.model_dump()), self.dataset)

    @property
    def support(self) -> SupportChoice:
        """Which case gives the support."""
        return self.protocol.support or self.scheme.support

    def check_hidden(self, fold: Fold) -> None:
        """Raises FssegError where no training scan has two slices left; supervoxels may still find them too small."""
        if self.hidden and all((~self.hidden[case]).sum() < 2 for case in fold.training):
            raise FssegError(
                f"episodes.setting: is 2, but none of the {len(fold.training)} training scans of fold {fold.index} has two "
                f"slices without {' or '.join(self.classes.values())}, expected one at least; evaluate fewer classes with "
                "protocol.classes, or set it to 1"
            )

    def scans(self, fold: Fold, rule: str) -> EvaluationScans:
        """The fold's support and queries under an intensity rule, by case."""
        make = lambda case: evaluation_scan(  # noqa: E731
            self.own[case], self.volumes[case], self.scaling(case, fold, rule)
        )
        return EvaluationScans((fold.support, *fold.queries), make)

    def assignments(self, fold: Fold, scans: Mapping[str, EvaluationScan], seed: int) -> list[Assignment]:
        """What the protocol makes of the fold."""
        return assign(self.protocol, fold, scans, self.classes, seed)

    def sampler(self, fold: Fold, rule: str) -> EpisodeSampler:
        """The fold's sampler; made once, for all trainings and calibrations."""
        if (fold, rule) not in self._samplers:
            self._samplers[fold, rule] = self._make_sampler(fold, rule)
        return self._samplers[fold, rule]

    def training_content(self, fold: Fold) -> dict[str, list[Any]]:
        """What stands for each training scan, its hidden slices, and the size of its supervoxels where nobody says."""
        return {
            case: [self.facts[case].image, self.facts[case].min_size, self._hidden_key(case)] for case in fold.training
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
        key = content_key(rule, self._source, [self.facts[each].image for each in cases])
        if key not in self._scalings:
            measured = cached("scaling", key, lambda: self._measure(rule, cases))
            self._scalings[key] = Scaling(float(measured[0]), float(measured[1]), bool(measured[2]))
        return self._scalings[key]

    def _measure(self, rule: str, cases: Sequence[str]) -> Float[np.ndarray, "3"]:
        scaling = measure(rule, [self.volumes[case].image for case in cases])
        return np.array([scaling.subtract, scaling.divide, scaling.bounded])

    def _hidden_key(self, case: str) -> str | None:
        return content_key(self.hidden[case]) if case in self.hidden else None

    def _make_sampler(self, fold: Fold, rule: str) -> EpisodeSampler:
        table = self._recipe.supervoxels
        method = table.build("supervoxels")
        identity, min_size = supervoxel_identity(table.name, table.options), table.options.get("min_size")

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
                self._source,
                identity,
                min_size or facts.min_size,
                self._hidden_key(case),
            ]
            return kept_training_scan(case, content_key(*parts), lambda: make(case))

        # Threads are enough: the compiled loops let go of the interpreter.
        with ThreadPoolExecutor(min(SCANS_AT_ONCE, os.cpu_count() or 1)) as pool:
            scans = list(self._progress.track(pool.map(kept, fold.training), "supervoxels", len(fold.training)))
        return EpisodeSampler(scans, self._recipe.episodes)
