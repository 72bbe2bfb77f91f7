"""The main path: support and query in, labels out."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.interfaces import Backbone, Head, OracleThreshold, Refiner, Threshold
from fsseg.model.chain import refine, require_order, to_size
from fsseg.model.contracts import require_foreground, require_mode, require_parts
from fsseg.model.inputs import network_input
from fsseg.model.ops import Prior, decide, decide_alike, per_way, raise_foreground, resize
from fsseg.model.scoring import Extractor, Features, logits_of, prototypes_of
from fsseg.system.devices import working_memory
from fsseg.types import Evidence, Prototypes, Query, QueryVolume, Segmentation, Support

if TYPE_CHECKING:
    from pathlib import Path

    from fsseg.prediction.predictor import Predictor

BYTES_PER_PIXEL = 600
"""What a slice takes in the paper's network while it is encoded, per pixel of the image; measured on a CPU."""

Mode = Literal["default", "reference"]
"""Where the prior is added: to logits at image size, or before probabilities are resized."""

SupportFeatures = Float[Tensor, "way shot channel support_h support_w"]
"""Features of the labelled slices."""

Target = Int[Tensor, "query height width"] | None
"""The query's ground truth, for oracle policies alone."""


@dataclass(frozen=True)
class Scored:
    """A query as a head scored it.

    Attributes:
        coarse: The logits at feature resolution.
        evidence: All that a threshold policy may look at, with the logits at image size.
        volume: All that a refiner may look at.
    """

    coarse: Float[Tensor, "query class h w"]
    evidence: Evidence
    volume: QueryVolume


class Segmenter(nn.Module):
    """A few-shot segmenter, put together from one component of each kind.

    The backbone makes features of support and query, the extractor makes prototypes of the support's, and the head
    scores the query's against them, at an even prior. The threshold says with which prior to decide each slice. A pixel
    is foreground where the largest foreground logit exceeds the background's by more than minus the prior's log-odds.

    In the `default` mode logits are resized to the image, then the prior is added, then the largest wins. The
    `reference` mode does as the published TPM code: the prior is added at feature resolution and the probabilities
    are resized, with aligned corners. An oracle decides on resized logits in both modes, or it would miss its counts.

    Refiners, if there are any, see the margins of all query slices under the prior, one refiner after the other: at
    feature resolution, then those that say so at the resolution of the image. What they return is resized and decides.

    Args:
        backbone: Turns slices into features.
        prototypes: Summarises the support's features under its masks.
        head: Scores features against prototypes.
        threshold: Decides with which foreground prior to segment.
        refiners: Decide again over the whole volume, in this order.
        mode: "default" or "reference".

    Raises:
        FssegError: A part is not of its kind, or there is no such mode.

    Example:
        >>> from fsseg import CeT, EmGmm, Query, Segmenter, Support, TimmBackbone, Tpm
        >>> backbone = TimmBackbone(model="resnet18", strides=[8])
        >>> segmenter = Segmenter(backbone, EmGmm(count=3), Tpm(), CeT()).eval()
        >>> image, mask = torch.randn(64, 64), torch.zeros(64, 64)
        >>> mask[20:40, 20:40] = 1
        >>> support = Support(image[None, None], mask[None, None] > 0, torch.tensor([[0.5]]))
        >>> query = Query(torch.randn(10, 64, 64), torch.linspace(0, 1, 10))
        >>> with torch.no_grad():
        ...     segmentation = segmenter(support, query)
        >>> segmentation.labels.shape, segmentation.prior.tolist() == [0.0] * 10
        (torch.Size([10, 64, 64]), True)
    """

    def __init__(
        self,
        backbone: Backbone,
        prototypes: Extractor,
        head: Head,
        threshold: Threshold | OracleThreshold,
        *,
        refiners: Sequence[Refiner] = (),
        mode: Mode = "default",
    ) -> None:
        """Puts the parts together; see the class for what they are."""
        super().__init__()
        parts = {
            "backbone": backbone,
            "prototypes": prototypes,
            "head": head,
            "threshold": threshold,
        }
        require_parts(parts, refiners)
        require_mode(mode, Mode)
        require_order(refiners)
        self.backbone = backbone
        self.prototypes = prototypes
        self.head = head
        self.threshold = threshold
        self.refiners = tuple(refiners)
        # Those that are modules go where the segmenter goes.
        modules = [refiner for refiner in self.refiners if isinstance(refiner, nn.Module)]
        self._refiner_modules = nn.ModuleList(modules)
        self.mode = mode

    def __repr__(self) -> str:
        names = ("backbone", "prototypes", "head", "threshold", "refiners", "mode")
        lines = [f"  {name}={getattr(self, name)!r}," for name in names]
        return "\n".join(["Segmenter(", *lines, ")"])

    def forward(
        self,
        support: Support,
        query: Query,
        target: Target = None,
    ) -> Segmentation:
        """Segments the query slices given the support.

        Args:
            support: The labelled slices, on the segmenter's device.
            query: The slices to segment, on the segmenter's device.
            target: The query's ground truth, for oracle policies alone; it is handed to nothing else.

        Raises:
            DataError: A mask of the support is empty.
            FssegError: The policy is an oracle and got no target, or a part refuses what it is given.
        """
        require_foreground(support)
        support_features = encode_support(self.backbone, support)
        query_features = encode(self.backbone, query.images)
        prototypes = prototypes_of(
            self.prototypes, self.head, support_features, support.masks, query_features
        )
        return self.segment(
            support, prototypes, query, query_features, target, support_features=support_features
        )

    def segment(
        self,
        support: Support,
        prototypes: Prototypes,
        query: Query,
        query_features: Features,
        target: Target = None,
        *,
        support_features: SupportFeatures | None = None,
    ) -> Segmentation:
        """Does what is left for features and prototypes at hand, so that they can be shared.

        Args:
            support: The labelled slices.
            prototypes: What `fsseg.model.scoring.prototypes_of` made of them.
            query: The slices to segment.
            query_features: Their features.
            target: As of a call of the segmenter.
            support_features: The features of the labelled slices; they are made again when omitted.
        """
        scored = self.logits(
            support, prototypes, query, query_features, support_features=support_features
        )
        return self.decide(scored, target)

    def logits(
        self,
        support: Support,
        prototypes: Prototypes,
        query: Query,
        query_features: Features,
        *,
        support_features: SupportFeatures | None = None,
    ) -> Scored:
        """Scores the query at an even prior. Segmenters that differ in the threshold alone share the result.

        The arguments are those of `segment`.
        """
        if support_features is None:
            support_features = encode_support(self.backbone, support)
        volume = QueryVolume(support, prototypes, query, query_features, support_features)
        coarse = logits_of(self.head, volume)
        evidence = Evidence(
            logits=self._resized(coarse, query.images),
            features=query_features,
            support_masks=support.masks,
            support_location=support.location,
            query_location=query.location,
            score=self.head.score,
        )
        return Scored(coarse, evidence, volume)

    def decide(self, scored: Scored, target: Target = None) -> Segmentation:
        """Asks the threshold policy for the prior, and decides under it; refiners have the last word.

        Args:
            scored: The query, as `logits` returned it.
            target: The query's ground truth, for oracle policies alone.

        Raises:
            FssegError: The policy is an oracle and got no target.
        """
        prior = self._prior(scored.evidence, target)
        if self.refiners:
            return self._decide_refined(scored, prior)
        if self.mode == "reference" and not self.threshold.oracle:
            return self._decide_as_published(scored, prior)
        evidence = scored.evidence
        if prior.ndim == 1:  # variants of one scoring share margins and winners
            labels = decide_alike(evidence.margin, evidence.winner, prior)
        else:
            labels = decide(evidence.logits, prior)
        return Segmentation(labels, prior, lambda: raise_foreground(evidence.logits, prior))

    def _decide_as_published(self, scored: Scored, prior: Prior) -> Segmentation:
        """The decision on probabilities that are resized after the prior was added."""
        raised = raise_foreground(scored.coarse, prior).softmax(dim=1)
        probabilities = self._resized(raised, scored.evidence.logits)
        labels = probabilities.argmax(dim=1).to(torch.uint8)
        return Segmentation(labels, prior, probabilities.log)

    def _decide_refined(self, scored: Scored, prior: Prior) -> Segmentation:
        """The decision where the refined margins are positive."""
        margins = scored.coarse[:, 1:] - scored.coarse[:, :1]
        of_ways = per_way(prior, margins.shape[1])
        margins = margins + of_ways[:, :, None, None]
        align_corners = self.mode == "reference"
        margins = refine(self.refiners, margins, scored.volume, align_corners=align_corners)
        height, width = scored.evidence.logits.shape[-2:]
        foreground = to_size(margins, (height, width), align_corners=align_corners)
        background = torch.zeros_like(foreground[:, :1])
        logits = torch.cat([background, foreground], dim=1)
        labels = decide(logits, torch.zeros_like(prior))
        return Segmentation(labels, prior, lambda: logits, margins)

    def _resized(
        self, maps: Float[Tensor, "query channel h w"], like: Float[Tensor, "*any height width"]
    ) -> Float[Tensor, "query channel height width"]:
        height, width = like.shape[-2:]
        return resize(maps, (height, width), align_corners=self.mode == "reference")

    def _prior(self, evidence: Evidence, target: Target) -> Prior:
        """The threshold policy's prior; only an oracle is handed the target."""
        policy: Any = self.threshold
        if not policy.oracle:
            return policy(evidence)
        if target is None:
            raise FssegError(
                f"threshold {type(policy).__name__}: it is an oracle and got no target, expected the query's "
                "ground truth as the third argument; use a policy that is none where there is no ground truth"
            )
        return policy(evidence, target)

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
    backbone: Backbone, images: Float[Tensor, "slice *input height width"]
) -> Float[Tensor, "slice channel h w"]:
    """Features of slices; a single channel is repeated as a network trained on photographs expects."""
    return backbone(network_input(backbone, images))


def encode_in_parts(
    backbone: Backbone,
    images: Float[Tensor, "slice *input height width"],
    at_once: int | None = None,
) -> Float[Tensor, "slice channel h w"]:
    """Features of any number of slices, a part of them at a time.

    Args:
        backbone: The backbone.
        images: The slices.
        at_once: Slices at a time; as many as there is memory for when omitted. It changes the features by round-off
            at most.
    """
    if at_once is None:
        pixels = images.shape[-2] * images.shape[-1]
        at_once = max(1, working_memory(images.device) // (pixels * BYTES_PER_PIXEL))
    first = encode(backbone, images[:at_once])
    # Room for all at once: a list of parts to join would double the memory.
    features = room_for(first[0], len(images))
    features[:at_once] = first
    for start in range(at_once, len(images), at_once):
        part = slice(start, start + at_once)
        features[part] = encode(backbone, images[part])
    return features


def room_for(
    like: Float[Tensor, "channel h w"],
    slices: int,
) -> Float[Tensor, "slice channel h w"]:
    """An empty tensor that takes the features of this number of slices.

    The vector of each place is in one piece, as networks leave it: heads read vectors, and do so ten times as fast.
    """
    channels, *size = like.shape
    return like.new_empty(slices, *size, channels).movedim(-1, 1)


def encode_support(backbone: Backbone, support: Support) -> Float[Tensor, "way shot channel h w"]:
    """Features of the support slices."""
    return support.spread(encode(backbone, support.slices))
