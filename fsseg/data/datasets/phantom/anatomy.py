"""The phantom's anatomy: shapes and intensities, before anything varies.

Coordinates are in mm: x to the right of the image (the patient's left), y to the back, z to the head, and the origin
between the kidneys.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

Part = Float[np.ndarray, "depth rows columns"]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """A solid ellipsoid: centre and radii (x, y, z) in mm, turned about z and tilted about y by degrees."""

    center: Point
    radii: Point
    turn: float = 0.0
    tilt: float = 0.0

    @staticmethod
    def between(start: Point, end: Point, radius: float) -> "Ellipsoid":
        """A spindle with its tips at two points; vessels are made of these."""
        course = np.subtract(end, start)
        length, turn = np.linalg.norm(course), np.degrees(np.arctan2(course[1], course[0]))
        tilt = np.degrees(np.arccos(course[2] / length))
        return Ellipsoid(tuple(np.add(start, end) / 2), (radius, radius, length / 2), turn, tilt)

    def axes(self) -> Float[np.ndarray, "3 3"]:
        """Rotation whose rows are the ellipsoid's own axes."""
        (ct, cy), (st, sy) = (
            np.cos(np.radians([self.turn, self.tilt])),
            np.sin(np.radians([self.turn, self.tilt])),
        )
        return np.array([[ct * cy, st * cy, -sy], [-st, ct, 0.0], [ct * sy, st * sy, cy]])

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners (x, y, z) of the box around it."""
        half = np.sqrt(((self.axes() * np.array(self.radii)[:, None]) ** 2).sum(axis=0))
        return np.array(self.center) - half, np.array(self.center) + half

    def distance(self, x: Part, y: Part, z: Part) -> Part:
        """Signed distance in mm, negative inside; an estimate that is exact at the surface."""
        offsets = [axis - np.float32(c) for axis, c in zip((x, y, z), self.center, strict=True)]
        level, slope = (
            np.float32(1e-6),
            np.float32(1e-6 / min(self.radii) ** 2),
        )  # so that the centre is defined
        for row, radius in zip(self.axes().astype(np.float32), self.radii, strict=True):
            along = (row[0] * offsets[0] + row[1] * offsets[1] + row[2] * offsets[2]) / np.float32(
                radius
            )
            level, slope = level + along**2, slope + (along / np.float32(radius)) ** 2
        return (level - np.sqrt(level)) / np.sqrt(slope)

    def varied(self, rng: Generator, place: float, size: float, pose: float) -> "Ellipsoid":
        """Moved by up to `place` mm, grown or shrunk by up to the fraction `size`, turned by up to `pose` degrees."""
        center = self.center + rng.uniform(-place, place, 3)
        radii = (
            np.array(self.radii)
            * rng.uniform(1 - size, 1 + size)
            * rng.uniform(1 - size / 2, 1 + size / 2, 3)
        )
        turn, tilt = rng.uniform(-pose, pose, 2)
        return Ellipsoid(tuple(center), tuple(radii), self.turn + turn, self.tilt + tilt)

    def shrunk(self, by: float) -> "Ellipsoid":
        """The same with radii that are `by` mm smaller."""
        return replace(self, radii=tuple(radius - by for radius in self.radii))

    def moved(self, by: Point) -> "Ellipsoid":
        """The same elsewhere."""
        return replace(self, center=tuple(np.add(self.center, by)))


FIELD_OF_VIEW, SCAN_LENGTH = 326.0, 218.0
"""What a slice (height and width) and a scan cover of the anatomy, in mm, before the variation between cases."""
SKIN, WALL, CAVITY = (150.0, 107.0), (135.0, 95.0), (122.0, 83.0)
"""Half width and half height of the torso's layers in mm: fat lies between the first two, then the muscular wall."""
LONG = 2000.0
"""Radius along z of what runs through the whole scan, in mm."""
BENDS, REACH = ((70.0, 3.5), (32.0, 1.6)), 14.0
"""Scale and standard deviation in mm of the deformation's parts; how far in mm a shape may be bent out of its box."""
NOISE, EDGE = 9.0, 1.7
"""Standard deviation of the noise, and the width of an edge in mm where pixels are not larger."""

LEVELS = {
    "air": 6, "lung": 45, "fat": 365, "visceral_fat": 345, "muscle": 215, "bone": 245, "cortical": 110, "disc": 430,
    "csf": 900, "cord": 420, "heart": 290, "aorta": 90, "cava": 330, "gallbladder": 860, "pelvis": 700, "capsule": 150,
    "wall": 215, "fluid": 740, "food": 340, "gas": 50, "liver": 275, "portal_vein": 440, "hepatic_vein": 130,
    "cortex": 455, "medulla": 570, "spleen": 520,
}  # fmt: skip
"""Mean intensities. Their order is that of T2-weighted scans whose fat is partly suppressed."""
CONTENTS = {"food": 0.30, "liver": 0.22, "cortex": 0.14, "spleen": 0.14, "fluid": 0.12, "gas": 0.08}
"""What fills a loop of bowel and how often. Levels of organs are among it on purpose."""

DOMES = (
    Ellipsoid((-58, -4, 0), (88, 104, 112)),
    Ellipsoid((0, -10, 0), (70, 120, 92)),
    Ellipsoid((58, 0, 0), (88, 104, 102)),
)
"""The diaphragm from z = 0 upwards: what is in the torso and above these is lung."""
SPINE = {
    "cortical": Ellipsoid((0, 45, 0), (25, 19.5, LONG)),
    "body": Ellipsoid((0, 45, 0), (22.5, 17, LONG)),
    "arch": Ellipsoid((0, 72, 0), (16, 14, LONG)),
    "process": Ellipsoid((0, 88, 0), (4, 9, LONG)),
    "canal": Ellipsoid((0, 69, 0), (9.5, 8, LONG)),
    "cord": Ellipsoid((0, 69, 0), (4.5, 3.5, LONG)),
}
MUSCLES = (
    Ellipsoid((-29, 76, 0), (23, 14, LONG), turn=8),
    Ellipsoid((29, 76, 0), (23, 14, LONG), turn=-8),
    Ellipsoid((-31, 50, -110), (16, 17, 105), tilt=6),
    Ellipsoid((31, 50, -110), (16, 17, 105), tilt=-6),
)
VESSELS = {
    "aorta": Ellipsoid((9, 19, 0), (9, 9, LONG)),
    "cava": Ellipsoid((-19, 19, 0), (12, 8.5, LONG)),
}
HEART = Ellipsoid((22, -36, 116), (56, 42, 32), tilt=-8)
STOMACH = (
    Ellipsoid((58, -14, 56), (37, 36, 38), tilt=15),
    Ellipsoid((24, -44, 14), (44, 22, 24), tilt=-25),
)
COLON = (
    Ellipsoid((-90, 2, -70), (19, 21, 52)),
    Ellipsoid((94, 16, -50), (16, 18, 70)),
    Ellipsoid((0, -58, -22), (82, 15, 19), tilt=-8),
)
PANCREAS = (Ellipsoid((28, -4, 8), (44, 9, 13), tilt=-18), Ellipsoid((-20, 0, -8), (15, 13, 20)))
GALLBLADDER = Ellipsoid((-46, -36, 0), (14, 18, 25), turn=25)
ORGANS = {
    1: (
        Ellipsoid((-62, -6, 36), (64, 70, 72)),
        Ellipsoid((6, -42, 50), (62, 28, 36), tilt=-6),
        Ellipsoid((-88, 2, -18), (26, 48, 48), tilt=-4),
    ),
    2: (Ellipsoid((-60, 37, -30), (25, 29, 54), turn=25, tilt=8),),
    3: (Ellipsoid((59, 35, -14), (25, 29, 55), turn=-25, tilt=-8),),
    4: (
        Ellipsoid((88, 20, 44), (23, 45, 48), turn=12, tilt=-8),
        Ellipsoid((84, 44, 50), (30, 20, 36), turn=10),
    ),
}
SINUSES = (
    Ellipsoid((-44, 30, -28), (14, 10, 22), turn=25),
    Ellipsoid((43, 28, -12), (14, 10, 22), turn=-25),
)
"""The fat of the kidneys' sinuses, which is no part of the kidneys; the renal pelvis is in it."""
LIVER_VEINS = {
    "hepatic_vein": ((-19, 14, 88), ((-108, 8, 62), (-66, -56, 60), (8, -56, 58))),
    "portal_vein": ((-30, 2, 26), ((-102, 14, 22), (-82, -46, 38), (22, -48, 44))),
}
"""Where the veins enter the liver, and where they lead."""
