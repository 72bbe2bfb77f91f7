"""Thresholds are fitted from Python: `fsseg.calibrate`, from a dataset's scans to coefficients."""

import doctest

import numpy as np
import pytest
import torch
from helpers import TinyBackbone

import fsseg
from fsseg import AvgEst, CeT, EpisodeSampler, LinEst, MaskedAverage, Segmenter, Tpm
from fsseg.datasets import AbdomenPhantom
from fsseg.recipe.tables import GridTable
from fsseg.training import calibration, scans

SEED, EPISODES = 3, 21


@pytest.fixture(scope="module")
def sampler():
    dataset = AbdomenPhantom(count=2, size=64)
    return EpisodeSampler(fsseg.training_scans(dataset, "zscore", cases=dataset.cases[:2]))


def segmenter(threshold, backbone=None):
    return Segmenter(backbone or TinyBackbone(), MaskedAverage(), Tpm(), threshold)


def by_hand(sampler, segmenter):
    """Regressors and ideal log-odds of each episode: the middle between two neighbours in a sorted list of margins."""
    regressors, ideal = [], []
    for number in range(EPISODES):
        draw = sampler.draw(np.random.default_rng([SEED, 2, number]))
        episode = sampler.make(draw)
        with torch.no_grad():
            logits = segmenter(episode.support, episode.query).log_probabilities
        margins = sorted((logits[0, 1] - logits[0, 0]).flatten().tolist(), reverse=True)
        count = int(episode.target.sum())
        ideal.append(-(margins[count - 1] + margins[count]) / 2 if count else -margins[0])
        location = draw.query.slice / (len(sampler.scans[draw.query.scan].images) - 1)
        regressors.append([(location - 0.5) ** 2, episode.support.masks.float().mean().item(), 1])
    return np.array(regressors), np.array(ideal)


def test_thresholds_learn_from_the_ideal_priors_of_the_episodes(sampler):
    backbone = TinyBackbone()
    average, linear, even = (segmenter(one, backbone) for one in (AvgEst(), LinEst(), CeT()))
    found = fsseg.calibrate(backbone, [average, linear, even], sampler, EPISODES, seed=SEED)
    design, ideal = by_hand(sampler, even)
    prior = np.clip(1 / (1 + np.exp(-ideal)), 0.001, 0.999)
    assert average.threshold.prior == pytest.approx(prior.mean(), abs=1e-4)
    expected = np.linalg.lstsq(design, np.log(prior / (1 - prior)), rcond=None)[0]
    assert linear.threshold.coefficients == pytest.approx(expected.tolist(), abs=2e-2)
    assert list(found.states) == ["segmenter 0", "segmenter 1"]
    assert found.states["segmenter 1"] == {"coefficients": linear.threshold.coefficients}
    assert [sample.prior for sample in found.samples][::2] == pytest.approx(ideal, abs=1e-4)


class Normalised(TinyBackbone):
    """Has a mode in training."""

    def __init__(self):
        super().__init__()
        self.normalise = torch.nn.BatchNorm2d(self.channels)

    def forward(self, images):
        return self.normalise(super().forward(images))


def test_a_network_in_training_is_calibrated_as_in_evaluation_and_stays_in_training(sampler):
    backbone = Normalised()
    backbone.convolution.eval()
    in_training = segmenter(AvgEst(), backbone)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    fsseg.calibrate(backbone, [in_training], sampler, 4)
    assert backbone.normalise.training and not backbone.convolution.training
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    in_evaluation = segmenter(AvgEst(), backbone).eval()
    fsseg.calibrate(backbone, [in_evaluation], sampler, 4)
    assert in_training.threshold.prior == in_evaluation.threshold.prior


def test_scans_are_those_of_a_run_without_their_labels():
    """z-scores over each scan, or over all where the dataset says so; on the working grid; cut by the method given."""

    class Halves:
        def __call__(self, volume, dataset):
            regions = np.ones(volume.image.shape, dtype=np.int32)
            regions[:, : volume.image.shape[1] // 2] = 2
            return regions

    class Together(AbdomenPhantom):
        statistics = "training"

    grid = GridTable(max_size=32)
    for cls in (AbdomenPhantom, Together):
        dataset = cls(count=3, size=64)
        read = fsseg.training_scans(
            dataset, "zscore", cases=dataset.cases[1:], supervoxels=Halves(), grid=grid
        )
        assert [scan.case for scan in read] == ["phantom_02", "phantom_03"]
        assert all(scan.slice_size == (32, 32) for scan in read)
        assert read[0].table.ids.tolist() == [1, 2]
        parts = [read[0].images, read[1].images]
        if dataset.statistics == "training":
            assert abs(parts[0].mean()) > 1e-4
            parts = [torch.cat(parts)]
        for images in parts:
            assert images.mean().item() == pytest.approx(0, abs=1e-5)
            assert images.std(correction=0).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("module", [calibration, scans])
def test_examples_in_docstrings(module):
    ran = doctest.testmod(module)
    assert ran.attempted and not ran.failed
