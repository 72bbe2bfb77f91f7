"""Patterns with `{case}`: what they fit, which file is what, names that look alike, and what is no file; always soon."""

import contextlib
import os
import re
import unicodedata

import pytest
from helpers import make_folder
from raw_trees import blob_scan, write_raw_nifti

from fsseg.data.datasets.check import check_folder
from fsseg.data.datasets.finding import find_files, match_files, match_pairs, unpaired
from fsseg.data.datasets.folders import NiftiFolder
from fsseg.data.datasets.patterns import Pattern, Steps, TooManySteps, by_number
from fsseg.errors import DataError
from fsseg.prepare.layouts import nifti

NFC = "Müller"
NFD = unicodedata.normalize("NFD", NFC)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def ids(root, pattern):
    return {
        case: path.relative_to(root).as_posix() for case, path in find_files(root, pattern).items()
    }


def in_words(pattern, path):
    """What a pattern fits, said by a regular expression, which may take minutes for others than these."""
    wildcards = {"**/": "(?:.*/)?", "*": "[^/]*"}
    expression = ""
    for part in re.split(r"(\{case\}|\*\*/|\*)", pattern):
        if part != "{case}":
            expression += wildcards.get(part) or re.escape(part)
        elif "(?P<case>" in expression:
            expression += "(?P=case)"
        else:
            expression += "(?P<case>[^/]+)"
    match = re.fullmatch(expression, path)
    return match and match["case"]


@pytest.mark.parametrize(
    "pattern",
    [
        "{case}.nii",
        "*_{case}.nii",
        "{case}_*.nii",
        "*{case}*",
        "{case}*{case}",
        "**/{case}.nii",
        "**/{case}/{case}_*.nii",
        "*/{case}/**/*{case}.nii",
        "a/**/b_{case}.nii*",
        "**/{case}*/x",
        "a[b]?{case}",
    ],
)
def test_a_pattern_fits_what_its_words_say(pattern):
    paths = [
        "a.nii",
        "a_b.nii",
        "a_b_c.nii",
        "aa",
        "aba",
        "abab",
        "x/a.nii",
        "x/y/a.nii",
        "a/a_1.nii",
    ]
    paths += [
        "q/a/a_1.nii",
        "q/a/z/xa.nii",
        "a/b_1.nii",
        "a/c/d/b_1.nii.gz",
        "q/aa/x",
        "a[b]?7",
        "ab7",
    ]
    for path in paths:
        assert Pattern(pattern).case_of(path) == in_words(pattern, path), (pattern, path)


@pytest.mark.parametrize(
    "pattern",
    [
        "./img/{case}.nii",
        "img//{case}.nii",
        ".//img/./{case}.nii",
        "img/{case}.nii",
        "im*//{case}.nii",
    ],
)
def test_dots_and_slashes_say_nothing(tmp_path, pattern):
    assert ids(touch(tmp_path, "img/1.nii", "img/2.nii", "3.nii"), pattern) == {
        "1": "img/1.nii",
        "2": "img/2.nii",
    }


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("image.nii", "lacks {case}"),
        ("/data/{case}.nii", "is an absolute path, expected one below the folder"),
        ("~/data/{case}.nii", "is an absolute path"),
        ("../{case}.nii", "leads out of the folder"),
        ("a/../../{case}.nii", "leads out of the folder"),
        ("img\\{case}.nii", "has a backslash, expected / between folders"),
        ("{{case}}.nii", "has {{case}}, expected single braces"),
        ("{case}\n.nii", "has control characters"),
        ("{case}\0.nii", "has control characters"),
        ("*a" * 20 + "{case}", "has 21 wildcards"),
        ("{case}" * 17, "has 17 wildcards"),
        ("{case}" + "a" * 2000, "and 2006 letters"),
    ],
)
def test_patterns_that_cannot_be_are_one_sentence_everywhere(tmp_path, pattern, expected):
    root = make_folder(tmp_path / "scans", cases=1)
    text = pattern.replace("\\", "\\\\").replace("\n", "\\n").replace("\0", "\\u0000")
    (root / "dataset.toml").write_text(f'image = "{text}"\n[classes]\nbright = 1\n')
    [finding] = check_folder(root).findings
    assert expected in finding.text and "image" in finding.text
    with pytest.raises(DataError, match=re.escape(expected)):
        NiftiFolder(root=str(root))
    with pytest.raises(DataError, match=f"^--image .*{re.escape(expected)}"):
        nifti.plan(root, pattern, "{case}.nii")
    with pytest.raises(DataError, match=re.escape(expected)) as caught:
        find_files(root, pattern)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "image, label, images, labels",
    [
        ("{case}.nii", "{case}_seg.nii", ["1.nii", "2.nii"], ["1_seg.nii", "2_seg.nii"]),
        ("{case}*.nii", "{case}_seg.nii", ["1.nii", "2.nii"], ["1_seg.nii", "2_seg.nii"]),
        (
            "**/{case}.nii",
            "labels/{case}.nii",
            ["x/1.nii", "x/2.nii"],
            ["labels/1.nii", "labels/2.nii"],
        ),
        ("{case}_img.nii", "{case}.nii", ["1_img.nii", "2_img.nii"], ["1.nii", "2.nii"]),
        ("scan{case}.nii", "*{case}.nii", ["scan1.nii", "scan2.nii"], ["roi1.nii", "roi2.nii"]),
    ],
)
def test_a_file_that_both_patterns_fit_is_what_says_more(tmp_path, image, label, images, labels):
    touch(tmp_path, *images, *labels)
    pairs = match_pairs(tmp_path, image, label)
    assert pairs.problems == []
    by_case = [path.relative_to(tmp_path).as_posix() for path in pairs.images.values()]
    assert by_case == images
    by_case = [path.relative_to(tmp_path).as_posix() for path in pairs.labels.values()]
    assert by_case == labels


def test_an_image_is_not_its_own_label(tmp_path):
    root = make_folder(tmp_path / "scans", cases=1)
    (root / "dataset.toml").write_text(
        'image = "image_{case}.nii.gz"\nlabel = "image_{case}.nii.gz"\n[classes]\nbright = 1\n'
    )
    assert "are both 'image_{case}.nii.gz'" in check_folder(root).findings[0].text
    [problem] = match_pairs(root, "{case}.nii", "./{case}.nii").problems
    assert "{case}.nii stands for images and for labels" in problem


def test_check_prepare_and_a_dataset_agree_on_pairs(tmp_path):
    voxels, labels = blob_scan(values=(1, 4))
    for case in ("1", "2"):
        write_raw_nifti(tmp_path / f"{case}.nii.gz", voxels)
        write_raw_nifti(tmp_path / f"{case}_seg.nii.gz", labels)
    (tmp_path / "dataset.toml").write_text(
        'image = "{case}.nii.gz"\nlabel = "{case}_seg.nii.gz"\n[classes]\nliver = 1\nspleen = 4\n'
    )
    assert [case.case for case in check_folder(tmp_path).cases] == ["1", "2"]
    assert NiftiFolder(root=str(tmp_path)).cases == ["1", "2"]
    plan = nifti.plan(tmp_path, "{case}.nii.gz", "{case}_seg.nii.gz")
    assert [(case.image[0].name, case.label[0].name) for case in plan.cases] == [
        ("1.nii.gz", "1_seg.nii.gz"),
        ("2.nii.gz", "2_seg.nii.gz"),
    ]


@pytest.mark.parametrize(
    "pattern, name",
    [
        ("*a" * 14 + "{case}", "a" * 250 + "b/c"),
        ("*{case}*{case}*{case}*{case}b", "a" * 250),
        ("{case}{case}{case}{case}{case}*b", "a" * 250),
        ("**/" + "*/**/" * 6 + "{case}b", "a/" * 100 + "a"),
        ("**/{case}/**/{case}/**/{case}/**/{case}b", "a/" * 100 + "a"),
    ],
)
def test_no_pattern_takes_long(pattern, name):
    """Regular expressions would try for hours; here every way is tried once, or the count of steps ends it."""
    steps = Steps()
    with contextlib.suppress(TooManySteps):
        assert Pattern(pattern).case_of(name, steps) is None
    assert steps._left < 100_100, "the search took steps"


def test_a_pattern_that_fits_in_too_many_ways_is_a_sentence(tmp_path):
    touch(tmp_path, "a" * 200)
    files, [problem] = match_files(tmp_path, "*{case}*{case}*{case}*{case}*b*a")
    assert files == {} and "fits names in too many ways" in problem and "use fewer" in problem
    assert (
        len(
            find_files(
                touch(tmp_path / "usual", *(f"s{n}/a_{n}_T2.nii" for n in range(300))),
                "**/a_{case}_T2.nii",
            )
        )
        == 300
    )


def test_letters_count_as_they_look(tmp_path):
    touch(tmp_path, f"image_{NFC}.nii", f"label_{NFD}.nii", "image_나.nii")
    touch(tmp_path, unicodedata.normalize("NFD", "label_나.nii"))
    pairs = match_pairs(tmp_path, "image_{case}.nii", "label_{case}.nii")
    assert pairs.problems == [] and list(pairs.images) == [NFC, "나"] == list(pairs.labels)
    assert pairs.labels[NFC].is_file(), "the file keeps its name"
    assert list(find_files(touch(tmp_path, f"{NFD}/1.nii"), f"{NFC}/{{case}}.nii")) == ["1"]


def test_two_names_that_look_the_same_are_told_apart_in_the_message(tmp_path):
    touch(tmp_path, f"{NFC}.nii", f"{NFD}.nii")
    _, [problem] = match_files(tmp_path, "{case}.nii")
    assert "finds two files for case Müller" in problem
    assert r"M\xfcller.nii" in problem and r"Mu\u0308ller.nii" in problem


@pytest.mark.parametrize(
    "image, label",
    [
        ("Case1", "case1"),
        ("a-1", "a–1"),
        ("01", "1"),
        ("ａ１", "a1"),
        ("a 1", "a1"),
        ("a\u200b1", "a1"),
    ],
)
def test_ids_that_only_look_the_same_are_named_with_both_names(tmp_path, image, label):
    touch(tmp_path, f"image_{image}.nii", f"label_{label}.nii")
    pairs = match_pairs(tmp_path, "image_{case}.nii", "label_{case}.nii")
    problems = unpaired(tmp_path, pairs.images, pairs.labels, "image", "label")
    assert len(problems) == 3
    assert f"the image's id {image!a} and the label's id {label!a} look alike" in problems[2]


def test_ids_of_any_digits_can_be_sorted():
    assert sorted(["b²", "b10", "b9", "b٣"], key=by_number) == ["b٣", "b9", "b10", "b²"]
    assert by_number("x²") == ((1, "x²"),), "a digit that is no number"
    assert by_number("٣") == ((0, 3),)


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda path: path.symlink_to("gone/1.nii"), "is a link to gone/1.nii, where nothing is"),
        (
            lambda path: path.symlink_to(path.name),
            "cannot be read (Too many levels of symbolic links)",
        ),
        (lambda path: path.mkdir(), "is a folder, expected a file"),
        (os.mkfifo, "is a pipe or a device, expected a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe or a device, expected a file"),
    ],
)
def test_what_is_no_file_is_named_as_what_it_is(tmp_path, make, expected):
    root = make_folder(tmp_path / "scans", cases=3)
    path = root / "image_1.nii.gz"
    path.unlink()
    make(path)
    [text] = [finding.text for finding in check_folder(root).findings if str(path) in finding.text]
    assert text.startswith(f"{path}: ") and expected in text
    with pytest.raises(DataError, match=re.escape(expected)):
        NiftiFolder(root=str(root)).cases  # noqa: B018
    with pytest.raises(DataError, match=re.escape(expected)):
        nifti.plan(root, "image_{case}.nii.gz", "label_{case}.nii.gz")


def test_a_folder_beside_the_file_of_its_case_is_passed_over(tmp_path):
    touch(tmp_path, "x_flair.nii/x_flair.nii", "y_flair.nii")
    assert ids(tmp_path, "**/{case}_flair.nii") == {
        "x": "x_flair.nii/x_flair.nii",
        "y": "y_flair.nii",
    }


@pytest.mark.parametrize(
    "name, expected",
    [
        (os.fsdecode(b"M\xfcller.nii"), "its name is not UTF-8; rename the file"),
        ("a\nb.nii", "its name has line breaks or control characters"),
        ("a\x1b[31mb.nii", "its name has line breaks or control characters"),
        ("a\u2028b.nii", "its name has line breaks or control characters"),
    ],
)
def test_names_that_would_spoil_a_table_are_refused_on_one_line(tmp_path, name, expected):
    touch(tmp_path, name, "1.nii")
    files, [problem] = match_files(tmp_path, "{case}.nii")
    assert list(files) == ["1"] and expected in problem
    assert problem.isprintable(), "no escape sequence, no line break"


def test_links_are_followed_to_files_and_to_folders_but_not_round_and_round(tmp_path):
    touch(tmp_path, "kept/1.nii", "scans/2.nii")
    (tmp_path / "scans/1.nii").symlink_to(tmp_path / "kept/1.nii")
    (tmp_path / "scans/again").symlink_to(tmp_path / "scans")
    (tmp_path / "linked").symlink_to(tmp_path / "scans")
    assert list(find_files(tmp_path / "scans", "**/{case}.nii")) == ["1", "2"]
    assert list(find_files(tmp_path, "linked/{case}.nii")) == ["1", "2"]
    assert list(find_files(tmp_path, "l*d/{case}.nii")) == ["1", "2"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.nii", "b/2.nii")
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("b"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    files, [problem] = match_files(tmp_path, "**/{case}.nii")
    assert list(files) == ["1"] and "b: cannot be looked into (Permission denied)" in problem


def test_what_macos_leaves_beside_files_is_no_scan(tmp_path):
    assert ids(touch(tmp_path, "1.nii", "._1.nii"), "{case}.nii") == {"1": "1.nii"}
