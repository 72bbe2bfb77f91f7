"""Random networks as an augmentation of intensities (GIN)."""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from fsseg.plugins.options import component
from fsseg.training.drawn import SliceFacts

SIDE = 3
"""Height and width of a kernel; one of 1 x 1 is its middle alone."""

SMALLEST_NORM = 1e-6
"""Where the blended image is darker than this, it is divided by this."""

Image = Float[Tensor, "*channel height width"]
Masks = Bool[Tensor, "way height width"]


@component
class RandomNetwork:
    """GIN: a random shallow network that changes how an image looks and keeps its shapes.

    The network has convolutions of 1 x 1 or 3 x 3, each by a coin, with a leaky ReLU between two of them; weights and
    offsets are standard normal and drawn anew for each slice. With its output n(v) and a drawn uniformly from 0 to 1, the
    image v becomes `|v| u / |u|` for `u = a n(v) + (1 - a) v`, where |.| is the Frobenius norm, of all channels together.

    Weights are drawn on the host, and the convolutions are sums in single precision also where a GPU rounds those of
    networks, so a slice looks the same on every device, to round-off. At the border pixels are repeated.

    Reference: Ouyang et al., Causality-inspired single-source domain generalization for medical image segmentation
    (IEEE TMI, 2022), Sec. III-B; offsets and border are ours.
    """

    def __init__(
        self,
        *,
        layers: Annotated[int, Field(ge=1, le=16, description="convolutions")] = 4,
        channels: Annotated[int, Field(ge=1, le=16, description="channels between them")] = 2,
        slope: Annotated[
            float, Field(ge=0, le=1, description="of the leaky ReLU below zero")
        ] = 0.01,
    ) -> None:
        self.layers = layers
        self.channels = channels
        self.slope = slope

    def draw(self, rng: np.random.Generator, about: SliceFacts) -> Float[np.ndarray, "number"]:
        """Draws the blend, then the kernels and the offsets of each layer."""
        parts = [np.array([rng.uniform(0, 1)])]
        middle = np.zeros((SIDE, SIDE))
        middle[SIDE // 2, SIDE // 2] = 1
        for inputs, outputs in self._sizes(about.channels):
            kernels = rng.standard_normal((outputs, inputs, SIDE, SIDE))
            offsets = rng.standard_normal(outputs)
            is_one_pixel = rng.random() < 0.5
            if is_one_pixel:
                kernels = kernels * middle
            parts += [kernels.ravel(), offsets]
        return np.concatenate(parts)

    def _sizes(self, channels: int) -> list[tuple[int, int]]:
        """Input and output channels of each layer, for an image of so many channels."""
        widths = [channels, *[self.channels] * (self.layers - 1), channels]
        return list(zip(widths[:-1], widths[1:]))

    def __call__(
        self, image: Image, masks: Masks, numbers: Float[Tensor, "number"]
    ) -> tuple[Image, Masks]:
        """Blends the image with what the network makes of it."""
        height, width = image.shape[-2:]
        features = image.reshape(-1, height, width)
        blend = numbers[0]
        for number, (kernels, offsets) in enumerate(self._layers(len(features), numbers[1:])):
            if number:
                features = F.leaky_relu(features, self.slope)
            features = _convolved(features, kernels, offsets)
        changed = features.reshape(image.shape)
        mixed = blend * changed + (1 - blend) * image
        norm = torch.linalg.vector_norm(mixed).clamp(min=SMALLEST_NORM)
        return mixed * (torch.linalg.vector_norm(image) / norm), masks

    def _layers(self, channels: int, numbers: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The kernels and offsets of each layer."""
        start = 0
        for inputs, outputs in self._sizes(channels):
            end = start + outputs * inputs * SIDE**2
            yield numbers[start:end].view(outputs, inputs * SIDE**2), numbers[end : end + outputs]
            start = end + outputs


def _convolved(
    features: Float[Tensor, "input height width"],
    kernels: Float[Tensor, "output weight"],
    offsets: Float[Tensor, "output"],
) -> Float[Tensor, "output height width"]:
    """A convolution as one product of matrices."""
    height, width = features.shape[-2:]
    border = [SIDE // 2] * 4
    padded = F.pad(features[None], border, mode="replicate")
    [windows] = F.unfold(padded, SIDE)
    product = kernels @ windows + offsets[:, None]
    return product.view(-1, height, width)
