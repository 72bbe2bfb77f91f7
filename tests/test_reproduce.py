"""Determinism, what is recorded of the environment, and running a run again."""

import json
import os
import shutil

import pytest
import torch
from helpers import TinyBackbone, make_folder, write_recipe
from typer.testing import CliRunner

import fsseg
from fsseg import FssegError
from fsseg.cli.main import app
from fsseg.recipe.tables import ComponentTable
from fsseg.system.devices import computing, describe_device
from fsseg.system.manifests import write_manifest

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    recipe = fsseg.load_recipe(
        write_recipe(folder, make_folder(folder / "scans")), {"speed.threads": 1}
    )
    return fsseg.run(recipe, name="tiny", runs_dir=folder / "runs")


def test_a_run_is_reproduced_to_the_bit(finished):
    threads = torch.get_num_threads()
    done = CliRunner().invoke(app, ["reproduce", str(finished.path), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    count = len(finished.scores)
    assert (
        f"reproduced: {count} of {count} scores are equal, the largest difference of a Dice is 0.000"
        in done.output
    )
    assert "What differs" not in done.output and torch.get_num_threads() == threads
    [again] = (finished.path.parent / "reproduced").glob("tiny-*/run.json")
    assert (
        again.parent.joinpath("scores.jsonl").read_bytes()
        == finished.path.joinpath("scores.jsonl").read_bytes()
    )


def test_a_run_that_was_tampered_with_is_not_reproduced(finished, tmp_path):
    """Other scores and another environment on record: both are told, and the exit code says so."""
    run = shutil.copytree(finished.path, tmp_path / "runs" / finished.path.name)
    lines = run.joinpath("scores.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["intersection"] += 10
    run.joinpath("scores.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    about = json.loads(run.joinpath("environment.json").read_text())
    about["torch"], about["data"]["1"] = "0.0.1", "other"
    run.joinpath("environment.json").write_text(json.dumps(about))
    write_manifest(run)
    done = CliRunner().invoke(app, ["reproduce", str(run), "--device", "cpu"])
    assert done.exit_code == 1
    dice = 100 * 2 * 10 / (first["predicted"] + first["actual"])
    assert f"not reproduced: {len(lines) - 1} of {len(lines)} scores are equal" in done.output
    assert f"the largest difference of a Dice is {dice:.3f}" in done.output.replace("\n", " ")
    assert "torch: 0.0.1 then" in done.output and "data.1: other then" in done.output
    found = fsseg.reproduce(run, runs_dir=tmp_path / "elsewhere", device="cpu")
    assert found.equal == len(lines) - 1 and found.second.path.parent == tmp_path / "elsewhere"
    assert (
        CliRunner()
        .invoke(app, ["reproduce", str(run), "--device", "cpu", "--tolerance", "99"])
        .exit_code
        == 0
    )


def test_a_run_is_not_repeated_into_itself(finished):
    with pytest.raises(FssegError, match="is where the run itself lies"):
        fsseg.reproduce(finished.path, runs_dir=finished.path.parent)


def test_trackers_of_a_strangers_recipe_do_not_listen(finished, tmp_path, monkeypatch):
    """Unless they are asked for: one of them might send the scans' names to a service."""
    ran = []

    def run(recipe, **how):
        ran.append([tracker.name for tracker in recipe.trackers])
        return finished

    monkeypatch.setattr("fsseg.analysis.reproduction.run", run)
    copy = shutil.copytree(finished.path, tmp_path / "runs" / "theirs [1]")
    recipe = copy / "recipe.toml"
    online = 'trackers = [{ name = "wandb", mode = "online" }]'
    recipe.write_text(recipe.read_text().replace("trackers = []", online))
    done = CliRunner().invoke(app, ["reproduce", str(copy)])
    assert "without the recipe's trackers (wandb)" in done.output and done.exit_code == 0
    CliRunner().invoke(app, ["reproduce", str(copy), "--trackers"])
    assert ran == [[], ["wandb"]]


def test_the_environment_is_on_record(finished):
    about = json.loads((finished.path / "environment.json").read_text())
    assert (
        about["threads"] == 1
        and about["determinism"] == "fast"
        and about["torch"] == torch.__version__.split("+")[0]
    )
    assert about["hardware"] == describe_device(CPU) | {"name": "CPU, 1 thread"}
    assert (
        set(about["data"]) == {str(case) for case in range(1, 11)}
        and len(set(about["data"].values())) == 10
    )
    if os.path.isdir(os.path.join(os.path.dirname(__file__), "..", ".git")):
        assert len(about["git"]["commit"]) == 40 and isinstance(about["git"]["changed"], bool)


@pytest.mark.slow
def test_threads_are_part_of_a_training(tmp_path):
    """Digits depend on their number, so a training with another number is another training; "auto" is a number too."""
    recipe = fsseg.load_recipe(write_recipe(tmp_path, make_folder(tmp_path / "scans")))
    for threads in (1, 2, torch.get_num_threads(), "auto"):
        recipe.speed.threads = threads
        fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu")
    assert len(list((tmp_path / "runs" / "stages").glob("train-*"))) == len(
        {1, 2, torch.get_num_threads()}
    )


def test_deterministic_is_asked_of_torch_and_given_back():
    with computing(CPU, 1, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
    assert (
        not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.deterministic
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore"),
            r"memory is full \(CUDA out of memory. Tried 2",
        ),
        (
            RuntimeError("x does not have a deterministic implementation"),
            'speed.determinism: is "deterministic", but',
        ),
    ],
)
def test_what_a_device_cannot_do_is_a_sentence(tmp_path, monkeypatch, error, expected):
    """Raised in the middle of training; what was saved until then is there for the next attempt."""
    recipe = fsseg.load_recipe(write_recipe(tmp_path, make_folder(tmp_path / "scans"), steps=5))
    recipe.speed.determinism, recipe.speed.checkpoint_every = "deterministic", 1
    calls = []

    def full(self, images):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return TinyBackbone.forward(self, images)

    class Full(TinyBackbone):
        forward = full

    build = ComponentTable.build
    monkeypatch.setattr(
        ComponentTable,
        "build",
        lambda table, kind: Full() if kind == "backbone" else build(table, kind),
    )
    with pytest.raises(FssegError, match=expected):
        fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu")
    assert len(list((tmp_path / "runs" / "checkpoints").glob("*/step-*"))) == 2
    assert not list((tmp_path / "runs" / "stages").glob("train-*"))
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_runtime_errors_stay_bugs():
    with pytest.raises(RuntimeError, match="shape"), computing(CPU, 1, deterministic=True):
        raise RuntimeError("a wrong shape")
