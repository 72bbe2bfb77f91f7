"""What a finished run leaves: its files, and where each of them lies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsseg.evaluation.decisions import MARGINS, PRIORS
from fsseg.evaluation.scores import SCORES
from fsseg.recipe.tables import Recipe
from fsseg.runs.fold import LABELS, FinishedFold
from fsseg.system.files import link_or_copy, write_json, write_lines, write_text


def write_run(
    folder: Path,
    recipe: Recipe,
    about: dict[str, Any],
    environment: dict[str, Any],
    finished: list[FinishedFold],
) -> None:
    """Writes a run into an empty folder; the files of its stages are shared with them, not copied."""
    write_text(folder / "recipe.toml", recipe.toml())
    write_json(folder / "environment.json", environment)
    write_json(folder / "run.json", about)
    write_lines(folder / SCORES, [score for fold in finished for score in fold.scores])
    for fold in finished:
        home = fold_folder(folder, recipe.seeds, fold.seed, fold.fold.index)
        for number, stages in enumerate(fold.stages):
            own = home / f"training{number}"
            for stage in ("train", "calibrate"):
                _link_all(stages[stage], own)
            _link_all(stages["evaluate"] / LABELS, home / LABELS)
            _link_all(stages["evaluate"] / MARGINS, own / MARGINS)
            if (stages["evaluate"] / PRIORS).is_file():
                link_or_copy(stages["evaluate"] / PRIORS, own / PRIORS)


def fold_folder(folder: Path, seeds: Sequence[int], seed: int, fold: int) -> Path:
    """Where a run with these seeds keeps what one seed and fold left."""
    return (folder if len(seeds) == 1 else folder / f"seed{seed}") / f"fold{fold}"


def _link_all(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            link_or_copy(file, target / file.relative_to(source))
