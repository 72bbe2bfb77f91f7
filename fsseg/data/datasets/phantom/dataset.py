"""The embedded dataset: abdominal scans made from a seed, so that everything can be tried without downloading anything.

A case looks schematically like an axial T2-weighted MR scan of the upper abdomen. It is painted from back to front: the
ellipsoids of `fsseg.data.datasets.phantom.anatomy` are varied per case, bent by one smooth random deformation and blended by their signed
distances; a bias field and Rician noise come last. No intensity gives an organ away, since other tissues share it;
shape, texture and place do. The anatomy is drawn independently of the pixel grid, so `size` changes the resolution only.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import UInt8
from numpy.random import Generator
from pydantic import Field
from scipy import ndimage

from fsseg.data.cache import cached, content_key
from fsseg.data.datasets.phantom import anatomy
from fsseg.data.datasets.phantom.anatomy import (
    COLON,
    CONTENTS,
    EDGE,
    FIELD_OF_VIEW,
    GALLBLADDER,
    HEART,
    LIVER_VEINS,
    MUSCLES,
    NOISE,
    ORGANS,
    PANCREAS,
    SCAN_LENGTH,
    SINUSES,
    SKIN,
    SPINE,
    STOMACH,
    VESSELS,
    WALL,
    Ellipsoid,
)  # fmt: skip
from fsseg.data.datasets.phantom.canvas import Array, Canvas, Space, smooth_noise
from fsseg.data.folds import FOLD_SCHEMES
from fsseg.data.grids import FileGrid
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.plugins.options import component

CLASSES = {1: "liver", 2: "right_kidney", 3: "left_kidney", 4: "spleen"}


def paint_torso(canvas: Canvas) -> None:
    """Fat with its strands, the muscular wall, visceral fat, ribs."""
    space, rng, level = canvas.space, canvas.rng, canvas.level
    strands = np.maximum(
        1 - np.abs(canvas.medium) / np.float32(0.25), 0
    )  # where the noise changes its sign
    thick = rng.uniform(0.97, 1.03)
    fat, visceral = (
        canvas.textured(name, medium=0.04, coarse=0.06) for name in ("fat", "visceral_fat")
    )
    canvas.paint(
        space.torso((SKIN[0] * thick, SKIN[1] * thick)), fat * (1 - np.float32(0.1) * strands)
    )
    canvas.paint(space.torso(WALL), canvas.textured("muscle", fine=0.07, medium=0.05))
    canvas.paint(canvas.cavity, visceral * (1 - np.float32(0.25) * strands))
    for angle in np.radians(np.arange(15, 360, 30)):
        center = np.array([np.cos(angle) * 127, np.sin(angle) * 88])
        for z in np.arange(-40, 130, 34) + rng.uniform(0, 34):
            rib = Ellipsoid(
                (*center, z),
                (10, 4.5, 8),
                turn=np.degrees(np.arctan2(-np.cos(angle), np.sin(angle))),
            )
            canvas.paint_shape(rib, level["cortical"])


def paint_back(canvas: Canvas) -> None:
    """Vertebrae with discs between them, the bright canal with the cord, paraspinal and psoas muscles."""
    rng, level = canvas.rng, canvas.level
    for muscle in MUSCLES:
        canvas.paint_shape(
            muscle.varied(rng, 2, 0.06, 4), canvas.textured("muscle", fine=0.09, medium=0.05)
        )
    disc = np.cos((canvas.space.z + rng.uniform(0, 34)) * np.float32(2 * np.pi / 34)) > 0.75
    marrow = np.where(
        disc, canvas.textured("disc", medium=0.05), canvas.textured("bone", fine=0.08)
    )
    paints = {
        "cortical": level["cortical"],
        "body": marrow,
        "arch": level["bone"],
        "process": level["cortical"],
    }
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
        loop = Ellipsoid(
            tuple(center), tuple(rng.uniform((16, 12, 12), (34, 21, 21))), *rng.uniform(-90, 90, 2)
        )
        paint_hollow(canvas, loop, inside)
    for part in COLON:
        paint_hollow(canvas, part.varied(rng, 6, 0.15, 10), inside)
    for part in PANCREAS:
        canvas.paint_shape(
            part.varied(rng, 4, 0.1, 8), canvas.textured("food", fine=0.08, medium=0.08)
        )
    full = rng.choice(["food", "fluid"])
    for part in STOMACH:
        stomach = part.varied(rng, 5, 0.1, 8)
        paint_hollow(canvas, stomach, inside, full)
        # Gas floats to the front of a patient who lies on the back.
        canvas.paint_shape(
            stomach.shrunk(4), canvas.level["gas"], canvas.space.union([stomach.moved((0, -26, 0))])
        )


def paint_hollow(
    canvas: Canvas, shape: Ellipsoid, within: Array, content: str | None = None
) -> None:
    """A wall of 3 mm and a content, drawn from `CONTENTS` unless it is given."""
    content = content or canvas.rng.choice(list(CONTENTS), p=list(CONTENTS.values()))
    canvas.paint_shape(shape, canvas.level["wall"], within)
    value = canvas.textured(content, medium=0.07, coarse=0.07) * np.float32(
        canvas.rng.uniform(0.85, 1.15)
    )
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
    distances = organ_distances(
        canvas, [gallbladder, spine, *(space.union([sinus]) for sinus in sinuses)]
    )
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
        canvas.paint(
            distance - 2.5, canvas.level["capsule"]
        )  # dark, as is the chemical shift at an organ's rim
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
            twigs = [
                Ellipsoid.between(middle, tuple(end + rng.uniform(-45, 45, 3)), 3.0)
                for _ in range(3)
            ]
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
    depth = ((space.x / SKIN[0]) ** 2 + (space.y / SKIN[1]) ** 2) * np.float32(
        rng.uniform(0.1, 0.25)
    )
    signal = canvas.image * np.exp(np.clip(bias, -0.4, 0.4) + depth - np.float32(0.12))
    real, imaginary = np.float32(NOISE) * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    return np.rint(np.hypot(signal + real, imaginary)).astype(np.float32)


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a case are.

    Attributes:
        spacing: Voxel size in mm along (slice, height, width).
        axes: Anatomical positions of the voxels along (slice, height, width), mm.
    """

    spacing: tuple[float, float, float]
    axes: tuple[np.ndarray, ...]

    @property
    def affine(self) -> np.ndarray:
        """Voxel indices (width, height, slice) to mm: columns run to the patient's left, rows to the back."""
        thickness, height, width = self.spacing
        return np.diag([-width, -height, thickness, 1.0])


def draw_geometry(rng: Generator, size: int) -> Geometry:
    """20 to 28 slices, first the lowest, of about 7.7 x 326 / size x 326 / size mm."""
    slices = int(rng.integers(20, 29))
    thickness = 7.7 * (24 / slices) ** 0.5 * rng.uniform(0.97, 1.03)
    pixel = FIELD_OF_VIEW * rng.uniform(0.96, 1.06) / size
    # The field of view follows the patient, in height too: every scan shows the kidneys' lower poles and the lungs.
    zoom = rng.uniform((0.97, 0.98, 0.98), (1.03, 1.12, 1.08))
    covered = np.array([SCAN_LENGTH, FIELD_OF_VIEW, FIELD_OF_VIEW]) * zoom
    center = (14, 0, 0) + rng.uniform(-4, 4, 3)
    axes = tuple(
        ((np.arange(n) + 0.5) / n - 0.5) * extent + middle
        for n, extent, middle in zip((slices, size, size), covered, center, strict=True)
    )
    return Geometry((thickness, pixel, pixel), axes)


def paint_case(
    rng: Generator, geometry: Geometry
) -> tuple[Array, UInt8[np.ndarray, "slice height width"]]:
    """Image and labels of a case."""
    edge = max(EDGE, FIELD_OF_VIEW / len(geometry.axes[2]))
    canvas = Canvas(rng, Space(rng, geometry.axes, edge=edge))
    for layer in (paint_torso, paint_chest, paint_back, paint_gut, paint_vessels):
        layer(canvas)
    labels = paint_organs(canvas)
    return receive(canvas), labels


def generate_case(seed: int, index: int, size: int = 192) -> Volume:
    """One case, the same for the same arguments, whatever was drawn before.

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
    return Volume(
        f"phantom_{index + 1:02d}", image, labels, geometry.spacing, FileGrid(geometry.affine)
    )


@component
class AbdomenPhantom:
    """Synthetic T2-weighted abdominal scans with liver, kidneys and spleen, made from a seed and then kept in the cache."""

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
        self.seed, self.count, self.size = seed, count, size

    @property
    def supervoxel_min_size(self) -> int:
        """Some 33 ml, a quarter of a kidney; larger regions join organs to their surroundings."""
        return round(1500 * (self.size / 192) ** 2)

    @property
    def cases(self) -> list[str]:
        """Ids, phantom_01 first."""
        return [f"phantom_{number:02d}" for number in range(1, self.count + 1)]

    def load(self, case: str) -> Volume:
        """The scan of this case; raises DataError for an id that is not in `cases`."""
        if case not in self.cases:
            raise DataError(
                f"dataset abdomen_phantom: there is no case {case!r}, expected phantom_01 to {self.cases[-1]}; "
                "correct the id or raise dataset.count"
            )
        index = self.cases.index(case)
        both = cached("phantom", self.fingerprint(case), lambda: self._make(index))
        image, labels = both[0].astype(np.float32), both[1].astype(np.uint8)
        geometry = draw_geometry(np.random.default_rng([self.seed, index]), self.size)
        return Volume(case, image, labels, geometry.spacing, FileGrid(geometry.affine))

    def fingerprint(self, case: str) -> str:
        """What the case is made from."""
        return content_key(_source(), self.seed, self.cases.index(case), self.size)

    def _make(self, index: int) -> np.ndarray:
        """Image and labels as one array; they are whole numbers, so nothing is lost."""
        volume = generate_case(self.seed, index, self.size)
        return np.stack([volume.image, volume.labels]).astype(np.int16)


def _source() -> list[bytes]:
    """The generator's own source: a change to it makes new cases."""
    folder = Path(anatomy.__file__).parent
    return [(folder / name).read_bytes() for name in ("anatomy.py", "canvas.py", "dataset.py")]
