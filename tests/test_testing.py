"""The contract checks: each fails a component that is broken on purpose, and all built-ins pass all of them."""

import copy
import functools
import itertools
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from fsseg import (
    CeT,
    Choice,
    FoldScheme,
    FssegError,
    MaskedAverage,
    Protocol,
    Prototypes,
    Tpm,
    component,
    hookimpl,
    registry,
)
from fsseg.data.datasets.phantom.dataset import AbdomenPhantom
from fsseg.data.intensity_rules import Nyul
from fsseg.evaluation.calibration_error import CalibrationError
from fsseg.evaluation.metrics import Iou
from fsseg.model.refiners import Component3d
from fsseg.plugins.registry import KINDS
from fsseg.testing import (
    ContractError,
    NotApplicable,
    check_functions,
    checks_for,
    general,
    parametrize_with_checks,
    run_checks,
)
from fsseg.training.augmentations.spatial import Flip
from fsseg.training.losses import QueryNll
from fsseg.training.pairs import Pair, Place
from fsseg.training.sources import Superpixel

PHANTOM = {"count": 4, "size": 64}


class Backbone(nn.Module):
    """A small one that keeps the contract."""

    stride, channels, intensity = 4, 6, "zscore"

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1)
            )

    def forward(self, images):
        return self.layers(images)


class Phantom(AbdomenPhantom):
    """A dataset that keeps the contract."""

    def __init__(self) -> None:
        super().__init__(**PHANTOM)


class Blocks:
    """Supervoxels that keep the contract."""

    def __init__(self) -> None:
        pass

    def __call__(self, volume, dataset):
        columns = np.arange(volume.image.shape[2]) // 8
        return np.broadcast_to(columns, volume.image.shape).astype(np.int32)


class Brightness:
    """A whole segmenter that keeps the contract."""

    def __init__(self) -> None:
        pass

    def __call__(self, support, query):
        logits = [torch.zeros_like(query.images)]
        for images, masks in zip(support.images, support.masks):
            logits.append(1 - (query.images - images[masks].mean()).abs())
        return torch.stack(logits, dim=1)


class Tracker:
    """A tracker that keeps the contract."""

    def __init__(self) -> None:
        pass

    @hookimpl
    def step_logged(self, values):
        pass


class Descent:
    """An optimiser that keeps the contract."""

    def __init__(self) -> None:
        pass

    def __call__(self, parameters, fused):
        return torch.optim.Adam(parameters, lr=0.1)


class Halving:
    """A schedule that keeps the contract."""

    def __init__(self) -> None:
        pass

    def __call__(self, optimiser, steps):
        return torch.optim.lr_scheduler.StepLR(optimiser, 3, 0.5)


class Folds:
    """Folds that keep the contract."""

    def __init__(self) -> None:
        pass

    def __call__(self, dataset):
        return Divided("mine", folds=3)


@dataclass(frozen=True)
class Divided(FoldScheme):
    """Every third case."""

    def divide(self, cases, index):
        return cases[index::3]


class Rules:
    """A protocol that keeps the contract."""

    rules = Protocol("mine")

    def __init__(self) -> None:
        pass

    def __call__(self):
        return self.rules


@dataclass(frozen=True)
class Choosing(Protocol):
    """Slice 4 of the support segments all of the queries."""

    word: object = ""

    def choose(self, fold, shown, classes, rng):
        way = (1, classes[1])
        return [Choice((way,), fold.support, (4,), query) for query in fold.queries]


def choosing(choose, name="Choosing", **facts):
    """A protocol with choices of its own, which are changed."""
    cls = type(name, (Choosing,), {"choose": choose})
    return broken("protocol", rules=cls("mine", **facts))


def scores_its_support(self, fold, shown, classes, rng):
    return [Choice(((1, classes[1]),), case, (4,), case) for case in fold.queries]


def at_what_the_query_shows(self, fold, shown, classes, rng):
    return [
        replace(
            choice, query_slices=[n for n, values in enumerate(shown[choice.query_case]) if values]
        )
        for choice in Choosing.choose(self, fold, shown, classes, rng)
    ]


COUNTED = itertools.count()


def dividing(divide):
    """Folds with a way to divide of their own."""
    cls = type("Divided", (FoldScheme,), {"divide": divide})
    return broken("folds", __call__=lambda self, dataset: cls("mine", folds=3))


def empties(self, fold, shown, classes, rng):
    chosen = Choosing.choose(self, fold, shown, classes, rng)
    shown[fold.queries[0]][0].add(1)
    return chosen


def diluted(self, predicted, actual, spacing, probability):
    """Counts slices that are not segmented among the others."""
    return float(np.abs(np.nan_to_num(probability) - actual).mean())


SOUND = {
    "folds": Folds, "protocol": Rules,
    "optimiser": Descent, "schedule": Halving,
    "backbone": Backbone, "prototypes": MaskedAverage, "head": Tpm, "threshold": CeT, "dataset": Phantom, "supervoxels": Blocks,
    "refiner": Component3d, "segmenter": Brightness, "metric": Iou, "tracker": Tracker, "intensity": Nyul, "augmentation": Flip, "loss": QueryNll,
    "episodes": Superpixel,
}  # fmt: skip


def broken(kind, **methods):
    """The sound component of a kind with some methods or attributes replaced."""
    return type("Broken", (SOUND[kind],), {"__doc__": "Broken.", **methods})


def changed(kind, change):
    """The sound component of a kind, with its output changed."""
    name = {"backbone": "forward", "head": "forward", "episodes": "pair"}.get(kind, "__call__")
    inner = getattr(SOUND[kind], name)
    return broken(kind, **{name: lambda self, *inputs: change(inner(self, *inputs), *inputs)})


class Fitted(CeT):
    """A fitted policy that keeps the contract: the mean of the ideal priors."""

    def __init__(self) -> None:
        self.mean = None

    def __call__(self, evidence):
        if self.mean is None:
            raise FssegError("not fitted")
        return torch.full_like(evidence.query_location, self.mean)

    def describe(self, evidence):
        return evidence.query_location[:, None]

    def fit(self, described, ideal):
        self.mean = float(ideal.together.mean())

    def state(self):
        return {"mean": self.mean}

    def load_state(self, state):
        self.mean = state["mean"]


def fitted(**methods):
    return type("Broken", (Fitted,), {"__doc__": "Broken.", **methods})


class Background(MaskedAverage):
    """Map, with a background it makes or does not make."""

    background = True


class Seeing(MaskedAverage):
    """Moves the prototype by the mean of each slice of the query."""

    per_query = True

    def __call__(self, features, masks, sigma, query):
        shown = MaskedAverage()(features, masks)
        moved = shown.foreground + query.mean(dim=(2, 3))[:, None, None]
        return Prototypes(moved, shown.weights.expand(moved.shape[:3]))


def seeing(change):
    """`Seeing` with its output changed."""
    inner = Seeing.__call__
    return type(
        "Broken",
        (Seeing,),
        {"__doc__": "Broken.", "__call__": lambda self, *inputs: change(inner(self, *inputs))},
    )


class Looking(Tpm):
    """Raises the foreground by the part of the support that each way covers of its left half."""

    sees_support = True

    def forward(self, features, prototypes, volume):
        logits = super().forward(features, prototypes)
        share = volume.support.masks[..., :16].float().mean(dim=(1, 2, 3))
        raised = logits[:, 1:] + share[:, None, None].to(logits)
        return torch.cat([logits[:, :1], raised], dim=1)


class Absent(Looking):
    """Broken."""

    def forward(self, features, prototypes, volume):
        return Tpm.forward(self, features, prototypes)


def remember_supports(self, support, query):
    self.seen = getattr(self, "seen", 0) + 1
    return Brightness.__call__(self, support, query) * self.seen


class Unannotated(CeT):
    """Broken."""

    def __init__(self, *, width=1):
        pass


class Untold(CeT):
    def __init__(self) -> None:
        pass


class Picky(CeT):
    """Broken."""

    def __init__(self, *, limits: list[float | None] = [None]) -> None:  # noqa: B006
        pass


class Loose(Tpm):
    """Broken."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = torch.zeros(1)


class FromGlobalGenerator(Backbone):
    """Broken."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Conv2d(3, 6, 4, 4)


class Weighted(QueryNll):
    """Broken."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()


def bend(value, **parts):
    """A dataclass with parts that its own type hints would not let in, which tests run."""
    bent = copy.copy(value)
    for key, part in parts.items():
        object.__setattr__(bent, key, part)
    return bent


def counting(change):
    """An output changed by how often it was asked for, which is kept."""
    calls = []

    def apply(output, *inputs):
        calls.append(1)
        return change(output, len(calls))

    return apply


def in_place(output, *inputs):
    inputs[0].mul_(2)
    return output


def look_at_target(self, evidence, target):
    return evidence.query_location * 0


def near_the_first(output, features, masks, sigma=None):
    """The prototype and the first shot's first cell."""
    return replace(output, foreground=output.foreground + features[:, :1, :, 0, 0])


def only_inner_pixels(output, features, masks, sigma=None):
    """NaN where a mask misses the middle of every cell."""
    seen = masks[..., 1::4, 1::4].flatten(1).any(dim=1)
    return replace(output, foreground=output.foreground / seen[:, None, None])


def nan_where_there_is_no_background(output, features, masks, sigma=None):
    return replace(output, foreground=output.foreground / (~masks).sum().clamp(max=1))


def keep_the_largest(self, evidence):
    """The largest support so far decides."""
    self.largest = max(getattr(self, "largest", 0.0), float(evidence.support_size.max()))
    return evidence.query_location * 0 + self.largest


def scans_differ(self, case):
    volume = AbdomenPhantom.load(self, case)
    self.loads = getattr(self, "loads", 0) + 1
    return replace(volume, image=volume.image + self.loads)


def with_volume(**parts):
    def load(self, case):
        volume = AbdomenPhantom.load(self, case)
        return bend(volume, **{key: change(volume) for key, change in parts.items()})

    return broken("dataset", load=load)


def fail_at_results(self, results):
    return results.path / "x"


def remember(self, margins, volume):
    """Adds what it saw of the scan before."""
    before, self.seen = getattr(self, "seen", 0.0), margins.mean()
    return margins + before


def measure_and_keep(self, images):
    self.kept = float(images[0].mean())
    return {}


def scale_as_kept(self, image, measured):
    return image - getattr(self, "kept", 0.0)


def late(self, values):
    pass


class Ascent(torch.optim.SGD):
    """Goes up."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1, maximize=True)


class Listed(torch.optim.Adam):
    """Keeps a list, which no file of tensors holds."""

    def step(self, closure=None):
        super().step(closure)
        for weight in self.param_groups[0]["params"]:
            self.state[weight]["past"] = [1.0]


class Forgetful(torch.optim.SGD):
    """Counts its steps where nobody saves them."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            group["lr"] = 0.1 / self.count
        super().step(closure)


class Drifting(torch.optim.lr_scheduler.LambdaLR):
    """Moves the weight decay as well."""

    def step(self, epoch=None):
        super().step(epoch)
        for group in self.optimizer.param_groups:
            group["weight_decay"] += 0.1


def lambda_lr(factor):
    return lambda self, optimiser, steps: torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def pairing(pair):
    """A source whose pairs are drawn otherwise, from the generator."""
    return broken("episodes", pair=lambda self, scans, rng: pair(rng))


FIRST = Place(0, 2)


def drawing(draw):
    """A flip whose numbers are drawn otherwise."""
    return broken("augmentation", draw=lambda self, rng, about: draw(rng))


def flipping(change):
    """A flip whose image and masks are changed once more."""
    return changed("augmentation", lambda made, *_: change(*made))


def look_at_a_number(self, image, masks, numbers):
    return (image.flip(-1), masks.flip(-1)) if numbers[1] else (image, masks)


def only_one_channel(self, image, masks, numbers):
    """The number of channels is not taken for one."""
    return image.reshape(-1, *image.shape[-2:]), masks


class Sliced(Flip):
    """Broken."""

    def __init__(self, *, slices: str = "both") -> None:
        super().__init__()


@component
class Reticent(CeT):
    """A policy whose repr says nothing of its option."""

    def __init__(self, *, shift: float = 0.0) -> None:
        super().__init__()

    def __repr__(self) -> str:
        return "Reticent()"


class Lenient(Reticent):
    """A policy that takes any option, though it seems to check them."""

    @functools.wraps(Reticent.__init__)
    def __init__(self, **options) -> None:
        pass


BROKEN = {
    # of all kinds
    "check_constructor": [
        ("threshold", Unannotated, "argument 'width' is unannotated"),
        ("threshold", Untold, "expected a docstring"),
    ],
    "check_options_from_python": [
        ("threshold", Reticent, r"got 'Reticent\(\)' without shift; leave the repr to @fsseg.component"),
        ("threshold", Lenient, "expected an FssegError for an option that it does not have"),
    ],
    "check_options_round_trip": [("threshold", Picky, "expected options that TOML can hold")],
    "check_same_seed_same_output": [
        ("backbone", FromGlobalGenerator, "expected the same output from two instances"),
        ("metric", changed("metric", lambda value, *_: value * random.random()), "expected the same output"),
    ],
    "check_ambient_randomness_untouched": [
        ("backbone", FromGlobalGenerator, "a move in torch"),
        ("prototypes", changed("prototypes", lambda made, *_: (np.random.rand(), made)[1]), "a move in numpy.random"),
    ],
    "check_inputs_not_modified": [("head", changed("head", in_place), "expected its inputs unchanged")],
    "check_float32_and_bfloat16": [
        ("threshold", changed("threshold", lambda prior, e: prior + e.margin.numpy().mean()), None),
        ("head", changed("head", lambda logits, *_: logits * (torch.nan if logits.dtype == torch.bfloat16 else 1)), "not in bfloat16"),
    ],
    "check_cpu_and_gpu_agree": [("threshold", changed("threshold", counting(lambda prior, n: prior + n)), "the CPU and on the GPU")],
    "check_state_without_pickle": [
        ("head", Loose, "got extra, which is neither saved nor moved"),
        ("threshold", fitted(state=lambda self: {"mean": np.float32(self.mean)}), "expected state\\(\\) to be plain"),
        ("threshold", fitted(load_state=lambda self, state: setattr(self, "mean", 0.0)), "expected the same output after its state"),
    ],
    # backbones
    "check_channels_and_stride": [
        ("backbone", broken("backbone", channels=7), "expected features of shape \\(1, 7, 8, 8\\)"),
        ("backbone", broken("backbone", stride=8), "got \\(1, 6, 16, 16\\)"),
        ("backbone", broken("backbone", stride=4.0), "expected whole numbers"),
    ],
    "check_odd_sizes": [
        ("backbone", changed("backbone", lambda f, images: f / (images.shape[-1] % 4 == 0)), "expected finite features"),
        ("backbone", changed("backbone", lambda f, images: f[..., : f.shape[-1] // 2]), "cells from a 29 x 21 slice"),
    ],
    "check_slices_are_encoded_by_themselves": [
        ("backbone", changed("backbone", lambda features, images: features - features.mean()), "in a batch and alone"),
    ],
    "check_intensity_rule": [("backbone", broken("backbone", intensity="hounsfield"), "one of zscore, percentile, window, nyul, got 'hounsfield'")],
    "check_channels_of_slices": [
        ("backbone", broken("backbone", context=-1), "context to be a whole number from 0, got -1"),
        ("backbone", broken("backbone", in_channels=1.5), "in_channels to be a whole number from 1, got 1.5"),
        ("backbone", broken("backbone", context=2), "from slices of 5 channels, .* got RuntimeError"),
    ],
    # heads
    "check_a_logit_per_class": [
        ("head", changed("head", lambda logits, *_: logits[:, 1:]), "expected logits of shape \\(5, 2, 8, 8\\)"),
    ],
    "check_likeness_is_foreground": [("head", changed("head", lambda logits, *_: logits.flip(1)), "background's logit comes first")],
    "check_order_of_ways": [
        ("head", changed("head", lambda logits, *_: logits + torch.arange(logits.shape[1])[:, None, None]), "ways in another order"),
        ("prototypes", changed("prototypes", lambda made, *_: replace(made, foreground=made.foreground * (1 + torch.arange(len(made.foreground)))[:, None, None])), "every way to keep"),
    ],
    "check_slices_are_scored_by_themselves": [("head", changed("head", lambda logits, *_: logits - logits.mean()), "slice's logits")],
    "check_finite": [
        ("head", changed("head", lambda logits, f, _: logits / f.norm(dim=1, keepdim=True)), "finite logits for features of zeros"),
        ("head", changed("head", lambda logits, f, p: logits / p.foreground.norm()), "finite logits for prototypes of zeros"),
    ],
    "check_looks_at_the_support": [("head", Absent, "leave sees_support out")],
    # whole segmenters
    "check_logits_of_all_classes": [
        ("segmenter", changed("segmenter", lambda logits, *_: logits[:, 1:]), "expected logits of 5 slices x 2 classes x height"),
        ("segmenter", changed("segmenter", lambda logits, s, q: logits / (s.masks.shape[1] - 1)), "expected finite logits for 1 ways"),
    ],
    "check_masks_say_what_is_foreground": [
        ("segmenter", broken("segmenter", __call__=lambda self, s, q: torch.stack([q.images * 0] + [q.images] * len(s.masks), 1)), "look at the masks"),
    ],
    "check_ways_change_places": [
        ("segmenter", changed("segmenter", lambda logits, *_: logits + torch.arange(logits.shape[1])[:, None, None]), "ways in another order"),
    ],
    "check_one_slice_by_itself": [
        ("segmenter", changed("segmenter", lambda logits, *_: logits / (len(logits) - 1)), "for a query of one"),
    ],
    "check_keeps_nothing_of_a_support": [("segmenter", broken("segmenter", __call__=remember_supports), "keep nothing")],
    "check_differentiable": [
        ("head", changed("head", lambda logits, *_: logits.detach()), "expected logits with a gradient"),
        ("head", broken("head", forward=lambda self, f, p: Tpm.forward(self, f.detach(), p)), "the features, got none"),
    ],
    "check_padding": [
        ("head", broken("head", forward=lambda self, f, p: Tpm.forward(self, f, replace(p, weights=torch.full_like(p.weights, 1 / p.weights.shape[1])))), "prototypes of weight 0 to change nothing"),
    ],
    # prototype extractors
    "check_shapes": [
        ("prototypes", changed("prototypes", lambda made, *_: bend(made, foreground=made.foreground[:1])), "expected 2 ways x"),
        ("prototypes", changed("prototypes", lambda made, *_: bend(made, weights=made.weights[:, 0])), "as many weights"),
        ("prototypes", Background, "if and only if it has `background = True`, got background = True and none"),
        ("prototypes", changed("prototypes", lambda made, *_: replace(made, background=made.foreground[0])), "background = False and some"),
    ],
    "check_weights_sum_to_one": [("prototypes", changed("prototypes", lambda made, *_: replace(made, weights=made.weights / 2)), "sums \\[0.5\\]")],
    "check_order_of_shots": [("prototypes", changed("prototypes", near_the_first), "whatever the order of the shots")],
    "check_order_of_pixels": [("prototypes", changed("prototypes", near_the_first), "whatever the order of the cells")],
    "check_outside_the_mask": [("prototypes", changed("prototypes", near_the_first), "features outside the mask to change nothing")],
    "check_one_pixel_mask": [("prototypes", changed("prototypes", only_inner_pixels), "a mask of one pixel")],
    "check_empty_mask": [
        ("prototypes", changed("prototypes", lambda made, f, masks, s=None: replace(made, foreground=made.foreground / made.weights[..., None])), "for an empty mask"),
    ],
    "check_prototypes_by_slice": [
        ("prototypes", seeing(lambda made: made.of_slice(0)), "expected 5 slices x way x prototype x channel"),
        ("prototypes", seeing(lambda made: bend(made, weights=made.weights[0])), "as many weights"),
        ("prototypes", changed("prototypes", lambda made, *_: bend(made, foreground=made.foreground[None])), "has `per_query = True`"),
    ],
    "check_query_slices_by_themselves": [
        ("prototypes", seeing(lambda made: replace(made, foreground=made.foreground + made.foreground.mean(0))), "with other slices of the query and alone"),
    ],
    "check_full_mask": [("prototypes", changed("prototypes", nan_where_there_is_no_background), "a mask that fills the slice")],
    # losses
    "check_one_number": [
        ("loss", changed("loss", lambda value, step: value[None]), "of shape \\[\\] for 1 ways, got torch.float32 of shape \\[1\\]"),
        ("loss", broken("loss", __call__=lambda self, step: 0.0), "got a float"),
        ("loss", changed("loss", lambda value, step: step.log_probability[0].mean(dim=(1, 2))[2:].sum(0, keepdim=len(step.prototypes.weights) > 1) + value), "for 3 ways"),
        ("loss", broken("loss", __call__=lambda self, step: step.episode.target.sum()), "got torch.int64"),
    ],
    "check_gradient": [
        ("loss", changed("loss", lambda value, step: value.detach()), "expected a number with a gradient"),
        ("loss", changed("loss", lambda value, step: value + (step.query_features - step.query_features.detach()).abs().sum().sqrt()), "some that are not finite"),
    ],
    "check_finite_at_the_extremes": [
        ("loss", changed("loss", lambda value, step: value / step.episode.target.any()), "for a query without foreground, got"),
        ("loss", changed("loss", lambda value, step: value / (step.episode.target == 0).any()), "for a query without background, got"),
        ("loss", changed("loss", lambda value, step: step.log_probability.exp().log().mean()), "for large logits, got -inf"),
    ],
    "check_keeps_nothing_of_a_step": [("loss", changed("loss", counting(lambda value, n: value + n)), "the same loss after another step")],
    "check_fixed_shape_asks_nothing": [
        ("loss", changed("loss", lambda value, step: value if step.episode.target.any() else value * 2), "the host waits, got aten"),
        ("loss", changed("loss", lambda value, step: value + step.log_probability[:, 0][step.episode.target > 0].mean()), "the host waits, got aten"),
    ],
    # optimisers
    "check_gives_an_optimiser": [
        ("optimiser", broken("optimiser", __call__=lambda self, parameters, fused: None), "Broken: gives NoneType, expected a torch.optim.Optimizer"),
        ("optimiser", broken("optimiser", __call__=lambda self, parameters, fused: torch.optim.SGD(parameters[:1])), "each weight in one group"),
        ("optimiser", broken("optimiser", __call__=lambda self, parameters, fused: torch.optim.SGD(parameters, lr=torch.tensor(0.1))), "a number `lr`"),
    ],
    "check_goes_down": [("optimiser", broken("optimiser", __call__=lambda self, parameters, fused: Ascent(parameters)), "look at the sign")],
    "check_goes_on_from_a_file": [
        ("optimiser", broken("optimiser", __call__=lambda self, parameters, fused: Listed(parameters)), "keeps list as past"),
        ("optimiser", broken("optimiser", __call__=lambda self, parameters, fused: Forgetful(parameters)), "the same weights from a training"),
    ],
    # schedules
    "check_rates": [
        ("schedule", broken("schedule", __call__=lambda self, optimiser, steps: None), "gives NoneType, expected a scheduler"),
        ("schedule", broken("schedule", __call__=lambda_lr(lambda step: 3.0 - step)), "gives a learning rate of -0.1 for step 4"),
    ],
    "check_knows_the_step_alone": [("schedule", broken("schedule", __call__=lambda_lr(lambda step: random.random())), "the same numbers for a step")],
    "check_moves_known_numbers": [
        ("schedule", broken("schedule", __call__=lambda self, optimiser, steps: Drifting(optimiser, lambda step: 1.0)), "a move of weight_decay"),
    ],
    # threshold policies
    "check_oracle_is_declared": [
        ("threshold", broken("threshold", oracle=None), "expected a class attribute `oracle = False`"),
        ("threshold", broken("threshold", __call__=look_at_target), "if it needs the target, say oracle = True"),
    ],
    "check_a_prior_per_slice": [
        ("threshold", changed("threshold", lambda prior, e: prior[:1]), "expected finite log-odds of shape \\(5,\\) or \\(5, 1\\), got \\(1,\\)"),
        ("threshold", changed("threshold", lambda prior, e: prior.log() * torch.inf), "expected finite log-odds"),
    ],
    "check_order_of_slices": [
        ("threshold", changed("threshold", lambda prior, e: prior + torch.arange(len(prior))), "slices in another order"),
    ],
    "check_common_offset": [("threshold", changed("threshold", lambda prior, e: prior + e.logits.mean()), "all larger by 3")],
    "check_support_foreground": [
        ("threshold", broken("threshold", __call__=keep_the_largest), "keep nothing"),
        ("threshold", changed("threshold", lambda prior, e: prior + (1 - e.support_size).log()), "for a support of 1024 pixels"),
    ],
    "check_fit_comes_first": [
        ("threshold", fitted(__call__=lambda self, e: torch.full_like(e.query_location, self.mean)), "expected an FssegError before it is fitted, got TypeError"),
        ("threshold", fitted(fit=lambda self, described, ideal: None), "expected an answer after fit"),
    ],
    "check_larger_prior_never_loses_foreground": [
        ("threshold", changed("threshold", counting(lambda prior, n: prior - n)), "expected all foreground to stay"),
    ],
    # refiners
    "check_margins_for_margins": [
        ("refiner", changed("refiner", lambda refined, *_: refined[:, :1]), "of shape \\(5, 3, 8, 8\\), got \\(5, 1, 8, 8\\)"),
        ("refiner", changed("refiner", lambda refined, m, v: refined / (len(m) - 1)), "of shape \\(1, 1, 8, 8\\), got .*some not finite"),
    ],
    "check_resolution": [
        ("refiner", broken("refiner", resolution="pixels"), "its resolution is 'pixels', expected \"features\" or"),
        ("refiner", broken("refiner", __call__=lambda self, m, v: m + v.features[:, :1]), "margins of 32 x 32 to be taken"),
        ("refiner", changed("refiner", lambda refined, m, v: refined[..., :8, :8]), r"expected margins of 32 x 32, got \(5, 1, 8, 8\)"),
    ],
    "check_ways_in_another_order": [
        ("refiner", changed("refiner", lambda refined, *_: refined + torch.arange(refined.shape[1])[:, None, None]), "ways in another order"),
    ],
    "check_nothing_is_foreground": [
        ("refiner", changed("refiner", lambda refined, m, v: refined / (m > 0).any()), "where nothing is foreground"),
        ("refiner", changed("refiner", lambda refined, m, v: refined / (m <= 0).any()), "where everything is foreground"),
    ],
    "check_keeps_nothing_of_a_scan": [("refiner", broken("refiner", __call__=remember), "keep nothing")],
    # datasets
    "check_cases": [
        ("dataset", broken("dataset", cases=["a", "a"]), "names of their own"),
        ("dataset", broken("dataset", load=lambda self, case: {}[case]), "expected a DataError for a case that is not there, got KeyError"),
        ("dataset", broken("dataset", load=lambda self, case: AbdomenPhantom.load(self, self.cases[0])), "is not there, got a volume"),
    ],
    "check_facts": [
        ("dataset", broken("dataset", name=""), "expected a name for tables"),
        ("dataset", broken("dataset", classes={0: "air", 1: "liver"}), "without the background 0"),
        ("dataset", broken("dataset", classes={1: "liver/left"}), "'liver/left' holds a /"),
        ("dataset", broken("dataset", folds="disjoint5"), "expected folds to be a FoldScheme"),
        ("dataset", broken("dataset", statistics="scan"), "'volume' or 'training'"),
        ("dataset", broken("dataset", supervoxel_min_size=-1), "None or a positive number"),
    ],
    "check_volumes": [
        ("dataset", with_volume(case=lambda v: "x"), "expected the Volume of phantom_01, got x"),
        ("dataset", with_volume(image=lambda v: v.image.astype(int)), "finite floating-point intensities"),
        ("dataset", with_volume(image=lambda v: v.image * np.nan), "finite floating-point intensities"),
        ("dataset", with_volume(labels=lambda v: v.labels[:1]), "expected uint8 labels of shape"),
        ("dataset", with_volume(labels=lambda v: v.labels + np.uint8(3)), "expected labels within 0 and"),
        ("dataset", with_volume(spacing=lambda v: (0.0, 1.0, 1.0)), "expected a positive spacing"),
    ],
    "check_deterministic": [("dataset", broken("dataset", load=scans_differ), "the same each time it is loaded")],
    # supervoxels
    "check_region_ids": [
        ("supervoxels", changed("supervoxels", lambda regions, *_: regions.astype(np.int64)), "expected int32"),
        ("supervoxels", changed("supervoxels", lambda regions, *_: regions[1:]), "expected int32 of shape"),
        ("supervoxels", changed("supervoxels", lambda regions, *_: regions - 1), "ids from 1"),
        ("supervoxels", changed("supervoxels", lambda regions, *_: np.ones_like(regions)), "at least two regions"),
    ],
    # intensity rules
    "check_statistics_are_declared": [("intensity", broken("intensity", statistics="volume"), "'dataset' or 'training', got 'volume'")],
    "check_measured_values_are_plain": [
        ("intensity", broken("intensity", measure=lambda self, images: images), "measure to return a dictionary, got list"),
        ("intensity", broken("intensity", measure=lambda self, images: {"low": images[0].min()}), "that JSON holds, got Object of type float32"),
        ("intensity", broken("intensity", measure=measure_and_keep, scale=scale_as_kept), "a new instance to scale alike"),
    ],
    "check_scaled_image": [
        ("intensity", broken("intensity", scale=lambda self, image, measured: image.ravel()), "finite numbers of shape \\(1, 32, 32\\), got \\(1024,\\)"),
        ("intensity", broken("intensity", scale=lambda self, image, measured: np.log(image - 1e6)), "some that are not finite"),
    ],
    "check_one_intensity": [
        ("intensity", broken("intensity", scale=lambda self, image, measured: image / image.std()), "an image of one intensity"),
    ],
    "check_order_of_scans": [
        ("intensity", broken("intensity", measure=lambda self, images: {"unit": float(images[0].std())}, scale=lambda self, image, measured: image / measured["unit"]), "scans in another order"),
    ],
    # folds
    "check_scheme": [
        ("folds", broken("folds", __call__=lambda self, dataset: "disjoint5"), "expected a fsseg.FoldScheme, got 'disjoint5'"),
        ("folds", broken("folds", __call__=lambda self, dataset: FoldScheme("", folds=2)), "expected a name for tables"),
        ("folds", broken("folds", __call__=lambda self, dataset: FoldScheme("x", folds=0)), "at least one fold, got 0"),
        ("folds", broken("folds", __call__=lambda self, dataset: Divided("x", folds=3, cases=object())), "of which a hash is made"),
    ],
    "check_every_fold": [
        ("folds", broken("folds", __call__=lambda self, dataset: FoldScheme("x", folds=1)), "no case is left for training"),
        ("folds", dividing(lambda self, cases, index: ["a", "b"]), "there is no case a, b"),
        ("folds", dividing(lambda self, cases, index: cases[:1] * 2), "has case case_01 twice"),
        ("folds", dividing(lambda self, cases, index: cases[:1]), "leave 1 for it"),
    ],
    "check_same_folds_again": [
        ("folds", dividing(lambda self, cases, index: [*np.random.permutation(cases)[:4]]), "expected the same folds each time"),
    ],
    # protocols
    "check_rules": [
        ("protocol", broken("protocol", rules="ep2"), "expected rules, a fsseg.Protocol, got 'ep2'"),
        ("protocol", broken("protocol", rules=Protocol("")), "expected a name for tables"),
        ("protocol", broken("protocol", rules=Choosing("x", word=object())), "of which a hash is made"),
        ("protocol", broken("protocol", __call__=lambda self: Choosing("x", word=random.random())), "the same values from two instances"),
    ],
    "check_choices": [
        ("protocol", choosing(scores_its_support), "it scores slice 4 of case query_1, which is a labelled slice"),
        ("protocol", choosing(lambda self, fold, *_: [Choice(((1, "large"),), "trained", (4,), "query_1")]), "takes case 'trained' as a support"),
        ("protocol", choosing(lambda *_: []), "chooses nothing to segment"),
    ],
    "check_same_choices_again": [
        ("protocol", choosing(lambda self, fold, shown, classes, rng: Choosing.choose(self, fold, shown, classes, rng)[: next(COUNTED) % 3 + 1]), "draw from `rng` alone"),
        ("protocol", choosing(empties), "expected `shown` unchanged"),
    ],
    "check_truth_is_declared": [("protocol", choosing(at_what_the_query_shows), "wherever the query shows the class, got others")],
    # sources of episodes
    "check_classes": [("episodes", broken("episodes", classes="liver"), "a list of names, perhaps empty, got 'liver'")],
    "check_usable_scans": [
        ("episodes", broken("episodes", usable=lambda self, scans: []), "expected some of the 3 scans"),
        ("episodes", broken("episodes", usable=lambda self, scans: list(scans)), "expected a DataError for scans without any region"),
    ],
    "check_pairs": [
        ("episodes", pairing(lambda rng: (0, 1)), "is of tuple, expected"),
        ("episodes", pairing(lambda rng: Pair(Place(9, 0), FIRST, 0, 3)), "has scan 9 as its support"),
        ("episodes", pairing(lambda rng: Pair(FIRST, Place(0, 7), 0, 3)), "has slice 7 as its query"),
        ("episodes", pairing(lambda rng: Pair(Place(0, 4), FIRST, 0, 3)), "that the support shows"),
        ("episodes", changed("episodes", lambda pair, *_: replace(pair, least=0)), "at least 1, got 0"),
    ],
    "check_same_pair": [
        ("episodes", pairing(lambda rng: Pair(Place(0, np.random.randint(5)), FIRST, 0, 3)), "draw from nothing else"),
        ("episodes", pairing(lambda rng: Pair(FIRST, FIRST, 0, 3)), "expected several pairs"),
    ],
    "check_others": [
        ("episodes", broken("episodes", others=lambda self, scan, pair, count, rng: [pair.region]), "other regions that the support shows"),
        ("episodes", broken("episodes", others=lambda self, scan, pair, count, rng: range(len(scan.table.ids))), "expected at most 1 other"),
    ],
    "check_regions": [
        ("episodes", broken("episodes", regions=lambda self, volume, cut: cut()[1:]), r"expected int32 of shape \(5, 32, 32\)"),
        ("episodes", broken("episodes", regions=lambda self, volume, cut: cut().astype(np.int64)), "got int64"),
        ("episodes", broken("episodes", regions=lambda self, volume, cut: -cut()), "expected ids from 1"),
        ("episodes", broken("episodes", regions=lambda self, volume, cut: cut() * np.int32(1 + next(COUNTED) % 5)), "the same regions each time"),
    ],
    # augmentations
    "check_names_of_options": [("loss", Weighted, "got 'weight'"), ("augmentation", Sliced, "than those of the list, got 'slices'")],
    "check_numbers": [
        ("augmentation", drawing(lambda rng: np.zeros((1, 2))), r"on one axis, got shape \(1, 2\)"),
        ("augmentation", drawing(lambda rng: np.array([np.nan, 0])), "expected finite numbers"),
        ("augmentation", drawing(lambda rng: np.random.rand(2)), "draw from nothing else"),
        ("augmentation", drawing(lambda rng: np.zeros(rng.integers(2, 9))), "expected as many numbers each time"),
    ],
    "check_image_and_masks": [
        ("augmentation", changed("augmentation", lambda made, *_: made[0]), "an image and its masks, got Tensor"),
        ("augmentation", flipping(lambda image, masks: (image[..., 1:], masks)), r"the image as torch.float32 of \(32, 32\), got"),
        ("augmentation", flipping(lambda image, masks: (image, masks.float())), "the masks as torch.bool"),
        ("augmentation", flipping(lambda image, masks: (image.log(), masks)), "expected finite intensities"),
        ("augmentation", broken("augmentation", __call__=only_one_channel), r"the image as torch.float32 of \(32, 32\)"),
    ],
    "check_flat_images": [("augmentation", flipping(lambda image, masks: (image / image.std(), masks)), "guard divisions")],
    "check_masks_stay_on_their_image": [
        ("augmentation", flipping(lambda image, masks: (image, masks.flip(-1))), "move masks as you move pixels"),
        ("augmentation", flipping(lambda image, masks: (image, masks & False)), "leave the slice as it was"),
    ],
    "check_host_is_not_asked": [("augmentation", broken("augmentation", __call__=look_at_a_number), "use torch.where in place of if")],
    "check_plainly": [("augmentation", broken("augmentation", plainly=lambda self, image, masks, numbers: (image, masks)), "the same from `plainly`")],
    # metrics
    "check_facts_of_metric": [
        ("metric", broken("metric", best=2.0), "expected best within range"),
        ("metric", broken("metric", unit=None), "expected unit to be a string"),
    ],
    "check_bounds": [("metric", changed("metric", lambda value, *_: 2 * value), "expected a value from 0.0 to 1.0")],
    "check_best_for_a_perfect_prediction": [("metric", changed("metric", lambda value, *_: value / 2), "expected 1.0 for a perfect")],
    "check_symmetry": [
        ("metric", changed("metric", lambda value, predicted, actual, _: value * (1 if predicted.sum() >= actual.sum() else 0.5)), "changed over"),
    ],
    "check_probabilities": [
        ("metric", broken("metric", probabilities="yes"), "true or false, got 'yes'"),
        ("metric", type("Broken", (CalibrationError,), {"__doc__": "Broken.", "__call__": diluted}), "slices that are not segmented"),
    ],
    "check_nan_rule": [
        ("metric", changed("metric", lambda value, *_: np.nan_to_num(value)), "expected NaN where the class is in neither"),
        ("metric", changed("metric", lambda value, *_: np.nan), "expected a number where the class is in both"),
    ],
    # trackers
    "check_hooks_of_a_run": [
        ("tracker", broken("tracker", step_logged=late), "got: .*the hook step_logged|expected a method such as step_logged"),
        ("tracker", broken("tracker", step_logged=hookimpl(lambda self, valeus: None)), r"Argument\(s\) {'valeus'} are declared"),
    ],
    "check_follows_a_run": [("tracker", broken("tracker", run_finished=hookimpl(fail_at_results)), None)],
}  # fmt: skip

CASES = [(name, *case) for name, cases in BROKEN.items() for case in cases]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name, kind, component, sentence",
    CASES,
    ids=[f"{c[0]}-{c[1]}-{n}" for n, c in enumerate(CASES)],
)
def test_a_broken_component_fails_its_check(name, kind, component, sentence, monkeypatch):
    if name == "check_cpu_and_gpu_agree":  # as if the CPU were a GPU
        monkeypatch.setattr(general, "is_accelerator", lambda device: True)
    check = next(check for check in checks_for(component, kind) if check.name == name)
    if sentence is None:  # the component's own exception, or whatever the check says
        with pytest.raises(Exception):  # noqa: B017
            check()
        return
    with pytest.raises(ContractError, match=sentence):
        check()


def test_every_check_has_a_broken_component():
    assert {function.__name__ for kind in KINDS for function in check_functions(kind)} == set(
        BROKEN
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_components_pass(kind):
    failed = [result for result in run_checks(SOUND[kind], kind) if result.status == "failed"]
    assert not failed


def test_a_head_that_sees_the_support_passes():
    assert not [result for result in run_checks(Looking, "head") if result.status == "failed"]


@pytest.mark.parametrize("policy", [Fitted])
def test_a_sound_fitted_policy_passes(policy):
    assert not [result for result in run_checks(policy, "threshold") if result.status == "failed"]


OPTIONS = {
    "episodes/labelled": {"classes": ["first", "second"]},
    "threshold/fixed": {"prior": 0.2},
    "folds/listed": {"lists": [["case_01", "case_02"], ["case_03", "case_04"]]},
    "schedule/StepLR": {"step_size": 3},
    "schedule/MultiStepLR": {"milestones": [2, 5]},
    "schedule/ExponentialLR": {"gamma": 0.9},
    "schedule/CosineAnnealingWarmRestarts": {"T_0": 5},
    "schedule/CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    "schedule/OneCycleLR": {"max_lr": 0.1},
    "backbone/timm": {"model": "resnet10t", "strides": [8], "channels": 16},
    "dataset/abdomen_phantom": PHANTOM,
}
NEED_FILES = {
    "dataset/chaos_t2",
    "dataset/sabs",
    "dataset/cmr",
    "dataset/nifti",
}
LARGE = "backbone/deeplab_resnet101"
# Supervoxels are asked where their compiled code is needed anyway, in test_supervoxels.py.
BUILT_IN = {
    f"{c.kind}/{c.name}"
    for c in registry()
    if c.distribution == "fsseg" and c.kind != "supervoxels"
}


@pytest.mark.parametrize(
    "label",
    [*sorted(BUILT_IN - NEED_FILES - {LARGE}), pytest.param(LARGE, marks=pytest.mark.slow)],
)
def test_the_built_in_components_keep_their_contracts(label):
    failed = [
        result
        for result in run_checks(label, options=OPTIONS.get(label))
        if result.status == "failed"
    ]
    assert not failed


@parametrize_with_checks("threshold/lin_est", options={"location": "none"})
def test_the_checks_as_plugin_authors_run_them(check):
    check()


@parametrize_with_checks(
    broken("threshold", oracle=None),
    kind="threshold",
    expected_failures={"check_oracle_is_declared": "on purpose"},
)
def test_an_expected_failure(check):
    check()


def test_an_expected_failure_of_no_check():
    with pytest.raises(
        FssegError, match="no check 'check_order_of_slicse'.*did you mean 'check_order_of_slices'"
    ):
        parametrize_with_checks(
            "threshold/ce_t", expected_failures={"check_order_of_slicse": "typo"}
        )


def test_results_say_what_became_of_every_check():
    policy = changed("threshold", lambda prior, evidence: prior + evidence.logits.mean())
    results = {
        result.name: (result.status, result.sentence) for result in run_checks(policy, "threshold")
    }
    status, sentence = results["check_common_offset"]
    assert status == "failed" and sentence.startswith(
        "expected the same priors for logits that are all larger by 3"
    )
    assert results["check_constructor"] == ("passed", "")
    assert results["check_fit_comes_first"] == ("skipped", "it is not fitted")


def test_a_components_own_exception_is_a_failure():
    def fails(self, evidence):
        raise ZeroDivisionError("made up")

    result = run_checks(broken("threshold", __call__=fails), "threshold")[-1]
    assert (result.status, result.sentence) == ("failed", "ZeroDivisionError: made up")


def test_nothing_to_check():
    with pytest.raises(
        FssegError, match="there is no kind of component 'treshold'; did you mean 'threshold'"
    ):
        run_checks("treshold/ce_t")
    with pytest.raises(NotApplicable):
        next(
            check for check in checks_for("threshold/ce_t") if check.name == "check_fit_comes_first"
        )()
