"""A source of episodes: support and query are slices of one supervoxel, some slices apart.
    uv run fsseg run recipes/tpm_mp5_linest.toml --plugin docs/examples/distant_pairs.py \
        --set 'episodes.source={name="distant_pairs", apart=2}'
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from fsseg import DataError, Pair, Place, component, hookimpl


@component
class DistantPairs:
    """Two slices that show a supervoxel and lie so many slices apart, the upper one or the lower one first."""

    def __init__(self, *, apart: Annotated[int, Field(ge=1, description="slices")] = 2) -> None:
        self.apart = apart

    def _pairs(self, scan):
        shows = scan.table.counts >= 20
        return np.argwhere(shows[:, : -self.apart] & shows[:, self.apart :])

    def usable(self, scans):
        if not (kept := [scan for scan in scans if len(self._pairs(scan))]):
            raise DataError("no scan has a supervoxel of so many slices; set apart lower")
        return kept

    def pair(self, scans, rng):
        number = int(rng.integers(len(scans)))
        region, low = map(int, rng.choice(self._pairs(scans[number])))
        places = [Place(number, low), Place(number, low + self.apart)]
        return Pair(*rng.permutation(places), region, least=20)


@hookimpl
def register_episodes(register):
    register("distant_pairs", DistantPairs)
