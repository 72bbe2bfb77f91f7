"""A fold to evaluate: scans of the phantom at 256 x 256, four organs, and the rows of a table."""

from dataclasses import replace

import torch

from fsseg import AdNet, AvgEst, CeT, EmGmm, LinEst, MaskedAverage, Ocp, Segmenter, Tpm
from fsseg.data.datasets.phantom.dataset import AbdomenPhantom
from fsseg.data.folds import Fold
from fsseg.data.intensity import measure
from fsseg.evaluation.assignments import assign
from fsseg.evaluation.scans import evaluation_scan
from fsseg.model.variants import Variant
from fsseg.recipe.protocols import Protocol
from fsseg.recipe.tables import ComponentTable

FOLD = Fold(0, "phantom_01", ("phantom_02", "phantom_03"), ("phantom_04",))

NETWORKS = {
    "the paper's ResNet-101": ComponentTable(name="deeplab_resnet101", weights="none"),
    "EfficientNet-Lite0": ComponentTable(
        name="timm", model="tf_efficientnet_lite0", strides=[8, 16], channels=256, weights="none"
    ),
}


def network(name):
    """A backbone in evaluation mode; its weights do not matter for the time it takes."""
    return NETWORKS[name].build("backbone").eval()


def scans(slices):
    """The fold's scans, cut (or repeated) to so many slices around the middle."""
    dataset, made = AbdomenPhantom(size=256), {}
    for case in (FOLD.support, *FOLD.queries):
        volume = dataset.load(case)
        scan = evaluation_scan(volume, volume, measure("zscore", [volume.image]))
        middle = len(scan.images) // 2
        at = [
            (middle + offset) % len(scan.images)
            for offset in range(-(slices // 2), slices - slices // 2)
        ]
        made[case] = replace(
            scan,
            images=scan.images[at],
            location=scan.location[at],
            labels=scan.labels[at],
            truth=scan.truth[at],
        )
    return made


def rows(backbone, count=9):
    """ADNet, then TPM with one and with five prototypes and four thresholds each."""
    average, linear = AvgEst(), LinEst()
    average.load_state({"prior": 0.05})
    linear.load_state({"coefficients": [-1.0, 20.0, -3.0]})
    made = [Variant("ADNet", Segmenter(backbone, MaskedAverage(), AdNet(), CeT()).eval(), "adnet")]
    for kind, prototypes in (("1", MaskedAverage()), ("5", EmGmm(count=5))):
        head = Tpm()
        for threshold in (CeT(), average, linear, Ocp()):
            name = f"TPM {kind} {type(threshold).__name__}"
            made.append(
                Variant(name, Segmenter(backbone, prototypes, head, threshold).eval(), kind)
            )
    return made[:count]


def assignments(made):
    """One slice of the support segments every slice of the others, organ by organ."""
    return assign(Protocol("ep2"), FOLD, made, AbdomenPhantom().classes, seed=0)


def distinct_images(made, assigned):
    """Every slice that the fold needs, once."""
    places = {(a.support_case, number) for a in assigned for number in a.support_slices}
    support = torch.stack([made[case].images[number] for case, number in sorted(places)])
    return torch.cat([support, *(made[case].images for case in FOLD.queries)])
