"""Every slice that could be the support: which ones there are, and that the run's own support gives the run's numbers."""

from operator import attrgetter

import nibabel
import numpy as np
import pytest
from helpers import scans_of

import fsseg

CHANGES = {
    "ep2": {},
    "ep1": {"protocol.name": "ep1"},
    "ep2_multi": {"protocol.name": "ep2_multi"},
    "own_slice": {"protocol.name": "own_slice"},
}
PARTS = pytest.param("ep1", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["ep2", PARTS, "ep2_multi", "own_slice"])
def found(request, finished_run):
    results = finished_run(CHANGES[request.param] | {"protocol.folds": "disjoint2"}, cases=6)
    sensitivity = fsseg.support_sensitivity(results.path)
    return results, sensitivity, scans_of(results), request.param


def test_every_slice_of_every_case_is_a_support_of_all_others(found):
    """`bright` is in slices 0 to 4 and `dark` in 1 to 3; the fold has three cases; the oracle's row is not there."""
    results, sensitivity, root, protocol = found
    own_slice = protocol == "own_slice"
    cases = {score.case for score in results.scores} | {
        score.support_case for score in results.scores
    }
    expected = set()
    for name, value in {"bright": 1, "dark": 2}.items():
        for support in cases:
            labels = np.asanyarray(nibabel.load(root / f"label_{support}.nii.gz").dataobj)
            slices = np.flatnonzero((labels == value).any(axis=(0, 1)))
            expected |= {
                (name, support, int(z), case)
                for z in slices
                for case in cases
                if (case == support) == own_slice
            }
    frame = sensitivity.frame
    for row in ("CE-T", "LinEst"):
        own = frame[frame["variant"] == row]
        keys = list(zip(own["class_name"], own["support_case"], own["support_slice"], own["case"]))
        assert set(keys) == expected and len(keys) == len(expected)
    assert set(frame["variant"]) == {"CE-T", "LinEst"}


def test_the_runs_own_support_gives_the_runs_numbers(found):
    """Count by count, where the run too segmented from a single slice."""
    results, sensitivity, _, protocol = found
    if protocol == "ep1":
        assert {len(score.support_slices) for score in results.scores} == {3}
        return
    counts = attrgetter("intersection", "predicted", "actual")
    key = attrgetter("variant", "class_name", "case", "support_case", "support_slices")
    every = {key(score): counts(score) for score in sensitivity.scores}
    own = [score for score in results.scores if not score.oracle]
    assert own and all(every[key(score)] == counts(score) for score in own)


def test_the_table_is_of_supports(found):
    """A support counts by its mean over the scans that it segments."""
    results, sensitivity, _, _ = found
    frame, table = sensitivity.frame, sensitivity.table()
    own = frame[(frame["variant"] == "LinEst") & (frame["class_name"] == "dark")]
    means = 100 * own.groupby(["support_case", "support_slice"])["dice"].mean()
    line = table.loc[("LinEst", "dark")]
    assert line["supports"] == len(means) == 9
    assert line[["min", "median", "max"]].tolist() == pytest.approx(
        [means.min(), means.median(), means.max()]
    )
    assert line["as run"] == pytest.approx(results.table().loc["LinEst", "dark"])


def test_the_dots_are_the_supports(found):
    """And the bar is the run's own number."""
    results, sensitivity, _, _ = found
    figure = sensitivity.plot()
    names = [axes.get_title() for axes in figure.axes]
    assert sorted(names) == ["bright", "dark"]
    axes = figure.axes[names.index("dark")]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    own = sensitivity.supports
    for variant, line, bar in zip(("CE-T", "LinEst"), dots, axes.collections):
        dice = own[(own["variant"] == variant) & (own["class_name"] == "dark")]["dice"]
        assert sorted(line.get_xdata()) == pytest.approx(sorted(dice))
        assert bar.get_segments()[0][0][0] == pytest.approx(results.table().loc[variant, "dark"])


def test_what_supports_do_not_have_is_refused(found, tmp_path, shell):
    run = found[0].path
    for more in (
        ["--metric", "hd95"],
        ["--baseline", "CE-T"],
        [run, "--plot", tmp_path / "p.png"],
    ):
        done = shell("compare", run, "--supports", "all", *more)
        told = " ".join(done.stderr.split())
        assert done.returncode == 2 and "expected no --baseline, --metric" in told


def test_in_the_shell(found, shell):
    results, sensitivity, _, protocol = found
    for form in ("text", "csv") if protocol == "ep2" else ("csv",):
        done = shell("compare", results.path, "--supports", "all", "--format", form)
        assert done.returncode == 0 and "LinEst" in done.stdout and "OCP" not in done.stdout
        if form == "csv":
            assert len(done.stdout.splitlines()) == len(sensitivity.frame) + 1
