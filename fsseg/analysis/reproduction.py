"""Running a finished run again, and comparing what comes out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsseg.errors import FssegError
from fsseg.evaluation.scores import CaseScore
from fsseg.recipe.reading import load_recipe
from fsseg.runs.folder import RunFolder
from fsseg.runs.results import Results, load_results
from fsseg.runs.run import run
from fsseg.system.progress import Progress

IDENTITY = ("variant", "fold", "seed", "case", "class_name", "support_case", "support_slices")
"""What says which score a score is."""


@dataclass(frozen=True)
class Reproduction:
    """A run beside the run that it is repeated from.

    Attributes:
        first: The results as they were.
        second: The results of the repetition.
        differences: Of the environments, by what differs: then and now.
    """

    first: Results
    second: Results
    differences: dict[str, tuple[Any, Any]]

    @property
    def equal(self) -> int:
        """How many scores have the same counts and measures."""
        return sum(one == other for one, other in self._pairs)

    @property
    def largest(self) -> float:
        """The largest difference of a Dice, in percent; one that is there only once counts 100."""
        differences = [
            abs(one.dice - other.dice) for one, other in self._pairs if one.dice == one.dice
        ]
        whole = len(self._pairs) == len(self.first.scores) == len(self.second.scores)
        return 100 * max(differences, default=0.0) if whole else 100.0

    @property
    def _pairs(self) -> list[tuple[CaseScore, CaseScore]]:
        again = {_identity(score): score for score in self.second.scores}
        return [
            (score, again[_identity(score)])
            for score in self.first.scores
            if _identity(score) in again
        ]


def reproduce(
    path: str | Path,
    *,
    runs_dir: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Reproduction:
    """Runs the recipe that a run directory holds again, from the start, and compares the scores.

    Args:
        path: The run directory.
        runs_dir: Where to run; "reproduced" beside the run when omitted. Nothing of the first run is touched or used.
        device: "auto", "cpu" or "cuda".
        progress: Follows the stages.

    Raises:
        FssegError: It is no run directory, or its recipe cannot be run here.
    """
    first = load_results(path)
    recipe = load_recipe(first.folder.recipe)
    before = _environment(first.folder)
    if recipe.speed.threads == "auto" and "threads" in before:
        recipe.speed.threads = before[
            "threads"
        ]  # what another number of cores would change is no difference
    runs = Path(runs_dir) if runs_dir is not None else first.path.parent / "reproduced"
    if runs.resolve() == first.path.parent.resolve():
        raise FssegError(
            f"{runs}: is where the run itself lies, expected another folder for its repetition"
        )
    finished = any(RunFolder(folder).is_run for folder in runs.glob(f"{first.path.name}-*"))
    # What was finished is made again; what was stopped goes on.
    second = run(
        recipe,
        name=first.path.name,
        runs_dir=runs,
        device=device,
        progress=progress,
        fresh=finished,
    )
    return Reproduction(first, second, _differences(before, _environment(second.folder)))


def _identity(score: CaseScore) -> tuple[Any, ...]:
    return tuple(getattr(score, name) for name in IDENTITY)


def _environment(run: RunFolder) -> dict[str, Any]:
    try:
        return json.loads(run.environment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs, tables by their keys."""
    found = {}
    for key in dict.fromkeys([*before, *now]):
        then, there = before.get(key), now.get(key)
        if isinstance(then, dict) and isinstance(there, dict):
            found |= {f"{key}.{name}": pair for name, pair in _differences(then, there).items()}
        elif then != there:
            found[key] = (then, there)
    return found
