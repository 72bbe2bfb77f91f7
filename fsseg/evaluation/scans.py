"""Scans with their ground truth, as an evaluation uses them: on the working grid, intensities ruled, tensors made."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fsseg.data.facts import no_labels
from fsseg.data.grids import WorkingGrid
from fsseg.data.intensity import Scaling
from fsseg.data.volume import Volume
from fsseg.types import Query


@dataclass(frozen=True)
class EvaluationScan:
    """A scan with its ground truth.

    Attributes:
        case: The case's id.
        images: Slices after the backbone's intensity rule, on the working grid.
        location: Position of each slice, 0 is the first and 1 the last.
        labels: Class values on the working grid, for the support and for oracles.
        truth: Class values on the scan's own grid, where predictions are scored.
        working: The way from one grid to the other.
        spacing: Voxel size of the scan's own grid in mm along (slice, height, width).
    """

    case: str
    images: Float[Tensor, "slice *channel height width"]
    location: Float[Tensor, "slice"]
    labels: UInt8[Tensor, "slice height width"]
    truth: UInt8[Tensor, "slice own_height own_width"]
    working: WorkingGrid
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def query(self) -> Query:
        """The slices to segment, without the ground truth."""
        spacing = self.working.pixel(self.spacing)
        return Query(self.images, self.location, spacing)


def evaluation_scan(own: Volume, volume: Volume, scaling: Scaling) -> EvaluationScan:
    """The scan for evaluation.

    Args:
        own: The volume on its own grid.
        volume: The same on the working grid.
        scaling: What its intensity rule measured.

    Raises:
        DataError: The volume has no labels.
    """
    if own.labels is None or volume.labels is None:
        raise no_labels(own.case)
    _, height, width = own.shape
    size = (height, width)
    return EvaluationScan(
        case=own.case,
        images=torch.from_numpy(scaling.apply(volume.image, volume.case)),
        location=torch.linspace(0, 1, len(volume.image)),
        labels=torch.from_numpy(volume.labels),
        truth=torch.from_numpy(own.labels),
        working=volume.working or WorkingGrid(size, size, size),
        spacing=own.spacing,
    )
