"""A whole segmenter in one file, without prototypes: foreground is what is as bright as the labelled organ.

fsseg run recipes/tpm_mp5_linest.toml --plugin docs/examples/brightness_segmenter.py \\
    --set 'variants=[{name="brightness", segmenter="brightness", threshold="lin_est"}]'
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from fsseg import component, hookimpl


@component
class Brightness:
    """Log-odds of a Gaussian of the organ's brightness against that of all else, blurred over some pixels."""

    def __init__(
        self, *, blur: Annotated[int, Field(ge=0, description="pixels around each")] = 2
    ) -> None:
        self.blur = blur

    def __call__(self, support, query):
        logits = [torch.zeros_like(query.images)]  # the background's
        for images, masks in zip(support.images, support.masks):  # of each way
            inside, outside = (self._log(query.images, images[at]) for at in (masks, ~masks))
            logits.append(inside - outside)
        return F.avg_pool2d(torch.stack(logits, dim=1), 2 * self.blur + 1, 1, self.blur)

    def _log(self, images, shown):
        spread = shown.std(unbiased=False).clamp(min=1e-3)
        return -(((images - shown.mean()) / spread).square() / 2 + spread.log())


@hookimpl
def register_segmenters(register):
    register("brightness", Brightness)
