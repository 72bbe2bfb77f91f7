"""Comparisons of runs: pairs, intervals and corrections against plain references, and what is refused."""

import doctest
import io
import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy.stats import norm, rankdata, wilcoxon

import fsseg
from fsseg import FssegError
from fsseg.analysis import statistics, tables
from fsseg.analysis.statistics import holm, interval_of_mean, signed_rank
from fsseg.evaluation import metrics
from fsseg.evaluation.metrics import Assd, Hd95, Nsd
from fsseg.evaluation.scores import CaseScore
from fsseg.runs.results import Results
from fsseg.system.files import write_json, write_lines

ABOUT = {
    "dataset": "made up",
    "protocol": "ep2",
    "protocol_hash": "aa",
    "data": {"0": "d"},
    "folds": [0],
    "seeds": [0],
}


def score(variant, case, dice, *, fold=0, seed=0, support="s", name="x", oracle=False, **measures):
    return CaseScore(
        variant, oracle, fold, seed, str(case), name, support, (3,), dice, 100, 100, measures
    )


def run_of(path, scores, **about):
    classes = list(dict.fromkeys(one.class_name for one in scores))
    return Results(Path(path), scores, classes, ABOUT | {"classes": classes} | about)


A = [30, 22, 41, 35, 28, 50, 33]
B = [25, 24, 30, 21, 27, 33, 30]


@pytest.fixture
def two():
    scores = [score("TPM", case, dice) for case, dice in enumerate(A)]
    return run_of("run", scores + [score("ADNet", case, dice) for case, dice in enumerate(B)])


def test_the_test_is_wilcoxons_by_enumerating_all_signs(two):
    line = fsseg.compare([two], baseline="ADNet").tests().loc["TPM", "mean"]
    differences = np.subtract(A, B)
    assert (
        line["pairs"] == 7
        and line["higher"] == 6
        and line["difference"] == pytest.approx(differences.mean())
    )
    ranks = rankdata(abs(differences))
    seen = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    signs = np.array(list(product([0, 1], repeat=7)))
    smaller = np.minimum(signs @ ranks, (1 - signs) @ ranks)
    assert line["p_raw"] == pytest.approx((smaller <= seen).mean())


def bca(differences, random, resamples=20_000):
    """Efron's bias-corrected and accelerated interval of the mean, written out."""
    means = random.choice(differences, (resamples, len(differences))).mean(axis=1)
    bias = norm.ppf(
        (means < differences.mean()).mean() / 2 + (means <= differences.mean()).mean() / 2
    )
    left_out = [np.delete(differences, i).mean() for i in range(len(differences))]
    away = np.mean(left_out) - left_out
    skewness = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    z = bias + norm.ppf([0.025, 0.975])
    return np.quantile(means, norm.cdf(bias + z / (1 - skewness * z)))


@pytest.mark.parametrize(
    "one, other", [(A, B), ([50, 3, 2, 1, 4, 2, 5, 3], [0, 1, 0, 2, 1, 0, 2, 1])]
)
def test_the_interval_is_the_bca_bootstraps(one, other):
    """Against another generator, to what so many resamples can tell; the second pairs are skewed."""
    differences = np.subtract(one, other).astype(float)
    low, high = interval_of_mean(differences)
    assert [low, high] == pytest.approx(bca(differences, np.random.default_rng(7)), abs=0.3)
    assert low < differences.mean() < high
    assert interval_of_mean(differences) == (low, high)


def test_the_interval_is_of_as_many_pairs_as_there_are():
    assert np.isnan(interval_of_mean(np.zeros(0))).all()
    assert np.isnan(interval_of_mean(np.array([3.0]))).all()
    assert interval_of_mean(np.array([1.0, 3.0])) == (1.0, 3.0)
    assert interval_of_mean(np.full(4, 0.1)) == (0.1, 0.1)
    nearly = interval_of_mean(0.1 * np.arange(3, 9) - 0.1 * np.arange(2, 8))
    assert nearly == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize("pairs", [6, 13, 14])
def test_ties_and_zeros_are_tested_as_scipy_does(pairs):
    """To the digit, though without ranking anew for every sign."""
    differences = np.random.default_rng(pairs).integers(-2, 5, pairs).astype(float)
    differences[:3] = 0, 1, -1
    assert signed_rank(differences) == wilcoxon(differences).pvalue


def test_holm_by_hand():
    """0.01 x 4, 0.02 x 3, 0.03 x 2 (no less than the one before), 0.04 x 1 (likewise); what is no test does not count."""
    assert holm(np.array([0.03, math.nan, 0.01, 0.04, 0.02])) == pytest.approx(
        [0.06, math.nan, 0.04, 0.06, 0.06], nan_ok=True
    )
    assert holm(np.array([0.5, 0.9])) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    "test, words",
    [
        ((0, math.nan, math.nan), "no scan in common"),
        ((5, 9.0, math.nan), "too few for a test"),
        ((6, 1.0, 0.05), "no difference shown"),
        ((6, 1.0, 0.049), "better"),
        ((6, -1.0, 0.01), "worse"),
        ((6, -1.0, 0.01, "lower"), "better"),
        ((6, 1.0, 0.01, "nearer"), "worse"),
    ],
)
def test_verdicts(test, words):
    assert statistics.verdict(*test) == words


def test_all_tests_of_a_table_are_corrected_together():
    scores = [
        score(variant, case, 40 + shift + case % 3, name=name)
        for variant, shift in (("base", 0), ("far", 20), ("near", 5))
        for case in range(8)
        for name in ("x", "y")
    ]
    tests = fsseg.compare([run_of("r", scores)], baseline="base").tests()
    assert len(tests) == 6 and tests["p"].tolist() == pytest.approx((6 * tests["p_raw"]).tolist())
    assert set(tests["verdict"]) == {"better"}


def test_a_scan_counts_once_whatever_its_folds_seeds_and_supports():
    """40 and 60 in two folds, two seeds, two supports are 50."""
    scores = []
    for variant in ("a", "b"):
        for case in range(6):
            for fold, seed, support, dice in [
                (0, 0, "s", 40),
                (1, 0, "s", 60),
                (0, 1, "t", 40),
                (0, 0, "t", 60),
            ]:
                scores.append(score(variant, case, dice, fold=fold, seed=seed, support=support))
    cases = fsseg.compare([run_of("r", scores)]).cases
    assert cases.shape == (12, 2) and (cases == 50).all(axis=None)


def test_too_few_scans_are_not_tested_and_nothing_is_called_better():
    scores = [score(v, case, dice) for v, dice in (("a", 20), ("b", 90)) for case in range(5)]
    comparison = fsseg.compare([run_of("r", scores)])
    line = comparison.table().loc["b"]
    assert (
        line["verdict"] == "too few for a test" and np.isnan(line["p"]) and line["difference"] == 70
    )
    assert (
        "better" not in comparison.to_markdown()
        and "too few for a test" in comparison.to_markdown()
    )


def test_equal_rows_show_no_difference(two):
    scores = [score(v, case, dice) for v in "ab" for case, dice in enumerate(A)]
    line = fsseg.compare([run_of("r", scores)]).tests().loc["b", "x"]
    assert (line["p"], line["verdict"], line["low"], line["high"]) == (
        1.0,
        "no difference shown",
        0.0,
        0.0,
    )


def test_scans_without_the_class_in_one_row_are_left_out(two):
    """And from the mean over classes of both."""
    scores = two.scores + [
        CaseScore("TPM", False, 0, 0, "8", "x", "s", (3,), 0, 0, 0),
        CaseScore("ADNet", False, 0, 0, "8", "x", "s", (3,), 0, 5, 0),
    ]
    assert (
        fsseg.compare([run_of("r", scores)], baseline="ADNet").tests().loc["TPM", "x"]["pairs"] == 7
    )


METRICS = {
    "hd95": {"unit": "mm", "best": 0.0, "better": "lower"},
    "volume_error": {"unit": "ml", "best": 0.0, "better": "nearer"},
}


def test_of_a_distance_less_is_better_and_of_a_signed_error_what_is_nearer():
    scores = [score("base", c, 50, hd95=9.0 + c, volume_error=-20.0) for c in range(6)]
    scores += [score("new", c, 50, hd95=4.0 + c, volume_error=5.0) for c in range(6)]
    run = run_of("r", scores, metrics=METRICS)
    line = fsseg.compare([run], metric="hd95").tests().loc["new", "mean"]
    assert (
        line["difference"] == -5.0 and line["verdict"] == "no difference shown"
    )  # 1/32 twice, corrected
    many = [
        score(v, c, 50, hd95=s + c, volume_error=e)
        for v, s, e in (("base", 9.0, -20.0), ("new", 4.0, 5.0))
        for c in range(12)
    ]
    run = run_of("r", many, metrics=METRICS)
    assert fsseg.compare([run], metric="hd95").table().loc["new", "verdict"] == "better"
    line = fsseg.compare([run], metric="volume_error").tests().loc["new", "mean"]
    assert line["difference"] == -15.0 and line["verdict"] == "better"


def test_rows_of_several_runs_are_told_apart_and_paired():
    first = run_of(
        "first",
        [score(v, c, d) for v, values in (("TPM", A), ("OCP", A)) for c, d in enumerate(values)],
    )
    second = run_of("second", [score("TPM", c, d) for c, d in enumerate(B)])
    comparison = fsseg.compare([first, second], baseline="TPM (second)")
    assert comparison.variants == ["TPM (first)", "OCP", "TPM (second)"]
    assert comparison.table().loc["OCP", "difference"] == pytest.approx(np.subtract(A, B).mean())
    with pytest.warns(
        UserWarning, match="stay empty: (first|second)/recipe.toml: there is no such recipe"
    ):
        frame = comparison.frame
    assert set(frame["run"]) == {"first", "second"} and len(frame) == 21


@pytest.mark.parametrize(
    "about, what",
    [
        ({"protocol_hash": "bb"}, r"different protocols, folds or classes \(aa and bb\)"),
        ({"data": {"0": "e"}}, "different scans or a different grid in fold 0"),
        ({"data": {"1": "d"}}, r"different folds \(0 and 1\)"),
    ],
)
def test_runs_that_were_not_evaluated_alike_are_refused(two, about, what):
    other = run_of("other", [score("OCP", 0, 50)], **about)
    with pytest.raises(
        FssegError, match=f"run and other were evaluated with {what}.*--across-protocols"
    ):
        fsseg.compare([two, other])
    assert fsseg.compare([two, other], across_protocols=True).variants == ["TPM", "ADNet", "OCP"]


def test_runs_of_other_folds_or_seeds_are_told_of(two):
    """Their means are over other scans; only the differences are over the same."""
    other = run_of(
        "other",
        [score("OCP", c, d) for c, d in enumerate(A)],
        folds=[0, 1],
        data={"0": "d", "1": "e"},
    )
    first = run_of("first", two.scores, folds=[0], seeds=[0])
    other.about["seeds"] = [0]
    found = fsseg.compare([first, other])
    assert (
        len(found.notes) == 1
        and "other has folds 0, 1, first 0: means are over what each has" in found.notes[0]
    )
    assert fsseg.compare([first]).notes == []


def test_what_there_is_nothing_to_compare_with(two):
    with pytest.raises(
        FssegError, match="there is no row 'ADNt' to compare with; did you mean 'ADNet'"
    ):
        fsseg.compare([two], baseline="ADNt")
    with pytest.raises(FssegError, match="there is no metric 'hd59'; did you mean 'hd95'"):
        fsseg.compare([two], metric="hd59")
    with pytest.raises(FssegError, match="got no runs"):
        fsseg.compare([])
    with pytest.raises(FssegError, match="nowhere: there is no run"):
        fsseg.compare(["nowhere"])


@pytest.fixture
def kept(tmp_path):
    scores = [score("TPM", c, d, oracle=True) for c, d in enumerate(A)] + [
        score("AD_Net", c, d) for c, d in enumerate(B)
    ]
    folder = tmp_path / "run_1"
    folder.mkdir()
    write_json(folder / "run.json", ABOUT | {"classes": ["x"]})
    write_lines(folder / "scores.jsonl", scores)
    return folder


def test_tables_in_every_form(kept):
    comparison = fsseg.compare([kept], baseline="AD_Net")
    markdown = comparison.to_markdown().splitlines()
    assert [cell.strip() for cell in markdown[2].split("|")[1:3]] == ["TPM *", f"{np.mean(A):.1f}"]
    assert (
        markdown[1].startswith("|:--") and markdown[1].count("-:|") == markdown[1].count("|") - 2
    )  # names to the left
    difference = np.subtract(A, B).mean()
    assert f"{difference:+.1f} [" in markdown[2] and "no difference shown (p = 0." in markdown[2]
    latex = comparison.to_latex()
    assert r"\toprule" in latex and r"AD\_Net" in latex and r"$\pm$ cases" in latex
    assert latex.isascii()  # whatever the document's encoding and fonts
    with pytest.warns(UserWarning, match="run_1: iou, hd95, assd, nsd, volume_error stay empty"):
        back = pandas.read_csv(io.StringIO(comparison.to_csv()))
    assert back["iou"].tolist() == pytest.approx([d / (200 - d) for d in A + B])
    assert len(back) == 14 and back["dice"].tolist() == pytest.approx([d / 100 for d in A + B])
    plain = comparison.dumps()
    assert json.loads(json.dumps(plain))["tests"][0]["pairs"] == 7
    figure = comparison.plot()
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["TPM *", "AD_Net"]
    assert len(figure.axes[0].lines[0].get_ydata()) == 7


def test_a_recipe_is_run_and_then_compared(monkeypatch, two):
    seen = []
    monkeypatch.setattr(
        "fsseg.runs.run.run", lambda recipe, **how: seen.append((recipe, how)) or two
    )
    recipe = Path(__file__).parents[1] / "recipes" / "table1.toml"
    fsseg.compare([recipe], baseline="ADNet", runs_dir="elsewhere")
    told = seen[0][1]
    assert told.pop("progress") and told == {"name": "table1", "runs_dir": "elsewhere"}
    assert seen[0][0].variants[0].name == "ADNet"


def box(shape, corner, size):
    filled = np.zeros(shape, bool)
    filled[tuple(slice(c, c + s) for c, s in zip(corner, size))] = True
    return filled


def test_distances_of_boxes_that_are_moved():
    """Two boxes, one moved by two voxels of 1.5 mm along a side that is long: the ends are 3 mm apart, the sides 0."""
    one, other = box((8, 40, 40), (2, 5, 5), (4, 6, 20)), box((8, 40, 40), (2, 5, 7), (4, 6, 20))
    spacing = (3.0, 1.0, 1.5)
    assert Hd95(percent=100)(one, other, spacing) == pytest.approx(3.0)
    assert 0 < Assd()(one, other, spacing) < 1.0
    assert Nsd(tolerance=3.0)(one, other, spacing) == 1.0
    assert 0.5 < Nsd(tolerance=0.5)(one, other, spacing) < 1.0


def test_distances_where_one_is_missing():
    nothing, something = np.zeros((4, 8, 8), bool), box((4, 8, 8), (1, 2, 2), (2, 3, 3))
    for metric in (Hd95(), Assd()):
        assert math.isnan(metric(nothing, something, (1.0, 1.0, 1.0)))
    assert Nsd()(something, nothing, (1.0, 1.0, 1.0)) == 0.0


def test_examples_are_true():
    for module in (metrics, statistics, tables):
        ran = doctest.testmod(module)
        assert ran.attempted and not ran.failed


def test_in_the_shell(kept, tmp_path, shell):
    def call(*words):
        done = shell("compare", *words)
        return done.returncode, done.stdout, done.stderr

    code, out, _ = call(kept, "--baseline", "AD_Net", "--by-class", "--plot", tmp_path / "plot.png")
    assert code == 0 and "TPM *" in out and "by class" in out and "* uses the ground truth" in out
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    for form, start in (
        ("md", "|"),
        ("latex", r"\begin{tabular}"),
        ("csv", "dataset,run,"),
        ("json", "{"),
    ):
        code, out, err = call(kept, "--format", form)
        assert code == 0 and out.startswith(start)
        assert (form == "csv") == ("warning: run_1: iou" in err)  # its scans are nowhere
    code, _, err = call(tmp_path / "nothing")
    assert code == 2 and "there is no run" in err
