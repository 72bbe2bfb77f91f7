"""Pairs of slices: what a source of episodes draws, and the rules in pixels that sources share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsseg.data.supervoxels.regions import scaled_pixels
from fsseg.errors import PluginError
from fsseg.plugins.blame import described
from fsseg.training.scans import TrainingScan

MIN_PIXELS = 200
"""Pixels of the region in the first slice of a pair, as published, for slices of 256 x 256."""

MIN_SLICE_PIXELS = 20
"""Slices with no more pixels of the region are passed over, as published, for slices of 256 x 256."""

REGION_ATTEMPTS = 10
"""Regions that are tried, at most, for each further class, as published."""


@dataclass(frozen=True)
class Place:
    """A slice of one of a list of scans.

    Attributes:
        scan: The scan, by its place in the list.
        slice: The number of the slice.
    """

    scan: int
    slice: int


@dataclass(frozen=True)
class Pair:
    """Two slices, and the region that the query is searched for.

    Attributes:
        support: The slice that shows the region.
        query: The slice in which it is searched.
        region: The region, by its place in the table of the support's scan; in the query's scan it has the same id.
        least: Pixels that each class of the episode needs in the support.
    """

    support: Place
    query: Place
    region: int
    least: int


def pixels_at_least(wanted: int | None, usual: int, scan: TrainingScan) -> int:
    """A number of pixels as an option gives it; where it does not, the usual one of 256 x 256 scaled to the slice."""
    return scaled_pixels(usual, *scan.slice_size) if wanted is None else wanted


def draw_others(scan: TrainingScan, pair: Pair, count: int, rng: np.random.Generator) -> list[int]:
    """Draws further regions that are large enough in the support; a few tries for each, as published.

    Args:
        scan: The support's scan.
        pair: The pair.
        count: The number of regions at most.
        rng: The episode's generator.
    """
    sizes = scan.table.counts[:, pair.support.slice]
    left = list(range(len(sizes)))
    left.remove(pair.region)
    others = []
    for _ in range(count):
        attempts = min(REGION_ATTEMPTS, len(left))
        for _ in range(attempts):
            place = int(rng.integers(len(left)))
            tried = left.pop(place)
            if sizes[tried] >= pair.least:
                others.append(tried)
                break
    return others


def draw_shown(scan: TrainingScan, pair: Pair, count: int, rng: np.random.Generator) -> list[int]:
    """Draws further regions among those that are large enough in the support, for scans with many regions a slice.

    Args:
        scan: The support's scan.
        pair: The pair.
        count: The number of regions at most.
        rng: The episode's generator.
    """
    large = np.flatnonzero(scan.table.counts[:, pair.support.slice] >= pair.least)
    others = rng.permutation(large[large != pair.region])
    return [int(region) for region in others[:count]]


def require_pair(source: object, pair: Any, scans: Sequence[TrainingScan]) -> None:
    """Checks that a source of episodes gave a pair of slices of these scans.

    Raises:
        PluginError: It did not; the message names the source and its distribution.
    """
    problem = _problem_of(pair, scans)
    if problem is not None:
        raise PluginError(
            f"{described('episodes', source)}: its pair {problem}; correct it, or set episodes.source to "
            '"supervoxel_pairs"'
        )


def _problem_of(pair: Any, scans: Sequence[TrainingScan]) -> str | None:
    """What is wrong with a pair, if anything is."""
    if not isinstance(pair, Pair):
        return f"is of {type(pair).__name__}, expected a fsseg.training.pairs.Pair"
    for what, place in (("support", pair.support), ("query", pair.query)):
        if not 0 <= place.scan < len(scans):
            return f"has scan {place.scan} as its {what}, expected one of the {len(scans)} that it was given"
        count = len(scans[place.scan].images)
        if not 0 <= place.slice < count:
            return (
                f"has slice {place.slice} as its {what}, expected one of the {count} of that scan"
            )
    support = scans[pair.support.scan]
    query = scans[pair.query.scan]
    if support.slice_size != query.slice_size:
        return (
            f"has slices of {support.slice_size} and {query.slice_size} pixels, expected one size"
        )
    counts = support.table.counts
    if not 0 <= pair.region < len(counts) or not counts[pair.region, pair.support.slice]:
        return (
            f"has region {pair.region}, expected one of the support's table that the support shows"
        )
    return None
