"""Extractors and thresholds with parameters: trained, saved, resumed, loaded and exported, or refused by name."""

from copy import deepcopy

import pytest
import torch
from helpers import NoBackbone, TinyBackbone, block_scan, make_folder, published_rules, write_recipe
from safetensors.torch import load_file, save_file
from torch import nn

import fsseg
from fsseg import CeT, FssegError, MaskedAverage, Prototypes, Tpm, choose_plugins
from fsseg.model.checkpoint import load_trained
from fsseg.model.variants import assemble
from fsseg.prediction.files import read_volume
from fsseg.recipe.parts import build_parts, build_trained, states_for
from fsseg.recipe.tables import TrainingTable
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.loop import Training, train_together
from fsseg.training.snapshots import read_snapshot, write_snapshot

CPU = torch.device("cpu")

PLUGIN = '''
from typing import ClassVar

import torch
from torch import nn

from fsseg import MaskedAverage, Prototypes, component, hookimpl


@component
class LearnedPooling(nn.Module):
    """Masked average pooling of features whose channels have learned weights."""

    fixed_shape: ClassVar[bool] = True
    background: ClassVar[bool] = False
    trained_options: ClassVar[tuple[str, ...]] = ("start",)

    def __init__(self, *, start: float = 1.0, channels: int = 8) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), start))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, features, masks, sigma=None) -> Prototypes:
        if self.training:
            self.calls += 1
        pooled = MaskedAverage()(features, masks, sigma)
        return Prototypes(pooled.foreground * self.scale, pooled.weights)


@component
class Detached(LearnedPooling):
    """The same without a gradient."""

    def __init__(self) -> None:
        super().__init__()

    @torch.no_grad()
    def forward(self, features, masks, sigma=None) -> Prototypes:
        return super().forward(features, masks, sigma)


@component
class LearnedPrior(nn.Module):
    """One learned prior for all slices."""

    oracle: ClassVar[bool] = False
    fixed_shape: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.prior = nn.Parameter(torch.tensor(0.5))

    def forward(self, evidence):
        return self.prior.expand(len(evidence.query_location))


@component
class LearnedShift(nn.Module):
    """Moves all margins by a number that nothing trains."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(1.0))

    def forward(self, margins, volume):
        return margins + self.shift


@hookimpl
def register_prototypes(register):
    register("learned_pooling", LearnedPooling)
    register("detached", Detached)


@hookimpl
def register_thresholds(register):
    register("learned_prior", LearnedPrior)


@hookimpl
def register_refiners(register):
    register("learned_shift", LearnedShift)
'''


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory):
    """The file of a plugin with parts that learn."""
    file = tmp_path_factory.mktemp("plugin") / "parts_that_learn.py"
    file.write_text(PLUGIN)
    choose_plugins(files=[file])
    yield file
    choose_plugins(files=[], without=[])


def build(kind, name, **options):
    return fsseg.registry().build(kind, name, options)


def training(steps=6, *, prototypes=None, threshold=None, saver=None, **options):
    sampler = EpisodeSampler([block_scan(seed=seed) for seed in range(2)], published_rules())
    table = TrainingTable(steps=steps, learning_rate=1e-2, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Training(
            TinyBackbone(), prototypes or build("prototypes", "learned_pooling"), Tpm(), sampler, table,
            seed=0, mode="default", device=CPU, threshold=threshold, saver=saver,
        )  # fmt: skip


def tensors(done):
    return {
        f"{part}.{name}": value.clone()
        for part, state in done.states().items()
        for name, value in state.items()
    }


def test_parts_with_parameters_are_trained_and_counted_as_parts():
    threshold = build("threshold", "learned_prior")
    done = training(threshold=threshold)
    assert list(done.parts) == ["backbone", "head", "prototypes", "threshold"]
    before = tensors(done)
    train_together([done])
    after = tensors(done)
    for name in ("prototypes.scale", "threshold.prior", "backbone.convolution.weight"):
        assert not torch.equal(before[name], after[name]), name
    assert after["prototypes.calls"] == 6, "and they were in training mode"
    assert not any(part.training for part in done.parts.values())
    assert list(training(prototypes=MaskedAverage()).parts) == ["backbone", "head"]


def test_the_losses_see_the_thresholds_prior():
    """By the gradient of a prior that raises every foreground logit, from the loss of a step worked out by hand."""
    threshold = build("threshold", "learned_prior")
    under_way = training(1, threshold=threshold, alignment=0.0, weight_decay=0.0, momentum=0.0,
                         gradient_clip=1e6)  # fmt: skip
    rng = fsseg.training.episodes.episode_rng(0, 1, 0)
    episode = under_way._sampler.make(under_way._sampler.draw(rng))
    with torch.no_grad():
        images = torch.cat([episode.support.slices, episode.query.images])
        features = under_way.backbone(images[:, None].expand(-1, 3, -1, -1))
        prototypes = MaskedAverage()(features[:1][None], episode.support.masks)
        logits = under_way.head(features[1:], prototypes)
    prior = torch.tensor(0.5, requires_grad=True)
    raised = torch.nn.functional.interpolate(logits, size=(32, 32), mode="bilinear")
    raised = torch.cat([raised[:, :1], raised[:, 1:] + prior], dim=1)
    weight = torch.tensor([0.1, 1.0])
    loss = torch.nn.functional.cross_entropy(raised, episode.target.long(), weight=weight)
    loss.backward()
    under_way.advance()
    assert threshold.prior.item() == pytest.approx(0.5 - 1e-2 * prior.grad.item(), abs=1e-6)


def test_a_training_with_parts_goes_on_where_it_was_saved(tmp_path):
    """The same bits as in one go, momenta of the parts included; a snapshot without them is refused."""
    whole = training(threshold=build("threshold", "learned_prior"))
    train_together([whole])
    first = training(threshold=build("threshold", "learned_prior"))
    for _ in range(4):
        first.advance()
    write_snapshot(tmp_path / "saved.safetensors", first.snapshot())
    second = training(threshold=build("threshold", "learned_prior"))
    second.restore(read_snapshot(tmp_path / "saved.safetensors"))
    train_together([second])
    expected = tensors(whole)
    assert all(torch.equal(value, expected[name]) for name, value in tensors(second).items())
    with pytest.raises(ValueError, match="is not what this training has"):
        training().restore(read_snapshot(tmp_path / "saved.safetensors"))
    plain = training(prototypes=MaskedAverage())
    with pytest.raises(ValueError, match="a part is missing"):
        training().restore(plain.snapshot())


def test_a_part_that_no_gradient_reaches_is_refused_by_name():
    with pytest.raises(FssegError) as caught:
        train_together([training(prototypes=build("prototypes", "detached"))])
    assert "prototypes 'detached' of parts_that_learn.py" in str(caught.value)
    assert "has 8 parameters, and no gradient reached any, expected" in str(caught.value)
    frozen = build("prototypes", "detached").requires_grad_(False)
    train_together([training(prototypes=frozen)])


ROWS = [
    {"name": "All", "prototypes": {"name": "learned_pooling", "channels": 16}, "threshold": "learned_prior"},
    {"name": "Plain", "threshold": "ce_t"},
]  # fmt: skip


def recipe_of(folder, rows=ROWS, **changes):
    root = folder / "scans"
    if not root.exists():
        make_folder(root)
    changes = {
        "variants": deepcopy(rows),
        "training.prototypes": {"name": "learned_pooling", "channels": 16},
        "training.threshold": "learned_prior",
        "protocol.fold": 0,
    } | changes
    return fsseg.load_recipe(write_recipe(folder, root, steps=2), changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run_of_parts")
    return fsseg.run(recipe_of(folder), runs_dir=folder / "runs"), folder


def test_a_row_has_what_the_training_left_in_the_component_that_both_name(run, tmp_path):
    results, folder = run
    [checkpoint] = results.path.glob("fold0/**/checkpoint.safetensors")
    states = load_trained(checkpoint)
    assert set(states) == {"backbone", "head", "prototypes", "threshold"}
    assert states["prototypes"]["calls"] == 2 and states["threshold"]["prior"] != 0.5
    scan = read_volume(folder / "scans" / "image_3.nii.gz")
    shown = read_volume(*(folder / "scans" / f"{what}_10.nii.gz" for what in ("image", "label")))
    for row in ("All", "Plain"):
        predictor = fsseg.load_predictor(results.path, variant=row)
        file = fsseg.export_predictor(results.path, tmp_path / f"{row}.safetensors", variant=row)
        exported = fsseg.load_predictor(file)
        for each in (predictor, exported):
            own = each.segmenter.prototypes
            assert isinstance(own, nn.Module) == (row == "All")
            if row == "All":
                assert torch.equal(own.scale, states["prototypes"]["scale"])
                assert each.segmenter.threshold.prior == states["threshold"]["prior"]
        kept = {name.partition(".")[0] for name in load_file(file)}
        assert kept == {"backbone", "head"} | (
            {"prototypes", "threshold"} if row == "All" else set()
        )
        one, other = (each.fit(shown).predict(scan).labels for each in (predictor, exported))
        assert (one == other).all()


REFUSED = [
    ({"training.prototypes": "map"}, "prototypes 'learned_pooling' of parts_that_learn.py",
     "has 16 parameters that nothing trains; name it in [training] as prototypes, or say"),
    ({"training.threshold": "ce_t"}, "threshold 'learned_prior' of parts_that_learn.py",
     "has 1 parameter that nothing trains; name it in [training] as threshold, or say"),
    ({"variants.0.refiners": "learned_shift"}, "refiner 'learned_shift' of parts_that_learn.py",
     "has 1 parameter that nothing trains; let its numbers be options, or say"),
    ({"variants.0.prototypes.channels": 7}, "variant 'All': its prototypes LearnedPooling cannot take the state",
     "expected scale [7], calls [], got scale [16], calls []"),
    ({"variants.0.prototypes.start": 2.0}, "variant 'All': its prototypes learned_pooling has start = 2.0",
     "prototypes learned_pooling has start = 1.0, which decides"),
    ({"training.threshold": "ocp"}, "[training]: threshold ocp is an oracle", "name this one in a variant"),
    ({"training.threshold": "lin_est"}, "[training]: threshold lin_est is fitted by calibration", "in a variant"),
]  # fmt: skip


@pytest.mark.parametrize("changes, who, sentence", REFUSED)
def test_what_nothing_trains_is_refused_before_anything_is_computed(changes, who, sentence, run):
    _, folder = run
    runs = folder / "refused"
    with pytest.raises(FssegError) as caught:
        fsseg.run(recipe_of(folder, **changes), runs_dir=runs)
    assert who in str(caught.value) and sentence in str(caught.value)
    assert not list(runs.glob("stages/*"))


def test_files_of_a_backbone_and_a_head_alone_are_read_as_before(tmp_path):
    """A checkpoint of an earlier version, with a row whose extractor it does not hold."""
    head = Tpm()
    state = {f"head.{name}": value for name, value in head.state_dict().items()}
    save_file(state | {"backbone.weight": torch.ones(2)}, tmp_path / "old.safetensors")
    states = load_trained(tmp_path / "old.safetensors")
    assert set(states) == {"backbone", "head"}
    rows = fsseg.load_recipe("recipes/tpm_mp5_linest.toml", {"variants": ROWS}).variants
    table = TrainingTable.model_validate(
        {"prototypes": {"name": "learned_pooling", "channels": 16}}
    )
    plain = build_parts(rows[1], table)
    segmenter = assemble("Plain", NoBackbone(), **plain, states=states_for(rows[1], table, states))
    assert isinstance(segmenter.threshold, CeT)
    with pytest.raises(FssegError, match="has 16 parameters that nothing trains"):
        parts = build_parts(rows[0], table) | {"threshold": CeT()}
        assemble("All", NoBackbone(), **parts, states=states_for(rows[0], table, states))
    assert build_trained(table)["threshold"] is None


def test_a_refiner_that_is_a_module_goes_where_the_segmenter_goes():
    refiner = build("refiner", "learned_shift")
    segmenter = fsseg.Segmenter(NoBackbone(), MaskedAverage(), Tpm(), CeT(), refiners=[refiner])
    assert next(segmenter.to(torch.float64).refiners[0].parameters()).dtype == torch.float64


def test_an_extractor_in_a_segmenter_goes_where_the_segmenter_goes():
    class Pooling(nn.Linear):
        fixed_shape = background = False

        def forward(self, features, masks, sigma=None) -> Prototypes:
            raise AssertionError("not called")

    segmenter = fsseg.Segmenter(NoBackbone(), Pooling(1, 1), Tpm(), CeT())
    assert segmenter.to(torch.float64).prototypes.weight.dtype == torch.float64
