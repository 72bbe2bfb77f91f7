"""Names that people and plugins give: the files that are made of them, and those that are refused where they are described."""

import json
import os
import shutil

import pytest
from helpers import make_folder
from pydantic_core import PydanticCustomError

import fsseg
from fsseg import DataError, FssegError
from fsseg.data.datasets.description import read_description
from fsseg.data.folds import FOLD_SCHEMES
from fsseg.errors import RecipeError
from fsseg.evaluation.files import PRIORS, label_file, read_decisions, stem_of
from fsseg.recipe.components import ComponentTable
from fsseg.recipe.names import NewMetric
from fsseg.recipe.reading import parse_recipe
from fsseg.recipe.setup import set_up
from fsseg.recipe.tables import ProtocolTable
from fsseg.system.names import (
    LONGEST_FILE,
    alike,
    file_name,
    problem_of,
    require_distinct,
    visible,
    within,
)

PLAIN = [
    "ADNet",
    "right_kidney",
    "CE-T",
    "12",
    "v1.5",
    "niere_übung",
    "肝脏",
    "यकृत",
    "печень",
    "كبد",
]

ODD = [
    *("ADNet++", "ADNet--", "tumor+", "TPM 5", "TPM  5", "TPM, 5", "a/b", "a\\b", "a:b", "..", ".", ""),
    *("../../x", "/etc/passwd", "C:\\x", "[/]", "con", "NUL", "aux.txt", "lpt1", "x" * 400, "肝" * 200),
    *("a\0b", "a\nb", "\x1b[2J", "e\u0301", "x.", "-x", ".hidden", "a*b", "a?b", "~", "a~b", "\udc80", "😀"),
]  # fmt: skip


def test_plain_words_of_any_script_keep_their_form():
    assert [file_name(name) for name in PLAIN] == PLAIN
    assert file_name("3", "right_kidney", "from", "1") == "3_right_kidney_from_1"


def test_other_names_have_files_of_their_own_that_lie_anywhere():
    files = [file_name(name) for name in [*ODD, *PLAIN]]
    assert len({alike(file) for file in files}) == len(files)
    for file in files:
        assert file == os.path.basename(file) and len(file.encode()) <= LONGEST_FILE
        assert not set(file) & set('/\\:*?"<>|\0\n\x1b') and file.strip(". ") == file
        assert file.partition(".")[0].lower() not in {"con", "nul", "aux", "lpt1", ""}


def test_the_name_of_a_file_is_the_same_everywhere():
    """Written down once: finished runs are read by this name."""
    assert file_name("ADNet++") == "ADNet~7d5cwsogvj"
    assert file_name("TPM 5, LinEst") == "TPM_5_LinEst~d5bhyvitho"
    assert file_name("1", "a/../b") == file_name("1", "a/../b") != file_name("1_a/../b")


def test_a_stem_is_bounded_and_tells_class_and_support():
    assert stem_of("1", ["liver"], "2", in_turn=False) == "1_liver"
    assert stem_of("1", ["liver"], "2", in_turn=True) == "1_liver_from_2"
    assert stem_of("1", ["liver", "spleen"], "2", in_turn=False) == "1_from_2"
    long = stem_of("c" * 200, ["k" * 90], "s" * 200, in_turn=True)
    assert len(long) <= LONGEST_FILE and long != stem_of(
        "c" * 200, ["k" * 90], "t" * 200, in_turn=True
    )


@pytest.mark.parametrize("name", ["../../up", "/elsewhere/x", "..", "a/../../b"])
def test_a_label_map_lies_in_its_folder_whoever_made_the_names(tmp_path, name):
    stem = stem_of(name, [name], name, in_turn=True)
    assert label_file(tmp_path, name, stem).parent.parent == tmp_path
    with pytest.raises(FssegError, match="leads out of the folder"):
        within(tmp_path / "run", "..", "x")


@pytest.mark.parametrize("path", ["../x.safetensors", "/etc/passwd", "margins/../../x", "a\0b"])
def test_priors_of_a_stranger_name_no_file_elsewhere(tmp_path, path):
    line = {
        "variant": "v",
        "case": "1",
        "classes": ["a"],
        "support_case": "2",
        "support_slices": [0],
    }
    line |= {"margins": path, "slices": [0], "priors": [[0.0]]}
    (tmp_path / PRIORS).write_text(json.dumps(line) + "\n")
    with pytest.raises(FssegError, match="leads out of the folder"):
        read_decisions(tmp_path)


@pytest.mark.parametrize(
    "cases, classes",
    [(("a", "A"), "liver"), (("a_b", "a"), "c b_c"), (("é", "e\u0301"), "liver")],
)
def test_two_segmentations_of_one_file_are_found_beforehand(cases, classes):
    names = classes.split()
    files = {
        f"{name} of {case}": stem_of(case, [name], "s", in_turn=False)
        for case in cases
        for name in names
    }
    if cases[0] == "é":  # stored otherwise, it is no plain word, and has a file of its own
        require_distinct(files, "fold 0:", "rename a case")
        return
    with pytest.raises(
        FssegError, match="fold 0: .* their files would both be called .*; rename a case"
    ):
        require_distinct(files, "fold 0:", "rename a case")


def write_description(folder, classes, more=""):
    lines = [f"{json.dumps(name)} = {value}" for value, name in enumerate(classes, start=1)]
    text = "\n".join([more, "[classes]", *lines])
    (folder / "dataset.toml").write_text(text + "\n", encoding="utf-8")
    return folder


REFUSED = {
    "../../evil": "holds a /",
    "liver/left": "holds a /",
    "liver\\left": "holds a \\\\",
    "..": "nothing but dots",
    "": "is empty",
    "   ": "is empty",
    " liver": "begins or ends with a space",
    "a\u0000b": "holds the character \\\\x00",
    "a\nb": "holds the character \\\\n",
    "\u001b[31mliver": "holds the character \\\\x1b",
    "a\u202eb": "holds the character \\\\u202e",
    "l" * 260: "has 260 characters, expected at most",
    "mean": "the name of a column",
    "sd_cases": "the name of a column",
    "sd_folds": "the name of a column",
    "variant": "the name of a column",
    "p": "the name of a column",
    "verdict": "the name of a column",
}


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_class_is_refused_where_it_is_described(tmp_path, name):
    expected = f"dataset.toml: classes: the class .*{REFUSED[name]}.*; rename it"
    with pytest.raises(DataError, match=expected):
        read_description(write_description(tmp_path, [name, "spleen"]))
    dataset = PluginsDataset([name, "spleen"])
    with pytest.raises(DataError, match=f"dataset 'theirs': the class .*{REFUSED[name]}"):
        set_up(ProtocolTable(), dataset)


@pytest.mark.parametrize(
    "pair", [("liver", "Liver"), ("é", "e\u0301"), ("left  kidney", "left kidney")]
)
def test_classes_that_look_the_same_are_refused(tmp_path, pair):
    with pytest.raises(DataError, match="the classes .* and .* differ in nothing but capitals"):
        read_description(write_description(tmp_path, pair))


@pytest.mark.parametrize(
    "name", ["肝脏", "यकृत", "tumor+", "tumor-", "Leber (rechts)", "[b]", "$a$", "means"]
)
def test_other_classes_are_taken(tmp_path, name):
    assert list(read_description(write_description(tmp_path, [name])).classes) == [name]
    assert problem_of(name) is None


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "two\nlines", " x"])
def test_the_name_of_a_dataset_is_one_line(tmp_path, name):
    with pytest.raises(DataError, match="dataset.toml: name: .*; rename the dataset"):
        read_description(write_description(tmp_path, ["a"], f"name = {json.dumps(name)}\n"))


class PluginsDataset:
    name = "theirs"
    cases = ["1", "2", "3", "4", "5", "6"]
    folds = FOLD_SCHEMES["disjoint5"]

    def __init__(self, classes):
        self.classes = dict(enumerate(classes, start=1))


def rows(*names, **more):
    tables = [{"name": name, "threshold": "ce_t"} for name in names]
    described = {
        "dataset": "abdomen_phantom",
        "backbone": {"name": "timm", "model": "test_efficientnet"},
    }
    return parse_recipe(described | {"variants": tables} | more, "recipe")


@pytest.mark.parametrize(
    "names, sentence",
    [
        (["A", "A"], "'A' is used twice"),
        (["ADNet", "adnet"], "'adnet' differs from 'ADNet' in nothing but capitals"),
        (["CE T", "CE  T"], "'CE  T' differs from 'CE T' in nothing but capitals, spaces"),
        (["é", "e\u0301"], "in nothing but capitals, spaces or the way that accents are stored"),
        (["a\x1b[31m"], r"holds the character \\x1b"),
        (["two\nlines"], r"holds the character \\n"),
        (["  "], "is empty"),
        (["x" * 300], "has 300 characters"),
    ],
)
def test_names_of_rows_that_cannot_be_told_apart(names, sentence):
    with pytest.raises(RecipeError, match=sentence):
        rows(*names)


def test_names_of_rows_that_differ_in_signs_are_taken():
    names = ["ADNet", "ADNet++", "TPM/a", "TPM\\a", "[/]", "$x$ $y$", "行"]
    assert [row.name for row in rows(*names).variants] == names
    assert len({file_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("metrics", [["iou", "iou"], ["iou", {"name": "iou"}]])
def test_a_metric_is_measured_once(metrics):
    with pytest.raises(
        RecipeError, match="metrics.*'iou' is used twice, expected each metric once"
    ):
        rows("A", metrics=metrics)


def test_a_run_directory_lies_where_runs_are_kept(tmp_path):
    recipe = rows("A")
    with pytest.raises(FssegError, match="leads out of the folder"):
        fsseg.run(recipe, name="../elsewhere", runs_dir=tmp_path / "runs", device="cpu")
    assert not list(tmp_path.iterdir())


def test_the_contact_sheet_lies_in_the_working_folder(tmp_path, monkeypatch, shell):
    """Wherever the dataset's name points."""
    (tmp_path / "inner").mkdir()
    folder = make_folder(tmp_path / "scans", cases=2)
    text = (folder / "dataset.toml").read_text()
    (folder / "dataset.toml").write_text(f'name = "/../../../evil"\n{text}')
    monkeypatch.chdir(tmp_path / "inner")
    called = shell("check", folder)
    assert "Traceback" not in called.stderr
    [sheet] = (tmp_path / "inner").iterdir()
    assert sheet.name == f"check-{file_name('/../../../evil')}.png"


def test_label_maps_of_earlier_versions_are_read(tmp_path, finished_run):
    """They had underscores for all signs; two rows in one such folder are told of."""
    copy = shutil.copytree(finished_run().path, tmp_path / "run")
    (copy / "manifest.json").unlink()
    labels = copy / "fold0" / "labels"
    (labels / "CE-T").rename(labels / "CE_T")
    now = fsseg.error_table(finished_run().path).frame
    assert (
        fsseg.error_table(copy)
        .frame.drop(columns="run", errors="ignore")
        .equals(now.drop(columns="run", errors="ignore"))
    )
    scores = copy / "scores.jsonl"
    recipe = copy / "recipe.toml"
    for file in (scores, recipe):
        file.write_text(file.read_text().replace('"OCP"', '"CE+T"'))
    shutil.rmtree(labels / "OCP")
    with pytest.raises(FssegError, match="'CE-T', 'CE\\+T', which an earlier version wrote over"):
        fsseg.error_table(copy)


@pytest.mark.parametrize(
    "text, seen",
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("\x07", r"\x07"),
        ("a\r", r"a\r"),
        ("\x9b", r"\x9b"),
        ("\u202e", r"\u202e"),
    ],
)
def test_what_steers_a_terminal_is_shown_by_its_number(text, seen):
    assert visible(text) == seen
    assert visible("two\nlines, é, 肝, यकृत") == "two\nlines, é, 肝, यकृत"


@pytest.mark.parametrize("name", ["mean", "sd_cases", "p"])
def test_a_run_of_an_earlier_version_whose_table_would_be_wrong_is_refused(
    tmp_path, finished_run, name
):
    """Its table had two columns of one name, of which one was lost."""
    copy = shutil.copytree(finished_run().path, tmp_path / "run")
    (copy / "manifest.json").unlink()
    for file in ("run.json", "scores.jsonl"):
        path = copy / file
        path.write_text(path.read_text().replace('"dark"', f'"{name}"'))
    with pytest.raises(FssegError, match=f"run.json: the class '{name}' has the name of a column"):
        fsseg.load_results(copy)


@pytest.mark.parametrize("name", ["case", "dice", "fold", "variant", "actual"])
def test_a_metric_takes_no_column_of_the_table_of_scores(name):
    with pytest.raises(PydanticCustomError, match="is the name of another column"):
        NewMetric().check(ComponentTable(name=name), {})
