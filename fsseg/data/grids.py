"""Where voxels are: a volume's place in its file, and the working grid on which its slices are segmented.

Files keep their axes in any order and direction. Inside fsseg slices come first, then rows, then columns; and slices are
as large as a network should see them. Both changes are values here, with the way there and the way back, so that
predictions return to the scan's own grid.
"""

from dataclasses import dataclass
from typing import Literal

import nibabel
import numpy as np
from jaxtyping import Float, Integer

Axis = Literal["auto", 0, 1, 2]
Orientation = Literal["canonical", "file"]

ALIKE = 0.1
"""Voxel sizes that differ by no more than this share are taken as equal."""


@dataclass(frozen=True)
class FileGrid:
    """How a volume, slices first, lies in its file.

    Attributes:
        affine: Maps the file's voxel indices to mm in the scanner's space, as in NIfTI.
        axes: The file's axis along which slices, rows and columns are counted.
        flipped: Whether slices, rows and columns run against that axis.
        size: Slices, height and width of the file; the volume starts at its first voxel and may leave out the last
            ones. None if it has them all.
    """

    affine: Float[np.ndarray, "4 4"]
    axes: tuple[int, int, int] = (2, 1, 0)
    flipped: tuple[bool, bool, bool] = (False, False, False)
    size: tuple[int, int, int] | None = None

    @classmethod
    def of_spacing(cls, spacing: tuple[float, float, float]) -> "FileGrid":
        """The grid of a volume that comes from no file, with this voxel size in mm along (slice, height, width)."""
        return cls(np.diag([*reversed(spacing), 1.0]))

    def from_file(self, voxels: np.ndarray) -> np.ndarray:
        """The file's voxels, slices first."""
        return np.ascontiguousarray(np.flip(voxels.transpose(self.axes), self._flips))

    def to_file(self, volume: np.ndarray) -> np.ndarray:
        """The volume's voxels as the file keeps them, 0 where the volume leaves some out."""
        whole = np.zeros(self.size or volume.shape, dtype=volume.dtype)
        whole[tuple(slice(length) for length in volume.shape)] = volume
        return np.ascontiguousarray(np.flip(whole, self._flips).transpose(np.argsort(self.axes)))

    @property
    def _flips(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.flipped[axis])


def find_grid(
    affine: Float[np.ndarray, "4 4"],
    voxel_sizes: tuple[float, float, float],
    *,
    axis: Axis = "auto",
    orientation: Orientation = "canonical",
) -> FileGrid:
    """How a file is cut into slices.

    Args:
        affine: The file's affine.
        voxel_sizes: Voxel size along the file's three axes, mm.
        axis: The file's axis along which slices are counted; "auto" takes the most anisotropic one.
        orientation: "canonical" turns all scans the same way, whatever their files': columns run to the patient's left
            (or to the back, in sagittal slices), rows to the back (or down), slices upwards, forwards or to the right.
            "file" leaves rows and columns as stored.
    """
    across = anisotropic_axis(voxel_sizes) if axis == "auto" else axis
    in_plane = [number for number in range(3) if number != across]
    if orientation == "file":
        return FileGrid(affine, (across, in_plane[1], in_plane[0]))
    world, sign = nibabel.io_orientation(affine).T
    width, height = sorted(in_plane, key=lambda number: world[number])
    return FileGrid(
        affine,
        (across, height, width),
        (bool(sign[across] < 0), bool(sign[height] > 0), bool(sign[width] > 0)),
    )


def anisotropic_axis(voxel_sizes: tuple[float, float, float]) -> int:
    """The axis whose voxel size differs most from those of the other two; the last one if they are alike."""
    logs = np.log(voxel_sizes)
    odd = np.abs(logs - (logs.sum() - logs) / 2)
    return int(odd.argmax()) if odd.max() > ALIKE else 2


@dataclass(frozen=True)
class WorkingGrid:
    """The pixels on which a scan's slices are segmented: resized, then cropped or padded about the centre.

    Attributes:
        own: Height and width of the scan's own slices.
        resized: Height and width after resizing.
        size: Height and width after cropping and padding.
    """

    own: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]

    @property
    def is_own(self) -> bool:
        """Whether nothing changes."""
        return self.own == self.resized == self.size

    @property
    def area_ratio(self) -> float:
        """Pixels of the working grid for one of the scan's own."""
        return self.resized[0] * self.resized[1] / (self.own[0] * self.own[1])

    def pixel(self, spacing: tuple[float, float, float]) -> tuple[float, float, float]:
        """Distance of neighbouring slices, rows and columns of the working grid, for the scan's own, mm."""
        height, width = (
            mm * old / new for mm, old, new in zip(spacing[1:], self.own, self.resized)
        )
        return spacing[0], height, width

    def image(
        self, image: Float[np.ndarray, "slice height width"]
    ) -> Float[np.ndarray, "slice h w"]:
        """Intensities on the working grid; what is padded has the volume's smallest value."""
        if self.is_own:
            return image
        import torch  # takes half a second and half a gigabyte, and most scans need no resizing
        import torch.nn.functional as F

        resized = F.interpolate(
            torch.from_numpy(image.astype(np.float32))[None],
            size=self.resized,
            mode="bilinear",
            antialias=True,
        )[0]
        return self._cut(resized.numpy(), float(image.min()))

    def labels(
        self, labels: Integer[np.ndarray, "slice height width"]
    ) -> Integer[np.ndarray, "slice h w"]:
        """Label values (or region ids) on the working grid: those of the nearest pixels, 0 where padded."""
        if self.is_own:
            return labels
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.int64)
            for old, new in zip(self.own, self.resized)
        )
        return self._cut(labels[:, rows[:, None], columns], 0.0)

    def positions(self, axis: int) -> Float[np.ndarray, "pixel"]:
        """Where the scan's own pixels lie on the working grid along an axis, as a share of its extent."""
        own, resized, size = self.own[axis], self.resized[axis], self.size[axis]
        return ((np.arange(own) + 0.5) * resized / own - (resized // 2 - size // 2)) / size

    def _cut(self, voxels: np.ndarray, fill: float) -> np.ndarray:
        """Crops and pads about the centre, which is the pixel at half the size, rounded down."""
        if self.resized == self.size:
            return voxels
        cut = np.full((len(voxels), *self.size), fill, dtype=voxels.dtype)
        starts = [old // 2 - new // 2 for old, new in zip(self.resized, self.size)]
        source = tuple(slice(max(0, a), a + new) for a, new in zip(starts, self.size))
        kept = voxels[:, source[0], source[1]]
        top, left = (max(0, -a) for a in starts)
        cut[:, top : top + kept.shape[1], left : left + kept.shape[2]] = kept
        return cut


def working_grid(
    own: tuple[int, int],
    pixel: tuple[float, float],
    *,
    spacing: float | None = None,
    size: int | None = None,
    max_size: int = 256,
) -> WorkingGrid:
    """The working grid of slices of this size.

    Args:
        own: Height and width of the scan's own slices.
        pixel: Their pixel's height and width, mm.
        spacing: Pixel size to resize to, mm; without it, slices are only made smaller (see max_size).
        size: Height and width to crop or pad to.
        max_size: Without `spacing` and `size`, larger slices are resized to fit this, keeping their proportions.
    """
    resized = own
    if spacing is not None:
        resized = tuple(max(1, round(length * mm / spacing)) for length, mm in zip(own, pixel))
    elif size is None and max(own) > max_size:
        resized = tuple(max(1, round(length * max_size / max(own))) for length in own)
    return WorkingGrid(own, resized, resized if size is None else (size, size))
