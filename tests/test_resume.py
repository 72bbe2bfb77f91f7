"""Runs that are stopped, killed and taken up again end with the same bits as those that are not."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from helpers import (
    TinyBackbone,
    block_scan,
    make_folder,
    published_rules,
    write_recipe,
)
from safetensors.torch import load_file, save_file
from torch import nn

import fsseg
from fsseg import FssegError, MaskedAverage, Tpm
from fsseg.recipe.tables import TrainingTable
from fsseg.runs.stages import FinishedStage, Stage, Stages
from fsseg.system.locks import NAME, Holder
from fsseg.system.progress import Silent
from fsseg.system.random import Generators, preserved, seeded
from fsseg.system.signals import Stopped, stoppable
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.loop import Training, train_together
from fsseg.training.snapshots import Snapshots, read_snapshot, write_snapshot

CPU = torch.device("cpu")
STEPS = 31  # no multiple of the log's 25: losses are pending at the end


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


class Dropping(TinyBackbone):
    """Draws from torch's and numpy's own generators, as a component of others may."""

    # Not from Python's: the checks of shapes in the tests draw from it as well. It has a test of its own.

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(self.channels), nn.Dropout(0.3)

    def forward(self, images):
        return self.drop(self.norm(super().forward(images + 0.1 * np.random.normal())))


def begin(folder=None, *, every=4, progress=None, backbone=Dropping, steps=STEPS, tell=None):
    saver = None if folder is None else Snapshots(folder, every, progress or Silent())
    return Training(
        backbone(), MaskedAverage(), Tpm(), EpisodeSampler([block_scan()], published_rules()),
        TrainingTable(steps=steps, learning_rate=0.05, decay_every=10),
        seed=5, mode="default", device=CPU, saver=saver, tell=tell,
    )  # fmt: skip


def state_of(training):
    return [training.backbone.state_dict(), training.head.state_dict(), training.log.records()]


def assert_same(one, other):
    for left, right in zip(state_of(one)[:2], state_of(other)[:2]):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
    assert one.log.records() == other.log.records()


@pytest.fixture(scope="module")
def uninterrupted():
    return train_together([begin()])[0]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("stop", [1, 4, 25, 27, STEPS - 1])
def test_a_training_goes_on_with_the_same_bits(tmp_path, uninterrupted, stop):
    """Whatever else draws from the generators in between, and whatever was told is told again."""
    first = begin(tmp_path, every=stop)
    for _ in range(stop):
        first.advance()
    first.saver.save(first)
    torch.rand(3), random.random(), np.random.random()
    told = []
    second = begin(tmp_path, tell=told.append)
    assert second.step == stop and second.saver.resumed == stop
    assert_same(train_together([second])[0], uninterrupted)
    assert told == second.log.records()


def test_saving_changes_nothing(tmp_path, uninterrupted):
    assert_same(train_together([begin(tmp_path, every=1)])[0], uninterrupted)
    assert files(tmp_path) == ["step-000000029.safetensors", "step-000000030.safetensors"]


@pytest.mark.slow
def test_trainings_in_turns_draw_as_each_alone(tmp_path, uninterrupted):
    both = train_together([begin(tmp_path / "a"), begin(tmp_path / "b", every=7)])
    for training in both:
        assert_same(training, uninterrupted)
    shutil_a = begin(tmp_path / "a")  # stands at step 28, the other at its start
    assert shutil_a.step == 28
    for training in train_together([shutil_a, begin()]):
        assert_same(training, uninterrupted)


def test_the_momentum_is_kept(tmp_path):
    """Without it the resumed training would end elsewhere: the state is complete, not only large enough."""
    training = begin(tmp_path)
    for _ in range(4):
        training.advance()
    snapshot = training.snapshot()
    momenta = [name for name in snapshot.tensors if name.startswith("optimiser.")]
    assert len(momenta) == len([p for p in training.backbone.parameters()]) + len(
        list(training.head.parameters())
    )
    assert all(snapshot.tensors[name].abs().sum() > 0 for name in momenta[:2])


def test_every_generator_goes_on_where_it_was():
    """Through the text of a file; a normal draw leaves numpy with a second one in hand."""

    def draws():
        return (
            random.random(),
            random.gauss(0, 1),
            np.random.normal(),
            np.random.random(),
            torch.rand(2).tolist(),
        )

    with seeded(CPU, 1, 2):
        draws()
        kept = json.dumps(Generators.now(CPU).dumps())
        expected = [draws(), draws()]
    with preserved(CPU):
        before = Generators.now(CPU).dumps()
        Generators.loads(json.loads(kept)).take_over(CPU)
        assert [draws(), draws()] == expected
    assert Generators.now(CPU).dumps() == before


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def forge_values(path):
    """Other plain values under the old checksum."""
    snapshot = read_snapshot(path)
    save_file(snapshot.tensors, path, {"values": json.dumps({"step": 1}), "sha256": "0" * 64})


def another_training(path):
    """Whole, but of a network with other channels."""
    snapshot = read_snapshot(path)
    snapshot.tensors["backbone.convolution.weight"] = torch.zeros(2, 2)
    write_snapshot(path, snapshot)


def half_a_training(path):
    snapshot = read_snapshot(path)
    del snapshot.tensors["backbone.convolution.weight"]
    write_snapshot(path, snapshot)


def no_generators(path):
    snapshot = read_snapshot(path)
    del snapshot.values["generators"]
    write_snapshot(path, snapshot)


DAMAGES = {
    truncate: "incomplete|invalid|buffer",
    empty: "small|header",
    flip: "its checksum is another",
    forge_values: "its checksum is another",
    another_training: "backbone.convolution.weight is not what this training has",
    half_a_training: "a part is missing",
    no_generators: "its plain values are others",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_gives_way_to_the_older_one(tmp_path, uninterrupted, damage):
    first, notes = begin(tmp_path), Notes()
    for _ in range(9):
        first.advance()
        if first.saver.is_due(first.step):
            first.saver.save(first)
    assert files(tmp_path) == ["step-000000004.safetensors", "step-000000008.safetensors"]
    damage(tmp_path / "step-000000008.safetensors")
    second = begin(tmp_path, progress=notes)
    assert second.step == 4
    assert re.search(
        rf"step-000000008.safetensors: damaged \(.*({DAMAGES[damage]}).*\), going on", notes.said[0]
    )
    assert notes.said[1] == f"training: goes on from step 4 of {STEPS}"
    assert_same(train_together([second])[0], uninterrupted)


def test_without_a_whole_file_it_begins_anew(tmp_path, uninterrupted):
    first, notes = begin(tmp_path), Notes()
    for _ in range(8):
        first.advance()
        if first.saver.is_due(first.step):
            first.saver.save(first)
    for path in tmp_path.iterdir():
        truncate(path)
    second = begin(tmp_path, progress=notes)
    assert second.step == 0 and len(notes.said) == 2
    assert_same(train_together([second])[0], uninterrupted)


def test_when_to_save_is_found_out(tmp_path, monkeypatch):
    """Every half minute, but of the time no more than a fiftieth."""
    saver, now = Snapshots(tmp_path, "auto", Silent()), [0.0]
    monkeypatch.setattr("fsseg.training.snapshots.time.monotonic", lambda: now[0])
    saver._last = 0.0
    now[0] = 29.0
    assert not saver.is_due(1)
    now[0] = 30.0
    assert saver.is_due(1)
    saver._took = 2.0
    now[0] = 99.0
    assert not saver.is_due(1)
    now[0] = 100.0
    assert saver.is_due(1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_first(tmp_path, uninterrupted, number):
    training = begin(tmp_path, every=1000, progress=Notes())

    class Interrupting(Silent):
        def track(self, items, description, total):
            for item in items:
                if item == 10:
                    os.kill(os.getpid(), number)
                yield item

    before = signal.getsignal(number)
    expected = rf"stopped by {number.name} after training step 11 of {STEPS}; run the same"
    with pytest.raises(Stopped, match=expected), stoppable():
        train_together([training], Interrupting())
    assert signal.getsignal(number) == before
    assert files(tmp_path) == ["step-000000011.safetensors"]
    assert_same(train_together([begin(tmp_path)])[0], uninterrupted)


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_resume import begin
from fsseg import FssegError
training = begin(Path(sys.argv[1]))
training.advance()
training.saver.save(training)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
training.advance()
try:
    training.saver.save(training)
except FssegError as error:
    print(error)
"""


@pytest.mark.processes
def test_a_full_disk_keeps_what_was_saved(tmp_path):
    """Simulated by a limit on the size of files, which the system reports as it does a full disk."""
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path, here], capture_output=True, text=True
    )
    assert "step-000000002.safetensors: the disk is full or the file too large" in done.stdout, (
        done.stderr
    )
    assert files(tmp_path) == ["step-000000001.safetensors"]
    assert begin(tmp_path).step == 1


# Whole runs, in processes that are killed and stopped where `fsseg_light` is told to be.

COMPARED = ("checkpoint.safetensors", "train.jsonl", "calibration.json", "scores.jsonl")
KILLS = {
    "data": ("/facts/", 20),
    "supervoxels": ("/supervoxels/", 20),
    "training": ("/.step-", 24),
    "calibration": ("/.calibrate-", 6),
    "evaluation": ("/.evaluate-", 30),
    "writing": ("/.tiny-", 30),
}
"""By the stage: what the paths of the files have in common that it changes, and how often it changes some at least."""


@contextmanager
def running(recipe, runs, *, cache=None, stderr=subprocess.PIPE, **told):
    command = [sys.executable, "-m", "fsseg", "run", recipe, "--runs-dir", runs, "--device", "cpu"]
    environment = os.environ | told | ({"FSSEG_CACHE": str(cache)} if cache else {})
    with subprocess.Popen(
        [*map(str, command), "--set", "speed.checkpoint_every=2"],
        stderr=stderr, stdout=subprocess.DEVNULL, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running_until_its_ninth_pass(recipe, folder):
    """A run that waits for a signal in the middle of its training."""
    told = folder / "waiting"
    told.mkdir()
    with running(recipe, folder / "runs", LIGHT_WAITS=f"9:{told}") as process:
        while not any(told.iterdir()):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        yield process


def contents(run):
    """The bytes of everything in a run but what says when and where."""
    found = {
        str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()
    }
    return {name: content for name, content in found.items() if name != "environment.json"}


def finished_runs(runs):
    return [path for path in runs.iterdir() if (path / "run.json").exists()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A recipe, and what an uninterrupted run of it in a process of its own leaves."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(folder, make_folder(folder / "scans"), steps=100)
    with running(recipe, folder / "runs", cache=folder / "cache") as process:
        said = process.stderr.read()
        assert process.wait() == 0, said
    [run] = finished_runs(folder / "runs")
    return recipe, contents(run)


def kill_in_turn(whole, folder, moments, tell):
    """Starts the same run once for each moment, where it is killed, and then lets it end; nothing may differ.

    Args:
        moments: A stage, and before which of its changes of a file the run is killed.
    """
    (recipe, expected), cache = whole, folder / "cache"
    with open(folder / "said.txt", "ab") as said:
        for stage, number in moments:
            kill = f"{number}:{KILLS[stage][0]}"
            with running(
                recipe, folder / "runs", cache=cache, stderr=said, LIGHT_KILLS=kill
            ) as run:
                assert run.wait() == -signal.SIGKILL, (stage, number)
        with running(recipe, folder / "runs", cache=cache, stderr=said) as run:
            assert run.wait() == 0, (folder / "said.txt").read_text()
    [run] = finished_runs(folder / "runs")
    assert contents(run) == expected
    assert {name.rpartition("/")[2] for name in expected} >= set(COMPARED)
    left = [
        path for path in (folder / "runs").rglob("*") if path.suffix in {".unfinished", ".lock"}
    ]
    assert left == [] and not list((folder / "runs" / "checkpoints").glob("*/*"))
    resumed = (folder / "said.txt").read_text().count("training: goes on from step")
    told = ", ".join(f"{count} in {stage}" for stage, count in Counter(dict(moments)).items())
    tell(f"{len(moments)} kills ({told}), {resumed} trainings resumed, 0 differences")
    return resumed


@pytest.mark.processes
def test_four_kills_change_no_bit(whole, tmp_path, tell):
    moments = [("supervoxels", 3), ("training", 18), ("calibration", 4), ("evaluation", 15)]
    assert kill_in_turn(whole, tmp_path, moments, tell) == 1


@pytest.mark.processes
@pytest.mark.slow
def test_twenty_kills_change_no_bit(whole, tmp_path, tell):
    """At random moments of every stage; those of the training begin with its second snapshot."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # which a failure shows
    dice, times = random.Random(seed), dict(zip(KILLS, (2, 3, 8, 3, 3, 1)))
    moments = [
        (stage, dice.randint(8 if stage == "training" else 1, KILLS[stage][1]))
        for stage, count in times.items()
        for _ in range(count)
    ]
    assert kill_in_turn(whole, tmp_path, moments, tell) == times["training"]


def write_lock(path, holder):
    path.write_text(NAME + json.dumps(asdict(holder)) + "\n")


def test_a_kill_after_the_last_rename_leaves_nothing_for_long(tmp_path):
    """The stage is finished, but its lock and what it was made in are still there."""
    stages = Stages(tmp_path, Silent())
    stage = Stage("train", {"a": 1}, lambda folder: (folder / "it").write_text("done"))
    folder = stages.finish(stage).folder
    folder.with_name(f".{folder.name}.abc.unfinished").mkdir()
    lock = folder.with_name(f"{folder.name}.lock")
    write_lock(lock, replace(Holder.me(), born="the day before"))
    again = FinishedStage({"a": 1}, folder, reused=True)
    assert stages.finish(stage) == again
    assert list((tmp_path / "stages").iterdir()) == [folder]
    write_lock(lock, Holder.me())  # of a process that lives, which makes it again
    assert stages.finish(stage) == again and lock.exists()


@pytest.mark.processes
def test_a_signal_ends_the_command_with_a_sentence(whole, tmp_path):
    recipe, expected = whole
    with running_until_its_ninth_pass(recipe, tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait() == 128 + signal.SIGTERM
    assert re.search(
        r"stopped by SIGTERM after training step \d+ of 100; run the same again to go on", said
    )
    assert "Traceback" not in said and not list((tmp_path / "runs").glob("tiny-*"))
    with running(recipe, tmp_path / "runs") as process:
        said = process.stderr.read()
        assert process.wait() == 0 and re.search(r"training: goes on from step \d+ of 100", said)
    assert contents(finished_runs(tmp_path / "runs")[0]) == expected


@pytest.mark.processes
def test_a_second_signal_stops_at_once():
    """Even where the first is being answered for long."""
    code = (
        "import signal\nfrom fsseg.system.signals import saving_first, stoppable\n"
        "with stoppable(), saving_first() as asked:\n"
        " print('ready', flush=True)\n"
        " while asked.number is None:\n  signal.pause()\n"
        " print('saving', flush=True)\n"
        " while True:\n  signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in ("ready\n", "saving\n"):
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT


def test_fresh_makes_everything_again(tmp_path, monkeypatch):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, make_folder(tmp_path / "scans"), steps=3))
    trained = []
    monkeypatch.setattr(
        "fsseg.runs.train.train_together",
        lambda all, progress: (trained.append(1), train_together(all, progress))[1],
    )
    first = fsseg.run(recipe, runs_dir=tmp_path / "runs")
    inode = (tmp_path / "runs" / "stages").glob("train-*").__next__().stat().st_ino
    second = fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert len(trained) == 1
    third = fsseg.run(recipe, runs_dir=tmp_path / "runs", fresh=True)
    assert len(trained) == 2
    assert contents(first.path) == contents(second.path) == contents(third.path)
    [stage] = (tmp_path / "runs" / "stages").glob("train-*")
    assert stage.stat().st_ino != inode


def test_fresh_keeps_what_is_there_until_it_is_made(tmp_path, monkeypatch):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, make_folder(tmp_path / "scans"), steps=3))
    fsseg.run(recipe, runs_dir=tmp_path / "runs")
    before = contents(tmp_path / "runs" / "stages")

    def fail(*_):
        raise FssegError("no")

    with monkeypatch.context() as patch:
        patch.setattr("fsseg.runs.train.train_together", fail)
        with pytest.raises(FssegError, match="no"):
            fsseg.run(recipe, runs_dir=tmp_path / "runs", fresh=True)
    assert contents(tmp_path / "runs" / "stages") == before


@pytest.mark.processes
def test_a_run_waits_for_another_at_the_same_stage(whole, tmp_path):
    """Both end with the same results, and only one of them trained."""
    recipe, expected = whole
    with (
        running_until_its_ninth_pass(recipe, tmp_path) as first,
        running(recipe, tmp_path / "runs") as second,
    ):
        said = ""
        for line in second.stderr:
            said += line
            if "waiting for it" in line:
                first.send_signal(signal.SIGUSR1)
        assert first.stderr.read() and (first.wait(), second.wait()) == (0, 0)
    assert f"process {first.pid} on " in said and "is at it, waiting for it" in said
    assert "taken from" in said and not re.search(r"^training \d", said, re.MULTILINE)
    runs = finished_runs(tmp_path / "runs")
    assert len(runs) == 2 and all(contents(run) == expected for run in runs)


def test_a_snapshot_holds_tensors_and_text_alone(tmp_path):
    training = begin(tmp_path)
    training.advance()
    training.saver.save(training)
    [path] = tmp_path.iterdir()
    assert (
        b"pickle" not in path.read_bytes()
        and load_file(path).keys() == read_snapshot(path).tensors.keys()
    )
