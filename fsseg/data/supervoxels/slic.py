"""Supervoxels by clustering (SLIC: Achanta et al., 2012; within a mask: Irving, 2016), as scikit-image has it.

Unlike those of `fsseg.data.supervoxels.felzenszwalb`, these regions are compact and of similar size, so that each covers
a part of an organ rather than the organ with what looks like it.
"""

from typing import Annotated

import numpy as np
from jaxtyping import Bool, Int32
from pydantic import Field

from fsseg.data.supervoxels.felzenszwalb import body_mask, scaled_image
from fsseg.data.supervoxels.regions import default_min_size
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.interfaces import Dataset
from fsseg.plugins.options import component


@component
class Slic:
    """Compact supervoxels of similar size, clustered by place (in mm) and intensity within the body.

    With several channels, the distance of intensities is the root of the mean of the squared differences.

    Reference: Achanta et al., SLIC superpixels (2012); within a mask: Irving (2016).
    """

    def __init__(
        self,
        *,
        count: Annotated[
            int | None,
            Field(
                gt=0,
                description="regions; when omitted, as many as give each the dataset's supervoxel size",
            ),
        ] = None,
        compactness: Annotated[
            float,
            Field(
                gt=0, description="larger values follow intensities less and give rounder regions"
            ),
        ] = 0.05,
        sigma: Annotated[float, Field(ge=0, description="Gaussian smoothing beforehand, mm")] = 0.0,
    ) -> None:
        self.count = count
        self.compactness = compactness
        self.sigma = sigma

    def __call__(self, volume: Volume, dataset: Dataset) -> Int32[np.ndarray, "slice height width"]:
        """Returns region ids from 1, 0 outside the body; raises DataError for an image without contrast.

        There are about `count` regions; those much smaller than the others join a neighbour.
        """
        try:
            from skimage.segmentation import slic
        except ImportError:
            raise DataError(
                "supervoxels slic: scikit-image is not installed; install fsseg[slic]"
            ) from None
        image = scaled_image(volume)
        body = body_mask(image)
        count = self.count or self._usual_count(body, default_min_size(volume, dataset))
        if count == 1:  # scikit-image takes its unit of length from the distances between seeds
            return body.astype(np.int32)
        pixel = volume.spacing[2]
        several = image.ndim == 4
        compactness = self.compactness
        if several:
            # scikit-image sums the squared differences of channels; their mean is what compactness is held against.
            compactness *= np.sqrt(image.shape[1])
            image = np.moveaxis(image, 1, -1)
        labels = slic(
            image,
            n_segments=count,
            compactness=compactness,
            sigma=[self.sigma / size for size in volume.spacing],
            # That unit is in voxels, so that only the ratio of the spacings is to be told.
            spacing=[size / pixel for size in volume.spacing],
            mask=body,
            channel_axis=-1 if several else None,
            convert2lab=False,  # three channels are no colours
            start_label=1,
        )
        return labels.astype(np.int32)

    @staticmethod
    def _usual_count(body: Bool[np.ndarray, "slice height width"], region_size: int) -> int:
        """The number of regions of this size, in voxels, that fill the body."""
        return max(1, round(int(body.sum()) / region_size))
