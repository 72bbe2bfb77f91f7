import torch

from fsseg import MaskedAverage, Prototypes, registry
from fsseg.testing import parametrize_with_checks
from fsseg_ppnet.ppnet import cluster


@parametrize_with_checks(
    "prototypes/kmeans_parts",
    expected_failures={"check_order_of_pixels": "features are resized to twice their grid"},
)
def test_contract_of_the_prototypes(check):
    check()


@parametrize_with_checks("head/ppnet")
def test_contract_of_the_head(check):
    check()


def test_clusters_of_blobs_are_the_blobs():
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(5, 8, generator=generator)
    members = torch.arange(5).repeat_interleave(torch.tensor([3, 40, 7, 20, 11]))
    vectors = centres[members] + 0.1 * torch.randn(len(members), 8, generator=generator)
    found = cluster(vectors, 5, 10)
    for blob in range(5):
        assert len(found[members == blob].unique()) == 1
    assert len(found.unique()) == 5


def test_clustering_ends_where_k_means_ends():
    """No vector is nearer to another centre than to its own cluster's mean."""
    vectors = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    found = cluster(vectors, 5, 100)
    means = torch.stack([vectors[found == k].mean(dim=0) for k in range(5)])
    assert torch.equal(torch.cdist(vectors, means).argmin(dim=1), found)


def test_fewer_vectors_than_clusters():
    assert cluster(torch.randn(2, 4), 5, 10).tolist() in ([0, 1], [1, 0])


def test_centres_are_means_of_their_members_drawn_towards_the_mean_of_all():
    """Two halves with one feature each, on a grid fine enough that resizing blurs only the border between them."""
    left, right = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    features = torch.where(
        torch.arange(16)[None, None, :] < 8, left[:, None, None], right[:, None, None]
    )
    features = features.expand(3, 16, 16)[None, None].contiguous()
    masks = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    masks[..., 7:9] = False
    options = {"count": 2, "global_weight": 0.8}
    made = registry().build("prototypes", "kmeans_parts", options)(features, masks)
    mean = MaskedAverage()(features, masks).foreground[0, 0]
    expected = torch.stack([left, right]) + 0.8 * mean
    near = torch.cdist(made.foreground[0], expected)
    assert near.amin(dim=1).max() < 0.05 and near.amin(dim=0).max() < 0.05


def test_a_small_object_is_clustered_by_pixels():
    features = torch.randn(1, 1, 3, 8, 8)
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    masks[0, 0, 8:11, 8:11] = True  # nine pixels, four at most on the grid of 16 x 16
    made = registry().build("prototypes", "kmeans_parts", {"global_weight": 0.0})(features, masks)
    fine = torch.nn.functional.interpolate(
        features[0], (32, 32), mode="bilinear", align_corners=True
    )[0]
    pixels = fine[:, masks[0, 0]].T
    weighted = torch.stack([pixels[cluster(pixels, 5, 10) == k].mean(dim=0) for k in range(5)])
    torch.testing.assert_close(made.foreground[0], weighted)


def test_gradients_pass_through_the_means():
    features = torch.randn(1, 1, 3, 8, 8, requires_grad=True)
    masks = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    masks[0, 0, 2:6, 2:6] = True
    registry().build("prototypes", "kmeans_parts", {})(features, masks).foreground.sum().backward()
    assert features.grad.isfinite().all() and features.grad[0, 0, :, 3, 3].abs().min() > 0


def test_the_nearest_part_decides():
    head = registry().build("head", "ppnet", {})
    features, foreground, background = (
        torch.randn(2, 5, 3, 3),
        torch.randn(2, 4, 5),
        torch.randn(3, 5),
    )
    weights = torch.tensor([[0.25] * 4, [0.5, 0.5, 0.0, 0.0]])
    logits = head(features, Prototypes(foreground, weights, background))
    f = features[1, :, 2, 1]
    for c, rows in enumerate([background, foreground[0], foreground[1, :2]]):
        expected = 20 * max(torch.nn.functional.cosine_similarity(f, row, dim=0) for row in rows)
        torch.testing.assert_close(logits[1, c, 2, 1], expected)
