"""Refiners: against hand-made volumes, against plain formulas, and on their way through the segmenter and a recipe."""

import json

import numpy as np
import pytest
import torch
from helpers import TinyBackbone, make_folder, write_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import fsseg
from fsseg import (
    Amount,
    CeT,
    Component3d,
    Fixed,
    MaskedAverage,
    Position,
    QueryInformed,
    Segmenter,
    Smooth3d,
    Tpm,
)
from fsseg.errors import RecipeError
from fsseg.evaluation.files import read_decisions
from fsseg.model.cells import body_extent, heaviest_components, keep_amount
from fsseg.testing import samples
from fsseg.types import Prototypes, Query, QueryVolume, Support


def volume(features, *, mask=None, images=None, location=None, spacing=(5.0, 1.0, 1.0)):
    """A query of these features with eight pixels for a cell, and a support whose slice is the query's middle one."""
    slices, channels, h, w = features.shape
    images = torch.ones(slices, 8 * h, 8 * w) if images is None else images
    masks = torch.zeros(1, 1, 8 * h, 8 * w, dtype=torch.bool) if mask is None else mask[None, None]
    support = Support(images[None, None, slices // 2], masks, torch.full((1, 1), 0.5))
    location = torch.linspace(0, 1, slices) if location is None else location
    prototypes = Prototypes(torch.ones(1, 1, channels), torch.ones(1, 1))
    labelled = features[None, None, slices // 2]
    return QueryVolume(support, prototypes, Query(images, location, spacing), features, labelled)


PLAIN = volume(torch.ones(4, 3, 4, 4))


def blobs():
    """Three cells of 1, two of 4 that touch them at a corner, and one of 5 by itself."""
    margins = torch.full((4, 1, 4, 4), -1.0)
    margins[0, 0, 0, :3] = 1.0
    margins[1, 0, 1, 2:] = 4.0
    margins[3, 0, 3, 3] = 5.0
    return margins


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"connectivity": 6}, [(1, 1, 2), (1, 1, 3)]),
        ({"connectivity": 6, "weight": "cells"}, [(0, 0, 0), (0, 0, 1), (0, 0, 2)]),
        ({"connectivity": 18}, [(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 1, 2), (1, 1, 3)]),
    ],
)
def test_the_heaviest_component_by_hand(options, kept):
    """Cells (0, 0, 2) and (1, 1, 2) share an edge, not a face."""
    margins = blobs()
    refined = Component3d(**options)(margins, PLAIN)
    assert [tuple(place) for place in (refined[:, 0] > 0).nonzero().tolist()] == kept
    assert torch.equal(refined.abs(), margins.abs()), "as clearly background as it was foreground"


def test_each_way_has_a_component_of_its_own():
    margins = torch.cat([blobs(), blobs().flip(0)], dim=1)
    refined = Component3d()(margins, PLAIN)
    assert torch.equal(refined[:, :1], Component3d()(blobs(), PLAIN))
    assert torch.equal(refined[:, 1:].flip(0), refined[:, :1])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), connectivity=st.sampled_from([6, 18, 26]))
def test_the_heaviest_component_against_flooding(seed, connectivity):
    """A plain flood fill finds the same component."""
    values = np.random.default_rng(seed).normal(-0.3, 1, (4, 5, 5)).astype(np.float32)
    reach = {6: 1, 18: 2, 26: 3}[connectivity]
    steps = [s for s in np.ndindex(3, 3, 3) if 0 < sum(abs(n - 1) for n in s) <= reach]
    left, best = {tuple(p) for p in np.argwhere(values > 0)}, (0.0, set())
    while left:
        todo = [left.pop()]
        found = set(todo)
        while todo:
            z, y, x = todo.pop()
            for dz, dy, dx in steps:
                there = (z + dz - 1, y + dy - 1, x + dx - 1)
                if there in left:
                    left.remove(there)
                    found.add(there)
                    todo.append(there)
        best = max(
            best, (float(sum(values[place] for place in found)), found), key=lambda pair: pair[0]
        )
    kept = heaviest_components(torch.from_numpy(values)[:, None], connectivity)[:, 0]
    assert {tuple(place) for place in kept.nonzero().tolist()} == best[1]


def test_smoothing_is_in_mm():
    """Standard deviations of 10 mm across slices of 5 mm and of 16 mm within, where a cell is 8 mm: 2 cells each."""
    margins = samples.random(6, 1, 4, 4)
    refined = Smooth3d(through=10, within=16)(margins, volume(torch.ones(6, 3, 4, 4)))
    expected = ndimage.gaussian_filter(margins[:, 0].numpy(), 2, mode="nearest")
    assert np.allclose(refined[:, 0].numpy(), expected, atol=1e-6)
    assert torch.equal(Smooth3d(through=0, within=0)(margins, PLAIN), margins)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), ways=st.integers(1, 3))
def test_the_amount_stays(seed, ways):
    """Whatever the new ranking, as many cells of each way are foreground as before, those that it ranks highest."""
    before = samples.random(5, ways, 4, 4, seed=seed)
    ranked = samples.random(5, ways, 4, 4, seed=seed + 1)
    after = keep_amount(ranked, before)
    assert torch.equal((after > 0).sum(dim=(0, 2, 3)), (before > 0).sum(dim=(0, 2, 3)))
    for way in range(ways):
        chosen = after[:, way] > 0
        if chosen.any() and not chosen.all():
            assert ranked[:, way][chosen].min() > ranked[:, way][~chosen].max()


@pytest.mark.parametrize(
    ("before", "after"), [(0, 8), (7, 8), (8, 8), (20, 20), (32, 32), (33, 32), (60, 32)]
)
def test_the_amount_is_kept_within_limits(before, after):
    """An area of 64 pixels of 1 mm: 8 ** 3 = 512 mm3 with depth 1, which are 16 cells of 2 x 4 x 4 mm."""
    margins = samples.random(4, 1, 4, 4, seed=2)
    order = margins.flatten().sort(descending=True).values
    margins = (
        margins - (order[before] + order[max(before - 1, 0)]) / 2 if before else margins - order[0]
    )
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[4:12, 4:12] = True
    support = Support(torch.ones(1, 1, 16, 16), mask[None, None], torch.full((1, 1), 0.5))
    query = Query(torch.ones(4, 16, 16), torch.linspace(0, 1, 4), (2.0, 1.0, 1.0))
    features = torch.ones(4, 3, 4, 4)
    made = Prototypes(torch.ones(1, 1, 3), torch.ones(1, 1))
    shown = QueryVolume(support, made, query, features, features[None, :1])
    refined = Amount(depth=1.0, factor=2.0)(margins, shown)
    assert ((margins > 0).sum(), (refined > 0).sum()) == (before, after)
    assert torch.equal(refined.flatten().argsort(), margins.flatten().argsort()), (
        "the ranking stays"
    )
    assert before != after or torch.equal(refined, margins)


def test_the_body_is_found_by_its_brightness():
    images = torch.zeros(5, 32, 48)
    images[:4, 8:24, 16:40] = 1.0
    images[3, 0:32, 0:48] = (
        1.0  # one slice that is framed differently, and the last one shows nothing
    )
    assert body_extent(images, (8, 12)) == ((2.0, 6.0), (4.0, 10.0))
    assert body_extent(torch.zeros(2, 32, 48), (8, 12)) == ((0.0, 8.0), (0.0, 12.0))


def test_the_density_of_places_by_hand():
    """A mask of two cells about the centre of a body that fills the image; 3 slices."""
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8:24, 8:16] = True
    shown = volume(torch.ones(3, 3, 4, 4), mask=mask)
    density = Position(through=0.5, within=0.5, frame="image").log_density(shown)
    place = (torch.arange(4) + 0.5) / 4
    # The resize spreads a mask over the cells about it; of whole rows that is what the adjoint gives.
    row = torch.tensor([0.0625, 0.4375, 0.4375, 0.0625])
    column = torch.tensor([0.125, 0.75, 0.125, 0.0])
    variances = []
    for weights in (row, column):
        mean = (weights * place).sum()
        variances.append((mean, (weights * (place - mean) ** 2).sum() + 0.25))
    (my, vy), (mx, vx) = variances
    for z in range(3):
        expected = -0.5 * (
            ((place - my) ** 2 / vy)[:, None]
            + ((place - mx) ** 2 / vx)[None]
            + ((z / 2 - 0.5) / 0.5) ** 2
        )
        assert torch.allclose(density[z, 0], expected, atol=1e-5), z


def test_position_tells_left_from_right():
    """Two equal organs on both sides: the one on the support's side stays, also where the scan is framed otherwise."""
    images = torch.zeros(5, 64, 64)
    images[:, 8:56, 8:56] = 1.0
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[24:40, 16:24] = True
    margins = torch.full((5, 1, 8, 8), -4.0)
    margins[1:4, 0, 3:5, 2] = 2.0
    margins[1:4, 0, 3:5, 5] = 2.1
    shown = volume(torch.ones(5, 3, 8, 8), mask=mask, images=images)
    refined = Component3d()(Position()(margins, shown), shown)
    assert (refined[:, 0, :, :4] > 0).any() and not (refined[:, 0, :, 4:] > 0).any()
    assert (Component3d()(margins, shown)[:, 0, :, 4:] > 0).any(), (
        "without it the heavier one would have stayed"
    )


def two_kinds(noise=0.05):
    """Features of one kind in the left half of a scan and of another in the right; the margins know of a few cells."""
    generator = torch.Generator().manual_seed(3)
    kinds = torch.nn.functional.normalize(torch.randn(2, 16, generator=generator), dim=1)
    features = torch.cat([kinds[:1].expand(4, -1), kinds[1:].expand(4, -1)])  # column x channel
    features = features.T[None, :, None].expand(6, -1, 8, -1)
    features = features + noise * torch.randn(6, 16, 8, 8, generator=generator)
    margins = -1 + 0.3 * torch.randn(6, 1, 8, 8, generator=generator)
    margins[2:4, 0, 3:6, 1:3] = 3.0
    return margins, volume(features)


def test_the_query_tells_what_the_class_looks_like_there():
    """All foreground goes to the half that looks like the confident cells, in the amount that there was."""
    margins, shown = two_kinds()
    margins[0, 0, :, 6:] = 0.2  # doubtful foreground in the other half
    refined = QueryInformed(weight=0.7)(margins, shown)
    assert (refined > 0).sum() == (margins > 0).sum()
    assert not (refined[..., 4:] > 0).any()


@pytest.mark.parametrize("method", ["discriminant", "prototype"])
def test_query_informed_is_the_plain_formula(method):
    margins, shown = two_kinds()
    refined = QueryInformed(method=method, share=1.0, weight=1.0, ridge=0.1)(margins, shown)
    cells = (
        torch.nn.functional.normalize(shown.features.double(), dim=1).movedim(1, -1).reshape(-1, 16)
    )
    cells = cells - cells.mean(dim=0)
    direction = cells[(margins[:, 0] > 0).flatten()].mean(dim=0)
    if method == "discriminant":
        covariance = cells.T @ cells / len(cells)
        covariance += 0.1 * covariance.diagonal().mean() * torch.eye(16)
        direction = torch.linalg.inv(covariance) @ direction
    plain = (cells @ direction).view(6, 8, 8).float()
    assert np.corrcoef(plain.flatten(), refined.flatten())[0, 1] == pytest.approx(1, abs=1e-5)
    assert float(refined.std()) == pytest.approx(float(margins.std()), rel=1e-3)


def test_a_share_learns_from_the_clearest_cells():
    """Half of the component's cells are of another kind, with smaller margins: they are not learned from."""
    margins, shown = two_kinds()
    margins[2:4, 0, 3:6, 3] = 2.0
    margins[2:4, 0, 3:6, 4] = 1.0  # of the other kind
    refined = QueryInformed(share=0.5, weight=1.0)(margins, shown)
    assert refined[..., :4].mean() > refined[..., 4:].mean() + refined.std()


def segmenter(*refiners, threshold=None):
    return Segmenter(
        TinyBackbone(), MaskedAverage(), Tpm(), threshold or CeT(), refiners=refiners
    ).eval()


def shown_pair():
    support = Support(samples.random(1, 1, 64, 64), samples.masks(size=64), torch.full((1, 1), 0.5))
    return support, Query(
        samples.random(5, 64, 64, seed=9), torch.linspace(0, 1, 5), (5.0, 1.0, 1.0)
    )


class Nothing:
    """Returns what it gets, and keeps it."""

    def __call__(self, margins, volume):
        self.margins, self.volume = margins, volume
        return margins


@torch.no_grad()
def test_the_segmenter_hands_over_margins_under_the_prior():
    nothing, (support, query) = Nothing(), shown_pair()
    plain, refined = (
        segmenter(threshold=Fixed(prior=0.4)),
        segmenter(nothing, threshold=Fixed(prior=0.4)),
    )
    refined.load_state_dict(plain.state_dict())
    expected, found = plain(support, query), refined(support, query)
    assert (expected.labels != found.labels).float().mean() < 1e-3  # round-off at the boundary
    assert torch.allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert expected.refined is None and torch.equal(found.refined, nothing.margins)
    assert nothing.volume.query is query and nothing.volume.support is support
    assert nothing.volume.spacing == (
        5.0,
        64 / nothing.margins.shape[2],
        64 / nothing.margins.shape[3],
    )


@torch.no_grad()
def test_refiners_work_one_after_the_other():
    support, query = shown_pair()

    class Add(Nothing):
        def __call__(self, margins, volume):
            return margins + 1

    class Double(Nothing):
        def __call__(self, margins, volume):
            return 2 * margins

    one = segmenter(Add(), Double())
    other = segmenter(Nothing())
    other.load_state_dict(one.state_dict())
    assert torch.allclose(one(support, query).refined, 2 * (other(support, query).refined + 1))


ROW = """
[[variants]]
name = "refined"
threshold = {{ name = "fixed", prior = 0.4 }}
refiners = {refiners}

[[variants]]
name = "plain"
threshold = {{ name = "fixed", prior = 0.4 }}

[[variants]]
name = "none"
threshold = {{ name = "fixed", prior = 0.4 }}
refiners = "none"
"""

CHAIN = '["position", { name = "query_informed", share = 0.4 }, "component_3d"]'


def recipe_with(tmp_path, refiners, scans=None):
    path = write_recipe(tmp_path, scans or make_folder(tmp_path / "scans"))
    path.write_text(path.read_text() + ROW.format(refiners=refiners))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refined")
    recipe = fsseg.load_recipe(recipe_with(folder, CHAIN))
    return fsseg.run(recipe, name="refined", runs_dir=folder / "runs", device="cpu")


def test_a_run_with_refiners(finished):
    """Rows without any have the same scores; refined margins are kept as a row's own, and decide as they are."""
    scores = {
        name: [s for s in finished.scores if s.variant == name]
        for name in ("refined", "plain", "none")
    }
    counts = {
        name: [(s.intersection, s.predicted, s.actual) for s in found]
        for name, found in scores.items()
    }
    assert counts["plain"] == counts["none"] != counts["refined"]
    [folder] = finished.path.glob("fold*/training0")
    files = {}
    for one in read_decisions(folder):
        files.setdefault(one.variant, set()).add(one.margins_file)
        assert np.isfinite(one.margins()).all()
        if one.variant == "refined":
            assert not one.priors.any()
    assert files["plain"] == files["none"] and not files["refined"] & files["plain"]


def test_prediction_refines_as_the_run_did(finished):
    predictor = fsseg.load_predictor(finished.path, variant="refined", device="cpu")
    assert [type(refiner) for refiner in predictor.segmenter.refiners] == [
        Position,
        QueryInformed,
        Component3d,
    ]
    assert predictor.segmenter.refiners[1].share == 0.4


def test_other_refiners_take_the_training_and_the_calibration(finished, tmp_path):
    recipe = finished.recipe.model_copy(deep=True)
    runs = finished.path.parent
    before = {path.name for path in (runs / "stages").iterdir()}
    row = next(row for row in recipe.variants if row.name == "refined")
    row.refiners = ["component_3d"]
    fsseg.run(recipe, name="other", runs_dir=runs, device="cpu")
    new = {path.name for path in (runs / "stages").iterdir()} - before
    assert [name.split("-")[0] for name in new] == ["evaluate"]


@pytest.mark.parametrize(
    ("refiners", "sentence"),
    [
        (
            '"componet_3d"',
            "number 4, refiners, 0: name: there is no refiner 'componet_3d'; did you mean 'component_3d'?",
        ),
        (
            '[{ name = "component_3d", conectivity = 6 }]',
            "conectivity: .*did you mean 'connectivity'",
        ),
        ('[{ name = "component_3d", connectivity = 8 }]', "connectivity: "),
        ("3", "refiners"),
    ],
)
def test_mistakes_are_sentences(tmp_path, refiners, sentence):
    with pytest.raises(RecipeError, match=sentence):
        fsseg.load_recipe(recipe_with(tmp_path, refiners, tmp_path))


def test_refiners_are_explained_swept_and_in_the_schema(tmp_path):
    path = recipe_with(tmp_path, CHAIN, make_folder(tmp_path / "scans"))
    tables = fsseg.recipe.reading.read_tables(path)
    from fsseg.recipe.settings import recipe_schema
    from fsseg.recipe.settings import settings as explain
    from fsseg.recipe.sweep import expand

    told = {(s.table, s.key): s for s in explain(fsseg.load_recipe(path), tables, {})}
    number = next(n for n, row in enumerate(tables["variants"]) if row["name"] == "refined")
    share = told[f"variants.{number}.refiners.1", "share"]
    assert (share.value, share.default, share.source) == (
        0.4,
        0.5,
        "recipe",
    ) and "component" in share.meaning
    shown = recipe_schema()
    assert "component_3d" in json.dumps(shown["definitions"]["refiner"])
    refiners = shown["definitions"]["VariantTable"]["properties"]["refiners"]
    assert {"allOf": [{"$ref": "#/definitions/refiner"}]} in refiners["anyOf"]
    recipe = fsseg.load_recipe(path)
    recipe.variants, recipe.sweep = (
        recipe.variants[-1:],
        {"refiners": [[], ["component_3d"], ["position", "component_3d"]]},
    )
    assert [row.name for row in expand(recipe).variants] == [
        "refiners=none", "refiners=component_3d", "refiners=position+component_3d",
    ]  # fmt: skip
