"""Whatever is in the files that people give: a valid run or an FssegError, never a traceback, a hang or a leftover.

Mutated recipes, dataset descriptions and NIfTI headers go through what reads them in a run. Reading is where the variety is,
so thousands of inputs stop before the training; some go all the way. A default run tries some hundred, the same each
time; the slow suite thousands, others each time, and 20,000 of them where it is asked to (see `fuzzed`).
"""

import copy
import gzip
import json
import os
import random
import shutil
import signal
import string
import tomllib
from pathlib import Path
from types import FunctionType

import nibabel
import numpy as np
import pytest
import tomli_w
import torch
from helpers import make_folder, write_recipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

import fsseg
from fsseg import FssegError
from fsseg.plugins.manager import registry
from fsseg.recipe.reading import load_recipe, parse_recipe
from fsseg.report import run_plots
from fsseg.runs.data import RunData
from fsseg.system.manifests import MANIFEST
from fsseg.system.names import alike, file_name, first_alike, problem_of, within
from fsseg.system.progress import Silent

ROOT = Path(__file__).parents[1]
RECIPES = [path.read_text() for path in sorted((ROOT / "recipes").glob("*.toml"))]
SLOWEST = 60.0
"""Seconds after which an input counts as a hang; generous, for machines that are busy."""


SHARE = float(os.environ.get("FSSEG_FUZZ", "0.2"))
"""How much of all examples the slow tests try."""


def fuzzed(examples, *inputs):
    """Makes two tests of a function: with few of the examples, the same each time, and among the slow ones with more.

    All of them, more than 20,000, are tried by `FSSEG_FUZZ=1 uv run pytest tests/test_fuzz.py -m slow`.
    """

    def decorate(check):
        def copied(number, name, derandomize):
            body = FunctionType(
                check.__code__, check.__globals__, name, check.__defaults__, check.__closure__
            )
            body.__annotations__, body.__doc__ = check.__annotations__, check.__doc__
            how = settings(
                max_examples=number, deadline=None, derandomize=derandomize, database=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
            )  # fmt: skip
            return how(given(*inputs)(body))

        slow = f"{check.__name__}_thousands_of_times"
        check.__globals__[slow] = pytest.mark.slow(copied(int(SHARE * examples), slow, False))
        return copied(examples // 100, check.__name__, True)

    return decorate


# Values that people and programs put where others belong.
VALUES = st.one_of(
    st.none().map(lambda _: ""),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 5),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "tpm",
            "map",
            "cuda",
            "../x",
            "/etc/passwd",
            "os.system",
            "fsseg.model.heads:Tpm",
            "a" * 300,
            "\x00",
            "nan",
        ]
    ),
    st.lists(st.one_of(st.integers(-2, 3), st.text(max_size=3)), max_size=3),
    st.dictionaries(
        st.sampled_from(["name", "count", "steps", "x"]), st.integers(-1, 3), max_size=2
    ),
)


def paths_of(value, prefix=()):
    """Where every table, list and value of a recipe is."""
    yield prefix
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from paths_of(inner, (*prefix, key))


@st.composite
def mutated_tables(draw, tables):
    """A few values replaced, removed, doubled or put under another name."""
    tables = tomllib.loads(tables) if isinstance(tables, str) else copy.deepcopy(tables)
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.sampled_from([path for path in paths_of(tables) if path]))
        parent = tables
        for key in where[:-1]:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "remove", "rename", "wrap"]))
        if action == "replace":
            parent[where[-1]] = draw(VALUES)
        elif action == "wrap":
            parent[where[-1]] = [parent[where[-1]]]
        elif action == "remove" or isinstance(parent, list):
            del parent[where[-1]]
        else:
            parent[draw(st.text(string.ascii_letters + "_.", min_size=1, max_size=6))] = parent.pop(
                where[-1]
            )
    return tables


@st.composite
def mutated_text(draw, text):
    """Characters removed, doubled or put in."""
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        action = draw(st.sampled_from(["cut", "insert", "double"]))
        if action == "cut":
            text = text[:at] + text[at + draw(st.integers(1, 30)) :]
        elif action == "insert":
            text = text[:at] + draw(st.text(max_size=4)) + text[at:]
        else:
            text = text[:at] + text[max(0, at - 20) : at] + text[at:]
    return text


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    """All components are imported once; on a machine that is busy that takes as long as a hang."""
    for text in RECIPES:
        parse_recipe(tomllib.loads(text)).check()


class Hangs(BaseException):
    """No Exception, which what is called may catch."""


def quickly(call):
    """The call's result, or None for one that ends with the sentence of an FssegError; anything else is a failure."""

    def interrupt(*_):
        raise Hangs(f"no answer after {SLOWEST} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, SLOWEST)
    try:
        return call()
    except FssegError as error:
        assert str(error).strip()
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@fuzzed(4000, st.sampled_from(RECIPES).flatmap(mutated_tables))
def test_recipes_with_other_values(tables):
    recipe = quickly(lambda: parse_recipe(tables))
    if recipe is not None:
        assert (
            parse_recipe(tomllib.loads(recipe.toml())) == recipe
        )  # what was accepted can be kept and run again


@fuzzed(2000, st.sampled_from(RECIPES).flatmap(mutated_text))
def test_recipes_with_other_characters(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    quickly(lambda: load_recipe(path))
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.toml"]


@fuzzed(1000, st.binary(max_size=200))
def test_recipes_that_are_no_text(tmp_path, content):
    (tmp_path / "recipe.toml").write_bytes(content)
    quickly(lambda: load_recipe(tmp_path / "recipe.toml"))
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.toml"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("fuzz") / "scans", cases=4, size=32, slices=3)


DESCRIPTION = {
    "name": "x",
    "supervoxel_min_size": 300,
    "modality": "MR",
    "classes": {"bright": 1, "dark": [2, 3]},
    "folds": [["1", "2"], ["3", "4"]],
}


def read_all(root):
    """What a run reads of a dataset before it trains."""
    text = f'[dataset]\nname = "nifti"\nroot = {str(root)!r}\n[backbone]\nname = "light"\n[[variants]]\nname = "a"\nthreshold = "ce_t"\n'
    data = RunData(parse_recipe(tomllib.loads(text)), Silent())
    for fold in data.folds:
        data.of(fold).choices(0)
    return data


@fuzzed(2000, mutated_tables(DESCRIPTION))
def test_descriptions_with_other_values(scans, tables):
    try:
        text = tomli_w.dumps(tables)
    except (TypeError, ValueError):
        return
    before = sorted(scans.iterdir())
    (scans / "dataset.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
    quickly(lambda: read_all(scans))
    assert sorted(scans.iterdir()) == before


@fuzzed(1000, mutated_text(tomli_w.dumps(DESCRIPTION)))
def test_descriptions_with_other_characters(scans, text):
    (scans / "dataset.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
    quickly(lambda: read_all(scans))


def nifti_bytes(seed=0):
    rng = np.random.default_rng(seed)
    image = nibabel.Nifti1Image(
        rng.integers(0, 400, (32, 32, 3)).astype(np.int16), np.diag([1.5, 1.5, 6.0, 1.0])
    )
    return image.to_bytes()


SCAN = nifti_bytes()
HEADER = 352


def read_changed(scans, name, changes, length, zipped):
    """Reads a folder in which one file has other bytes in its header, is cut short, or is not packed."""
    content = bytearray(SCAN)
    for at, value in changes:
        content[at] = value
    content = bytes(content[:length])
    kept, before = (scans / name).read_bytes(), sorted(scans.iterdir())
    (scans / "dataset.toml").write_text("supervoxel_min_size = 300\n\n[classes]\nbright = 1\n")
    try:
        (scans / name).write_bytes(gzip.compress(content, 1) if zipped else content)
        quickly(lambda: read_all(scans))
        assert sorted(scans.iterdir()) == before
    finally:
        (scans / name).write_bytes(kept)


@fuzzed(
    5000,
    st.sampled_from(["image_1.nii.gz", "label_1.nii.gz"]),
    st.lists(st.tuples(st.integers(0, HEADER - 1), st.integers(0, 255)), min_size=1, max_size=12),
    st.one_of(st.just(len(SCAN)), st.integers(0, len(SCAN))),
    st.booleans(),
)
def test_scans_with_other_headers(scans, name, changes, length, zipped):
    """Dimensions, types, offsets, scaling and matrices that say anything; files cut short; files that are not zipped."""
    read_changed(scans, name, changes, length, zipped)


INFINITE = ((108, 0), (109, 0), (110, 128), (111, 127))
"""The offset of the voxels."""


@pytest.mark.parametrize(
    ("changes", "length", "zipped"),
    [
        ([(40, 0)], len(SCAN), True),  # no dimensions at all
        ([(40, 0)], HEADER, True),
        ([(40, 0)], len(SCAN), False),
        ([(40, 1)], len(SCAN), True),
        ([(40, 2)], len(SCAN), True),
        ([(40, 7)], len(SCAN), True),
        ([(40, 8)], len(SCAN), True),
        ([(41, 3)], len(SCAN), True),  # as many, in the other order of bytes
        ([(42, 0)], len(SCAN), True),  # no columns
        ([(43, 255)], len(SCAN), True),  # fewer than none
        ([(43, 117), (45, 117), (47, 117)], len(SCAN), True),  # 30000 of each
        ([(1, 1)], 2, True),
        ([(1, 1)], 347, True),
        (INFINITE, len(SCAN), True),
        (INFINITE, len(SCAN), False),
        ([(111, 255), *INFINITE[:3]], len(SCAN), True),
        ([(123, 66)], len(SCAN), True),  # in metres
        ([(123, 3)], len(SCAN), True),  # in micrometres
    ],
)
def test_headers_that_were_tracebacks(scans, changes, length, zipped):
    read_changed(scans, "image_1.nii.gz", changes, length, zipped)


@pytest.mark.parametrize("count", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_runs_of_mutated_recipes_end_well_or_with_a_sentence(tmp_path, count):
    """All the way: what a run says yes to ends, and what it refuses leaves nothing."""
    dice, ended = random.Random(count), {"ran": 0, "refused": 0}
    base = tomllib.loads(
        write_recipe(
            tmp_path, make_folder(tmp_path / "scans", cases=4, size=48), steps=1
        ).read_text()
    )
    base["protocol"]["folds"] = "disjoint2"
    small = {
        "training.steps": [0, 1], "training.classes": [1, 3], "calibration.episodes": [2, 3, 9], "grid.max_size": [16, 40],
        "grid.spacing": [2.5, 90.0], "protocol.name": ["ep1", "ep2", "ep2_multi", "nonsense"], "protocol.shots": [1, 3, 9],
        "episodes.setting": [1, 2], "episodes.min_pixels": [1, 10**6], "training.head": ["tpm", "adnet"],
        "variants.0.threshold": ["otsu", "fixed", "ocp"], "supervoxels.min_size": [1, 50, 10**6], "mode": ["reference"],
        "protocol.support": ["each", "last"], "training.learning_rate": [1e30, 1e-30], "speed.threads": [1, 3],
    }  # fmt: skip
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(base))
    for number in range(count):
        chosen = {key: dice.choice(small[key]) for key in dice.sample(sorted(small), 3)}
        runs = tmp_path / f"runs{number}"
        try:
            fsseg.run(load_recipe(path, chosen), runs_dir=runs, device="cpu")
            ended["ran"] += 1
        except FssegError as error:
            assert str(error).strip(), chosen
            ended["refused"] += 1
            assert not runs.exists() or not list(runs.glob("run-*")), chosen
        except Exception as error:
            raise AssertionError(f"{chosen}: {error!r}") from error
        left = (
            list(runs.rglob("*.unfinished")) + list(runs.rglob("*.lock")) if runs.exists() else []
        )
        assert left == [], chosen
    assert min(ended.values()) >= 2, ended


# Files that want to run code.

EVIL = "import os; os.system('touch {}')"


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


def test_a_pickle_in_place_of_any_file_runs_nothing(tmp_path):
    """Every file that fsseg reads back from a run or from its cache, replaced by a pickle that would make a file."""
    import os
    import pickle

    evil = tmp_path / "evil"
    content = pickle.dumps(Bomb(evil))
    pickle.loads(content)
    assert evil.exists()  # it would
    evil.unlink()

    recipe = load_recipe(
        write_recipe(tmp_path, make_folder(tmp_path / "scans", cases=4, size=48)),
        {"protocol.folds": "disjoint2"},
    )
    recipe.speed.checkpoint_every = 1
    cache = tmp_path / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSSEG_CACHE", str(cache))
        results = fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu")
        kinds = {
            path.suffix
            for path in [*cache.rglob("*.*"), *(tmp_path / "runs").rglob("*.*")]
            if path.is_file()
        }
        assert not kinds & {".pkl", ".pickle", ".pt", ".pth", ".npz"}
        for path in cache.rglob("*"):
            if path.is_file():
                path.write_bytes(content)
        again = fsseg.run(recipe, runs_dir=tmp_path / "runs2", device="cpu")
        assert again.table().equals(results.table())  # what was damaged was computed again
        state = next((tmp_path / "runs" / "stages").glob("train-*")).name
        snapshots = tmp_path / "runs3" / "checkpoints" / state
        snapshots.mkdir(parents=True)
        (snapshots / "step-000000001.safetensors").write_bytes(content)
        assert (
            fsseg.run(recipe, runs_dir=tmp_path / "runs3", device="cpu")
            .table()
            .equals(results.table())
        )
        for path in sorted(file for file in results.path.rglob("*") if file.is_file()):
            kept = path.read_bytes()
            os.unlink(path)  # it may be shared with a stage
            path.write_bytes(content)
            for read in (fsseg.load_results, fsseg.load_predictor, fsseg.Predictor.load):
                quickly(lambda read=read: read(results.path))
            path.write_bytes(kept)
        for name in ("image_1.nii.gz", "label_1.nii.gz", "dataset.toml"):
            kept = (tmp_path / "scans" / name).read_bytes()
            (tmp_path / "scans" / name).write_bytes(content)
            assert quickly(lambda: read_all(tmp_path / "scans")) is None
            (tmp_path / "scans" / name).write_bytes(kept)
    assert not evil.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backbone", "os.system"),
        ("backbone", "os:system"),
        ("training.head", "subprocess:run"),
        ("variants.0.threshold", "builtins:eval"),
        ("supervoxels", "__import__"),
        ("dataset", "fsseg.data.datasets.folders:Nifti"),
        ("metrics", ["tests.helpers:TinyBackbone"]),
        ("trackers", ["runpy:run_path"]),
    ],
)
def test_a_recipe_cannot_name_code(tmp_path, key, value):
    """Components are found by registered names alone, however much a name looks like a place in a module."""
    path = write_recipe(tmp_path, tmp_path)
    with pytest.raises(FssegError, match="unknown|there is no|expected"):
        load_recipe(path, {key: value}).check()


def test_a_registered_name_with_a_path_in_it_is_no_door(tmp_path):
    (tmp_path / "evil.py").write_text(EVIL.format(tmp_path / "evil"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for name in ("evil", "evil:Head", "./evil.py", str(tmp_path / "evil.py")):
            with pytest.raises(FssegError):
                registry().build("head", name, {})
    assert not (tmp_path / "evil").exists()


# Run directories that were changed, by somebody who took the checksums away as well.


@pytest.fixture(scope="module")
def run_to_change(finished_run, tmp_path_factory):
    folder = shutil.copytree(finished_run().path, tmp_path_factory.mktemp("changed") / "run")
    (folder / MANIFEST).unlink()
    return folder


CHANGED = [
    "run.json",
    "scores.jsonl",
    "calibration.json",
    "train.jsonl",
    "recipe.toml",
    "environment.json",
]


def read_run(folder):
    """What commands do with a finished run: its tables, its comparison, its figures and its predictor."""
    results = fsseg.load_results(folder)
    results.table()
    results.dumps()
    fsseg.compare(results, baseline=results.variants[0]).tests()
    for figure in [run_plots.training_curves(results), *run_plots.calibrations(results).values()]:
        figure.clear()
    fsseg.load_predictor(folder, variant=results.variants[0])


@st.composite
def mutated_json(draw, content):
    """A line of JSON, or all of it, with a few values changed."""
    lines = content.splitlines() if "\n{" in content else [content]
    number = draw(st.integers(0, len(lines) - 1))
    lines[number] = json.dumps(draw(mutated_tables(json.loads(lines[number]))), default=str)
    return "\n".join(lines)


@fuzzed(4000, st.sampled_from(CHANGED), st.data())
def test_run_directories_with_other_values(run_to_change, name, data):
    [path] = run_to_change.rglob(name)
    kept = path.read_text()
    changed = (
        mutated_text(kept)
        if name.endswith("toml") or data.draw(st.booleans())
        else mutated_json(kept)
    )
    try:
        path.write_text(data.draw(changed), encoding="utf-8", errors="surrogatepass")
        quickly(lambda: read_run(run_to_change))
    finally:
        path.write_text(kept)


# Exports that were changed.


@pytest.fixture(scope="module")
def export(finished_run, tmp_path_factory):
    """An export, as its words and its tensors."""
    path = tmp_path_factory.mktemp("exports") / "export.safetensors"
    fsseg.export_predictor(finished_run().path, path, variant="LinEst")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        return file.metadata(), tensors


@st.composite
def mutated_export(draw, words, tensors):
    """Words that say other things, tensors of other numbers, types, shapes and names, and files with other bytes."""
    words = dict(words)
    tensors = dict(tensors)
    name = draw(st.sampled_from(sorted(tensors)))
    action = draw(st.sampled_from(["word", "number", "type", "shape", "name", "bytes"]))
    if action == "word":
        word = draw(st.sampled_from(sorted(words)))
        words[word] = draw(mutated_text(words[word]))
    elif action == "number" and tensors[name].is_floating_point():
        tensors[name] = torch.full_like(
            tensors[name], draw(st.sampled_from([np.nan, np.inf, 3e38]))
        )
    elif action == "type":
        tensors[name] = tensors[name].to(
            draw(st.sampled_from([torch.int8, torch.float64, torch.bool]))
        )
    elif action == "shape":
        tensors[name] = tensors[name].reshape(-1)[: draw(st.integers(0, 3))].clone()
    elif action == "name":
        tensors[draw(st.text(min_size=1, max_size=8))] = tensors.pop(name)
    content = bytearray(save(tensors, words))
    if action == "bytes":
        for _ in range(draw(st.integers(1, 4))):
            content[draw(st.integers(0, min(len(content), 4000) - 1))] = draw(st.integers(0, 255))
        content = content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    return bytes(content)


@fuzzed(2000, st.data())
def test_exports_with_other_values(export, tmp_path, data):
    path = tmp_path / "export.safetensors"
    path.write_bytes(data.draw(mutated_export(*export)))
    quickly(lambda: fsseg.load_predictor(path))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# Names that people give to rows, classes and cases.

NAMES = st.sampled_from(
    [
        "ADNet",
        "ADNet++",
        "adnet",
        "../x",
        "a/b",
        "a\\b",
        "CON",
        "nul.txt",
        "..",
        "a.",
        "-a",
        "x~abc",
        "l" * 300,
    ]
    + [
        "\u00e9",
        "e\u0301",
        "\u809d",
        "\u092f\u0915\u0943\u0924",
        "\x1b[31m",
        "a\u202eb",
        "[/]",
        "$a$b$",
        " a",
    ]
)


@fuzzed(2000, st.lists(st.text(max_size=12) | NAMES, min_size=2, max_size=4, unique=True))
def test_files_of_any_names_lie_in_their_folder_and_are_told_apart(names):
    folder = Path("runs") / "labels"
    usable = [name for name in names if problem_of(name) is None]
    files = [within(folder, file_name(name, "liver") + ".nii.gz") for name in usable]
    for file in files:
        assert file.parent == folder and len(os.fsencode(file.name)) <= 143
        assert file.name.isprintable() and "/" not in file.name
    if first_alike(usable) is None:
        assert len({alike(file.name) for file in files}) == len(files)


# Files that fsseg made and that something changed.


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def damage(path, dice):
    """One of the things that disks, copies and people do to a file."""
    content = bytearray(path.read_bytes())
    action = dice.choice(["flip", "cut", "delete", "append", "zero"])
    if action == "flip" and content:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif action == "cut":
        content = content[: dice.randrange(len(content) or 1)]
    elif action == "append":
        content += b"\0"
    elif action == "zero":
        content = bytearray(len(content))
    before = path.read_bytes()
    path.unlink()  # it may be shared with a run
    if action != "delete":
        path.write_bytes(content)
    return action, action == "delete" or bytes(content) != before


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_no_damage_is_taken_in_silence(tmp_path, monkeypatch, count):
    """Of stages and of the cache: the same scores all the same, with a note, or a sentence."""
    monkeypatch.setenv("FSSEG_CACHE", str(tmp_path / "cache"))
    root = make_folder(tmp_path / "scans", cases=4, size=48)
    recipe = load_recipe(write_recipe(tmp_path, root), {"protocol.folds": "disjoint2"})
    expected = fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu").scores
    dice = random.Random(count)
    for _ in range(count):
        stages = (tmp_path / "runs" / "stages").rglob("*")
        kept = (tmp_path / "cache").rglob("*")
        path = dice.choice(sorted(file for file in [*stages, *kept] if file.is_file()))
        action, is_changed = damage(path, dice)
        of_stage = "stages" in path.parts
        progress = Notes()

        def run(progress=progress, fresh=not of_stage):
            """What the cache keeps is asked for where stages are made."""
            how = {"runs_dir": tmp_path / "runs", "device": "cpu", "progress": progress}
            return fsseg.run(recipe, fresh=fresh, **how).scores

        try:
            scores = run()
        except FssegError as error:
            assert "damaged" in str(error) and "run again" in str(error), (path, action)
            scores = run()
        assert scores == expected, (path, action)
        if of_stage and is_changed:
            assert [note for note in progress.notes if "damaged" in note], (path, action)
