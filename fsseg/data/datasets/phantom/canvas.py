"""What the phantom is painted on: bent coordinates, smooth noise, and layers that cover one another."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from fsseg.data.datasets.phantom.anatomy import BENDS, CAVITY, DOMES, REACH, VARIATIONS
from fsseg.data.datasets.phantom.shapes import Ellipsoid, Part, Point
from fsseg.data.datasets.phantom.tissues import LEVELS, TEXTURES

Array = Float[np.ndarray, "slice height width"]
Axes = Sequence[np.ndarray]
Box = tuple[slice, slice, slice]

WHOLE: Box = np.s_[:, :, :]

EXTENT = (150.0, 200.0, 200.0)
"""Positions along (z, y, x) for which noise is drawn reach so far on both sides of the origin, mm."""

SMOOTHED_SD = 0.69
"""Standard deviation that smoothing by B-splines leaves of noise of unit variance."""


def smooth_noise(rng: Generator, axes: Axes, scale: Point) -> Array:
    """Returns Gaussian noise of about unit variance.

    The lattice that is drawn does not depend on the positions. It is interpolated by cubic B-splines without matrix
    products, so that the bits do not depend on the number of threads.

    Args:
        rng: Draws the lattice.
        axes: Positions along (z, y, x), mm.
        scale: Size of the details along (z, y, x), mm.
    """
    lengths = [2 * reach / step for reach, step in zip(EXTENT, scale)]
    points = [int(length) + 5 for length in lengths]
    values = rng.standard_normal(points, dtype=np.float32)
    for axis, positions in enumerate(axes):
        on_lattice = (positions + EXTENT[axis]) / scale[axis]
        values = _interpolate(values, axis, on_lattice)
    return values


def _interpolate(values: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """The values at positions along an axis, in steps of the lattice."""
    first, between = np.divmod(positions, 1)
    first = first.astype(int)
    other_axes = [other + 1 for other in range(3) if other != axis]
    weights = np.expand_dims(_spline_weights(between), other_axes)
    total: Any = 0
    for step, weight in enumerate(weights):
        total = total + np.take(values, first + step, axis) * weight
    return total


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

    def __init__(self, rng: Generator, axes: Axes, edge: float) -> None:
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
            _between(z, from_z, to_z),
            _between(y, from_y, to_y),
            _between(x, from_x, to_x),
        )

    def distance(self, shape: Ellipsoid, box: Box) -> Part:
        """Returns the signed distance of the shape in the box, mm."""
        x = self.x[box]
        y = self.y[box]
        z = self.z[box]
        return shape.distance(x, y, z)

    def union(self, shapes: Sequence[Ellipsoid], blend: float = 14.0) -> Array:
        """Returns the signed distance of shapes that flow into each other over `blend` mm, in the whole grid."""
        total = np.full(self.x.shape, 1e3, np.float32)
        for shape in shapes:
            box = self.box(shape)
            before = total[box]
            distance = self.distance(shape, box)
            apart = np.abs(before - distance)
            overlap = np.maximum(blend - apart, 0)
            nearer = np.minimum(before, distance)
            total[box] = nearer - overlap**2 / (4 * blend)
        return total

    def diaphragm(self) -> Array:
        """Returns the signed distance of the diaphragm's domes, negative in the abdomen; they go straight down from z = 0."""
        above = np.maximum(self.z, 0)
        distances: list[Array] = []
        for dome in DOMES:
            distances.append(dome.distance(self.x, self.y, above))
        return np.minimum.reduce(distances)

    def torso(self, half: tuple[float, float]) -> Array:
        """Returns the signed distance, along the radius, of a rounded rectangle that runs through the scan.

        Args:
            half: Half its width and half its height, mm.
        """
        half_width, half_height = half
        across = (np.abs(self.x) / half_width) ** 2.5
        down = (np.abs(self.y) / half_height) ** 2.5
        level = (across + down) ** np.float32(1 / 2.5)
        level = np.maximum(level, np.float32(1e-3))
        radius = np.hypot(self.x, self.y)
        return radius * (1 - 1 / level)


def _bend(rng: Generator, axes: Axes) -> Array:
    total: Any = 0
    for size, sd in BENDS:
        noise = smooth_noise(rng, axes, (size, size, size))
        total = total + np.float32(sd) * noise
    return total


def _between(positions: np.ndarray, low: float, high: float) -> slice:
    first, end = np.searchsorted(positions, [low, high])
    return slice(first, end)


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
        for name, level in LEVELS.items():
            variation = rng.uniform(0.93, 1.07)
            self.level[name] = level * gain * variation
        air = self.level["air"]
        self.image = np.full(space.x.shape, air, np.float32)
        self.noise: dict[str, Array] = {}
        for name, scale in TEXTURES.items():
            self.noise[name] = smooth_noise(rng, space.axes, scale)
        self.cavity = space.torso(CAVITY)

    def vary(self, shape: Ellipsoid, name: str) -> Ellipsoid:
        """Returns a shape like this one, as much so as `VARIATIONS` says under the name."""
        place, size, pose = VARIATIONS[name]
        return shape.varied(self.rng, place, size, pose)

    def textured(self, name: str, **amounts: float) -> Array:
        """Returns a tissue's level with its texture.

        Args:
            name: The tissue, as in `LEVELS`.
            amounts: Relative standard deviations of details, by their name in `TEXTURES`, in their order.
        """
        texture: Any = 0
        for size, amount in amounts.items():
            texture = texture + np.float32(amount) * self.noise[size]
        level = np.float32(self.level[name])
        return level * (1 + texture)

    def paint(self, distance: Part, value: Array | float, box: Box = WHOLE) -> None:
        """Covers what is inside, where `distance` (of the box) is negative, by a value (of the whole scan)."""
        edge = np.float32(self.space.edge)
        cover = np.clip(0.5 - distance / edge, 0, 1)
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
