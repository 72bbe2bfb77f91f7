"""A segmenter says which of its parts is not what it should be, and shows what it is made of."""

import doctest
import importlib

import pytest
import torch
from helpers import NoBackbone

from fsseg import CeT, EmGmm, FssegError, LinEst, MaskedAverage, Segmenter, Smooth3d, Tpm


class Plain:
    """A foreign extractor, which declares nothing."""

    def __call__(self, features, masks, sigma):
        return MaskedAverage()(features, masks, sigma)


PARTS = {
    "backbone": NoBackbone(),
    "prototypes": MaskedAverage(),
    "head": Tpm(),
    "threshold": CeT(),
}


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch):
    """The tests' own type checker would be first to complain."""
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)


@pytest.mark.parametrize(
    "changes, expected",
    [
        (
            {"head": CeT(), "threshold": Tpm()},
            "got the threshold CeT as head and the head Tpm as threshold, which look swapped; "
            "expected Segmenter(backbone, prototypes, head, threshold)",
        ),
        (
            {"backbone": MaskedAverage(), "prototypes": NoBackbone()},
            "got the prototypes MaskedAverage as backbone and the backbone NoBackbone as prototypes, which look",
        ),
        (
            {"backbone": CeT(), "head": NoBackbone(), "threshold": Tpm()},
            "got the threshold CeT as backbone and the backbone NoBackbone as head and the head Tpm as threshold, "
            "which look swapped",
        ),
        (
            {"threshold": MaskedAverage(), "head": CeT()},
            "got the threshold CeT as head, which lacks score and sigma, expected an object such as Tpm() (see "
            "fsseg.interfaces.Head); got the prototypes MaskedAverage as threshold, which lacks oracle, expected",
        ),
        ({"head": Tpm}, "got the class Tpm as head, expected an object such as Tpm()"),
        ({"prototypes": EmGmm}, "got the class EmGmm as prototypes, expected an object such as"),
        ({"backbone": "timm"}, "got 'timm' as backbone, expected an object such as TimmBackbone()"),
        (
            {"threshold": lambda evidence: 0},
            "got a function as threshold, which lacks oracle, expected",
        ),
        (
            {"prototypes": Smooth3d()},
            "got a Smooth3d as prototypes, expected an object such as Masked",
        ),
        ({"prototypes": 3}, "got a int as prototypes"),
        (
            {"refiners": Smooth3d()},
            "got a Smooth3d as refiners, expected a list such as [Smooth3d()]",
        ),
        (
            {"refiners": [Smooth3d(), CeT()]},
            "got the threshold CeT as refiner, expected an object such",
        ),
        ({"refiners": [Smooth3d]}, "got the class Smooth3d as refiner"),
        ({"mode": "refrence"}, "there is no mode 'refrence'; did you mean 'reference'?"),
    ],
)
def test_parts_in_the_wrong_place_are_named(changes, expected):
    with pytest.raises(FssegError) as caught:
        Segmenter(**PARTS | changes)
    assert str(caught.value).startswith(f"Segmenter: {expected}"), caught.value


def test_parts_that_fit_are_taken():
    plain = Plain()
    segmenter = Segmenter(
        **PARTS | {"prototypes": plain}, refiners=[lambda margins, volume: margins]
    )
    assert segmenter.prototypes is plain and len(segmenter.refiners) == 1


def test_its_repr_shows_the_parts_with_their_options():
    segmenter = Segmenter(
        NoBackbone(), EmGmm(count=3), Tpm(alpha=12), LinEst(), refiners=[Smooth3d(within=2.0)]
    )
    text = repr(segmenter)
    assert text.startswith("Segmenter(\n  backbone=NoBackbone(),\n  prototypes=EmGmm(count=3, ")
    assert "\n  head=Tpm(alpha=12.0, " in text
    assert "\n  threshold=LinEst(location='query', " in text
    assert "\n  refiners=(Smooth3d(through=6.0, within=2.0),),\n  mode='default',\n)" in text


@pytest.mark.parametrize(
    "name",
    ["backbones.timm", "estimates", "heads", "prototypes", "refiners", "segmenter", "thresholds"],
)
def test_examples_in_docstrings(name):
    ran = doctest.testmod(importlib.import_module(f"fsseg.model.{name}"))
    assert ran.attempted and not ran.failed


def test_every_option_of_a_component_is_checked_from_python():
    """One for each file: that they are held against the constructor is the decorator's own test."""
    for build, sentence in [
        (lambda: EmGmm(count=0), "EmGmm: count: expected greater than or equal to 1, got 0"),
        (lambda: Tpm(alpha="20"), "Tpm: alpha: expected a valid number, got '20'"),
        (
            lambda: LinEst(location="middle"),
            "LinEst: location: expected 'query', 'support' or 'none'",
        ),
        (lambda: CeT(prior=0.5), "CeT: prior: unknown key"),
        (lambda: Smooth3d(through=-1), "Smooth3d: through: expected greater than or equal to 0"),
    ]:
        with pytest.raises(FssegError) as caught:
            build()
        assert str(caught.value).startswith(sentence)
    assert torch.equal(Tpm(alpha=12).score.alpha, torch.tensor(12.0))
