"""Which support segments which slices, by every protocol."""

from dataclasses import replace
from fractions import Fraction

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import PROTOCOLS, TinyBackbone, make_folder, write_recipe
from hypothesis import given
from hypothesis import strategies as st

import fsseg
from fsseg import AdNet, CeT, Fixed, FssegError, MaskedAverage, Ocp, Segmenter, Tpm
from fsseg.data.folds import Fold
from fsseg.data.grids import WorkingGrid
from fsseg.evaluation.assignments import assign
from fsseg.evaluation.evaluate import evaluate
from fsseg.evaluation.rules import divide_query
from fsseg.evaluation.scans import EvaluationScan
from fsseg.model.segmenter import encode, encode_support
from fsseg.model.variants import Variant
from fsseg.runs.data import RunData
from fsseg.runs.results import Results
from fsseg.system.progress import Silent

FOLD = Fold(0, "s", ("q", "r"), ("t",))


def scan_with(case, shown, size=16, slices=12):
    """A scan whose slices show the classes listed for them, each in a column of its own."""
    labels = torch.zeros(slices, size, size, dtype=torch.uint8)
    for value, numbers in shown.items():
        labels[numbers, 2:10, 4 * value - 4 : 4 * value - 1] = value
    images = (
        torch.randn(slices, size, size, generator=torch.Generator().manual_seed(len(case)))
        + 3 * labels
    )
    grid = WorkingGrid((size, size), (size, size), (size, size))
    return EvaluationScan(case, images, torch.linspace(0, 1, slices), labels, labels, grid)


def test_ep2_has_the_middle_labelled_slice_and_all_of_the_query():
    scans = {case: scan_with(case, {1: [1, 4, 5, 6], 2: [3]}) for case in "sqr"}
    assigned = assign(PROTOCOLS["ep2"], FOLD, scans, {1: "one", 2: "two"}, seed=0)
    told = [
        (a.query_case, a.classes[0][1], a.support_case, a.support_slices, a.query_slices)
        for a in assigned
    ]
    assert told == [
        (q, name, "s", number, None)
        for q in "qr"
        for name, number in (("one", (5,)), ("two", (3,)))
    ]
    support = assigned[0].support
    assert support.location.item() == pytest.approx(5 / 11) and not support.shared
    assert torch.equal(support.masks[0, 0], scans["s"].labels[5] == 1)


def test_ep1_divides_the_slices_that_show_the_class():
    """Support slices at 1/6, 3/6 and 5/6 of the labelled ones; the query's labelled slices in three equal parts."""
    scans = {
        "s": scan_with("s", {1: list(range(12))}),
        "q": scan_with("q", {1: [2, 3, 5, 6, 7, 9, 10]}),
        "r": scan_with("r", {}),
    }
    assigned = assign(PROTOCOLS["ep1"], FOLD, scans, {1: "one"}, seed=0)
    assert [(a.query_case, a.support_slices, a.query_slices) for a in assigned] == [
        ("q", (2,), (2, 3)), ("q", (6,), (5, 6)), ("q", (10,), (7, 9, 10)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "parts"),
    [
        ([4], [(4,), (), ()]),
        (
            [2, 10],
            [(2, 3, 4), (5, 6, 7), (8, 9, 10)],
        ),  # slices between that lack the class are in the range
        ([1, 2, 3, 4], [(1,), (2,), (3, 4)]),
        ([], [(), (), ()]),
    ],
)
def test_alp_3chunk_divides_the_extent_of_the_class(shown, parts):
    """Chunk floor((z - first) / ((last - first) / 3)), at most the last (Ouyang et al., 2020)."""
    assert divide_query(PROTOCOLS["alp_3chunk"], shown) == parts


def test_ep2_multi_takes_every_case_in_turn_and_never_scores_a_support():
    shown = {"s": {1: [1, 2, 3], 2: [3, 4]}, "q": {1: [5], 2: [6]}, "r": {1: [2, 7], 2: [2, 7, 8]}}
    scans = {case: scan_with(case, of) for case, of in shown.items()}
    assigned = assign(PROTOCOLS["ep2_multi"], FOLD, scans, {1: "one", 2: "two"}, seed=0)
    pairs = [(a.support_case, a.query_case) for a in assigned]
    assert sorted(pairs) == sorted((a, b) for a in "sqr" for b in "sqr" if a != b)
    by_support = {a.support_case: a for a in assigned}
    assert by_support["s"].support_slices == (3,), "the only slice that shows both"
    assert by_support["r"].support_slices[0] in (2, 7)
    support = by_support["s"].support
    assert support.shared and support.masks.shape == (2, 1, 16, 16)
    # No slice of q shows both: one of the two is drawn, and its class is the only way.
    [(value, _)] = by_support["q"].classes
    assert by_support["q"].support_slices == {1: (5,), 2: (6,)}[value]
    again = assign(PROTOCOLS["ep2_multi"], FOLD, scans, {1: "one", 2: "two"}, seed=0)
    assert [a.support_slices for a in again] == [a.support_slices for a in assigned]
    drawn = {
        assign(PROTOCOLS["ep2_multi"], FOLD, scans, {1: "one", 2: "two"}, seed=s)[0].support_slices
        for s in range(20)
    }
    assert len(drawn) == 2, "the seed decides"


def test_each_case_in_turn_is_the_support_of_a_class():
    scans = {
        case: scan_with(case, {1: [first, first + 1, first + 2], 3: [3]})
        for case, first in zip("sqr", (1, 4, 7))
    }
    in_turn = replace(PROTOCOLS["ep2"], support="each")
    assigned = assign(in_turn, FOLD, scans, {1: "one", 3: "three"}, seed=0)
    told = {(a.support_case, a.query_case, a.classes[0][0], a.support_slices) for a in assigned}
    middle = {"s": 2, "q": 5, "r": 8}
    assert told == {
        (s, q, value, (middle[s] if value == 1 else 3,))
        for s in "sqr"
        for q in "sqr"
        if s != q
        for value in (1, 3)
    }
    assert len(assigned) == len(told) == 12
    counted = [
        (s.support_case, s.case, s.class_name)
        for r in evaluated(in_turn, CeT(), scans)
        for s in r.scores
    ]
    assert sorted(counted) == sorted(
        (s, q, n) for s in "sqr" for q in "sqr" if s != q for n in ("one", "three")
    )


def test_a_run_with_each_case_in_turn_writes_every_label_map(tmp_path):
    root = make_folder(tmp_path / "scans", cases=9)
    changes = {"protocol.support": "each", "protocol.folds": "disjoint3", "protocol.fold": 1}
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=0), changes)
    results = fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert results.about["options"] == ["support each"] and results.about["support"] == "each"
    pairs = {(score.support_case, score.case) for score in results.scores}
    assert pairs == {(a, b) for a in "456" for b in "456" if a != b}
    written = {path.name for path in (results.path / "fold1/labels/OCP").iterdir()}
    assert written == {
        f"{q}_{name}_from_{s}.nii.gz" for s, q in pairs for name in ("bright", "dark")
    }
    for score in results.scores:
        if score.variant == "OCP":
            name = f"{score.case}_{score.class_name}_from_{score.support_case}.nii.gz"
            assert (
                np.asarray(nibabel.load(results.path / "fold1/labels/OCP" / name).dataobj) > 0
            ).sum() == score.predicted


def test_a_circular_support_is_borrowed_from_the_next_fold(tmp_path):
    root = make_folder(tmp_path / "scans", cases=9)
    changes = {"protocol.support": "circular", "protocol.folds": "disjoint3", "protocol.fold": 2}
    run = RunData(fsseg.load_recipe(write_recipe(tmp_path, root), changes), Silent())
    [fold] = run.folds
    assert (fold.support, fold.queries, fold.training) == (
        "1",
        ("7", "8", "9"),
        ("2", "3", "4", "5", "6"),
    )
    assert {a.support_case for a in run.of(fold).assignments(0)} == {"1"}


def test_shots_are_spread_over_the_slices_that_show_the_class():
    """Seven slices in three equal shares: those at int(7 / 6), int(7 / 2) and int(35 / 6)."""
    shown = [1, 4, 5, 6, 8, 9, 10]
    scans = {case: scan_with(case, {1: shown}) for case in "sqr"}
    assigned = assign(replace(PROTOCOLS["ep2"], shots=3), FOLD, scans, {1: "one"}, seed=0)
    assert [(a.query_case, a.support_slices, a.query_slices) for a in assigned] == [
        (q, (4, 6, 9), None) for q in "qr"
    ]
    support = assigned[0].support
    assert support.masks.shape == (1, 3, 16, 16) and not support.shared and len(support.slices) == 3
    for shot, number in enumerate((4, 6, 9)):
        assert torch.equal(support.images[0, shot], scans["s"].images[number])
        assert torch.equal(support.masks[0, shot], scans["s"].labels[number] == 1)
        assert support.location[0, shot].item() == pytest.approx(number / 11)


@pytest.mark.parametrize("name", ["ep1", "alp_3chunk"])
def test_shots_of_several_parts_are_spread_within_each_part(name):
    """Four slices a third, and in each third those at 1/4 and 3/4."""
    scans = {case: scan_with(case, {1: list(range(12))}) for case in "sqr"}
    assigned = assign(replace(PROTOCOLS[name], shots=2), FOLD, scans, {1: "one"}, seed=0)
    assert [a.support_slices for a in assigned if a.query_case == "q"] == [(1, 3), (5, 7), (9, 11)]


@given(st.integers(1, 40), st.integers(1, 7), st.sampled_from(["ep2", "ep1"]))
def test_shots_by_exact_fractions(count, shots, name):
    """Part p of P, shot i of N: the slice at p / P + (2 i + 1) / (2 N P) of the labelled ones; all different."""
    parts = PROTOCOLS[name].support_parts
    labels = torch.zeros(count, 2, 2, dtype=torch.uint8)
    labels[:, 0, 0] = 1
    grid = WorkingGrid((2, 2), (2, 2), (2, 2))
    scan = EvaluationScan("s", labels.float(), torch.linspace(0, 1, count), labels, labels, grid)
    of = replace(PROTOCOLS[name], shots=shots)
    if shots > 1 and count < parts * shots:
        with pytest.raises(
            FssegError,
            match=f"case s: {count} of its slices show one .* at least {parts * shots} for",
        ):
            assign(of, FOLD, {case: scan for case in "sqr"}, {1: "one"}, seed=0)
        return
    assigned = assign(of, FOLD, {case: scan for case in "sqr"}, {1: "one"}, seed=0)
    got = {a.support_slices for a in assigned}
    wanted = {
        tuple(
            int((Fraction(part, parts) + Fraction(2 * i + 1, 2 * shots * parts)) * count)
            for i in range(shots)
        )
        for part in range(parts)
    }
    assert got <= wanted and (
        got == wanted or count < parts
    )  # a query of few slices has fewer parts
    assert all(len(set(numbers)) == shots for numbers in got)


def test_shots_of_all_classes_show_the_same_ways():
    """Slices 2 to 5 show both classes; the first is drawn as for one shot, the others among the rest."""
    scans = {case: scan_with(case, {1: [1, 2, 3, 4, 5], 2: [2, 3, 4, 5, 6]}) for case in "sqr"}
    classes, multi = {1: "one", 2: "two"}, PROTOCOLS["ep2_multi"]
    drawn = set()
    for seed in range(20):
        [one], [three] = (
            {(a.support_slices, a.classes) for a in assign(replace(multi, shots=n), FOLD, scans, classes, seed)
             if a.support_case == "s"}
            for n in (1, 3)
        )  # fmt: skip
        assert (
            set(one[0]) <= set(three[0]) <= {2, 3, 4, 5}
            and len(three[0]) == 3
            and three[1] == tuple(classes.items())
        )
        drawn.add(three[0])
    assert len(drawn) == 4
    [support] = {id(a.support): a.support for a in assign(replace(multi, shots=3), FOLD, scans, classes, 0)
                 if a.support_case == "s"}.values()  # fmt: skip
    assert support.shared and support.masks.shape == (2, 3, 16, 16) and len(support.slices) == 3
    backbone = TinyBackbone(stride=1)
    features = encode_support(backbone, support)
    for way in range(2):
        for shot in range(3):
            assert torch.allclose(
                features[way, shot], encode(backbone, support.images[way, shot][None])[0], atol=1e-6
            )


def test_too_few_slices_for_the_shots_of_all_classes():
    """Which classes are ways is decided by the first slice; those with as many other classes are no shots of it."""
    scans = {case: scan_with(case, {1: [1, 2, 3], 2: [1, 2], 3: [3]}) for case in "sqr"}
    classes, two = {1: "one", 2: "two", 3: "three"}, replace(PROTOCOLS["ep2_multi"], shots=2)
    outcomes = set()
    for seed in range(20):
        try:
            outcomes |= {
                (a.support_slices, len(a.classes)) for a in assign(two, FOLD, scans, classes, seed)
            }
        except FssegError as error:
            outcomes.add(str(error).split(": ")[1].split(",")[0])
    assert outcomes == {((1, 2), 2), "1 slice of it show one and three like slice 3"}


def test_several_shots_by_hand():
    """ADNet's rule on pixels: the mean over shots of each shot's mean feature, and a threshold on the cosine with it."""
    scans = {case: scan_with(case, {1: [2, 3, 4, 5, 6, 7], 3: [4, 5, 6]}) for case in "sqr"}
    for number, row in ((3, 10), (7, 14)):
        scans["s"].labels[number, 10:row, :3] = (
            1  # masks of different sizes: shots count alike nevertheless
        )
    backbone = TinyBackbone(stride=1)
    variants = [Variant("a", Segmenter(backbone, MaskedAverage(), AdNet(), CeT()).eval(), "map")]
    assigned = assign(replace(PROTOCOLS["ep2"], shots=3), FOLD, scans, {1: "one"}, seed=0)
    results = list(
        evaluate(backbone, variants, assigned, scans, FOLD, seed=0, device=torch.device("cpu"))
    )
    assert results[0].scores[0].support_slices == (3, 5, 7)
    with torch.no_grad():
        features = encode(backbone, scans["s"].images)
        shots = [features[n][:, scans["s"].labels[n] == 1].mean(dim=1) for n in (3, 5, 7)]
        prototype = F.normalize(torch.stack(shots).mean(dim=0), dim=0)
        for result in results:
            similar = torch.einsum(
                "schw,c->shw",
                F.normalize(encode(backbone, scans[result.scores[0].case].images)),
                prototype,
            )
            agree = (20 * similar - 10 > 0).numpy() == (result.labels == 1)
            assert agree.mean() > 0.9999 and 0.02 < (result.labels == 1).mean() < 0.98


def test_supports_without_a_class_are_explained():
    scans = {case: scan_with(case, {1: [1]}) for case in "sqr"}
    with pytest.raises(FssegError, match="case s: it is a support but shows no two"):
        assign(PROTOCOLS["ep2"], FOLD, scans, {1: "one", 2: "two"}, seed=0)
    there = {case: scan_with(case, {1: [1]} if case == "r" else {1: [1], 2: [2]}) for case in "sqr"}
    assert assign(PROTOCOLS["ep2"], FOLD, there, {1: "one", 2: "two"}, seed=0)
    with pytest.raises(FssegError, match="case r: it is a support but shows no two"):
        assign(replace(PROTOCOLS["ep2"], support="each"), FOLD, there, {1: "one", 2: "two"}, seed=0)
    with pytest.raises(FssegError, match="case q: it is a support but shows no class"):
        assign(PROTOCOLS["ep2_multi"], FOLD, {**scans, "q": scan_with("q", {})}, {1: "one"}, seed=0)


def evaluated(protocol, threshold, scans, classes=None):
    backbone = TinyBackbone(stride=1)
    variants = [Variant("a", Segmenter(backbone, MaskedAverage(), Tpm(), threshold).eval(), "map")]
    assigned = assign(protocol, FOLD, scans, classes or {1: "one", 3: "three"}, seed=0)
    return list(
        evaluate(backbone, variants, assigned, scans, FOLD, seed=0, device=torch.device("cpu"))
    )


def test_a_class_that_a_query_does_not_show(tmp_path):
    """Undefined where nothing is predicted either, and left out of the mean; 0 where something is."""
    scans = {
        "s": scan_with("s", {1: [4]}),
        "q": scan_with("q", {1: [4, 5]}),
        "r": scan_with("r", {}),
    }
    for threshold, dice in ((Ocp(), None), (Fixed(prior=0.999), 0.0)):
        scores = [
            score
            for result in evaluated(PROTOCOLS["ep2"], threshold, scans, {1: "one"})
            for score in result.scores
        ]
        by_case = {score.case: score for score in scores}
        assert by_case["r"].actual == 0 and (by_case["r"].predicted > 0) == (dice == 0.0)
        results = Results(tmp_path, scores, ["one"], {"uses_truth": False})
        mean = 100 * (by_case["q"].dice if dice is None else by_case["q"].dice / 2)
        assert results.table().loc["a", "one"] == pytest.approx(mean) and mean > 0
        alone = Results(tmp_path, [by_case["r"]], ["one"], {})
        assert alone.dumps()["rows"][0]["one"] == dice


def test_a_class_that_a_support_does_not_show_has_no_score_from_it():
    """In `ep2_multi`: it is neither segmented nor scored there, and from the others it is."""
    scans = {
        "s": scan_with("s", {3: [4]}),
        **{case: scan_with(case, {1: [4, 5], 3: [5]}) for case in "qr"},
    }
    for result in evaluated(PROTOCOLS["ep2_multi"], Fixed(prior=0.9), scans):
        told = {score.class_name for score in result.scores}
        if result.scores[0].support_case == "s":
            assert told == {"three"} and set(np.unique(result.labels)) == {0, 1}
        else:
            assert told == {"one", "three"} and set(np.unique(result.labels)) <= {0, 1, 3}


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_counts_are_those_of_the_written_labels(name):
    """Every class of every result, counted again by hand over the slices that the protocol scores."""
    scans = {case: scan_with(case, {1: [3, 4, 5, 7], 3: [4, 5, 6]}) for case in "sqr"}
    results = evaluated(PROTOCOLS[name], CeT(), scans)
    assert len(results) == {"ep2_multi": 6, "own_slice": 6}.get(name, 4)
    for result in results:
        truth = scans[result.scores[0].case].truth.numpy().copy()
        if name == "own_slice":
            labelled = list(result.scores[0].support_slices)
            truth[labelled] = 0
            assert not result.labels[labelled].any()
        for score in result.scores:
            value = {"one": 1, "three": 3}[score.class_name]
            predicted = result.labels == (1 if len(result.scores) == 1 else value)
            actual = truth == value
            assert (score.intersection, score.predicted, score.actual) == (
                (predicted & actual).sum(),
                predicted.sum(),
                actual.sum(),
            )
        if name in ("ep1", "alp_3chunk"):
            inside = np.flatnonzero((truth == value).any(axis=(1, 2)))
            assert (
                not result.labels[: inside[0]].any() and not result.labels[inside[-1] + 1 :].any()
            )
            assert len(result.scores[0].support_slices) == 3


def test_the_oracle_knows_the_pixels_of_all_classes_together():
    scans = {case: scan_with(case, {1: [3, 4, 5], 3: [4, 5, 6]}) for case in "sqr"}
    for result in evaluated(PROTOCOLS["ep2_multi"], Ocp(), scans):
        truth = scans[result.scores[0].case].truth.numpy()
        assert ((result.labels > 0).sum(axis=(1, 2)) == (truth > 0).sum(axis=(1, 2))).all()


@pytest.mark.parametrize("name", ["ep1", "alp_3chunk", "ep2_multi"])
def test_whole_runs(tmp_path, name):
    root = make_folder(tmp_path / "scans")
    changes = {"protocol.name": name, "variants.1.prototypes": "map"}
    results = fsseg.run(
        fsseg.load_recipe(write_recipe(tmp_path, root, steps=1), changes),
        runs_dir=tmp_path / "runs",
    )
    again = fsseg.load_results(results.path)
    assert again.scores == results.scores and results.about["uses_truth"] == (name != "ep2_multi")
    assert results.table().notna().to_numpy().any()
    written = sorted(path.name for path in (results.path / "fold0/labels/OCP").iterdir())
    if name == "ep2_multi":
        assert written == ["1_from_2.nii.gz", "2_from_1.nii.gz"]
        labels = np.asarray(nibabel.load(results.path / "fold0/labels/OCP" / written[0]).dataobj)
        assert set(np.unique(labels)) <= {0, 1, 2}
    else:
        assert written == ["1_bright.nii.gz", "1_dark.nii.gz"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"protocol.name": "ep2_multi", "variants.0.head": "adnet", "training.head": "adnet"},
            "variant 'CE-T': head adnet: got 2 ways",
        ),
        (
            {"variants.1.head": "adnet"},
            "variant 'LinEst': head adnet: got 1 ways with 2 prototypes each",
        ),
    ],
)
def test_what_a_head_refuses_is_said_before_training(tmp_path, changes, expected):
    recipe = fsseg.load_recipe(
        write_recipe(tmp_path, make_folder(tmp_path / "scans"), steps=10**6), changes
    )
    with pytest.raises(FssegError, match=expected):
        fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize("name", ["ep2", "ep2_multi"])
def test_only_the_classes_of_the_protocol_are_evaluated(tmp_path, name):
    """The other class is background everywhere: in supports, in what the oracle is told, in counts and in the table."""
    root = make_folder(tmp_path / "scans")
    path = write_recipe(tmp_path, root, steps=0)
    changes = {"protocol.name": name, "protocol.save_labels": False}
    both = fsseg.run(fsseg.load_recipe(path, changes), runs_dir=tmp_path / "runs")
    one = fsseg.run(
        fsseg.load_recipe(path, {**changes, "protocol.classes": ["dark"]}),
        runs_dir=tmp_path / "runs",
    )
    assert list(one.table().columns) == ["dark", "mean", "sd_cases"] and one.about["classes"] == [
        "dark"
    ]
    assert one.about["protocol_hash"] != both.about["protocol_hash"]
    assert {score.class_name for score in one.scores} == {"dark"}
    if name == "ep2":
        assert one.scores == [score for score in both.scores if score.class_name == "dark"]
    for score in one.scores:
        voxels = np.asarray(nibabel.load(root / f"label_{score.case}.nii.gz").dataobj) == 2
        assert score.actual == voxels.sum()
        if score.oracle:
            assert 0 <= score.actual - score.predicted <= 0.01 * score.actual
    again = fsseg.load_recipe(path, {**changes, "protocol.classes": ["dark", "bright"]})
    everything = fsseg.run(again, runs_dir=tmp_path / "runs")
    assert everything.scores == both.scores and everything.about == both.about


def test_unknown_classes_are_refused_before_anything_runs(tmp_path):
    path = write_recipe(tmp_path, make_folder(tmp_path / "scans"), steps=10**6)
    with pytest.raises(FssegError, match="the dataset has no class 'drak'; did you mean 'dark'?"):
        fsseg.run(
            fsseg.load_recipe(path, {"protocol.classes": ["drak"]}), runs_dir=tmp_path / "runs"
        )
    with pytest.raises(FssegError, match="protocol]: classes: expected .* at least 1"):
        fsseg.load_recipe(path, {"protocol.classes": []})
