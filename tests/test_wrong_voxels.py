"""Where the lost Dice is: kinds of wrong voxels by hand and voxel by voxel, and that they add up to what a run counted."""

import io
import json
import shutil

import nibabel
import numpy as np
import pandas
import pytest
from helpers import make_folder, write_recipe
from hypothesis import given, settings
from hypothesis import strategies as st

import fsseg
from fsseg import FssegError
from fsseg.analysis.wrong_voxels import KINDS, WrongVoxels, count_wrong, end_slices
from fsseg.evaluation.scores import CaseScore
from fsseg.system.names import file_name

CHANGES = {
    "ep2": {"grid.spacing": 2.5},  # scores are counted on the scan's own grid
    "ep1": {"protocol.name": "ep1"},
    "alp_3chunk": {"protocol.name": "alp_3chunk", "seed": [0, 1]},
    "ep2_multi": {"protocol.name": "ep2_multi", "protocol.fold": "all"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Scans of five slices, of which `bright` is in all and `dark` in the middle three; case 1 shows no `dark`."""
    root = make_folder(tmp_path_factory.mktemp("data") / "scans", cases=6)
    file = nibabel.load(root / "label_1.nii.gz")
    labels = np.asanyarray(file.dataobj)
    nibabel.save(
        nibabel.Nifti1Image(np.where(labels == 2, 0, labels), file.affine), root / "label_1.nii.gz"
    )
    return root


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """Runs by the name of their change, each made once."""
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            changes = CHANGES[name] | {"protocol.folds": "disjoint2"}
            made[name] = fsseg.run(
                fsseg.load_recipe(write_recipe(folder, root), changes), runs_dir=folder / "runs"
            )
        return made[name]

    return make


def score(predicted, actual, **told):
    counts = int((predicted & actual).sum()), int(predicted.sum()), int(actual.sum())
    return CaseScore(*told.get("of", ("row", False, 0, 0, "1", "organ", "2", (0,))), *counts)


def dice(predicted, actual):
    return 2 * (predicted & actual).sum() / (predicted.sum() + actual.sum())


# ---- counting ----


def test_ends_are_fifths():
    """Of 1 and 2 slices all, of 3 to 9 one at each end, of 10 two; gaps do not count."""
    found = {
        count: end_slices(np.ones(count, bool)).sum() for count in (1, 2, 3, 4, 5, 9, 10, 14, 15)
    }
    assert found == {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 9: 2, 10: 4, 14: 4, 15: 6}
    assert not end_slices(np.zeros(4, bool)).any()
    gapped = np.array([0, 1, 0, 1, 1, 0, 1, 0], bool)
    assert np.flatnonzero(end_slices(gapped)).tolist() == [1, 6]


def test_a_scan_by_hand():
    """Five slices of four pixels, the organ in slices 1 to 3, two pixels each."""
    actual = np.array([[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)[
        :, None
    ]
    predicted = np.array(
        [[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], bool
    )[:, None]
    counts = count_wrong(predicted, actual)
    assert counts == {"fp_without": 4, "fp_with": 2, "fn_ends": 2, "fn_inside": 1}
    wrong = WrongVoxels(
        score(predicted, actual), **counts
    )  # 3 right of 9 predicted and 6 true: Dice 6 / 15
    told = {kind: wrong.measures(kind) for kind in KINDS}
    assert [told[kind]["share"] for kind in KINDS] == pytest.approx(
        [400 / 6, 200 / 6, 200 / 6, 100 / 6]
    )
    assert [told[kind]["lost"] for kind in KINDS] == pytest.approx(
        [400 / 15, 200 / 15, 200 / 15, 100 / 15]
    )
    gains = [6 / 11, 6 / 13, 10 / 17, 8 / 16]
    assert [told[kind]["gain"] for kind in KINDS] == pytest.approx(
        [100 * (one - 6 / 15) for one in gains]
    )


def test_what_is_undefined():
    """Without the organ in the truth there is no share and no gain; without it in the prediction nothing is lost either."""
    nothing, something = np.zeros((3, 2, 2), bool), np.ones((3, 2, 2), bool)
    for predicted, lost in ((something, 100.0), (nothing, np.nan)):
        counts = count_wrong(predicted, nothing)
        assert counts == {
            "fp_without": int(predicted.sum()),
            "fp_with": 0,
            "fn_ends": 0,
            "fn_inside": 0,
        }
        told = WrongVoxels(score(predicted, nothing), **counts).measures("fp_without")
        assert np.isnan([told["share"], told["gain"]]).all() and told["lost"] == pytest.approx(
            lost, nan_ok=True
        )


SLICES = st.lists(st.integers(0, 255) | st.integers(0, 15), min_size=1, max_size=12)
"""A byte for each slice of four pixels: those that are the organ in its upper half, those predicted in its lower half."""


def masks(slices):
    """Prediction and truth of such slices."""
    bits = np.unpackbits(np.array(slices, np.uint8)[:, None], axis=1).astype(bool)
    return bits[:, None, 4:], bits[:, None, :4]


def kinds_of_voxels(predicted, actual):
    """Each wrong voxel's kind, in plain words of the definition."""
    organ = [z for z in range(len(actual)) if actual[z].any()]
    fifth = max(1, int(len(organ) / 5))
    found = {}
    for place in zip(*np.nonzero(predicted != actual)):
        z = place[0]
        if predicted[place]:
            found[place] = "fp_with" if z in organ else "fp_without"
        else:
            found[place] = "fn_ends" if z in organ[:fifth] + organ[-fifth:] else "fn_inside"
    return found


def check_a_count(count, predicted, actual):
    """What has to be so whatever the masks: the sum, each voxel's kind, the lost Dice, and what repairing gains."""
    counts, kinds = count(predicted, actual), kinds_of_voxels(predicted, actual)
    one = WrongVoxels(score(predicted, actual), **counts)
    assert (
        sum(counts.values()) == one.score.predicted + one.score.actual - 2 * one.score.intersection
    )
    assert counts == {kind: list(kinds.values()).count(kind) for kind in KINDS}
    if not (predicted | actual).any():
        return
    assert sum(one.measures(kind)["lost"] for kind in KINDS) == pytest.approx(
        100 * (1 - dice(predicted, actual))
    )
    for kind in KINDS if actual.any() else ():
        repaired = predicted.copy()
        for place, of in kinds.items():
            repaired[place] = actual[place] if of == kind else predicted[place]
        gain = 100 * (dice(repaired, actual) - dice(predicted, actual))
        told = one.measures(kind)
        assert told["gain"] == pytest.approx(gain)
        more, less = ("lost", "gain") if kind.startswith("fp") else ("gain", "lost")
        assert told[more] >= told[less] - 1e-9


@settings(deadline=None)
@given(SLICES)
def test_every_voxel_has_its_kind_and_kinds_add_up(slices):
    check_a_count(count_wrong, *masks(slices))


def twice(predicted, actual):
    """Counts the only slice of an organ as its first end and as its last."""
    organ = np.flatnonzero(actual.any(axis=(1, 2)))
    counts, missed = count_wrong(predicted, actual), actual & ~predicted
    return counts | {"fn_ends": int(missed[organ[:1]].sum() + missed[organ[-1:]].sum())}


def ends_of_the_scan(predicted, actual):
    """Takes the ends of the scan for those of the organ."""
    counts, missed = count_wrong(predicted, actual), actual & ~predicted
    ends = int(missed[end_slices(np.ones(len(actual), bool))].sum())
    return counts | {"fn_ends": ends, "fn_inside": int(missed.sum()) - ends}


@pytest.mark.parametrize("broken", [twice, ends_of_the_scan])
def test_the_check_finds_what_is_broken(broken):
    """The second adds up all the same."""
    actual = np.zeros((7, 2, 2), bool)
    actual[3 if broken is twice else slice(2, 5)] = True
    nothing = np.zeros_like(actual)
    check_a_count(count_wrong, nothing, actual)
    with pytest.raises(AssertionError):
        check_a_count(broken, nothing, actual)


# ---- runs ----


@pytest.mark.parametrize("name", CHANGES)
def test_the_kinds_add_up_to_what_the_run_counted(finished, name):
    """Score by score: predicted + actual - 2 intersection of scores.jsonl, for every protocol."""
    results = finished(name)
    errors = fsseg.error_table(results.path)
    assert [one.score for one in errors.wrong] == results.scores
    for one in errors.wrong:
        expected = one.score.predicted + one.score.actual - 2 * one.score.intersection
        assert sum(getattr(one, kind) for kind in KINDS) == expected
    assert len(errors.frame) == 4 * len(results.scores) and errors.frame["voxels"].sum() > 0
    without = errors.frame.set_index("kind").loc["fp_without", "voxels"]
    if name in ("ep1", "alp_3chunk"):
        assert not without.any()  # these protocols segment no slice without the organ
    else:
        assert without.any()


def test_what_is_counted_is_in_the_files(finished, root):
    """A case of `ep2` from its two files, without the package."""
    results = finished("ep2")
    one = next(
        one
        for one in fsseg.error_table(results).wrong
        if one.score.class_name == "dark" and one.score.actual
    )
    folder = results.path / "fold0" / "labels" / file_name(one.score.variant)
    predicted = np.asanyarray(nibabel.load(folder / f"{one.score.case}_dark.nii.gz").dataobj).T == 1
    actual = np.asanyarray(nibabel.load(root / f"label_{one.score.case}.nii.gz").dataobj).T == 2
    outside = predicted[[0, 4]].sum(), (predicted & ~actual)[1:4].sum()
    assert (one.fp_without, one.fp_with) == outside
    missed = (actual & ~predicted).sum(axis=(1, 2))
    assert (one.fn_ends, one.fn_inside) == (missed[1] + missed[3], missed[2])


@pytest.mark.parametrize("name", ["ep2", "ep2_multi"])
def test_the_table_is_that_of_the_run_taken_apart(finished, name):
    """Dice is that of the run's table, and what is lost adds up to the rest; also for the mean over classes."""
    results = finished(name)
    table, means = fsseg.error_table(results).table(), results.table()
    for variant in results.variants:
        for of in [*results.classes, "mean"]:
            lines = table.loc[variant, of]
            assert lines.index.tolist() == list(KINDS)
            assert lines["dice"].tolist() == pytest.approx([means.loc[variant, of]] * 4)
            assert lines["lost"].sum() == pytest.approx(100 - means.loc[variant, of])
    frame = fsseg.error_table(results).frame
    own = frame[
        (frame["variant"] == "CE-T")
        & (frame["class_name"] == "dark")
        & (frame["kind"] == "fp_with")
    ]
    assert table.loc[("CE-T", "dark", "fp_with"), "gain"] == pytest.approx(own["gain"].mean())


def test_forms_of_the_table(finished):
    errors = fsseg.error_table(finished("ep2"))
    markdown = errors.to_markdown().splitlines()
    cells = [cell.strip() for cell in markdown[2].split("|")]
    line = errors.table().loc["CE-T", "bright"].iloc[1]
    assert cells[1] == "CE-T, bright" and cells[4] == f"{line['lost']:.1f} ({line['gain']:+.1f})"
    assert [row.split("|")[1].strip() for row in markdown[2:11]][-1] == "OCP *, mean"
    assert r"\toprule" in errors.to_latex() and "CE-T, dark" in errors.to_latex()
    back = pandas.read_csv(io.StringIO(errors.to_csv()))
    assert back["voxels"].tolist() == errors.frame["voxels"].tolist()
    rows = json.loads(json.dumps(errors.dumps()))["rows"]
    assert len(rows) == 3 * 3 * 4 and {
        "variant",
        "class",
        "kind",
        "dice",
        "voxels",
        "share",
        "lost",
        "gain",
    } == set(rows[0])


def test_the_bars_are_the_table(finished):
    """A panel for each class and the mean, in it a bar for each variant that is as long as what is lost."""
    errors = fsseg.error_table(finished("ep2"))
    figure, table = errors.plot(), errors.table()
    assert [axes.get_title() for axes in figure.axes] == ["bright", "dark", "mean"]
    for axes in figure.axes:
        for kind, bars in zip(KINDS, axes.containers):
            expected = table.xs((axes.get_title(), kind), level=("class", "kind"))["lost"]
            assert [bar.get_width() for bar in bars] == pytest.approx(
                expected.loc[errors.results.variants].tolist()
            )


# ---- what cannot be told ----


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished("ep2").path, tmp_path / "run")


def refused(run, match):
    with pytest.raises(FssegError, match=match):
        fsseg.error_table(run)


def test_a_run_without_label_maps(copy):
    recipe = (copy / "recipe.toml").read_text()
    (copy / "recipe.toml").write_text(recipe.replace("save_labels = true", "save_labels = false"))
    refused(copy, r"kept no label maps \(protocol.save_labels = false\).*run the recipe again")


def test_label_maps_that_are_gone_or_changed(copy):
    file = sorted((copy / "fold0" / "labels" / "CE-T").glob("*_bright.nii.gz"))[0]
    image, labels = nibabel.load(file), np.asanyarray(nibabel.load(file).dataobj)
    file.unlink()  # which may share its content with the stage's
    refused(copy, f"{file.name}: there is no label map.*put it back")
    nibabel.save(nibabel.Nifti1Image(1 - labels, image.affine), file)
    refused(copy, f"{file.name}: has .* voxels of bright, .* it was changed since")
    nibabel.save(nibabel.Nifti1Image(labels[:, :, :3], image.affine), file)
    refused(copy, f"{file.name}: has 3 x 64 x 64 voxels, expected 5 x 64 x 64 like its scan")
    file.write_bytes(b"\x1f\x8b")
    refused(copy, f"{file.name}: cannot be read as NIfTI")


def test_scans_that_changed_or_are_gone(copy, root, tmp_path):
    other = shutil.copytree(root, tmp_path / "other")
    recipe = (copy / "recipe.toml").read_text().replace(str(root), str(other))
    (copy / "recipe.toml").write_text(recipe)
    assert fsseg.error_table(copy).wrong  # moved, and the same
    labels = nibabel.load(other / "label_2.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.asanyarray(labels.dataobj)[::-1], labels.affine),
        other / "label_2.nii.gz",
    )
    refused(copy, "the scans of fold 0 are not those that were evaluated.*put the scans back")
    shutil.rmtree(other)
    refused(copy, "other")


def test_in_the_shell(finished, copy, tmp_path, shell):
    def call(*words):
        done = shell("compare", *words, "--errors")
        return done.returncode, done.stdout, " ".join(done.stderr.split())

    run = finished("ep2").path
    starts = {"text": str(run), "md": "|", "latex": "% Dice points", "csv": "variant,", "json": "["}
    for form, start in starts.items():
        code, out, _ = call(run, "--format", form)
        assert code == 0 and out.startswith(start) and "LinEst" in out
    code, out, _ = call(run, copy, "--format", "csv")
    assert code == 0 and len(out.splitlines()) == 1 + 2 * 4 * len(finished("ep2").scores)
    assert call(run, "--plot", tmp_path / "errors.png")[0] == 0
    assert (tmp_path / "errors.png").read_bytes()[:4] == b"\x89PNG"
    shutil.rmtree(copy / "fold0" / "labels")
    for words, sentence in (
        ([run, "--supports", "all"], "got --errors and --supports all, expected one of them"),
        ([run, copy, "--plot", tmp_path / "two.png"], "--plot draws one run, got 2"),
        ([tmp_path / "nowhere"], "there is no run"),
        ([copy], "there is no label map, expected the one that the run kept"),
    ):
        code, out, err = call(*words)
        assert code == 2 and out == "" and sentence in err and "Traceback" not in err
