"""Refiners that answer on the pixels of the image: the order of a chain, what each sees, and what a run makes of it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from boxes_plugin import Boxes, box_around
from helpers import TinyBackbone
from scipy import ndimage

import fsseg
from fsseg import (
    CeT,
    Component3d,
    FssegError,
    MaskedAverage,
    Position,
    Query,
    QueryInformed,
    Segmenter,
    Smooth3d,
    Support,
    Tpm,
)
from fsseg.evaluation.files import read_decisions
from fsseg.model.chain import refine
from fsseg.report import viewer
from fsseg.report.viewer import choose_exhibits, viewer_data
from fsseg.testing import samples


class Seen:
    """Notes what it gets, and adds something."""

    def __init__(self, resolution=None, add=0.5):
        self.margins, self.add = None, add
        if resolution:
            self.resolution = resolution

    def __call__(self, margins, volume):
        self.margins = margins
        assert volume.support_features.shape[-2:] == (8, 8)
        return margins + self.add


def segmented(*refiners):
    segmenter = Segmenter(TinyBackbone(), MaskedAverage(), Tpm(), CeT(), refiners=refiners).eval()
    support = Support(samples.random(1, 1, 32, 32), samples.masks(), torch.full((1, 1), 0.5))
    query = Query(samples.random(5, 32, 32, seed=1), torch.linspace(0, 1, 5))
    with torch.no_grad():
        return segmenter(support, query)


def enlarged(margins):
    return F.interpolate(margins, size=(32, 32), mode="bilinear")


def test_each_refiner_sees_what_came_before_on_its_own_grid():
    chain = [Seen(), Seen("any"), Seen("image"), Seen("any"), Seen("image")]
    found = segmented(*chain)
    cells, same, pixels, then, last = [seen.margins for seen in chain]
    assert cells.shape == (5, 1, 8, 8) and torch.equal(same, cells + 0.5)
    assert torch.equal(pixels, enlarged(same + 0.5))
    assert torch.equal(then, pixels + 0.5) and torch.equal(last, then + 0.5)
    assert torch.equal(found.refined, last + 0.5)
    assert torch.equal(found.labels > 0, found.refined[:, 0] > 0)


def test_support_and_query_may_have_slices_of_different_sizes():
    seen = Seen("image")
    parts = (TinyBackbone(), MaskedAverage(), Tpm(), CeT())
    support = Support(samples.random(1, 1, 32, 32), samples.masks(), torch.full((1, 1), 0.5))
    query = Query(samples.random(2, 48, 40), torch.linspace(0, 1, 2))
    with torch.no_grad():
        found = Segmenter(*parts, refiners=[seen]).eval()(support, query)
    assert seen.margins.shape == (2, 1, 48, 40) and found.labels.shape == (2, 48, 40)


def test_the_pixels_decide():
    """By a box that no interpolation of cells could give."""
    before = segmented(Seen(add=0.0))
    expected = torch.stack([box_around(mask) for mask in before.labels > 0])
    found = segmented(Boxes())
    assert torch.equal(found.labels > 0, expected) and found.refined.shape == (5, 1, 32, 32)
    assert not torch.equal(expected, before.labels > 0)


def test_a_refiner_on_features_comes_before():
    parts = (TinyBackbone(), MaskedAverage(), Tpm(), CeT())
    sentence = "refiner 'position' of fsseg .* works on the features and comes after refiner Boxes"
    for first in (Position(), QueryInformed()):
        Segmenter(*parts, refiners=[first, Boxes(), Component3d(), Smooth3d()])
    with pytest.raises(FssegError, match=sentence):
        Segmenter(*parts, refiners=[Boxes(), Component3d(), Position()])
    with pytest.raises(FssegError, match='its resolution is .pixels., expected "features" or'):
        Segmenter(*parts, refiners=[Seen("pixels")])


def test_margins_of_another_shape_are_refused():
    with pytest.raises(
        FssegError, match=r"Cropped: it gives .*\(5, 1, 4, 4\), expected \(5, 1, 8, 8\)"
    ):

        class Cropped(Seen):
            def __call__(self, margins, volume):
                return margins[..., :4, :4]

        segmented(Cropped())


def test_finer_margins_come_to_the_cells_of_the_features():
    """Where a whole segmenter answers by pixel: the mean around each cell, weighted by nearness."""
    seen = Seen()
    fine = torch.zeros(5, 1, 32, 32)
    fine[..., 16:] = 4.0
    refine([seen], fine, samples.volume(), align_corners=False)
    assert seen.margins.shape == (5, 1, 8, 8)
    left, right = seen.margins[..., :3], seen.margins[..., 5:]
    assert (left == 0).all() and torch.allclose(right, torch.full_like(right, 4.0))


def test_smoothing_counts_pixels_where_it_gets_pixels():
    margins, volume = samples.margins(size=32), samples.volume()
    between, row, column = volume.query.spacing
    found = Smooth3d(through=4.0, within=3.0)(margins, volume)
    sigmas = (4 / between, 0, 3 / row, 3 / column)
    expected = ndimage.gaussian_filter(margins.numpy(), sigmas, mode="nearest")
    np.testing.assert_allclose(found, expected, atol=1e-6)


ROWS = [
    {"name": "plain", "threshold": "ce_t"},
    {"name": "boxed", "threshold": "ce_t", "refiners": ["boxes", "component_3d"]},
]


@pytest.fixture(scope="module")
def boxed(finished_run, tmp_path_factory):
    """A run with a row that ends on pixels."""
    folder = tmp_path_factory.mktemp("boxed")
    changes = {"training.steps": 2, "variants": ROWS}
    recipe = fsseg.load_recipe(finished_run().path / "recipe.toml")
    fsseg.choose_plugins(files=[__file__.replace("test_image_refiners", "boxes_plugin")])
    try:
        recipe = fsseg.load_recipe(finished_run().path / "recipe.toml", changes)
        yield fsseg.run(recipe, runs_dir=folder, device="cpu")
    finally:
        fsseg.choose_plugins(files=[], without=[])


def test_margins_are_kept_as_fine_as_they_are(boxed):
    decisions = read_decisions(boxed.path / "fold0" / "training0")
    by_row = {"plain": (8, 8), "boxed": (64, 64)}
    counted = {(s.variant, s.case, s.class_name): s.predicted for s in boxed.scores}
    for decided in decisions:
        margins = decided.margins()
        if decided.variant == "boxed":
            assert margins.shape[2:] == by_row["boxed"] and np.isinf(margins).all()
            [name] = decided.classes
            assert (margins > 0).sum() == counted["boxed", decided.case, name]
        assert (margins.shape[2] < 64) == (decided.variant == "plain")


def test_a_report_and_a_comparison_take_them(boxed, monkeypatch):
    monkeypatch.setattr(viewer, "LARGEST", 32)
    data = viewer_data(boxed, choose_exhibits(boxed, 1))
    for view in data["exhibits"][0]["views"]:
        [boxes] = [s for s in view["scorings"] if s["rows"][0]["name"] == "boxed"]
        assert (boxes["height"], boxes["width"]) == (32, 32)
    assert "boxed" in str(fsseg.compare([boxed]))


def test_margins_in_a_page_are_means_and_finite():
    fine = np.zeros((1, 1, 256, 200), dtype=np.float32)
    fine[..., ::2] = 2.0
    fine[0, 0, :2, :2] = np.inf
    shown = viewer.shown_margins(fine)
    assert shown.shape == (1, 1, 128, 100) and np.isfinite(shown).all()
    assert (shown[0, 0, 2:] == 1).all() and shown[0, 0, 0, 0] > 1e29
    small = np.array([[[[1.0, -np.inf]]]], dtype=np.float32)
    assert viewer.shown_margins(small)[0, 0, 0].tolist() == [1.0, -np.float32(1e30)]


def test_a_recipe_with_a_wrong_order_is_refused_before_training(boxed, tmp_path):
    rows = [{"name": "turned", "threshold": "ce_t", "refiners": ["boxes", "position"]}]
    recipe = fsseg.load_recipe(boxed.path / "recipe.toml", {"variants": rows})
    with pytest.raises(FssegError, match="variant 'turned': refiners: refiner 'position' of fsseg"):
        fsseg.run(recipe, runs_dir=tmp_path, device="cpu")
