"""What the phantom is painted on: bent coordinates, smooth noise, and layers that cover one another."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from fsseg.data.datasets.phantom.anatomy import BENDS, CAVITY, DOMES, LEVELS, REACH
from fsseg.data.datasets.phantom.shapes import Ellipsoid, Part, Point

Array = Float[np.ndarray, "slice height width"]
Box = tuple[slice, slice, slice]

WHOLE: Box = np.s_[:, :, :]

EXTENT = (150.0, 200.0, 200.0)
"""Positions along (z, y, x) for which noise is drawn reach so far on both sides of the origin, mm."""

SMOOTHED_SD = 0.69
"""Standard deviation that smoothing by B-splines leaves of noise of unit variance."""

TEXTURES = {
    "fine": (8, 3.6, 3.6),
    "medium": (10, 9, 9),
    "coarse": (26, 26, 26),
}
"""Details of tissues: their size along (z, y, x) in mm."""


def smooth_noise(rng: Generator, axes: Sequence[np.ndarray], scale: Point) -> Array:
    """Returns Gaussian noise of about unit variance.

    The lattice that is drawn does not depend on the positions. It is interpolated by cubic B-splines without matrix
    products, so that the bits do not depend on the number of threads.

    Args:
        rng: Draws the lattice.
        axes: Positions along (z, y, x), mm.
        scale: Size of the details along (z, y, x), mm.
    """
    points = [int(2 * reach / step) + 5 for reach, step in zip(EXTENT, scale, strict=True)]
    values = rng.standard_normal(points, dtype=np.float32)
    for axis, positions in enumerate(axes):
        first, between = np.divmod((positions + EXTENT[axis]) / scale[axis], 1)
        first = first.astype(int)
        others = [other + 1 for other in range(3) if other != axis]
        weights = np.expand_dims(_spline_weights(between), others)
        values = sum(np.take(values, first + k, axis) * weights[k] for k in range(4))
    return values


def _spline_weights(t: Float[np.ndarray, "position"]) -> Float[np.ndarray, "4 position"]:
    """Weights of the four lattice points around each position, which lies a share `t` behind the second of them."""
    pieces = [
        (1 - t) ** 3,
        3 * t**3 - 6 * t**2 + 4,
        -3 * t**3 + 3 * t**2 + 3 * t + 1,
        t**3,
    ]
    weights = np.array(pieces) / 6
    return (weights / SMOOTHED_SD).astype(np.float32)


class Space:
    """The voxels' anatomical coordinates, bent by a smooth random deformation.

    Args:
        rng: Draws the deformation.
        axes: Positions of the voxels along (z, y, x) in mm.
        edge: Width of an edge in mm.
    """

    def __init__(self, rng: Generator, axes: Sequence[np.ndarray], edge: float) -> None:
        self.axes = axes
        self.edge = edge
        straight = [axis.astype(np.float32) for axis in axes]
        z, y, x = np.meshgrid(*straight, indexing="ij", sparse=True)
        self.z = z + _bend(rng, axes)
        self.y = y + _bend(rng, axes)
        self.x = x + _bend(rng, axes)

    def box(self, shape: Ellipsoid) -> Box:
        """Returns the part of the grid in which the shape can lie."""
        low, high = shape.bounds()
        from_z, from_y, from_x = low[::-1] - REACH
        to_z, to_y, to_x = high[::-1] + REACH
        z, y, x = self.axes
        return (
            slice(*np.searchsorted(z, [from_z, to_z])),
            slice(*np.searchsorted(y, [from_y, to_y])),
            slice(*np.searchsorted(x, [from_x, to_x])),
        )

    def distance(self, shape: Ellipsoid, box: Box) -> Part:
        """Returns the signed distance of the shape in the box, mm."""
        return shape.distance(self.x[box], self.y[box], self.z[box])

    def union(self, shapes: Sequence[Ellipsoid], blend: float = 14.0) -> Array:
        """Returns the signed distance of shapes that flow into each other over `blend` mm, in the whole grid."""
        total = np.full(self.x.shape, 1e3, np.float32)
        for shape in shapes:
            box = self.box(shape)
            before = total[box]
            distance = self.distance(shape, box)
            overlap = np.maximum(blend - np.abs(before - distance), 0)
            total[box] = np.minimum(before, distance) - overlap**2 / (4 * blend)
        return total

    def diaphragm(self) -> Array:
        """Returns the signed distance of the diaphragm's domes, negative in the abdomen; they go straight down from z = 0."""
        above = np.maximum(self.z, 0)
        domes = [dome.distance(self.x, self.y, above) for dome in DOMES]
        return np.minimum.reduce(domes)

    def torso(self, half: tuple[float, float]) -> Array:
        """Returns the signed distance, along the radius, of a rounded rectangle that runs through the scan.

        Args:
            half: Half its width and half its height, mm.
        """
        half_width, half_height = half
        across = (np.abs(self.x) / half_width) ** 2.5
        down = (np.abs(self.y) / half_height) ** 2.5
        level = (across + down) ** np.float32(1 / 2.5)
        return np.hypot(self.x, self.y) * (1 - 1 / np.maximum(level, np.float32(1e-3)))


def _bend(rng: Generator, axes: Sequence[np.ndarray]) -> Array:
    return sum(np.float32(sd) * smooth_noise(rng, axes, (size, size, size)) for size, sd in BENDS)


class Canvas:
    """A scan in the making: later paint covers earlier paint, blended over the width of an edge.

    Args:
        rng: Draws everything that varies between cases.
        space: Where the voxels are.
    """

    def __init__(self, rng: Generator, space: Space) -> None:
        self.rng = rng
        self.space = space
        gain = rng.uniform(0.88, 1.12)
        self.level: dict[str, float] = {}
        for name, value in LEVELS.items():
            self.level[name] = value * gain * rng.uniform(0.93, 1.07)
        self.image = np.full(space.x.shape, self.level["air"], np.float32)
        self.noise: dict[str, Array] = {}
        for name, scale in TEXTURES.items():
            self.noise[name] = smooth_noise(rng, space.axes, scale)
        self.cavity = space.torso(CAVITY)

    def textured(self, name: str, **amounts: float) -> Array:
        """Returns a tissue's level with its texture.

        Args:
            name: The tissue, as in `LEVELS`.
            amounts: Relative standard deviations of details, by their name in `TEXTURES`, in their order.
        """
        texture = sum(np.float32(amount) * self.noise[size] for size, amount in amounts.items())
        return np.float32(self.level[name]) * (1 + texture)

    def paint(self, distance: Part, value: Array | float, box: Box = WHOLE) -> None:
        """Covers what is inside, where `distance` (of the box) is negative, by a value (of the whole scan)."""
        cover = np.clip(0.5 - distance / np.float32(self.space.edge), 0, 1)
        paint = value[box] if isinstance(value, np.ndarray) else np.float32(value)
        image = self.image[box]
        image += cover * (paint - image)

    def paint_shape(
        self, shape: Ellipsoid, value: Array | float, within: Array | None = None
    ) -> None:
        """Paints a shape, or the part of it where the distance `within` is negative."""
        box = self.space.box(shape)
        distance = self.space.distance(shape, box)
        if within is not None:
            distance = np.maximum(distance, within[box])
        self.paint(distance, value, box)
