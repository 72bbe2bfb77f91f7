"""Segmenters without prototypes, and heads that see the support: trained or not, evaluated and compared like the others."""

import doctest
import re
import runpy
from pathlib import Path

import pytest
import torch
from attention_plugin import CrossAttention
from helpers import PROTOCOLS, TinyBackbone, scans_of
from learned_plugin import Nearby, Pair
from safetensors.torch import load_file
from test_evaluation import results_of, scans
from test_training import FAST, PLAIN, sampler

import fsseg
from fsseg import CeT, FssegError, MaskedAverage, Query, Segmenter, Tpm
from fsseg.errors import RecipeError
from fsseg.evaluation.files import read_decisions
from fsseg.model import whole
from fsseg.model.scoring import SLICES_AT_ONCE
from fsseg.model.variants import Variant
from fsseg.model.whole import NoPrototypes, WholeHead
from fsseg.recipe.tables import TrainingTable
from fsseg.report.viewer import choose_exhibits, viewer_data
from fsseg.testing import run_checks, samples
from fsseg.training.loop import Training, train_together

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "brightness_segmenter.py"
LEARNED = ROOT / "tests" / "learned_plugin.py"


class Bright:
    """As bright as under the mask; notes how many slices come at once."""

    def __init__(self):
        self.calls = []

    def __call__(self, support, query):
        self.calls.append(len(query.images))
        logits = [torch.zeros_like(query.images)]
        for images, masks in zip(support.images, support.masks):
            logits.append(1 - (query.images - images[masks].mean()).abs())
        return torch.stack(logits, dim=1)


def shown(count, ways=1):
    support = samples.support(ways)
    query = Query(4 * samples.random(count, 32, 32, seed=1), torch.linspace(0, 1, count))
    return support, query


def test_the_example_in_the_docstring():
    assert not doctest.testmod(whole).failed


def test_it_decides_by_its_own_pixels_of_the_whole_query_at_once():
    bright = Bright()
    segmenter = Segmenter(TinyBackbone(), NoPrototypes(), WholeHead(bright), CeT()).eval()
    support, query = shown(SLICES_AT_ONCE + 4, ways=3)
    with torch.no_grad():
        found = segmenter(support, query).labels
    assert torch.equal(found.long(), Bright()(support, query).argmax(dim=1))
    assert bright.calls == [SLICES_AT_ONCE + 4] and len(found.unique()) == 4


def test_logits_of_another_shape_are_refused_with_the_segmenters_name():
    class Flat(Bright):
        def __call__(self, support, query):
            return super().__call__(support, query)[:, 1:]

    segmenter = Segmenter(TinyBackbone(), NoPrototypes(), WholeHead(Flat()), CeT()).eval()
    with pytest.raises(FssegError, match=r"segmenter Flat: .*expected 5 slices x 2 classes"):
        segmenter(*shown(5))


def test_logits_that_are_no_numbers_name_the_segmenter():
    class Broken(Bright):
        def __call__(self, support, query):
            return super().__call__(support, query) / 0.0

    backbone = TinyBackbone()
    segmenter = Segmenter(backbone, NoPrototypes(), WholeHead(Broken()), CeT()).eval()
    with pytest.raises(FssegError, match="row 'mine', case q, slice 0: the logits of segmenter Br"):
        results_of(backbone, PROTOCOLS["ep2"], [Variant("mine", segmenter, "x")], scans())


@pytest.mark.parametrize("extractor", [MaskedAverage(), CrossAttention(channels=8)])
def test_a_head_that_sees_the_support_does_so_in_every_part(extractor):
    """More slices than are scored at once, also where each has prototypes of its own."""
    backbone, head = TinyBackbone(), Nearby()
    segmenter = Segmenter(backbone, extractor, head, CeT()).eval()
    plain = Segmenter(backbone, extractor, Tpm(), CeT()).eval()
    support, query = shown(SLICES_AT_ONCE + 4, ways=3)
    with torch.no_grad():
        found = segmenter(support, query).log_probabilities
        without = plain(support, query).log_probabilities
    share = torch.nn.functional.adaptive_avg_pool2d(support.masks.float(), (8, 8))
    added = torch.nn.functional.interpolate(share[:, 0][None], size=(32, 32), mode="bilinear")
    torch.testing.assert_close(found[:, 1:] - without[:, 1:], added.expand(20, -1, -1, -1))
    assert torch.equal(found[:, 0], without[:, 0])


def trained(speed, head, **options):
    options = TrainingTable(steps=25, learning_rate=1e-2, classes=2, **options)
    torch.manual_seed(0)
    extractor = NoPrototypes() if isinstance(head, WholeHead) else MaskedAverage()
    return Training(
        TinyBackbone(), extractor, head, sampler(), options,
        seed=0, mode="default", device=torch.device("cpu"), speed=speed,
    )  # fmt: skip


@pytest.mark.parametrize("make", [Nearby, lambda: WholeHead(Pair())])
def test_both_are_trained_also_by_recorded_steps(make):
    before = {name: value.clone() for name, value in make().state_dict().items()}
    runs = [trained(PLAIN, make(), alignment=0.0), trained(FAST, make(), alignment=0.0)]
    plain, fast = train_together(runs)
    for one, other in zip(plain.log.records(), fast.log.records()):
        assert one["query"] == pytest.approx(other["query"], abs=1e-4)
    changed = [
        name
        for name, value in plain.head.state_dict().items()
        if not torch.equal(value, before[name])
    ]
    assert len(changed) >= 3


def test_the_alignment_loss_says_that_it_cannot():
    for head, name in ((Nearby(), "head Nearby"), (WholeHead(Pair()), "segmenter Pair")):
        with pytest.raises(FssegError, match=f"{name} sees the support.*training.alignment = 0"):
            trained(PLAIN, head).advance()


ROWS = [
    {"name": "tpm", "threshold": "lin_est"},
    {"name": "bright", "segmenter": "brightness", "threshold": "lin_est"},
    {"name": "ideal", "segmenter": "brightness", "threshold": "ocp"},
    {"name": "refined", "segmenter": "brightness", "threshold": "ce_t", "refiners": ["position", "component_3d"]},
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(finished_run, tmp_path_factory):
    """Runs a recipe with some changes and the plugins."""
    plain = finished_run()
    fsseg.choose_plugins(files=[EXAMPLE, LEARNED])

    def make(changes):
        path = plain.path / "recipe.toml"
        changes = {"training.steps": 2, "calibration.episodes": 6, **changes}
        recipe = fsseg.load_recipe(path, changes)
        return fsseg.run(recipe, runs_dir=tmp_path_factory.mktemp("runs"), device="cpu")

    yield make
    fsseg.choose_plugins(files=[], without=[])


@pytest.fixture(scope="module")
def bright(runs):
    return runs({"variants": ROWS})


def test_the_calibrated_threshold_decides_on_its_margins(bright):
    counted = {(s.variant, s.case, s.class_name): s for s in bright.scores}
    sizes, used = {}, set()
    for decided in read_decisions(bright.path / "fold0" / "training0"):
        margins = decided.margins()
        sizes[decided.variant] = margins.shape[-1]
        score = counted[decided.variant, decided.case, decided.classes[0]]
        if decided.variant in ("bright", "ideal"):
            assert int((margins[:, 0] > -decided.priors[..., None]).sum()) == score.predicted
            used |= set(decided.priors.ravel().tolist())
        if decided.variant == "ideal":
            assert score.predicted == score.actual
    assert sizes == {"tpm": sizes["tpm"], "bright": 64, "ideal": 64, "refined": sizes["tpm"]}
    assert len(used) > 4


def test_what_is_bright_is_found_and_tables_have_the_rows(bright):
    frame = bright.frame
    of_bright = frame[(frame.variant == "bright") & (frame.class_name == "bright")]
    assert of_bright.dice.min() > 0.5
    text = str(fsseg.compare([bright]))
    assert all(row["name"] in text for row in ROWS)
    [exhibit] = viewer_data(bright, choose_exhibits(bright, 1))["exhibits"]
    labels = {scoring["label"] for view in exhibit["views"] for scoring in view["scorings"]}
    assert "brightness" in labels


def predicted(predictor, results, row):
    root = scans_of(results)
    score = next(s for s in results.scores if s.variant == row and s.class_name == "bright")
    files = [root / f"{what}_{score.support_case}.nii.gz" for what in ("image", "label")]
    volume = fsseg.read_volume(*files)
    fitted = predictor.fit(volume, slices=score.support_slices, classes={1: "bright"})
    labels = fitted.predict(fsseg.read_volume(root / f"image_{score.case}.nii.gz")).labels
    return int((labels == 1).sum()), score.predicted


@pytest.mark.parametrize("row", ["bright", "refined"])
def test_a_prediction_and_an_export_do_as_the_run_did(bright, tmp_path, row):
    predictor = fsseg.load_predictor(bright.path, variant=row, device="cpu")
    found, expected = predicted(predictor, bright, row)
    assert found == expected
    file = fsseg.export_predictor(bright.path, tmp_path / "it.safetensors", variant=row)
    assert predicted(fsseg.load_predictor(file, device="cpu"), bright, row) == (found, expected)
    assert not [name for name in load_file(file) if name.startswith("head.")]


def test_a_segmenter_is_trained_kept_and_exported(runs, tmp_path):
    results = runs(
        {
            "training.segmenter": "pair",
            "training.alignment": 0.0,
            "variants": [{"name": "mine", "segmenter": "pair", "threshold": "ce_t"}],
        }
    )
    file = fsseg.export_predictor(results.path, tmp_path / "it.safetensors")
    kept = load_file(file)
    started = Pair().state_dict()
    for name, value in started.items():
        assert not torch.equal(kept[f"head.segmenter.{name}"], value)
    for source in (results.path, file):
        found, expected = predicted(fsseg.load_predictor(source, device="cpu"), results, "mine")
        assert found == expected


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (
            {"variants": [{"name": "mine", "segmenter": "pair", "threshold": "ce_t"}]},
            "variant 'mine': segmenter 'pair' of .* has 113 parameters that nothing trains; name it in .training. as segmenter",
        ),
        (
            {"training.segmenter": "pair", "training.alignment": 0.0},
            "has the head .*, but its training trains the segmenter pair",
        ),
        (
            {
                "variants": [
                    {"name": "m", "segmenter": "pair", "head": "adnet", "threshold": "ce_t"}
                ]
            },
            "number 1: head: expected none beside the segmenter pair",
        ),
        (
            {"training.segmenter": "pair", "training.head": "adnet"},
            "training.: head: expected none beside the segmenter pair",
        ),
        (
            {"variants": [{"name": "m", "segmenter": "pear", "threshold": "ce_t"}]},
            "there is no segmenter 'pear'; did you mean 'pair'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(runs, changes, sentence):
    with pytest.raises((FssegError, RecipeError), match=sentence):
        runs(changes)


def test_a_head_that_sees_the_support_in_a_run(runs):
    results = runs(
        {
            "training.head": "nearby",
            "training.alignment": 0.0,
            "variants": [{"name": "mine", "head": "nearby", "threshold": "lin_est"}],
        }
    )
    found, expected = predicted(fsseg.load_predictor(results.path, device="cpu"), results, "mine")
    assert found == expected


def test_the_example_of_the_docs_is_short_and_keeps_the_contract(shell, finished_run, tmp_path):
    assert len(EXAMPLE.read_text().splitlines()) < 40
    example = runpy.run_path(str(EXAMPLE))["Brightness"]
    assert {r.status for r in run_checks(example, "segmenter")} <= {"passed", "skipped"}
    assert {r.status for r in run_checks(Pair, "segmenter")} <= {"passed", "skipped"}
    from_recipe = finished_run().path / "recipe.toml"
    [row] = re.findall(r"--set '(.*)'", EXAMPLE.read_text())
    words = ["--set", "training.steps=2", "--device", "cpu", "--runs-dir", tmp_path]
    told = shell("explain", from_recipe, "--plugin", EXAMPLE, "--set", row).stdout
    assert "[variants.0.segmenter]" in told and "[variants.0.head]" not in told
    done = shell("run", from_recipe, "--plugin", EXAMPLE, "--set", row, *words)
    assert done.returncode == 0, done.stderr
