"""The data of a run: its scans, folds and what is made of them, shared by all trainings, seeds and rows."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from fsseg.assignments import Assignment, assign
from fsseg.data.cache import content_key
from fsseg.data.intensity import Scaling, measure
from fsseg.data.regions import default_min_size
from fsseg.data.scans import EvaluationScan, TrainingScan, evaluation_scan, slices_showing, training_scan
from fsseg.data.working import cached_supervoxels, on_working_grid
from fsseg.episodes import EpisodeSampler
from fsseg.errors import FssegError
from fsseg.progress import Progress
from fsseg.protocols import Fold, SupportChoice, choose_classes, find_protocol, find_scheme, make_fold
from fsseg.recipe import Recipe
from fsseg.stages import supervoxel_identity
from fsseg.volumes import Dataset, Volume

SCANS_AT_ONCE = 4
"""Scans whose supervoxels are computed together, at most: each takes some hundred megabytes."""


class RunData:
    """What a recipe says of data, loaded.

    Attributes:
        dataset: The dataset.
        protocol: How folds are evaluated, with what the recipe changes about it.
        classes: The classes that are evaluated.
        scheme: How cases are divided into folds.
        folds: The folds to run.
        volumes: The scans by case, on the working grid.
        own: Those that are segmented, on their own grids.
        hidden: By case, the slices that training must not see.
    """

    def __init__(self, recipe: Recipe, progress: Progress) -> None:
        """Loads the scans that the recipe's folds need; raises FssegError if they cannot be used."""
        self._recipe, self._progress = recipe, progress
        self._samplers: dict[tuple[Fold, str], EpisodeSampler] = {}
        self._scalings: dict[tuple[Fold, str], Scaling] = {}
        self.dataset: Dataset = recipe.dataset.build("dataset")
        asked, named = recipe.protocol, find_protocol(recipe.protocol.name)
        self.protocol = replace(named, support=asked.support or named.support, shots=asked.shots)
        self.classes = choose_classes(self.dataset.classes, asked.classes)
        cases = self.dataset.cases
        self.scheme = self.dataset.folds if asked.folds == "dataset" else find_scheme(asked.folds)
        wanted = range(self.scheme.folds) if asked.fold == "all" else [asked.fold]
        self.folds = [make_fold(self.scheme, cases, index, self.protocol.support) for index in wanted]
        needed = [case for case in cases if any(case in (f.support, *f.queries, *f.training) for f in self.folds)]
        self.volumes: dict[str, Volume] = {}
        self.own: dict[str, Volume] = {}
        self.hidden: dict[str, Bool[np.ndarray, "slice"]] = {}
        for case in progress.track(needed, "data", len(needed)):
            own = self.dataset.load(case)
            self.volumes[case] = on_working_grid(own, recipe.grid.model_dump())
            if any(case in (fold.support, *fold.queries) for fold in self.folds):
                self.own[case] = own
            if recipe.episodes.setting == 2 and any(case in fold.training for fold in self.folds):
                self.hidden[case] = slices_showing(own, self.classes)

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

    def scans(self, fold: Fold, rule: str) -> dict[str, EvaluationScan]:
        """The fold's support and queries under an intensity rule, by case."""
        return {
            case: evaluation_scan(self.own[case], self.volumes[case], self.scaling(case, fold, rule))
            for case in (fold.support, *fold.queries)
        }

    def assignments(self, fold: Fold, scans: dict[str, EvaluationScan], seed: int) -> list[Assignment]:
        """What the protocol makes of the fold."""
        return assign(self.protocol, fold, scans, self.classes, seed)

    def sampler(self, fold: Fold, rule: str) -> EpisodeSampler:
        """The fold's sampler; made once, for all trainings and calibrations."""
        if (fold, rule) not in self._samplers:
            self._samplers[fold, rule] = self._make_sampler(fold, rule)
        return self._samplers[fold, rule]

    def training_content(self, fold: Fold) -> dict[str, str]:
        """A key of each training scan, its hidden slices, and the size of its supervoxels where the recipe is silent."""
        return {
            case: content_key(
                volume.image, volume.spacing, default_min_size(volume, self.dataset), self.hidden.get(case)
            )
            for case, volume in ((case, self.volumes[case]) for case in fold.training)
        }

    def evaluation_content(self, fold: Fold) -> dict[str, Any]:
        """All that decides which voxels of which scans are segmented from which support, and counted."""
        cases = (fold.support, *fold.queries)
        return {
            "protocol": asdict(self.protocol),
            "fold": asdict(fold),
            "classes": self.classes,
            "grid": self._recipe.grid.model_dump(),
            "scans": {
                case: content_key(own.image, own.labels, own.spacing, own.grid.affine)
                for case, own in ((case, self.own[case]) for case in cases)
            },
        }

    def scaling(self, case: str, fold: Fold, rule: str) -> Scaling:
        """What the backbone's intensity rule measures: the volume itself, or the fold's training scans together."""
        if self.dataset.statistics == "volume":
            return measure(rule, [self.volumes[case].image])
        if (fold, rule) not in self._scalings:
            self._scalings[fold, rule] = measure(rule, [self.volumes[case].image for case in fold.training])
        return self._scalings[fold, rule]

    def _make_sampler(self, fold: Fold, rule: str) -> EpisodeSampler:
        table = self._recipe.supervoxels
        method = table.build("supervoxels")
        identity = supervoxel_identity(table.name, table.options)

        def make(case: str) -> TrainingScan:
            volume = self.volumes[case]
            regions = cached_supervoxels(volume, method, self.dataset, identity, table.options.get("min_size"))
            return training_scan(volume, regions, self.scaling(case, fold, rule), self.hidden.get(case))

        # Threads are enough: the compiled loops let go of the interpreter.
        with ThreadPoolExecutor(min(SCANS_AT_ONCE, os.cpu_count() or 1)) as pool:
            scans = list(self._progress.track(pool.map(make, fold.training), "supervoxels", len(fold.training)))
        return EpisodeSampler(scans, self._recipe.episodes)
