"""Training: episodes of supervoxels, SGD, and the running averages that published thresholds rest on."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsseg.episodes import EpisodeSampler
from fsseg.interfaces import PrototypeExtractor
from fsseg.losses import alignment_loss, log_probabilities, t_loss, weighted_nll
from fsseg.ops import ideal_prior, resize
from fsseg.progress import Progress, Silent
from fsseg.recipe import TrainingTable
from fsseg.segmenter import encode
from fsseg.types import Episode, Score, margin

TRAINING_STREAM, CALIBRATION_STREAM = 1, 2
"""Which stream of random numbers a stage draws its episodes from."""

LOG_EVERY = 25


def episode_rng(seed: int, stream: int, index: int) -> np.random.Generator:
    """The generator of one episode: it depends on the episode's number alone, so training can go on anywhere."""
    return np.random.default_rng([seed, stream, index])


@dataclass(frozen=True)
class Losses:
    """The parts of an episode's loss, before their weights."""

    query: Float[Tensor, ""]
    alignment: Float[Tensor, ""]
    t_loss: Float[Tensor, ""]

    def total(self, options: TrainingTable) -> Float[Tensor, ""]:
        """The weighted sum that is minimised."""
        return self.query + options.alignment * self.alignment + options.t_loss * self.t_loss


def train(
    backbone: nn.Module,
    prototypes: PrototypeExtractor,
    head: nn.Module,
    sampler: EpisodeSampler,
    options: TrainingTable,
    *,
    seed: int,
    mode: str,
    device: torch.device,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Trains backbone and head in place, and leaves them in evaluation mode.

    Returns:
        The log: mean losses of every 25 steps, the learning rate and the score threshold.
    """
    parameters = [p for module in (backbone, head) for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(
        parameters, lr=options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay, fused=True
    )
    backbone.train()
    head.train()
    log = TrainingLog()
    for step in (progress or Silent()).track(range(options.steps), "training", options.steps):
        rate = options.learning_rate * options.decay ** (step // options.decay_every)
        for group in optimiser.param_groups:
            group["lr"] = rate
        episode = sampler.make(sampler.draw(episode_rng(seed, TRAINING_STREAM, step), options.classes)).to(device)
        losses = episode_losses(backbone, prototypes, head, episode, options, mode)
        optimiser.zero_grad(set_to_none=True)
        losses.total(options).backward()
        nn.utils.clip_grad_value_(parameters, options.gradient_clip)
        optimiser.step()
        log.add(step, losses, head.score, rate)
    backbone.eval()
    head.eval()
    return log.records


def episode_losses(
    backbone: nn.Module,
    prototypes: PrototypeExtractor,
    head: nn.Module,
    episode: Episode,
    options: TrainingTable,
    mode: str,
) -> Losses:
    """The losses of one episode; updates the head's running averages as every training forward does."""
    support, query = episode.support, episode.query
    # One batch: batch normalisation takes its statistics over support and query together, as published.
    slices = support.slices
    features = encode(backbone, torch.cat([slices, query.images]))
    support_features, query_features = features[: len(slices)], features[len(slices) :]
    logits = head(query_features, prototypes(support.spread(support_features), support.masks, head.sigma))
    size = tuple(query.images.shape[-2:])
    score = head.score
    if score is not None:
        update_averages(score, logits, episode.target, options.average_rate)
    return Losses(
        query=weighted_nll(log_probabilities(logits, size, mode), episode.target, options.background_weight),
        alignment=alignment_loss(head, logits, query_features, support_features, support, mode)
        if options.alignment
        else logits.new_zeros(()),
        t_loss=t_loss(score) if score is not None else logits.new_zeros(()),
    )


@torch.no_grad()
def update_averages(
    score: Score,
    logits: Float[Tensor, "query class h w"],
    target: Int[Tensor, "query height width"],
    rate: float,
) -> None:
    """Moves the averages of the ideal distance threshold and of the sigmas towards this episode's.

    In place: the score's averages are the head's own buffers, so that they are saved and loaded with it.
    """
    margins = resize(margin(logits)[:, None], tuple(target.shape[-2:]))[:, 0]
    ideal = score.distance_at_prior(ideal_prior(margins, (target > 0).sum(dim=(1, 2)))).mean()
    score.average_distance.lerp_(ideal, rate).clamp_(1e-3, math.sqrt(2) - 1e-3)
    score.average_sigmas.lerp_(score.sigmas, rate)


class TrainingLog:
    """Collects losses on the device and reads them off once in a while, so that steps do not wait for the host."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self._pending: list[Tensor] = []

    def add(self, step: int, losses: Losses, score: Score | None, rate: float) -> None:
        """Adds a step; every 25th writes a record."""
        self._pending.append(torch.stack([losses.query, losses.alignment, losses.t_loss]).detach())
        if (step + 1) % LOG_EVERY:
            return
        query, alignment, threshold = torch.stack(self._pending).mean(dim=0).tolist()
        self._pending.clear()
        record = {"step": step + 1, "query": query, "alignment": alignment, "t_loss": threshold, "learning_rate": rate}
        if score is not None:
            record |= {"score_threshold": score.threshold.item(), "average_distance": score.average_distance.item()}
        self.records.append(record)
