from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fsseg import registry
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
