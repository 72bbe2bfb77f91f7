"""Text that people bring: UTF-8 with or without a byte order mark; everything else is one sentence that names the file."""

import json
import os

import pytest
from raw_trees import write_msd

import fsseg
from fsseg.data.datasets.description import read_description
from fsseg.errors import DataError, FssegError
from fsseg.prepare.layouts import msd
from fsseg.system.files import read_json, write_json
from fsseg.system.text import read_json_text, read_text, read_toml

RECIPE = """
[dataset]
name = "abdomen_phantom"

[backbone]
name = "timm"
model = "test_efficientnet"
weights = "none"

[[variants]]
name = "Überzug"
threshold = "ce_t"
"""
DESCRIPTION = '[classes]\n"Müller" = 1\n"肝臓" = 2\n'
MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("mark", [b"", MARK])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_utf8_is_read_whatever_editor_saved_it(tmp_path, mark, end):
    (tmp_path / "r.toml").write_bytes(mark + RECIPE.replace("\n", end).encode())
    assert fsseg.load_recipe(tmp_path / "r.toml").variants[0].name == "Überzug"
    (tmp_path / "dataset.toml").write_bytes(mark + DESCRIPTION.replace("\n", end).encode())
    assert read_description(tmp_path).classes == {"Müller": 1, "肝臓": 2}
    source = write_msd(tmp_path / "msd", cases=("1",))
    content = (source / "dataset.json").read_bytes()
    (source / "dataset.json").write_bytes(mark + content.replace(b"\n", end.encode()))
    assert len(msd.plan(source).cases) == 1


def test_files_of_a_run_may_have_been_saved_by_an_editor(tmp_path):
    write_json(tmp_path / "run.json", {"name": "run"})
    (tmp_path / "run.json").write_bytes(MARK + (tmp_path / "run.json").read_bytes())
    assert read_json(tmp_path / "run.json") == {"name": "run"}


@pytest.mark.parametrize(
    "content, expected",
    [
        (DESCRIPTION.encode("utf-16"), "is UTF-16, expected UTF-8; save it anew as UTF-8"),
        (DESCRIPTION.encode("utf-32"), "is UTF-32, expected UTF-8"),
        ("[classes]\nliver = 1\n".encode("utf-16-le"), "has NUL bytes, expected text in UTF-8"),
        ('[classes]\n"Müller" = 1\n'.encode("latin-1"), r"line 2 has the byte 0xFC.*Latin-1"),
        (
            '[classes]\n"肝臓" = 1\n'.encode("shift-jis"),
            r"line 2 has the byte 0x8A, which is no UTF-8",
        ),
        (b"\x1f\x8b\x08\0\0", "line 1 has the byte 0x8B"),
        (b"x = " + b"[" * 50_000, "not valid TOML: tables within tables without end"),
        (b"x = " + b"9" * 5_000, "not valid TOML: Exceeds the limit"),
        (b"x = 1\nx = 2\n", "not valid TOML: Cannot overwrite a value"),
    ],
)
def test_what_is_no_toml_in_utf8_is_one_sentence(tmp_path, content, expected):
    path = tmp_path / "dataset.toml"
    path.write_bytes(content)
    for read in (lambda: read_description(tmp_path), lambda: fsseg.load_recipe(path)):
        with pytest.raises(FssegError, match=expected) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, expected",
    [
        ('{"labels": {"1": "liver", "1": "spleen"}}', "the key '1' is there twice"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ("[" * 100_000, "tables within tables without end"),
        ("9" * 5_000, "Exceeds the limit"),
        ("", "Expecting value: line 1 column 1"),
    ],
)
def test_what_is_no_json_is_one_sentence(tmp_path, content, expected):
    path = tmp_path / "dataset.json"
    path.write_text(content)
    with pytest.raises(DataError, match=expected) as caught:
        read_json_text(path, DataError)
    assert str(caught.value).startswith(f"{path}: not valid JSON: ")
    assert "\n" not in str(caught.value)


def make_link(path):
    path.symlink_to("nowhere.toml")


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda path: path.mkdir(), "is a folder, expected a text file"),
        (os.mkfifo, "is a pipe or a device, expected a text file"),
        (make_link, "is a link to nowhere.toml, where nothing is"),
        (lambda path: path.symlink_to(path.name), "cannot be read|is a link to"),
        (
            lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**29),
            "has 536870912 bytes",
        ),
    ],
)
def test_what_is_no_text_file_is_one_sentence(tmp_path, make, expected):
    path = tmp_path / "dataset.toml"
    make(path)
    table = fsseg.find_dataset(tmp_path)
    assert table["name"] == "nifti"
    for read in (lambda: read_description(tmp_path), lambda: fsseg.load_recipe(path)):
        with pytest.raises(FssegError, match=expected) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FssegError, match="a.toml: there is no such file"):
        read_toml(tmp_path / "a.toml")
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf")
    assert read_text(tmp_path / "a") == ""


def test_a_description_of_other_tables_is_written_as_json_says(tmp_path):
    source = write_msd(tmp_path / "msd", cases=("1",))
    table = json.loads((source / "dataset.json").read_text())
    text = json.dumps(table)
    (source / "dataset.json").write_text(text[:-1] + ', "labels": {"1": "spleen"}}')
    with pytest.raises(DataError, match="the key 'labels' is there twice"):
        msd.plan(source)
