"""Exports and checkpoints of strangers: one sentence each, and nothing of them is used."""

import json
import shutil

import pytest
import torch
from crafted_exports import BYTES, CHANGES, crafted, read
from safetensors.torch import save_file

import fsseg
from fsseg import AvgEst, FssegError, LinEst, load_predictor
from fsseg.model.checkpoint import load_trained


@pytest.fixture(scope="module")
def results(finished_run):
    return finished_run()


@pytest.fixture(scope="module")
def export(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "whole.safetensors"
    return fsseg.export_predictor(results.path, path, variant="LinEst")


def test_every_crafted_export_is_refused_with_its_name(export, tmp_path):
    load_predictor(export, device="cpu")
    accepted = []
    for name, path in crafted(export, tmp_path):
        try:
            load_predictor(path, device="cpu")
        except FssegError as error:
            told = str(error)
            assert path.name in told or "variant '" in told or "row '" in told, (name, error)
            assert all(len(line) < 600 for line in str(error).splitlines()), (name, error)
        else:
            accepted.append(name)
    assert not accepted
    assert len(CHANGES) + len(BYTES) >= 60


def test_what_a_whole_export_says_otherwise_is_kept(export, tmp_path):
    """A scaling of training scans, and a threshold of other numbers, are loaded as they are."""
    tensors, words = read(export)
    words["scaling"] = json.dumps({"subtract": 3.0, "divide": 2.0, "bounded": False})
    words["threshold"] = json.dumps({"coefficients": [1, 2.0, -3.0]})
    save_file(tensors, tmp_path / "other.safetensors", words)
    predictor = load_predictor(tmp_path / "other.safetensors", device="cpu")
    assert predictor.scaling.measured["divide"] == 2.0
    assert predictor.segmenter.threshold.coefficients == [1.0, 2.0, -3.0]


@pytest.mark.parametrize(
    "file, change, told",
    [
        ("calibration.json", lambda c: c["states"].update(LinEst={"coefficients": [1e999, 0, 0]}), "finite numbers"),
        ("calibration.json", lambda c: c["states"].update(LinEst="x"), "states.LinEst: expected a valid dictionary, got 'x'"),
        ("calibration.json", lambda c: c["states"].update(LinEst={"coefficients": [1, 2]}), "expected 3 numbers"),
        ("calibration.json", lambda c: c["states"].pop("LinEst"), "its state is None, expected what calibration"),
        ("run.json", lambda c: c.update(scaling={"0": {"subtract": 0.0, "divide": 0.0, "bounded": True}}), "scaling: holds values that cannot be applied: divide is 0, expected more than 0"),
        ("run.json", lambda c: c.update(scaling=[1]), "run.json: scaling: expected a valid dictionary"),
    ],
)  # fmt: skip
def test_runs_of_strangers_are_looked_at_as_well(results, tmp_path, file, change, told):
    run = tmp_path / "run"
    shutil.copytree(results.path, run)
    (run / "manifest.json").unlink()
    path = next(run.rglob(file))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(FssegError, match=told):
        load_predictor(run, variant="LinEst", device="cpu")


@pytest.mark.parametrize("spoil", [float("nan"), float("-inf")])
def test_a_checkpoint_that_is_not_finite_is_not_read(tmp_path, spoil):
    tensors = {"backbone.a": torch.ones(3), "head.b": torch.tensor([1.0, spoil])}
    save_file(tensors, tmp_path / "c.safetensors")
    with pytest.raises(FssegError, match="c.safetensors: head.b is not finite"):
        load_trained(tmp_path / "c.safetensors")


@pytest.mark.parametrize("path", ["missing.safetensors", "."])
def test_a_checkpoint_that_is_no_file_is_one_sentence(tmp_path, path):
    with pytest.raises(FssegError, match="cannot be read"):
        load_trained(tmp_path / path)


@pytest.mark.parametrize(
    "policy, state",
    [
        (AvgEst(), {"prior": 1.5}),
        (AvgEst(), {"prior": None}),
        (AvgEst(), {"prior": "0.5"}),
        (LinEst(), {"coefficients": {"a": 1}}),
        (LinEst(location="none"), {"coefficients": [1.0, 2.0, 3.0]}),
        (LinEst(), {"coefficients": [1.0, 2.0, float("inf")]}),
    ],
)
def test_thresholds_take_states_of_their_own_alone(policy, state):
    with pytest.raises(ValueError, match="expected"):
        policy.load_state(state)
