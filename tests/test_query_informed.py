"""Extractors that see the query: their prototypes in training, calibration, evaluation and prediction."""

import attention_plugin
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention_plugin import CrossAttention
from helpers import PROTOCOLS, TinyBackbone, scans_of
from safetensors.torch import load_file
from test_evaluation import results_of, scans
from test_training import FAST, PLAIN, losses, sampler, training

import fsseg
from fsseg import (
    CeT,
    FssegError,
    LinEst,
    MaskedAverage,
    Prototypes,
    Query,
    Segmenter,
    Support,
    Tpm,
)
from fsseg.model.scoring import SLICES_AT_ONCE, prototypes_of, score
from fsseg.model.variants import Variant
from fsseg.recipe.tables import TrainingTable
from fsseg.testing import samples
from fsseg.training.loop import Training, train_together
from fsseg.training.losses import aligned, alignment_loss, exchange_loss, predicted_masks


class Middle:
    """Half of the support's mean feature and half of the mean of the query's slice; nothing is learned."""

    per_query = True
    fixed_shape = True
    background = False

    def __init__(self):
        self.calls = []

    def __call__(self, features, masks, sigma, query):
        self.calls.append(len(query))
        shown = MaskedAverage()(features, masks)
        ways = len(masks)
        mean = query.mean(dim=(2, 3))[:, None, None].expand(-1, ways, -1, -1)
        weights = shown.weights.expand(len(query), -1, -1)
        return Prototypes((shown.foreground + mean) / 2, weights)


def by_hand(head, features, masks, query):
    """The logits of each slice with its own prototypes, in a loop."""
    shown = MaskedAverage()(features, masks)
    rows = []
    for of_slice in query:
        own = (shown.foreground + of_slice.mean(dim=(1, 2))) / 2
        rows.append(head(of_slice[None], Prototypes(own, shown.weights))[0])
    return torch.stack(rows)


@pytest.mark.parametrize("ways", [1, 3])
def test_each_slice_is_scored_with_its_own_prototypes(ways):
    """Of more slices than are made at once."""
    backbone, middle, head = TinyBackbone(), Middle(), Tpm()
    count = SLICES_AT_ONCE + 5
    query = Query(samples.random(count, 32, 32, seed=3), torch.linspace(0, 1, count))
    masks = samples.masks(ways, 2)
    support = Support(samples.random(ways, 2, 32, 32), masks, torch.full((ways, 2), 0.5))
    segmenter = Segmenter(backbone, middle, head, CeT()).eval()
    with torch.no_grad():
        labels = segmenter(support, query).labels
        slices = backbone(support.slices[:, None].expand(-1, 3, -1, -1))
        features = backbone(query.images[:, None].expand(-1, 3, -1, -1))
        expected = by_hand(head, support.spread(slices), masks, features)
    large = F.interpolate(expected, size=(32, 32), mode="bilinear")
    margins = large[:, 1:].amax(dim=1) - large[:, 0]
    assert torch.equal(labels > 0, margins > 0) and (labels > 0).any() and (labels == 0).any()
    assert middle.calls == [SLICES_AT_ONCE, 5]


def test_the_learned_one_looks_at_the_query_and_can_be_learned():
    extractor = CrossAttention(channels=8)
    features, masks = samples.random(2, 1, 8, 8, 8), samples.masks(2)
    query = samples.random(3, 8, 8, 8, seed=1)
    made = prototypes_of(extractor, Tpm(), features, masks, query)
    assert made.foreground.shape == (3, 2, 1, 8)
    assert not torch.allclose(made.foreground[0], made.foreground[1])
    score(Tpm(), query, made).sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in extractor.parameters())


def test_prototypes_by_slice_that_are_not_declared_are_refused_and_the_other_way_round():
    class Silent(Middle):
        per_query = False

        def __call__(self, features, masks, sigma):
            return super().__call__(features, masks, sigma, torch.ones(2, 8, 8, 8))

    class Blind(Middle):
        def __call__(self, features, masks, sigma, query):
            return MaskedAverage()(features, masks)

    given = (samples.random(1, 1, 8, 8, 8), samples.masks(), torch.ones(2, 8, 8, 8))
    with pytest.raises(FssegError, match=r"prototypes Silent: .*\(2, 1, 1, 8\).*per_query = False"):
        prototypes_of(Silent(), Tpm(), *given)
    with pytest.raises(FssegError, match=r"prototypes Blind: .*\(1, 1, 8\), expected slice, way"):
        prototypes_of(Blind(), Tpm(), *given)


def rows(backbone, extractor):
    threshold = CeT()
    segmenter = Segmenter(backbone, extractor, Tpm(), threshold).eval()
    plain = Segmenter(backbone, MaskedAverage(), Tpm(), CeT()).eval()
    return [Variant("mine", segmenter, "mine"), Variant("plain", plain, "plain")]


@pytest.mark.parametrize("name", ["ep2", "ep1", "ep2_multi"])
def test_evaluation_is_the_segmenter_on_each_part(name):
    backbone, made = TinyBackbone(), scans()
    variants = rows(backbone, Middle())
    assigned, results = results_of(backbone, PROTOCOLS[name], variants, made)
    mine = variants[0].segmenter
    for result in [result for result in results if result.scores[0].variant == "mine"]:
        classes = tuple(score.class_name for score in result.scores)
        for part in assigned:
            of_task = (part.query_case, part.support_case, tuple(n for _, n in part.classes))
            if of_task != (result.scores[0].case, result.scores[0].support_case, classes):
                continue
            at = list(range(12) if part.query_slices is None else part.query_slices)
            scan = made[part.query_case]
            with torch.no_grad():
                alone = mine(part.support, Query(scan.images[at], scan.location[at])).labels
            assert np.array_equal(result.labels[at] > 0, alone > 0)


def attended(speed):
    options = TrainingTable(steps=25, learning_rate=1e-2, classes=2)
    torch.manual_seed(0)
    return Training(
        TinyBackbone(), Middle(), Tpm(), sampler(), options,
        seed=0, mode="default", device=torch.device("cpu"), speed=speed,
    )  # fmt: skip


def test_recorded_steps_train_as_plain_ones():
    plain, fast = train_together([attended(PLAIN), attended(FAST)])
    np.testing.assert_allclose(losses(plain), losses(fast), atol=1e-4)
    blind = train_together([training(PLAIN, steps=25, classes=2)])[0]
    assert not np.allclose(losses(plain), losses(blind), atol=1e-3), "the query is looked at"
    assert (losses(plain)[:, 1] > 0).all(), "the support is segmented from the query, too"


@pytest.mark.parametrize("shared", [True, False])
def test_query_and_support_change_places(shared):
    """Against a loop: each labelled slice with the prototypes that were made for it."""
    ways, shots = 2, 2
    images = samples.random(1 if shared else ways, shots, 32, 32).expand(ways, -1, -1, -1)
    support = Support(images, samples.masks(ways, shots), torch.zeros(ways, shots), shared)
    slices = samples.random(shots if shared else ways * shots, 8, 8, 8, seed=1)
    query, head = samples.random(1, 8, 8, 8, seed=2), Tpm()
    logits = samples.random(1, 3, 8, 8, seed=3)
    given = (logits, query, slices, support, "default")
    got = exchange_loss(Middle(), head, *given)
    predicted = predicted_masks(logits)[0] > 0
    terms = []
    for way in range(ways):
        total, count = 0.0, 0
        for shot in range(shots):
            of_slice = slices[shot if shared else way * shots + shot][None]
            seen = MaskedAverage()(query[None], predicted[way][None, None])
            own = (seen.foreground + of_slice.mean(dim=(2, 3))) / 2
            scored = head(of_slice, Prototypes(own, seen.weights))
            likely = F.interpolate(scored, (32, 32), mode="bilinear").log_softmax(1)[0]
            mask = support.masks[way, shot]
            others = support.masks[:, shot].any(dim=0) & ~mask if shared else mask & False
            total += -torch.where(mask, likely[1], likely[0])[~others].sum()
            count += int((~others).sum())
        terms.append(total / count)
    torch.testing.assert_close(got, torch.stack(terms).mean())
    assert torch.equal(aligned(Middle(), head, *given), got)
    assert not torch.isclose(got, alignment_loss(head, *given))


def test_calibration_hands_it_the_query():
    backbone, middle = TinyBackbone(), Middle()
    segmenters = [Segmenter(backbone, made, Tpm(), LinEst()) for made in (middle, MaskedAverage())]
    calibration = fsseg.calibrate(backbone, segmenters, sampler(), episodes=4)
    mine, plain = [
        [sample.prior for sample in calibration.samples if sample.scoring == f"segmenter {number}"]
        for number in (0, 1)
    ]
    assert middle.calls == [1] * 4 and not np.allclose(mine, plain)


def test_a_learned_one_is_trained_and_predicts_as_the_run_did(tmp_path, finished_run):
    """Trained, calibrated, evaluated and exported with weights of its own; then predicted, voxel by voxel."""
    plain = finished_run()
    root = scans_of(plain)
    with_channels = {"name": "cross_attention", "channels": plain_channels(plain)}
    fsseg.choose_plugins(files=[attention_plugin.__file__])
    try:
        recipe = fsseg.load_recipe(
            plain.path / "recipe.toml",
            {
                "training.prototypes": with_channels,
                "training.steps": 2,
                "calibration.episodes": 4,
                "variants": [{"name": "mine", "prototypes": with_channels, "threshold": "lin_est"}],
            },
        )
        results = fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu")
        file = fsseg.export_predictor(results.path, tmp_path / "it.safetensors")
        started = CrossAttention(channels=with_channels["channels"]).state_dict()
        kept = load_file(file)
        assert started.keys() == {"ask.weight", "ask.bias", "share"}
        for name, value in started.items():
            assert not torch.equal(kept[f"prototypes.{name}"], value)
        scored = results.scores[0]
        shown = [root / f"{what}_{scored.support_case}.nii.gz" for what in ("image", "label")]
        value = {"bright": 1, "dark": 2}[scored.class_name]
        for source in (results.path, file):
            fitted = fsseg.load_predictor(source, device="cpu").fit(
                fsseg.read_volume(*shown), slices=scored.support_slices, classes={value: "it"}
            )
            found = fitted.predict(fsseg.read_volume(root / f"image_{scored.case}.nii.gz"))
            assert int((found.labels == value).sum()) == scored.predicted
    finally:
        fsseg.choose_plugins(files=[], without=[])


def plain_channels(results):
    recipe = fsseg.load_recipe(results.path / "recipe.toml")
    return recipe.backbone.build("backbone").channels
