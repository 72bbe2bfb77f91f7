"""Runs that are stopped, killed and taken up again end with the same bits as those that are not."""

import json
import math
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
    write_light_recipe,
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


# Whole runs, in processes that are killed.

COMPARED = ("checkpoint.safetensors", "train.jsonl", "calibration.json", "scores.jsonl")


def fsseg_run(recipe, runs, *more):
    command = [sys.executable, "-m", "fsseg", "run", *recipe, "--runs-dir", runs, "--device", "cpu"]
    return [*map(str, command), "--set", "speed.checkpoint_every=2", *more]


@contextmanager
def running(recipe, runs, *more, cache=None, stderr=subprocess.PIPE):
    environment = os.environ | ({"FSSEG_CACHE": str(cache)} if cache else {})
    command = fsseg_run(recipe, runs, *more)
    with subprocess.Popen(
        command, stderr=stderr, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def contents(run):
    """The bytes of everything in a run but what says when and where."""
    found = {
        str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()
    }
    return {name: content for name, content in found.items() if name != "environment.json"}


def finished_runs(runs):
    return [path for path in runs.iterdir() if (path / "run.json").exists()]


STAGES = ("data", "supervoxels", "training", "calibration", "evaluation", "writing")


class Watched:
    """A run in a process of its own, and the stage that it is at by the files that it writes.

    Not by what it says: it says nothing in the middle of a short stage, and what it says arrives late.
    """

    def __init__(self, process, runs):
        self.process, self.runs = process, runs
        self._before, self._at = self._files(), "data"

    def _files(self):
        """What tells of a process at work: folders that are not finished yet, snapshots, and finished evaluations."""
        kinds = ("stages/.*.unfinished", "checkpoints/*/*", "stages/evaluate-*[0-9a-f]")
        return {path for kind in kinds for path in self.runs.glob(kind)}

    def at(self):
        kinds = {path.name.partition("-")[0] for path in self._files() - self._before}
        stages = [".train", "step", ".calibrate", ".evaluate", "evaluate"]
        found = [stage for kind, stage in zip(stages, STAGES[1:]) if kind in kinds]
        self._at = max(
            [self._at, *found], key=STAGES.index
        )  # between two stages it is at the earlier one
        return self._at

    def wait_for(self, stage, seconds=math.inf):
        """Returns once the run is as far as this, or its process has ended, or after so many seconds."""
        until = time.monotonic() + seconds
        while STAGES.index(self.at()) < STAGES.index(stage) and self.process.poll() is None:
            if time.monotonic() > until:
                return
            time.sleep(0.001)


@contextmanager
def watched(recipe, folder):
    runs = folder / "runs"
    with (
        open(folder / "said.txt", "ab") as said,
        running(recipe, runs, cache=folder / "cache", stderr=said) as process,
    ):
        yield Watched(process, runs)


@pytest.fixture(scope="module")
def uninterrupted_run(tmp_path_factory):
    """A recipe in a command's words, what an uninterrupted run of it leaves, and how long it is at each of its stages."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_light_recipe(folder, make_folder(folder / "scans"), steps=200)
    begun = [time.monotonic()]
    with watched(recipe, folder) as run:
        for stage in STAGES[1:]:
            run.wait_for(stage)
            begun.append(time.monotonic())
        assert run.process.wait() == 0, (folder / "said.txt").read_text()
    lengths = {stage: after - before for stage, before, after in zip(STAGES, begun, begun[1:])}
    return recipe, contents(finished_runs(folder / "runs")[0]), lengths


@pytest.fixture(scope="module")
def whole(uninterrupted_run):
    """A recipe, and what an uninterrupted run of it in a process of its own leaves."""
    return uninterrupted_run[:2]


def kill_in_turn(uninterrupted_run, folder, moments, dice):
    """Starts the same run until it ends by itself; each earlier one is killed at a random moment of a stage.

    Kills change nothing in what is left in the end; one that comes late may find the run finished.

    Returns:
        The stages that those which were killed were at, and how often a training went on from one of its steps.
    """
    recipe, expected, lengths = uninterrupted_run
    folder.mkdir()
    kills = []
    for stage in moments:
        with watched(recipe, folder) as run:
            run.wait_for(stage)
            # A stage that is taken up again several times is shorter each time.
            seconds = dice.random() * lengths[stage] / moments.count(stage)
            run.wait_for(STAGES[STAGES.index(stage) + 1], seconds)
            at = run.at()
            run.process.kill()
            if run.process.wait() == -signal.SIGKILL:
                kills.append(at)
    with watched(recipe, folder) as run:
        assert run.process.wait() == 0, (folder / "said.txt").read_text()
    runs = finished_runs(folder / "runs")
    assert runs and all(contents(run) == expected for run in runs)
    assert {name.rpartition("/")[2] for name in expected} >= set(COMPARED)
    left = [
        path for path in (folder / "runs").rglob("*") if path.suffix in {".unfinished", ".lock"}
    ]
    assert left == [] and not list((folder / "runs" / "checkpoints").glob("*/*"))
    return kills, (folder / "said.txt").read_text().count("training: goes on from step")


def kill_until(wanted, stages, uninterrupted_run, folder, moments, seed, tell):
    """Runs that are killed in turn until so many kills were in time, some in each of these stages.

    In one of four a training must have gone on from a step: a run that begins its stage again shows little.
    """
    print(f"seed {seed}")  # which a failure shows
    dice, kills, resumed = random.Random(seed), [], 0
    for number in range(10):  # on a busy machine a stage may be over before the kill
        if len(kills) >= wanted and stages <= set(kills) and resumed >= wanted // 4:
            break
        more, times = kill_in_turn(uninterrupted_run, folder / str(number), moments, dice)
        kills, resumed = kills + more, resumed + times
    told = ", ".join(f"{count} in {stage}" for stage, count in Counter(kills).items())
    tell(f"{len(kills)} kills ({told}), {resumed} trainings resumed, 0 differences")
    assert len(kills) >= wanted and stages <= set(kills) and resumed >= wanted // 4


@pytest.mark.processes
def test_four_kills_change_no_bit(uninterrupted_run, tmp_path, tell):
    moments = ["supervoxels", "training", "calibration", "evaluation"]
    kill_until(4, {"training"}, uninterrupted_run, tmp_path, moments, 1, tell)


@pytest.mark.processes
@pytest.mark.slow
def test_twenty_kills_change_no_bit(uninterrupted_run, tmp_path, tell):
    moments = [
        "data",
        "supervoxels",
        *4 * ["training"],
        "calibration",
        "calibration",
        "evaluation",
        "evaluation",
    ]
    everywhere = set(STAGES) - {"writing"}  # that takes milliseconds
    kill_until(20, everywhere, uninterrupted_run, tmp_path, moments, random.randrange(10**6), tell)


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
    with running(recipe, tmp_path / "runs") as process:
        for line in process.stderr:
            if line.startswith("training"):
                process.send_signal(signal.SIGTERM)
                break
        said = process.stderr.read()
        assert process.wait() == 128 + signal.SIGTERM
    assert re.search(
        r"stopped by SIGTERM after training step \d+ of 200; run the same again to go on", said
    )
    assert "Traceback" not in said and not list((tmp_path / "runs").glob("tiny-*"))
    with running(recipe, tmp_path / "runs") as process:
        said = process.stderr.read()
        assert process.wait() == 0 and re.search(r"training: goes on from step \d+ of 200", said)
    assert contents(finished_runs(tmp_path / "runs")[0]) == expected


@pytest.mark.processes
def test_a_second_signal_stops_at_once(tmp_path):
    """Even where the first is being answered for long."""
    code = (
        "import signal, time, os\nfrom fsseg.system.signals import *\n"
        "with stoppable(), saving_first():\n print('ready', flush=True)\n while True:\n  time.sleep(0.01)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT


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
    with running(recipe, tmp_path / "runs") as first:
        assert any(line.startswith("training") for line in first.stderr)
        first.send_signal(signal.SIGSTOP)
        with running(recipe, tmp_path / "runs") as second:
            said = ""
            for line in second.stderr:
                said += line
                if "waiting for it" in line:
                    first.send_signal(signal.SIGCONT)
            assert first.stderr.read() and (first.wait(), second.wait()) == (0, 0)
    assert f"process {first.pid} on " in said and "is at it, waiting for it" in said
    assert "taken from" in said and not re.search(r"^training \d", said, re.MULTILINE)
    runs = [path for path in (tmp_path / "runs").glob("tiny-*")]
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
