"""The embedded dataset: abdominal scans made from a seed, so that everything can be tried without downloading anything.

A case looks schematically like an axial T2-weighted MR scan of the upper abdomen. It is painted from back to front: the
ellipsoids in the tables below are varied per case, bent by one smooth random deformation and blended by their signed
distances; a bias field and Rician noise come last. No intensity gives an organ away, since other tissues share it;
shape, texture and place do.

Anatomical coordinates are in mm: x to the right of the image (the patient's left), y to the back, z to the head. The
anatomy is drawn independently of the pixel grid, so `size` changes the resolution only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from jaxtyping import Float, UInt8
from numpy.random import Generator
from pydantic import Field
from scipy import ndimage

from fsseg.errors import DataError
from fsseg.types import Volume

CLASSES = {1: "liver", 2: "right_kidney", 3: "left_kidney", 4: "spleen"}
GENERATOR_VERSION = 1
"""Part of the cache key: raise it with every change that alters a voxel."""

Array = Float[np.ndarray, "slice height width"]
Part = Float[np.ndarray, "s h w"]
Box = tuple[slice, slice, slice]
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
        (ct, cy), (st, sy) = np.cos(np.radians([self.turn, self.tilt])), np.sin(np.radians([self.turn, self.tilt]))
        return np.array([[ct * cy, st * cy, -sy], [-st, ct, 0.0], [ct * sy, st * sy, cy]])

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners (x, y, z) of the box around it."""
        half = np.sqrt(((self.axes() * np.array(self.radii)[:, None]) ** 2).sum(axis=0))
        return np.array(self.center) - half, np.array(self.center) + half

    def distance(self, x: Part, y: Part, z: Part) -> Part:
        """Signed distance in mm, negative inside; an estimate that is exact at the surface."""
        offsets = [axis - np.float32(c) for axis, c in zip((x, y, z), self.center, strict=True)]
        level, slope = np.float32(1e-6), np.float32(1e-6 / min(self.radii) ** 2)  # so that the centre is defined
        for row, radius in zip(self.axes().astype(np.float32), self.radii, strict=True):
            along = (row[0] * offsets[0] + row[1] * offsets[1] + row[2] * offsets[2]) / np.float32(radius)
            level, slope = level + along**2, slope + (along / np.float32(radius)) ** 2
        return (level - np.sqrt(level)) / np.sqrt(slope)

    def varied(self, rng: Generator, place: float, size: float, pose: float) -> "Ellipsoid":
        """Moved by up to `place` mm, grown or shrunk by up to the fraction `size`, turned by up to `pose` degrees."""
        center = self.center + rng.uniform(-place, place, 3)
        radii = np.array(self.radii) * rng.uniform(1 - size, 1 + size) * rng.uniform(1 - size / 2, 1 + size / 2, 3)
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
VESSELS = {"aorta": Ellipsoid((9, 19, 0), (9, 9, LONG)), "cava": Ellipsoid((-19, 19, 0), (12, 8.5, LONG))}
HEART = Ellipsoid((22, -36, 116), (56, 42, 32), tilt=-8)
STOMACH = (Ellipsoid((58, -14, 56), (37, 36, 38), tilt=15), Ellipsoid((24, -44, 14), (44, 22, 24), tilt=-25))
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
    4: (Ellipsoid((88, 20, 44), (23, 45, 48), turn=12, tilt=-8), Ellipsoid((84, 44, 50), (30, 20, 36), turn=10)),
}
SINUSES = (Ellipsoid((-44, 30, -28), (14, 10, 22), turn=25), Ellipsoid((43, 28, -12), (14, 10, 22), turn=-25))
"""The fat of the kidneys' sinuses, which is no part of the kidneys; the renal pelvis is in it."""
LIVER_VEINS = {
    "hepatic_vein": ((-19, 14, 88), ((-108, 8, 62), (-66, -56, 60), (8, -56, 58))),
    "portal_vein": ((-30, 2, 26), ((-102, 14, 22), (-82, -46, 38), (22, -48, 44))),
}
"""Where the veins enter the liver, and where they lead."""


def smooth_noise(rng: Generator, axes: Sequence[np.ndarray], scale: Point) -> Array:
    """Gaussian noise of about unit variance with details of `scale` mm along (z, y, x), at the positions `axes` in mm.

    The lattice that is drawn does not depend on the positions. It is interpolated by cubic B-splines without matrix
    products, so that the bits do not depend on the number of threads.
    """
    extent = (150.0, 200.0, 200.0)
    values = rng.standard_normal([int(2 * e / s) + 5 for e, s in zip(extent, scale, strict=True)], dtype=np.float32)
    for axis, (positions, reach, step) in enumerate(zip(axes, extent, scale, strict=True)):
        first, t = np.divmod((positions + reach) / step, 1)
        weights = np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
        weights = (weights / 0.69).astype(np.float32)  # 0.69: the standard deviation that B-spline smoothing leaves
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
        bends = [sum(np.float32(sd) * smooth_noise(rng, axes, (s, s, s)) for s, sd in BENDS) for _ in range(3)]
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
        level = ((np.abs(self.x) / half[0]) ** 2.5 + (np.abs(self.y) / half[1]) ** 2.5) ** np.float32(1 / 2.5)
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
        self.level = {name: value * gain * rng.uniform(0.93, 1.07) for name, value in LEVELS.items()}
        self.image = np.full(space.x.shape, self.level["air"], np.float32)
        self.fine, self.medium, self.coarse = (
            smooth_noise(rng, space.axes, scale) for scale in ((8, 3.6, 3.6), (10, 9, 9), (26, 26, 26))
        )
        self.cavity = space.torso(CAVITY)

    def textured(self, name: str, fine: float = 0.0, medium: float = 0.0, coarse: float = 0.0) -> Array:
        """A tissue's level with its texture: relative standard deviations of details of about 4, 9 and 26 mm."""
        parts = ((fine, self.fine), (medium, self.medium), (coarse, self.coarse))
        return np.float32(self.level[name]) * (1 + sum(np.float32(a) * noise for a, noise in parts if a))

    def paint(self, distance: Part, value: Array | float, box: Box = np.s_[:, :, :]) -> None:
        """Covers what is inside, where `distance` (of the box) is negative, by a value (of the whole scan)."""
        cover = np.clip(0.5 - distance / np.float32(self.space.edge), 0, 1)
        image = self.image[box]
        image += cover * ((value[box] if isinstance(value, np.ndarray) else np.float32(value)) - image)

    def paint_shape(self, shape: Ellipsoid, value: Array | float, within: Array | None = None) -> None:
        """Paints a shape, or the part of it where the distance `within` is negative."""
        box = self.space.box(shape)
        distance = self.space.distance(shape, box)
        self.paint(distance if within is None else np.maximum(distance, within[box]), value, box)


def paint_torso(canvas: Canvas) -> None:
    """Fat with its strands, the muscular wall, visceral fat, ribs."""
    space, rng, level = canvas.space, canvas.rng, canvas.level
    strands = np.maximum(1 - np.abs(canvas.medium) / np.float32(0.25), 0)  # where the noise changes its sign
    thick = rng.uniform(0.97, 1.03)
    fat, visceral = (canvas.textured(name, medium=0.04, coarse=0.06) for name in ("fat", "visceral_fat"))
    canvas.paint(space.torso((SKIN[0] * thick, SKIN[1] * thick)), fat * (1 - np.float32(0.1) * strands))
    canvas.paint(space.torso(WALL), canvas.textured("muscle", fine=0.07, medium=0.05))
    canvas.paint(canvas.cavity, visceral * (1 - np.float32(0.25) * strands))
    for angle in np.radians(np.arange(15, 360, 30)):
        center = np.array([np.cos(angle) * 127, np.sin(angle) * 88])
        for z in np.arange(-40, 130, 34) + rng.uniform(0, 34):
            rib = Ellipsoid((*center, z), (10, 4.5, 8), turn=np.degrees(np.arctan2(-np.cos(angle), np.sin(angle))))
            canvas.paint_shape(rib, level["cortical"])


def paint_back(canvas: Canvas) -> None:
    """Vertebrae with discs between them, the bright canal with the cord, paraspinal and psoas muscles."""
    rng, level = canvas.rng, canvas.level
    for muscle in MUSCLES:
        canvas.paint_shape(muscle.varied(rng, 2, 0.06, 4), canvas.textured("muscle", fine=0.09, medium=0.05))
    disc = np.cos((canvas.space.z + rng.uniform(0, 34)) * np.float32(2 * np.pi / 34)) > 0.75
    marrow = np.where(disc, canvas.textured("disc", medium=0.05), canvas.textured("bone", fine=0.08))
    paints = {"cortical": level["cortical"], "body": marrow, "arch": level["bone"], "process": level["cortical"]}
    for part, value in {**paints, "canal": level["csf"], "cord": level["cord"]}.items():
        canvas.paint_shape(SPINE[part], value)


def paint_chest(canvas: Canvas) -> None:
    """Lungs above the diaphragm, and the lower side of the heart."""
    lung = np.maximum(canvas.cavity, -canvas.space.diaphragm())
    canvas.paint(lung, canvas.textured("lung", fine=0.3))
    heart = HEART.varied(canvas.rng, 5, 0.08, 8)
    canvas.paint_shape(heart, canvas.level["wall"], within=canvas.cavity)
    canvas.paint_shape(heart.shrunk(9), canvas.textured("heart", coarse=0.3), within=canvas.cavity)


def paint_gut(canvas: Canvas) -> None:
    """Loops of small bowel, colon, pancreas and stomach; all but the pancreas have a wall and some content."""
    rng = canvas.rng
    inside = canvas.cavity + 3
    for _ in range(64):
        center = rng.uniform((-92, -66, -125), (92, 12, 30))
        loop = Ellipsoid(tuple(center), tuple(rng.uniform((16, 12, 12), (34, 21, 21))), *rng.uniform(-90, 90, 2))
        paint_hollow(canvas, loop, inside)
    for part in COLON:
        paint_hollow(canvas, part.varied(rng, 6, 0.15, 10), inside)
    for part in PANCREAS:
        canvas.paint_shape(part.varied(rng, 4, 0.1, 8), canvas.textured("food", fine=0.08, medium=0.08))
    full = rng.choice(["food", "fluid"])
    for part in STOMACH:
        stomach = part.varied(rng, 5, 0.1, 8)
        paint_hollow(canvas, stomach, inside, full)
        # Gas floats to the front of a patient who lies on the back.
        canvas.paint_shape(stomach.shrunk(4), canvas.level["gas"], canvas.space.union([stomach.moved((0, -26, 0))]))


def paint_hollow(canvas: Canvas, shape: Ellipsoid, within: Array, content: str | None = None) -> None:
    """A wall of 3 mm and a content, drawn from `CONTENTS` unless it is given."""
    content = content or canvas.rng.choice(list(CONTENTS), p=list(CONTENTS.values()))
    canvas.paint_shape(shape, canvas.level["wall"], within)
    value = canvas.textured(content, medium=0.07, coarse=0.07) * np.float32(canvas.rng.uniform(0.85, 1.15))
    canvas.paint_shape(shape.shrunk(3), value, within + 3)


def paint_vessels(canvas: Canvas) -> None:
    """Aorta and vena cava with their walls."""
    for name, vessel in VESSELS.items():
        vessel = vessel.varied(canvas.rng, 2.5, 0.1, 0)
        canvas.paint_shape(vessel, canvas.level["wall"])
        canvas.paint_shape(vessel.shrunk(1.5), canvas.level[name])


def organ_distances(canvas: Canvas, obstacles: list[Array]) -> dict[int, Array]:
    """Signed distance of each organ; they keep clear of the obstacles and of each other, and stay in the abdomen."""
    space, rng, distances = canvas.space, canvas.rng, dict[int, Array]()
    around = np.maximum(canvas.cavity, space.diaphragm()) + 2
    for organ in (2, 3, 1, 4):  # liver and spleen give way to the kidneys
        place, grown = tuple(rng.uniform(-5, 5, 3)), rng.uniform(0.93, 1.07)
        parts = [part.varied(rng, 2.5, 0.05, 6).moved(place) for part in ORGANS[organ]]
        parts = [replace(part, radii=tuple(np.array(part.radii) * grown)) for part in parts]
        keep_clear = [2.5 - other for other in (*obstacles, *distances.values())]
        distances[organ] = _one_piece(np.maximum.reduce([space.union(parts), around, *keep_clear]))
    return distances


def _one_piece(distance: Array) -> Array:
    """The shape without pieces that cutting has split off."""
    pieces, count = ndimage.label(distance < 0)
    if count > 1:
        keep = 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        distance[(pieces > 0) & (pieces != keep)] = 1.0
    return distance


def paint_organs(canvas: Canvas) -> UInt8[np.ndarray, "slice height width"]:
    """Gallbladder, the four organs with their textures and the vessels of the liver; returns the label map."""
    space, rng = canvas.space, canvas.rng
    gallbladder = space.union([GALLBLADDER.varied(rng, 4, 0.15, 12)])
    sinuses = [sinus.varied(rng, 4, 0.1, 8) for sinus in SINUSES]
    spine = space.union([SPINE["cortical"], *MUSCLES[:2], *VESSELS.values()], blend=1.0)
    distances = organ_distances(canvas, [gallbladder, spine, *(space.union([sinus]) for sinus in sinuses)])
    canvas.paint(gallbladder, canvas.level["gallbladder"])
    for sinus in sinuses:
        canvas.paint_shape(sinus, canvas.level["fat"])
        canvas.paint_shape(sinus.shrunk(4.5), canvas.level["pelvis"])
    values = {
        1: canvas.textured("liver", fine=0.025, coarse=0.03),
        2: kidney_value(canvas, distances[2]),
        3: kidney_value(canvas, distances[3]),
        4: canvas.textured("spleen", fine=0.06),
    }
    labels = np.zeros(canvas.image.shape, np.uint8)
    for organ, distance in distances.items():
        canvas.paint(distance - 2.5, canvas.level["capsule"])  # dark, as is the chemical shift at an organ's rim
        canvas.paint(distance, values[organ])
        labels[distance < 0] = organ
    paint_veins(canvas, distances[1] + 3)
    return labels


def paint_veins(canvas: Canvas, liver: Array) -> None:
    """The liver's veins, dark ones from the vena cava and bright ones from the porta, each with three twigs."""
    rng = canvas.rng
    for name, (hub, ends) in LIVER_VEINS.items():
        for end in ends:
            end = tuple(end + rng.uniform(-10, 10, 3))
            middle = tuple(np.add(hub, end) / 2)
            twigs = [Ellipsoid.between(middle, tuple(end + rng.uniform(-45, 45, 3)), 3.0) for _ in range(3)]
            for vein in (Ellipsoid.between(hub, end, 4.5), *twigs):
                canvas.paint_shape(vein, canvas.level[name], liver)


def kidney_value(canvas: Canvas, distance: Array) -> Array:
    """A darker cortex of some 6 mm and, below it, columns of it between brighter pyramids."""
    deep = np.clip((-distance - 5) / 3, 0, 1)
    pyramids = np.clip(0.75 + canvas.medium * 1.5, 0, 1)
    cortex = canvas.textured("cortex", fine=0.03)
    return cortex + deep * pyramids * np.float32(canvas.level["medulla"] - canvas.level["cortex"])


def receive(canvas: Canvas) -> Array:
    """The scan as stored: a coil's bias field, Rician noise, whole numbers."""
    space, rng = canvas.space, canvas.rng
    bias = 0.17 * smooth_noise(rng, space.axes, (110, 85, 85))
    depth = ((space.x / SKIN[0]) ** 2 + (space.y / SKIN[1]) ** 2) * np.float32(rng.uniform(0.1, 0.25))
    signal = canvas.image * np.exp(np.clip(bias, -0.4, 0.4) + depth - np.float32(0.12))
    real, imaginary = np.float32(NOISE) * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    return np.rint(np.hypot(signal + real, imaginary)).astype(np.float32)


def generate_case(seed: int, index: int, size: int = 192) -> Volume:
    """One case, the same for the same arguments, whatever was drawn before.

    Args:
        seed: Seed of the dataset, not negative.
        index: Number of the case, from 0.
        size: Height and width in pixels. The anatomy stays the same; pixels grow as their number falls.

    Returns:
        20 to 28 slices, first the lowest, of about 7.7 x 326 / size x 326 / size mm. The image holds whole numbers from
        0 to a little above 1,000 (float32), the labels hold the keys of `CLASSES`. The affine has no flip: columns and
        rows count up as they are displayed, with the liver on the left.
    """
    rng = np.random.default_rng([seed, index])
    slices = int(rng.integers(20, 29))
    thickness = 7.7 * (24 / slices) ** 0.5 * rng.uniform(0.97, 1.03)
    pixel = FIELD_OF_VIEW * rng.uniform(0.96, 1.06) / size
    # The field of view follows the patient, in height too: every scan shows the kidneys' lower poles and the lungs.
    zoom = rng.uniform((0.97, 0.98, 0.98), (1.03, 1.12, 1.08))
    covered = np.array([SCAN_LENGTH, FIELD_OF_VIEW, FIELD_OF_VIEW]) * zoom
    center = (14, 0, 0) + rng.uniform(-4, 4, 3)
    axes = [
        ((np.arange(n) + 0.5) / n - 0.5) * extent + middle
        for n, extent, middle in zip((slices, size, size), covered, center, strict=True)
    ]
    canvas = Canvas(rng, Space(rng, axes, edge=max(EDGE, FIELD_OF_VIEW / size)))
    for layer in (paint_torso, paint_chest, paint_back, paint_gut, paint_vessels):
        layer(canvas)
    labels = paint_organs(canvas)
    affine = np.diag([pixel, pixel, thickness, 1.0])
    return Volume(f"phantom_{index + 1:02d}", receive(canvas), labels, (thickness, pixel, pixel), affine)


class AbdomenPhantom:
    """Synthetic T2-weighted abdominal scans with liver, kidneys and spleen, made from a seed when asked for."""

    classes = CLASSES

    def __init__(
        self,
        *,
        seed: Annotated[int, Field(ge=0, description="seed of the dataset")] = 0,
        count: Annotated[int, Field(ge=1, description="number of cases")] = 20,
        size: Annotated[int, Field(ge=64, description="height and width in pixels")] = 192,
    ) -> None:
        self.seed, self.count, self.size = seed, count, size

    @property
    def supervoxel_min_size(self) -> int:
        """Some 33 ml, a quarter of a kidney; larger regions join organs to their surroundings."""
        return round(1500 * (self.size / 192) ** 2)

    @property
    def cache_key(self) -> str:
        """Stands for everything that a case depends on besides its id."""
        return f"abdomen_phantom-v{GENERATOR_VERSION}-seed{self.seed}-count{self.count}-size{self.size}"

    @property
    def cases(self) -> list[str]:
        """Ids, phantom_01 first."""
        return [f"phantom_{number:02d}" for number in range(1, self.count + 1)]

    def load(self, case: str) -> Volume:
        """Makes the scan of this case; raises DataError for an id that is not in `cases`."""
        if case not in self.cases:
            raise DataError(
                f"dataset abdomen_phantom: there is no case {case!r}, expected phantom_01 to {self.cases[-1]}; "
                "correct the id or raise dataset.count"
            )
        return generate_case(self.seed, self.cases.index(case), self.size)
