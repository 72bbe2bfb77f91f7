"""Interruptions, repetitions, several processes: the files are the same, and never half of one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from raw_trees import Notes, write_chaos, write_pairs

from fsseg import FssegError
from fsseg.prepare import engine
from fsseg.prepare.engine import prepare
from fsseg.prepare.layouts import chaos, nifti, resaved
from fsseg.prepare.manifest import checksum
from fsseg.prepare.scan import write_nifti
from fsseg.system import files as records

IMAGES = "sub-{case}/anat/sub-{case}_T2w.nii.gz"
LABELS = "labels/{case}_seg.nii.gz"


def plan_of(source, **options):
    return nifti.plan(source, IMAGES, LABELS, **options)


def contents(folder):
    """Every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}


@pytest.fixture
def source(tmp_path):
    return write_pairs(tmp_path / "raw", cases=("1", "2", "3"))


def test_a_second_run_does_nothing(tmp_path, source):
    out = tmp_path / "out"
    first = prepare(plan_of(source), out, jobs=1)
    before, stamps = contents(out), times(out)
    second = prepare(plan_of(source), out, jobs=1)
    assert (first.made, first.skipped) == (["1", "2", "3"], [])
    assert (second.made, second.skipped) == ([], ["1", "2", "3"])
    assert times(out) == stamps and contents(out) == before


def test_only_what_changed_is_made_again(tmp_path, source):
    out = tmp_path / "out"
    prepare(plan_of(source), out, jobs=1)
    stamps = times(out)
    other = write_pairs(tmp_path / "other", cases=("x", "y"))
    (source / "sub-2/anat/sub-2_T2w.nii.gz").write_bytes(
        (other / "sub-x/anat/sub-x_T2w.nii.gz").read_bytes()
    )
    (source / "sub-1/anat/sub-1_T2w.nii.gz").touch()  # its content counts, not its time
    (out / "label_3.nii.gz").unlink()
    before = (out / "image_2.nii.gz").read_bytes()
    outcome = prepare(plan_of(source), out, jobs=1)
    assert (outcome.made, outcome.skipped) == (["2", "3"], ["1"])
    assert times(out)["image_1.nii.gz"] == stamps["image_1.nii.gz"] and len(times(out)) == 6
    assert (out / "image_2.nii.gz").read_bytes() != before


def test_an_option_that_changes_the_files_repeats_all(tmp_path):
    raw = write_chaos(tmp_path / "raw", patients=("1",))
    assert prepare(chaos.plan(raw), tmp_path / "out", jobs=1).made == ["1"]
    assert prepare(chaos.plan(raw, as_published=True), tmp_path / "out", jobs=1).made == ["1"]
    assert prepare(chaos.plan(raw, as_published=True), tmp_path / "out", jobs=1).skipped == ["1"]


def test_a_damaged_output_and_another_version_are_made_again(tmp_path, source, monkeypatch):
    out = tmp_path / "out"
    prepare(plan_of(source), out, jobs=1)
    good = contents(out)
    (out / "image_2.nii.gz").write_bytes(b"damaged")
    assert prepare(plan_of(source), out, jobs=1).made == ["2"]
    assert contents(out) == good
    monkeypatch.setattr("fsseg.prepare.manifest.PREPARE_VERSION", 99)
    assert prepare(plan_of(source), out, jobs=1).made == ["1", "2", "3"]


@pytest.mark.processes
def test_parallel_and_serial_give_the_same_bytes(tmp_path):
    raw = write_chaos(tmp_path / "raw", patients=("1", "2", "3"))
    one, two = (
        prepare(chaos.plan(raw), tmp_path / "one", jobs=1),
        prepare(chaos.plan(raw), tmp_path / "two", jobs=2),
    )
    assert sorted(two.made) == one.made == ["1", "2", "3"]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    names = set(contents(tmp_path / "one"))
    assert names == {
        "manifest.json",
        "dataset.toml",
        *(
            f"chaos_MR_T2_normalized/{what}_{case}.nii.gz"
            for what in ("image", "label")
            for case in "123"
        ),
    }


def test_the_manifest_tells_everything_but_when_and_where(tmp_path):
    raw = write_chaos(tmp_path / "raw", patients=("2",))
    prepare(chaos.plan(raw), tmp_path / "out", jobs=1)
    text = (tmp_path / "out/manifest.json").read_text()
    assert str(tmp_path) not in text
    manifest = json.loads(text)
    assert (
        manifest["layout"] == "chaos" and manifest["prepare_version"] == 1 and manifest["simpleitk"]
    )
    assert manifest["classes"] == {"liver": 1, "right_kidney": 2, "left_kidney": 3, "spleen": 4}
    case = manifest["cases"]["2"]
    assert len(case["sources"]) == 12 and "MR/2/T2SPIR/Ground/IMG-0002-00001.png" in case["sources"]
    for name, digest in {**case["outputs"]}.items():
        assert checksum(tmp_path / "out" / name) == digest
    assert case["options"] == {"as_published": False}
    assert case["before"] == {"shape": [64, 64, 6], "spacing": [5.0, 5.0, 6.0], "axes": "LPS"}
    assert case["after"] == {"shape": [256, 256, 5], "spacing": [1.25, 1.25, 7.7], "axes": "LAS"}
    assert list(case["intensity_percentiles"]) == ["0", "1", "50", "99", "99.5", "100"]
    assert sum(case["voxels"].values()) == 256 * 256 * 5 and set(case["voxels"]) == {
        "0",
        "1",
        "2",
        "3",
        "4",
    }
    assert any("resampled to 1.25 x 1.25 x 7.7 mm" in step for step in case["steps"])
    again = write_chaos(tmp_path / "elsewhere/raw", patients=("2",))
    for path in (raw / "MR").rglob("*.dcm"):  # the helper's DICOM files know their own path
        (again / path.relative_to(raw)).write_bytes(path.read_bytes())
    prepare(chaos.plan(again), tmp_path / "again", jobs=1)
    assert contents(tmp_path / "again") == contents(tmp_path / "out"), "equal input, equal files"


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.processes)])
def test_one_bad_case_does_not_stop_the_others(tmp_path, source, jobs):
    out = tmp_path / "out"
    bad = source / "sub-2/anat/sub-2_T2w.nii.gz"
    good = bad.read_bytes()
    bad.write_bytes(good[:200])
    outcome = prepare(plan_of(source), out, jobs=jobs)
    assert sorted(outcome.made) == ["1", "3"] and list(outcome.problems) == ["2"]
    with pytest.raises(
        FssegError,
        match="1 of 3 cases could not be prepared; correct them and run the same command",
    ):
        outcome.raise_problems()
    assert set(contents(out)) == {f"{w}_{c}.nii.gz" for w in ("image", "label") for c in "13"} | {
        "manifest.json",
        "dataset.toml",
    }
    bad.write_bytes(good)
    outcome = prepare(plan_of(source), out, jobs=1)
    outcome.raise_problems()
    assert (outcome.made, outcome.skipped) == (["2"], ["1", "3"])


def test_a_case_that_turns_bad_leaves_no_stale_files(tmp_path, source):
    out = tmp_path / "out"
    prepare(plan_of(source), out, jobs=1)
    (source / "labels/2_seg.nii.gz").write_bytes(b"nothing")
    assert list(prepare(plan_of(source), out, jobs=1).problems) == ["2"]
    assert not (out / "image_2.nii.gz").exists() and not (out / "label_2.nii.gz").exists()
    assert "2" not in json.loads((out / "manifest.json").read_text())["cases"]


def test_the_description_is_the_users_once_changed(tmp_path, source):
    out, path, notes = tmp_path / "out", tmp_path / "out/dataset.toml", Notes()

    prepare(plan_of(source, classes={"liver": 1}), out, jobs=1)
    prepare(plan_of(source, classes={"spleen": 1}), out, jobs=1, progress=notes)
    assert "spleen = 1" in path.read_text(), "what we wrote, we write anew"
    path.write_bytes(path.read_bytes() + "pancreas = 4  # Bauchspeicheldrüse\n".encode("latin-1"))
    prepare(plan_of(source, classes={"liver": 1}), out, jobs=1, progress=notes)
    assert b"spleen = 1" in path.read_bytes() and b"pancreas = 4" in path.read_bytes()
    assert any(
        "dataset.toml: is not as fsseg prepare wrote it and is left as it is" in note
        for note in notes.texts
    )


def test_a_case_that_left_the_source_is_noted_and_kept(tmp_path, source):
    notes = Notes()
    prepare(plan_of(source), tmp_path / "out", jobs=1)
    (source / "sub-3/anat/sub-3_T2w.nii.gz").unlink()
    (source / "labels/3_seg.nii.gz").unlink()
    prepare(plan_of(source), tmp_path / "out", jobs=1, progress=notes)
    assert (tmp_path / "out/image_3.nii.gz").exists() and any(
        "3 of an earlier run are not in" in note for note in notes.texts
    )


def test_folders_that_are_not_ours(tmp_path, source):
    out = tmp_path / "theirs"
    out.mkdir()
    (out / "image_1.nii.gz").write_bytes(b"precious")
    with pytest.raises(
        FssegError, match="image_1.nii.gz: exists and was not written by fsseg prepare"
    ):
        prepare(plan_of(source), out, jobs=1)
    assert contents(out) == {"image_1.nii.gz": b"precious"}
    with pytest.raises(FssegError, match="holds the source file"):
        prepare(plan_of(source), source, jobs=1)
    prepare(plan_of(source), tmp_path / "out", jobs=1)
    with pytest.raises(FssegError, match="holds a dataset of the layout nifti, expected chaos"):
        prepare(
            chaos.plan(write_chaos(tmp_path / "chaos", patients=("1",))), tmp_path / "out", jobs=1
        )
    (tmp_path / "out/manifest.json").write_text("{}")
    with pytest.raises(FssegError, match="is no manifest of fsseg prepare"):
        prepare(plan_of(source), tmp_path / "out", jobs=1)


def test_two_runs_do_not_share_a_folder(tmp_path, source):
    out = tmp_path / "out"
    out.mkdir()
    with (
        engine._locked(out),
        pytest.raises(FssegError, match="another fsseg prepare is writing into it"),
    ):
        prepare(plan_of(source), out, jobs=1)
    prepare(plan_of(source), out, jobs=1).raise_problems()


@pytest.mark.parametrize("stage", ["writing", "renaming"])
def test_an_exception_leaves_nothing_half(tmp_path, source, monkeypatch, stage):
    """Ctrl-C in the middle of a file, and just before a file gets its name."""

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if stage == "writing":
            patched.setattr("gzip.GzipFile.write", interrupt)
        else:
            patched.setattr(
                records.os,
                "replace",
                lambda a, b: interrupt() if "image" in str(b) else os.rename(a, b),
            )
        with pytest.raises(KeyboardInterrupt):
            prepare(plan_of(source), tmp_path / "out", jobs=1)
    assert not [
        name for name in contents(tmp_path / "out") if "unfinished" in name or "image" in name
    ]
    prepare(plan_of(source), tmp_path / "out", jobs=1).raise_problems()
    assert len(times(tmp_path / "out")) == 6


def slow_make(case):
    """Makes a case; of all but the first, half a file is written until the file $GO is there."""
    whole = write_nifti

    def write(path, scan):
        path.write_bytes(b"half")
        while case.case != "1" and not Path(os.environ["GO"]).exists():
            time.sleep(0.02)
        whole(path, scan)

    engine.write_nifti = write
    return resaved.make(case)


SLOW = """
import dataclasses, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_prepare_engine import plan_of, prepare, slow_make
if __name__ == "__main__":
    prepare(dataclasses.replace(plan_of(Path({source!r})), make=slow_make), Path({out!r}), jobs={jobs})
"""


def start_slowly(tmp_path, source, jobs):
    """A run in a process group of its own: case 1 is finished, and as many as jobs are in the middle of a file."""
    script, out = tmp_path / "slow.py", tmp_path / "out"
    script.write_text(
        SLOW.format(tests=str(Path(__file__).parent), source=str(source), out=str(out), jobs=jobs)
    )
    environment = {**os.environ, "GO": str(tmp_path / "go")}
    # A shell's background jobs ignore Ctrl-C, and so would their children: the run is to hear it in any case.
    hearing = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = subprocess.Popen(
            [sys.executable, script],
            env=environment,
            start_new_session=True,
            stderr=subprocess.PIPE,
        )
    finally:
        signal.signal(signal.SIGINT, hearing)
    wait_for(lambda: recorded(out) == ["1"], run)
    wait_for(lambda: len([path for path in unfinished(out) if path.stat().st_size]) == jobs, run)
    return run, out


def recorded(out):
    manifest = out / "manifest.json"
    return list(json.loads(manifest.read_text())["cases"]) if manifest.exists() else []


def unfinished(out):
    return [path for path in out.glob(".*.unfinished")]


def wait_for(happened, run=None):
    """Waits for as long as it takes; a run that ended will not make it happen any more."""
    while not happened():
        assert run is None or run.poll() is None, run.stderr.read().decode()
        time.sleep(0.02)


@pytest.mark.processes
@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="looks for the worker processes in /proc"
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_run_leaves_no_half_file_and_the_next_one_completes_it(tmp_path, source, jobs):
    run, out = start_slowly(tmp_path, source, jobs)
    workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.kill()
    run.wait()
    run.stderr.close()
    wait_for(lambda: not any(is_running(worker) for worker in workers))
    assert len(workers) == (0 if jobs == 1 else 3)  # and multiprocessing's own resource tracker
    finished = sorted(path.name for path in out.glob("*.nii.gz"))
    assert finished == ["image_1.nii.gz", "label_1.nii.gz"] and unfinished(out)
    outcome = prepare(plan_of(source), out, jobs=1)
    outcome.raise_problems()
    assert (outcome.skipped, outcome.made) == (["1"], ["2", "3"])
    prepare(plan_of(source), tmp_path / "undisturbed", jobs=1)
    assert contents(out) == contents(tmp_path / "undisturbed")


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.processes
def test_ctrl_c_finishes_what_runs_and_begins_nothing_more(tmp_path, source):
    cases = [str(number) for number in range(1, 7)]
    write_pairs(source, cases=cases)
    run, out = start_slowly(tmp_path, source, jobs=2)
    os.killpg(run.pid, signal.SIGINT)
    (tmp_path / "go").touch()
    told = run.communicate()[1].decode()
    assert run.returncode != 0 and "KeyboardInterrupt" in told and "SpawnProcess" not in told
    names = [f"{what}_{case}.nii.gz" for what in ("image", "label") for case in "123"]
    assert sorted(path.name for path in out.glob("*.nii.gz")) == names and not unfinished(out)
    outcome = prepare(plan_of(source), out, jobs=1)
    outcome.raise_problems()
    assert "1" in outcome.skipped and len(times(out)) == 2 * len(cases)


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_prepare_engine import plan_of, prepare
resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))
prepare(plan_of(Path({source!r})), Path({out!r}), jobs=1).raise_problems()
"""


@pytest.mark.processes
def test_a_full_disk_is_told_and_leaves_nothing_half(tmp_path, source):
    """Simulated: no file may grow beyond 2500 bytes, which the system reports as a file too large."""
    code = FULL.format(
        tests=str(Path(__file__).parent), source=str(source), out=str(tmp_path / "out")
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    last = done.stderr.strip().splitlines()
    assert "fsseg.errors.DataError: 3 of 3 cases could not be prepared" in done.stderr
    assert (
        "image_3.nii.gz: the disk is full or the file too large (File too large); make room"
        in last[-1]
    )
    assert "Exception ignored" not in done.stderr
    assert list(contents(tmp_path / "out")) == ["manifest.json"]
    prepare(plan_of(source), tmp_path / "out", jobs=1).raise_problems()


@pytest.mark.parametrize(
    "error, expected",
    [
        (
            PermissionError(13, "Permission denied"),
            "cannot be written (Permission denied); expected a writable folder",
        ),
        (
            OSError(30, "Read-only file system"),
            "cannot be written (Read-only file system); expected a writable folder",
        ),
        (
            OSError(28, "No space left on device"),
            "the disk is full or the file too large (No space left on device)",
        ),
    ],
)
def test_a_folder_that_cannot_be_written(tmp_path, source, monkeypatch, error, expected):
    """Simulated, since nothing is read-only for an administrator: the system refuses to make a temporary file."""

    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(FssegError) as caught:
        prepare(plan_of(source), tmp_path / "out", jobs=1)
    assert expected in str(caught.value) and "manifest.json" in str(caught.value)
    assert contents(tmp_path / "out") == {}


def test_a_file_where_the_folder_should_be(tmp_path, source):
    (tmp_path / "file").write_text("hello")
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(FssegError, match="a file is where a folder is expected"):
            prepare(plan_of(source), out, jobs=1)


@pytest.mark.processes
def test_a_worker_that_dies_is_explained(tmp_path, source, monkeypatch):
    """Simulated: the system ends a process that takes too much memory."""
    from dataclasses import replace

    with pytest.raises(
        FssegError, match="a worker process was ended from outside, most likely for lack of memory"
    ):
        prepare(replace(plan_of(source), make=die), tmp_path / "out", jobs=2)
    assert not unfinished(tmp_path / "out")


def die(case):
    os.kill(os.getpid(), signal.SIGKILL)
