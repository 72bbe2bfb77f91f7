import math

import pytest
import torch

from fsseg import Prototypes, registry
from fsseg.testing import parametrize_with_checks


@parametrize_with_checks(
    "prototypes/alp",
    expected_failures={"check_order_of_pixels": "it pools over windows, which are places"},
)
def test_contract_of_the_prototypes(check):
    check()


@parametrize_with_checks("head/alpnet")
def test_contract_of_the_head(check):
    check()


def extract(features, masks, **options):
    return registry().build("prototypes", "alp", options)(features, masks)


def slow_windows(features, covered, side):
    """Means of the windows that are covered by more than 0.95, one by one."""
    found = []
    for y in range(0, features.shape[1] - side + 1, side):
        for x in range(0, features.shape[2] - side + 1, side):
            if covered[y : y + side, x : x + side].mean() > 0.95:
                found.append(features[:, y : y + side, x : x + side].mean(dim=(1, 2)))
    return found


@pytest.mark.parametrize("side", [2, 4])
def test_windows_within_the_mask_and_its_mean(side):
    features = torch.randn(1, 2, 6, 9, 9)
    masks = torch.zeros(1, 2, 9, 9, dtype=torch.bool)
    masks[0, 0, 0:6, 0:5], masks[0, 1, 4:9, 2:9] = True, True
    made = extract(features, masks, window=side)
    expected = [
        row
        for shot in range(2)
        for row in slow_windows(features[0, shot], masks[0, shot].float(), side)
    ]
    expected += [features[0, shot][:, masks[0, shot]].mean(dim=1) for shot in range(2)]
    torch.testing.assert_close(made.foreground[0], torch.stack(expected), atol=1e-4, rtol=1e-4)
    outside = ~masks.any(dim=0).float().bool()
    background = [
        row
        for shot in range(2)
        for row in slow_windows(features[0, shot], outside[shot].float(), side)
    ]
    torch.testing.assert_close(made.background, torch.stack(background), atol=1e-4, rtol=1e-4)


def test_a_mask_is_resized_to_the_mean_of_its_four_central_pixels():
    """Of an 8 x 8 block, as bilinear interpolation from 32 to 4 looks at them."""
    features = torch.randn(1, 1, 3, 4, 4)
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    masks[0, 0, 3, 3:5] = True  # two of the four of the first cell
    masks[0, 0, 8:16, 8:16] = True
    made = extract(features, masks, window=4)
    expected = (0.5 * features[0, 0, :, 0, 0] + features[0, 0, :, 1, 1]) / 1.5
    torch.testing.assert_close(made.foreground[0, 0], expected, atol=1e-4, rtol=1e-4)


def test_an_organ_without_a_window_has_its_mean_alone():
    features = torch.randn(1, 1, 3, 8, 8)
    masks = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    masks[0, 0, 2:4, 2:4] = True
    assert extract(features, masks, window=2).foreground.shape[1] == 2
    assert extract(features, masks, window=2, fallback_window=4).foreground.shape[1] == 1
    assert extract(features, masks, window=4).foreground.shape[1] == 1


def test_ways_of_different_numbers_are_padded_with_weight_0():
    features = torch.randn(2, 1, 3, 8, 8)
    masks = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    masks[0, 0, :4, :8], masks[1, 0, 6, 6] = True, True
    made = extract(features, masks, window=4)
    torch.testing.assert_close(made.weights, torch.tensor([[1 / 3] * 3, [1.0, 0.0, 0.0]]))


def test_the_soft_maximum():
    """One cosine 0.4 above ten rivals loses 0.03 of 20; repeating a set changes nothing."""
    head = registry().build("head", "alpnet", {})
    near, far = math.cos(0.5), math.cos(0.5) - 0.4
    rows = [[near, math.sqrt(1 - near**2)]] + 10 * [[far, math.sqrt(1 - far**2)]]
    features = torch.tensor([1.0, 0.0])[None, :, None, None]
    background = torch.tensor([[0.0, 1.0]])

    def logit(vectors):
        weights = torch.full((1, len(vectors)), 1 / len(vectors))
        return head(features, Prototypes(torch.tensor([vectors]), weights, background))[0, 1].item()

    shares = math.exp(8) / (math.exp(8) + 10)
    expected = 20 * (shares * near + (1 - shares) * far)
    assert logit(rows) == pytest.approx(expected, abs=1e-3) and 20 * near - logit(
        rows
    ) == pytest.approx(0.027, abs=2e-3)
    assert logit(rows + rows) == pytest.approx(logit(rows), abs=1e-4)
