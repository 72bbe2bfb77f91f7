"""The losses against loops over pixels, and the training step's bookkeeping."""

import doctest
import math

import pytest
import torch

from fsseg import AdNet, MaskedAverage, Prototypes, Support, Tpm
from fsseg.training import log, losses
from fsseg.training.losses import (
    alignment_loss,
    exchange_loss,
    predicted_masks,
    t_loss,
    weighted_nll,
)
from fsseg.training.step import log_probabilities
from fsseg.training.updates import update_averages


@pytest.mark.parametrize("module", [losses, log], ids=lambda module: module.__name__)
def test_the_examples_are_true(module):
    ran = doctest.testmod(module)
    assert ran.attempted and not ran.failed


def test_weighted_nll_by_hand():
    probability = torch.tensor([[0.9, 0.2], [0.6, 0.5]])  # of the foreground
    target = torch.tensor([[1, 0], [0, 1]])
    log_probability = torch.stack([1 - probability, probability])[None].log()
    terms = [(1.0, 0.9), (0.1, 0.8), (0.1, 0.4), (1.0, 0.5)]
    expected = sum(-w * math.log(p) for w, p in terms) / sum(w for w, _ in terms)
    assert weighted_nll(log_probability, target[None], 0.1).item() == pytest.approx(
        expected, rel=1e-6
    )


def test_modes_of_the_probabilities():
    logits = torch.randn(1, 2, 4, 4)
    reference = log_probabilities(logits, (16, 16), "reference").exp()
    resized = torch.nn.functional.interpolate(
        logits.softmax(1), size=(16, 16), mode="bilinear", align_corners=True
    )
    assert torch.allclose(reference, resized, atol=1e-6)
    default = log_probabilities(logits, (16, 16), "default").exp()
    assert torch.allclose(default.sum(1), torch.ones(1, 16, 16), atol=1e-6)
    assert not torch.allclose(default, reference, atol=1e-2)


def test_predicted_masks_are_hard_and_a_tie_is_background():
    logits = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1).repeat(1, 1, 1, 2)
    logits[..., 1] = 0
    assert predicted_masks(logits)[0, :, 0].tolist() == [[0.0, 0.0], [1.0, 0.0]]


def marked_support(masks, shared=False):
    return Support(torch.zeros(masks.shape), masks, torch.zeros(masks.shape[:2]), shared)


@pytest.mark.parametrize("mode", ["default", "reference"])
@pytest.mark.parametrize("shared", [False, True])
def test_alignment_leaves_out_the_ways_that_were_not_predicted(mode, shared):
    """Three ways, of which the second is nowhere in the prediction: only the others have to segment the support."""
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(1, 6, 4, 4, generator=generator)
    logits = torch.randn(1, 4, 4, 4, generator=generator)
    logits[:, 2] = -50
    regions = torch.randint(0, 4, (1, 16, 16), generator=generator)
    masks = torch.stack([regions == way for way in (1, 2, 3)])
    slices = torch.randn(1 if shared else 3, 6, 4, 4, generator=generator)
    head = Tpm(initial_threshold=-2.0)
    winner = logits[0].argmax(dim=0)
    kept = [way for way in (1, 3)]
    pooled = [
        query[0][:, winner == way].sum(dim=1) / ((winner == way).sum() + 1e-5) for way in kept
    ]
    back = log_probabilities(
        head(slices, Prototypes(torch.stack(pooled)[:, None], torch.ones(2, 1))), (16, 16), mode
    )
    rows = [0] if shared else [0, 1, 2]
    target = torch.zeros(len(rows), 16, 16, dtype=torch.long)
    for number, way in enumerate(kept, start=1):
        for row in rows:
            if shared or row == way - 1:
                target[row][masks[way - 1, 0]] = number
    expected = torch.nn.functional.nll_loss(back, target)
    got = alignment_loss(head, logits, query, slices, marked_support(masks, shared), mode)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("mode", ["default", "reference"])
def test_alignment_loss_step_by_step(mode):
    """Predict the query, pool it under the prediction, predict the support with that, compare."""
    generator = torch.Generator().manual_seed(2)
    support, query = (
        torch.randn(1, 1, 6, 4, 4, generator=generator),
        torch.randn(1, 6, 4, 4, generator=generator),
    )
    masks = torch.rand(1, 1, 16, 16, generator=generator) > 0.6
    head = Tpm(initial_threshold=-2.0)
    logits = head(query, MaskedAverage()(support, masks))
    marked = logits[0, 1] > logits[0, 0]
    assert 0 < marked.sum() < 16
    prototype = query[0][:, marked].sum(dim=1) / (marked.sum() + 1e-5)
    back = log_probabilities(
        head(support[0], Prototypes(prototype[None, None], torch.ones(1, 1))), (16, 16), mode
    )
    expected = -torch.where(masks[0, 0], back[0, 1], back[0, 0]).mean()
    got = alignment_loss(head, logits, query, support[0], marked_support(masks), mode)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_alignment_is_zero_without_a_prediction_and_has_gradients():
    features = torch.randn(1, 6, 4, 4, requires_grad=True)
    masks = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    head = AdNet()
    nothing = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)], dim=1)
    loss = alignment_loss(head, nothing, features, features, marked_support(masks), "default")
    assert loss.item() == 0
    loss.backward()
    assert features.grad.isfinite().all()
    everything = -nothing
    alignment_loss(
        head, everything, features, features, marked_support(masks), "default"
    ).backward()
    assert features.grad.abs().sum() > 0 and head.score_threshold.softplus.grad is not None


def test_t_loss_is_t_over_alpha():
    assert t_loss(AdNet(initial_threshold=-12.0).score).item() == pytest.approx(-0.6, abs=1e-6)


def test_running_averages_follow_the_ideal_distance():
    """The ideal distance of a slice is where exactly its pixels lie nearer; here 4 of 16 at cosines of .9, the rest .1."""
    head = AdNet()
    cosines = torch.full((4, 4), 0.1)
    cosines[0] = 0.9
    foreground = 0.5 * (head.score.threshold + 20 * cosines)
    logits = torch.stack([torch.zeros(4, 4), foreground])[None].detach()
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    target[0, 0] = 1
    ideal = math.sqrt(2 - 2 * 0.5)  # the midpoint of the margins is the midpoint of the cosines
    update_averages(head.score, logits, target, rate=0.25)
    assert head.score_threshold.average_distance.item() == pytest.approx(
        0.75 * 1 + 0.25 * ideal, abs=1e-5
    )
    cosines[0] = 0.95
    logits[0, 1] = 0.5 * (head.score.threshold.detach() + 20 * cosines)
    before = head.score_threshold.average_distance.item()
    update_averages(head.score, logits, target, rate=1.0)
    assert (
        head.score_threshold.average_distance.item()
        == pytest.approx(math.sqrt(2 - 2 * 0.525), abs=1e-5)
        != before
    )


class TwoSides:
    """Mean features of each way and of what no way covers, for masks at the features' own size."""

    fixed_shape, background = False, True

    def __call__(self, features, masks, sigma=None):
        sums = (features * masks[:, :, None]).sum(dim=(1, 3, 4))
        foreground = sums / masks.sum(dim=(1, 2, 3)).clamp(min=1)[:, None]
        rest = features[0].movedim(1, -1)[~masks.any(dim=0)].mean(dim=0)
        return Prototypes(
            foreground[:, None], masks.flatten(1).any(dim=1)[:, None].float(), rest[None]
        )


class Cosines(torch.nn.Module):
    score = sigma = None

    def forward(self, features, prototypes):
        rows = torch.cat([prototypes.background, prototypes.foreground[:, 0]])
        return 20 * torch.nn.functional.cosine_similarity(
            features[:, None], rows[None, :, :, None, None], dim=2
        )


@pytest.mark.parametrize("shared", [False, True])
def test_exchanged_sides_step_by_step(shared):
    """Three ways, the second not predicted: the others are segmented one by one, pixels of other ways left out."""
    generator = torch.Generator().manual_seed(4)
    query = torch.randn(1, 6, 4, 4, generator=generator)
    logits = torch.randn(1, 4, 4, 4, generator=generator)
    logits[:, 2] = -50
    winner = logits[0].argmax(dim=0)
    regions = torch.randint(0, 4, (1, 16, 16), generator=generator)
    masks = torch.stack([regions == way for way in (1, 2, 3)])
    slices = torch.randn(1 if shared else 3, 6, 4, 4, generator=generator)
    rest = query[0][:, winner == 0].mean(dim=1)
    expected = []
    for way in (1, 3):
        row = query[0][:, winner == way].mean(dim=1)
        features = slices[0 if shared else way - 1]
        cosine = [
            torch.nn.functional.cosine_similarity(features, side[:, None, None], dim=0)
            for side in (rest, row)
        ]
        back = log_probabilities(20 * torch.stack(cosine)[None], (16, 16), "default")[0]
        pixels = [
            -back[int(masks[way - 1, 0, y, x]), y, x]
            for y in range(16)
            for x in range(16)
            if masks[way - 1, 0, y, x] or not shared or regions[0, y, x] == 0
        ]
        expected.append(torch.stack(pixels).mean())
    support = marked_support(masks, shared)
    got = exchange_loss(TwoSides(), Cosines(), logits, query, slices, support, "default")
    assert got.item() == pytest.approx(sum(expected).item() / 2, rel=1e-5)


def test_exchanged_sides_without_a_prediction():
    features = torch.randn(1, 6, 4, 4, requires_grad=True)
    nothing = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)], dim=1)
    support = marked_support(torch.ones(1, 1, 16, 16, dtype=torch.bool))
    loss = exchange_loss(TwoSides(), Cosines(), nothing, features, features, support, "default")
    loss.backward()
    assert loss.item() == 0 and features.grad.isfinite().all()
