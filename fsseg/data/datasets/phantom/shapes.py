"""Solid ellipsoids, of which all of the phantom is made. Coordinates are in mm."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

Part = Float[np.ndarray, "depth rows columns"]
Point = tuple[float, float, float]

CENTRE = np.float32(1e-6)
"""Level of an ellipsoid's centre, so that the distance is defined there."""


@dataclass(frozen=True)
class Ellipsoid:
    """A solid ellipsoid, turned and tilted.

    Attributes:
        center: Its centre (x, y, z), mm.
        radii: Its radii along its own axes, mm.
        turn: Degrees by which it is turned about z.
        tilt: Degrees by which it was tilted about y before.
    """

    center: Point
    radii: Point
    turn: float = 0.0
    tilt: float = 0.0

    @staticmethod
    def between(start: Point, end: Point, radius: float) -> "Ellipsoid":
        """Returns a spindle with its tips at two points; vessels are made of these."""
        course = np.subtract(end, start)
        middle = np.add(start, end) / 2
        length = float(np.linalg.norm(course))
        x, y, z = course
        return Ellipsoid(
            center=tuple(middle),
            radii=(radius, radius, length / 2),
            turn=np.degrees(np.arctan2(y, x)),
            tilt=np.degrees(np.arccos(z / length)),
        )

    def axes(self) -> Float[np.ndarray, "3 3"]:
        """Returns the rotation whose rows are the ellipsoid's own axes."""
        angles = np.radians([self.turn, self.tilt])
        cos_turn, cos_tilt = np.cos(angles)
        sin_turn, sin_tilt = np.sin(angles)
        first = [cos_turn * cos_tilt, sin_turn * cos_tilt, -sin_tilt]
        second = [-sin_turn, cos_turn, 0.0]
        third = [cos_turn * sin_tilt, sin_turn * sin_tilt, cos_tilt]
        return np.array([first, second, third])

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the corners (x, y, z) of the box around it, mm."""
        radii = np.array(self.radii)
        arms = self.axes() * radii[:, None]
        half = np.sqrt((arms**2).sum(axis=0))
        center = np.array(self.center)
        return center - half, center + half

    def distance(self, x: Part, y: Part, z: Part) -> Part:
        """Returns the signed distance in mm, negative inside; an estimate that is exact at the surface."""
        from_x, from_y, from_z = self.center
        x = x - np.float32(from_x)
        y = y - np.float32(from_y)
        z = z - np.float32(from_z)
        axes = self.axes().astype(np.float32)
        radii = np.array(self.radii).astype(np.float32)
        level = CENTRE
        slope = np.float32(1e-6 / min(self.radii) ** 2)
        for axis, radius in zip(axes, radii):
            by_x, by_y, by_z = axis
            along = by_x * x + by_y * y + by_z * z
            share = along / radius
            level = level + share**2
            slope = slope + (share / radius) ** 2
        from_surface = level - np.sqrt(level)
        return from_surface / np.sqrt(slope)

    def varied(self, rng: Generator, place: float, size: float, pose: float) -> "Ellipsoid":
        """Returns one at random that is like it.

        Args:
            rng: Draws it.
            place: It is moved by up to so many mm along each axis.
            size: It grows or shrinks by up to this fraction.
            pose: It is turned by up to so many degrees.
        """
        center = self.center + rng.uniform(-place, place, 3)
        growth = rng.uniform(1 - size, 1 + size)
        growth_by_axis = rng.uniform(1 - size / 2, 1 + size / 2, 3)
        radii = np.array(self.radii) * growth * growth_by_axis
        turn, tilt = rng.uniform(-pose, pose, 2)
        return Ellipsoid(
            center=tuple(center),
            radii=tuple(radii),
            turn=self.turn + turn,
            tilt=self.tilt + tilt,
        )

    def shrunk(self, by: float) -> "Ellipsoid":
        """Returns one with radii that are `by` mm smaller."""
        x, y, z = self.radii
        return replace(self, radii=(x - by, y - by, z - by))

    def grown(self, factor: float) -> "Ellipsoid":
        """Returns one with radii that are `factor` times as large."""
        return replace(self, radii=tuple(np.array(self.radii) * factor))

    def moved(self, by: Point) -> "Ellipsoid":
        """Returns one whose centre is elsewhere, by so many mm along (x, y, z)."""
        return replace(self, center=tuple(np.add(self.center, by)))
