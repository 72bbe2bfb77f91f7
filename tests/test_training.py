"""The fast path of training against the plain one; what needs a GPU is skipped without one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import TinyBackbone, block_scan, published_rules
from torch import nn

import fsseg.model.ops
from fsseg import registry
from fsseg.data.supervoxels.regions import count_regions
from fsseg.model.heads import AdNet, Tpm
from fsseg.model.prototypes import EmGmm, MaskedAverage
from fsseg.recipe.tables import SpeedTable, TrainingTable
from fsseg.system.devices import PLAIN_RUNS, Recorded, gains_from_bfloat16, pick_device, wait_free
from fsseg.system.progress import Silent
from fsseg.testing.reads import HostReads
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.loop import Training, train_together
from fsseg.training.snapshots import read_snapshot, write_snapshot
from fsseg.training.speed import choose_speed

CPU = torch.device("cpu")
PLAIN = SpeedTable(precision="float32", capture="off", channels_last=False, fused=False)
FAST = SpeedTable(precision="float32", capture="on")
EVERY_LOSS = [{"name": name} for name in registry().names("loss")]
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no GPU on this machine"
)


EVERY_AUGMENTATION = [
    {"name": name, "slices": slices, "chance": 0.7}
    for name in registry().names("augmentation")
    for slices in ("either", "both")
]


def sampler(scans=2, **rules):
    """Scans of 16 square regions, so that episodes may have several classes, some of which a warp makes too small."""
    made = []
    for seed in range(scans):
        row = np.arange(64) // 16
        regions = np.repeat((1 + row[:, None] * 4 + row)[None], 5, axis=0).astype(np.int32)
        regions[1::2, 61:] = 0
        scan = block_scan(str(seed), slices=5, size=64, seed=seed)
        made.append(
            replace(scan, supervoxels=torch.from_numpy(regions), table=count_regions(regions))
        )
    return EpisodeSampler(made, published_rules(min_pixels=180, zoom=(0.9, 1.1), **rules))


def training(speed, *, head=Tpm, classes=1, steps=20, seed=0, device=CPU, scans=None, **options):
    torch.manual_seed(0)
    backbone, options = (
        TinyBackbone().to(device),
        TrainingTable(classes=classes, steps=steps, learning_rate=1e-2, **options),
    )
    return Training(
        backbone, MaskedAverage(), head().to(device), scans or sampler(), options,
        seed=seed, mode="default", device=device, speed=speed,
    )  # fmt: skip


def weights(done):
    return torch.cat(
        [
            value.detach().cpu().float().flatten()
            for m in (done.backbone, done.head)
            for value in m.state_dict().values()
        ]
    )


def losses(done):
    return np.array(
        [[r["query"], r["alignment"], r["score_threshold"]] for r in done.log.records()]
    )


@pytest.mark.parametrize("head, classes", [(Tpm, 1), (AdNet, 1), (Tpm, 4)])
def test_the_fast_and_the_plain_path_train_alike(head, classes):
    """All fast parts against none: ways filled up, all warps worked out, fused updates, channels last; 20 steps."""
    plain, fast = train_together(
        [
            training(speed, head=head, classes=classes, steps=25, t_loss=0.1)
            for speed in (PLAIN, FAST)
        ]
    )
    assert fast.speed.capture and not plain.speed.capture and plain.step == fast.step == 25
    assert losses(plain) == pytest.approx(losses(fast), abs=1e-4)
    assert (weights(plain) - weights(fast)).abs().max() < 1e-4
    assert (weights(plain) - weights(training(PLAIN))).abs().max() > 1e-2, (
        "and the weights did move"
    )


def test_several_trainings_at_a_time_are_those_one_by_one():
    alone = [
        train_together([training(SpeedTable(), steps=steps, seed=seed)])[0]
        for seed, steps in ((0, 6), (1, 9))
    ]
    together = train_together(
        [training(SpeedTable(), steps=steps, seed=seed) for seed, steps in ((0, 6), (1, 9))]
    )
    for one, other in zip(alone, together):
        assert torch.equal(weights(one), weights(other)) and one.step == other.step
    assert not torch.equal(weights(together[0]), weights(together[1]))


def test_a_step_that_is_replayed_reads_what_is_put_in_place():
    """A stand-in records: after the plain runs the very same function runs, on the same tensors, once per step."""
    usual, recorded = training(FAST, steps=8), training(FAST, steps=8)
    made = []
    recorded._recorded = Recorded(
        recorded._update_in_place, CPU, record=lambda function: made.append(function) or function
    )
    parts = []
    for _ in range(8):
        usual.advance()
        recorded.advance()
        parts.append(recorded._ingredients)
    assert len(made) == 1 and all(one is parts[0] for one in parts)
    assert torch.equal(weights(usual), weights(recorded))


@pytest.mark.parametrize(
    "head, classes, rules, options",
    [
        (Tpm, 1, {}, {}),
        (AdNet, 1, {}, {}),
        (Tpm, 4, {}, {"losses": EVERY_LOSS}),
        (Tpm, 4, {"augmentations": EVERY_AUGMENTATION}, {}),
    ],
)
def test_a_recorded_step_asks_the_host_for_nothing(head, classes, rules, options, monkeypatch):
    """On the CPU, by the operations themselves; the ideal prior as on other devices."""
    monkeypatch.setattr(fsseg.model.ops, "nth_largest", fsseg.model.ops.nth_by_counting)
    fast, plain = (
        training(speed, head=head, classes=classes, scans=sampler(**rules), **options)
        for speed in (FAST, PLAIN)
    )
    fast.advance()
    with HostReads() as reads:
        fast._update_in_place()
    assert not reads.seen
    with HostReads() as reads:
        plain.advance()
    assert reads.seen, "the plain path asks how many ways are left"


def test_what_cannot_be_recorded_runs_plain():
    ran = []

    def refuse(function):
        raise RuntimeError("operation not permitted when stream is capturing\nsome detail")

    recorded = Recorded(lambda: ran.append(1), CPU, record=refuse)
    for _ in range(PLAIN_RUNS + 4):
        recorded()
    assert (
        len(ran) == PLAIN_RUNS + 4
        and recorded.problem == "operation not permitted when stream is capturing"
    )


def test_people_are_told_what_could_not_be_recorded():
    def refuse(function):
        raise RuntimeError("operation not permitted")

    class Notes(Silent):
        def __init__(self):
            self.said = []

        def note(self, text):
            self.said.append(text)

    alike, notes = [training(FAST, steps=6, seed=seed) for seed in (0, 1)], Notes()
    for one in alike:
        one._recorded = Recorded(one._update_in_place, CPU, record=refuse)
    train_together(alike, notes)
    [said] = notes.said
    assert "could not be recorded and ran plain, which is slower (operation not permitted)" in said
    train_together([training(FAST, steps=6)], notes)
    assert len(notes.said) == 1


def test_recording_replaces_running():
    """Each call is one step, whether plain or replayed; recording itself runs nothing."""
    ran = []
    recorded = Recorded(
        lambda: ran.append("plain"), CPU, record=lambda _: lambda: ran.append("replayed")
    )
    for _ in range(PLAIN_RUNS + 2):
        recorded()
    assert ran == ["plain"] * PLAIN_RUNS + ["replayed"] * 2 and recorded.problem is None


def test_what_is_chosen():
    scans, backbone = sampler(), TinyBackbone()
    chosen = choose_speed(SpeedTable(), CPU, backbone, [MaskedAverage(), None], scans)
    assert not chosen.capture and chosen.channels_last and chosen.fused
    assert choose_speed(FAST, CPU, backbone, [MaskedAverage()], scans).capture
    assert not choose_speed(FAST, CPU, backbone, [EmGmm()], scans).capture, "EM asks the host"
    mixed = EpisodeSampler([block_scan(size=32), block_scan("b", size=48)], published_rules())
    assert not choose_speed(FAST, CPU, backbone, [MaskedAverage()], mixed).capture, (
        "slices of several sizes"
    )


def test_bfloat16_is_chosen_where_it_is_faster(monkeypatch):
    dense, depthwise = nn.Conv2d(4, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert gains_from_bfloat16(CPU, dense) and not gains_from_bfloat16(CPU, depthwise)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not gains_from_bfloat16(CPU, dense)


@pytest.mark.slow
def test_bfloat16_trains_within_a_band_of_float32():
    """The network alone is in bfloat16 (8 bits): losses of 50 steps differ by less than 5 %, weights stay float32."""
    full, half = (
        train_together([training(SpeedTable(precision=precision), steps=50)])[0]
        for precision in ("float32", "bfloat16")
    )
    assert losses(half)[:, 0] == pytest.approx(losses(full)[:, 0], rel=0.05)
    assert not torch.equal(weights(full), weights(half))
    assert {value.dtype for value in half.backbone.parameters()} == {torch.float32}


@needs_gpu
@pytest.mark.parametrize("classes", [1, 4])
def test_a_gpu_step_never_waits(classes):
    """25 steps, the last 22 of which are replayed, under torch's sync debug mode."""
    device = pick_device("cuda")
    done = training(SpeedTable(precision="float32"), classes=classes, steps=60, device=device)
    for _ in range(PLAIN_RUNS + 1):  # recording itself waits
        done.advance()
    assert done._recorded.problem is None
    with wait_free(device):
        for _ in range(25):
            done.advance()


@needs_gpu
def test_a_gpu_trains_like_the_cpu():
    device = pick_device("cuda")
    on_cpu = train_together([training(PLAIN, steps=25)])[0]
    on_gpu = train_together([training(SpeedTable(precision="float32"), steps=25, device=device)])[0]
    half = train_together([training(SpeedTable(precision="bfloat16"), steps=25, device=device)])[0]
    assert losses(on_gpu) == pytest.approx(losses(on_cpu), rel=5e-3)
    assert losses(half)[:, 0] == pytest.approx(losses(on_cpu)[:, 0], rel=0.05)


@needs_gpu
def test_gpu_trainings_at_a_time_are_those_one_by_one():
    device = pick_device("cuda")
    speed = SpeedTable(precision="float32")
    alone = [train_together([training(speed, seed=seed, device=device)])[0] for seed in (0, 1)]
    together = train_together([training(speed, seed=seed, device=device) for seed in (0, 1)])
    for one, other in zip(alone, together):
        assert (weights(one) - weights(other)).abs().max() < 1e-3


@needs_gpu
def test_a_gpu_training_goes_on_where_it_was_saved(tmp_path):
    """The same episodes, and losses within half a percent: a GPU may add in another order."""
    device = pick_device("cuda")
    speed = SpeedTable(precision="float32")
    whole = train_together([training(speed, steps=50, device=device)])[0]
    first = training(speed, steps=50, device=device)
    for _ in range(20):
        first.advance()
    write_snapshot(tmp_path / "saved.safetensors", first.snapshot())
    second = training(speed, steps=50, device=device)
    second.restore(read_snapshot(tmp_path / "saved.safetensors"))
    assert second.step == 20
    assert losses(train_together([second])[0]) == pytest.approx(losses(whole), rel=5e-3)


def test_a_training_of_fixed_shapes_goes_on_where_it_was_saved(tmp_path):
    """The path that a GPU takes, on the CPU: the same bits."""
    speed = SpeedTable(precision="float32", capture="on")
    whole = train_together([training(speed, steps=30)])[0]
    first = training(speed, steps=30)
    for _ in range(12):
        first.advance()
    write_snapshot(tmp_path / "saved.safetensors", first.snapshot())
    second = training(speed, steps=30)
    second.restore(read_snapshot(tmp_path / "saved.safetensors"))
    assert (
        torch.equal(weights(train_together([second])[0]), weights(whole)) and second.speed.capture
    )
