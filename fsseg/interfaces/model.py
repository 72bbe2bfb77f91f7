"""Contracts of what turns slices into labels, in the order in which they follow one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from fsseg.types import (
        Evidence,
        IdealPriors,
        Prototypes,
        Query,
        QueryVolume,
        ScoreScale,
        Support,
    )


class Trained(Protocol):
    """The methods of an nn.Module that training, checkpoints and devices need."""

    def parameters(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> Any: ...

    def train(self) -> Any: ...

    def eval(self) -> Any: ...

    def to(self, *place: Any, **options: Any) -> Any: ...


@runtime_checkable
class Backbone(Trained, Protocol):
    """Turns slices into features; an nn.Module.

    It may have two further attributes. `context = n` asks for n neighbouring slices on each side as channels, and
    `in_channels = c` for scans of c channels. It is then called with c (2 n + 1) channels, those of the lowest neighbour
    first; without either, or with a single channel, it is called with that one three times, as networks for photographs
    expect.
    """

    channels: int
    """Channels of the features."""
    stride: int
    """Image pixels per feature cell."""
    intensity: str
    """The name of the rule that scales a volume's intensities before its slices come here, where the recipe names none."""

    def __call__(
        self, images: Float[Tensor, "slice input height width"]
    ) -> Float[Tensor, "slice channel h w"]: ...


@runtime_checkable
class PrototypeExtractor(Protocol):
    """Summarises the support's features under its masks; one that sees the query as well is a `QueryInformedExtractor`.

    A class that inherits from this one has the attributes at their defaults. One that lacks them is taken for one that
    has them so. One that learns is an nn.Module: its parameters are trained with the network of the training that names
    it, and variants that name it as well take them, with the options in its `trained_options` (see `Head`).
    """

    fixed_shape: ClassVar[bool] = False
    """True for one that gives empty ways the weight 0 and never asks the host for a value: training with it can be
    recorded on a GPU."""
    background: ClassVar[bool] = False
    """True for one that also makes prototypes of the background, which is what no way's mask covers; the alignment loss
    then takes both sides' prototypes from it."""

    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        """Makes the prototypes of each way.

        Args:
            features: The support's features.
            masks: True where a pixel belongs to the way.
            sigma: The head's spread of the foreground around a prototype, for extractors that fit a density.
        """
        ...


@runtime_checkable
class QueryInformedExtractor(Protocol):
    """A prototype extractor with `per_query = True`: it sees the query's features, never its mask.

    It gives each slice of the query prototypes of its own, `query way proto channel` with weights `query way proto`, as
    many for each slice. What it gives a slice depends on no other slice: slices come a few at a time. In the alignment
    loss query and support change places.
    """

    per_query: ClassVar[bool]

    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None,
        query: Float[Tensor, "query channel h w"],
    ) -> Prototypes: ...


@runtime_checkable
class Head(Trained, Protocol):
    """Scores query features against prototypes; an nn.Module whose state is trained.

    A head may name in `trained_options`, a tuple, the options that its trained state decides, such as what a parameter
    starts from. Variants that take the state take these options with it, and may not give them other values.

    A head with `sees_support = True` is called with a `QueryVolume` as its third argument: the support's images and masks,
    and the images and the features of both sides. It has the slices that are scored at the time, a few of the query.
    """

    score: ScoreScale | None
    """The score scale, for heads of the ADNet family."""
    sigma: Float[Tensor, ""] | None
    """Spread of the foreground around a prototype, for extractors that fit a density."""

    def __call__(
        self, features: Float[Tensor, "query channel h w"], prototypes: Prototypes
    ) -> Float[Tensor, "query class h w"]:
        """Class logits at an even prior, background first."""
        ...


@runtime_checkable
class WholeSegmenter(Protocol):
    """Segments a query from labelled images without prototypes, for example a network that learns in context.

    A row of a recipe names it in place of prototypes and head; thresholds and refiners follow it as they follow a head.
    Images are those after the recipe's intensity rule. One that is an nn.Module with parameters is trained if `[training]`
    names it as its `segmenter`; `trained_options` is as of a head.
    """

    def __call__(
        self, support: Support, query: Query
    ) -> Float[Tensor, "query class own_height own_width"]:
        """Class logits at an even prior, background first, as fine as it has them.

        All slices that one support segments come at once, in the order of the scan: in training and calibration one.
        """
        ...


@runtime_checkable
class Threshold(Protocol):
    """Decides with which foreground prior to segment each query slice.

    One that learns with the network is an nn.Module that `[training]` names: its prior then raises the logits before the
    losses see them, and variants that name it take what it learned. With `fixed_shape = True` it promises to ask the
    host for no value, so that such a training can be recorded on a GPU.
    """

    oracle: ClassVar[bool]
    """True for a policy that needs the ground truth; it is then called with the target, and tables mark it."""

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"] | Float[Tensor, "query way"]:
        """Log-odds of the foreground prior, per slice (or per slice and way). An oracle takes `target` as well."""
        ...


@runtime_checkable
class OracleThreshold(Protocol):
    """A threshold policy with `oracle = True`."""

    oracle: ClassVar[bool]

    def __call__(
        self, evidence: Evidence, target: Int[Tensor, "query height width"]
    ) -> Float[Tensor, "query"] | Float[Tensor, "query way"]: ...


@runtime_checkable
class FittedThreshold(Protocol):
    """A threshold policy that learns from the ideal priors of training-fold episodes."""

    oracle: ClassVar[bool]

    def __call__(
        self, evidence: Evidence
    ) -> Float[Tensor, "query"] | Float[Tensor, "query way"]: ...

    def describe(self, evidence: Evidence) -> Float[Tensor, "query *regressors"]:
        """What the estimate is based on, by query slice, in any shape (also an empty one)."""
        ...

    def fit(self, described: list[np.ndarray], ideal: IdealPriors) -> None:
        """Learns to predict ideal priors. `described` holds what `describe` gave for the query slice of each episode."""
        ...

    def state(self) -> dict[str, Any]:
        """What `fit` learned, as JSON."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes what `fit` learned."""
        ...


@runtime_checkable
class Refiner(Protocol):
    """Decides again which places of a query are foreground, looking at all its slices together.

    A threshold says how much foreground a slice has, slice by slice; a refiner sees the volume. There is no ground truth
    in what it is handed.

    A refiner may say in `resolution` on which grid it works: "features", as one that says nothing, "image", on the pixels
    of the query's slices, or "any", on the grid of the margins that it gets, whichever that is. One that works on the
    features comes before those that work on the image.
    """

    def __call__(
        self, margins: Float[Tensor, "slice way h w"], volume: QueryVolume
    ) -> Float[Tensor, "slice way h w"]:
        """Margins under the prior in, other margins out.

        A margin is a way's logit minus the background's, the prior included, on the grid on which the refiner works.
        Foreground is where one is positive, and the largest decides which.
        """
        ...
