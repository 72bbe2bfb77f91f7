"""Metrics that ask for probabilities: what they are handed, and the calibration error against a slow count."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers import PROTOCOLS, TinyBackbone
from hypothesis import given
from hypothesis import strategies as st

import fsseg
from fsseg import CeT, Fixed, FssegError, MaskedAverage, Segmenter, Smooth3d, Tpm
from fsseg.data.folds import Fold
from fsseg.data.grids import WorkingGrid
from fsseg.evaluation.assignments import assign
from fsseg.evaluation.calibration_error import CalibrationError
from fsseg.evaluation.evaluate import evaluate
from fsseg.evaluation.metrics import Iou
from fsseg.evaluation.scans import EvaluationScan
from fsseg.model.variants import Variant

SPACING = (1.0, 1.0, 1.0)
FOLD = Fold(0, "s", ("q",), ("t",))


def counted_slowly(probability, actual, bins, of):
    """Voxel by voxel, with the bins of Guo et al. as intervals (m - 1, m] / M."""
    voxels = []
    for p, is_class in zip(probability.ravel().tolist(), actual.ravel().tolist()):
        if math.isnan(p):
            continue
        if of == "class":
            voxels.append((p, is_class))
        else:
            voxels.append((max(p, 1 - p), (p > 0.5) == is_class))
    error = 0.0
    for number in range(bins):
        low, high = Fraction(number, bins), Fraction(number + 1, bins)
        inside = [v for v in voxels if low < v[0] <= high or (number == 0 and v[0] == 0)]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(p for p, _ in inside) / len(inside)
            error += len(inside) / len(voxels) * abs(accuracy - confidence)
    return error


@given(st.integers(0, 10**6), st.integers(1, 20), st.sampled_from(["decision", "class"]))
def test_the_calibration_error_is_the_published_one(seed, bins, of):
    rng = np.random.default_rng(seed)
    probability = rng.choice([0, 0.03, 0.31, 0.5, 0.62, 0.97, 1, rng.random()], (3, 4, 4))
    probability = probability.astype(np.float32)
    probability[1] = np.nan
    actual = rng.random((3, 4, 4)) < 0.4
    actual[0, 0, 0] = True
    value = CalibrationError(bins=bins, of=of)(probability > 0.5, actual, SPACING, probability)
    assert value == pytest.approx(counted_slowly(probability, actual, bins, of), abs=1e-7)


def scan_of(case, own=16):
    """A scan whose classes 1 and 2 are blocks; its own grid may be another than the working one of 16 x 16."""
    rng = np.random.default_rng(list(case.encode()))
    labels = torch.zeros(6, 16, 16, dtype=torch.uint8)
    labels[1:5, 2:8, 2:8], labels[2:5, 9:14, 9:14] = 1, 2
    images = torch.from_numpy(rng.normal(size=labels.shape).astype(np.float32)) + 2 * labels
    grid = WorkingGrid((16, 16), (16, 16), (16, 16))
    truth = labels
    if own != 16:
        grid = WorkingGrid((own, own), (20, 20), (16, 16))  # resized, then cropped
        truth = torch.zeros(6, own, own, dtype=torch.uint8)
        truth[1:5, own // 8 : own // 2, own // 8 : own // 2] = 1
    return EvaluationScan(case, images, torch.linspace(0, 1, 6), labels, truth, grid)


class Keeping:
    """A metric that keeps what it is handed."""

    range, best, symmetric, unit, probabilities = (0.0, 1.0), 1.0, True, "", True

    def __init__(self):
        self.kept = []

    def __call__(self, predicted, actual, spacing, probability):
        self.kept.append((predicted, probability))
        return 0.5


@pytest.mark.parametrize("own", [16, 40])
@pytest.mark.parametrize("protocol", ["ep2", "ep2_multi", "alp_3chunk"])
@pytest.mark.parametrize("refiners", [(), (Smooth3d(),)])
def test_probabilities_decide_what_is_predicted(own, protocol, refiners):
    """The label is the class of the largest probability; they sum to one with the background; NaN where nothing is segmented."""
    scans = {case: scan_of(case, own) for case in "sq"}
    segmenter = Segmenter(
        TinyBackbone(stride=2), MaskedAverage(), Tpm(), Fixed(prior=0.6), refiners=refiners
    )
    variants = [Variant("a", segmenter.eval(), "map")]
    assigned = assign(PROTOCOLS[protocol], FOLD, scans, {1: "one", 2: "two"}, seed=0)
    metrics = {"keeping": Keeping(), "iou": Iou()}
    results = evaluate(
        segmenter.backbone,
        variants,
        assigned,
        scans,
        FOLD,
        seed=0,
        device=torch.device("cpu"),
        metrics=metrics,
    )
    for result in results:
        handed, metrics["keeping"].kept = metrics["keeping"].kept, []
        assert len(handed) == len(result.scores)
        segmented = np.zeros(6, dtype=bool)
        segmented[result.decisions.slices] = True
        probabilities = np.stack([probability for _, probability in handed])
        assert np.isnan(probabilities).all(axis=(0, 2, 3)).tolist() == (~segmented).tolist()
        inside = probabilities[:, segmented]
        assert (inside >= 0).all() and (inside.sum(axis=0) <= 1 + 1e-5).all()
        background = 1 - inside.sum(axis=0)
        for way, (predicted, _) in enumerate(handed):
            others = np.delete(np.concatenate([background[None], inside]), way + 1, axis=0)
            largest = inside[way] > others.max(axis=0)
            unclear = np.isclose(inside[way], others.max(axis=0), atol=1e-5)
            assert ((largest == predicted[segmented]) | unclear).all()
            assert 0 < predicted.sum() < predicted.size
        assert result.scores[0].measures["keeping"] == 0.5


def test_nobody_makes_probabilities_that_nobody_asks_for(monkeypatch):
    monkeypatch.setattr("fsseg.evaluation.segmentation._probabilities", None)
    scans = {case: scan_of(case) for case in "sq"}
    segmenter = Segmenter(TinyBackbone(stride=2), MaskedAverage(), Tpm(), CeT()).eval()
    assigned = assign(PROTOCOLS["ep2"], FOLD, scans, {1: "one"}, seed=0)
    made = evaluate(
        segmenter.backbone, [Variant("a", segmenter, "map")], assigned, scans, FOLD, seed=0,
        device=torch.device("cpu"), metrics={"iou": Iou()},
    )  # fmt: skip
    assert len(list(made)) == 1


def test_a_run_measures_them_and_later_it_is_too_late(finished_run):
    results = finished_run({"protocol.name": "own_slice", "protocol.folds": "disjoint2"}, cases=6)
    with pytest.raises(
        FssegError, match="metric 'calibration_error' of fsseg .* asks for probabilities"
    ):
        fsseg.compare([results.path], metric="calibration_error")
    assert fsseg.registry().build("metric", "calibration_error", {"bins": 3}).bins == 3
