import json
import struct

import numpy as np
import pytest
from wandb.proto import wandb_internal_pb2

from fsseg import registry
from fsseg.evaluation.scores import CaseScore
from fsseg.recipe.reading import parse_recipe
from fsseg.testing import parametrize_with_checks

RECIPE = {
    "dataset": "abdomen_phantom",
    "backbone": "timm",
    "variants": [{"name": "TPM", "threshold": "ce_t"}],
}


@pytest.mark.processes
@parametrize_with_checks("tracker/wandb")
def test_contract(check):
    check()


BLOCK, HEADER = 32768, 7


def records(file):
    """What an offline run wrote: LevelDB's log format, whose chunks are whole, first, middle or last parts of a record."""
    data, place, parts = file.read_bytes(), HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # the rest of a block is too small for a header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


@pytest.mark.processes
def test_it_stays_here_and_keeps_recipe_losses_and_dice(tmp_path):
    tracker = registry().build("tracker", "wandb", {"project": "made_up"})
    assert tracker.mode == "offline"
    tracker.run_started(recipe=parse_recipe(RECIPE), name="first", runs_dir=tmp_path)
    tracker.step_logged(variants=["TPM"], fold=0, seed=0, values={"step": 25, "query": 0.5})
    labels = np.zeros((3, 8, 9), dtype=np.uint8)
    labels[1, 2:6, 2:6] = 4
    tracker.case_evaluated(
        variant="TPM", fold=0, seed=0, case="case", support_case="other", classes={4: "liver"},
        image=np.random.default_rng(0).normal(size=labels.shape), labels=labels, truth=np.roll(labels, 1, axis=2),
    )  # fmt: skip
    score = CaseScore("TPM", False, 0, 0, "case", "liver", "other", (3,), 5, 10, 10)
    tracker.variant_evaluated(variant="TPM", fold=0, seed=0, scores=[score])
    tracker.run_finished(error=None)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = list(records(file))
    run = next(record.run for record in found if record.HasField("run"))
    assert run.project == "made_up" and run.display_name == "first"
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["dataset"]["name"] == "abdomen_phantom"
    logged = {
        (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
        for record in found
        if record.HasField("history")
        for item in record.history.item
    }
    assert logged["fold0/seed0/TPM/query"] == 0.5 and logged["scores/nrows"] == 1
    pictures = "fold0/seed0/TPM/pictures/liver"
    assert logged[f"{pictures}/_type"] == "image-file" and logged[f"{pictures}/width"] == 9
    assert logged[f"{pictures}/caption"] == "liver of case, slice 1, from other"
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/mask/**/*.png"))) == 2
    summary = [json.loads(u.value_json) for r in found if r.HasField("summary") for u in r.summary.update
               if "dice/TPM/fold0/seed0" in (u.key, *u.nested_key)]  # fmt: skip
    assert summary[0] == pytest.approx(50.0)
