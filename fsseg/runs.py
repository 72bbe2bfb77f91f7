"""Runs: a recipe from data to results, stage by stage."""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fsseg.assignments import Assignment, assign
from fsseg.calibration import calibrate
from fsseg.checkpoints import load_trained, save_trained
from fsseg.data.cache import content_key
from fsseg.data.intensity import Scaling, measure
from fsseg.data.regions import default_min_size
from fsseg.data.scans import EvaluationScan, TrainingScan, evaluation_scan, slices_showing, training_scan
from fsseg.data.working import cached_supervoxels, on_working_grid
from fsseg.devices import pick_device
from fsseg.episodes import EpisodeSampler
from fsseg.errors import FssegError
from fsseg.evaluation import CaseResult, evaluate
from fsseg.interfaces import FittedThreshold
from fsseg.plugins import registry
from fsseg.progress import Progress, Silent
from fsseg.protocols import Fold, choose_classes, find_protocol, find_scheme, make_fold, protocol_hash
from fsseg.recipe import ComponentTable, Recipe, TrainingTable, VariantTable, fingerprint
from fsseg.records import write_json, write_lines
from fsseg.results import Results
from fsseg.run_folder import FinishedFold, write_run
from fsseg.segmenter import Segmenter
from fsseg.stages import component_identity, environment, fill_folder, stage_folder, supervoxel_identity
from fsseg.training import train
from fsseg.variants import Variant
from fsseg.volumes import Dataset, Volume

MANY_CLASSES = 5
"""Classes of a calibration episode where a protocol segments all classes together: the paper's number."""

SCANS_AT_ONCE = 4
"""Scans whose supervoxels are computed together, at most: each takes some hundred megabytes."""


def run(
    recipe: Recipe,
    *,
    name: str = "run",
    runs_dir: str | Path = "runs",
    device: str = "auto",
    progress: Progress | None = None,
) -> Results:
    """Runs a recipe: train, calibrate, evaluate, for every fold it asks for.

    Args:
        recipe: The recipe.
        name: What the run directory's name begins with.
        runs_dir: Where run directories and finished stages are kept.
        device: "auto", "cpu" or "cuda".
        progress: Follows the stages; silent when omitted.

    Returns:
        The results, which are also in the run directory.

    Raises:
        FssegError: The recipe, the data or the combination cannot be run. Nothing is left half-written.
    """
    recipe.check()
    context = _Run(recipe, Path(runs_dir), pick_device(device), progress or Silent())
    return context.results(name)


@dataclass(frozen=True)
class _Trained:
    """A finished training of one fold: its identity and its folder."""

    identity: dict[str, Any]
    folder: Path


class _Run:
    """One run in progress: the recipe, the data it loaded, and where it writes."""

    def __init__(self, recipe: Recipe, runs: Path, device: torch.device, progress: Progress) -> None:
        self.recipe, self.runs, self.device, self.progress = recipe, runs, device, progress
        asked, named = recipe.protocol, find_protocol(recipe.protocol.name)
        self.protocol = replace(named, support=asked.support or named.support, shots=asked.shots)
        self._samplers: dict[tuple[Fold, str], EpisodeSampler] = {}
        self._scalings: dict[tuple[Fold, str], Scaling] = {}
        self.dataset: Dataset = _build("dataset", recipe.dataset)
        self.classes = choose_classes(self.dataset.classes, asked.classes)
        cases = self.dataset.cases
        self.scheme = self.dataset.folds if asked.folds == "dataset" else find_scheme(asked.folds)
        wanted = range(self.scheme.folds) if asked.fold == "all" else [asked.fold]
        self.folds = [make_fold(self.scheme, cases, index, self.protocol.support) for index in wanted]
        needed = [case for case in cases if any(case in (f.support, *f.queries, *f.training) for f in self.folds)]
        self.volumes: dict[str, Volume] = {}
        """The scans on the working grid."""
        self.own: dict[str, Volume] = {}
        """Those that are segmented, on their own."""
        self.hidden: dict[str, np.ndarray] = {}
        """By case, the slices that training must not see."""
        for case in progress.track(needed, "data", len(needed)):
            own = self.dataset.load(case)
            self.volumes[case] = on_working_grid(own, recipe.grid.model_dump())
            if any(case in (fold.support, *fold.queries) for fold in self.folds):
                self.own[case] = own
            if recipe.episodes.setting == 2 and any(case in fold.training for fold in self.folds):
                self.hidden[case] = slices_showing(own, self.classes)

    def results(self, name: str) -> Results:
        """Runs every fold and writes the run directory, last and at once."""
        self._check_what_comes_last()
        finished = [self._fold(fold) for fold in self.folds]
        folder = _free_name(self.runs / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
        about = self._about()
        grids = {case: volume.grid for case, volume in self.volumes.items()}
        fill_folder(
            folder,
            lambda unfinished: write_run(
                unfinished, self.recipe, about, environment(self.device.type), finished, grids
            ),
        )
        scores = [score for fold in finished for result in fold.results for score in result.scores]
        return Results(folder, scores, list(self.classes.values()), about)

    def _check_what_comes_last(self) -> None:
        """What cannot be evaluated should not be trained for minutes first."""
        for fold in self.folds:
            self._assign(fold, self._scans(fold, "zscore"))
            self._check_hidden(fold)
        for training, rows in self._by_training():
            state = _build("head", training.head).state_dict()
            for row in rows:
                self._try_out(row, _load_head(row, state, training))

    def _check_hidden(self, fold: Fold) -> None:
        """An episode needs two slices of a scan; supervoxels, which take longer, may still find them too small."""
        if self.hidden and all((~self.hidden[case]).sum() < 2 for case in fold.training):
            raise FssegError(
                f"episodes.setting: is 2, but none of the {len(fold.training)} training scans of fold {fold.index} has two "
                f"slices without {' or '.join(self.classes.values())}, expected one at least; evaluate fewer classes with "
                "protocol.classes, or set it to 1"
            )

    @torch.no_grad()
    def _try_out(self, row: VariantTable, head: nn.Module) -> None:
        """A head may refuse the row's number of prototypes, or the protocol's number of classes."""
        ways = len(self.classes) if self.protocol.together else 1
        features = torch.randn(ways, self.protocol.shots, 8, 4, 4, generator=torch.Generator().manual_seed(0))
        masks = torch.ones(ways, self.protocol.shots, 8, 8, dtype=torch.bool)
        try:
            head(features[:1, 0], _build("prototypes", row.prototypes)(features, masks, head.sigma))
        except FssegError as error:
            raise FssegError(f"variant {row.name!r}: {error}") from None

    def _fold(self, fold: Fold) -> FinishedFold:
        results: list[CaseResult] = []
        folders: dict[str, list[Path]] = {}
        for number, (training, rows) in enumerate(self._by_training()):
            trained = self._train(fold, training)
            backbone, variants = self._load(trained, training, rows)
            calibrated = self._calibrate(fold, trained, backbone, variants)
            results += self._evaluate(fold, backbone, variants)
            folders[f"training{number}"] = [trained.folder, calibrated]
        order = [row.name for row in self.recipe.variants]
        results.sort(key=lambda result: order.index(result.scores[0].variant))
        return FinishedFold(fold, results, folders)

    def _by_training(self) -> list[tuple[TrainingTable, list[VariantTable]]]:
        """The recipe's rows by the training they share."""
        groups: dict[str, tuple[TrainingTable, list[VariantTable]]] = {}
        for row in self.recipe.variants:
            training = self.recipe.training_of(row)
            groups.setdefault(fingerprint(training.model_dump()), (training, []))[1].append(row)
        return list(groups.values())

    def _train(self, fold: Fold, training: TrainingTable) -> _Trained:
        recipe = self.recipe
        identity = {
            "stage": "train",
            "training": training.model_dump(),
            "head": _identity("head", training.head),
            "prototypes": _identity("prototypes", training.prototypes),
            "backbone": _identity("backbone", self._backbone_table()),
            "supervoxels": _identity("supervoxels", recipe.supervoxels),
            "episodes": recipe.episodes.model_dump(),
            "seed": recipe.seed,
            "mode": recipe.mode,
            "statistics": self.dataset.statistics,
            "data": {case: self._content(case) for case in fold.training},
            "hidden": {case: content_key(self.hidden[case]) for case in fold.training if case in self.hidden},
            "environment": environment(self.device.type),
        }

        def make(folder: Path) -> None:
            backbone, head = self._build_trainable(training)
            sampler = self._sampler(fold, backbone.intensity)
            prototypes = _build("prototypes", training.prototypes)
            log = train(
                backbone, prototypes, head, sampler, training,
                seed=recipe.seed, mode=recipe.mode, device=self.device, progress=self.progress,
            )  # fmt: skip
            write_lines(folder / "train.jsonl", log)
            save_trained(folder / "checkpoint.safetensors", backbone, head)

        folder, reused = stage_folder(self.runs, "train", identity, make)
        if reused:
            self.progress.note(f"training of fold {fold.index}: taken from {folder}")
        return _Trained(identity, folder)

    def _load(
        self, trained: _Trained, training: TrainingTable, rows: list[VariantTable]
    ) -> tuple[nn.Module, list[Variant]]:
        """The trained backbone and the rows' segmenters, in evaluation mode."""
        state = load_trained(trained.folder / "checkpoint.safetensors")
        backbone, _ = self._build_trainable(training)
        backbone.load_state_dict(state["backbone"])
        backbone.eval()
        variants = []
        for row in rows:
            head = _load_head(row, state["head"], training).to(self.device).eval()
            segmenter = Segmenter(
                backbone,
                _build("prototypes", row.prototypes),
                head,
                _build("threshold", row.threshold),
                mode=self.recipe.mode,
            )
            scoring = fingerprint([row.prototypes.model_dump(), row.head.model_dump()])[:16]
            variants.append(Variant(row.name, segmenter, scoring))
        return backbone, variants

    def _calibrate(self, fold: Fold, trained: _Trained, backbone: nn.Module, variants: list[Variant]) -> Path:
        rows = {row.name: row for row in self.recipe.variants}
        identity = {
            "stage": "calibrate",
            "trained": trained.identity,
            "episodes": self.recipe.calibration.episodes,
            "classes": self._calibration_classes,
            "variants": [
                [
                    variant.name,
                    *[_identity(k, getattr(rows[variant.name], k)) for k in ("prototypes", "head", "threshold")],
                ]
                for variant in variants
                if isinstance(variant.segmenter.threshold, FittedThreshold)
            ],
        }

        def make(folder: Path) -> None:
            calibration = calibrate(
                backbone, variants, self._sampler(fold, backbone.intensity), self.recipe.calibration.episodes,
                seed=self.recipe.seed, device=self.device, classes=self._calibration_classes, progress=self.progress,
            )  # fmt: skip
            write_json(folder / "calibration.json", calibration.dumps())

        folder, _ = stage_folder(self.runs, "calibrate", identity, make)
        states = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))["states"]
        for variant in variants:
            if variant.name in states:
                variant.segmenter.threshold.load_state(states[variant.name])
        return folder

    def _evaluate(self, fold: Fold, backbone: nn.Module, variants: list[Variant]) -> Iterable[CaseResult]:
        scans = self._scans(fold, backbone.intensity)
        return evaluate(
            backbone, variants, self._assign(fold, scans), scans, fold,
            seed=self.recipe.seed, device=self.device, progress=self.progress,
        )  # fmt: skip

    def _scans(self, fold: Fold, rule: str) -> dict[str, EvaluationScan]:
        return {case: self._evaluation_scan(case, fold, rule) for case in (fold.support, *fold.queries)}

    def _assign(self, fold: Fold, scans: dict[str, EvaluationScan]) -> list[Assignment]:
        return assign(self.protocol, fold, scans, self.classes, self.recipe.seed)

    @property
    def _calibration_classes(self) -> int:
        """Classes of a calibration episode: as many as training ones may have where all are segmented together."""
        asked = self.recipe.calibration.classes
        return asked or (MANY_CLASSES if self.protocol.together else 1)

    def _evaluation_scan(self, case: str, fold: Fold, rule: str) -> EvaluationScan:
        return evaluation_scan(self.own[case], self.volumes[case], self._scaling(self.volumes[case], fold, rule))

    def _scaling(self, volume: Volume, fold: Fold, rule: str) -> Scaling:
        """What the backbone's intensity rule measures: the volume itself, or the fold's training scans together."""
        if self.dataset.statistics == "volume":
            return measure(rule, [volume.image])
        if (fold, rule) not in self._scalings:
            self._scalings[fold, rule] = measure(rule, [self.volumes[case].image for case in fold.training])
        return self._scalings[fold, rule]

    def _content(self, case: str) -> str:
        """A training scan, and the size of its supervoxels where the recipe is silent, as a key."""
        volume = self.volumes[case]
        return content_key(volume.image, volume.spacing, default_min_size(volume, self.dataset))

    def _sampler(self, fold: Fold, rule: str) -> EpisodeSampler:
        """The fold's sampler; made once, for all trainings and calibrations."""
        if (fold, rule) not in self._samplers:
            self._samplers[fold, rule] = self._make_sampler(fold, rule)
        return self._samplers[fold, rule]

    def _make_sampler(self, fold: Fold, rule: str) -> EpisodeSampler:
        method = _build("supervoxels", self.recipe.supervoxels)
        options = self.recipe.supervoxels.options
        identity = supervoxel_identity(self.recipe.supervoxels.name, options)

        def make(case: str) -> TrainingScan:
            volume = self.volumes[case]
            regions = cached_supervoxels(volume, method, self.dataset, identity, options.get("min_size"))
            return training_scan(volume, regions, self._scaling(volume, fold, rule), self.hidden.get(case))

        # Threads are enough: the compiled loops let go of the interpreter.
        with ThreadPoolExecutor(min(SCANS_AT_ONCE, os.cpu_count() or 1)) as pool:
            scans = list(self.progress.track(pool.map(make, fold.training), "supervoxels", len(fold.training)))
        return EpisodeSampler(scans, self.recipe.episodes)

    def _backbone_table(self) -> ComponentTable:
        """The backbone's table; weights that are not loaded start from the run's seed unless it says otherwise."""
        return ComponentTable(**{"seed": self.recipe.seed} | self.recipe.backbone.model_dump())

    def _build_trainable(self, training: TrainingTable) -> tuple[nn.Module, nn.Module]:
        backbone = _build("backbone", self._backbone_table()).to(self.device)
        return backbone, _build("head", training.head).to(self.device)

    def _about(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset.name,
            "protocol": self.protocol.name,
            "uses_truth": self.protocol.uses_truth,
            "protocol_hash": protocol_hash(self.protocol, self.scheme, self.classes),
            "options": self._options(),
            "setting": self.recipe.episodes.setting,
            "support": self.protocol.support or self.scheme.support,
            "fold_scheme": self.scheme.name,
            "folds": [fold.index for fold in self.folds],
            "seed": self.recipe.seed,
            "classes": list(self.classes.values()),
        }

    def _options(self) -> list[str]:
        """What the recipe changes about the evaluation and what training sees, in words for the head of a table."""
        asked = self.recipe.protocol
        told = [f"support {asked.support}"] if asked.support else []
        told += [f"{asked.shots} shots"] if asked.shots > 1 else []
        return told + (["setting 2"] if self.recipe.episodes.setting == 2 else [])


def _build(kind: str, table: ComponentTable) -> Any:
    return registry().build(kind, table.name, table.options)


def _identity(kind: str, table: ComponentTable) -> dict[str, Any]:
    return component_identity(kind, table.name, table.options)


def _load_head(row: VariantTable, state: dict[str, torch.Tensor], training: TrainingTable) -> nn.Module:
    head = _build("head", row.head)
    try:
        head.load_state_dict(state)
    except RuntimeError:
        raise FssegError(
            f"variant {row.name!r}: its head {row.head.name} cannot take the state that training the head "
            f"{training.head.name} left ({', '.join(state)}), expected {', '.join(head.state_dict())}; "
            "give the row a training of its own, or both heads the same form of score threshold"
        ) from None
    return head


def _free_name(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that is not taken."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
