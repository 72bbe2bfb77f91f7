"""Supervoxels (and facts) of a whole dataset ahead of a run, several scans at a time, into the cache that runs use."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsseg.data.datasets.folders import find_dataset
from fsseg.data.facts import Facts, kept_facts
from fsseg.data.supervoxels.kept import cached_supervoxels, cut
from fsseg.data.volume import Volume, on_working_grid
from fsseg.errors import FssegError
from fsseg.interfaces import Dataset, Supervoxels
from fsseg.plugins.blame import naming_plugins
from fsseg.recipe.tables import ComponentTable, GridTable
from fsseg.runs.identity import reading_identity, supervoxel_identity
from fsseg.system.parallel import in_processes, processors
from fsseg.system.progress import Progress, Silent


@dataclass(frozen=True)
class Computed:
    """The supervoxels of a scan in numbers.

    Attributes:
        case: The case's id.
        regions: Number of regions.
        median_size: Their median number of voxels.
        seconds: Time to compute them; None for those that were in the cache already.
    """

    case: str
    regions: int
    median_size: float
    seconds: float | None


@dataclass(frozen=True)
class _Job:
    dataset: ComponentTable
    grid: GridTable
    supervoxels: ComponentTable
    case: str


def compute_supervoxels(
    folder: Path,
    supervoxels: ComponentTable,
    *,
    grid: GridTable | None = None,
    jobs: int | None = None,
    part: str | None = None,
    progress: Progress | None = None,
) -> list[Computed]:
    """Computes and keeps the supervoxels of every scan of a folder, or of a part of them.

    Args:
        folder: A dataset's folder.
        supervoxels: The method and its options, as in a recipe.
        grid: The working grid, as in a recipe.
        jobs: Worker processes; as many as there are processors when omitted.
        part: Such as "2/8": of eight parts the second.
        progress: Follows the scans; silent when omitted.

    Returns:
        A line per scan, in order.

    Raises:
        FssegError: A scan cannot be used. The others are computed and kept nevertheless.
    """
    if supervoxels.name == "stored":
        raise FssegError(
            "supervoxels stored: they come with the dataset, expected a method that computes them"
        )
    supervoxels.build("supervoxels")  # explains wrong options at once
    dataset = ComponentTable(**find_dataset(folder))
    cases = _part_of(dataset.build("dataset").cases, part)
    todo = [_Job(dataset, grid or GridTable(), supervoxels, case) for case in cases]
    done, problems = {}, []
    workers = jobs or processors()
    for job, outcome in in_processes(_attempt, todo, workers, progress or Silent(), "supervoxels"):
        if isinstance(outcome, FssegError):
            problems.append(str(outcome))
        else:
            done[job.case] = outcome
    if problems:
        raise FssegError("\n".join(problems))
    return [done[case] for case in cases]


def _part_of(cases: list[str], part: str | None) -> list[str]:
    if part is None:
        return cases
    number, _, count = part.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise FssegError(f"--part {part}: expected a number and a count, such as 2/8")
    return cases[int(number) - 1 :: int(count)]


def _attempt(job: _Job) -> Computed | FssegError:
    try:
        with naming_plugins():
            return _compute(job)
    except FssegError as error:
        return error


def _compute(job: _Job) -> Computed:
    dataset: Dataset = job.dataset.build("dataset")
    own, grid = dataset.load(job.case), job.grid.model_dump()
    volume = on_working_grid(own, grid)
    kept_facts(
        dataset,
        job.case,
        reading_identity(job.dataset, grid),
        lambda: Facts.of(own, volume, dataset),
    )
    timed = _Timed(job.supervoxels.build("supervoxels"))
    identity = supervoxel_identity(job.supervoxels)
    regions = cached_supervoxels(
        volume, timed, dataset, identity, job.supervoxels.options.get("min_size")
    )
    _, sizes = np.unique(regions[regions > 0], return_counts=True)
    median = float(np.median(sizes)) if len(sizes) else 0.0
    return Computed(job.case, len(sizes), median, timed.seconds)


class _Timed:
    """A method that notes how long it took, if it was needed."""

    def __init__(self, method: Supervoxels) -> None:
        self.method = method
        self.seconds: float | None = None

    def __call__(self, volume: Volume, dataset: Dataset) -> np.ndarray:
        started = time.perf_counter()
        regions = cut(volume, self.method, dataset)
        self.seconds = time.perf_counter() - started
        return regions
