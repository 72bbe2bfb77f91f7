from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fsseg import FssegError, registry
from fsseg.evaluation.scores import CaseScore
from fsseg.testing import parametrize_with_checks


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
    tracker.variant_evaluated(variant="TPM 5, CE-T", fold=1, seed=0, scores=scores)
    tracker.run_finished()
    (folder,) = Path(tmp_path, "tensorboard").iterdir()
    read = EventAccumulator(str(folder / "fold1-seed0-TPM_5__CE-T")).Reload()
    points = [(point.step, point.value) for point in read.Scalars("training/query")]
    assert points == [(25, pytest.approx(0.04)), (50, pytest.approx(0.02))]
    assert read.Scalars("dice/liver")[0].value == 75  # the scan without the class is left out
    assert read.Scalars("dice/mean")[0].value == 75


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
