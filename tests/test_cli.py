"""The shell as a person meets it."""

import json
from importlib.metadata import version

import pytest
from helpers import in_a_process, make_folder, write_recipe


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shell")
    root = make_folder(folder / "scans")
    return folder, root, write_recipe(folder, root, steps=1)


@pytest.mark.processes
def test_the_module_is_the_command(place, tmp_path):
    _, root, recipe = place
    assert in_a_process("--version").stdout == f"fsseg {version('fsseg')}\n"
    done = in_a_process("run", recipe, "--data", root, "--runs-dir", tmp_path / "runs")
    assert done.returncode == 0 and "Run directory: " in done.stdout, done.stderr
    wrong = in_a_process("run", recipe, "--fold", 9, "--runs-dir", tmp_path / "runs")
    assert wrong.returncode == 2 and "disjoint5 has folds 0 to 4" in wrong.stderr


def test_version_and_help(shell):
    assert shell("--version").stdout == f"fsseg {version('fsseg')}\n"
    text = shell("--help").stdout
    assert "run" in text and "list" in text and "from a recipe to a table" in text
    text = shell("run", "--help").stdout
    for option in ("--set", "--data", "--fold", "--seed", "--runs-dir", "--device", "--json"):
        assert option in text


def test_list(shell):
    text = shell("list").stdout
    for word in ("abdomen_phantom", "em_gmm", "lin_est", "otsu", "fsseg-otsu 0.1.0"):
        assert word in text
    assert "timm" not in shell("list", "threshold").stdout
    listed = json.loads(shell("list", "head", "--json").stdout)
    assert [e["name"] for e in listed if e["distribution"] == "fsseg"] == [
        "adnet",
        "adnetpp",
        "tpm",
    ]


def test_list_options(shell):
    text = shell("list", "threshold/lin_est").stdout
    assert "LinEst" in text and "location" in text and "'query' | 'support' | 'none'" in text
    assert "whose slice position is a regressor" in text
    assert "It has no options." in shell("list", "prototypes/map").stdout
    options = json.loads(shell("list", "prototypes/em_gmm", "--json").stdout)["options"]
    assert options[0] == {
        "name": "count",
        "type": "int",
        "default": "5",
        "meaning": "prototypes per way",
    }


def test_run_prints_the_table_and_where_the_run_is(place, shell):
    folder, root, recipe = place
    done = shell(
        "run", recipe, "--data", root, "--fold", 1, "--seed", 5, "--runs-dir", folder / "runs"
    )
    assert done.returncode == 0, done.stderr
    assert "nifti, protocol ep2 " in done.stdout and "folds disjoint5 (1), seed 5" in done.stdout
    header = next(line for line in done.stdout.splitlines() if line.startswith("variant")).split()
    assert header == ["variant", "bright", "dark", "mean", "±", "over", "cases"]
    row = next(line for line in done.stdout.splitlines() if line.startswith("OCP *")).split()
    assert all(0 <= float(value) <= 100 for value in row[2:5])
    assert "* uses the ground truth of the query" in done.stdout
    assert f"Run directory: {folder / 'runs' / 'tiny-'}" in done.stdout
    for stage in ("data", "supervoxels", "training", "calibration", "evaluation"):
        assert stage in done.stderr


def test_json_is_all_there_is_on_standard_output(place, shell):
    folder, _, recipe = place
    done = shell("run", recipe, "--json", "--runs-dir", folder / "runs")
    table = json.loads(done.stdout)
    assert (
        table["dataset"] == "nifti" and table["folds"] == [0] and len(table["protocol_hash"]) == 8
    )
    assert [row["variant"] for row in table["rows"]] == ["CE-T", "LinEst", "OCP"]
    assert table["rows"][2]["oracle"] and table["rows"][2]["mean"] is not None


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--data", "/nowhere"], "/nowhere: there is no such folder"),
        (["--set", "training.stps=1"], "[training]: stps: unknown key; did you mean 'steps'?"),
        (["--set", "training"], "--set training: expected table.key=value"),
        (["--fold", "9"], "disjoint5 has folds 0 to 4"),
        (["--fold", "most"], "expected a valid integer or 'all', got 'most'"),
        (["--device", "tpu"], "got 'tpu', expected auto, cpu or cuda"),
        (["--set", "dataset.name=abdomen_phantom", "--data", "x"], "[dataset]: root: unknown key"),
        (
            ["--set", "dataset.name=nifti", "--data", "/nowhere"],
            "/nowhere: there is no such folder",
        ),
    ],
)
def test_mistakes_exit_with_2_and_one_message(place, shell, arguments, expected):
    folder, _, recipe = place
    done = shell("run", recipe, "--runs-dir", folder / "mistakes", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and not (folder / "mistakes").exists()


def test_unknown_words(shell):
    assert (
        "there is no kind of component 'heads'; did you mean 'head'?"
        in shell("list", "heads").stderr
    )
    done = shell("list", "head/tmp")
    assert done.returncode == 2 and "did you mean 'tpm'?" in done.stderr
