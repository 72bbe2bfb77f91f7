"""An augmentation of one's own: contrast at random, which makes a network look less at how bright things are.

    uv run fsseg run recipes/tpm_mp5_linest.toml --plugin docs/examples/random_contrast.py \
        --set 'episodes.augmentations=["gamma", "warp", {name="random_contrast", slices="both"}]'
"""

from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field

from fsseg import component, hookimpl


@component
class RandomContrast:
    """Intensities move away from their mean, or towards it, by a factor that is drawn for each slice."""

    def __init__(
        self, *, most: Annotated[float, Field(ge=1, description="largest factor")] = 3.0
    ) -> None:
        self.most = most

    def draw(self, rng: np.random.Generator, about) -> Float[np.ndarray, "number"]:
        return np.array([self.most ** rng.uniform(-1, 1)])

    def __call__(self, image, masks, numbers):
        mean = image.mean(dim=(-2, -1), keepdim=True)
        return mean + numbers[0] * (image - mean), masks


@hookimpl
def register_augmentations(register):
    register("random_contrast", RandomContrast)
