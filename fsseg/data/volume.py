"""Scans before they are tensors: the value that datasets give, and its way to the working grid.

Nothing here loads torch, so that worker processes which only read and cut scans stay small.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from fsseg.data.grids import FileGrid, WorkingGrid, working_grid
from fsseg.errors import DataError


@dataclass(frozen=True)
class Volume:
    """One scan as a dataset gives it, slices first.

    Attributes:
        case: The case's id, unique in its dataset.
        image: Intensities as stored (a backbone's intensity rule is applied later), `slice height width`; of a scan with
            several channels `slice channel height width`.
        labels: Class values, 0 is background, those of a dataset in uint8; None for a scan without ground truth.
        spacing: Voxel size in mm along (slice, height, width).
        grid: How these voxels lie in the scan's file.
        working: How the slices were resized from the scan's own; None on its own grid.
        channels: Names of the channels, where there are several.

    Example:
        A made-up scan of 30 slices, 7.7 mm apart:

        >>> spacing = (7.7, 1.25, 1.25)
        >>> image = np.zeros((30, 256, 256), dtype=np.float32)
        >>> volume = Volume("1", image, None, spacing, FileGrid.of_spacing(spacing))
        >>> volume.grid.affine.diagonal().tolist()
        [1.25, 1.25, 7.7, 1.0]
    """

    case: str
    image: Float[np.ndarray, "slice *channel height width"]
    labels: Integer[np.ndarray, "slice height width"] | None
    spacing: tuple[float, float, float]
    grid: FileGrid
    working: WorkingGrid | None = None
    channels: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Its numbers of slices, rows and columns."""
        height, width = self.image.shape[-2:]
        return len(self.image), height, width

    @property
    def by_channel(self) -> list[Float[np.ndarray, "slice height width"]]:
        """The image of each channel; of a scan with one, the image."""
        return channels_of(self.image)

    @property
    def marked(self) -> Integer[np.ndarray, "slice height width"]:
        """The labels; raises DataError for a scan that has none."""
        if self.labels is None:
            raise DataError(
                f"case {self.case}: it has no labels, expected them; add its label file"
            )
        return self.labels


def channels_of(
    image: Float[np.ndarray, "slice *channel height width"],
) -> list[Float[np.ndarray, "slice height width"]]:
    """Returns the channels of an image, one by one; of an image without an axis of them, itself."""
    if image.ndim == 3:
        return [image]
    return [image[:, channel] for channel in range(image.shape[1])]


def on_working_grid(volume: Volume, options: dict[str, Any]) -> Volume:
    """Returns the volume with its slices on the working grid; itself where nothing changes.

    Args:
        volume: A scan on its own grid.
        options: Those of `fsseg.data.grids.working_grid`.

    Raises:
        DataError: The working grid would be too large.
    """
    _, height, width = volume.shape
    _, row, column = volume.spacing
    try:
        working = working_grid((height, width), (row, column), **options)
    except DataError as error:
        raise DataError(f"case {volume.case}: {error}") from None
    if working.is_own:
        return volume
    labels = None if volume.labels is None else working.labels(volume.labels)
    return replace(
        volume,
        image=_on_grid(working, volume.image),
        labels=labels,
        spacing=working.pixel(volume.spacing),
        working=working,
    )


def _on_grid(
    working: WorkingGrid, image: Float[np.ndarray, "slice *channel height width"]
) -> Float[np.ndarray, "slice *channel h w"]:
    """Every channel on the working grid; what is padded has the channel's own smallest value."""
    if image.ndim == 3:
        return working.image(image)
    channels = [working.image(channel) for channel in channels_of(image)]
    return np.stack(channels, axis=1)
