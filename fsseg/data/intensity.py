"""Intensity rules: how a volume's values are scaled before a backbone sees its slices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fsseg.errors import DataError

MOST_VOXELS = 2_000_000
"""Of a scan, at most so many evenly spread voxels count where percentiles are taken over several scans."""


@dataclass(frozen=True)
class Scaling:
    """What an intensity rule does to a scan: (image - subtract) / divide.

    Attributes:
        subtract: What becomes 0.
        divide: What is the unit.
        bounded: Whether 0 to 1 is then brought to -1 to 1, and the rest clipped.
    """

    subtract: float
    divide: float
    bounded: bool = False

    def apply(
        self, image: Float[np.ndarray, "slice height width"], case: str = ""
    ) -> Float[np.ndarray, "slice height width"]:
        """Returns the scaled image, in single precision.

        Args:
            image: The image.
            case: Its case, for messages.

        Raises:
            DataError: What a network would see is not finite: the image is not, or its intensities are too far apart.
        """
        divide = max(self.divide, np.finfo(np.float64).tiny)
        scaled = (image.astype(np.float64) - self.subtract) / divide
        if self.bounded:
            scaled = 2 * np.clip(scaled, 0, 1) - 1
        with np.errstate(over="ignore"):
            single = scaled.astype(np.float32)
        if not np.isfinite(single).all():
            raise DataError(
                f"case {case}: its scaled intensities are not finite (subtract {self.subtract:g}, divide by {self.divide:g}), "
                "expected numbers of single precision; repair the image, or clip it with [intensity] window in dataset.toml"
            )
        return single


Images = Sequence  # of arrays of three axes and any size; a checker of types would read a scan to see that


def zscore(images: Images) -> Scaling:
    """Returns the scaling to zero mean and unit standard deviation over all voxels, air included (ADNet, ALPNet and TPM)."""
    if len(images) == 1:
        values = images[0].astype(np.float64)
        return Scaling(float(values.mean()), float(values.std()))
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
    return Scaling(float(mean), float(np.sqrt(squares / count)))


def percentile(images: Images) -> Scaling:
    """Returns the scaling of the 1st to the 99.5th percentile to [-1, 1], clipped: what ImageNet networks take best."""
    if len(images) == 1:
        low, high = np.percentile(images[0], [1.0, 99.5])
    else:
        voxels = np.concatenate([_evenly_spread(image) for image in images])
        low, high = np.percentile(voxels, [1.0, 99.5])
    return Scaling(float(low), float(high - low), bounded=True)


def _evenly_spread(image: Float[np.ndarray, "_ _ _"]) -> Float[np.ndarray, "voxel"]:
    every = 1 + image.size // MOST_VOXELS
    return image.ravel()[::every]


RULES: dict[str, Callable[[Images], Scaling]] = {
    "zscore": zscore,
    "percentile": percentile,
}
"""The rules by the name that a backbone declares; each measures one scan, or the training scans of a fold together."""


def measure(rule: str, images: Images) -> Scaling:
    """Returns the scaling that a rule makes of these images; raises DataError for an unknown rule."""
    if rule not in RULES:
        known = ", ".join(RULES)
        raise DataError(
            f"intensity rule {rule!r}: the backbone asks for it, expected one of {known}"
        )
    return RULES[rule](images)
