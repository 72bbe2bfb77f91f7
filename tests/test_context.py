"""Neighbouring slices and several channels: what a backbone is given, in training, evaluation and prediction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import PROTOCOLS, TIMM, TinyBackbone, block_scan, published_rules, scans_of
from torch import nn

import fsseg
from fsseg import DataError, FssegError, TimmBackbone
from fsseg.data.folds import Fold
from fsseg.data.grids import WorkingGrid
from fsseg.evaluation.assignments import assign, tasks_of
from fsseg.evaluation.features import SliceFeatures
from fsseg.evaluation.scans import EvaluationScan
from fsseg.model.backbones.channels import fit_channels
from fsseg.model.inputs import network_input, with_context
from fsseg.model.segmenter import encode
from fsseg.training.episodes import EpisodeSampler, episode_rng
from fsseg.training.slices import neighbours


def plain_context(images, context):
    """Slice by slice, channel by channel."""
    last = len(images) - 1
    slices = []
    for number in range(len(images)):
        channels = []
        for offset in range(-context, context + 1):
            neighbour = images[min(max(number + offset, 0), last)]
            channels += [neighbour] if neighbour.ndim == 2 else list(neighbour)
        slices.append(torch.stack(channels))
    return torch.stack(slices)


@pytest.mark.parametrize("shape", [(5, 3, 4), (5, 2, 3, 4), (1, 3, 4)])
@pytest.mark.parametrize("context", [1, 3])
def test_neighbours_are_channels(shape, context):
    images = torch.randn(shape)
    found = with_context(images, context)
    assert torch.equal(found, plain_context(images, context))
    assert with_context(images, 0) is images


def test_neighbours_take_no_memory_of_their_own():
    images = torch.randn(20, 8, 8)
    found = with_context(images, 2)
    assert found.shape == (20, 5, 8, 8) and found.untyped_storage().nbytes() == 24 * 64 * 4


@pytest.mark.parametrize("how", ["first_layer", "linear"])
@pytest.mark.parametrize(
    "options", [{"context": 2}, {"in_channels": 4}, {"context": 1, "in_channels": 2}]
)
def test_equal_channels_are_one_channel(how, options):
    """A backbone for several channels begins as the one for photographs, where the channels are the same."""
    network = {"model": "resnet18", "strides": [8], "channels": 16}
    plain = TimmBackbone(**network).eval()
    wide = TimmBackbone(**network, **options, channel_map=how).eval()
    image = torch.randn(2, 32, 32)
    count = wide.in_channels * (2 * wide.context + 1)
    with torch.no_grad():
        expected = encode(plain, image)
        found = encode(wide, image[:, None].repeat(1, count, 1, 1))
    assert torch.allclose(found, expected, atol=1e-4)
    neighbour = image[:, None].repeat(1, count, 1, 1)
    neighbour[:, 0] = 9
    with torch.no_grad():
        sees_it = not torch.equal(encode(wide, neighbour), found)
    assert sees_it is (
        wide.context == 0
    )  # the weights of neighbours begin at 0, and have a gradient
    encode(wide, neighbour).square().sum().backward()
    first = next(
        part for part in wide.modules() if isinstance(part, nn.Conv2d) and part.in_channels == count
    )
    assert (first.weight.grad[:, 0] != 0).any()


def test_three_channels_are_the_networks_own():
    """With one neighbour on each side the first layer sees the slices as the three colours that it was trained on."""
    backbone = TimmBackbone(model="resnet18", strides=[8], channels=16, context=1).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(encode(backbone, images), backbone(images))
        assert not torch.allclose(backbone(images), backbone(images.flip(1)), atol=1e-3)


def test_a_network_that_cannot_be_widened_is_a_sentence():
    with pytest.raises(
        FssegError,
        match='begin with a convolution of three channels.* for 5; set channel_map to "linear"',
    ):
        fit_channels(nn.Sequential(nn.Linear(3, 3)), 5, 0, "first_layer")


@pytest.mark.parametrize(
    "attributes, shape, told",
    [
        (
            {},
            (2, 4, 8, 8),
            r"got images of 4 channels, expected 1 \(in_channels = 1\); set in_channels of the backbone to 4",
        ),
        (
            {"in_channels": 3},
            (2, 8, 8),
            r"got images of 1 channels, expected 3 \(in_channels = 3\)",
        ),
        (
            {"context": 1},
            (2, 8, 8),
            r"expected 3 \(in_channels = 1 for each of 3 neighbouring slices\); give slices with",
        ),
    ],
)
def test_other_channels_than_a_backbone_wants(attributes, shape, told):
    backbone = TinyBackbone()
    vars(backbone).update(attributes)
    with pytest.raises(DataError, match=told):
        network_input(backbone, torch.zeros(shape))


def shifted(scan, by):
    """The scan whose slices show their neighbours instead, with the same regions."""
    last = len(scan.images) - 1
    numbers = [min(max(number + by, 0), last) for number in range(last + 1)]
    return replace(scan, images=scan.images[numbers])


def test_neighbours_are_augmented_as_the_slice():
    """Each channel is the slice of an episode with the same draw of a scan in which the neighbours have its place."""
    scan = block_scan()
    options = published_rules(min_pixels=20, min_slice_pixels=5)
    sampler = EpisodeSampler([scan], options, context=2)
    for number in range(8):
        draw = sampler.draw(episode_rng(1, 1, number), 2)
        episode = sampler.make(draw)
        assert episode.support.images.shape[2:] == (5, 32, 32) and episode.query.images.shape == (
            1,
            5,
            32,
            32,
        )
        for channel, by in enumerate((-2, -1, 0, 1, 2)):
            alone = EpisodeSampler([shifted(scan, by)], options).make(draw)
            assert torch.allclose(
                episode.support.images[:, :, channel], alone.support.images, atol=1e-6
            )
            assert torch.allclose(episode.query.images[:, channel], alone.query.images, atol=1e-6)
            assert torch.equal(episode.support.masks, alone.support.masks)
            assert torch.equal(episode.target, alone.target)


def test_slices_that_are_hidden_are_nobodys_neighbours():
    scan = block_scan(slices=6)
    counts = scan.table.counts.copy()
    counts[:, 3] = 0
    scan = replace(scan, table=replace(scan.table, counts=counts))
    assert neighbours(scan, 2, 2, hides=True) == [0, 1, 2, 2, 2]
    assert neighbours(scan, 2, 2, hides=False) == [0, 1, 2, 3, 4]
    assert neighbours(scan, 5, 2, hides=True) == [4, 4, 5, 5, 5]
    images = torch.arange(6.0)[:, None, None].expand(6, 32, 32).contiguous()
    options = published_rules(min_pixels=20, min_slice_pixels=5, setting=2, gamma=(1.0, 1.0))
    sampler = EpisodeSampler([replace(scan, images=images, fill=2.0)], options, context=1)
    for number in range(20):
        episode = sampler.make(sampler.draw(episode_rng(0, 1, number)))
        middles = [episode.support.images[0, 0, :, 16, 16], episode.query.images[0, :, 16, 16]]
        assert all((abs(middle - 3) > 0.4).all() for middle in middles)


class Counting(TinyBackbone):
    """A backbone that sees neighbours, and keeps what it was called with."""

    context = 1

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen += list(images)
        return super().forward(images)


def test_an_evaluation_encodes_each_slice_once_with_its_neighbours():
    images = torch.randn(5, 16, 16)
    labels = torch.zeros(5, 16, 16, dtype=torch.uint8)
    labels[1:4, 4:12, 4:12] = 1
    grid = WorkingGrid((16, 16), (16, 16), (16, 16))
    location = torch.linspace(0, 1, 5)
    scans = {
        case: EvaluationScan(case, images + shift, location, labels, labels, grid)
        for shift, case in enumerate("ab")
    }
    fold = Fold(0, "a", ("b",), ())
    assigned = assign(PROTOCOLS["ep2"], fold, scans, {1: "organ"}, seed=0)
    backbone = Counting().eval()
    with torch.no_grad():
        features = SliceFeatures(backbone, scans, assigned, torch.device("cpu"))
        of_query = [part for part in assigned if part.query_case == "b"]
        encoded = features.of_query(scans["b"], tasks_of(of_query))
        expected = TinyBackbone.forward(backbone, plain_context(images + 1, 1))
    assert torch.allclose(encoded.features, expected)
    assert len(backbone.seen) == 1 + 5  # one slice of the support, and each of the query


def test_a_run_with_neighbours_predicts_and_exports_alike(finished_run, tmp_path):
    backbone = TIMM | {"context": 2, "channels": 8, "strides": [8]}
    results = finished_run({"backbone": backbone, "training.steps": 2, "calibration.episodes": 4})
    root = scans_of(results)
    support = fsseg.read_volume(root / "image_10.nii.gz", root / "label_10.nii.gz")
    query = fsseg.read_volume(root / "image_2.nii.gz")
    exported = fsseg.export_predictor(results.path, tmp_path / "a.safetensors", variant="LinEst")
    maps = []
    for source in (results.path, exported):
        predictor = fsseg.load_predictor(source, variant="LinEst", device="cpu")
        assert predictor.segmenter.backbone.network.conv_stem.in_channels == 5
        maps.append(predictor.fit(support).predict(query).margins[1])
    assert np.array_equal(*maps)
    # A slice's neighbours count: without the slices around it, it is another one.
    changed = replace(
        query, image=np.where(np.arange(5)[:, None, None] == 2, query.image, query.image[::-1])
    )
    predictor = fsseg.load_predictor(exported, device="cpu")
    assert not np.array_equal(predictor.fit(support).predict(changed).margins[1][2], maps[0][2])
