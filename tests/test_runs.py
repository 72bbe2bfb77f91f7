"""Whole runs on tiny folders of scans."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import (
    PROTOCOLS,
    TIMM,
    TinyBackbone,
    block_scan,
    make_folder,
    published_rules,
    write_recipe,
)

import fsseg
from fsseg import (
    AdNet,
    AvgEst,
    CeT,
    EmGmm,
    Episode,
    FssegError,
    LinEst,
    MaskedAverage,
    Ocp,
    Query,
    Segmenter,
    Support,
    Tpm,
)
from fsseg.data.folds import Fold
from fsseg.data.grids import WorkingGrid
from fsseg.data.supervoxels.regions import count_regions
from fsseg.evaluation.assignments import assign
from fsseg.evaluation.evaluate import evaluate
from fsseg.evaluation.scans import EvaluationScan
from fsseg.model.ops import resize
from fsseg.model.priors import clip_prior
from fsseg.model.segmenter import encode, encode_support
from fsseg.model.variants import Variant, assemble
from fsseg.recipe.tables import TrainingTable
from fsseg.runs.data import RunData
from fsseg.runs.results import load_results
from fsseg.system.progress import Silent
from fsseg.training.calibration import calibrate
from fsseg.training.episodes import CALIBRATION_STREAM, EpisodeSampler, episode_rng
from fsseg.training.loop import Training, train_together

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
PAPER = sorted((ROOT / "recipes" / "paper").rglob("*.toml"))


SMALL = [path for path in RECIPES if path.stem not in {"baselines", "beyond", "table1", "table2"}]
"""Recipes whose rows are evaluated in a second."""


def own_grid(size):
    return WorkingGrid((size, size), (size, size), (size, size))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "scans")


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """A run of the tiny recipe, and where it was kept."""
    folder = tmp_path_factory.mktemp("work")
    recipe = fsseg.load_recipe(write_recipe(folder, root))
    return fsseg.run(recipe, name="tiny", runs_dir=folder / "runs"), recipe, folder


def test_a_run_leaves_what_it_says(finished):
    results, recipe, _ = finished
    fold = results.path / "fold0"
    assert {p.name for p in results.path.iterdir()} == {
        "recipe.toml",
        "environment.json",
        "manifest.json",
        "run.json",
        "scores.jsonl",
        "fold0",
    }
    assert {p.name for p in (fold / "training0").iterdir()} == {
        "checkpoint.safetensors",
        "train.jsonl",
        "calibration.json",
        "priors.jsonl",
        "margins",
    }
    assert fsseg.load_recipe(results.path / "recipe.toml") == recipe
    calibration = json.loads((fold / "training0" / "calibration.json").read_text())
    assert set(calibration["states"]) == {"LinEst"} and len(calibration["samples"]) == 6


def test_every_number_of_the_table_can_be_traced(finished):
    """Dice from the written label maps, computed here, equals the table."""
    results, _, _ = finished
    table = results.table()
    for variant, folder in [("CE-T", "CE-T"), ("OCP", "OCP")]:
        for name, value in [("bright", 1), ("dark", 2)]:
            dice = []
            for line in results.scores:
                if (line.variant, line.class_name) != (variant, name):
                    continue
                truth = nibabel.load(finished_root(results) / f"label_{line.case}.nii.gz")
                predicted = nibabel.load(
                    results.path / "fold0" / "labels" / folder / f"{line.case}_{name}.nii.gz"
                )
                assert np.allclose(predicted.affine, truth.affine)
                a, b = np.asarray(truth.dataobj) == value, np.asarray(predicted.dataobj) > 0
                dice.append(200 * (a & b).sum() / (a.sum() + b.sum()))
            assert table.loc[variant, name] == pytest.approx(np.mean(dice))


def test_the_support_is_the_middle_labelled_slice(finished):
    """`bright` is in slices 0 to 4 and `dark` in 1 to 3; the support is the fold's last case."""
    results, _, _ = finished
    chosen = {(s.class_name, s.support_case, s.support_slices) for s in results.scores}
    assert chosen == {("bright", "2", (2,)), ("dark", "2", (2,))}


def test_each_threshold_learns_from_its_own_scoring(root, tmp_path):
    """AvgEst for one prototype is the mean over the samples scored with one, and for three over those with three."""
    changes = {"variants": [
        {"name": f"{count}", "threshold": "avg_est", "prototypes": {"name": "em_gmm", "count": count}} for count in (1, 3)
    ]}  # fmt: skip
    results = fsseg.run(
        fsseg.load_recipe(write_recipe(tmp_path, root), changes), runs_dir=tmp_path / "runs"
    )
    calibration = json.loads(
        (results.path / "fold0" / "training0" / "calibration.json").read_text()
    )
    by_scoring = pd.DataFrame(calibration["samples"]).groupby("scoring", sort=False)["prior"]
    means = by_scoring.apply(lambda log_odds: clip_prior(log_odds.to_numpy()).mean()).tolist()
    assert len(means) == 2 and means[0] != means[1]
    assert [calibration["states"][name]["prior"] for name in ("1", "3")] == pytest.approx(means)


def finished_root(results):
    return Path(fsseg.load_recipe(results.path / "recipe.toml").dataset.options["root"])


def test_the_oracle_counts_right_in_every_slice(finished):
    results, _, _ = finished
    oracle = [score for score in results.scores if score.variant == "OCP"]
    assert oracle and all(score.oracle for score in oracle)
    # Bilinear resizing repeats the values at the image's border; pixels tied at the boundary fall to the background.
    assert all(0 <= score.actual - score.predicted <= 0.005 * score.actual for score in oracle)
    assert results.oracles == {"OCP"}


def test_results_can_be_loaded_again(finished):
    results, _, _ = finished
    loaded = load_results(results.path)
    pd.testing.assert_frame_equal(loaded.table(), results.table())
    assert loaded.dumps() == results.dumps()


def test_finished_stages_are_shared(finished, root):
    """The same recipe again trains nothing; another row shares the training; another seed does not."""
    results, recipe, folder = finished

    def stages():
        return sorted(path.name.split("-")[0] for path in (folder / "runs" / "stages").iterdir())

    assert stages() == ["calibrate", "evaluate", "train"]
    again = fsseg.run(recipe, name="tiny", runs_dir=folder / "runs")
    assert stages() == ["calibrate", "evaluate", "train"] and again.path != results.path
    pd.testing.assert_frame_equal(again.table(), results.table())
    recipe = recipe.model_copy(deep=True)
    recipe.variants[1].threshold = "avg_est"
    fsseg.run(recipe, runs_dir=folder / "runs")
    assert stages() == ["calibrate"] * 2 + ["evaluate"] * 2 + ["train"]
    recipe.seed = 4
    fsseg.run(recipe, runs_dir=folder / "runs")
    assert stages() == ["calibrate"] * 3 + ["evaluate"] * 3 + ["train"] * 2


def test_a_change_in_the_dataset_file_trains_anew(tmp_path):
    """The size of supervoxels may stand in dataset.toml alone, and a training depends on it."""
    root = make_folder(tmp_path / "scans")
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=0))
    for size in ("300", "350", "300"):
        text = (root / "dataset.toml").read_text()
        first, rest = text.split("\n", 1)
        (root / "dataset.toml").write_text(f"supervoxel_min_size = {size}\n{rest}")
        fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert len(list((tmp_path / "runs" / "stages").glob("train-*"))) == 2


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PAPER, ids=name_of)
def test_every_variant_of_the_papers_recipes_is_assembled(path):
    """And validated; around a small backbone, with what its training's head begins with."""
    recipe = fsseg.load_recipe(path)
    recipe.check()
    assert recipe.backbone.name == "deeplab_resnet101"
    for variant in recipe.variants:
        segmenter = assemble(
            variant.name,
            TinyBackbone(),
            prototypes=variant.prototypes.build("prototypes"),
            head=variant.head.build("head"),
            threshold=variant.threshold.build("threshold"),
            refiners=[refiner.build("refiner") for refiner in variant.refiners],
            states={"head": recipe.training_of(variant).head.build("head").state_dict()},
            mode=recipe.mode,
        )
        assert isinstance(segmenter, Segmenter)


@pytest.mark.parametrize(
    "path",
    [
        path if path in SMALL else pytest.param(path, marks=pytest.mark.slow)
        for path in [*RECIPES, *PAPER]
    ],
    ids=name_of,
)
def test_every_recipe_of_the_repository_runs(path, root, tmp_path):
    """All its rows, on tiny scans, for one step and without pretrained weights; every number is one."""
    changes = {"dataset.name": "nifti", "dataset.root": str(root), "protocol.folds": "disjoint5", "protocol.fold": 2,
               "training.steps": 1, "calibration.episodes": 3, "backbone.weights": "none", "seed": 0}  # fmt: skip
    recipe = fsseg.load_recipe(path, changes)
    results = fsseg.run(recipe, runs_dir=tmp_path)
    assert results.variants == [row.name for row in recipe.variants]
    assert results.table().drop(columns="sd_cases").notna().all(axis=None)
    assert np.isfinite(results.frame["dice"]).all()


@pytest.mark.slow
def test_several_seeds(root, tmp_path):
    """Each seed trains, calibrates and draws for itself; its files lie in a folder of its own."""
    changes = {"seed": [0, 3], "protocol.name": "ep2_multi", "variants.0.head": "adnetpp"}
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=2), changes)
    results = fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert results.about["seeds"] == [0, 3] and "sd_seeds" in results.table()
    assert results.variants == ["CE-T", "LinEst", "OCP"]
    one = {}
    for seed in (0, 3):
        files = {p.name for p in (results.path / f"seed{seed}" / "fold0" / "training0").iterdir()}
        assert files == {
            "train.jsonl",
            "checkpoint.safetensors",
            "calibration.json",
            "priors.jsonl",
            "margins",
        }
        alone = fsseg.load_recipe(write_recipe(tmp_path, root, steps=2), changes | {"seed": seed})
        one[seed] = fsseg.run(alone, runs_dir=tmp_path / "alone").frame
        of_seed = results.frame[results.frame["seed"] == seed].reset_index(drop=True)
        pd.testing.assert_frame_equal(of_seed, one[seed])
    assert not one[0]["predicted"].equals(one[3]["predicted"])


def test_a_finished_evaluation_is_taken_as_it_is(root, tmp_path, monkeypatch):
    """And made anew for other rows, another protocol or relabelled test scans."""
    path, runs = write_recipe(tmp_path, root, steps=1), tmp_path / "runs"
    first = fsseg.run(fsseg.load_recipe(path), runs_dir=runs)
    calls = []
    monkeypatch.setattr(
        "fsseg.runs.fold.evaluate",
        lambda *args, **kwargs: calls.append(1) or evaluate(*args, **kwargs),
    )
    again = fsseg.run(fsseg.load_recipe(path), runs_dir=runs)
    assert again.scores == first.scores and not calls
    assert sorted(p.name for p in again.path.rglob("*.nii.gz")) == sorted(
        p.name for p in first.path.rglob("*.nii.gz")
    )
    for number, changes in enumerate(
        [{"variants.0.threshold": "ocp"}, {"protocol.name": "ep1"}, {"grid.max_size": 32}]
    ):
        fsseg.run(fsseg.load_recipe(path, changes), runs_dir=runs)
        assert len(calls) == number + 1, changes
    other = make_folder(tmp_path / "relabelled")
    label = nibabel.load(other / "label_1.nii.gz")
    voxels = np.asarray(label.dataobj).copy()
    voxels[voxels == 2] = 0
    nibabel.save(nibabel.Nifti1Image(voxels, label.affine), other / "label_1.nii.gz")
    changed = fsseg.run(fsseg.load_recipe(path, {"dataset.root": str(other)}), runs_dir=runs)
    assert len(calls) == 4 and changed.scores != first.scores


@pytest.mark.slow
def test_two_trainings_and_all_folds(root, tmp_path):
    recipe = fsseg.load_recipe(
        write_recipe(tmp_path, root, steps=1),
        {"protocol.fold": "all", "protocol.save_labels": False, "variants.0.head": "adnet",
         "variants.0.training": {"head": "adnet", "t_loss": 1.0}},
    )  # fmt: skip
    results = fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert len(list((tmp_path / "runs" / "stages").glob("train-*"))) == 10
    assert results.about["folds"] == [0, 1, 2, 3, 4]
    assert results.frame.groupby("variant").size().to_dict() == {
        "CE-T": 10,
        "LinEst": 10,
        "OCP": 10,
    }
    assert results.variants == ["CE-T", "LinEst", "OCP"]
    assert not list(results.path.rglob("*.nii.gz"))


def test_the_same_run_gives_the_same_bits(root, tmp_path):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=3))
    first, second = (fsseg.run(recipe, runs_dir=tmp_path / name) for name in "ab")
    for name in (
        "fold0/training0/checkpoint.safetensors",
        "fold0/training0/calibration.json",
        "scores.jsonl",
    ):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


def broken_support(root):
    """Nine cases and one without any dark voxel where the support should come from."""
    path = root / "label_2.nii.gz"
    labels = nibabel.load(path)
    voxels = np.asarray(labels.dataobj).copy()
    voxels[voxels == 2] = 0
    nibabel.save(nibabel.Nifti1Image(voxels, labels.affine), path)


@pytest.mark.parametrize(
    "mistake, expected",
    [
        ("support", "case 2: it is a support but shows no dark"),
        (
            "head",
            "variant 'CE-T': its head tpm has form = ",
        ),
        ("regions", "none of the 8 training scans has a supervoxel with 4000 pixels"),
        ("fold", "disjoint5 has folds 0 to 4"),
    ],
)
def test_mistakes_leave_nothing_behind(tmp_path, mistake, expected):
    root = make_folder(tmp_path / "scans")
    changes = {
        "head": {"variants.0.head.form": "plain"},
        "regions": {"episodes.min_pixels": 4000},
        "fold": {"protocol.fold": 7},
    }
    if mistake == "support":
        broken_support(root)
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=0), changes.get(mistake))
    with pytest.raises(FssegError) as caught:
        fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert expected in str(caught.value)
    left = [path.name for path in (tmp_path / "runs").rglob("*")]
    assert left in ([], ["stages"])


class CountingBackbone(TinyBackbone):
    """Counts the slices that pass."""

    slices = 0

    def forward(self, images):
        self.slices += len(images)
        return super().forward(images)


def test_variants_share_the_passes_of_the_backbone():
    """Each support and query slice passes once, whatever the number of rows; each calibration image likewise."""
    backbone = CountingBackbone()
    rows = [
        ("a", MaskedAverage(), CeT()),
        ("b", MaskedAverage(), AvgEst()),
        ("c", EmGmm(count=2), LinEst()),
        ("d", EmGmm(count=2), Ocp()),
    ]
    variants = [Variant(n, Segmenter(backbone, p, Tpm(), t), type(p).__name__) for n, p, t in rows]
    sampler = EpisodeSampler([block_scan()], published_rules())
    device = torch.device("cpu")
    calibration = calibrate(backbone, variants, sampler, 10, seed=0, device=device)
    assert (
        backbone.slices == 20
        and len(calibration.samples) == 20
        and set(calibration.states) == {"b", "c"}
    )
    labels = torch.zeros(6, 32, 32, dtype=torch.uint8)
    labels[1:4, :9], labels[2:5, 20:] = 1, 2
    scans = [
        EvaluationScan(
            c, torch.randn(6, 32, 32), torch.linspace(0, 1, 6), labels, labels, own_grid(32)
        )
        for c in "sqr"
    ]
    fold, scans = Fold(0, "s", ("q", "r"), ("t",)), {scan.case: scan for scan in scans}
    assigned = assign(PROTOCOLS["ep2"], fold, scans, {1: "one", 2: "two"}, seed=0)
    backbone.slices = 0
    results = list(evaluate(backbone, variants, assigned, scans, fold, seed=0, device=device))
    assert backbone.slices == 2 + 2 * 6 and len(results) == 2 * 2 * 4


def test_a_segmenter_by_hand():
    """Every combination of built-in prototypes and heads on plain tensors."""
    support = Support(
        torch.randn(1, 1, 32, 32), torch.zeros(1, 1, 32, 32, dtype=torch.bool), torch.zeros(1, 1)
    )
    query = Query(torch.randn(3, 32, 32), torch.linspace(0, 1, 3))
    with pytest.raises(FssegError, match="the mask of way 0, shot 0 is empty"):
        Segmenter(TinyBackbone(), MaskedAverage(), AdNet(), CeT())(support, query)
    support.masks[0, 0, 8:20, 8:20] = True
    for prototypes, head in [(MaskedAverage(), AdNet()), (MaskedAverage(), Tpm()), (EmGmm(count=3), Tpm()),
                             (EmGmm(count=3, space="euclidean"), Tpm(space="euclidean"))]:  # fmt: skip
        for mode in ("default", "reference"):
            result = Segmenter(TinyBackbone(), prototypes, head, CeT(), mode=mode)(support, query)
            assert result.labels.shape == (3, 32, 32) and result.labels.max() <= 1
            assert torch.allclose(result.probabilities.sum(dim=1), torch.ones(3, 32, 32), atol=1e-5)
            assert (
                (result.probabilities[:, 1] > 0.5) == (result.labels == 1)
            ).float().mean() > 0.999
    target = torch.zeros(3, 32, 32, dtype=torch.long)
    target[1, :7] = 1
    oracle = Segmenter(TinyBackbone(), MaskedAverage(), Tpm(), Ocp())
    with pytest.raises(FssegError, match="Ocp: it is an oracle and got no target"):
        oracle(support, query)
    marked = oracle(support, query, target).labels
    empty, wanted, none = marked.sum(dim=(1, 2)).tolist()
    assert (
        empty == none == 0 and 7 * 32 - 3 <= wanted <= 7 * 32
    )  # ties at the repeated border are background


def test_several_ways_share_the_path():
    """Shapes carry the way axis: three ways, two shots."""
    masks = torch.zeros(3, 2, 32, 32, dtype=torch.bool)
    for way in range(3):
        masks[way, :, 8 * way : 8 * way + 8] = True
    support = Support(torch.randn(3, 2, 32, 32), masks, torch.zeros(3, 2))
    query = Query(torch.randn(2, 32, 32), torch.zeros(2))
    result = Segmenter(TinyBackbone(), EmGmm(count=2), Tpm(), CeT())(support, query)
    assert result.probabilities.shape == (2, 4, 32, 32) and result.labels.max() <= 3


def train(backbone, head, sampler, options):
    """Trains both in place; returns the log."""
    training = Training(
        backbone, MaskedAverage(), head, sampler, options,
        seed=0, mode="default", device=torch.device("cpu"),
    )  # fmt: skip
    train_together([training])
    return training.log.records()


@pytest.mark.slow
def test_training_learns_and_moves_the_averages():
    """On blocks that stand out, the loss falls and the running average of the distance leaves its start."""
    backbone, head = TinyBackbone(), Tpm()
    sampler = EpisodeSampler([block_scan(seed=s) for s in range(3)], published_rules())
    options = TrainingTable(steps=150, learning_rate=2e-2)
    log = train(backbone, head, sampler, options)
    assert [record["step"] for record in log] == list(range(25, 151, 25))
    assert np.mean([r["query"] for r in log[-2:]]) < 0.9 * log[0]["query"]
    assert head.score_threshold.average_distance.item() != 1.0
    assert not backbone.training and not head.training


def test_the_learning_rate_decays_and_gradients_are_clipped():
    options = TrainingTable(
        steps=60,
        learning_rate=0.1,
        decay=0.5,
        decay_every=20,
        gradient_clip=1e-4,
        momentum=0.0,
        weight_decay=0.0,
    )
    backbone, head = TinyBackbone(), Tpm()
    before = backbone.convolution.weight.detach().clone()
    log = train(backbone, head, EpisodeSampler([block_scan()], published_rules()), options)
    assert [record["learning_rate"] for record in log] == pytest.approx([0.05, 0.025])
    assert (backbone.convolution.weight - before).abs().max().item() == pytest.approx(
        20 * (0.1 + 0.05 + 0.025) * 1e-4, rel=0.3
    )


def test_an_episode_moves_between_devices():
    support = Support(
        torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool), torch.zeros(1, 1)
    )
    episode = Episode(
        support, Query(torch.zeros(1, 4, 4), torch.zeros(1)), torch.zeros(1, 4, 4, dtype=torch.long)
    )
    meta = episode.to(torch.device("meta"))
    assert {
        meta.support.images.device.type,
        meta.query.location.device.type,
        meta.target.device.type,
    } == {"meta"}


@pytest.mark.slow
def test_trainings_at_a_time_end_as_one_by_one(root, tmp_path):
    """Three seeds, two at a time and then the third: the very scores and checkpoints."""
    changes = {"seed": [0, 1, 2]}
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=3), changes)
    usual = fsseg.run(recipe, runs_dir=tmp_path / "alone", device="cpu")
    several = fsseg.load_recipe(
        write_recipe(tmp_path, root, steps=3), changes | {"speed.together": 2}
    )
    together = fsseg.run(several, runs_dir=tmp_path / "together", device="cpu")
    assert together.scores == usual.scores
    states = [
        sorted(path.read_bytes() for path in folder.glob("stages/train-*/checkpoint.safetensors"))
        for folder in (tmp_path / "alone", tmp_path / "together")
    ]
    assert len(states[0]) == 3 and states[0] == states[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine")
def test_a_run_on_a_gpu(root, tmp_path):
    """The same recipe on both devices; training differs by rounding, so the oracle's counts are what must agree."""
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=3))
    results = fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cuda")
    on_cpu = fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu")
    assert results.frame["actual"].tolist() == on_cpu.frame["actual"].tolist()
    oracle = [score for score in results.scores if score.oracle]
    assert all(0 <= score.actual - score.predicted <= 0.005 * score.actual for score in oracle)


def test_training_and_calibration_with_several_classes(root, tmp_path):
    """Multi-foreground training, evaluated one class at a time; calibration then has one class, or as many as it is told."""
    changes = {"training.classes": 5, "episodes.min_pixels": 30, "supervoxels.min_size": 100}
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=25), changes)
    results = fsseg.run(recipe, runs_dir=tmp_path / "runs")
    log = [
        json.loads(line)
        for line in (results.path / "fold0/training0/train.jsonl").read_text().splitlines()
    ]
    assert len(log) == 1 and all(np.isfinite(value) for record in log for value in record.values())
    assert results.frame["dice"].notna().all()
    scan = block_scan(size=64)
    regions = np.repeat(
        (1 + (np.arange(64) // 16)[:, None] * 4 + np.arange(64) // 16)[None], 6, axis=0
    ).astype(np.int32)
    sampler = EpisodeSampler(
        [replace(scan, supervoxels=torch.from_numpy(regions), table=count_regions(regions))],
        published_rules(zoom=(1.0, 1.0)),
    )
    variants = [Variant("a", Segmenter(TinyBackbone(), MaskedAverage(), Tpm(), LinEst()), "map")]
    sizes = {}
    for classes in (1, 4):
        calibration = calibrate(
            variants[0].segmenter.backbone,
            variants,
            sampler,
            12,
            seed=0,
            device=torch.device("cpu"),
            classes=classes,
        )
        sizes[classes] = np.mean([sum(sample.sizes) for sample in calibration.samples])
    assert sizes[1] < 0.07 and sizes[4] > 0.15


def test_calibration_finds_the_prior_of_every_class_by_itself():
    """Each class alone against the background, with all pixels sorted: halfway between the last it should get and the next."""
    scan = block_scan(size=64)
    regions = np.repeat(
        (1 + (np.arange(64) // 16)[:, None] * 4 + np.arange(64) // 16)[None], 6, axis=0
    ).astype(np.int32)
    sampler = EpisodeSampler(
        [replace(scan, supervoxels=torch.from_numpy(regions), table=count_regions(regions))],
        published_rules(),
    )
    backbone = TinyBackbone().eval()
    segmenter = Segmenter(backbone, MaskedAverage(), Tpm(), LinEst(per_class=True))
    device = torch.device("cpu")
    calibration = calibrate(
        backbone, [Variant("a", segmenter, "map")], sampler, 5, seed=0, device=device, classes=3
    )
    several = 0
    for number, sample in enumerate(calibration.samples):
        episode = sampler.make(sampler.draw(episode_rng(0, CALIBRATION_STREAM, number), 3))
        several += len(sample.way_priors) > 1
        with torch.no_grad():
            coarse = segmenter.head(
                encode(backbone, episode.query.images),
                MaskedAverage()(encode_support(backbone, episode.support), episode.support.masks),
            )
        logits = resize(coarse, tuple(episode.query.images.shape[-2:]))[0]
        for way, (prior, size) in enumerate(
            zip(sample.way_priors, sample.sizes, strict=True), start=1
        ):
            margins = np.sort((logits[way] - logits[0]).numpy(), axis=None)[::-1]
            wanted = int((episode.target == way).sum())
            assert prior == pytest.approx(-(margins[wanted - 1] + margins[wanted]) / 2, abs=1e-4)
            assert size == pytest.approx(episode.support.masks[way - 1].float().mean().item())
    assert several and len(calibration.states["a"]["coefficients"]) == 3


def test_statistics_of_the_training_scans_scale_the_test_scans_too(root, tmp_path):
    """One mean and spread for the whole fold, from its training scans alone; they are part of the training's key."""
    recipe = fsseg.load_recipe(
        write_recipe(tmp_path, root), {"backbone": TIMM | {"intensity": "zscore"}}
    )
    plain = RunData(recipe, Silent())
    recipe.dataset = {**recipe.dataset.model_dump(), "statistics": "training"}
    pooled = RunData(recipe, Silent())
    [fold] = pooled.folds
    voxels = np.concatenate(
        [pooled.scans.working[case].image.ravel() for case in fold.training]
    ).astype(np.float64)
    case = fold.queries[0]
    expected = (pooled.scans.working[case].image - voxels.mean()) / voxels.std()
    np.testing.assert_allclose(pooled.of(fold).scans[case].images, expected, atol=1e-4)
    own = pooled.scans.working[case].image
    np.testing.assert_allclose(
        plain.of(fold).scans[case].images, (own - own.mean()) / own.std(), atol=1e-4
    )
    results = fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert results.frame["dice"].notna().all()


def test_find_dataset_is_data_from_python(root, tmp_path):
    recipe = fsseg.load_recipe(ROOT / "recipes" / "tpm_mp5_linest.toml")
    recipe.dataset = fsseg.find_dataset(root)
    recipe.check()
    assert (recipe.dataset.name, recipe.dataset.options) == ("nifti", {"root": str(root)})
