"""What commands write to: files, links, devices, pipes and folders; and names on their way to terminals and figures."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from matplotlib.text import Text as Drawn

import fsseg
from fsseg import FssegError
from fsseg.analysis.tables import as_latex, as_markdown
from fsseg.cli.console import Bars, PlainConsole, styled, table_of_frame, table_of_jobs
from fsseg.evaluation.scores import CaseScore
from fsseg.jobs.job import Job, JobSet, State
from fsseg.jobs.slurm import run_on_slurm
from fsseg.recipe.launcher import LauncherTable
from fsseg.report.comparison_plots import comparison
from fsseg.runs.results import Results
from fsseg.system.files import replacing, write_text
from fsseg.system.pictures import drawn, save_picture

STRANGE = [
    "[/]",
    "[bold]x",
    "\\[/]",
    "a\\",
    "[red",
    ":heart:",
    "$a$ $b$",
    "$",
    "_under",
    "\x1b[31mred",
    "[link=x]y[/link]",
]
"""Names that a library takes for something else."""


# ---- what is written to ----


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    page = tmp_path / "page.html"
    page.symlink_to("real/page.html")
    for text in ("first", "second"):  # at first, the link leads to nothing
        write_text(page, text)
        assert page.is_symlink() and (tmp_path / "real" / "page.html").read_text() == text
    assert len(list(tmp_path.rglob("*"))) == 3


def test_a_chain_of_links_stays(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to(tmp_path / "c")
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").is_symlink() and (tmp_path / "b").is_symlink()
    assert (tmp_path / "c").read_text() == "x"


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "through")  # the pipe holds it until it is read
    assert os.read(reader, 100) == b"through" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FssegError, match="pipe: is a pipe or a socket that no program reads"):
        write_text(tmp_path / "pipe", "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("path", ["stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_descriptors_are_written_to(tmp_path, path, capfd):
    """The link stands for /dev/stdout, which no test should be able to replace where it is run by root."""
    link = tmp_path / "stdout"
    link.symlink_to("/proc/self/fd/1")
    print("before")
    write_text(tmp_path / path, "poured\n")
    print("after")
    assert link.is_symlink() and capfd.readouterr().out == "before\npoured\nafter\n"


def device_of_our_own(folder, number):
    """A device like one of /dev, whose own nodes a test that goes wrong could replace."""
    node = folder / "device"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, number))
        node.open("wb").close()
    except PermissionError:
        pytest.skip("devices are made and opened by root alone, and not everywhere")
    return node


def test_a_device_is_written_to(tmp_path):
    null = device_of_our_own(tmp_path, 3)
    write_text(null, "poured\n")
    assert stat.S_ISCHR(null.lstat().st_mode)
    (tmp_path / "link").symlink_to(null)
    write_text(tmp_path / "link", "poured\n")
    assert stat.S_ISCHR(null.lstat().st_mode) and (tmp_path / "link").is_symlink()


def test_a_terminal_is_written_to():
    leader, follower = os.openpty()
    write_text(Path(os.ttyname(follower)), "poured")
    assert os.read(leader, 100) == b"poured"
    os.close(leader)
    os.close(follower)


def test_a_full_device_is_a_sentence(tmp_path):
    full = device_of_our_own(tmp_path, 7)
    with pytest.raises(FssegError, match="device: the disk is full"):
        write_text(full, "x" * 100_000)
    assert stat.S_ISCHR(full.lstat().st_mode)


@pytest.mark.parametrize(
    "name, sentence",
    [
        (".", "is a folder, expected the name of a file"),
        ("folder", "is a folder, expected the name of a file"),
        ("to_folder", "is a folder, expected the name of a file"),
        ("loop", "cannot be the name of a file"),
        ("x" * 300, "cannot be the name of a file"),
        ("file/x", "a file is where a folder is expected"),
        ("a\0b", "holds the character"),
    ],
)
def test_what_cannot_be_a_file_is_a_sentence(tmp_path, name, sentence):
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to("folder")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FssegError, match=sentence), replacing(tmp_path / name) as unfinished:
        unfinished.write_text("x")
    assert sorted(tmp_path.rglob("*")) == before


# ---- commands that write ----


def tiny_run(folder, rows=("A",), classes=("liver", "spleen"), cases=8):
    """Results without a run behind them."""
    scores = [
        CaseScore(row, False, 0, 0, f"{case}", name, "s", (0,), 40 + case + 3 * number, 60, 60)
        for number, row in enumerate(rows)
        for case in range(cases)
        for name in classes
    ]
    about = {
        "dataset": "made_up",
        "protocol": "ep2",
        "protocol_hash": "0" * 8,
        "folds": [0],
        "seeds": [0],
    }
    return Results(folder, scores, list(classes), about)


@pytest.mark.parametrize("words", [("--errors",), (), ("--supports", "all")])
@pytest.mark.parametrize(
    "picture, sentence",
    [("x.xyz", r"ends with .xyz, expected the ending of a picture: .png"), ("", "is a folder")],
)
def test_a_plot_that_cannot_be_is_refused_before_anything_is_read(
    tmp_path, shell, words, picture, sentence
):
    called = shell("compare", tmp_path / "no run", *words, "--plot", tmp_path / picture)
    assert called.returncode == 2 and "Traceback" not in called.stderr
    assert (
        called.stderr.startswith("Error: ")
        and pandas.Series([called.stderr]).str.contains(sentence).all()
    )


@pytest.mark.parametrize("ending", ["png", "pdf", "svg", "PNG", "jpg"])
def test_a_picture_has_the_format_of_its_name(tmp_path, ending):
    begins = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8"}[
        ending.lower()
    ]
    figure = comparison(fsseg.compare(tiny_run(tmp_path, ("A", "B"))))
    save_picture(figure, tmp_path / f"x.{ending}")
    assert (tmp_path / f"x.{ending}").read_bytes().startswith(begins)


@pytest.mark.parametrize(
    "words",
    [
        ("export", "run", "folder.safetensors"),
        ("export", "run", "folder.onnx"),
        ("check", "scans", "--sheet", "folder.png"),
    ],
)
def test_a_folder_as_output_is_refused_before_anything_is_read(tmp_path, monkeypatch, shell, words):
    for ending in ("safetensors", "onnx", "png"):
        (tmp_path / f"folder.{ending}").mkdir()
    monkeypatch.chdir(tmp_path)
    called = shell(*words)
    assert called.returncode == 2 and "is a folder, expected the name of a file" in called.stderr


@pytest.mark.processes
@pytest.mark.parametrize("words", [("list",), ("list", "--json")])
def test_an_output_that_is_full_is_a_sentence(words):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "fsseg", *words]
        called = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert called.returncode == 2
    assert called.stderr.startswith("Error: the output cannot be written (No space left on device)")
    assert called.stderr.count("\n") == 1


# ---- a comparison of one row ----


def test_a_run_of_one_row_has_a_table_and_no_tests(tmp_path):
    compared = fsseg.compare(tiny_run(tmp_path))
    table = compared.table()
    assert table.loc["A", "mean"] == pytest.approx(tiny_run(tmp_path).table().loc["A", "mean"])
    assert table["difference"].isna().all() and compared.tests().empty
    assert list(compared.shown().loc["A"])[-2:] == ["–", "–"] and compared.shown_tests().empty
    assert compared.dumps()["tests"] == [] and "nan" not in compared.to_markdown().lower()
    assert "A" in compared.to_latex() and len(compared.plot().axes) == 1


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    runs = [tiny_run(tmp_path / "a" / "run"), tiny_run(tmp_path / "b" / "run")]
    names = fsseg.compare(runs, across_protocols=True).variants
    assert names == [f"A ({tmp_path}/a/run)", f"A ({tmp_path}/b/run)"]
    with pytest.raises(FssegError, match="expected every run once"):
        fsseg.compare([runs[0], runs[0]], across_protocols=True)


# ---- names on terminals and in figures ----


def printed(*what, **how):
    console = PlainConsole(width=200, color_system="truecolor", force_terminal=True)
    with console.capture() as captured:
        console.print(*what, **how)
    return captured.get()


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_a_name_is_printed_letter_by_letter(name):
    seen = name.replace("\x1b", "\\x1b")
    assert printed(name).strip() == seen
    frame = pandas.DataFrame({name: [name]}, index=[name])
    assert printed(table_of_frame(frame)).count(seen) == 3
    states = [State("running", name, 1, 2, 1.0, name), State(name, error=name)]
    shown = printed(table_of_jobs(states, [name, name]))
    assert shown.count(seen) == 6 and "\x1b[31mred" not in shown
    assert printed(styled(name, "")).strip() == seen


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_what_is_wrong_with_a_name_is_printed_letter_by_letter(name, shell):
    called = shell("report", f"no/{name}")
    assert called.returncode == 2 and "there is no run" in called.stderr
    assert name.replace("\x1b", "\\x1b") in called.stderr and "\x1b" not in called.stderr


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_progress_takes_any_name(name, capfd):
    with Bars() as bars:
        assert list(bars.track([1, 2], name, 2)) == [1, 2]
        bars.note(name)
    assert capfd.readouterr().err.count(name.replace("\x1b", "\\x1b")) == 3


@pytest.mark.parametrize("status", ["[/]", "\x1b]0;title\x07", "done[/red]"])
def test_states_of_others_are_text(tmp_path, shell, status):
    jobs = JobSet.make(tmp_path / "jobs", "[/] title", {"[/] job": ["run"]})
    jobs.jobs[0].tell(State(status, "[/]", where="[/]\x1b[2J", error="\x9b2J"))
    called = shell("status", tmp_path / "jobs")
    assert called.returncode == 0 and "\x1b" not in called.stdout and "\x9b" not in called.stdout
    assert "[/] title" in called.stdout and "[/] job" in called.stdout


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_a_name_is_drawn_letter_by_letter(tmp_path, name):
    run = tiny_run(tmp_path, (name, "B"), (name, "spleen"))
    figure = comparison(fsseg.compare(run))
    figure.savefig(tmp_path / "x.svg")
    texts = [
        text
        for text in figure.findobj(Drawn)
        if name.strip("\x1b") in text.get_text().replace("\\$", "$")
    ]
    assert texts or "\x1b" in name
    for text in figure.findobj(Drawn):
        shown, is_math = text._preprocess_math(text.get_text())
        assert is_math is False and "\x1b" not in shown
    assert drawn(name).lstrip("\u200a").replace("\\$", "$") == name.replace("\x1b", "\\x1b")


@pytest.mark.parametrize("name", ["a|b", "[/]", "$a$", "a\\|b", "<b>", "a_b & c%"])
def test_a_name_breaks_no_table(name):
    frame = pandas.DataFrame({name: ["1", "2"]}, index=pandas.Index([name, "x"], name="variant"))
    lines = as_markdown(frame).splitlines()
    assert {line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines} == {3}
    assert as_latex(frame).replace(r"\&", "").count("&") == 3


# ---- Slurm's script ----


@pytest.mark.parametrize(
    "name", ["a\n#SBATCH --wrap=x", "a\rb", "100%", "a%jb", "back\\slash", "\x1b[31m"]
)
def test_a_folder_adds_no_lines_to_slurms_script(tmp_path, name):
    jobs = JobSet(tmp_path / name, "title", [Job(tmp_path / name / "job", "job", ["run"])])
    with pytest.raises(FssegError, match="launcher slurm: .*expected a folder without"):
        run_on_slurm(jobs, LauncherTable(name="slurm"), print, print)
