"""The phantom's tissues, painted from back to front; each function paints some of them and varies them per case."""

from typing import Any

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from fsseg.data.datasets.phantom.anatomy import (
    COLON,
    GALLBLADDER,
    HEART,
    LEFT_KIDNEY,
    LIVER,
    LIVER_VEINS,
    MUSCLES,
    ORGANS,
    PANCREAS,
    RIGHT_KIDNEY,
    SINUSES,
    SKIN,
    SPINE,
    SPLEEN,
    STOMACH,
    VESSELS,
    WALL,
    VeinTree,
)
from fsseg.data.datasets.phantom.canvas import Array, Canvas, smooth_noise
from fsseg.data.datasets.phantom.shapes import Ellipsoid, Point
from fsseg.data.datasets.phantom.tissues import CONTENTS, NOISE

BETWEEN_RIBS = 34
BETWEEN_DISCS = 34
"""Distances from one to the next along z, mm."""


def paint_torso(canvas: Canvas) -> None:
    """Paints fat with its strands, the muscular wall, visceral fat and ribs."""
    space = canvas.space
    # Strands run where the noise changes its sign.
    from_change = np.abs(canvas.noise["medium"])
    strands = np.maximum(1 - from_change / np.float32(0.25), 0)
    thick = canvas.rng.uniform(0.97, 1.03)
    width, height = SKIN
    fat = canvas.textured("fat", medium=0.04, coarse=0.06)
    visceral_fat = canvas.textured("visceral_fat", medium=0.04, coarse=0.06)
    muscle = canvas.textured("muscle", fine=0.07, medium=0.05)
    skin = space.torso((width * thick, height * thick))
    wall = space.torso(WALL)
    canvas.paint(skin, fat * (1 - np.float32(0.1) * strands))
    canvas.paint(wall, muscle)
    canvas.paint(canvas.cavity, visceral_fat * (1 - np.float32(0.25) * strands))
    angles = np.arange(15, 360, 30)
    for angle in np.radians(angles):
        paint_ribs(canvas, angle)


def paint_ribs(canvas: Canvas, angle: float) -> None:
    """Paints the ribs that cross the torso's wall at an angle, radians."""
    cos = np.cos(angle)
    sin = np.sin(angle)
    turn = np.degrees(np.arctan2(-cos, sin))
    heights = np.arange(-40, 130, BETWEEN_RIBS)
    for z in heights + canvas.rng.uniform(0, BETWEEN_RIBS):
        rib = Ellipsoid(
            center=(cos * 127, sin * 88, z),
            radii=(10, 4.5, 8),
            turn=turn,
        )
        canvas.paint_shape(rib, canvas.level["cortical"])


def paint_back(canvas: Canvas) -> None:
    """Paints vertebrae with discs between them, the bright canal with the cord, paraspinal and psoas muscles."""
    rng = canvas.rng
    level = canvas.level
    for muscle in MUSCLES:
        texture = canvas.textured("muscle", fine=0.09, medium=0.05)
        canvas.paint_shape(canvas.vary(muscle, "muscle"), texture)
    height = canvas.space.z + rng.uniform(0, BETWEEN_DISCS)
    turn = 2 * np.pi
    turns_per_mm = np.float32(turn / BETWEEN_DISCS)
    is_disc = np.cos(height * turns_per_mm) > 0.75
    disc = canvas.textured("disc", medium=0.05)
    bone = canvas.textured("bone", fine=0.08)
    values: dict[str, Any] = {
        "cortical": level["cortical"],
        "body": np.where(is_disc, disc, bone),
        "arch": level["bone"],
        "process": level["cortical"],
        "canal": level["csf"],
        "cord": level["cord"],
    }
    for part, value in values.items():
        canvas.paint_shape(SPINE[part], value)


def paint_chest(canvas: Canvas) -> None:
    """Paints lungs above the diaphragm, and the lower side of the heart."""
    inside = canvas.cavity
    diaphragm = canvas.space.diaphragm()
    lung = np.maximum(inside, -diaphragm)
    canvas.paint(lung, canvas.textured("lung", fine=0.3))
    heart = canvas.vary(HEART, "heart")
    canvas.paint_shape(heart, canvas.level["wall"], inside)
    blood = canvas.textured("heart", coarse=0.3)
    canvas.paint_shape(heart.shrunk(9), blood, inside)


def paint_gut(canvas: Canvas) -> None:
    """Paints loops of small bowel, colon, pancreas and stomach; all but the pancreas have a wall and some content."""
    rng = canvas.rng
    inside = canvas.cavity + 3
    for _ in range(64):
        loop = _draw_loop(canvas)
        paint_hollow(canvas, loop, inside, draw_content(canvas))
    for part in COLON:
        colon = canvas.vary(part, "colon")
        paint_hollow(canvas, colon, inside, draw_content(canvas))
    for part in PANCREAS:
        pancreas = canvas.vary(part, "pancreas")
        tissue = canvas.textured("food", fine=0.08, medium=0.08)
        canvas.paint_shape(pancreas, tissue)
    content = rng.choice(["food", "fluid"])
    for part in STOMACH:
        stomach = canvas.vary(part, "stomach")
        paint_hollow(canvas, stomach, inside, content)
        # Gas floats to the front of a patient who lies on the back.
        in_front = stomach.moved((0, -26, 0))
        gas = canvas.level["gas"]
        front = canvas.space.union([in_front])
        canvas.paint_shape(stomach.shrunk(4), gas, front)


def _draw_loop(canvas: Canvas) -> Ellipsoid:
    """A loop of small bowel, anywhere below the stomach."""
    rng = canvas.rng
    center = rng.uniform(
        (-92, -66, -125),
        (92, 12, 30),
    )
    radii = rng.uniform(
        (16, 12, 12),
        (34, 21, 21),
    )
    turn, tilt = rng.uniform(-90, 90, 2)
    return Ellipsoid(tuple(center), tuple(radii), turn, tilt)


def draw_content(canvas: Canvas) -> str:
    """Draws what fills a loop of bowel."""
    contents = list(CONTENTS)
    probabilities = list(CONTENTS.values())
    return canvas.rng.choice(contents, p=probabilities)


def paint_hollow(canvas: Canvas, shape: Ellipsoid, within: Array, content: str) -> None:
    """Paints a wall of 3 mm and a content, as far as the distance `within` is negative."""
    canvas.paint_shape(shape, canvas.level["wall"], within)
    value = canvas.textured(content, medium=0.07, coarse=0.07)
    brightness = canvas.rng.uniform(0.85, 1.15)
    value = value * np.float32(brightness)
    canvas.paint_shape(shape.shrunk(3), value, within + 3)


def paint_vessels(canvas: Canvas) -> None:
    """Paints the aorta and the vena cava with their walls."""
    for name, part in VESSELS.items():
        vessel = canvas.vary(part, "vessel")
        canvas.paint_shape(vessel, canvas.level["wall"])
        canvas.paint_shape(vessel.shrunk(1.5), canvas.level[name])


def paint_organs(canvas: Canvas) -> UInt8[np.ndarray, "slice height width"]:
    """Paints the gallbladder, the four organs with their textures and the liver's vessels; returns the label map."""
    space = canvas.space
    bladder = canvas.vary(GALLBLADDER, "gallbladder")
    gallbladder = space.union([bladder])
    sinuses = [canvas.vary(sinus, "sinus") for sinus in SINUSES]
    paraspinal = MUSCLES[:2]
    back = [SPINE["cortical"], *paraspinal, *VESSELS.values()]
    obstacles = [gallbladder, space.union(back, blend=1.0)]
    for sinus in sinuses:
        obstacles.append(space.union([sinus]))
    distances = organ_distances(canvas, obstacles)

    canvas.paint(gallbladder, canvas.level["gallbladder"])
    for sinus in sinuses:
        canvas.paint_shape(sinus, canvas.level["fat"])
        canvas.paint_shape(sinus.shrunk(4.5), canvas.level["pelvis"])
    liver = canvas.textured("liver", fine=0.025, coarse=0.03)
    spleen = canvas.textured("spleen", fine=0.06)
    values = {
        LIVER: liver,
        RIGHT_KIDNEY: kidney_value(canvas, distances[RIGHT_KIDNEY]),
        LEFT_KIDNEY: kidney_value(canvas, distances[LEFT_KIDNEY]),
        SPLEEN: spleen,
    }
    labels = np.zeros(canvas.image.shape, np.uint8)
    for organ, distance in distances.items():
        # Dark, as is the chemical shift at an organ's rim.
        canvas.paint(distance - 2.5, canvas.level["capsule"])
        canvas.paint(distance, values[organ])
        labels[distance < 0] = organ
    deep_in_liver = distances[LIVER] + 3
    for name, tree in LIVER_VEINS.items():
        paint_veins(canvas, tree, canvas.level[name], deep_in_liver)
    return labels


def organ_distances(canvas: Canvas, obstacles: list[Array]) -> dict[int, Array]:
    """Returns the signed distance of each organ, mm.

    They keep clear of the obstacles and of each other, and stay in the abdomen.
    """
    space = canvas.space
    abdomen = np.maximum(canvas.cavity, space.diaphragm())
    around = abdomen + 2
    distances: dict[int, Array] = {}
    for organ in (RIGHT_KIDNEY, LEFT_KIDNEY, LIVER, SPLEEN):  # the first keep their place
        parts = _organ_parts(canvas, organ)
        others = [*obstacles, *distances.values()]
        keep_clear = [2.5 - other for other in others]
        limits = [space.union(parts), around, *keep_clear]
        distances[organ] = _one_piece(np.maximum.reduce(limits))
    return distances


def _organ_parts(canvas: Canvas, organ: int) -> list[Ellipsoid]:
    """The ellipsoids of an organ, varied a little each, and moved and grown together."""
    rng = canvas.rng
    place = tuple(rng.uniform(-5, 5, 3))
    growth = rng.uniform(0.93, 1.07)
    parts: list[Ellipsoid] = []
    for part in ORGANS[organ]:
        varied = canvas.vary(part, "organ")
        parts.append(varied.moved(place).grown(growth))
    return parts


def _one_piece(distance: Array) -> Array:
    """The shape without pieces that cutting has split off."""
    pieces, count = ndimage.label(distance < 0)
    if count > 1:
        sizes = np.bincount(pieces.ravel())[1:]
        largest = 1 + np.argmax(sizes)
        distance[(pieces > 0) & (pieces != largest)] = 1.0
    return distance


def kidney_value(canvas: Canvas, distance: Array) -> Array:
    """Returns a darker cortex of some 6 mm and, below it, columns of it between brighter pyramids."""
    level = canvas.level
    depth = np.clip((-distance - 5) / 3, 0, 1)
    columns = canvas.noise["medium"]
    pyramids = np.clip(0.75 + columns * 1.5, 0, 1)
    cortex = canvas.textured("cortex", fine=0.03)
    brighter = np.float32(level["medulla"] - level["cortex"])
    return cortex + depth * pyramids * brighter


def paint_veins(canvas: Canvas, tree: VeinTree, level: float, liver: Array) -> None:
    """Paints some of the liver's veins, each with three twigs, where the distance `liver` is negative."""
    for end in tree.ends:
        tip = _near(canvas, end, 10)
        middle = tuple(np.add(tree.hub, tip) / 2)
        veins = [Ellipsoid.between(tree.hub, tip, radius=4.5)]
        for _ in range(3):
            twig = Ellipsoid.between(middle, _near(canvas, tip, 45), radius=3.0)
            veins.append(twig)
        for vein in veins:
            canvas.paint_shape(vein, level, liver)


def _near(canvas: Canvas, place: Point, by: float) -> Point:
    """A place that is off by up to so many mm along each axis."""
    return tuple(place + canvas.rng.uniform(-by, by, 3))


def receive(canvas: Canvas) -> Array:
    """Returns the scan as stored: with a coil's bias field and Rician noise, in whole numbers."""
    space = canvas.space
    rng = canvas.rng
    width, height = SKIN
    bias = 0.17 * smooth_noise(rng, space.axes, (110, 85, 85))
    bias = np.clip(bias, -0.4, 0.4)
    across = (space.x / width) ** 2
    down = (space.y / height) ** 2
    depth = (across + down) * np.float32(rng.uniform(0.1, 0.25))
    signal = canvas.image * np.exp(bias + depth - np.float32(0.12))
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    real, imaginary = np.float32(NOISE) * noise
    magnitude = np.hypot(signal + real, imaginary)
    return np.rint(magnitude).astype(np.float32)
