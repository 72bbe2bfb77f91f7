"""The phantom's anatomy: where everything is, before anything varies, and how much it does.

Coordinates are in mm: x to the right of the image (the patient's left), y to the back, z to the head, and the origin
between the kidneys.
"""

from typing import NamedTuple

from fsseg.data.datasets.phantom.shapes import Ellipsoid, Point

LIVER = 1
RIGHT_KIDNEY = 2
LEFT_KIDNEY = 3
SPLEEN = 4

CLASSES = {
    LIVER: "liver",
    RIGHT_KIDNEY: "right_kidney",
    LEFT_KIDNEY: "left_kidney",
    SPLEEN: "spleen",
}
"""The organs by their value in label maps."""

FIELD_OF_VIEW = 326.0
"""Height and width in mm that a slice covers of the anatomy, before the variation between cases."""

SCAN_LENGTH = 218.0
"""Length in mm that a scan covers of it."""

SKIN = (150.0, 107.0)
WALL = (135.0, 95.0)
CAVITY = (122.0, 83.0)
"""Half width and half height of the torso's layers in mm: fat lies between the first two, then the muscular wall."""

LONG = 2000.0
"""Radius along z of what runs through the whole scan, in mm."""

BENDS = (
    (70.0, 3.5),
    (32.0, 1.6),
)
"""Scale and standard deviation in mm of the deformation's parts."""

REACH = 14.0
"""How far in mm a shape may be bent out of its box."""


class Variation(NamedTuple):
    """The most that a shape varies between cases: in place (mm), size (a fraction) and pose (degrees)."""

    place: float
    size: float
    pose: float


VARIATIONS = {
    "muscle": Variation(
        place=2,
        size=0.06,
        pose=4,
    ),
    "heart": Variation(
        place=5,
        size=0.08,
        pose=8,
    ),
    "colon": Variation(
        place=6,
        size=0.15,
        pose=10,
    ),
    "pancreas": Variation(
        place=4,
        size=0.1,
        pose=8,
    ),
    "stomach": Variation(
        place=5,
        size=0.1,
        pose=8,
    ),
    "vessel": Variation(
        place=2.5,
        size=0.1,
        pose=0,
    ),
    "gallbladder": Variation(
        place=4,
        size=0.15,
        pose=12,
    ),
    "sinus": Variation(
        place=4,
        size=0.1,
        pose=8,
    ),
    "organ": Variation(
        place=2.5,
        size=0.05,
        pose=6,
    ),
}
"""Of an organ's parts this comes on top of what the whole organ does."""

DOMES = (
    Ellipsoid(
        center=(-58, -4, 0),
        radii=(88, 104, 112),
    ),
    Ellipsoid(
        center=(0, -10, 0),
        radii=(70, 120, 92),
    ),
    Ellipsoid(
        center=(58, 0, 0),
        radii=(88, 104, 102),
    ),
)
"""The diaphragm from z = 0 upwards: what is in the torso and above these is lung."""

SPINE = {
    "cortical": Ellipsoid(
        center=(0, 45, 0),
        radii=(25, 19.5, LONG),
    ),
    "body": Ellipsoid(
        center=(0, 45, 0),
        radii=(22.5, 17, LONG),
    ),
    "arch": Ellipsoid(
        center=(0, 72, 0),
        radii=(16, 14, LONG),
    ),
    "process": Ellipsoid(
        center=(0, 88, 0),
        radii=(4, 9, LONG),
    ),
    "canal": Ellipsoid(
        center=(0, 69, 0),
        radii=(9.5, 8, LONG),
    ),
    "cord": Ellipsoid(
        center=(0, 69, 0),
        radii=(4.5, 3.5, LONG),
    ),
}

MUSCLES = (
    Ellipsoid(
        center=(-29, 76, 0),
        radii=(23, 14, LONG),
        turn=8,
    ),
    Ellipsoid(
        center=(29, 76, 0),
        radii=(23, 14, LONG),
        turn=-8,
    ),
    Ellipsoid(
        center=(-31, 50, -110),
        radii=(16, 17, 105),
        tilt=6,
    ),
    Ellipsoid(
        center=(31, 50, -110),
        radii=(16, 17, 105),
        tilt=-6,
    ),
)

VESSELS = {
    "aorta": Ellipsoid(
        center=(9, 19, 0),
        radii=(9, 9, LONG),
    ),
    "cava": Ellipsoid(
        center=(-19, 19, 0),
        radii=(12, 8.5, LONG),
    ),
}

HEART = Ellipsoid(
    center=(22, -36, 116),
    radii=(56, 42, 32),
    tilt=-8,
)

STOMACH = (
    Ellipsoid(
        center=(58, -14, 56),
        radii=(37, 36, 38),
        tilt=15,
    ),
    Ellipsoid(
        center=(24, -44, 14),
        radii=(44, 22, 24),
        tilt=-25,
    ),
)

COLON = (
    Ellipsoid(
        center=(-90, 2, -70),
        radii=(19, 21, 52),
    ),
    Ellipsoid(
        center=(94, 16, -50),
        radii=(16, 18, 70),
    ),
    Ellipsoid(
        center=(0, -58, -22),
        radii=(82, 15, 19),
        tilt=-8,
    ),
)

PANCREAS = (
    Ellipsoid(
        center=(28, -4, 8),
        radii=(44, 9, 13),
        tilt=-18,
    ),
    Ellipsoid(
        center=(-20, 0, -8),
        radii=(15, 13, 20),
    ),
)

GALLBLADDER = Ellipsoid(
    center=(-46, -36, 0),
    radii=(14, 18, 25),
    turn=25,
)

ORGANS = {
    LIVER: (
        Ellipsoid(
            center=(-62, -6, 36),
            radii=(64, 70, 72),
        ),
        Ellipsoid(
            center=(6, -42, 50),
            radii=(62, 28, 36),
            tilt=-6,
        ),
        Ellipsoid(
            center=(-88, 2, -18),
            radii=(26, 48, 48),
            tilt=-4,
        ),
    ),
    RIGHT_KIDNEY: (
        Ellipsoid(
            center=(-60, 37, -30),
            radii=(25, 29, 54),
            turn=25,
            tilt=8,
        ),
    ),
    LEFT_KIDNEY: (
        Ellipsoid(
            center=(59, 35, -14),
            radii=(25, 29, 55),
            turn=-25,
            tilt=-8,
        ),
    ),
    SPLEEN: (
        Ellipsoid(
            center=(88, 20, 44),
            radii=(23, 45, 48),
            turn=12,
            tilt=-8,
        ),
        Ellipsoid(
            center=(84, 44, 50),
            radii=(30, 20, 36),
            turn=10,
        ),
    ),
}

SINUSES = (
    Ellipsoid(
        center=(-44, 30, -28),
        radii=(14, 10, 22),
        turn=25,
    ),
    Ellipsoid(
        center=(43, 28, -12),
        radii=(14, 10, 22),
        turn=-25,
    ),
)
"""The fat of the kidneys' sinuses, which is no part of the kidneys; the renal pelvis is in it."""


class VeinTree(NamedTuple):
    """Veins that lead from one place to some.

    Attributes:
        hub: Where they enter the liver.
        ends: Where they lead.
    """

    hub: Point
    ends: tuple[Point, ...]


LIVER_VEINS = {
    "hepatic_vein": VeinTree(
        hub=(-19, 14, 88),
        ends=(
            (-108, 8, 62),
            (-66, -56, 60),
            (8, -56, 58),
        ),
    ),
    "portal_vein": VeinTree(
        hub=(-30, 2, 26),
        ends=(
            (-102, 14, 22),
            (-82, -46, 38),
            (22, -48, 44),
        ),
    ),
}
