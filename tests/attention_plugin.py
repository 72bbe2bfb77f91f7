"""A plugin in one file: an extractor with weights of its own that looks at the query, by cross-attention."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from fsseg import MaskedAverage, Prototypes, component, hookimpl


@component
class CrossAttention(nn.Module):
    """Moves each way's mean feature towards what it attends to in the query's slice."""

    per_query = True
    fixed_shape = True

    def __init__(
        self,
        *,
        channels: Annotated[int, Field(ge=1, description="channels of the features")] = 16,
        share: Annotated[
            float, Field(ge=0, le=1, description="share of the query at the start")
        ] = 0.5,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.ask = nn.Linear(channels, channels)
        self.share = nn.Parameter(torch.tensor(share))

    def forward(self, features, masks, sigma, query):
        shown = MaskedAverage()(features, masks)
        asked = self.ask(shown.foreground)  # way 1 channel
        cells = query.flatten(2)  # slice channel cell
        attention = asked @ cells[:, None] / cells.shape[1] ** 0.5
        found = attention.softmax(dim=-1) @ cells[:, None].mT  # slice way 1 channel
        foreground = torch.lerp(shown.foreground.expand_as(found), found, self.share)
        return Prototypes(foreground, shown.weights.expand(foreground.shape[:3]))


@hookimpl
def register_prototypes(register):
    register("cross_attention", CrossAttention)
