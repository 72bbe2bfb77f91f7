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

from fsseg.errors import DataError

Axis = Literal["auto", 0, 1, 2]
Orientation = Literal["canonical", "file"]

Axes = tuple[int, int, int]
"""Numbers of a file's axes."""

VoxelCounts = tuple[int, int, int]
"""Slices, height and width."""

Lengths = tuple[float, float, float]
"""Of a voxel along three axes, mm."""

PixelCounts = tuple[int, int]
"""Height and width of slices."""

Slices = Float[np.ndarray, "slice height width"]
LabelSlices = Integer[np.ndarray, "slice height width"]

ALIKE = 0.1
"""Voxel sizes that differ by no more than this share are taken as equal."""

MOST_PIXELS = 4096
"""A working grid has no more pixels along a side; more come of a mistake, and take all memory."""


@dataclass(frozen=True)
class FileGrid:
    """The way of a volume, slices first, from its file and back.

    Attributes:
        affine: Maps the file's voxel indices to mm in the scanner's space, as in NIfTI.
        axes: The file's axis along which slices, rows and columns are counted.
        flipped: Whether slices, rows and columns run against that axis.
        size: Slices, height and width of the file; the volume starts at its first voxel and may leave out the last
            ones. None if it has them all.

    Example:
        >>> grid = FileGrid(np.eye(4), axes=(2, 1, 0), flipped=(False, True, False))
        >>> stored = np.arange(24).reshape(2, 3, 4)
        >>> volume = grid.from_file(stored)
        >>> volume.shape
        (4, 3, 2)
        >>> bool((grid.to_file(volume) == stored).all())
        True
    """

    affine: Float[np.ndarray, "4 4"]
    axes: Axes = (2, 1, 0)
    flipped: tuple[bool, bool, bool] = (False, False, False)
    size: VoxelCounts | None = None

    @classmethod
    def of_spacing(cls, spacing: Lengths) -> "FileGrid":
        """Returns the grid of a volume that comes from no file, with this voxel size in mm along (slice, height, width)."""
        return cls(np.diag([*reversed(spacing), 1.0]))

    def from_file(self, voxels: np.ndarray) -> np.ndarray:
        """Returns the file's voxels, slices first."""
        slices_first = voxels.transpose(self.axes)
        return np.ascontiguousarray(np.flip(slices_first, self._flips))

    def to_file(self, volume: np.ndarray) -> np.ndarray:
        """Returns the volume's voxels as the file keeps them, 0 where the volume leaves some out."""
        slices, height, width = volume.shape
        size = self.size or volume.shape
        whole = np.zeros(size, dtype=volume.dtype)
        whole[:slices, :height, :width] = volume
        flipped = np.flip(whole, self._flips)
        order = np.argsort(self.axes)
        return np.ascontiguousarray(flipped.transpose(order))

    @property
    def _flips(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.flipped[axis])


def find_grid(
    affine: Float[np.ndarray, "4 4"],
    voxel_sizes: Lengths,
    *,
    axis: Axis = "auto",
    orientation: Orientation = "canonical",
) -> FileGrid:
    """Returns how a file is cut into slices.

    Args:
        affine: The file's affine.
        voxel_sizes: Voxel size along the file's three axes, mm.
        axis: The file's axis along which slices are counted; "auto" takes the most anisotropic one.
        orientation: "canonical" turns all scans the same way, whatever their files': columns run to the patient's left
            (or to the back, in sagittal slices), rows to the back (or down), slices upwards, forwards or to the right.
            "file" leaves rows and columns as stored.
    """
    across = anisotropic_axis(voxel_sizes) if axis == "auto" else axis
    first, second = (number for number in range(3) if number != across)
    if orientation == "file":
        return FileGrid(affine, axes=(across, second, first))
    world, direction = nibabel.io_orientation(affine).T
    width, height = sorted((first, second), key=lambda number: world[number])
    return FileGrid(
        affine,
        axes=(across, height, width),
        flipped=(
            bool(direction[across] < 0),
            bool(direction[height] > 0),
            bool(direction[width] > 0),
        ),
    )


def anisotropic_axis(voxel_sizes: Lengths) -> int:
    """Returns the axis whose voxel size differs most from those of the other two; the last one if they are alike."""
    logs = np.log(voxel_sizes)
    of_others = (logs.sum() - logs) / 2
    difference = np.abs(logs - of_others)
    if difference.max() <= ALIKE:
        return 2
    return int(difference.argmax())


@dataclass(frozen=True)
class WorkingGrid:
    """The pixels on which a scan's slices are segmented: resized, then cropped or padded about the centre.

    Attributes:
        own: Height and width of the scan's own slices.
        resized: Height and width after resizing.
        size: Height and width after cropping and padding.
    """

    own: PixelCounts
    resized: PixelCounts
    size: PixelCounts

    @property
    def is_own(self) -> bool:
        """True where the working grid is the scan's own and nothing changes."""
        return self.own == self.resized == self.size

    @property
    def area_ratio(self) -> float:
        """The number of the working grid's pixels for one of the scan's own."""
        height, width = self.resized
        own_height, own_width = self.own
        return height * width / (own_height * own_width)

    def pixel(self, spacing: Lengths) -> Lengths:
        """Returns the distance of neighbouring slices, rows and columns of the working grid, for the scan's own, mm."""
        between_slices, height, width = spacing
        own_height, own_width = self.own
        new_height, new_width = self.resized
        height = height * own_height / new_height
        width = width * own_width / new_width
        return between_slices, height, width

    def image(self, image: Slices) -> Float[np.ndarray, "slice h w"]:
        """Returns intensities on the working grid; what is padded has the volume's smallest value."""
        if self.is_own:
            return image
        import torch  # takes half a second and half a gigabyte, and most scans need no resizing
        import torch.nn.functional as F

        slices = torch.from_numpy(image.astype(np.float32))[None]
        [resized] = F.interpolate(slices, self.resized, mode="bilinear", antialias=True)
        return self._cut(resized.numpy(), float(image.min()))

    def labels(self, labels: LabelSlices) -> Integer[np.ndarray, "slice h w"]:
        """Returns label values (or region ids) on the working grid: those of the nearest pixels, 0 where padded."""
        if self.is_own:
            return labels
        height, width = self.own
        new_height, new_width = self.resized
        rows = _nearest(height, new_height)
        columns = _nearest(width, new_width)
        resized = labels[:, rows[:, None], columns]
        return self._cut(resized, 0.0)

    def positions(self, axis: int) -> Float[np.ndarray, "pixel"]:
        """Returns where the scan's own pixels lie on the working grid along an axis, as a share of its extent."""
        own = self.own[axis]
        resized = self.resized[axis]
        size = self.size[axis]
        centres = np.arange(own) + 0.5
        start = resized // 2 - size // 2
        return (centres * resized / own - start) / size

    def _cut(self, voxels: np.ndarray, fill: float) -> np.ndarray:
        """Crops and pads about the centre, which is the pixel at half the size, rounded down."""
        if self.resized == self.size:
            return voxels
        height, width = self.resized
        new_height, new_width = self.size
        shape = (len(voxels), new_height, new_width)
        cut = np.full(shape, fill, dtype=voxels.dtype)
        rows, to_rows = _overlap(height, new_height)
        columns, to_columns = _overlap(width, new_width)
        cut[:, to_rows, to_columns] = voxels[:, rows, columns]
        return cut


def _nearest(old: int, new: int) -> Integer[np.ndarray, "pixel"]:
    """For each of the new pixels along an axis, the old one whose centre is nearest."""
    centres = np.arange(new) + 0.5
    return (centres * old / new).astype(np.int64)


def _overlap(old: int, new: int) -> tuple[slice, slice]:
    """What of an axis stays when it is cropped or padded about its centre, and where it then is."""
    start = old // 2 - new // 2
    if start < 0:
        return slice(0, old), slice(-start, old - start)
    end = min(start + new, old)
    return slice(start, end), slice(0, end - start)


def working_grid(
    own: PixelCounts,
    pixel: tuple[float, float],
    *,
    spacing: float | None = None,
    size: int | None = None,
    max_size: int = 256,
) -> WorkingGrid:
    """Returns the working grid of slices of this size.

    Args:
        own: Height and width of the scan's own slices.
        pixel: Their pixel's height and width, mm.
        spacing: Pixel size to resize to, mm; without it, slices are only made smaller (see max_size).
        size: Height and width to crop or pad to.
        max_size: Without `spacing` and `size`, larger slices are resized to fit this, keeping their proportions.

    Raises:
        DataError: It would have more than `MOST_PIXELS` along a side.
    """
    height, width = own
    if spacing is not None:
        pixel_height, pixel_width = pixel
        reason = f"slices of {height * pixel_height:.4g} x {width * pixel_width:.4g} mm at grid.spacing = {spacing:g} mm"
        resized = _whole(height * pixel_height / spacing, width * pixel_width / spacing, reason)
    elif size is None and max(own) > max_size:
        longest = max(own)
        reason = f"slices of {height} x {width} pixels at grid.max_size = {max_size}"
        resized = _whole(height * max_size / longest, width * max_size / longest, reason)
    else:
        resized = _whole(height, width, f"slices of {height} x {width} pixels")
    if size is None:
        return WorkingGrid(own, resized, resized)
    return WorkingGrid(own, resized, _whole(size, size, f"grid.size = {size}"))


def _whole(height: float, width: float, reason: str) -> PixelCounts:
    """The nearest numbers of pixels, one at least; raises DataError for more than a working grid may have."""
    if not max(height, width) <= MOST_PIXELS:
        raise DataError(
            f"the working grid would have {height:.4g} x {width:.4g} pixels ({reason}), expected at most {MOST_PIXELS} a "
            "side; set grid.spacing, grid.max_size or grid.size so that it has less, or correct the voxel sizes of the file"
        )
    return max(1, round(height)), max(1, round(width))
