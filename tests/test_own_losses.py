"""Losses as components: what they see, how they are weighted, logged and plotted, and what is refused by name."""

import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TinyBackbone, block_scan, make_folder, published_rules, write_recipe
from scipy.ndimage import distance_transform_edt
from torch import nn

import fsseg
from fsseg import FssegError, MaskedAverage, Tpm, TrainingStep, choose_plugins
from fsseg.errors import RecipeError
from fsseg.recipe.losses import losses_of
from fsseg.recipe.settings import recipe_schema
from fsseg.recipe.tables import SpeedTable, TrainingTable
from fsseg.testing import run_checks
from fsseg.testing.reads import HostReads
from fsseg.testing.samples import training_step
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.log import TrainingLog
from fsseg.training.loop import Training, train_together
from fsseg.training.objective import Objective, WeightedLoss, losses_for
from fsseg.training.snapshots import read_snapshot, write_snapshot

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")

PLUGIN = '''
import torch
from torch import nn

from fsseg import Tpm, TrainingStep, component, hookimpl


class Plain:
    """Something of a step."""

    def __init__(self) -> None:
        pass


@component
class Vector(Plain):
    """Not reduced."""

    def __call__(self, step):
        return step.log_probability.mean(dim=(0, 2, 3))


@component
class Number(Plain):
    """No tensor."""

    def __call__(self, step):
        return 0.5


@component
class Detached(Plain):
    """No gradient."""

    def __call__(self, step):
        return step.logits.detach().mean()


@component
class Counting(Plain):
    """Whole numbers."""

    def __call__(self, step):
        return (step.logits > 0).sum()


@component
class NotANumber(Plain):
    """NaN from the third step on."""

    def __call__(self, step):
        self.calls = getattr(self, "calls", 0) + 1
        return step.logits.mean() * (float("nan") if self.calls > 2 else 1.0)


@component
class Failing(Plain):
    """A bug."""

    def __call__(self, step):
        return step.logit.mean()


@component
class Uncertain(nn.Module):
    """A loss whose scale is learned (Kendall et al., 2018)."""

    fixed_shape = True

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor(0.0))

    def forward(self, step):
        nll = -step.log_probability.mean()
        return nll * torch.exp(-self.log_variance) + self.log_variance


@component
class Auxiliary(Tpm):
    """TPM with a loss of its own."""

    fixed_shape = True

    def __init__(self, *, smooth: float = 0.25, name: str = "smooth") -> None:
        super().__init__()
        self.smooth = smooth
        self.name = name

    def further_losses(self):
        return {self.name: (self.smooth, self.smoothness)}

    def smoothness(self, step: TrainingStep):
        return step.logits.diff(dim=-1).square().mean()


@component
class Wrong(Tpm):
    """TPM whose losses have no weights."""

    def __init__(self) -> None:
        super().__init__()

    def further_losses(self):
        return {"smooth": self.forward}


@hookimpl
def register_losses(register):
    for loss in (Vector, Number, Detached, Counting, NotANumber, Failing, Uncertain):
        register(loss.__name__.lower(), loss)
    register("step", Number)


@hookimpl
def register_heads(register):
    register("auxiliary", Auxiliary)
    register("wrong", Wrong)
'''


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugin") / "odd_losses.py"
    file.write_text(PLUGIN)
    choose_plugins(files=[file])
    yield file
    choose_plugins(files=[], without=[])


def training(losses=(), *, steps=3, head=None, speed=None, **options):
    sampler = EpisodeSampler([block_scan(seed=seed) for seed in range(2)], published_rules())
    table = TrainingTable.model_validate(
        {"losses": list(losses), "steps": steps, "learning_rate": 1e-2} | options
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Training(
            TinyBackbone(), MaskedAverage(), head or Tpm(), sampler, table,
            seed=0, mode="default", device=CPU, speed=speed,
        )  # fmt: skip


def weights(done):
    return [value.clone() for state in done.states().values() for value in state.values()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_the_keys_are_a_short_form_of_the_list():
    """The same bits and the same columns, with weights that are none of the defaults."""
    keys = {"background_weight": 0.3, "alignment": 0.7, "t_loss": 0.2}
    listed = [{"name": "query", "background_weight": 0.3}, {"name": "alignment", "weight": 0.7},
              {"name": "t_loss", "weight": 0.2}]  # fmt: skip
    short, long = train_together([training(**keys, steps=25), training(listed, steps=25)])
    assert same(short, long) and short.log.records() == long.log.records()
    assert not same(short, train_together([training(steps=25)])[0])
    names = [table.name for table in losses_of(TrainingTable(alignment=0.0))]
    assert names == ["query", "t_loss"], "an alignment that counts nothing is not worked out"


def test_the_sum_is_weighted_and_the_log_is_not():
    step = training_step()
    losses = losses_for(
        TrainingTable.model_validate({"losses": ["query", {"name": "t_loss", "weight": 3.0}]}), {}
    )
    objective = Objective(losses, CPU)
    total = objective(step)
    target = step.episode.target.long()
    query = nn.functional.nll_loss(step.log_probability, target, torch.tensor([0.1, 1.0]))
    t_loss = step.head.score.threshold / step.head.score.alpha
    assert total.item() == pytest.approx(query.item() + 3 * t_loss.item(), rel=1e-6)
    assert objective.values.tolist() == pytest.approx([query.item(), t_loss.item()], rel=1e-6)
    assert list(objective.labels) == ["query", "t_loss"]
    assert objective.labels["query"].startswith("loss 'query' of fsseg ")


def test_a_loss_of_weight_0_is_logged_and_changes_nothing():
    """Neither a weight nor a bit; and it needs no gradient."""
    without, watched = train_together(
        [training(["query"], steps=25), training(["query", {"name": "detached", "weight": 0}], steps=25)]
    )  # fmt: skip
    assert same(without, watched)
    [record] = watched.log.records()
    assert list(record)[2:4] == ["query", "detached"] and record["detached"] != 0


REFUSED = [
    ("vector", "gave a tensor of shape [2], expected one number with a gradient; take its mean or its sum"),
    ("number", "gave a float, expected one number with a gradient; return a tensor"),
    ("detached", "gave a number without a gradient, expected one number with a gradient; compute it from"),
    ("counting", "gave a tensor of torch.int64, expected one number with a gradient; return a floating"),
]  # fmt: skip


@pytest.mark.parametrize("name, sentence", REFUSED)
def test_what_is_no_number_with_a_gradient_is_refused_by_name(name, sentence):
    with pytest.raises(FssegError) as caught:
        train_together([training(["query", name])])
    assert str(caught.value).startswith(f"loss '{name}' of odd_losses.py")
    assert sentence in str(caught.value)


def test_the_t_loss_of_a_head_without_a_threshold():
    class Plain(nn.Module):
        score = sigma = None

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(5.0))

        def forward(self, features, prototypes):
            logits = torch.einsum("qchk,wpc->qwhk", features, prototypes.foreground)
            return torch.cat([torch.zeros_like(logits), self.scale * logits], dim=1)

    train_together([training(head=Plain())])
    with pytest.raises(FssegError, match="loss 't_loss' of fsseg .* leave it out"):
        train_together([training(head=Plain(), t_loss=1.0)])


def test_a_loss_that_is_no_number_is_named_with_its_step():
    """Not the query's, which is none as soon as the weights are none, and not the step of the log's line."""
    for steps in (25, 7):
        under_way = training(["query", "notanumber"], steps=steps)
        with pytest.raises(FssegError) as caught:
            train_together([under_way])
        assert "loss 'notanumber' of odd_losses.py" in str(caught.value)
        assert "is nan by step 3, at a learning rate" in str(caught.value)
    log = TrainingLog(losses={"a": "loss 'a' of x", "b": "loss 'b' of y"})
    for step in range(25):
        values = torch.tensor([math.inf if step > 20 else 1.0, math.nan if step > 12 else 1.0])
        log.add(step, values, None, 0.1)
    with pytest.raises(FssegError, match="loss 'b' of y is nan by step 14"):
        log.records()


def test_a_bug_in_a_loss_keeps_its_traceback_and_says_whose_it_is(tmp_path):
    make_folder(tmp_path / "scans")
    recipe = fsseg.load_recipe(
        write_recipe(tmp_path, tmp_path / "scans", steps=1),
        {"training.losses": ["failing"], "protocol.fold": 0},
    )
    with pytest.raises(AttributeError, match="logit") as caught:
        fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert any("odd_losses" in note for note in caught.value.__notes__)


WRONG = [
    ({"training.losses": ["query", "query"]}, "losses: 'query' is listed twice, expected each loss once"),
    ({"training.losses": ["step"]}, "losses: 'step' is the name of another column of the training's log"),
    ({"training.losses": ["qurey"]}, "there is no loss 'qurey'; did you mean 'query'?"),
    ({"training.losses": [{"name": "query", "weight": -1}]}, "weight: "),
    ({"training.losses": [{"name": "query", "weigth": 1}]}, "weigth: unknown key; did you mean 'weight'?"),
    ({"training.losses": ["query"], "training.t_loss": 1.0}, "[training]: got losses and t_loss = 1, expected one"),
    ({"training.losses": ["query"], "variants.1.training": {"alignment": 0.5}}, "training of 'AvgEst': [training]: got losses"),
]  # fmt: skip


@pytest.mark.parametrize("changes, sentence", WRONG)
def test_lists_that_no_recipe_may_have(changes, sentence):
    with pytest.raises(RecipeError) as caught:
        fsseg.load_recipe(ROOT / "recipes/tpm_mp5_linest.toml", changes)
    assert sentence in str(caught.value)


def test_the_weight_is_a_setting_and_in_the_schema():
    import jsonschema

    recipe = fsseg.load_recipe(ROOT / "recipes/tpm_mp5_linest.toml")
    recipe.training.losses = [{"name": "query", "weight": 2.0, "background_weight": 0.2}]
    again = fsseg.recipe.reading.parse_recipe(recipe.dumps())
    assert again.training.losses[0].weight == 2 and again.training.losses[0].options == {
        "background_weight": 0.2
    }
    schema = recipe_schema()
    jsonschema.validate(recipe.dumps(), schema)
    tables = recipe.dumps()
    tables["training"]["losses"][0]["weight"] = -2
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tables, schema)


def test_a_head_brings_losses_of_its_own():
    """They are weighted by its options, logged by their names, and called what they are in messages."""
    head = fsseg.registry().build("head", "auxiliary", {"smooth": 0.5})
    done, plain = train_together([training(head=head, steps=25), training(steps=25)])
    [record] = done.log.records()
    assert list(record)[2:6] == ["query", "alignment", "t_loss", "smooth"]
    assert not same(done, plain)
    silent = fsseg.registry().build("head", "auxiliary", {"smooth": 0.0})
    assert same(train_together([training(head=silent, steps=25)])[0], plain)
    [own] = losses_for(TrainingTable(), {"head": head})[3:]
    assert own.weight == 0.5 and own.label.startswith("loss 'smooth' of head 'auxiliary' of odd_")
    step = training_step()
    assert own(step).item() == pytest.approx(
        np.square(np.diff(step.logits.detach().numpy())).mean(), rel=1e-5
    )


def test_losses_that_a_head_may_not_bring():
    clash = fsseg.registry().build("head", "auxiliary", {"name": "query"})
    with pytest.raises(
        FssegError, match="loss 'query' of head .* and loss 'query' of fsseg .* have one name"
    ):
        training(head=clash)
    column = fsseg.registry().build("head", "auxiliary", {"name": "step"})
    with pytest.raises(FssegError, match="'step' is the name of another column"):
        training(head=column)
    with pytest.raises(
        FssegError, match="head 'wrong' of odd_losses.*: further_losses gave {'smooth'"
    ):
        training(head=fsseg.registry().build("head", "wrong", {}))


def test_a_loss_with_parameters_is_a_part(tmp_path):
    """Trained, saved and resumed to the same bits, and kept in the checkpoint beside the others."""
    whole = train_together([training(["query", "uncertain"], steps=6)])[0]
    scale = whole.parts["losses.uncertain"].log_variance
    assert scale.item() != 0 and whole.states()["losses.uncertain"]["log_variance"] == scale
    first = training(["query", "uncertain"], steps=6)
    for _ in range(3):
        first.advance()
    write_snapshot(tmp_path / "saved.safetensors", first.snapshot())
    second = training(["query", "uncertain"], steps=6)
    second.restore(read_snapshot(tmp_path / "saved.safetensors"))
    assert same(train_together([second])[0], whole)
    fsseg.model.checkpoint.save_trained(tmp_path / "checkpoint.safetensors", whole.parts)
    states = fsseg.model.checkpoint.load_trained(tmp_path / "checkpoint.safetensors")
    assert states["losses"] == {"uncertain.log_variance": scale}


def test_one_loss_that_asks_the_host_keeps_steps_from_being_recorded():
    speed = SpeedTable(precision="float32", capture="on")
    for losses, recorded in ((["query", "alignment", "exchange", "t_loss"], True),
                             (["query", "uncertain"], True), (["query", "notanumber"], False)):  # fmt: skip
        assert training(losses, speed=speed).speed.capture == recorded
    head = fsseg.registry().build("head", "auxiliary", {})
    assert training(head=head, speed=speed).speed.capture
    head.fixed_shape = False
    assert not training(head=head, speed=speed).speed.capture


@pytest.fixture(scope="module")
def example():
    """The plugin file of the docs, as a module."""
    return runpy.run_path(str(ROOT / "docs/examples/boundary_loss.py"))


def test_the_boundary_loss_by_another_distance(example):
    """Signed distances of scipy's exact transform, with the sign and the offset of Kervadec et al."""
    rng = np.random.default_rng(0)
    masks = rng.random((2, 12, 19)) > 0.8
    found = example["distances"](torch.from_numpy(masks))
    for mask, distance in zip(masks, found):
        assert distance.numpy() == pytest.approx(distance_transform_edt(~mask), abs=1e-5)
    step = training_step()
    [target] = step.episode.target.numpy() > 0
    signed = distance_transform_edt(~target) - (distance_transform_edt(target) - 1) * target
    probability = 1 - step.log_probability[0, 0].exp().detach().numpy()
    loss = example["BoundaryLoss"]()(step)
    assert loss.item() == pytest.approx((signed * probability).mean(), rel=1e-5)


def test_the_boundary_loss_of_the_docs_keeps_the_contract_and_asks_for_nothing(example):
    failed = [r for r in run_checks(example["BoundaryLoss"], "loss") if r.status == "failed"]
    assert not failed
    with HostReads() as reads:
        example["BoundaryLoss"]()(training_step(3))
    assert not reads.seen


def test_the_boundary_loss_of_the_docs_runs_as_it_stands(shell, tmp_path, monkeypatch):
    """As the docs say, on a small phantom: its column is in the log, and its line in the training's figure."""
    monkeypatch.chdir(ROOT)
    file = "docs/examples/boundary_loss.py"
    assert len(Path(file).read_text().splitlines()) < 40
    small = {"dataset.count": 10, "dataset.size": 64, "protocol.folds": "disjoint5", "protocol.fold": 0,
             "training.steps": 25, "calibration.episodes": 3, "backbone.weights": "none",
             "training.losses": '["query", "alignment", { name = "boundary", weight = 0.01 }]'}  # fmt: skip
    words = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    done = shell("run", "recipes/tpm_mp5_linest.toml", "--plugin", file, *words,
                 "--device", "cpu", "--runs-dir", tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    [log] = tmp_path.glob("stages/train-*/train.jsonl")
    record = json.loads(log.read_text())
    assert list(record)[2:5] == ["query", "alignment", "boundary"]
    assert math.isfinite(record["boundary"]) and record["boundary"] != 0
    [run] = tmp_path.glob("tpm_mp5_linest-*")
    figure = fsseg.plots.training_curves(fsseg.load_results(run))
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "query loss" in told and "loss boundary" in told


def test_what_a_step_holds_fits_together():
    """The value that losses see, from a training of its own: shapes, the head and the extractor."""
    seen = []

    def look(step):
        seen.append(step)
        return step.logits.mean()

    under_way = training()
    under_way._objective = Objective([WeightedLoss("look", 1.0, look, "loss 'look'")], CPU)
    under_way.advance()
    [step] = seen
    assert isinstance(step, TrainingStep) and step.head is under_way.head
    assert step.query_features.shape == (1, 8, 8, 8) and step.logits.shape == (1, 2, 8, 8)
    assert step.log_probability.shape == (1, 2, 32, 32)
    assert step.support_features.shape == step.episode.support.slices.shape[:1] + (8, 8, 8)
    again = step.extractor(
        step.episode.support.spread(step.support_features), step.episode.support.masks
    )
    assert torch.equal(again.foreground, step.prototypes.foreground)
