"""Intensity rules: how a volume's values are scaled before a backbone sees its slices."""

import numpy as np
from jaxtyping import Float


def zscore(image: Float[np.ndarray, "slice height width"]) -> Float[np.ndarray, "slice height width"]:
    """Zero mean and unit standard deviation over all voxels, air included (ADNet, ALPNet and TPM)."""
    values = image.astype(np.float64)
    return ((values - values.mean()) / values.std()).astype(np.float32)


def percentile(image: Float[np.ndarray, "slice height width"]) -> Float[np.ndarray, "slice height width"]:
    """The 1st to the 99.5th percentile of the volume to [-1, 1], clipped: what ImageNet networks take best."""
    low, high = np.percentile(image, [1.0, 99.5])
    scaled = (image.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
    return (2 * np.clip(scaled, 0, 1) - 1).astype(np.float32)


RULES = {"zscore": zscore, "percentile": percentile}
"""The rules by the name that a backbone declares."""
