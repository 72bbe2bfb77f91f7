"""An intensity rule in one file: the body's median becomes 0, and the distance of its quartiles 1.

fsseg run recipes/tpm_mp5_linest.toml --plugin docs/examples/robust_intensity.py --set intensity.name=robust
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from fsseg import component, hookimpl


@component
class Robust:
    """Median and quartiles of what is brighter than air: a few very bright voxels change nothing."""

    statistics = "dataset"  # measured on each scan, or on the training scans, as the dataset says

    def __init__(
        self, *, air: Annotated[float, Field(ge=0, description="air is below so many means")] = 0.5
    ) -> None:
        self.air = air

    def measure(self, images):
        body = np.concatenate([image[image > self.air * image.mean()] for image in images])
        low, middle, high = np.percentile(body, [25, 50, 75])
        return {"middle": float(middle), "unit": float(max(high - low, 1e-6))}

    def scale(self, image, measured):
        return (image - measured["middle"]) / measured["unit"]


@hookimpl
def register_intensities(register):
    register("robust", Robust)
