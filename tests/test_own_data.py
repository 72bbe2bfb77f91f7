"""From a folder of raw scans to a Dice table with two commands, as a new user would."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def write_decathlon(folder: Path, cases=20) -> Path:
    """A Decathlon task: CT-like scans of two organs, some files turned another way, all tilted."""
    for case in range(cases):
        rng = np.random.default_rng(case)
        x, y, z = np.meshgrid(np.arange(64), np.arange(56), np.arange(12), indexing="ij")
        centre = rng.uniform(-3, 3, 2)
        body = ((x - 32) / 29) ** 2 + ((y - 28) / 25) ** 2 < 1
        liver = ((x - 20 - centre[0]) / 11) ** 2 + ((y - 26) / 13) ** 2 + ((z - 6) / 5) ** 2 < 1
        spleen = ((x - 48) / 6) ** 2 + ((y - 34 - centre[1]) / 7) ** 2 + ((z - 6) / 4) ** 2 < 1
        labels = np.where(liver, 1, np.where(spleen, 2, 0)).astype(np.uint8)
        image = (
            np.where(body, 20, -1000) + 90 * liver + 150 * spleen + rng.normal(0, 15, body.shape)
        )
        affine = np.array(
            [[-2.0, 0.1, 0, 60], [0.1, 2.0, 0.2, -50], [0, -0.04, 6.0, 10], [0, 0, 0, 1]]
        )
        if case % 3 == 0:  # stored the other way round
            image, labels = image[::-1], labels[::-1]
            affine = affine @ np.array([[-1.0, 0, 0, 63], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        for name, voxels in (("imagesTr", image.astype(np.int16)), ("labelsTr", labels)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            nibabel.save(
                nibabel.Nifti1Image(voxels, affine), folder / name / f"abdomen_{case:03d}.nii.gz"
            )
    listed = [
        {
            "image": f"./imagesTr/abdomen_{case:03d}.nii.gz",
            "label": f"./labelsTr/abdomen_{case:03d}.nii.gz",
        }
        for case in range(cases)
    ]
    labels = {"0": "background", "1": "Liver", "2": "Spleen"}
    described = {"name": "Abdomen", "modality": {"0": "CT"}, "labels": labels, "training": listed}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


@pytest.mark.slow
def test_a_decathlon_folder_becomes_a_table_with_two_commands(tmp_path, monkeypatch, shell):
    monkeypatch.chdir(tmp_path)
    write_decathlon(tmp_path / "Task99_Abdomen")
    done = shell("prepare", "msd", "--source", "Task99_Abdomen", "--out", "abdomen", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    assert "20 cases" in done.stdout and "fsseg run" in done.stdout
    few = [
        word
        for change in ("training.steps=2", "calibration.episodes=4")
        for word in ("--set", change)
    ]
    recipe = ROOT / "recipes" / "tpm_mp5_linest.toml"
    done = shell("run", recipe, "--data", "abdomen", *few, "--json")
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert (table["dataset"], table["fold_scheme"], table["classes"]) == (
        "abdomen",
        "disjoint5",
        ["liver", "spleen"],
    )
    rows = {row["variant"]: row for row in table["rows"]}
    assert table["cases"] == 3 and rows["OCP"]["mean"] > 50
    saved = nibabel.load(
        next((tmp_path / table["path"]).glob("fold0/labels/OCP/abdomen_000_liver.nii.gz"))
    )
    source = nibabel.load(tmp_path / "Task99_Abdomen/imagesTr/abdomen_000.nii.gz")
    assert saved.shape == source.shape and np.allclose(saved.affine, source.affine, atol=1e-4)


@pytest.mark.parametrize(
    "words", [["check", "abdomen", "--no-sheet"], ["supervoxels", "abdomen", "--jobs", "1"]]
)
def test_the_other_commands_take_the_same_folder(tmp_path, monkeypatch, shell, words):
    monkeypatch.chdir(tmp_path)
    write_decathlon(tmp_path / "Task99_Abdomen", cases=4)
    shell("prepare", "msd", "--source", "Task99_Abdomen", "--out", "abdomen", "--jobs", 1)
    done = shell(*words)
    assert done.returncode == 0 and "spleen" in done.stdout or "abdomen_003" in done.stdout, (
        done.stderr
    )
