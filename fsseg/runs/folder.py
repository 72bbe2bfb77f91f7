"""The files of a run directory: the one place that knows their names.

    recipe.toml          the recipe as run
    environment.json     versions, device, source
    run.json             dataset, protocol, folds, seeds
    scores.jsonl         counts by fold, case, class and variant
    fold0/training0/     train.jsonl, checkpoint.safetensors, calibration.json, margins/, priors.jsonl
    fold0/labels/        label maps
    manifest.json        sizes and checksums of all these

With several seeds, each has its folds in a folder of its own: seed0/fold0/. The folders of finished
stages have the same names in them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsseg.evaluation.files import LABELS, MARGINS, PRIORS
from fsseg.evaluation.scores import SCORES
from fsseg.system.files import link_or_copy
from fsseg.system.manifests import MANIFEST, require_undamaged


@dataclass(frozen=True)
class TrainingFolder:
    """The files of one training: of a fold of a run, or of a stage.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def log(self) -> Path:
        """Losses, a line for every record."""
        return self.path / "train.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The trained weights, as safetensors."""
        return self.path / "checkpoint.safetensors"

    @property
    def calibration(self) -> Path:
        """The states of fitted thresholds, and the samples that they were fitted to."""
        return self.path / "calibration.json"

    @property
    def index(self) -> int:
        """The number of the training among those of its recipe."""
        return _number_at_end(self.path)


@dataclass(frozen=True)
class FoldFolder:
    """What one fold with one seed left in a run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def labels(self) -> Path:
        """The folder of label maps."""
        return self.path / LABELS

    @property
    def index(self) -> int:
        """The number of the fold."""
        return _number_at_end(self.path)

    def training(self, number: int) -> TrainingFolder:
        """The training of this number among those of the recipe."""
        return TrainingFolder(self.path / f"training{number}")

    def trainings(self) -> list[TrainingFolder]:
        """All trainings that are there, in order."""
        folders = sorted(self.path.glob("training*"), key=_number_at_end)
        return [TrainingFolder(folder) for folder in folders]


@dataclass(frozen=True)
class RunFolder:
    """A run directory and the names of the files in it.

    Attributes:
        path: The directory.
        seeds: The seeds of the run.
    """

    path: Path
    seeds: tuple[int, ...] = (0,)

    @property
    def recipe(self) -> Path:
        """The recipe as run, every default written out."""
        return self.path / "recipe.toml"

    @property
    def environment(self) -> Path:
        """Versions, device, and what else digits may depend on."""
        return self.path / "environment.json"

    @property
    def about(self) -> Path:
        """Dataset, protocol and its hash, folds and seeds."""
        return self.path / "run.json"

    @property
    def scores(self) -> Path:
        """Counts by fold, case, class and variant."""
        return self.path / SCORES

    @property
    def is_run(self) -> bool:
        """Whether a finished run is there."""
        return self.about.is_file() and self.scores.is_file()

    def require_undamaged(self, *files: Path) -> None:
        """Raises FssegError if one of these files of the run is missing, or not what was written."""
        require_undamaged(self.path, *files)

    def fold(self, seed: int, index: int) -> FoldFolder:
        """The folder of one fold with one of the seeds."""
        home = self.path if len(self.seeds) == 1 else self.path / f"seed{seed}"
        return FoldFolder(home / f"fold{index}")

    def folds(self) -> Iterator[tuple[int, FoldFolder]]:
        """The folds that are there, with their seeds."""
        for seed in self.seeds:
            home = self.fold(seed, 0).path.parent
            for folder in sorted(home.glob("fold*"), key=_number_at_end):
                yield seed, FoldFolder(folder)


def link_stages(target: FoldFolder, stages: Sequence[dict[str, Path]]) -> None:
    """Puts the files of finished stages in a run, shared with them and not copied.

    Args:
        target: The folder of the fold.
        stages: By training, the folders of its stages "train", "calibrate" and "evaluate".
    """
    for number, folders in enumerate(stages):
        training = target.training(number).path
        evaluated = folders["evaluate"]
        _link_all(folders["train"], training)
        _link_all(folders["calibrate"], training)
        _link_all(evaluated / LABELS, target.labels)
        _link_all(evaluated / MARGINS, training / MARGINS)
        if (evaluated / PRIORS).is_file():
            link_or_copy(evaluated / PRIORS, training / PRIORS)


def _link_all(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file() and file != source / MANIFEST:
            link_or_copy(file, target / file.relative_to(source))


def _number_at_end(path: Path) -> int:
    digits = re.search(r"\d+$", path.name)
    return int(digits[0]) if digits else -1
