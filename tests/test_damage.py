"""Finished stages, runs and the cache are held against their checksums before they are believed."""

import json
import shutil

import pytest
from helpers import block_scan, make_folder, published_rules, write_recipe

import fsseg
from fsseg import DataError, FssegError
from fsseg.runs.data import RunData
from fsseg.runs.stages import Stage, Stages
from fsseg.system.manifests import MANIFEST, find_damage, write_manifest
from fsseg.system.progress import Silent
from fsseg.training.episodes import TRAINING_STREAM, EpisodeSampler, episode_rng
from fsseg.training.mapped import kept_training_scan


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def make(folder):
    (folder / "scores.jsonl").write_text('{"dice": 0.75}\n')
    (folder / "labels" / "CE-T").mkdir(parents=True)
    (folder / "labels" / "CE-T" / "1_liver.nii.gz").write_bytes(bytes(range(200)))
    (folder / "empty.txt").write_text("")


def change_a_digit(folder):
    path = folder / "scores.jsonl"
    path.write_text(path.read_text().replace("0.75", "0.76"))


def flip_a_bit(folder):
    path = folder / "labels" / "CE-T" / "1_liver.nii.gz"
    content = bytearray(path.read_bytes())
    content[137] ^= 4
    path.write_bytes(content)


def cut_off(folder):
    path = folder / "labels" / "CE-T" / "1_liver.nii.gz"
    path.write_bytes(path.read_bytes()[:100])


def lengthen(folder):
    (folder / "empty.txt").write_text("\n")


def delete_a_file(folder):
    (folder / "empty.txt").unlink()


def delete_a_folder(folder):
    shutil.rmtree(folder / "labels")


def put_a_folder_in_place(folder):
    (folder / "scores.jsonl").unlink()
    (folder / "scores.jsonl").mkdir()


def delete_the_manifest(folder):
    (folder / MANIFEST).unlink()


def empty_the_manifest(folder):
    (folder / MANIFEST).write_text("")


def claim_another_format(folder):
    (folder / MANIFEST).write_text('{"format": 2, "files": {}}')


def list_of_nothing(folder):
    (folder / MANIFEST).write_text('{"format": 1, "files": 3}')


def list_a_file_of_others(folder):
    listed = json.loads((folder / MANIFEST).read_text())
    listed["files"]["../../../other"] = {"bytes": 0, "sha256": ""}
    (folder / MANIFEST).write_text(json.dumps(listed))


DAMAGES = [
    (change_a_digit, "scores.jsonl has another checksum"),
    (flip_a_bit, "labels/CE-T/1_liver.nii.gz has another checksum"),
    (cut_off, "labels/CE-T/1_liver.nii.gz has 100 bytes, expected 200"),
    (lengthen, "empty.txt has 1 bytes, expected 0"),
    (delete_a_file, "empty.txt is missing"),
    (delete_a_folder, "labels/CE-T/1_liver.nii.gz is missing"),
    (put_a_folder_in_place, "scores.jsonl is missing"),
    (delete_the_manifest, "manifest.json is missing"),
    (empty_the_manifest, "manifest.json cannot be read"),
    (claim_another_format, "its format is 2, expected 1"),
    (list_of_nothing, "manifest.json cannot be read"),
    (list_a_file_of_others, "leads out of the folder"),
]


@pytest.mark.parametrize(
    "damage, expected", DAMAGES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_damaged_stage_is_made_again_with_a_note(tmp_path, damage, expected):
    stage = Stage("evaluate", {"a": 1}, make)
    folder = Stages(tmp_path, Silent()).finish(stage).folder
    assert find_damage(folder) is None
    progress = Notes()
    assert Stages(tmp_path, progress).finish(stage).reused and not progress.notes
    damage(folder)
    again = Stages(tmp_path, progress).finish(stage)
    assert not again.reused and find_damage(folder) is None
    [note] = progress.notes
    assert note.startswith(f"{folder}: damaged (") and expected in note and "made again" in note


def test_what_is_put_beside_a_stage_is_no_damage(tmp_path):
    make(tmp_path)
    write_manifest(tmp_path)
    (tmp_path / ".DS_Store").write_text("")
    assert find_damage(tmp_path) is None


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of a finished run, whose files are its own."""
    return shutil.copytree(finished_run().path, tmp_path / "run")


@pytest.mark.parametrize("name", ["run.json", "scores.jsonl"])
def test_a_damaged_run_is_a_sentence(run, name):
    path = run / name
    text = path.read_text()
    digit = next(at for at, letter in enumerate(text) if letter in "12345678")
    path.write_text(text[:digit] + "9" + text[digit + 1 :])
    with pytest.raises(
        FssegError, match=rf"{name} has another checksum\), expected what fsseg wrote"
    ):
        fsseg.load_results(run)


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "calibration.json"])
def test_a_damaged_training_predicts_nothing(run, name):
    [path] = run.rglob(name)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(FssegError, match=f"{name} has another checksum"):
        fsseg.load_predictor(run, variant="LinEst")


def test_a_run_of_an_earlier_version_has_no_manifest_and_is_read(run):
    (run / MANIFEST).unlink()
    assert fsseg.load_results(run).table().notna().any(axis=None)


def test_the_recipe_of_a_run_may_say_where_its_scans_lie_now(run):
    path = run / "recipe.toml"
    path.write_text(path.read_text().replace("/scans", "/moved"))
    assert "moved" in fsseg.load_results(run).recipe.dataset.options["root"]


def test_a_manifest_lists_every_file_of_a_run(run):
    listed = json.loads((run / MANIFEST).read_text())["files"]
    there = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert set(listed) == there - {MANIFEST} and find_damage(run) is None


def voxels_of(path):
    """Where the images lie in a file of safetensors: from its header's end on."""
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8 : 8 + header])["images"]["data_offsets"]
    return 8 + header + begin, 8 + header + end


def test_a_flipped_bit_in_a_kept_training_scan_is_found_when_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSEG_CACHE", str(tmp_path))
    scan = block_scan()
    kept = kept_training_scan("a", "key", lambda: scan)
    kept.require_undamaged()
    [path] = tmp_path.rglob("*.safetensors")
    begin, end = voxels_of(path)
    content = bytearray(path.read_bytes())
    content[(begin + end) // 2] ^= 1
    path.write_bytes(content)
    damaged = kept_training_scan("a", "key", lambda: scan)
    sampler = EpisodeSampler([damaged], published_rules())
    with pytest.raises(DataError, match="its voxels have another checksum.*run again"):
        sampler.make(sampler.draw(episode_rng(0, TRAINING_STREAM, 0), 1))
    assert not path.exists()
    kept_training_scan("a", "key", lambda: scan).require_undamaged()


def test_a_changed_digit_in_kept_facts_makes_them_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSEG_CACHE", str(tmp_path / "cache"))
    root = make_folder(tmp_path / "scans", cases=4, size=32, slices=3)
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root), {"protocol.folds": "disjoint2"})
    facts = RunData(recipe, Silent()).scans.facts
    changed = 0
    for path in (tmp_path / "cache" / "facts").glob("*.json"):
        text = path.read_text()
        at = text.index('"shown"')
        path.write_text(text[:at] + text[at:].replace("1", "2", 1))
        changed += path.read_text() != text
    assert changed == 4
    progress = Notes()
    assert RunData(recipe, progress).scans.facts == facts
    assert len(progress.notes) == 4 and all("its checksum is another" in n for n in progress.notes)
