"""Logits that are used are numbers: a component that gives others in evaluation alone is named, and scores as nothing."""

import math

import pytest
import torch
from helpers import PROTOCOLS, TinyBackbone, scans_of
from test_evaluation import results_of, scans

import fsseg
from fsseg import CeT, FssegError, MaskedAverage, Segmenter, Tpm
from fsseg.evaluation.files import Kept, write_evaluation
from fsseg.model.variants import Variant

INF = math.inf


class Head(Tpm):
    """Broken in evaluation: one cell of the seventh slice."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, features, prototypes):
        logits = super().forward(features, prototypes)
        if len(logits) > 6:
            logits[6, 1, 0, 0] = self.value
        return logits


class Backbone(TinyBackbone):
    """Broken in evaluation: NaN in the eighth slice of a query."""

    def forward(self, images):
        features = super().forward(images)
        if len(features) > 7:
            features[7] = math.nan
        return features


class Undecided(CeT):
    """A prior that is NaN."""

    def __call__(self, evidence):
        return super().__call__(evidence) + math.nan


class Refiner:
    """Puts a value into one cell."""

    def __init__(self, value):
        self.value = value

    def __call__(self, margins, volume):
        margins = margins.nan_to_num(0.0).clone()
        margins[2, 0, 1, 1] = self.value
        return margins


def evaluated(backbone=None, head=None, threshold=None, refiners=()):
    backbone = backbone or TinyBackbone()
    segmenter = Segmenter(
        backbone, MaskedAverage(), head or Tpm(), threshold or CeT(), refiners=refiners
    )
    variant = Variant("mine", segmenter.eval(), "of mine")
    return results_of(backbone, PROTOCOLS["ep2"], [variant], scans())[1]


@pytest.mark.parametrize("refiners", [(), (Refiner(1.0),)])
@pytest.mark.parametrize("value", [math.nan, INF, -INF])
def test_a_head_that_gives_no_numbers_is_named(value, refiners):
    """Also where a refiner hides it."""
    with pytest.raises(FssegError, match="row 'mine', case q, slice 6: the logits of head Head"):
        evaluated(head=Head(value), refiners=refiners)


def test_a_backbone_that_gives_no_numbers_is_named():
    with pytest.raises(FssegError, match="case q, slice 7: the features of backbone Backbone"):
        evaluated(Backbone())


def test_a_threshold_and_a_refiner_that_give_nan_are_named():
    with pytest.raises(FssegError, match="case q: the priors of threshold Undecided"):
        evaluated(threshold=Undecided())
    with pytest.raises(FssegError, match="case q: the margins of refiner Refiner are not finite"):
        evaluated(refiners=[Refiner(math.nan)])


@pytest.mark.parametrize("value", [INF, -INF])
def test_refiners_may_be_certain(value):
    results = evaluated(refiners=[Refiner(value)])
    assert results[0].decisions.margins[2, 0, 1, 1] == value
    # The cell is of four by four pixels, whose middle is nearer to it than to any other.
    assert (results[0].labels[2, 5:7, 5:7] == (value > 0)).all()


def test_nothing_is_scored_of_what_is_refused(tmp_path):
    """The error comes before the first result, so that no file has a line of it."""

    def results():
        yield from evaluated(head=Head(math.nan))

    with pytest.raises(FssegError):
        write_evaluation(tmp_path, results(), {}, Kept(False, False, False))
    assert not list(tmp_path.iterdir())


def fitted_predictor(results):
    predictor = fsseg.load_predictor(results.path, variant="CE-T", device="cpu")
    root = scans_of(results)
    shown = fsseg.read_volume(root / "image_10.nii.gz", root / "label_10.nii.gz")
    return predictor.fit(shown), fsseg.read_volume(root / "image_2.nii.gz")


def test_a_prediction_names_the_component(finished_run, monkeypatch):
    fitted, scan = fitted_predictor(finished_run())
    head = fitted.predictor.segmenter.head
    forward = head.forward
    monkeypatch.setattr(head, "forward", lambda *given: forward(*given) * math.nan)
    with pytest.raises(FssegError, match="predict: scan image_2: the logits of head .*of fsseg"):
        fitted.predict(scan)
    monkeypatch.undo()
    monkeypatch.setattr(fitted.predictor.segmenter, "refiners", (Refiner(math.nan),))
    with pytest.raises(FssegError, match="predict: scan image_2: the margins of refiner Refiner"):
        fitted.predict(scan)


def test_a_prediction_may_be_certain(finished_run, monkeypatch):
    fitted, scan = fitted_predictor(finished_run())
    monkeypatch.setattr(fitted.predictor.segmenter, "refiners", (Refiner(-INF),))
    assert fitted.predict(scan).labels.shape == scan.image.shape


def test_the_hosts_waits_are_what_they_were(monkeypatch):
    """One transfer of margins for each kind of scoring, and one of priors for each row, by task."""
    moves = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda given: moves.append(given.shape) or cpu(given))
    results = evaluated()
    floats = [shape for shape in moves if len(shape) in (2, 4)]
    assert len(floats) == 2 * len(results)
