"""The main path: support and query in, labels out."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsseg.errors import DataError, FssegError
from fsseg.interfaces import Backbone, Head, OracleThreshold, PrototypeExtractor, Refiner, Threshold
from fsseg.model.ops import decide, decide_alike, per_way, raise_foreground, resize
from fsseg.system.devices import working_memory
from fsseg.types import Evidence, Prototypes, Query, QueryVolume, Segmentation, Support

if TYPE_CHECKING:
    from pathlib import Path

    from fsseg.prediction.predictor import Predictor

SLICES_AT_ONCE = 16
"""Slices that a head scores together."""

BYTES_PER_PIXEL = 600
"""What a slice takes in the paper's network while it is encoded, per pixel of the image; measured on a CPU."""

Mode = Literal["default", "reference"]


@dataclass(frozen=True)
class Scored:
    """A query as a head scored it.

    Attributes:
        coarse: The logits at feature resolution.
        evidence: What a threshold policy may look at, with the logits at image size.
        volume: What a refiner may look at.
    """

    coarse: Float[Tensor, "query class h w"]
    evidence: Evidence
    volume: QueryVolume


class Segmenter(nn.Module):
    """A few-shot segmenter, put together from one component of each kind.

    In the `default` mode logits are resized to the image, then the prior is added, then the largest wins. The
    `reference` mode does as the published TPM code: the prior is added at feature resolution and the probabilities
    are resized, with aligned corners. An oracle decides on resized logits in both modes, or it would miss its counts.

    Refiners, if there are any, see the margins of all query slices under the prior, at feature resolution, one refiner
    after the other; what they return is resized and decides.
    """

    def __init__(
        self,
        backbone: Backbone,
        prototypes: PrototypeExtractor,
        head: Head,
        threshold: Threshold | OracleThreshold,
        *,
        refiners: Sequence[Refiner] = (),
        mode: Mode = "default",
    ) -> None:
        super().__init__()
        self.backbone, self.prototypes, self.head, self.threshold = (
            backbone,
            prototypes,
            head,
            threshold,
        )
        self.refiners, self.mode = tuple(refiners), mode

    def forward(
        self,
        support: Support,
        query: Query,
        target: Int[Tensor, "query height width"] | None = None,
    ) -> Segmentation:
        """Segments the query slices given the support.

        `target` is for oracle policies alone and is handed to nothing else. Raises DataError for an empty mask.
        """
        require_foreground(support)
        support_features = encode_support(self.backbone, support)
        query_features = encode(self.backbone, query.images)
        prototypes = self.prototypes(support_features, support.masks, self.head.sigma)
        return self.segment(support, prototypes, query, query_features, target)

    def segment(
        self,
        support: Support,
        prototypes: Prototypes,
        query: Query,
        query_features: Float[Tensor, "query channel h w"],
        target: Int[Tensor, "query height width"] | None = None,
    ) -> Segmentation:
        """The rest of the path for features and prototypes at hand, so that they can be shared."""
        return self.decide(self.logits(support, prototypes, query, query_features), target)

    def logits(
        self,
        support: Support,
        prototypes: Prototypes,
        query: Query,
        query_features: Float[Tensor, "query channel h w"],
    ) -> Scored:
        """The logits, and what a policy may know. Segmenters that differ in the threshold alone share it."""
        # A head works on copies of the features; a few slices at a time, it does not matter how many there are.
        coarse = torch.cat(
            [self.head(part, prototypes) for part in query_features.split(SLICES_AT_ONCE)]
        )
        logits = resize(
            coarse, tuple(query.images.shape[-2:]), align_corners=self.mode == "reference"
        )
        evidence = Evidence(
            logits, query_features, support.masks, support.location, query.location, self.head.score
        )
        return Scored(coarse, evidence, QueryVolume(support, prototypes, query, query_features))

    def decide(
        self, scored: Scored, target: Int[Tensor, "query height width"] | None = None
    ) -> Segmentation:
        """Asks the threshold policy for the prior, and decides under it; refiners have the last word."""
        evidence, logits = scored.evidence, scored.evidence.logits
        prior = self._decide_prior(evidence, target)
        if self.refiners:
            return self._refine(scored, prior)
        if self.mode == "default" or self.threshold.oracle:
            shared = prior.ndim == 1
            labels = (
                decide_alike(evidence.margin, evidence.winner, prior)
                if shared
                else decide(logits, prior)
            )
            return Segmentation(labels, prior, lambda: raise_foreground(logits, prior))
        raised = raise_foreground(scored.coarse, prior).softmax(dim=1)
        probabilities = resize(raised, tuple(logits.shape[-2:]), align_corners=True)
        return Segmentation(probabilities.argmax(dim=1).to(torch.uint8), prior, probabilities.log)

    def _refine(
        self, scored: Scored, prior: Float[Tensor, "query"] | Float[Tensor, "query way"]
    ) -> Segmentation:
        """The decision where the refined margins are positive."""
        margins = scored.coarse[:, 1:] - scored.coarse[:, :1]
        margins = margins + per_way(prior, margins.shape[1])[:, :, None, None]
        for refiner in self.refiners:
            margins = refiner(margins, scored.volume)
        size = tuple(scored.evidence.logits.shape[-2:])
        logits = resize(margins, size, align_corners=self.mode == "reference")
        logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)
        return Segmentation(decide(logits, torch.zeros_like(prior)), prior, lambda: logits, margins)

    def _decide_prior(
        self, evidence: Evidence, target: Int[Tensor, "query height width"] | None
    ) -> Float[Tensor, "query"] | Float[Tensor, "query way"]:
        """Asks the threshold policy; only an oracle is handed the target."""
        if not self.threshold.oracle:
            return self.threshold(evidence)
        if target is None:
            raise FssegError(
                f"threshold {type(self.threshold).__name__}: it is an oracle and got no target, expected the query's "
                "ground truth as the third argument; use a policy that is none where there is no ground truth"
            )
        return self.threshold(evidence, target)

    def score(self, *arguments: Any, **named: Any) -> Scored:
        """Deprecated: this is called `logits` now."""
        _renamed("score", "logits")
        return self.logits(*arguments, **named)

    def settle(self, *arguments: Any, **named: Any) -> Segmentation:
        """Deprecated: this is called `decide` now."""
        _renamed("settle", "decide")
        return self.decide(*arguments, **named)

    @staticmethod
    def load(run: "str | Path", **choice: Any) -> "Predictor":
        """Deprecated: this is called `fsseg.Predictor.load` now."""
        _renamed("load", "Predictor.load")
        from fsseg.prediction.predictor import Predictor  # later than a module of the model may

        return Predictor.load(run, **choice)


def _renamed(old: str, new: str) -> None:
    warnings.warn(f"Segmenter.{old} is called {new} now", DeprecationWarning, stacklevel=3)


def encode(
    backbone: Backbone, images: Float[Tensor, "slice height width"]
) -> Float[Tensor, "slice channel h w"]:
    """Features of one-channel slices; the channel is repeated as a network trained on photographs expects."""
    return backbone(images[:, None].expand(-1, 3, -1, -1))


def encode_in_parts(
    backbone: Backbone, images: Float[Tensor, "slice height width"], at_once: int | None = None
) -> Float[Tensor, "slice channel h w"]:
    """Features of any number of slices, so many at a time, or as many as there is memory for.

    How many that are changes the features by round-off at most.
    """
    if at_once is None:
        pixels = images.shape[-2] * images.shape[-1]
        at_once = max(1, working_memory(images.device) // (pixels * BYTES_PER_PIXEL))
    first = encode(backbone, images[:at_once])
    features = room_for(
        first[0], len(images)
    )  # at once: a list of parts to join would double the memory
    features[:at_once] = first
    for start in range(at_once, len(images), at_once):
        features[start : start + at_once] = encode(backbone, images[start : start + at_once])
    return features


def room_for(like: Float[Tensor, "channel h w"], slices: int) -> Float[Tensor, "slice channel h w"]:
    """An empty tensor for such features of so many slices.

    The vector of each place is in one piece, as networks leave it: heads read vectors, and do so ten times as fast.
    """
    channels, *size = like.shape
    return like.new_empty(slices, *size, channels).movedim(-1, 1)


def encode_support(backbone: Backbone, support: Support) -> Float[Tensor, "way shot channel h w"]:
    """Features of the support slices."""
    return support.spread(encode(backbone, support.slices))


def require_foreground(support: Support) -> None:
    """Raises DataError if a way has no foreground pixel in one of its shots."""
    empty = ~support.masks.any(dim=-1).any(dim=-1)
    if empty.any():
        way, shot = empty.nonzero()[0].tolist()
        raise DataError(
            f"support: the mask of way {way}, shot {shot} is empty, expected at least one foreground pixel; "
            "choose a slice that shows the class"
        )
