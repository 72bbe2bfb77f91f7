"""A variant is put together from its own components and what its training left."""

import pytest
import torch
from helpers import NoBackbone

from fsseg import CeT, FssegError, LinEst, MaskedAverage, Prototypes, Tpm
from fsseg.model.variants import assemble
from fsseg.recipe.parts import build_parts, head_of
from fsseg.recipe.tables import TrainingTable, VariantTable


def variant(head="tpm", **options):
    table = {"name": head, **options}
    return VariantTable.model_validate({"name": "My row", "head": table, "threshold": "ce_t"})


def training(head="tpm", **options):
    return TrainingTable.model_validate({"head": {"name": head, **options}})


def assembled(row, trained_with, state):
    return assemble(
        row.name,
        NoBackbone(),
        **build_parts(row, trained_with),
        states={"head": state.state_dict()},
    )


@pytest.mark.parametrize("head", ["tpm", "adnet", "adnetpp"])
def test_a_head_takes_what_its_trained_state_has_decided(head):
    options = {"alpha": 12.0, "initial_threshold": -3.0, "dimension": 4}
    state = Tpm(**options)
    state.score_threshold.softplus.data += 0.5
    score = assembled(variant(head), training("tpm", **options), state).head.score
    assert score.alpha == 12 and score.dimension == 4
    assert score.threshold == state.score.threshold
    assert score.distance == state.score.distance


def test_a_head_takes_the_form_of_its_training():
    state = Tpm(form="plain", initial_threshold=-7.0)
    segmenter = assembled(variant("adnet"), training("tpm", form="plain"), state)
    assert segmenter.head.score.threshold == -7


@pytest.mark.parametrize(
    "own, trained, sentence",
    [
        ({"alpha": 10.0}, {}, "has alpha = 10.0, but .* head adnet has alpha = 20.0"),
        ({"alpha": 20.0}, {"alpha": 10}, "has alpha = 20.0, but .* has alpha = 10,"),
        ({"dimension": 1}, {"dimension": 256}, "has dimension = 1, but .* has dimension = 256,"),
        ({"form": "plain"}, {}, "has form = .plain., but .* has form = .softplus.,"),
        ({"initial_threshold": -5}, {}, "has initial_threshold = -5, but .* = -10.0,"),
    ],
)
def test_a_head_that_contradicts_its_training_is_refused(own, trained, sentence):
    with pytest.raises(FssegError, match=f"variant 'My row': its head tpm {sentence}"):
        build_parts(variant("tpm", **own), training("adnet", **trained))


def test_a_head_may_repeat_what_its_training_says():
    table = head_of(variant("tpm", alpha=10), training("adnet", alpha=10.0))
    assert table.options["alpha"] == 10 and table.name == "tpm"


def test_options_that_no_state_decides_stay_the_variants_own():
    """The sigmas of TPM, and the scale of a head that is not of the family, are chosen for the evaluation."""
    table = head_of(variant("tpm", sigmas=[0.2, 0.4]), training("tpm", sigmas="averaged"))
    assert table.options["sigmas"] == [0.2, 0.4]
    table = head_of(variant("panet", scale=5.0), training("panet", scale=20.0))
    assert table.options == {"scale": 5.0}


def test_the_variants_own_components_are_around_the_trained_ones():
    row = VariantTable.model_validate(
        {
            "name": "My row",
            "prototypes": "em_gmm",
            "threshold": "lin_est",
            "refiners": [{"name": "smooth_3d", "through": 4.0}, "component_3d"],
        }
    )
    parts = build_parts(row, training())
    state = {"coefficients": [1.0, 2.0, 3.0]}
    segmenter = assemble(
        row.name,
        NoBackbone(),
        **parts,
        states={"head": Tpm(initial_threshold=-4.0).state_dict()},
        threshold_state=state,
        mode="reference",
    )
    assert segmenter.threshold.coefficients == [1.0, 2.0, 3.0]
    assert segmenter.head.score.threshold.item() == pytest.approx(-4)
    assert [type(one).__name__ for one in segmenter.refiners] == ["Smooth3d", "Component3d"]
    assert segmenter.refiners[0].through == 4.0 and segmenter.prototypes is parts["prototypes"]
    assert segmenter.mode == "reference" and not segmenter.training


def test_a_threshold_that_is_not_fitted_yet_stays_so():
    parts = {"prototypes": MaskedAverage(), "head": Tpm(), "threshold": LinEst()}
    segmenter = assemble("My row", NoBackbone(), **parts, states={"head": Tpm().state_dict()})
    assert segmenter.threshold.coefficients is None


def test_a_head_that_cannot_take_the_state_is_refused_with_both_shapes():
    class Linear(torch.nn.Linear):
        score = sigma = None

        def forward(self, features, prototypes: Prototypes):
            raise AssertionError("not called")

    parts = {"prototypes": MaskedAverage(), "head": Linear(2, 1), "threshold": CeT()}
    with pytest.raises(FssegError) as caught:
        assemble("My row", NoBackbone(), **parts, states={"head": Linear(3, 1).state_dict()})
    assert (
        "variant 'My row': its head Linear cannot take the state that its training left: "
        "expected weight [1, 2], bias [1], got weight [1, 3], bias [1]"
    ) in str(caught.value)
