"""The forward pass of a training step, from features to the one value that losses see, in the order of the paper."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fsseg.interfaces import Head, Threshold
from fsseg.model.scoring import Extractor, logits_of, prototypes_of
from fsseg.model.segmenter import Mode
from fsseg.training.step import TrainingStep, log_probabilities, under_prior
from fsseg.training.updates import update_averages
from fsseg.types import Episode, QueryVolume


@dataclass(frozen=True)
class ForwardPass:
    """From the features of an episode to the query's probabilities, with the parts that are trained.

    Attributes:
        extractor: Makes the support's prototypes.
        head: Scores the query; its running averages are moved.
        threshold: The policy whose prior the losses see; None for an even prior.
        mode: "default" or "reference": how logits are brought to the size of the image.
        average_rate: The rate of the running averages.
    """

    extractor: Extractor
    head: Head
    threshold: Threshold | None
    mode: Mode
    average_rate: float

    def __call__(
        self,
        episode: Episode,
        support_features: Float[Tensor, "slice channel h w"],
        query_features: Float[Tensor, "query channel h w"],
    ) -> TrainingStep:
        """All that a loss may look at."""
        support = episode.support
        target = episode.target
        # The support's prototypes (Eq. 1), and the query's logits (Eqs. 2, 3, 8 and 9).
        of_ways = support.spread(support_features)
        prototypes = prototypes_of(
            self.extractor, self.head, of_ways, support.masks, query_features
        )
        volume = QueryVolume(support, prototypes, episode.query, query_features, of_ways)
        logits = logits_of(self.head, volume)
        # The running averages, which follow T_S as it is before the update, as published.
        score = self.head.score
        if score is not None:
            update_averages(score, logits, target, self.average_rate)
        if self.threshold is not None:
            logits = under_prior(self.threshold, logits, query_features, episode, score, self.mode)
        height, width = target.shape[-2:]
        log_probability = log_probabilities(logits, (height, width), self.mode)
        return TrainingStep(
            episode,
            support_features,
            query_features,
            prototypes,
            logits,
            log_probability,
            self.head,
            self.extractor,
            self.mode,
        )
