"""Every built-in extractor, head and threshold in one table, on the shell: nothing that a run leaves is NaN or infinite."""

import json
import math

import nibabel
import numpy as np
import pytest
from helpers import make_folder, write_recipe
from safetensors.torch import load_file

from fsseg import registry
from fsseg.model.heads import AdNet


def every_row(together):
    """All combinations; heads that take one prototype get an extractor of one, and one way where they take one way."""
    names = {kind: [c.name for c in registry() if (c.kind, c.distribution) == (kind, "fsseg")]
             for kind in ("prototypes", "head", "threshold")}  # fmt: skip
    rows = []
    for extractor in names["prototypes"]:
        for head in names["head"]:
            if together and registry().find("head", head).load() is AdNet:
                continue
            options = {"count": 2 if head == "tpm" else 1} if extractor == "em_gmm" else {}
            for threshold in names["threshold"]:
                rows.append({
                    "name": f"{extractor} {head} {threshold}",
                    "prototypes": {"name": extractor, **options},
                    "head": head,
                    "threshold": {"name": threshold, **({"prior": 0.3} if threshold == "fixed" else {})},
                })  # fmt: skip
    return rows


def numbers(value):
    """Every number in plain values; a null is a mistake here."""
    assert value is not None
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield value


def not_a_number(word):
    raise AssertionError(f"{word} is no JSON")


def parse(text):
    return json.loads(text, parse_constant=not_a_number)


@pytest.mark.parametrize(
    "name, shots", [pytest.param("ep2", 3, marks=pytest.mark.slow), ("ep2_multi", 1)]
)
def test_every_row_leaves_numbers(tmp_path, shell, name, shots):
    path = write_recipe(tmp_path, make_folder(tmp_path / "scans"), steps=25)
    rows = every_row(name == "ep2_multi")
    text = (
        path.read_text()
        .split("[[variants]]")[0]
        .replace('folds = "disjoint5"', 'folds = "disjoint3"')
    )
    for row in rows:
        text += (
            f"[[variants]]\nname = {json.dumps(row['name'])}\nhead = {json.dumps(row['head'])}\n"
        )
        for key in ("prototypes", "threshold"):
            text += (
                f"{key} = {{ "
                + ", ".join(f"{k} = {json.dumps(v)}" for k, v in row[key].items())
                + " }\n"
            )
    path.write_text(text)
    changes = ["--set", f"protocol.name={name}", "--set", f"protocol.shots={shots}"]
    done = shell("run", path, "--json", "--runs-dir", tmp_path / "runs", *changes)
    assert done.returncode == 0, done.stderr
    table = parse(done.stdout)
    assert [row["variant"] for row in table["rows"]] == [row["name"] for row in rows]
    assert all(math.isfinite(number) for number in numbers(table))
    assert table["options"] == ([f"{shots} shots"] if shots > 1 else [])

    [folder] = (tmp_path / "runs").glob("tiny-*")
    seen = set()
    for file in (file for file in folder.rglob("*") if file.is_file()):
        seen.add(file.name if not file.name.endswith(".nii.gz") else "labels")
        if file.suffix == ".json":
            assert all(math.isfinite(number) for number in numbers(parse(file.read_text()))), file
        elif file.suffix == ".jsonl":
            lines = [parse(line) for line in file.read_text().splitlines()]
            assert lines and all(math.isfinite(number) for number in numbers(lines)), file
        elif file.suffix == ".safetensors":
            state = load_file(file)
            assert state and all(values.isfinite().all() for values in state.values()), file
        elif file.suffix == ".gz":
            voxels = np.asanyarray(nibabel.load(file).dataobj)
            assert voxels.dtype.kind == "u" and voxels.max() <= 2, file
    assert {
        "scores.jsonl",
        "calibration.json",
        "train.jsonl",
        "checkpoint.safetensors",
        "labels",
    } <= seen
    for line in (folder / "scores.jsonl").read_text().splitlines():
        assert len(json.loads(line)["support_slices"]) == shots
