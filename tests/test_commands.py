"""Commands that other distributions bring: imported when used or listed, and a broken one breaks nothing else."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MODULES = {
    "sound": """
import typer
import fsseg

app = typer.Typer()


@app.command()
def greet(name: str, mistake: bool = False, bug: bool = False, end: int = 0) -> None:
    \"\"\"Greet somebody.\"\"\"
    if mistake:
        raise fsseg.FssegError("nobody is there, expected somebody; call someone")
    if bug:
        raise RuntimeError("no voice")
    if end:
        raise typer.Exit(end)
    print(f"hello {name}")
""",
    "several": """
import typer

app = typer.Typer(help="Several commands.")


@app.command()
def one() -> None:
    print("one of several")


@app.command()
def two() -> None:
    print("two of several")
""",
    "broken": "import no_such_module_at_all",
    "strange": "app = 3",
    "twice": "import typer\n\napp = typer.Typer()",
    "list": "import typer\n\napp = typer.Typer()",
}


def install(folder, distribution, module, name):
    info = folder / f"{distribution.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[fsseg.commands]\n{name} = {module}:app\n")


@pytest.fixture
def commands(tmp_path, monkeypatch):
    for name, text in MODULES.items():
        module = f"commanding_{name}"
        (tmp_path / f"{module}.py").write_text(text)
        install(tmp_path, f"fsseg-{name}", module, name)
    install(tmp_path, "fsseg-other", "commanding_twice", "twice")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in MODULES:
        sys.modules.pop(f"commanding_{name}", None)


def imported():
    return {
        name.removeprefix("commanding_") for name in sys.modules if name.startswith("commanding_")
    }


def flat(text):
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


def test_a_command_is_imported_when_it_is_used(commands, shell):
    assert shell("list", "head").returncode == 0 and not imported()
    done = shell("sound", "you")
    assert (done.returncode, done.stdout) == (0, "hello you\n") and imported() == {"sound"}
    assert shell("several", "two").stdout == "two of several\n"
    assert "Greet somebody" in shell("sound", "--help").stdout
    assert shell("sound", "you", "--end", "3").returncode == 3
    wrong = shell("sound")
    assert wrong.returncode == 2 and "Missing argument" in wrong.stderr


def test_mistakes_and_bugs_of_a_command(commands, shell, monkeypatch):
    done = shell("sound", "you", "--mistake")
    assert done.returncode == 2 and "Error: nobody is there" in done.stderr
    from fsseg.cli.main import main

    monkeypatch.setattr("sys.argv", ["fsseg", "sound", "you", "--bug"])
    with pytest.raises(RuntimeError, match="no voice") as caught:
        main()
    assert caught.value.__notes__ == [
        "This happened in command 'sound' of fsseg-sound 0.1.0, not in fsseg itself; repair or uninstall that distribution"
    ]


def test_the_help_names_all_also_those_that_cannot_be_used(commands, shell):
    done = shell("--help")
    assert done.returncode == 0
    text = flat(done.stdout)
    for words in (
        "Commands of plugins",
        "sound Greet somebody.",
        "several Several commands.",
        "broken command 'broken' of",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "broken",
            "command 'broken' of fsseg-broken 0.1.0: commanding_broken:app cannot be imported (ModuleNotFoundError: No module",
        ),
        (
            "strange",
            "command 'strange' of fsseg-strange 0.1.0: commanding_strange:app is 3, expected a typer.Typer app",
        ),
        ("twice", "the command 'twice' is registered twice: by fsseg-"),
    ],
)
@pytest.mark.parametrize("words", [(), ("--help",), ("--anything", "x")])
def test_a_command_that_cannot_be_used_is_one_sentence(commands, shell, name, sentence, words):
    done = shell(name, *words)
    assert done.returncode == 2 and done.stderr.startswith(f"Error: {sentence}")
    assert len(done.stderr.splitlines()) == 1


def test_nobody_takes_the_place_of_our_own(commands, shell):
    assert "em_gmm" in shell("list", "prototypes").stdout and "list" not in imported()
    done = shell("plugin", "list", "--json")
    lines = {line["distribution"]: line for line in json.loads(done.stdout)}
    assert done.returncode == 1
    assert "fsseg has a command of this name" in lines["fsseg-list"]["problem"]
    assert lines["fsseg-sound"]["components"] == ["command/sound"]
    assert lines["fsseg-sound"]["problem"] is None and lines["fsseg-broken"]["problem"]


def test_an_unknown_command_is_still_unknown(commands, shell):
    done = shell("sund")
    assert done.returncode == 2 and "No such command 'sund'" in flat(done.stderr)


def test_the_command_of_the_docs(tmp_path, finished_run, shell, monkeypatch):
    page = (ROOT / "docs/hooks.md").read_text().split("## Commands of the shell")[1]
    code = re.search(r"```python\n(.*?)```", page, flags=re.S)[1]
    (tmp_path / "commanding_docs.py").write_text(code)
    install(tmp_path, "fsseg-docs", "commanding_docs", "volumes")
    monkeypatch.syspath_prepend(tmp_path)
    results = finished_run({"protocol.name": "own_slice", "protocol.folds": "disjoint2"}, cases=6)
    done = shell("volumes", results.path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(results.scores)
