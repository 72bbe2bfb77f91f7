"""What a finished run leaves: its files, and where each of them lies."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel

from fsseg.evaluation import CaseResult
from fsseg.grids import FileGrid
from fsseg.protocols import Fold
from fsseg.recipe import Recipe
from fsseg.records import write_json, write_lines, write_text
from fsseg.stages import link_or_copy


@dataclass(frozen=True)
class FinishedFold:
    """A fold's results, and by training the folders of its finished stages."""

    fold: Fold
    results: list[CaseResult]
    stages: dict[str, list[Path]]


def write_run(
    folder: Path,
    recipe: Recipe,
    about: dict[str, Any],
    environment: dict[str, Any],
    finished: list[FinishedFold],
    grids: dict[str, FileGrid],
) -> None:
    """Writes a run into an empty folder; `grids` are those of the scans' files, by case."""
    write_text(folder / "recipe.toml", recipe.toml())
    write_json(folder / "environment.json", environment)
    write_json(folder / "run.json", about)
    write_lines(
        folder / "scores.jsonl", [score for fold in finished for result in fold.results for score in result.scores]
    )
    for fold in finished:
        home = folder / f"fold{fold.fold.index}"
        for name, stages in fold.stages.items():
            for file in (file for stage in stages for file in stage.iterdir()):
                link_or_copy(file, home / name / file.name)
        if recipe.protocol.save_labels:
            for result in fold.results:
                _write_labels(home / "labels", result, grids[result.scores[0].case], in_turn=about["support"] == "each")


def _write_labels(folder: Path, result: CaseResult, grid: FileGrid, in_turn: bool) -> None:
    """One label map per variant, case, class and support, on the grid of the scan's file.

    Its name tells the class where there is one, and the support where there are several classes or cases take turns.
    """
    first = result.scores[0]
    place = folder / _slug(first.variant)
    single = len(result.scores) == 1
    name = "_".join(
        [first.case] + single * [first.class_name] + (in_turn or not single) * [f"from_{first.support_case}"]
    )
    place.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(grid.to_file(result.labels), grid.affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, place / f"{name}.nii.gz")


def _slug(name: str) -> str:
    """A row's name as the name of a folder."""
    return "".join(character if character.isalnum() else "_" for character in name).strip("_")
