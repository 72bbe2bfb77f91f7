"""Jobs: processes side by side that tell how far they are in files, fail one by one, and change no digit."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import make_folder, write_recipe
from typer.testing import CliRunner

import fsseg
from fsseg import FssegError
from fsseg.cli.console import JobTable
from fsseg.cli.jobs import _without, change_launcher
from fsseg.cli.main import app
from fsseg.jobs.job import JobProgress, JobSet, State, job_progress, start, work
from fsseg.jobs.local import run_here
from fsseg.jobs.run import make_jobs, run_as_jobs
from fsseg.jobs.slurm import SlurmJob, _parameters
from fsseg.recipe.reading import parse_recipe
from fsseg.recipe.tables import LauncherTable
from fsseg.runs.data import RunData
from fsseg.system.devices import places_for_trainings
from fsseg.system.locks import holding
from fsseg.system.progress import Silent
from fsseg.system.signals import Stopped

MORE = {"protocol.folds": "disjoint2", "protocol.fold": "all", "seed": [3, 4], "speed.threads": 1}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    return write_recipe(folder, make_folder(folder / "scans"), steps=6)


@pytest.fixture(scope="module")
def one_by_one(path):
    return fsseg.run(
        fsseg.load_recipe(path, MORE), name="tiny", runs_dir=path.parent / "single", device="cpu"
    )


def contents(run):
    found = {
        str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()
    }
    return {
        name: content
        for name, content in found.items()
        # The recipe holds the number of jobs, and the manifest its checksum.
        if name not in {"environment.json", "recipe.toml", "manifest.json"}
    }


def jobs_recipe(path, **more):
    return fsseg.load_recipe(path, MORE | {"launcher.jobs": 2} | more)


@pytest.mark.processes
def test_two_at_a_time_give_the_bits_of_one_by_one(path, one_by_one, tmp_path):
    seen = []
    results = run_as_jobs(
        jobs_recipe(path),
        name="tiny",
        runs_dir=tmp_path,
        device="cpu",
        show=lambda jobs, states: seen.append(states),
    )
    assert contents(results.path) == contents(one_by_one.path) and results.table().equals(
        one_by_one.table()
    )
    assert json.loads((results.path / "environment.json").read_text())["threads"] == 1
    running = [sum(state.status == "running" for state in states) for states in seen]
    assert max(running) == 2 and [state.status for state in seen[-1]] == ["done"] * 4
    # Again: nothing is left to do, so no process is started.
    [jobs] = (tmp_path / "jobs").iterdir()
    before = [job.told() for job in JobSet.read(jobs).jobs]
    again = run_as_jobs(jobs_recipe(path), name="tiny", runs_dir=tmp_path, device="cpu")
    assert [job.told() for job in JobSet.read(jobs).jobs] == before and again.table().equals(
        results.table()
    )
    shown = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert (
        shown.exit_code == 0
        and "tiny: 4 folds and seeds" in shown.output
        and "4 done" in shown.output
    )
    assert re.search(r"fold 1 seed 4 +done +evaluation", shown.output)
    assert "finished" in CliRunner().invoke(app, ["status", str(again.path)]).output
    # Another recipe has other jobs.
    other = jobs_recipe(path, **{"training.steps": 2, "protocol.fold": 0, "seed": 3})
    assert run_as_jobs(other, name="tiny", runs_dir=tmp_path, device="cpu")
    assert len(list((tmp_path / "jobs").iterdir())) == 2


def failing(folder, names, broken):
    """Jobs that print fsseg's version, and one that cannot be run."""
    commands = {
        name: ["--version"] if name != broken else ["run", "nowhere.toml"] for name in names
    }
    return JobSet.make(folder, "a test", commands)


@pytest.mark.processes
def test_a_job_that_fails_is_reported_and_the_others_go_on(tmp_path):
    jobs = failing(tmp_path / "set", ["a", "b", "c"], "b")
    run_here(jobs, 2, [{}], 1, lambda states: None)
    assert [state.status for state in jobs.states()] == ["done", "failed", "done"]
    with pytest.raises(FssegError) as error:
        jobs.require_done()
    told = str(error.value).splitlines()
    assert told[0].startswith("1 of 3 jobs did not end well; the same command runs them again")
    assert told[1].startswith("b: failed, nowhere.toml: there is no such recipe")
    assert any("Error: nowhere.toml: there is no such recipe" in line for line in told[2:])
    # Given again, only that one runs.
    (tmp_path / "set" / "b" / "job.json").write_text(
        json.dumps({"name": "b", "arguments": ["--version"]})
    )
    again = JobSet.read(tmp_path / "set")
    times = [(job.folder / "log.txt").stat().st_mtime_ns for job in again.jobs]
    run_here(again, 2, [{}], 1, lambda states: None)
    again.require_done()
    changed = [
        (job.folder / "log.txt").stat().st_mtime_ns != t for job, t in zip(again.jobs, times)
    ]
    assert changed == [False, True, False]


def test_a_bug_in_a_job_keeps_its_traceback(tmp_path):
    jobs = JobSet.make(tmp_path / "set", "a test", {"a": ["--version"]})

    def call(arguments):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        work(jobs.jobs[0].folder, call, print)
    assert jobs.states()[0].status == "failed" and "ZeroDivisionError" in jobs.states()[0].error
    assert job_progress() is None


@pytest.mark.processes
def test_ctrl_c_saves_all_jobs_and_the_same_command_goes_on(tmp_path):
    words = [write_recipe(tmp_path, make_folder(tmp_path / "scans"), steps=50)]
    words += [
        word for key, value in (MORE | {"seed": 3}).items() for word in ("--set", f"{key}={value}")
    ]

    def command(runs, jobs):
        more = ["--runs-dir", runs, "--device", "cpu", "--jobs", jobs]
        return [str(word) for word in (sys.executable, "-m", "fsseg", "run", *words, *more)]

    runs, waiting = tmp_path / "runs", tmp_path / "waiting"
    waiting.mkdir()
    with subprocess.Popen(
        command(runs, 2),
        env=os.environ | {"LIGHT_WAITS": f"9:{waiting}"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as first:
        while len(list(waiting.iterdir())) < 2:
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        said = first.stderr.read()
        assert first.wait() == 130, said
    assert "stopped by SIGINT after its jobs saved themselves; run the same again" in said
    [folder] = (runs / "jobs").iterdir()
    jobs = JobSet.read(folder)
    assert {state.status for state in jobs.states()} == {"stopped"}
    assert (
        "stopped by SIGTERM after training step"
        in CliRunner().invoke(app, ["status", str(folder)]).output
    )
    for where, at_once in ((runs, 2), (tmp_path / "single", 1)):
        done = subprocess.run(command(where, at_once), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    logs = [(job.folder / "log.txt").read_text() for job in jobs.jobs]
    assert all(re.search(r"training: goes on from step \d+ of 50", log) for log in logs)
    [run], [whole] = runs.glob("tiny-*"), (tmp_path / "single").glob("tiny-*")
    assert contents(run) == contents(whole)


@pytest.mark.processes
def test_a_killed_job_is_lost_and_runs_again(tmp_path):
    jobs = JobSet.make(tmp_path / "set", "a test", {"a": ["--version"]})
    [job] = jobs.jobs
    job.tell(
        State("running", stage="training", done=3, total=9, where="elsewhere")
    )  # and no process holds its lock
    assert job.state() == State("lost", stage="training", done=3, total=9, where="elsewhere")
    run_here(jobs, 1, [{}], 1, lambda states: None)
    assert job.state().status == "done"


def test_a_jobs_python_is_told_to_leave_the_working_folder_alone(tmp_path, monkeypatch):
    """The command and what the processes below it inherit."""
    [job] = JobSet.make(tmp_path / "set", "a test", {"a": ["--version"]}).jobs
    seen = []
    monkeypatch.setattr(
        "fsseg.jobs.job.subprocess.Popen", lambda command, env, **how: seen.append((command, env))
    )
    start(job, {"CUDA_VISIBLE_DEVICES": "1"})
    [(command, environment)] = seen
    assert command == [sys.executable, "-P", "-m", "fsseg", "job", str(job.folder)]
    assert environment["PYTHONSAFEPATH"] == "1" and environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.processes
def test_a_job_imports_nothing_from_the_working_folder(tmp_path, monkeypatch):
    """What lies there may be anybody's: a module with the name of one that fsseg needs does not run."""
    monkeypatch.chdir(tmp_path)
    for name in ("typer", "numpy"):
        Path(f"{name}.py").write_text("open('imported', 'w'); raise SystemExit(3)")
    jobs = JobSet.make(tmp_path / "set", "a test", {"a": ["--version"]})
    run_here(jobs, 1, [{}], 1, lambda states: None)
    jobs.require_done()
    assert not Path("imported").exists()
    [job] = jobs.jobs
    monkeypatch.setattr(
        "fsseg.jobs.job.command_of",
        lambda job: [sys.executable, "-c", "import sys; print('' in sys.path)"],
    )
    assert start(job).wait() == 0  # and neither does a process that the job starts
    assert job.last_lines()[-1] == "False"


@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"status": 5}', '{"rate": "x"}', '{"done": null}', '{"other": 1}']
)
def test_a_damaged_state_is_none(tmp_path, content):
    [job] = JobSet.make(tmp_path / "set", "a test", {"a": ["--version"]}).jobs
    (job.folder / "state.json").write_text(content)
    assert (
        job.state() == State()
        and "queued" in CliRunner().invoke(app, ["status", str(tmp_path / "set")]).output
    )


def test_a_job_that_another_process_is_at_is_left_to_it(tmp_path, capsys):
    jobs = JobSet.make(tmp_path / "set", "a test", {"a": ["--version"]})
    [job] = jobs.jobs
    with holding(job.folder / "job.lock"):
        work(job.folder, lambda arguments: pytest.fail("called"), print)
        job.tell(State("running"))
        assert job.state().status == "running"
    assert "another process is at it" in capsys.readouterr().out


def test_only_the_first_attempt_is_fresh(tmp_path):
    jobs = JobSet.make(tmp_path / "set", "a test", {"a": ["run", "--fresh", "x"]})
    seen = []

    def call(arguments):
        seen.append(arguments)
        list(job_progress().track(range(2), "training", 2))
        raise Stopped(signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(Stopped):
            work(jobs.jobs[0].folder, call, print)
    assert seen == [["run", "--fresh", "x"], ["run", "x"]] and jobs.states()[0].status == "stopped"


def test_what_a_job_tells(tmp_path, monkeypatch):
    [job] = JobSet.make(tmp_path / "set", "a test", {"a": []}).jobs
    now = [0.0]
    monkeypatch.setattr("fsseg.jobs.job.time.monotonic", lambda: now[0])
    progress = JobProgress(job, print)
    for number in progress.track(range(10), "training", 10):
        assert job.told().done == (number if number else 0)
        now[0] += 2.0
    told = job.told()
    assert (told.stage, told.done, told.total, told.rate) == ("training", 10, 10, 0.5)
    assert (
        replace(told, done=6).seconds_left == 8.0
        and replace(told, status="done").seconds_left is None
    )


def test_one_live_table_for_all_jobs(tmp_path, monkeypatch, capsys):
    """On a terminal the same lines are drawn again; in a file there is a line for every change."""
    jobs = JobSet.make(tmp_path / "set", "a test", {"fold 0": [], "fold 1": []})
    running = State("running", "training", 30, 100, 2.0, where="node7, process 5")
    states = [State(), running], [replace(running, done=90), replace(running, stage="evaluation")]
    for terminal in (True, False):
        monkeypatch.setenv("TTY_COMPATIBLE", str(int(terminal)))
        monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
        monkeypatch.setenv("COLUMNS", "100")
        with JobTable() as table:
            for now in states:
                table.show(jobs, now)
        drawn = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)
        if terminal:
            assert "\x1b[" in drawn  # the cursor goes back
            assert re.search(r"job +status +stage +step +per second +left +where", drawn)
            assert re.search(r"fold 0 +queued *\r?\n", drawn)
            assert re.search(r"fold 1 +running +training +30/100 +2 +35 s +node7, process 5", drawn)
            assert re.search(r"fold 0 +running +training +90/100 +2 +5 s", drawn)
        else:
            assert drawn.splitlines() == [
                "fold 1: running training",
                "fold 0: running training",
                "fold 1: running evaluation",
            ]


@pytest.mark.processes
@pytest.mark.slow
def test_table_1_two_at_a_time(tmp_path):
    """All folds of the recipe on small synthetic scans: the same table with --jobs 2 as with --jobs 1, to the bit."""
    recipe = Path(__file__).parents[1] / "recipes" / "table1.toml"
    small = ["dataset.size=96", "training.steps=10", "calibration.episodes=8", "speed.threads=1"]
    found = {}
    for jobs in ("1", "2"):
        command = [
            sys.executable,
            "-m",
            "fsseg",
            "run",
            recipe,
            "--fold",
            "all",
            "--jobs",
            jobs,
            "--device",
            "cpu",
        ]
        command += [
            "--runs-dir",
            tmp_path / jobs,
            *(word for one in small for word in ("--set", one)),
        ]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        table, _, run = done.stdout.partition("\nRun directory: ")
        found[jobs] = table, contents(Path(run.strip()))
    assert len(list((tmp_path / "2" / "jobs").glob("*/*/finished.json"))) == 5
    assert found["1"] == found["2"]


@pytest.mark.parametrize(
    "content", ["", "{}", '{"title": 1}', "[1]", '{"title": "x", "jobs": ["../../etc"]}']
)
def test_folders_of_something_else(tmp_path, content):
    (tmp_path / "jobs.json").write_text(content)
    done = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert isinstance(done.exception, FssegError) and "holds no job" in str(done.exception)


def test_options_of_the_launcher():
    table = LauncherTable()
    change_launcher(
        table, "slurm", 3, ["time=60", "memory=32G", "partition=gpu", 'extra={exclude="n7"}']
    )
    told = _parameters(JobSet(Path("set"), "x"), table)
    assert (
        told["mem"] == "32G"
        and told["time"] == 60
        and told["partition"] == "gpu"
        and told["gpus_per_node"] == 1
    )
    assert told["additional_parameters"] == {"exclude": "n7"} and "qos" not in told
    for wrong, expected in [
        (["tme=3"], "there is no such key in .launcher., expected one of name"),
        (["time=soon"], "launcher.time: got 'soon'; input should be a valid integer"),
        (["name=cloud"], "launcher.name: got 'cloud'; input should be 'local' or 'slurm'"),
        (["partition=a b"], "launcher.partition: got 'a b'; a word of letters"),
    ]:
        with pytest.raises(FssegError, match=expected):
            change_launcher(table, None, None, wrong)


@pytest.mark.parametrize(
    "table",
    [
        {"partition": "main\ntouch evil"},
        {"account": "$(touch evil)"},
        {"qos": "a'b"},
        {"memory": "1G\ntouch evil"},
        {"extra": {"comment": "x\ntouch evil\n"}},
        {"extra": {"comment\ntouch evil": "x"}},
        {"extra": {"wrap": "touch"}},
        {"extra": {"export": "ALL,LD_PRELOAD=evil.so"}},
        {"extra": {"output": "evil"}},
        {"name": "touch evil"},
    ],
)
def test_a_recipe_cannot_write_into_the_script_of_a_job(path, table):
    """What sbatch reads is a shell script with these values in it."""
    tables = tomllib.loads(path.read_text()) | {"launcher": table}
    with pytest.raises(FssegError, match=r"\[launcher"):
        parse_recipe(tables)


def test_a_job_script_has_no_line_that_a_recipe_wrote(path, tmp_path):
    """The name of a recipe's file is the only free text that is left; it reaches the script as a word."""
    pytest.importorskip("submitit")
    from submitit.slurm.slurm import _make_sbatch_string

    extra = {"exclude": "n[1-3]", "gres": "gpu:h100:2", "exclusive": True, "nice": 5}
    recipe = jobs_recipe(path, **{"launcher.extra": extra, "launcher.partition": "gpu,cpu"})
    data = RunData(recipe, Silent())
    jobs = make_jobs(
        recipe, data.folds, "a\ntouch evil", tmp_path, "cpu", 1, fresh=False, content=[]
    )
    script = _make_sbatch_string("the command", jobs.folder, **_parameters(jobs, recipe.launcher))
    lines = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert all(
        re.match("export (SUBMITIT|PYTHONSAFEPATH=1$)|srun .*the command", line) for line in lines
    ), lines
    assert "\nexport PYTHONSAFEPATH=1\n" in script
    assert "#SBATCH --exclusive\n" in script and "#SBATCH --partition=gpu,cpu\n" in script


def test_without_slurm_it_is_a_sentence(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FssegError, match="launcher slurm: "):
        run_as_jobs(
            jobs_recipe(path, **{"launcher.name": "slurm"}),
            runs_dir=tmp_path / "runs",
            device="cpu",
        )


@pytest.mark.processes
def test_a_slurm_job_is_asked_to_save_itself_first(tmp_path):
    """What submitit calls before the node is taken away: the process ends, and the job is queued again."""
    [job] = JobSet.make(tmp_path / "set", "a test", {"a": ["--version"]}).jobs
    job.tell(State("running", stage="training"))
    entry = SlurmJob(str(job.folder))
    code = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(143))\nprint(1, flush=True)\nsignal.pause()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        entry._process = process
        again = entry.checkpoint()
        assert process.poll() == 143
    assert job.state().status == "queued" and "taken away" in job.state().error
    assert again.function.folder == str(job.folder) and again.function._process is None


def test_gpus_are_given_out_one_by_one(tmp_path, monkeypatch):
    """Two GPUs with room for three trainings and for one; the driver's tool is played by a script."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, 30000'\necho '1, 9000'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places_for_trainings("auto")] == [
        "0",
        "1",
        "0",
        "0",
    ]
    assert places_for_trainings("cpu") == [{}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places_for_trainings("cuda")] == ["1"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert places_for_trainings("auto") == [{}]


@pytest.mark.processes
def test_each_job_sees_its_gpu(tmp_path):
    """Jobs that write down what they see, two places, three jobs: the third takes the place that is free first."""
    jobs = JobSet.make(tmp_path / "set", "a test", {name: ["--version"] for name in "abc"})
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "(Path(sys.argv[1]) / 'seen').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "signal.pause() if sys.argv[1].endswith('a') else None"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "fsseg.jobs.job.command_of",
            lambda job: [sys.executable, "-c", code, str(job.folder)],
        )

        asked = []

        def until_all_have_seen(states):
            if not asked and all(
                (job.folder / "seen").exists() and (job.folder / "seen").read_text()
                for job in jobs.jobs
            ):
                asked.append(os.kill(os.getpid(), signal.SIGINT))

        with pytest.raises(Stopped):
            run_here(
                jobs,
                2,
                [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}],
                1,
                until_all_have_seen,
            )
    assert [(job.folder / "seen").read_text() for job in jobs.jobs] == ["0", "1", "1"]


def test_words_of_a_command_that_jobs_repeat():
    words = [
        "supervoxels",
        "d",
        "--launcher",
        "slurm",
        "--launch=time=3",
        "--jobs",
        "2",
        "--parts",
        "4",
    ]
    assert _without(words, ("--launcher", "--launch", "--parts")) == [
        "supervoxels",
        "d",
        "--jobs",
        "2",
    ]


@pytest.mark.processes
def test_supervoxels_in_parts(tmp_path):
    """Each scan is somebody's part, and nobody's twice."""
    folder = make_folder(tmp_path / "scans", cases=5)
    command = [
        sys.executable,
        "-m",
        "fsseg",
        "supervoxels",
        folder,
        "--launcher",
        "local",
        "--parts",
        "2",
    ]
    environment = os.environ | {"FSSEG_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "cache" / "supervoxels").glob("*.safetensors"))) == 5
    rows = [line.split()[0] for line in done.stdout.splitlines() if re.match(r"\d+ +\d+ ", line)]
    assert sorted(rows) == ["1", "2", "3", "4", "5"]


@pytest.mark.processes
def test_preparing_data_as_a_job(tmp_path):
    """The same dataset as without a launcher; asked again, nothing is made again."""
    folder = make_folder(tmp_path / "scans", cases=3)
    words = [
        "prepare",
        "nifti",
        "--source",
        folder,
        "--image",
        "image_{case}.nii.gz",
        "--label",
        "label_{case}.nii.gz",
    ]
    more = {"plain": [], "job": ["--launcher", "local", "--launch", "jobs=1"]}
    said = {}
    for name in ("plain", "job", "job"):
        command = [
            sys.executable,
            "-m",
            "fsseg",
            *words,
            "--out",
            tmp_path / name,
            "--jobs",
            "1",
            *more[name],
        ]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    assert "0 cases prepared, 3 there already, 0 failed" in said["job"]
    files = {
        name: {file.name: file.read_bytes() for file in (tmp_path / name).glob("*.nii.gz")}
        for name in more
    }
    assert len(files["job"]) == 6 and files["job"] == files["plain"]
    assert (tmp_path / "job" / "dataset.toml").is_file()
