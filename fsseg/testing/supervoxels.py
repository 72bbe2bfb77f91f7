"""Checks of supervoxel methods."""

import numpy as np

from fsseg.testing import samples
from fsseg.testing.contract import Subject, check


@check("supervoxels")
def check_region_ids(subject: Subject) -> None:
    """It gives an int32 region id per voxel, none below 0, and more than one region."""
    volume, dataset = samples.phantom()
    regions = subject.build()(volume, dataset)
    shape = volume.shape
    if regions.shape != shape or regions.dtype != np.int32:
        subject.fail(f"expected int32 of shape {shape}, got {regions.dtype} {regions.shape}")
    ids = np.unique(regions)
    if ids.min() < 0 or (ids > 0).sum() < 2:
        subject.fail(
            f"expected at least two regions with ids from 1, and 0 for what is never sampled, got {ids[:5]}"
        )
