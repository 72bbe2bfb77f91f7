import pytest
import torch

from fsseg import FssegError, Prototypes, registry
from fsseg.testing import parametrize_with_checks


@parametrize_with_checks("prototypes/panet")
def test_contract_of_the_prototypes(check):
    check()


@parametrize_with_checks("head/panet")
def test_contract_of_the_head(check):
    check()


def test_both_sides_are_means_under_their_masks():
    """At feature resolution the resize does nothing, and the means can be taken by hand."""
    features = torch.randn(2, 1, 3, 4, 4)
    features[1] = features[0]
    masks = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    masks[0, 0, 0, :2], masks[1, 0, 3, :3] = True, True
    made = registry().build("prototypes", "panet", {})(features, masks)
    for way in range(2):
        expected = features[way, 0, :, masks[way, 0]].mean(dim=1)
        torch.testing.assert_close(made.foreground[way, 0], expected, atol=1e-4, rtol=1e-4)
    outside = ~(masks[0, 0] | masks[1, 0])
    torch.testing.assert_close(
        made.background[0], features[0, 0, :, outside].mean(dim=1), atol=1e-4, rtol=1e-4
    )


def test_shots_count_alike_whatever_their_area():
    features = torch.stack([torch.ones(2, 4, 4), 3 * torch.ones(2, 4, 4)])[None]
    masks = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    masks[0, 0, 0, 0], masks[0, 1] = True, True
    made = registry().build("prototypes", "panet", {})(features, masks)
    torch.testing.assert_close(made.foreground[0, 0], torch.full((2,), 2.0), atol=1e-3, rtol=1e-3)


def test_the_logits_are_twenty_cosines():
    head = registry().build("head", "panet", {})
    features, foreground, background = (
        torch.randn(2, 5, 3, 3),
        torch.randn(2, 1, 5),
        torch.randn(1, 5),
    )
    logits = head(features, Prototypes(foreground, torch.ones(2, 1), background))
    rows = [background[0], foreground[0, 0], foreground[1, 0]]
    for c, row in enumerate(rows):
        for y in range(3):
            for x in range(3):
                expected = 20 * torch.nn.functional.cosine_similarity(
                    features[1, :, y, x], row, dim=0
                )
                torch.testing.assert_close(logits[1, c, y, x], expected)


def test_it_needs_a_background():
    head = registry().build("head", "panet", {})
    with pytest.raises(
        FssegError,
        match='and no background, expected one and a background; use prototypes = "panet"',
    ):
        head(torch.randn(1, 5, 3, 3), Prototypes(torch.randn(1, 1, 5), torch.ones(1, 1)))
