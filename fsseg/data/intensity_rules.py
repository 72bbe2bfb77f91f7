"""The built-in intensity rules."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from fsseg.data.intensity import Images, Measured
from fsseg.errors import DataError
from fsseg.plugins.options import component

MOST_VOXELS = 2_000_000
"""Of a scan, at most so many evenly spread voxels count where percentiles are taken over several scans."""

SMALLEST = float(np.finfo(np.float64).tiny)
"""The unit of a scan that has one intensity alone."""

Volume = Float[np.ndarray, "slice height width"]
Statistics = Literal["dataset", "training"]


@component
class ZScore:
    """Zero mean and unit standard deviation over all voxels, air included, as ADNet, ALPNet and TPM scale.

    Attributes:
        statistics: "dataset": each scan is measured by itself, or the training scans together, as the dataset says.

    Example:
        >>> scaling = fsseg.data.intensity.measure(ZScore(), [np.array([[[1.0, 3.0]]])])
        >>> scaling.apply(np.array([[[1.0, 3.0]]])).tolist()
        [[[-1.0, 1.0]]]
    """

    statistics: ClassVar[Statistics] = "dataset"

    def __init__(self) -> None:
        pass

    def measure(self, images: Images) -> Measured:
        """Returns mean and standard deviation over all voxels of all images."""
        if len(images) == 1:
            values = images[0].astype(np.float64)
            return _linear(float(values.mean()), float(values.std()))
        count = 0
        total = 0.0
        for image in images:  # once: each may be read from disk
            count += image.size
            total += image.sum(dtype=np.float64)
        mean = total / count
        squares = 0
        for image in images:
            difference = image.astype(np.float64) - mean
            squares += (difference**2).sum()
        return _linear(float(mean), float(np.sqrt(squares / count)))

    def scale(self, image: Volume, measured: Measured) -> Volume:
        """Returns (image - subtract) / divide."""
        return _scaled(image, measured)


@component
class Percentile:
    """The 1st to the 99.5th percentile brought to [-1, 1] and clipped: what ImageNet networks take best.

    Attributes:
        statistics: "dataset": each scan is measured by itself, or the training scans together, as the dataset says.
    """

    statistics: ClassVar[Statistics] = "dataset"

    def __init__(
        self,
        *,
        lower: Annotated[
            float, Field(ge=0, le=100, description="percentile that becomes -1")
        ] = 1.0,
        upper: Annotated[
            float, Field(ge=0, le=100, description="percentile that becomes 1")
        ] = 99.5,
    ) -> None:
        _require_order("percentile", lower, upper)
        self.lower = lower
        self.upper = upper

    def measure(self, images: Images) -> Measured:
        """Returns the lower percentile, and the distance of the upper one; of several images over evenly spread voxels."""
        if len(images) == 1:
            voxels = images[0]
        else:
            voxels = np.concatenate([_evenly_spread(image) for image in images])
        low, high = np.percentile(voxels, [self.lower, self.upper])
        return _linear(float(low), float(high - low), bounded=True)

    def scale(self, image: Volume, measured: Measured) -> Volume:
        """Returns the image with 0 to 1 of (image - subtract) / divide brought to -1 to 1, and the rest clipped."""
        return _scaled(image, measured)


@component
class Window:
    """A fixed window brought to [-1, 1] and clipped, for units that mean something, as Hounsfield's do on CT.

    The default is the window of soft tissue in which the published experiments see abdominal CT.

    Attributes:
        statistics: "dataset", which says nothing here: nothing is measured.

    Example:
        >>> Window(lower=-100.0, upper=300.0).scale(np.array([[[-1000.0, 100.0, 300.0]]]), {}).tolist()
        [[[-1.0, 0.0, 1.0]]]
    """

    statistics: ClassVar[Statistics] = "dataset"

    def __init__(
        self,
        *,
        lower: Annotated[float, Field(description="intensity that becomes -1")] = -125.0,
        upper: Annotated[float, Field(description="intensity that becomes 1")] = 275.0,
    ) -> None:
        _require_order("window", lower, upper)
        self.lower = lower
        self.upper = upper

    def measure(self, images: Images) -> Measured:
        """Returns nothing, whatever the images."""
        return {}

    def scale(self, image: Volume, measured: Measured) -> Volume:
        """Returns the image with the window brought to -1 to 1, and the rest clipped."""
        return _scaled(image, _linear(self.lower, self.upper - self.lower, bounded=True))


@component
class Nyul:
    """Histogram standardisation: each scan's landmarks are moved to those of the training scans, linearly in between.

    Landmarks are percentiles of the foreground, which are the voxels above the scan's mean: the lowest and the highest,
    and evenly spread ones between them. In training each scan's landmarks are brought to [-1, 1], from the lowest to the
    highest, and averaged over the scans: the standard scale. A scan is then mapped piecewise linearly from its own
    landmarks to the standard ones; outside of them the first and the last piece go on. So the same tissue has about
    the same intensity in all scans of a modality, also where scanners differ.

    Reference: Nyul and Udupa, On standardizing the MR image intensity scale (1999); with several landmarks: Nyul, Udupa
    and Zhang, New variants of a method of MRI scale standardization (2000).

    Attributes:
        statistics: "training": the standard scale is learned from the training scans of a fold, whatever the dataset says.
    """

    statistics: ClassVar[Statistics] = "training"

    def __init__(
        self,
        *,
        lower: Annotated[
            float, Field(ge=0, le=100, description="percentile of the lowest landmark")
        ] = 1.0,
        upper: Annotated[
            float, Field(ge=0, le=100, description="percentile of the highest")
        ] = 99.0,
        between: Annotated[int, Field(ge=1, le=99, description="landmarks between these two")] = 9,
        foreground: Annotated[
            bool, Field(description="take percentiles of the voxels above the scan's mean alone")
        ] = True,
    ) -> None:
        _require_order("nyul", lower, upper)
        self.lower = lower
        self.upper = upper
        self.between = between
        self.foreground = foreground

    def measure(self, images: Images) -> Measured:
        """Returns the standard scale; raises DataError where no image has two intensities."""
        total = np.zeros(self.between + 2)
        count = 0
        for image in images:
            landmarks = self._landmarks(image)
            span = landmarks[-1] - landmarks[0]
            if span > 0:
                total += 2 * (landmarks - landmarks[0]) / span - 1
                count += 1
        if not count:
            raise DataError(
                "intensity nyul: none of the scans has two intensities besides its background, expected landmarks to learn "
                "from; look at the images, or set foreground to false"
            )
        standard = total / count
        return {"landmarks": standard.tolist()}

    def scale(self, image: Volume, measured: Measured) -> Volume:
        """Returns the image with its landmarks on the standard ones; an image of one intensity becomes the lowest."""
        standard = np.array(measured["landmarks"], dtype=np.float64)
        if standard.shape != (self.between + 2,) or (np.diff(standard) < 0).any():
            raise DataError(
                f"intensity nyul: the standard scale is {standard.tolist()}, expected {self.between + 2} ascending numbers"
            )
        own = self._landmarks(image)
        if not own[-1] > own[0]:
            return np.full(image.shape, standard[0])
        values = image.astype(np.float64)
        scaled = np.interp(values, own, standard)
        overall = (standard[-1] - standard[0]) / (own[-1] - own[0])
        below = _slope(own[:2], standard[:2], overall) * (values - own[0])
        above = _slope(own[-2:], standard[-2:], overall) * (values - own[-1])
        scaled += np.where(values < own[0], below, 0)
        scaled += np.where(values > own[-1], above, 0)
        return scaled

    def _landmarks(self, image: Volume) -> Float[np.ndarray, "landmark"]:
        """The landmarks of an image on its own scale, ascending."""
        values = image.ravel()
        if self.foreground:
            bright = values[values > values.mean(dtype=np.float64)]
            values = bright if bright.size else values
        percentiles = np.linspace(self.lower, self.upper, self.between + 2)
        return np.percentile(values.astype(np.float64), percentiles)


def _slope(
    own: Float[np.ndarray, "2"], standard: Float[np.ndarray, "2"], otherwise: float
) -> float:
    """The slope of a piece; that of the whole map where the piece has no length."""
    length = own[1] - own[0]
    return float((standard[1] - standard[0]) / length) if length > 0 else otherwise


def _linear(subtract: float, divide: float, bounded: bool = False) -> Measured:
    """The values of (image - subtract) / divide; bounded ones bring 0 to 1 of it to -1 to 1, and clip the rest."""
    return {"subtract": subtract, "divide": max(divide, SMALLEST), "bounded": bounded}


def _scaled(image: Volume, measured: Measured) -> Volume:
    divide = measured["divide"]
    if not divide > 0:
        raise DataError(f"divide is {divide:g}, expected more than 0")
    scaled = (image.astype(np.float64) - measured["subtract"]) / divide
    if measured["bounded"]:
        scaled = 2 * np.clip(scaled, 0, 1) - 1
    return scaled


def _evenly_spread(image: Volume) -> Float[np.ndarray, "voxel"]:
    every = 1 + image.size // MOST_VOXELS
    return image.ravel()[::every]


def _require_order(name: str, lower: float, upper: float) -> None:
    """Raises DataError unless the lower bound lies below the upper one."""
    if not lower < upper:
        raise DataError(
            f"intensity {name}: lower is {lower:g} and upper {upper:g}, expected lower below upper; exchange them"
        )
