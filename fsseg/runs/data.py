"""The data of a run, asked once: `RunData` for what all folds share, `RunData.of` for a fold."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from fsseg.data.facts import require_labels, slices_showing
from fsseg.data.folds import Fold
from fsseg.data.intensity import Scaling
from fsseg.data.on_demand import OnDemand
from fsseg.errors import FssegError
from fsseg.evaluation.assignments import Assignment, with_supports
from fsseg.evaluation.choices import Choice, Shown
from fsseg.evaluation.choosing import choose, choose_every_support
from fsseg.evaluation.files import stem_of
from fsseg.evaluation.scans import EvaluationScan
from fsseg.evaluation.sound_choices import require_one_size
from fsseg.interfaces import Dataset
from fsseg.model.backbones.sizes import try_sizes
from fsseg.model.inputs import context_of, require_channels, scan_channels_of
from fsseg.recipe.parts import intensity_of
from fsseg.recipe.protocols import Protocol
from fsseg.recipe.setup import set_up
from fsseg.recipe.tables import ComponentTable, Recipe
from fsseg.recipe.trainings import trainings_of
from fsseg.runs.scans import IntensitySource, PairSource, RunScans, SupervoxelSource, hidden_key
from fsseg.system.files import fingerprint
from fsseg.system.names import require_distinct
from fsseg.system.parallel import at_once
from fsseg.system.progress import Progress
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.scans import TrainingScan


class RunData:
    """What a recipe says of data.

    Attributes:
        recipe: The recipe.
        dataset: The dataset.
        setup: How it is evaluated: protocol, classes and folds.
        pairs: The source of training's episodes.
        calibration_pairs: That of calibration's, usually the same.
        scans: The scans that these folds need.
        hidden: By case, the slices that training must not see.
        progress: Follows the work on scans.
    """

    def __init__(self, recipe: Recipe, progress: Progress) -> None:
        """Looks at the scans that the recipe's folds need; raises FssegError if they cannot be used."""
        self.recipe = recipe
        self.progress = progress
        self.dataset: Dataset = recipe.dataset.build("dataset")
        self.setup = set_up(recipe.protocol, self.dataset)
        self.pairs = self._pair_source(recipe.episodes.source_in_full())
        table = recipe.calibration.source
        self.calibration_pairs = self.pairs if table is None else self._pair_source(table)
        needed = self.setup.evaluated | self.setup.trained
        cases = [case for case in self.dataset.cases if case in needed]
        self.scans = RunScans(self.dataset, recipe.dataset, recipe.grid, cases, progress)
        self.hidden = self._look_at_labels()
        self._of_fold: dict[int, FoldData] = {}

    def _pair_source(self, table: ComponentTable) -> PairSource:
        """A source of episodes; raises FssegError for one that would train on a class that is evaluated."""
        return PairSource.of(table, self.dataset.classes, self.setup.classes.values())

    def _look_at_labels(self) -> dict[str, Bool[np.ndarray, "slice"]]:
        """Checks that there are labels where they are needed; returns the slices that are hidden from training."""
        hidden = {}
        for case, facts in self.scans.facts.items():
            if case in self.setup.evaluated:
                require_labels(case, facts)
            if case in self.setup.trained and self.recipe.episodes.setting == 2:
                hidden[case] = slices_showing(case, facts, self.setup.classes)
        return hidden

    @property
    def folds(self) -> list[Fold]:
        """The folds to run."""
        return self.setup.folds

    @property
    def protocol(self) -> Protocol:
        """How folds are evaluated, with what the recipe changes about it."""
        return self.setup.protocol

    @property
    def classes(self) -> dict[int, str]:
        """The classes that are evaluated: names by label value."""
        return self.setup.classes

    def of(self, fold: Fold) -> "FoldData":
        """The data of one of the folds; the same value each time, so that what it holds is made once."""
        if fold.index not in self._of_fold:
            self._of_fold[fold.index] = FoldData(fold, self)
        return self._of_fold[fold.index]

    @cached_property
    def supervoxels(self) -> SupervoxelSource:
        """The recipe's way to cut training scans."""
        return SupervoxelSource.of(self.recipe.supervoxels)

    @cached_property
    def intensity(self) -> IntensitySource:
        """The rule that scales intensities: the recipe's, or the one that the backbone asks for."""
        return IntensitySource.of(intensity_of(self.recipe, self.backbone.intensity))

    @property
    def scaled_together(self) -> bool:
        """True where intensities are measured over a fold's training scans, not on each scan by itself."""
        return "training" in (self.dataset.statistics, self.intensity.rule.statistics)

    @cached_property
    def backbone(self) -> "BackboneFacts":
        """What the data and the checks of a run need to know of the recipe's backbone.

        Raises:
            FssegError: It does not take the scans' slices: one pass tells so before anything is trained.
        """
        backbone = self.recipe.backbone.build("backbone")
        wanted = scan_channels_of(backbone)
        for case, facts in self.scans.facts.items():
            require_channels(case, facts.channels, wanted)
        sizes = {(facts.size[1], facts.size[2]) for facts in self.scans.facts.values()}
        try_sizes(self.recipe.backbone.name, backbone, sizes)
        return BackboneFacts(backbone.channels, backbone.intensity, context_of(backbone))

    def require_evaluated(self, kept: Mapping[str, str], run: Path) -> None:
        """Checks that the scans are those that a finished run evaluated.

        Args:
            kept: By fold, the evaluation key that the run kept.
            run: The run directory, for the message.

        Raises:
            FssegError: The scans of a fold are others.
        """
        for fold in self.folds:
            key = self.of(fold).evaluation_key
            before = kept.get(str(fold.index))
            if before != key:
                raise FssegError(
                    f"{run}: the scans of fold {fold.index} are not those that were evaluated "
                    f"({key}, not {before}); put the scans back, or run the recipe again with these"
                )


@dataclass(frozen=True)
class BackboneFacts:
    """What is asked of a backbone before anything is computed with it.

    Attributes:
        channels: Channels of its features.
        intensity: The name of the rule that scales intensities for it, where the recipe names none.
        context: Neighbouring slices on each side that it sees as further channels.
    """

    channels: int
    intensity: str
    context: int


@dataclass(frozen=True)
class FoldData:
    """The data of one fold: what trains, what is evaluated, and from which support.

    Attributes:
        fold: The fold.
        run: What all folds share.
    """

    fold: Fold
    run: RunData

    @cached_property
    def sampler(self) -> EpisodeSampler:
        """The source of training's episodes; its supervoxels are computed when it is made."""
        return self._sampler(self.run.pairs)

    @cached_property
    def calibration_sampler(self) -> EpisodeSampler:
        """The source of calibration's episodes."""
        pairs = self.run.calibration_pairs
        return self.sampler if pairs is self.run.pairs else self._sampler(pairs)

    def _sampler(self, pairs: PairSource) -> EpisodeSampler:
        make = partial(self._training_scan, self.run.supervoxels, pairs)
        scans = at_once(make, self.fold.training, self.run.progress, "supervoxels")
        rules = self.run.recipe.episodes.model_copy(update={"source": pairs.table})
        return EpisodeSampler(list(scans), rules, self.run.backbone.context)

    @cached_property
    def scans(self) -> OnDemand:
        """The support and the queries by case, with their ground truth; read when they are looked at."""
        return OnDemand(self.fold.evaluated, self._evaluation_scan)

    def scaling(self, case: str) -> Scaling:
        """How the intensity rule scales a scan: by itself, or as the fold's training scans together."""
        cases = self.fold.training if self.run.scaled_together else (case,)
        return self.run.scans.scaling(self.run.intensity, cases)

    def choices(self, seed: int) -> list[Choice]:
        """Who segments what from which slices; reads no scan.

        Raises DataError where a support does not show what it should.
        """
        run = self.run
        origin = run.setup.origin
        return choose(run.protocol, self.fold, self._shown, run.classes, seed, origin)

    def assignments(self, seed: int) -> list[Assignment]:
        """The choices with the voxels of their supports."""
        return with_supports(self.choices(seed), self.scans)

    def every_support(self) -> list[Assignment]:
        """Every slice of the fold that could be the support, for all other cases."""
        choices = choose_every_support(self.run.protocol, self.fold, self._shown, self.run.classes)
        return with_supports(choices, self.scans)

    @property
    def in_turn(self) -> bool:
        """Whether a query may be segmented from several supports, so that files must tell whose turn it was."""
        return self.run.setup.support == "each" or self.run.protocol.has_logic

    @property
    def training_content(self) -> dict[str, list[Any]]:
        """By training case, what stands for the scan, its least supervoxel size, and the slices that are hidden."""
        return {case: self._training_key(case) for case in self.fold.training}

    @property
    def evaluation_content(self) -> dict[str, Any]:
        """All that decides which voxels of which scans are segmented from which support, and counted."""
        facts = self.run.scans.facts
        return {
            "protocol": self.run.protocol.definition(),
            "fold": self.fold.definition(),
            "classes": self.run.classes,
            "grid": self.run.recipe.grid.model_dump(),
            "scans": {case: facts[case].scan for case in self.fold.evaluated},
        }

    @property
    def evaluation_key(self) -> str:
        """A short text that stands for all that the fold's scores depend on besides the method."""
        return fingerprint(self.evaluation_content)[:16]

    def require_usable(self, seed: int) -> None:
        """Checks what only the last stages need, before minutes are spent on the first.

        Raises:
            DataError: A support does not show what it should, or its slices are of several sizes.
            FssegError: No training scan has two slices left that training may see, two segmentations would be written
                to one file, or the protocol chooses what cannot be evaluated.
        """
        choices = self.choices(seed)
        self._require_own_files(choices)
        facts = self.run.scans.facts
        sizes = {case: tuple(facts[case].size[1:]) for case in self.fold.evaluated}
        for choice in choices:
            require_one_size(choice, sizes)
        self._require_scans_to_train_on()
        hidden = self.run.hidden
        if hidden and all((~hidden[case]).sum() < 2 for case in self.fold.training):
            raise FssegError(
                f"episodes.setting: is 2, but none of the {len(self.fold.training)} training scans "
                f"of fold {self.fold.index} has two slices without "
                f"{' or '.join(self.run.classes.values())}, expected one at least; evaluate fewer "
                "classes with protocol.classes, or set it to 1"
            )

    def _require_scans_to_train_on(self) -> None:
        """Checks that validation leaves something; a training may find fewer that have supervoxels to draw."""
        count = len(self.fold.training)
        for training in trainings_of(self.run.recipe):
            set_aside = training.table.validation_scans
            if set_aside >= max(count, 1):
                raise FssegError(
                    f"training.validation_scans: is {set_aside}, and fold {self.fold.index} has {count} training scans, "
                    "expected one at least that is left to train on; lower it"
                )

    def _require_own_files(self, choices: list[Choice]) -> None:
        """Checks that no two segmentations would be written to one file; parts of one have one together."""
        files = {}
        for choice in choices:
            names = [name for _, name in choice.classes]
            case = choice.query_case
            support = choice.support_name
            stem = stem_of(case, names, support, in_turn=self.in_turn)
            files[f"{' and '.join(names)} of case {case} from case {support}"] = stem
        remedy = "rename a case or a class"
        require_distinct(files, f"fold {self.fold.index}:", remedy)

    @property
    def _shown(self) -> dict[str, Shown]:
        facts = self.run.scans.facts
        return {case: facts[case].working or [] for case in self.fold.evaluated}

    def _training_key(self, case: str) -> list[Any]:
        facts = self.run.scans.facts[case]
        labels = [self.run.pairs.labels_key(facts), self.run.calibration_pairs.labels_key(facts)]
        return [facts.image, facts.min_size, hidden_key(self.run.hidden.get(case)), labels]

    def _training_scan(
        self, supervoxels: SupervoxelSource, pairs: PairSource, case: str
    ) -> TrainingScan:
        hidden = self.run.hidden.get(case)
        intensity = self.run.intensity
        return self.run.scans.training_scan(
            case, supervoxels, pairs, intensity, self.scaling(case), hidden
        )

    def _evaluation_scan(self, case: str) -> EvaluationScan:
        return self.run.scans.evaluation_scan(case, self.scaling(case))
