"""Protocols and folds as components: hashes stay, several support scans, own slices, and what no protocol may do."""

import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import PROTOCOLS, TinyBackbone, make_folder, write_nifti, write_recipe

import fsseg
from fsseg import AdNet, CeT, Choice, FoldScheme, FssegError, MaskedAverage, Protocol, Segmenter
from fsseg.analysis.wrong_voxels import error_table
from fsseg.data.folds import FOLD_SCHEMES, Fold, make_fold
from fsseg.data.grids import WorkingGrid
from fsseg.evaluation.assignments import assign
from fsseg.evaluation.choosing import choose
from fsseg.evaluation.evaluate import evaluate
from fsseg.evaluation.scans import EvaluationScan
from fsseg.model.segmenter import encode
from fsseg.model.variants import Variant
from fsseg.recipe.protocols import protocol_hash
from fsseg.recipe.settings import recipe_schema
from fsseg.recipe.setup import rules_of
from fsseg.recipe.tables import ProtocolTable

ROOT = Path(__file__).parents[1]
FOLD = Fold(0, "s", ("q", "r"), ("t",))
ONE = {1: "one"}

PUBLISHED = {
    "ep2": "33fb79e7",
    "ep1": "05108f20",
    "alp_3chunk": "d0e54591",
    "ep2_multi": "3955764b",
}
"""Hashes that results of users hold: on `hansen2022`, with the liver and the spleen."""


def scan_of(case, shown, slices=12, size=16):
    """A scan of noise whose classes are blocks, brighter than the rest, in the slices that are given."""
    rng = np.random.default_rng(list(case.encode()))
    labels = torch.zeros(slices, size, size, dtype=torch.uint8)
    for value, numbers in shown.items():
        for number in numbers:
            labels[number, 3 * value : 3 * value + 4, 3:9] = value
    images = torch.from_numpy(rng.normal(size=labels.shape).astype(np.float32)) + labels
    grid = WorkingGrid((size, size), (size, size), (size, size))
    return EvaluationScan(case, images, torch.linspace(0, 1, slices), labels, labels, grid)


def shown_by(slices=12, **cases):
    """By case, the class values of each slice, from the slices by value."""
    return {
        case: [{value for value, of in numbers.items() if n in of} for n in range(slices)]
        for case, numbers in cases.items()
    }


def chosen(protocol, shown, fold=FOLD, classes=ONE, seed=0):
    return choose(protocol, fold, shown, classes, seed)


def test_the_hashes_of_results_stay():
    classes = {1: "liver", 4: "spleen"}
    hashes = {}
    for name in PUBLISHED:
        rules = rules_of(ProtocolTable(name=name))
        hashes[name] = protocol_hash(rules, FOLD_SCHEMES["hansen2022"], classes)
    assert hashes == PUBLISHED


def test_whatever_is_new_about_an_evaluation_changes_the_hash():
    @dataclass(frozen=True)
    class Other(Protocol):
        share: float = 0.5

        def choose(self, fold, shown, classes, rng):
            return []

    class Same(Protocol):
        choose = Other.choose

    @dataclass(frozen=True)
    class Shuffled(FoldScheme):
        seed: int = 0

        def divide(self, cases, index):
            return cases

    plain, folds = Protocol("ep2"), FoldScheme("x", folds=3)
    rules = [
        plain,
        replace(plain, supports=2),
        replace(plain, drawn=True),
        replace(plain, support="own"),
        Same("ep2"),
        Other("ep2"),
        Other("ep2", share=0.3),
    ]
    schemes = [folds, Shuffled("x", folds=3), Shuffled("x", folds=3, seed=1)]
    hashes = {protocol_hash(of, scheme, ONE) for of in rules for scheme in schemes}
    assert len(hashes) == len(rules) * len(schemes)
    renamed = Shuffled("y", folds=3)
    assert protocol_hash(plain, renamed, ONE) == protocol_hash(plain, schemes[1], ONE)


def test_several_supports_are_the_last_cases_or_the_next_folds_first_ones():
    cases = [f"c{number}" for number in range(9)]
    scheme = FOLD_SCHEMES["disjoint3"]
    fold = make_fold(scheme, cases, 1, supports=2)
    assert (fold.queries, fold.supports) == (("c3",), ("c5", "c4"))
    assert fold.evaluated == ("c5", "c4", "c3") and len(fold.training) == 6
    fold = make_fold(scheme, cases, 2, "circular", supports=2)
    assert (fold.queries, fold.supports) == (("c6", "c7", "c8"), ("c1", "c0"))
    assert set(fold.training) == {"c2", "c3", "c4", "c5"}
    with pytest.raises(FssegError, match=r"leave 3 for it, expected at least 4 \(3 supports and a"):
        make_fold(scheme, cases, 0, supports=3)


def test_several_supports_by_hand():
    """ADNet's rule on pixels, whose prototype is the mean over the scans of each labelled slice's mean feature."""
    shown = {"s": [2, 3, 4], "p": [5, 6, 7, 8, 9], "q": [4, 5], "r": [6]}
    scans = {case: scan_of(case, {1: numbers}) for case, numbers in shown.items()}
    scans["p"] = scan_of("p", {1: shown["p"]}, slices=10)
    scans["p"].labels[7, 6:14, :3] = 1  # masks of different sizes: shots count alike nevertheless
    fold = replace(FOLD, more_supports=("p",))
    backbone = TinyBackbone(stride=1)
    variants = [Variant("a", Segmenter(backbone, MaskedAverage(), AdNet(), CeT()).eval(), "map")]
    assigned = assign(replace(PROTOCOLS["ep2"], supports=2), fold, scans, ONE, seed=0)
    assert [part.supports for part in assigned] == [(("s", (3,)), ("p", (7,)))] * 2
    support = assigned[0].support
    assert support.masks.shape == (1, 2, 16, 16) and not support.shared
    assert support.location.tolist() == [[pytest.approx(3 / 11), pytest.approx(7 / 9)]]
    device = torch.device("cpu")
    results = list(evaluate(backbone, variants, assigned, scans, fold, seed=0, device=device))
    assert [result.scores[0].support_case for result in results] == ["s + p"] * 2
    assert results[0].scores[0].support_slices == (3, 7)
    with torch.no_grad():
        means = []
        for case, number in (("s", 3), ("p", 7)):
            features = encode(backbone, scans[case].images)[number]
            means.append(features[:, scans[case].labels[number] == 1].mean(dim=1))
        prototype = F.normalize(torch.stack(means).mean(dim=0), dim=0)
        for result in results:
            features = F.normalize(encode(backbone, scans[result.scores[0].case].images))
            similar = torch.einsum("schw,c->shw", features, prototype)
            agree = (20 * similar - 10 > 0).numpy() == (result.labels == 1)
            assert agree.mean() > 0.9999 and 0.02 < (result.labels == 1).mean() < 0.98


def test_several_supports_of_all_classes_show_the_ways_of_the_first():
    shown = shown_by(
        s={1: [3, 4], 2: [4]},
        p={1: [1, 2, 3], 2: [2, 3], 3: [3]},
        q={1: [1], 2: [1]},
        r={1: [2]},
    )
    fold, classes = replace(FOLD, more_supports=("p",)), {1: "one", 2: "two", 3: "three"}
    together = Protocol("x", together=True, supports=2)
    found = set()
    for seed in range(20):
        for choice in choose(together, fold, shown, classes, seed):
            assert choice.classes == ((1, "one"), (2, "two")) and choice.support_slices == (4,)
            found |= {choice.more_supports}
    assert found == {(("p", (2,)),), (("p", (3,)),)}
    with pytest.raises(FssegError, match="case p: 1 slice of it show one and two like the first"):
        lacking = shown | shown_by(p={1: [1, 2], 2: [2]})
        choose(replace(together, shots=2), fold, lacking | {"s": [{1, 2}] * 3}, classes, 0)


def test_supports_of_several_sizes_are_refused():
    scans = {case: scan_of(case, {1: [4]}) for case in "sqr"}
    scans["p"] = scan_of("p", {1: [4]}, size=20)
    fold = replace(FOLD, more_supports=("p",))
    with pytest.raises(
        FssegError, match="16 x 16 pixels on the working grid and those of case p 20"
    ):
        assign(Protocol("x", supports=2), fold, scans, ONE, seed=0)


def test_an_own_slice_segments_the_others_of_its_scan():
    """Every case is a query; the labelled slice is not scored; a scan without the class is left out."""
    shown = shown_by(s={1: [1, 2, 3]}, q={1: [4, 7, 8, 9], 2: [5]}, r={2: [0, 11]})
    own = chosen(PROTOCOLS["own_slice"], shown, classes={1: "one", 2: "two"})
    told = {(c.query_case, c.classes[0][1]): (c.support_case, c.support_slices) for c in own}
    assert told == {
        ("q", "one"): ("q", (8,)),
        ("q", "two"): ("q", (5,)),
        ("r", "two"): ("r", (11,)),
        ("s", "one"): ("s", (2,)),
    }
    for choice in own:
        assert set(choice.query_slices) == set(range(12)) - set(choice.support_slices)


@pytest.mark.parametrize("name", ["ep1", "alp_3chunk"])
def test_three_own_slices_segment_the_rest_of_their_thirds(name):
    shown = shown_by(s={1: range(2, 11)}, q={1: [4]}, r={1: [0, 1]})
    own = chosen(replace(PROTOCOLS[name], support="own"), shown)
    of_s = {c.support_slices: c.query_slices for c in own if c.query_case == "s"}
    assert of_s == {(3,): (2, 4), (6,): (5, 7), (9,): (8, 10)}
    assert not [choice for choice in own if choice.query_case == "q"], "nothing else shows it"


def test_all_classes_from_an_own_slice():
    shown = shown_by(s={1: [3], 2: [3, 4]}, q={1: [6], 2: [6]}, r={})
    rules = replace(PROTOCOLS["ep2_multi"], support="own")
    own = chosen(rules, shown, classes={1: "one", 2: "two"})
    assert [(c.query_case, c.support_slices) for c in own] == [("q", (6,)), ("s", (3,))]
    assert all(len(choice.classes) == 2 and len(choice.query_slices) == 11 for choice in own)


def test_a_drawn_slice_is_any_of_its_share():
    """Of eight slices and one part, all of them; of two parts, a slice of each half. The fold and the case decide, too."""
    shown = shown_by(s={1: range(2, 10)}, q={1: [4]}, r={1: [4]})
    drawn, halves = Counter(), set()
    two = Protocol("x", support_parts=2, query_slices="range", drawn=True)
    for seed in range(80):
        one = chosen(Protocol("x", drawn=True), shown, seed=seed)
        drawn.update({choice.support_slices[0] for choice in one})
        halves |= {c.support_slices[0] for c in chosen(two, shown | {"q": [{1}] * 12}, seed=seed)}
        assert one == chosen(Protocol("x", drawn=True), shown, seed=seed)
    assert set(drawn) == set(range(2, 10)) and min(drawn.values()) > 2
    assert halves == set(range(2, 10))


def own(**changes):
    """A choice of the middle of `q` for its other slices, with changes."""
    facts = dict(classes=((1, "one"),), support_case="q", support_slices=(4,), query_case="q",
                 query_slices=(5, 6))  # fmt: skip
    return Choice(**facts | changes)


WRONG = {
    "scores its support": ([own(query_slices=(3, 4))], "it scores slice 4 of case q, which is a labelled slice"),
    "all slices": ([own(query_slices=None)], "it scores slice 4 of case q"),
    "another part's support": ([own(), own(support_slices=(7,), query_slices=(4,))], "it scores slice 4 of case q"),
    "a further support": (
        [own(support_case="s", more_supports=(("q", [4]),), query_slices=(4, 5))], "it scores slice 4 of case q"),
    "another fold's case": ([own(query_case="t")], "it takes case 't' as a query, expected one of the fold's s, q, r"),
    "no case": ([own(support_case="u")], "it takes case 'u' as a support"),
    "outside the scan": ([own(query_slices=(5, 12))], "the query case q: slice 12 is chosen, expected whole numbers from 0 to 11"),
    "before the scan": ([own(support_slices=(-1,))], "the support case q: slice -1 is chosen"),
    "half a slice": ([own(query_slices=(5.0,))], "slice 5.0 is chosen"),
    "no slice": ([own(query_slices=())], "the query case q: no slice of it is chosen"),
    "no support slice": ([own(support_slices=())], "the support case q: no slice of it is chosen"),
    "twice in one part": ([own(query_slices=(5, 5))], r"a slice of \(5, 5\) is chosen twice"),
    "twice in two parts": ([own(), own(support_slices=(7,), query_slices=(6,))], "it segments slice 6 of case q twice"),
    "without the class": ([own(support_slices=(5,), query_slices=(6,))], r"slice 5 of case q as a support of one \(label 1\)"),
    "another class": ([own(classes=((3, "three"),))], r"it chooses \(3, 'three'\) as a class"),
    "no class": ([own(classes=())], "it chooses 'no class' as a class"),
    "a turn": ([own(turn=4)], "the turn 4, expected 0"),
    "two names": ([own(more_supports=(("q", (7,)),))], "is named twice"),
    "a tuple": ([("q", 4)], "expected values of fsseg.Choice"),
    "nothing": ([], "it chooses nothing to segment"),
}  # fmt: skip


@pytest.mark.parametrize("choices, sentence", WRONG.values(), ids=WRONG)
def test_what_no_protocol_may_choose(choices, sentence):
    class Wrong(Protocol):
        def choose(self, fold, shown, classes, rng):
            return choices

    shown = shown_by(s={1: [4]}, q={1: [4, 7]}, r={1: [4]})
    with pytest.raises(FssegError, match=f"^protocol 'x' of y 1: fold 0: .*{sentence}") as caught:
        choose(Wrong("x"), FOLD, shown, ONE, 0, "protocol 'x' of y 1")
    assert len(str(caught.value).splitlines()) == 1


def test_sound_choices_of_a_protocols_own_are_taken_as_they_are():
    """Numbers of NumPy too; parts of one segmentation come side by side, by query."""

    class Mine(Protocol):
        def choose(self, fold, shown, classes, rng):
            labelled = np.array([4, 7])
            first, second = (own(query_case=q, query_slices=np.arange(8, 10)) for q in "rq")
            part = own(support_slices=labelled[1:], query_slices=(0,))
            return [first, second, replace(part, query_case="r")]

    shown = shown_by(s={1: [4]}, q={1: [4, 7]}, r={1: [4]})
    made = chosen(Mine("x"), shown)
    assert [(c.query_case, c.support_slices, c.query_slices) for c in made] == [
        ("q", (4,), (8, 9)), ("r", (4,), (8, 9)), ("r", (7,), (0,)),
    ]  # fmt: skip
    assert json.dumps(made[0].query_slices) == "[8, 9]"


PLUGIN = '''
from dataclasses import dataclass

from fsseg import Choice, FoldScheme, Protocol, hookimpl


@dataclass(frozen=True)
class Mine(Protocol):
    word: object = ""

    def choose(self, fold, shown, classes, rng):
        case = fold.queries[0]
        return [Choice(((1, "bright"),), case, (2,), case)]


class Leaking:
    """Scores what it labels."""

    def __init__(self, *, word: str = "") -> None:
        self.word = {"": "", "set": {1}}[self.word_of(word)]

    @staticmethod
    def word_of(word):
        return word

    def __call__(self):
        return "ep2" if self.word == "text" else Mine("leaking", word=self.word)


class Nothing:
    """Gives no scheme."""

    def __init__(self) -> None:
        pass

    def __call__(self, dataset):
        return dataset.cases


class Strange:
    """Divides cases that there are not."""

    def __init__(self) -> None:
        pass

    def __call__(self, dataset):
        class Elsewhere(FoldScheme):
            def divide(self, cases, index):
                return ["x", cases[0]]

        return Elsewhere("strange", folds=2)


@hookimpl
def register_protocols(register):
    register("leaking", Leaking)


@hookimpl
def register_folds(register):
    register("nothing", Nothing)
    register("strange", Strange)
'''


def test_whoever_chose_it_is_named_before_anything_is_trained(tmp_path):
    plugin = tmp_path / "leaking_plugin.py"
    plugin.write_text(PLUGIN)
    path = write_recipe(tmp_path, make_folder(tmp_path / "scans"), steps=10**6)
    fsseg.choose_plugins(files=[plugin])

    def attempt(**changes):
        recipe = fsseg.load_recipe(path, {f"protocol.{key}": of for key, of in changes.items()})
        with pytest.raises(FssegError) as caught:
            fsseg.run(recipe, runs_dir=tmp_path / "runs")
        return str(caught.value)

    try:
        whose = r"of leaking_plugin.py "
        text = attempt(name="leaking")
        assert text.startswith(f"protocol 'leaking' {whose}")
        assert "fold 0: it scores slice 2 of case 1, which is a labelled slice" in text
        assert "chooses supports itself" in attempt(name="leaking", shots=3)
        assert "protocol.support: is 'each', but protocol 'leaking'" in attempt(
            name="leaking", support="each"
        )
        text = attempt(name="leaking", options={"word": "set"})
        assert f"protocol 'leaking' {whose}" in text and "fields that JSON does not hold" in text
        text = attempt(folds="nothing")
        assert f"folds 'nothing' {whose}" in text and "expected a fsseg.FoldScheme" in text
        text = attempt(folds="strange")
        assert f"fold 0 of folds 'strange' {whose}" in text and "there is no case x" in text
    finally:
        fsseg.choose_plugins(files=[])
    for support in ("each", "own"):
        assert f'with protocol.support = "{support}" every case' in attempt(
            supports=2, support=support
        )


def test_scans_of_several_sizes_are_found_before_anything_is_trained(tmp_path):
    root = make_folder(tmp_path / "scans", cases=6)
    for kind in ("image", "label"):
        voxels = np.zeros((5, 40, 40), dtype=np.uint8)
        voxels[1:4, 10:30, 10:30] = 1
        voxels[1:4, 30:36, 30:36] = 2
        write_nifti(root / f"{kind}_3.nii.gz", voxels)
    changes = {"protocol.folds": "disjoint2", "protocol.supports": 2}
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=10**6), changes)
    with pytest.raises(FssegError, match="cases 3 [+] 2: .*expected one size for shots"):
        fsseg.run(recipe, runs_dir=tmp_path / "runs")


RUNS = {
    "pooled": {"protocol.name": "ep2_pooled", "protocol.options.supports": 2},
    "own": {"protocol.name": "own_slice"},
}


@pytest.mark.parametrize("name", [pytest.param("pooled", marks=pytest.mark.slow), "own"])
def test_runs_are_read_counted_and_reported_as_others_are(name, finished_run, tmp_path):
    """Label maps are those that were counted, the report has its scans, and a run is comparable with itself alone."""
    results = finished_run(RUNS[name] | {"protocol.folds": "disjoint2"}, cases=6)
    expected = {"pooled": {("3 + 2", "1")}, "own": {(case, case) for case in "123"}}[name]
    assert {(score.support_case, score.case) for score in results.scores} == expected
    said = {"pooled": ["supports 2"], "own": []}[name]
    assert results.about["options"] == said
    error_table(results.path)  # raises where a label map is not the one that was counted
    sensitivity = fsseg.support_sensitivity(results.path)
    assert len(sensitivity.scores) > len(results.scores)
    page = fsseg.write_report(results.path, tmp_path / "report.html").read_text()
    assert {"pooled": "case 3 + 2, slice 2, 2", "own": "case 1, slice 2"}[name] in page
    assert fsseg.Predictor.load(results.path).together is False


def test_the_schema_of_recipes_knows_protocols_and_folds():
    schema = recipe_schema()
    table = schema["definitions"]["ProtocolTable"]["properties"]
    assert set(table["name"]["enum"]) >= {*PROTOCOLS, "ep2"}
    names = {each.get("title") for each in schema["definitions"]["folds"]["anyOf"]}
    assert names >= {"disjoint", "listed"}


def test_the_folds_of_the_docs_are_centres():
    page = (ROOT / "docs/protocols.md").read_text()
    [snippet] = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    names = {"__name__": "snippet"}
    sys.modules["snippet"] = ModuleType("snippet")
    try:
        exec(snippet, names)  # noqa: S102 (our own documentation)
    finally:
        del sys.modules["snippet"]
    cases = ["a_1", "a_2", "b_1", "b_2", "b_3"]
    scheme = names["ByCentre"]()(SimpleNamespace(cases=cases))
    folds = [make_fold(scheme, cases, index) for index in range(scheme.folds)]
    assert [fold.evaluated for fold in folds] == [("a_2", "a_1"), ("b_3", "b_1", "b_2")]
    with pytest.raises(FssegError, match="the folds by_centre name their supports"):
        make_fold(scheme, cases, 0, "circular")


def test_the_protocol_of_the_docs_runs_as_it_stands(shell, tmp_path):
    """Under forty lines; the slice at a third of the organ is labelled, the others of its scan are scored."""
    file = ROOT / "docs/examples/own_scan_protocol.py"
    assert len(file.read_text().splitlines()) < 40
    changes = {
        "dataset.count": 4, "dataset.size": 64, "training.steps": 2, "calibration.episodes": 4,
        "protocol.name": "own_scan_at", "protocol.folds": "disjoint2", "speed.threads": 1,
        "protocol.classes": ["liver", "spleen"], "backbone.strides": [8], "backbone.channels": 8,
    }  # fmt: skip
    words = [w for key, value in changes.items() for w in ("--set", f"{key}={json.dumps(value)}")]
    ended = shell(
        "run", ROOT / "recipes/tpm_mp5_linest.toml", "--plugin", file, *words,
        "--runs-dir", tmp_path, "--device", "cpu",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    [folder] = tmp_path.glob("*/run.json")
    results = fsseg.load_results(folder.parent)
    assert results.about["protocol"] == "own_scan_at" and results.about["support"] == "own"
    dataset = fsseg.registry().build("dataset", "abdomen_phantom", {"count": 4, "size": 64})
    for score in results.scores:
        labels = dataset.load(score.case).labels
        [value] = [value for value, name in dataset.classes.items() if name == score.class_name]
        organ = np.flatnonzero((labels == value).any(axis=(1, 2)))
        labelled = organ[(len(organ) - 1) // 3]
        others = np.delete(labels, labelled, axis=0)
        assert score.support_case == score.case and score.support_slices == (labelled,)
        assert score.actual == (others == value).sum()
