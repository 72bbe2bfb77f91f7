"""Figures: what they draw, checked against numbers that are worked out by hand or another way."""

import json

import numpy as np
import pytest
import torch

from fsseg import FssegError
from fsseg.report import plots, run_plots


@pytest.fixture(scope="module")
def results(finished_run):
    return finished_run({"protocol.fold": "all"})


def test_a_tied_prototype_tells_the_typical_from_everything_else():
    """The panels' posteriors: high at prototypes, low far from all of them; prototypes apart have no such place."""
    posteriors = [axes.images[0].get_array() for axes in plots.theory().axes[1:5]]
    corner, middle = (0, 0), (90, 90)
    standard, one, three, two = posteriors
    assert standard[90, 0] > 0.99 and standard[90, -1] < 0.01  # however far from both
    assert one[middle] > 0.5 > 0.01 > one[corner]
    assert three[middle] < three[129, 90] and three[corner] < 0.01
    assert two[90, 57] > 0.5 and two[90, 123] < 0.1 and two[corner] < 0.01
    # By hand at the prototype: (1 / sigma_F^2) / (1 / sigma_F^2 + 1 / sigma_B^2) in two dimensions.
    assert one[middle] == pytest.approx(1 / (1 + (0.55 / 1.6) ** 2), abs=1e-5)


def test_prior_curves_by_hand():
    margins, truth = torch.tensor([2.0, 1.0, -1.0, -3.0]), torch.tensor([True, False, True, False])
    found = plots.prior_curves(margins, truth, torch.tensor([-1.5, 0.0, 1.5]))
    assert found["dice"].tolist() == pytest.approx([2 / 3, 0.5, 0.8])
    assert found["ratio"].tolist() == pytest.approx([0.5, 1.0, 1.5])
    losses = [np.log1p(np.exp(-m if t else m)) for m, t in zip(margins.tolist(), truth.tolist())]
    assert found["cross_entropy"][1].item() == pytest.approx(np.mean(losses))


def test_least_cross_entropy_is_not_best_dice():
    """The figure's point: the ideal proportion comes closer to the best Dice than cross-entropy does."""
    marks = {
        line.get_label(): line.get_xdata()[0] for line in plots.threshold_curves().axes[0].lines[2:]
    }
    best = marks["best Dice"]
    assert abs(marks["ideal: predicted = true"] - best) < abs(marks["least cross-entropy"] - best)


def test_the_dots_are_the_scores(results):
    figure = plots.scores(results, "bright")
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    frame = results.frame
    for name, line in zip(results.variants, dots):
        own = frame[(frame["variant"] == name) & (frame["class_name"] == "bright")]
        assert sorted(line.get_xdata()) == pytest.approx(sorted(100 * own["dice"]))
    with pytest.raises(FssegError, match="no class 'brigt'.*did you mean 'bright'"):
        plots.scores(results, "brigt")


def test_the_line_of_lin_est_is_what_it_learned(results):
    """A figure for each fold; the curve over the location is the plane at the mean support size."""
    figures = plots.calibrations(results)
    assert len(figures) == 5
    for number, figure in enumerate(figures.values()):
        found = json.loads(
            (results.path / f"fold{number}" / "training0" / "calibration.json").read_text()
        )
        place, size, constant = found["states"]["LinEst"]["coefficients"]
        line = figure.axes[1].lines[1]
        typical = np.mean([np.mean(sample["sizes"]) for sample in found["samples"]])
        across = line.get_xdata()
        assert np.allclose(
            line.get_ydata(), place * (across - 0.5) ** 2 + size * typical + constant
        )


def test_training_curves_have_a_line_for_each_fold(results):
    figure = plots.training_curves(results)
    assert len(figure.axes[1].lines) == 5 and figure.axes[0].get_xlabel() == "step"


def test_a_validation_curve_has_axes_of_its_own(results, monkeypatch):
    """Each measurement is a point in percent; lines of the log that have none do not count."""
    lines = [
        {"step": 25, "learning_rate": 0.1, "query": 1.0},
        {"step": 30, "validation_ideal": 0.75, "validation_estimated": 0.5},
        {"step": 60, "validation_ideal": 0.8, "validation_estimated": 0.25},
    ]
    monkeypatch.setattr(run_plots, "_logs", lambda results: [(0, lines)])
    figure = plots.training_curves(results)
    ideal, estimated = figure.axes[2].lines
    assert ideal.get_xdata().tolist() == estimated.get_xdata().tolist() == [30, 60]
    assert estimated.get_ydata().tolist() == [50, 25] and ideal.get_ydata()[0] == 75
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == [
        "query loss",
        "validation under ideal priors",
        "validation under estimated priors",
    ]


@pytest.mark.slow
def test_many_trainings_leave_room_for_their_curves(finished_run):
    """Two kinds of training and five folds: a colour for each kind, and a legend that does not know of folds."""
    adnet = {"name": "ADNet", "head": "adnet", "threshold": "ce_t", "training": {"t_loss": 1.0}}
    ours = {"name": "CE-T", "threshold": "ce_t"}
    results = finished_run({"protocol.fold": "all", "variants": [ours, adnet]})
    figure = plots.training_curves(results)
    left, right = figure.axes
    figure.canvas.draw()
    assert len(right.lines) == 10 and len({line.get_color() for line in right.lines}) == 2
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(told) == len(set(told)) and {
        "training of CE-T, query loss",
        "training of ADNet, T loss",
    } <= set(told)
    assert left.get_window_extent().height > 0.5 * figure.bbox.height
