"""The values that pass between the stages, one type per boundary.

Axes are words: way, shot, query, slice, class, channel, height, width. Images have an axis of
channels where there are several of them, and are float tensors after the intensity rule. Annotations are jaxtyping shapes; the tests execute
them. Nothing here computes more than a property of the value itself.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from fsseg.errors import DataError
from fsseg.score_scale import ScoreScale as ScoreScale
from fsseg.system.shapes import require_fitting


@dataclass(frozen=True)
class Support:
    """A few labelled slices that show the new classes: for each class (way), one or more slices (shot) and their masks.

    Attributes:
        images: The labelled slices, `way shot height width`, after the backbone's intensity rule; with an axis of channels
            before height and width where there are several.
        masks: True where a pixel belongs to the way's class, `way shot height width`.
        location: Position of each slice in its scan, `way shot`: 0 is the first slice and 1 the last.
        shared: True where all ways are marked in the same slices, so that the first way's images are everybody's.

    Raises:
        DataError: The tensors do not fit together, hold another kind of numbers, or are on several devices.

    Example:
        >>> image, mask = torch.randn(64, 64), torch.zeros(64, 64)
        >>> mask[20:30, 20:30] = 1
        >>> support = Support(image[None, None], mask[None, None] > 0, torch.tensor([[0.5]]))
        >>> support.slices.shape
        torch.Size([1, 64, 64])
    """

    images: Float[Tensor, "way shot *channel height width"]
    masks: Bool[Tensor, "way shot height width"]
    location: Float[Tensor, "way shot"]
    shared: bool = False

    def __post_init__(self) -> None:
        require_fitting(
            "support",
            "for one class in one slice, Support(image[None, None], mask[None, None] > 0, torch.tensor([[0.5]]))",
            self,
        )

    @property
    def slices(self) -> Float[Tensor, "slice *channel height width"]:
        """The slices to encode, each once."""
        return self.images[0] if self.shared else self.images.flatten(0, 1)

    def spread(
        self, features: Float[Tensor, "slice channel h w"]
    ) -> Float[Tensor, "way shot channel h w"]:
        """Hands the features of `slices` to every way and shot."""
        ways, shots = self.images.shape[:2]
        if self.shared:
            return features.expand(ways, *features.shape)
        return features.unflatten(0, (ways, shots))

    @property
    def target(self) -> Int[Tensor, "slice height width"]:
        """Ground truth of `slices`: 0 is background, way k is k + 1."""
        numbers = torch.arange(1, len(self.masks) + 1, device=self.masks.device)
        labels = self.masks * numbers[:, None, None, None]
        return labels.amax(dim=0) if self.shared else labels.flatten(0, 1)

    def to(self, device: torch.device) -> "Support":
        """The same support on another device."""
        return replace(
            self,
            images=self.images.to(device),
            masks=self.masks.to(device),
            location=self.location.to(device),
        )


@dataclass(frozen=True)
class Query:
    """Slices to segment. There is no mask here, so nothing on the test path can leak.

    Attributes:
        images: The slices, `query height width`, after the backbone's intensity rule; with an axis of channels before height
            and width where there are several.
        location: Position of each slice in its scan: 0 is the first slice and 1 the last.
        spacing: Distance of neighbouring slices, rows and columns in mm; refiners that look at distances need it.

    Raises:
        DataError: The tensors do not fit together, or the spacing is not three positive numbers.

    Example:
        >>> scan = torch.randn(30, 64, 64)
        >>> Query(scan, torch.linspace(0, 1, 30), spacing=(8.0, 1.5, 1.5)).part(slice(10)).images.shape
        torch.Size([10, 64, 64])
    """

    images: Float[Tensor, "query *channel height width"]
    location: Float[Tensor, "query"]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        example = "for example Query(images, torch.linspace(0, 1, len(images)))"
        require_fitting("query", example, self)
        if len(self.spacing) != 3 or not all(distance > 0 for distance in self.spacing):
            raise DataError(
                f"query: spacing is {tuple(self.spacing)}, expected the distances of slices, rows and columns in mm, for "
                "example (8.0, 1.5, 1.5)"
            )

    def to(self, device: torch.device) -> "Query":
        """The same query on another device."""
        return replace(self, images=self.images.to(device), location=self.location.to(device))

    def part(self, at: slice | list[int]) -> "Query":
        """The query of some of its slices."""
        return replace(self, images=self.images[at], location=self.location[at])


@dataclass(frozen=True)
class Episode:
    """A support, a query and the query's ground truth.

    Attributes:
        support: The labelled slices.
        query: The slices to segment.
        target: The ground truth, `query height width`: 0 is background, way k of the support is k + 1.

    Raises:
        DataError: The target has not the shape of the query's images, or other things than whole numbers.
    """

    support: Support
    query: Query
    target: Int[Tensor, "query height width"]

    def __post_init__(self) -> None:
        example = "for one class, Episode(support, query, (masks > 0).long()) with the masks of the query's slices"
        require_fitting("episode", example, self.query, self)

    def to(self, device: torch.device) -> "Episode":
        """The same episode on another device."""
        return Episode(self.support.to(device), self.query.to(device), self.target.to(device))


@dataclass(frozen=True)
class Prototypes:
    """Feature vectors that stand for the support's classes, as a prototype extractor makes them.

    Those of an extractor that sees the query have an axis of its slices before all others, until a head gets them.

    Attributes:
        foreground: The prototypes of each way, `way proto channel` (of any length: a head on the sphere uses their
            direction).
        weights: The share of each prototype in its way, `way proto`; they sum to one over a way's prototypes, or are
            all 0 for a way that is not there.
        background: Prototypes of the background, `bg_proto channel`, for heads that need them.

    Raises:
        DataError: The tensors do not fit together, hold another kind of numbers, or are on several devices.
    """

    foreground: Float[Tensor, "*query way proto channel"]
    weights: Float[Tensor, "*query way proto"]
    background: Float[Tensor, "*query bg_proto channel"] | None = None

    def __post_init__(self) -> None:
        example = (
            "for one class with one prototype, Prototypes(vector[None, None], torch.ones(1, 1))"
        )
        require_fitting("prototypes", example, self)

    @property
    def by_slice(self) -> bool:
        """True where each slice of the query has prototypes of its own."""
        return self.foreground.ndim == 4

    def part(self, at: slice) -> "Prototypes":
        """The prototypes of some slices of the query, where slices have their own."""
        if not self.by_slice:
            return self
        background = None if self.background is None else self.background[at]
        return Prototypes(self.foreground[at], self.weights[at], background)

    def of_slice(self, number: int) -> "Prototypes":
        """The prototypes of one slice of the query, where slices have their own; without the axis of slices."""
        background = None if self.background is None else self.background[number]
        return Prototypes(self.foreground[number], self.weights[number], background)


@dataclass(frozen=True)
class Evidence:
    """All that a threshold policy may look at. The target is not here; an oracle is handed it separately.

    Attributes:
        logits: Class logits at image size and an even prior, background first.
        features: The query's features.
        support_masks: The support's masks.
        support_location: Positions of the support slices in their scans.
        query_location: Positions of the query slices in their scans.
        score: The head's score scale, for heads that have one.
    """

    logits: Float[Tensor, "query class height width"]
    features: Float[Tensor, "query channel h w"]
    support_masks: Bool[Tensor, "way shot support_height support_width"]
    support_location: Float[Tensor, "way shot"]
    query_location: Float[Tensor, "query"]
    score: ScoreScale | None = None

    @cached_property  # policies and decisions of one scoring share it
    def margin(self) -> Float[Tensor, "query height width"]:
        """The largest foreground logit minus the background's: foreground where it exceeds the negated prior."""
        return margin(self.logits)

    @cached_property
    def winner(self) -> UInt8[Tensor, "query height width"]:
        """The number of the way with the largest logit, from 1: the label wherever the pixel is foreground."""
        return winner(self.logits)

    @cached_property
    def support_size(self) -> Float[Tensor, "way"]:
        """Share of the support image that each way covers, averaged over shots."""
        return self.support_masks.float().mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class QueryVolume:
    """All that a refiner may look at: the slices that one support segments, as a volume. The target is not here.

    Attributes:
        support: The labelled slices.
        prototypes: What the extractor made of them; of one that sees the query, by slice.
        query: The slices that are segmented, in the order of the scan.
        features: Their features.
        support_features: The features of the labelled slices.
    """

    support: Support
    prototypes: Prototypes
    query: Query
    features: Float[Tensor, "slice channel h w"]
    support_features: Float[Tensor, "way shot channel support_h support_w"]

    def part(self, at: slice) -> "QueryVolume":
        """The volume of some of its slices."""
        return replace(
            self,
            prototypes=self.prototypes.part(at),
            query=self.query.part(at),
            features=self.features[at],
        )

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring slices, and of rows and columns of the features, in mm."""
        return self.spacing_of(self.features)

    def spacing_of(self, maps: Float[Tensor, "slice _channel h w"]) -> tuple[float, float, float]:
        """Distance of neighbouring slices, and of rows and columns of maps over the same images, in mm."""
        between, row, column = self.query.spacing
        (height, width), (h, w) = self.query.images.shape[-2:], maps.shape[-2:]
        return between, row * height / h, column * width / w


@dataclass(frozen=True)
class IdealPriors:
    """The ideal priors of calibration episodes in log-odds, unclipped.

    Attributes:
        together: By episode, the prior under which all ways together get their true number of pixels.
        ways: By episode, the prior of each way under which it would get its own number, were it alone.
    """

    together: Float[np.ndarray, "episode"]
    ways: list[Float[np.ndarray, "_way"]]


@dataclass(frozen=True)
class Segmentation:
    """What a segmenter returns.

    Attributes:
        labels: The decision, 0 is background and way k of the support is k + 1.
        prior: Log-odds of the foreground prior that decided, one per slice (or per slice and way).
        make_log_probabilities: Works out `log_probabilities`, which not everybody needs.
        refined: Where refiners had the last word: each way's logit minus the background's at the last one's resolution,
            the prior included, so that foreground is where it is positive.
    """

    labels: UInt8[Tensor, "query height width"]
    prior: Float[Tensor, "query"] | Float[Tensor, "query way"]
    make_log_probabilities: Callable[[], Float[Tensor, "query class height width"]]
    refined: Float[Tensor, "query way h w"] | None = None

    @cached_property
    def log_probabilities(self) -> Float[Tensor, "query class height width"]:
        """Log class probabilities at image size under the prior, up to a constant per pixel."""
        return self.make_log_probabilities()

    @property
    def scores(self) -> Float[Tensor, "query class height width"]:
        """Deprecated: these are called `log_probabilities` now."""
        warnings.warn(
            "Segmentation.scores is called log_probabilities now", DeprecationWarning, stacklevel=2
        )
        return self.log_probabilities

    @property
    def probabilities(self) -> Float[Tensor, "query class height width"]:
        """Class probabilities at image size under the prior."""
        return self.log_probabilities.softmax(dim=1)


def margin(
    logits: Float[Tensor, "query class height width"],
) -> Float[Tensor, "query height width"]:
    """The largest foreground logit minus the background's."""
    return logits[:, 1:].amax(dim=1) - logits[:, 0]


def winner(
    logits: Float[Tensor, "query class height width"],
) -> UInt8[Tensor, "query height width"]:
    """The number of the way with the largest logit, from 1."""
    if logits.shape[1] == 2:
        return torch.ones_like(logits[:, 0], dtype=torch.uint8)
    return (logits[:, 1:].argmax(dim=1) + 1).to(torch.uint8)
