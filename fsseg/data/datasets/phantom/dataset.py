"""The embedded dataset: abdominal scans made from a seed, so that everything can be tried without downloading anything.

A case looks schematically like an axial T2-weighted MR scan of the upper abdomen. It is painted from back to front: the
ellipsoids of `fsseg.data.datasets.phantom.anatomy` are varied per case, bent by one smooth random deformation and
blended by their signed distances; a bias field and Rician noise come last. No intensity gives an organ away, since
other tissues share it; shape, texture and place do. The anatomy is drawn independently of the pixel grid, so `size`
changes the resolution only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import UInt8
from numpy.random import Generator
from pydantic import Field

from fsseg.data.cache import cached, content_key
from fsseg.data.datasets.phantom.anatomy import CLASSES, FIELD_OF_VIEW, SCAN_LENGTH
from fsseg.data.datasets.phantom.canvas import Array, Canvas, Space
from fsseg.data.datasets.phantom.painting import (
    paint_back,
    paint_chest,
    paint_gut,
    paint_organs,
    paint_torso,
    paint_vessels,
    receive,
)
from fsseg.data.datasets.phantom.tissues import EDGE
from fsseg.data.folds import FOLD_SCHEMES
from fsseg.data.grids import FileGrid
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.plugins.options import component
from fsseg.system.code_digests import digest_at_import


@dataclass(frozen=True)
class Geometry:
    """The places of a case's voxels.

    Attributes:
        spacing: Voxel size in mm along (slice, height, width).
        axes: Anatomical positions of the voxels along (slice, height, width), mm.
    """

    spacing: tuple[float, float, float]
    axes: tuple[np.ndarray, ...]

    @property
    def affine(self) -> np.ndarray:
        """The affine from voxel indices (width, height, slice) to mm: columns run to the patient's left, rows to the back."""
        thickness, height, width = self.spacing
        return np.diag([-width, -height, thickness, 1.0])


def draw_geometry(rng: Generator, size: int) -> Geometry:
    """Draws 20 to 28 slices, the lowest first, of about 7.7 x 326 / size x 326 / size mm."""
    slices = int(rng.integers(20, 29))
    thickness = 7.7 * (24 / slices) ** 0.5 * rng.uniform(0.97, 1.03)
    pixel = FIELD_OF_VIEW * rng.uniform(0.96, 1.06) / size
    # The field of view follows the patient, in height too: every scan shows the kidneys' lower poles and the lungs.
    zoom = rng.uniform((0.97, 0.98, 0.98), (1.03, 1.12, 1.08))
    usual = np.array([SCAN_LENGTH, FIELD_OF_VIEW, FIELD_OF_VIEW])
    covered = usual * zoom
    center = (14, 0, 0) + rng.uniform(-4, 4, 3)
    length, height, width = covered
    z, y, x = center
    axes = (
        _positions(slices, length, z),
        _positions(size, height, y),
        _positions(size, width, x),
    )
    return Geometry((thickness, pixel, pixel), axes)


def _positions(voxels: int, extent: float, center: float) -> np.ndarray:
    centres = np.arange(voxels) + 0.5
    from_middle = centres / voxels - 0.5
    return from_middle * extent + center


def paint_case(
    rng: Generator, geometry: Geometry
) -> tuple[Array, UInt8[np.ndarray, "slice height width"]]:
    """Returns the image and the labels of a case."""
    _, _, columns = geometry.axes
    edge = max(EDGE, FIELD_OF_VIEW / len(columns))
    canvas = Canvas(rng, Space(rng, geometry.axes, edge))
    for layer in (paint_torso, paint_chest, paint_back, paint_gut, paint_vessels):
        layer(canvas)
    labels = paint_organs(canvas)
    return receive(canvas), labels


def generate_case(seed: int, index: int, size: int = 192) -> Volume:
    """Returns one case, the same for the same arguments, whatever was drawn before.

    Args:
        seed: Seed of the dataset, not negative.
        index: Number of the case, from 0.
        size: Height and width in pixels. The anatomy stays the same; pixels grow as their number falls.

    Returns:
        The scan: whole numbers from 0 to a little above 1,000 (float32), labels with the keys of `CLASSES`; the liver is
        on the left of the image.
    """
    rng = np.random.default_rng([seed, index])
    geometry = draw_geometry(rng, size)
    image, labels = paint_case(rng, geometry)
    grid = FileGrid(geometry.affine)
    return Volume(f"phantom_{index + 1:02d}", image, labels, geometry.spacing, grid)


@component
class AbdomenPhantom:
    """Synthetic T2-weighted abdominal scans with liver, kidneys and spleen, made from a seed and then kept in the cache.

    Example:
        >>> dataset = AbdomenPhantom(count=5, size=64)
        >>> dataset.cases[-1]
        'phantom_05'
        >>> dataset.load("phantom_05").image.shape
        (24, 64, 64)
    """

    name = "abdomen_phantom"
    classes = CLASSES
    statistics = "volume"
    folds = FOLD_SCHEMES["hansen2022"]

    def __init__(
        self,
        *,
        seed: Annotated[int, Field(ge=0, description="seed of the dataset")] = 0,
        count: Annotated[int, Field(ge=1, description="number of cases")] = 20,
        size: Annotated[int, Field(ge=64, description="height and width in pixels")] = 192,
    ) -> None:
        self.seed = seed
        self.count = count
        self.size = size

    @property
    def supervoxel_min_size(self) -> int:
        """Voxels of some 33 ml, a quarter of a kidney; larger regions join organs to their surroundings."""
        return round(1500 * (self.size / 192) ** 2)

    @property
    def cases(self) -> list[str]:
        """The ids of all cases, phantom_01 first."""
        return [f"phantom_{number:02d}" for number in range(1, self.count + 1)]

    def load(self, case: str) -> Volume:
        """Returns the scan of this case; raises DataError for an id that is not in `cases`."""
        if case not in self.cases:
            raise DataError(
                f"dataset abdomen_phantom: there is no case {case!r}, expected phantom_01 to {self.cases[-1]}; "
                "correct the id or raise dataset.count"
            )
        index = self.cases.index(case)
        stored = cached("phantom", self.fingerprint(case), lambda: self._make(index))
        image, labels = stored
        geometry = draw_geometry(np.random.default_rng([self.seed, index]), self.size)
        return Volume(
            case,
            image.astype(np.float32),
            labels.astype(np.uint8),
            geometry.spacing,
            FileGrid(geometry.affine),
        )

    def fingerprint(self, case: str) -> str:
        """Returns what stands for all that the case is made from, the code of this package included."""
        code = digest_at_import(Path(__file__).parent)
        return content_key(code, self.seed, self.cases.index(case), self.size)

    def _make(self, index: int) -> np.ndarray:
        """Image and labels as one array; they are whole numbers, so nothing is lost."""
        volume = generate_case(self.seed, index, self.size)
        return np.stack([volume.image, volume.marked]).astype(np.int16)
