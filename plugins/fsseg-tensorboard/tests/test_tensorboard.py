import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fsseg import FssegError, registry
from fsseg.evaluation.scores import CaseScore
from fsseg.testing import parametrize_with_checks
from fsseg_tensorboard.tracker import PREDICTED, TRUTH


@parametrize_with_checks("tracker/tensorboard")
def test_contract(check):
    check()


def test_what_is_written_can_be_read(tmp_path):
    tracker = registry().build("tracker", "tensorboard", {})
    tracker.run_started(name="made up", runs_dir=tmp_path)
    for step in (25, 50):
        tracker.step_logged(
            variants=["TPM 5, CE-T"], fold=1, seed=0, values={"step": step, "query": 1 / step}
        )
    scores = [
        CaseScore("TPM 5, CE-T", False, 1, 0, case, "liver", "s", (3,), *counts)
        for case, counts in (("a", (5, 10, 10)), ("b", (10, 10, 10)), ("c", (0, 0, 0)))
    ]
    tracker.case_evaluated(**segmented("TPM 5, CE-T"))
    tracker.variant_evaluated(variant="TPM 5, CE-T", fold=1, seed=0, scores=scores)
    tracker.run_finished()
    (folder,) = Path(tmp_path, "tensorboard").iterdir()
    read = EventAccumulator(str(folder / "fold1-seed0-TPM_5__CE-T")).Reload()
    points = [(point.step, point.value) for point in read.Scalars("training/query")]
    assert points == [(25, pytest.approx(0.04)), (50, pytest.approx(0.02))]
    assert read.Scalars("dice/liver")[0].value == 75  # the scan without the class is left out
    assert read.Scalars("dice/mean")[0].value == 75
    [picture] = read.Images("liver/a from s")
    pixels = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)))
    assert pixels.shape == (8, 9, 3)
    # The square of rows 2 to 5 as predicted, over the one a column further right that is true.
    predicted, true = (pixels == PREDICTED).all(axis=2), (pixels == TRUTH).all(axis=2)
    square = np.zeros((8, 9), dtype=bool)
    square[2:6, 2:6] = True
    square[3:5, 3:5] = False
    assert np.array_equal(predicted, square)
    assert np.array_equal(true, np.roll(square, 1, axis=1) & ~square)
    grey = ~(predicted | true)
    assert (pixels[grey] == pixels[grey][:, :1]).all() and pixels[grey].std() > 10


def segmented(variant):
    """A scan of three slices; the middle one shows a square, and the last one more of the prediction."""
    labels = np.zeros((3, 8, 9), dtype=np.uint8)
    labels[1, 2:6, 2:6] = 4
    truth = np.roll(labels, 1, axis=2)
    labels[2] = 4
    image = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    return {
        "variant": variant, "fold": 1, "seed": 0, "case": "a", "support_case": "s", "classes": {4: "liver"},
        "image": image, "labels": labels, "truth": truth,
    }  # fmt: skip


def test_pictures_can_be_left_out(tmp_path):
    tracker = registry().build("tracker", "tensorboard", {"pictures": False})
    tracker.run_started(name="made up", runs_dir=tmp_path)
    tracker.case_evaluated(**segmented("row"))
    tracker.run_finished()
    assert not list(Path(tmp_path, "tensorboard").glob("*/*"))


@pytest.mark.parametrize(
    "folder", ["/tmp/elsewhere", "../elsewhere", "a/../../b", "C:\\\\x", "a\0b"]
)
def test_nothing_is_written_outside_the_runs(folder):
    with pytest.raises(FssegError, match="a folder below that of the runs"):
        registry().build("tracker", "tensorboard", {"folder": folder})


def test_rows_that_differ_in_signs_have_files_of_their_own(tmp_path):
    tracker = registry().build("tracker", "tensorboard", {})
    tracker.run_started(name="made up", runs_dir=tmp_path)
    for row in ("TPM 5", "TPM/5", "tpm 5", "TPM 5"):
        tracker.step_logged(variants=[row], fold=0, seed=0, values={"step": 25, "query": 1.0})
    tracker.run_finished()
    (folder,) = Path(tmp_path, "tensorboard").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "fold0-seed0-TPM_5", "fold0-seed0-TPM_5-2", "fold0-seed0-tpm_5-3",
    ]  # fmt: skip
