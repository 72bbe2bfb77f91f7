"""Otsu's threshold on the query's own margins."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fsseg import Evidence, component


@component
class Otsu:
    """Splits the margins of each query slice into two groups with the largest variance between them (Otsu, 1979).

    The margin is the foreground's logit minus the background's; the split is where the prior puts the boundary. It
    looks at the query alone: no calibration, no ground truth.
    """

    oracle: ClassVar[bool] = False

    def __init__(
        self, *, bins: Annotated[int, Field(ge=2, description="bins of the histogram")] = 256
    ) -> None:
        self.bins = bins

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        return torch.stack([-self._split(values) for values in evidence.margin.float().flatten(1)])

    def _split(self, values: Float[Tensor, "pixel"]) -> Float[Tensor, ""]:
        """The upper edge of the last bin below the split; for equal values, that value."""
        low, high = values.min(), values.max()
        steps = torch.linspace(0, 1, self.bins + 1, device=values.device)
        edges = low + (high - low) * steps[1:]
        bins = torch.bucketize(values, edges).clamp(max=self.bins - 1)
        counts = torch.zeros_like(edges).index_add(0, bins, torch.ones_like(values))
        sums = torch.zeros_like(edges).index_add(0, bins, values - low)
        count_below, sum_below = counts.cumsum(0), sums.cumsum(0)
        count_above = count_below[-1] - count_below
        sum_above = sum_below[-1] - sum_below
        mean_below = sum_below / count_below.clamp(min=1)
        mean_above = sum_above / count_above.clamp(min=1)
        between = count_below * count_above * (mean_above - mean_below) ** 2
        return edges[between.argmax()]
