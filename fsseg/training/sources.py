"""Sources of episodes: which two slices, and which regions in them are the classes."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Int32
from pydantic import Field
from scipy import ndimage

from fsseg.data.supervoxels.felzenszwalb import body_mask, felzenszwalb, scaled_image
from fsseg.data.supervoxels.regions import scaled_pixels
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.plugins.options import component
from fsseg.training.pairs import (
    MIN_PIXELS,
    MIN_SLICE_PIXELS,
    Pair,
    Place,
    draw_shown,
    pixels_at_least,
)
from fsseg.training.scans import TrainingScan

Regions = Int32[np.ndarray, "slice height width"]

Cut = Callable[[], Regions]
"""Cuts the scan into the recipe's supervoxels."""

Scans = Sequence[TrainingScan]

MinPixels = Annotated[
    int | None,
    Field(
        ge=1,
        description="pixels of a region in the support at least; when omitted, 200 of 256 x 256 scaled to the slice",
    ),
]

SUPERPIXEL_SIZE = 400
"""Pixels of a superpixel at least, as published with ALPNet, for slices of 256 x 256."""


def _nothing(scans: Scans, shown: str, wanted: int | None) -> DataError:
    """The error of scans that show nothing to draw."""
    least = sorted({pixels_at_least(wanted, MIN_PIXELS, scan) for scan in scans})
    pixels = " or ".join(map(str, least))
    return DataError(
        f"episodes: none of the {len(scans)} training scans has {shown.format(pixels=pixels)}, expected one; set "
        f"episodes.min_pixels below {least[0] if least else MIN_PIXELS} (or supervoxels.min_size higher, for larger regions)"
    )


@component
class SupervoxelPairs:
    """Two slices of a scan that follow one another among those that show a supervoxel, as published with ADNet and TPM.

    A scan and one of its supervoxels are drawn uniformly, then two slices that follow one another among those with more
    than `min_slice_pixels` of its pixels, of which the first has `min_pixels`, in random order. Slices that are hidden from
    training (setting 2) show nothing, so the two next to a hidden stretch follow one another.

    Reference: Hansen et al., Anomaly detection-inspired few-shot medical image segmentation (2022).
    """

    def __init__(
        self,
        *,
        min_pixels: MinPixels = None,
        min_slice_pixels: Annotated[
            int | None,
            Field(
                ge=0,
                description="slices with no more pixels of the region are passed over; when omitted, 20 of 256 x 256, "
                "likewise",
            ),
        ] = None,
    ) -> None:
        self.min_pixels = min_pixels
        self.min_slice_pixels = min_slice_pixels

    def _least(self, scan: TrainingScan) -> tuple[int, int]:
        """Pixels of the region in the first slice at least, and in any slice more than."""
        first = pixels_at_least(self.min_pixels, MIN_PIXELS, scan)
        return first, pixels_at_least(self.min_slice_pixels, MIN_SLICE_PIXELS, scan)

    def usable(self, scans: Scans) -> list[TrainingScan]:
        """The scans with a supervoxel that is large enough; raises DataError where there is none."""
        kept = [scan for scan in scans if scan.table.can_be_sampled(*self._least(scan))]
        if not kept:
            what = "a supervoxel with {pixels} pixels in a slice and a neighbour to pair it with"
            raise _nothing(scans, what, self.min_pixels)
        return kept

    def pair(self, scans: Scans, rng: np.random.Generator) -> Pair:
        """Draws a pair; rejection ends because the scans can be sampled."""
        number = int(rng.integers(len(scans)))
        table = scans[number].table
        min_pixels, min_slice_pixels = self._least(scans[number])
        while True:
            region = int(rng.integers(len(table.ids)))
            slices = table.slices_of(region, min_slice_pixels)
            if len(slices) < 2:
                continue
            place = int(rng.integers(len(slices) - 1))
            support = Place(number, int(slices[place]))
            query = Place(number, int(slices[place + 1]))
            if table.counts[region, support.slice] >= min_pixels:
                break
        if rng.random() < 0.5:
            support, query = query, support
        return Pair(support, query, region, min_pixels)


@component
class Superpixel:
    """A region of one slice, which is support and query at once: two augmentations of it, as ALPNet trains.

    A scan and one of its regions with `min_pixels` are drawn uniformly. The regions are those of a slice by itself: the
    connected parts of what each supervoxel shows of itself in it, or superpixels that are cut from the slice alone by the
    graph-based method (at least 400 pixels of 256 x 256, smoothed by a pixel), as published. Only augmentation makes the two
    slices differ, so `episodes.augmentations` should hold some that move pixels and some that change intensities.

    Reference: Ouyang et al., Self-supervision with superpixels: training few-shot medical image segmentation without
    annotation (2020).
    """

    def __init__(
        self,
        *,
        cut: Annotated[
            Literal["supervoxels", "felzenszwalb"],
            Field(
                description="regions of a slice: connected parts of its supervoxels, or superpixels"
            ),
        ] = "supervoxels",
        min_pixels: MinPixels = None,
    ) -> None:
        self.cut = cut
        self.min_pixels = min_pixels

    def regions(self, volume: Volume, supervoxels: Cut) -> Regions:
        """The regions of each slice, no two of which have the same id."""
        if self.cut == "supervoxels":
            of_slices = [_connected_parts(regions) for regions in supervoxels()]
        else:
            of_slices = _superpixels(volume)
        numbered = np.zeros(volume.shape, dtype=np.int32)
        highest = 0
        for regions, into in zip(of_slices, numbered):
            into[:] = np.where(regions > 0, regions + highest, 0)
            highest += int(regions.max())
        return numbered

    def _large(self, scan: TrainingScan) -> np.ndarray:
        """The regions of a scan that may be drawn, by their places in its table."""
        least = pixels_at_least(self.min_pixels, MIN_PIXELS, scan)
        return np.flatnonzero(scan.table.counts.max(axis=1, initial=0) >= least)

    def usable(self, scans: Scans) -> list[TrainingScan]:
        """The scans with a region that is large enough; raises DataError where there is none."""
        kept = [scan for scan in scans if len(self._large(scan))]
        if not kept:
            raise _nothing(scans, "a region with {pixels} pixels in a slice", self.min_pixels)
        return kept

    def pair(self, scans: Scans, rng: np.random.Generator) -> Pair:
        """Draws a region, whose slice is both support and query."""
        number = int(rng.integers(len(scans)))
        scan = scans[number]
        large = self._large(scan)
        region = int(large[rng.integers(len(large))])
        place = Place(number, int(scan.table.counts[region].argmax()))
        return Pair(place, place, region, pixels_at_least(self.min_pixels, MIN_PIXELS, scan))

    def others(
        self, scan: TrainingScan, pair: Pair, count: int, rng: np.random.Generator
    ) -> list[int]:
        """Draws further regions of the slice."""
        return draw_shown(scan, pair, count, rng)


def _connected_parts(regions: Int32[np.ndarray, "height width"]) -> np.ndarray:
    """Numbers from 1 for the connected parts of each region of a slice."""
    parts = np.zeros(regions.shape, dtype=np.int32)
    highest = 0
    for region in np.unique(regions[regions > 0]):
        labelled, count = ndimage.label(regions == region)
        parts += np.where(labelled > 0, labelled + highest, 0).astype(np.int32)
        highest += count
    return parts


def _superpixels(volume: Volume) -> list[np.ndarray]:
    """Graph-based superpixels of each slice by itself, 0 outside the body."""
    image = scaled_image(volume)
    height, width = image.shape[-2:]
    least = scaled_pixels(SUPERPIXEL_SIZE, height, width)
    of_slices = []
    for pixels, body in zip(image, body_mask(image)):
        [regions] = felzenszwalb(pixels[None], spacing=(1, 1, 1), min_size=least, sigma=1.0)
        of_slices.append(np.where(body, regions + 1, 0))
    return of_slices


@component
class Labelled:
    """Slices that show a labelled class: of two scans, or of one. The classes must be none that is evaluated.

    A scan and one of its classes are drawn uniformly, and a slice with `min_pixels` of it is the support. The query is a
    slice of another scan that shows the class, or, where there is none with slices of that size or `across` is false,
    another slice of the same scan. Labels of classes that are not named here, those that are evaluated above all, are not
    handed to training, and a recipe that names an evaluated class is refused.

    Reference: the supervised training of PANet (Wang et al., 2019), in which classes are divided into those that train and
    those that are evaluated.
    """

    def __init__(
        self,
        *,
        classes: Annotated[
            list[str],
            Field(min_length=1, description="classes to train on, none of which is evaluated"),
        ],
        across: Annotated[
            bool, Field(description="the query is of another scan than the support")
        ] = True,
        min_pixels: MinPixels = None,
    ) -> None:
        self.classes = classes
        self.across = across
        self.min_pixels = min_pixels

    def regions(self, volume: Volume, supervoxels: Cut) -> Regions:
        """The labels, of which only those of the named classes are there."""
        assert volume.labels is not None, "the scan is handed over with the labels of `classes`"
        return volume.labels.astype(np.int32)

    def _shown(self, scan: TrainingScan) -> np.ndarray:
        """The slices that show enough of each class, as places in the table and numbers of slices."""
        least = pixels_at_least(self.min_pixels, MIN_PIXELS, scan)
        return np.argwhere(scan.table.counts >= least)

    def usable(self, scans: Scans) -> list[TrainingScan]:
        """The scans that show a class well; raises DataError where there is none."""
        kept = [scan for scan in scans if len(self._shown(scan))]
        if not kept:
            names = " or ".join(self.classes)
            raise _nothing(scans, f"{{pixels}} pixels of {names} in a slice", self.min_pixels)
        return kept

    def pair(self, scans: Scans, rng: np.random.Generator) -> Pair:
        """Draws a class of a scan, and two slices that show it."""
        number = int(rng.integers(len(scans)))
        scan = scans[number]
        shown = self._shown(scan)
        places = np.unique(shown[:, 0])
        region = int(places[rng.integers(len(places))])
        slices = shown[shown[:, 0] == region, 1]
        support = Place(number, int(slices[rng.integers(len(slices))]))
        queries = self._queries(scans, support, int(scan.table.ids[region]))
        query = queries[rng.integers(len(queries))]
        least = pixels_at_least(self.min_pixels, MIN_PIXELS, scan)
        return Pair(support, query, region, least)

    def others(
        self, scan: TrainingScan, pair: Pair, count: int, rng: np.random.Generator
    ) -> list[int]:
        """Draws further classes that the support shows."""
        return draw_shown(scan, pair, count, rng)

    def _queries(self, scans: Scans, support: Place, label: int) -> list[Place]:
        """The slices that may be the query: of other scans, else the others of this scan, else the support's own."""
        own = scans[support.scan]
        of_others = []
        of_own = []
        for number, scan in enumerate(scans):
            if scan.slice_size != own.slice_size or label not in scan.table.ids:
                continue
            least = pixels_at_least(None, MIN_SLICE_PIXELS, scan)
            place = int(np.searchsorted(scan.table.ids, label))
            found = [Place(number, int(each)) for each in scan.table.slices_of(place, least)]
            if number == support.scan:
                of_own += [each for each in found if each != support]
            else:
                of_others += found
        if self.across and of_others:
            return of_others
        return of_own or [support]
