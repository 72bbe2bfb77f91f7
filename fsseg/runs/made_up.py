"""Made-up slices and a fold of them, of the sizes of real ones, to measure how fast a machine is."""

import numpy as np
import torch

from fsseg.data.folds import Fold
from fsseg.data.grids import WorkingGrid
from fsseg.data.supervoxels.regions import count_regions
from fsseg.evaluation.assignments import Assignment, assign
from fsseg.evaluation.scans import EvaluationScan
from fsseg.recipe.protocols import Protocol
from fsseg.training.scans import TrainingScan

SLICES = 8
"""Made-up slices to segment."""

REGIONS = 6
"""Squares along an edge of the made-up slices; each is a region."""


def made_up_scan(size: tuple[int, int], channels: int = 1) -> TrainingScan:
    """Noise, in which squares are the regions."""
    height, width = size
    rows = np.arange(height) * REGIONS // height
    columns = np.arange(width) * REGIONS // width
    squares = 1 + rows[:, None] * REGIONS + columns
    regions = np.repeat(squares[None], SLICES, axis=0).astype(np.int32)
    of_slice = (height, width) if channels == 1 else (channels, height, width)
    images = torch.randn(SLICES, *of_slice, generator=torch.Generator().manual_seed(0))
    return TrainingScan("made up", images, torch.from_numpy(regions), count_regions(regions), 0.0)


def made_up_fold(
    scan: TrainingScan, ways: int
) -> tuple[dict[str, EvaluationScan], list[Assignment], Fold]:
    """A support and a query whose first regions are the classes, and what is assigned."""
    labels = torch.where(scan.supervoxels <= ways, scan.supervoxels, 0).to(torch.uint8)
    size = scan.slice_size
    grid = WorkingGrid(size, size, size)
    location = torch.linspace(0, 1, SLICES)
    scans = {}
    for shift, case in enumerate(("support", "query")):
        images = scan.images + shift
        scans[case] = EvaluationScan(case, images, location, labels, labels, grid)
    fold = Fold(0, "support", ("query",), ())
    classes = {way: f"class {way}" for way in range(1, ways + 1)}
    protocol = Protocol("made up", support="each" if ways > 1 else None, together=ways > 1)
    assigned = assign(protocol, fold, scans, classes, seed=0)
    return scans, [part for part in assigned if part.query_case == "query"], fold
