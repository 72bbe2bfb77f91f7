"""What the phantom is painted on: bent coordinates, smooth noise, and layers that cover one another."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from fsseg.data.datasets.phantom.anatomy import (
    BENDS,
    CAVITY,
    DOMES,
    LEVELS,
    REACH,
    Ellipsoid,
    Part,
    Point,
)

Array = Float[np.ndarray, "slice height width"]
Box = tuple[slice, slice, slice]


def smooth_noise(rng: Generator, axes: Sequence[np.ndarray], scale: Point) -> Array:
    """Gaussian noise of about unit variance with details of `scale` mm along (z, y, x), at the positions `axes` in mm.

    The lattice that is drawn does not depend on the positions. It is interpolated by cubic B-splines without matrix
    products, so that the bits do not depend on the number of threads.
    """
    extent = (150.0, 200.0, 200.0)
    values = rng.standard_normal(
        [int(2 * e / s) + 5 for e, s in zip(extent, scale, strict=True)], dtype=np.float32
    )
    for axis, (positions, reach, step) in enumerate(zip(axes, extent, scale, strict=True)):
        first, t = np.divmod((positions + reach) / step, 1)
        weights = (
            np.array(
                [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
            )
            / 6
        )
        weights = (weights / 0.69).astype(
            np.float32
        )  # 0.69: the standard deviation that B-spline smoothing leaves
        weights = np.expand_dims(weights, [1 + i for i in range(3) if i != axis])
        values = sum(np.take(values, first.astype(int) + k, axis) * weights[k] for k in range(4))
    return values


class Space:
    """The voxels' anatomical coordinates, bent by a smooth random deformation.

    Args:
        rng: Draws the deformation.
        axes: Positions of the voxels along (z, y, x) in mm.
        edge: Width of an edge in mm.
    """

    def __init__(self, rng: Generator, axes: Sequence[np.ndarray], edge: float) -> None:
        self.axes, self.edge = axes, edge
        grid = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij", sparse=True)
        bends = [
            sum(np.float32(sd) * smooth_noise(rng, axes, (s, s, s)) for s, sd in BENDS)
            for _ in range(3)
        ]
        self.z, self.y, self.x = (axis + bend for axis, bend in zip(grid, bends, strict=True))

    def box(self, shape: Ellipsoid) -> Box:
        """The part of the grid in which the shape can lie."""
        low, high = shape.bounds()
        ends = zip(self.axes, low[::-1] - REACH, high[::-1] + REACH, strict=True)
        return tuple(slice(*np.searchsorted(axis, [first, last])) for axis, first, last in ends)

    def distance(self, shape: Ellipsoid, box: Box) -> Part:
        """Signed distance of the shape in the box."""
        return shape.distance(self.x[box], self.y[box], self.z[box])

    def union(self, shapes: Sequence[Ellipsoid], blend: float = 14.0) -> Array:
        """Signed distance of shapes that flow into each other over `blend` mm, in the whole grid."""
        total = np.full(self.x.shape, 1e3, np.float32)
        for shape in shapes:
            box = self.box(shape)
            here, new = total[box], self.distance(shape, box)
            overlap = np.maximum(blend - np.abs(here - new), 0)
            total[box] = np.minimum(here, new) - overlap**2 / (4 * blend)
        return total

    def diaphragm(self) -> Array:
        """Signed distance of the diaphragm's domes, negative in the abdomen; they go straight down from z = 0."""
        z = np.maximum(self.z, 0)
        return np.minimum.reduce([dome.distance(self.x, self.y, z) for dome in DOMES])

    def torso(self, half: tuple[float, float]) -> Array:
        """Signed distance, along the radius, of a rounded rectangle that runs through the scan."""
        level = (
            (np.abs(self.x) / half[0]) ** 2.5 + (np.abs(self.y) / half[1]) ** 2.5
        ) ** np.float32(1 / 2.5)
        return np.hypot(self.x, self.y) * (1 - 1 / np.maximum(level, np.float32(1e-3)))


class Canvas:
    """A scan in the making: later paint covers earlier paint, blended over the width of an edge.

    Args:
        rng: Draws everything that varies between cases.
        space: Where the voxels are.
    """

    def __init__(self, rng: Generator, space: Space) -> None:
        self.rng, self.space = rng, space
        gain = rng.uniform(0.88, 1.12)
        self.level = {
            name: value * gain * rng.uniform(0.93, 1.07) for name, value in LEVELS.items()
        }
        self.image = np.full(space.x.shape, self.level["air"], np.float32)
        self.fine, self.medium, self.coarse = (
            smooth_noise(rng, space.axes, scale)
            for scale in ((8, 3.6, 3.6), (10, 9, 9), (26, 26, 26))
        )
        self.cavity = space.torso(CAVITY)

    def textured(
        self, name: str, fine: float = 0.0, medium: float = 0.0, coarse: float = 0.0
    ) -> Array:
        """A tissue's level with its texture: relative standard deviations of details of about 4, 9 and 26 mm."""
        parts = ((fine, self.fine), (medium, self.medium), (coarse, self.coarse))
        return np.float32(self.level[name]) * (
            1 + sum(np.float32(a) * noise for a, noise in parts if a)
        )

    def paint(self, distance: Part, value: Array | float, box: Box = np.s_[:, :, :]) -> None:
        """Covers what is inside, where `distance` (of the box) is negative, by a value (of the whole scan)."""
        cover = np.clip(0.5 - distance / np.float32(self.space.edge), 0, 1)
        image = self.image[box]
        image += cover * (
            (value[box] if isinstance(value, np.ndarray) else np.float32(value)) - image
        )

    def paint_shape(
        self, shape: Ellipsoid, value: Array | float, within: Array | None = None
    ) -> None:
        """Paints a shape, or the part of it where the distance `within` is negative."""
        box = self.space.box(shape)
        distance = self.space.distance(shape, box)
        self.paint(distance if within is None else np.maximum(distance, within[box]), value, box)
