"""Jobs on a real Slurm: a cluster of one node that the test starts itself."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_cluster
from helpers import make_folder, write_light_recipe

from fsseg.jobs.job import JobSet

pytestmark = pytest.mark.slurm

FOLDS = ["--fold", "all", "--seeds", "2", "--device", "cpu", "--set", "protocol.folds=disjoint2"]
SETTINGS = ["--set", "speed.threads=1", "--set", "speed.checkpoint_every=20"]
SLURM = [
    "--launcher",
    "slurm",
    "--launch",
    "gpus=0",
    "--launch",
    "cpus=1",
    "--launch",
    "memory=2G",
    "--launch",
    "time=30",
]
PATIENCE = 600


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if slurm_cluster.missing():
        pytest.skip(f"needs {', '.join(slurm_cluster.missing())}")
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm"), processors=2) as environment:
        yield environment


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    return write_light_recipe(folder, make_folder(folder / "scans"), steps=1000)


@pytest.fixture(scope="module")
def local(recipe, tmp_path_factory):
    """The table of the same run in one process."""
    return table_of(
        subprocess.run(
            command(recipe, tmp_path_factory.mktemp("local")),
            capture_output=True,
            text=True,
            check=True,
        )
    )


def command(recipe, runs, *more):
    words = [
        sys.executable,
        "-m",
        "fsseg",
        "run",
        *recipe,
        "--runs-dir",
        runs,
        *FOLDS,
        *SETTINGS,
        *more,
    ]
    return [str(word) for word in words]


def table_of(done):
    """The table, and the scores behind it."""
    table, _, path = done.stdout.partition("\nRun directory: ")
    return table, (Path(path.strip()) / "scores.jsonl").read_text(encoding="utf-8")


def job_set(runs) -> JobSet:
    return JobSet.read(wait_for(lambda: next(runs.glob("jobs/*/jobs.json"), None)).parent)


def wait_for(look, seconds=PATIENCE):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError("waited in vain")


def under_way(jobs, at_least=10):
    """A job that has done some steps of its training, but not most."""
    for job in jobs.jobs:
        state = job.state()
        if state.status == "running" and state.stage == "training" and at_least <= state.done < 700:
            return job
    return None


def ask(environment, *words):
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=200
    ).stdout


def test_a_job_that_loses_its_node_is_queued_again_and_resumes(
    slurm, recipe, local, tmp_path, tell
):
    """Slurm warns of a preemption or the end of the time with a signal; here it is sent by scancel."""
    runs = tmp_path / "runs"
    with subprocess.Popen(
        command(recipe, runs, *SLURM),
        env=slurm,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        jobs = job_set(runs)
        assert [job.name for job in jobs.jobs] == [
            f"fold {fold} seed {seed}" for seed in (3, 4) for fold in (0, 1)
        ]
        job = wait_for(lambda: under_way(jobs))
        number = json.loads((jobs.folder / "slurm.json").read_text())[job.name]
        ask(slurm, "scancel", "--signal=USR2", number)
        status = [sys.executable, "-m", "fsseg", "status", str(jobs.folder)]
        wait_for(
            lambda: re.search(
                rf"{job.name} +queued .* its node was taken away", ask(slurm, *status)
            )
        )
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert table_of(subprocess.CompletedProcess([], 0, out)) == local
    log = (job.folder / "log.txt").read_text()
    assert re.search(r"training: goes on from step \d+ of 1000", log)
    restarts = ask(slurm, "scontrol", "show", "job", number)
    assert "Restarts=1" in restarts, restarts
    assert [state.status for state in jobs.states()] == ["done"] * 4
    tell(f"4 Slurm jobs, 1 cancelled ({job.name}), 0 lost")


def test_who_watches_may_leave_and_come_back(slurm, recipe, local, tmp_path):
    """Ctrl-C ends the watching; a job that is cancelled for good meanwhile runs when the command is given again."""
    runs = tmp_path / "runs"
    with subprocess.Popen(
        command(recipe, runs, *SLURM), env=slurm, stderr=subprocess.PIPE, text=True
    ) as process:
        jobs = job_set(runs)
        job = wait_for(lambda: under_way(jobs))
        process.send_signal(2)
        said = process.stderr.read()
        assert process.wait() == 130
    assert re.search(
        r"detached: \d jobs go on without; fsseg status .* the same command attaches again", said
    )
    assert job.state().status == "running"
    number = json.loads((jobs.folder / "slurm.json").read_text())[job.name]
    ask(slurm, "scancel", number)
    wait_for(lambda: job.state().status in {"stopped", "lost"})
    again = subprocess.run(
        command(recipe, runs, *SLURM), env=slurm, capture_output=True, text=True, timeout=PATIENCE
    )
    assert again.returncode == 0, again.stderr
    assert "1 jobs submitted" in again.stderr and table_of(again) == local
    third = subprocess.run(
        command(recipe, runs, *SLURM), env=slurm, capture_output=True, text=True, timeout=PATIENCE
    )
    assert "submitted" not in third.stderr and table_of(third) == local


def test_what_slurm_refuses_is_a_sentence(slurm, recipe, tmp_path):
    wrong = [*SLURM, "--launch", "partition=nowhere"]
    done = subprocess.run(
        command(recipe, tmp_path / "runs", *wrong), env=slurm, capture_output=True, text=True
    )
    assert (
        done.returncode == 2
        and "launcher slurm: " in done.stderr
        and "nvalid partition" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_supervoxels_as_jobs(slurm, tmp_path):
    """Two jobs share the scans of a dataset."""
    folder = make_folder(tmp_path / "scans", cases=5)
    words = ["supervoxels", folder, "--parts", "2", "--jobs", "1", *SLURM]
    done = subprocess.run(
        [str(word) for word in [sys.executable, "-m", "fsseg", *words]],
        env=slurm | {"FSSEG_CACHE": str(tmp_path / "cache")},
        capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 jobs submitted" in done.stderr
    assert len(list((tmp_path / "cache" / "supervoxels").glob("*.safetensors"))) == 5
