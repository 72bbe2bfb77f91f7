"""What users do wrong with finished runs, in the shell: one sentence and exit code 2, or a warning and a result."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from helpers import scans_of, write_nifti


@pytest.fixture(scope="module")
def work(finished_run):
    """A folder of scans, and finished runs of two folds that have no scan in common."""
    runs = [finished_run(), finished_run({"protocol.fold": 2})]
    return scans_of(runs[0]), [run.path for run in runs]


@pytest.fixture
def call(shell):
    """The shell: exit code, standard output, and standard error as one line."""

    def run(*words):
        done = shell(*words)
        return done.returncode, done.stdout, " ".join(done.stderr.split())

    return run


def predicting(run, root, out, *, labels=None, query=None):
    support = [
        "--support",
        root / "image_10.nii.gz",
        "--support-labels",
        labels or root / "label_10.nii.gz",
    ]
    return ["predict", run, *support, "--query", query or root / "image_2.nii.gz", "--out", out]


def refused(answer, sentence):
    """Whether it is one error, told without a traceback, after nothing but progress."""
    code, out, err = answer
    progress, _, told = err.partition("Error: ")
    return code == 2 and out == "" and "Traceback" not in progress + told and sentence in told


def test_a_run_of_another_format_version(work, call, tmp_path):
    root, (run, _) = work
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "manifest.json").unlink()
    about = json.loads((copy / "run.json").read_text()) | {"format": 99}
    (copy / "run.json").write_text(json.dumps(about))
    sentence = "run.json: has format 99, expected 1; read it with the fsseg that wrote it"
    for words in (
        ["compare", copy],
        ["compare", copy, "--supports", "all"],
        ["report", copy],
        ["export", copy, tmp_path / "m.safetensors"],
        predicting(copy, root, tmp_path / "out"),
    ):
        assert refused(call(*words), sentence), words
    assert not (tmp_path / "out").exists() and not (tmp_path / "m.safetensors").exists()


def test_a_checkpoint_that_was_deleted(work, call, tmp_path):
    """Whatever needs none still works."""
    root, (run, _) = work
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "fold0" / "training0" / "checkpoint.safetensors").unlink()
    sentence = "checkpoint.safetensors: it is not there any more, expected what training left; run the recipe again"
    for words in (
        ["compare", copy, "--supports", "all"],
        ["export", copy, tmp_path / "m.safetensors"],
        ["export", copy, tmp_path / "m.onnx"],
        predicting(copy, root, tmp_path / "out"),
    ):
        assert refused(call(*words), sentence), words
    assert call("compare", copy)[0] == 0 and call("report", copy)[0] == 0


def test_a_support_without_foreground(work, call, tmp_path):
    root, (run, _) = work
    write_nifti(tmp_path / "empty.nii.gz", np.zeros((5, 64, 64), np.uint8))
    answer = call(*predicting(run, root, tmp_path / "out", labels=tmp_path / "empty.nii.gz"))
    assert refused(
        answer, "support image_10: its labels have no foreground, expected voxels of every class"
    )


def test_a_query_of_another_modality_is_segmented_with_a_warning(work, call, tmp_path):
    root, (run, _) = work
    scan = nibabel.load(root / "image_2.nii.gz")
    far = np.asanyarray(scan.dataobj).astype(np.float32) * 100 + 9000
    nibabel.save(nibabel.Nifti1Image(far, scan.affine), tmp_path / "far.nii.gz")
    code, out, err = call(*predicting(run, root, tmp_path / "out", query=tmp_path / "far.nii.gz"))
    assert code == 0 and "voxels" in out and (tmp_path / "out" / "far_labels.nii.gz").is_file()
    assert (
        "warning:" in err
        and "far.nii.gz: its intensities go from" in err
        and "is it the same modality?" in err
    )


def test_runs_that_share_nothing(work, call):
    """Refused; side by side on demand, where no difference is made up from scans that are not the same."""
    _, runs = work
    assert refused(call("compare", *runs), "were evaluated with different folds (0 and 2)")
    code, out, _ = call("compare", *runs, "--across-protocols", "--format", "json")
    tests = [test for test in json.loads(out)["tests"] if runs[1].name in test["variant"]]
    assert code == 0 and tests
    assert all(
        (test["pairs"], test["difference"], test["verdict"]) == (0, None, "no scan in common")
        for test in tests
    )
    code, out, _ = call("compare", *runs, "--across-protocols")
    assert code == 0 and "no scan in common" in out and "nan" not in out and "has folds 2" in out


def test_scans_that_are_gone(work, call, tmp_path):
    """What needs them says which; tables that need none are there."""
    root, (run, _) = work
    copy = shutil.copytree(run, tmp_path / "run")
    gone = tmp_path / "gone"
    (copy / "recipe.toml").write_text(
        (copy / "recipe.toml").read_text().replace(str(root), str(gone))
    )
    for words in (
        ["report", copy],
        ["compare", copy, "--metric", "hd95"],
        ["compare", copy, "--supports", "all"],
    ):
        assert refused(call(*words), str(gone)), words
    assert call("compare", copy)[0] == 0 and call("report", copy, "--no-scans")[0] == 0
