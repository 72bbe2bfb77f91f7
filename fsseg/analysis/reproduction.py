"""Running a finished run again, and comparing what comes out."""

import json
import math
from dataclasses import dataclass
from glob import escape
from operator import attrgetter
from pathlib import Path
from typing import Any

from fsseg.errors import FssegError
from fsseg.evaluation.scores import CaseScore
from fsseg.recipe.reading import load_recipe
from fsseg.runs.folder import RunFolder
from fsseg.runs.results import Results, load_results
from fsseg.runs.run import run
from fsseg.system.progress import Progress

KEY = attrgetter("variant", "fold", "seed", "case", "class_name", "support_case", "support_slices")
"""The key of a score within its run."""


@dataclass(frozen=True)
class Reproduction:
    """A run beside its repetition, as `fsseg.reproduce` returns it.

    Attributes:
        first: The results as they were.
        second: The results of the repetition.
        differences: Of the environments, by what differs: then and now.

    Example:
        repeated = fsseg.reproduce("runs/table1-20261123-120000")
        repeated.largest  # 0.0 on a CPU
    """

    first: Results
    second: Results
    differences: dict[str, tuple[Any, Any]]

    @property
    def equal(self) -> int:
        """The number of scores with the same counts and measures."""
        return sum(then == now for then, now in self._pairs)

    @property
    def largest(self) -> float:
        """The largest difference of a Dice, in percent; one that is there only once counts 100."""
        pairs = self._pairs
        counts = {len(pairs), len(self.first.scores), len(self.second.scores)}
        if len(counts) > 1:
            return 100.0
        largest = 0.0
        for then, now in pairs:
            if not math.isnan(then.dice):
                largest = max(largest, abs(then.dice - now.dice))
        return 100 * largest

    @property
    def _pairs(self) -> list[tuple[CaseScore, CaseScore]]:
        """The scores that both runs have."""
        again = {KEY(score): score for score in self.second.scores}
        shared = [score for score in self.first.scores if KEY(score) in again]
        return [(score, again[KEY(score)]) for score in shared]


def reproduce(
    path: str | Path,
    *,
    runs_dir: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    trackers: bool = False,
) -> Reproduction:
    """Runs the recipe that a run directory holds again, from the start, and compares the scores.

    Args:
        path: The run directory.
        runs_dir: Where to run; "reproduced" beside the run when omitted. Nothing of the first run is touched or used.
        device: "auto", "cpu" or "cuda".
        progress: Follows the stages.
        trackers: Whether the trackers of the recipe listen. Some send what they hear to a service, and the run may be a
            stranger's.

    Raises:
        FssegError: It is no run directory, or its recipe cannot be run here.
    """
    first = load_results(path)
    recipe = load_recipe(first.folder.recipe)
    left_out = [] if trackers else [tracker.name for tracker in recipe.trackers]
    if left_out:
        recipe.trackers = []
        if progress is not None:
            progress.note(
                f"without the recipe's trackers ({', '.join(left_out)}), which may send what they hear elsewhere; "
                "--trackers has them listen"
            )
    before = _environment(first.folder)
    if recipe.speed.threads == "auto" and "threads" in before:
        # What another number of cores would change is no difference.
        recipe.speed.threads = before["threads"]
    runs = Path(runs_dir) if runs_dir is not None else first.path.parent / "reproduced"
    if runs.resolve() == first.path.parent.resolve():
        raise FssegError(
            f"{runs}: is where the run itself lies, expected another folder for its repetition"
        )
    finished = any(RunFolder(folder).is_run for folder in runs.glob(f"{escape(first.path.name)}-*"))
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


def _environment(run: RunFolder) -> dict[str, Any]:
    try:
        return json.loads(run.environment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _differences(
    before: dict[str, Any],
    now: dict[str, Any],
) -> dict[str, tuple[Any, Any]]:
    """Values that differ, then and now; those of tables by their dotted keys."""
    differences = {}
    for key in dict.fromkeys([*before, *now]):
        then = before.get(key)
        today = now.get(key)
        if isinstance(then, dict) and isinstance(today, dict):
            for name, pair in _differences(then, today).items():
                differences[f"{key}.{name}"] = pair
        elif then != today:
            differences[key] = (then, today)
    return differences
