"""The values that users make say at once what is wrong with them, without a look at what a device holds."""

import doctest
import re

import pytest
import torch

import fsseg.types
from fsseg import DataError, Episode, Prototypes, Query, Support

IMAGES = torch.zeros(2, 3, 16, 12)
SUPPORT = {"images": IMAGES, "masks": IMAGES > 0, "location": torch.zeros(2, 3)}
QUERY = {"images": IMAGES[0], "location": torch.zeros(3)}
PROTOTYPES = {
    "foreground": torch.zeros(2, 5, 4),
    "weights": torch.ones(2, 5),
    "background": torch.zeros(7, 4),
}


def refusal(cls, parts):
    """The sentence with which a class refuses its parts, though the tests' own type checker would be first."""
    value = object.__new__(cls)
    for name, part in parts.items():
        object.__setattr__(value, name, part)
    with pytest.raises(DataError) as caught:
        value.__post_init__()
    return str(caught.value)


@pytest.mark.parametrize(
    "cls, parts, changes, expected",
    [
        (Support, SUPPORT, {"masks": IMAGES[..., :8] > 0}, "masks does not fit.*masks bool (2, 3, 16, 8)"),
        (Support, SUPPORT, {"masks": IMAGES}, "masks does not fit.*got .*masks float32 (2, 3, 16, 12)"),
        (Support, SUPPORT, {"images": IMAGES[0]}, "images does not fit.*got images float32 (3, 16, 12)"),
        (Support, SUPPORT, {"images": IMAGES.long()}, "images does not fit.*got images int64"),
        (Support, SUPPORT, {"images": IMAGES.numpy()}, "images does not fit.*got images float32 (2, 3"),
        (Support, SUPPORT, {"location": torch.zeros(2)}, "location does not fit.*location float32 (2,)"),
        (Support, SUPPORT, {"location": 0.5}, "location does not fit.*location float;"),
        (Support, SUPPORT, {"masks": SUPPORT["masks"].to("meta")}, "masks on meta.*all on one device"),
        (Query, QUERY, {"location": torch.zeros(2)}, "location does not fit.*location float32 (2,)"),
        (Query, QUERY, {"images": IMAGES[0, 0]}, "images does not fit.*got images float32 (16, 12)"),
        (Query, QUERY, {"images": IMAGES}, "location does not fit.*got images float32 (2, 3, 16, 12)"),
        (Query, QUERY, {"images": IMAGES[0].to("meta")}, "images on meta, location on cpu"),
        (Query, QUERY, {"spacing": (8.0, 1.5)}, "spacing is (8.0, 1.5), expected the distances"),
        (Query, QUERY, {"spacing": (8.0, 1.5, 0.0)}, "spacing is (8.0, 1.5, 0.0), expected"),
        (Prototypes, PROTOTYPES, {"weights": torch.ones(2, 4)}, "weights does not fit"),
        (Prototypes, PROTOTYPES, {"background": torch.zeros(7, 3)}, "background does not fit"),
        (Prototypes, PROTOTYPES, {"foreground": torch.zeros(2, 4)}, "foreground does not fit"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused(cls, parts, changes, expected):
    cls(**parts)
    sentence = refusal(
        cls, {**({"spacing": (1, 1, 1)} if cls is Query else {}), **parts, **changes}
    )
    assert sentence.startswith(f"{cls.__name__.lower()}: ")
    assert re.search(expected.replace("(", r"\(").replace(")", r"\)"), sentence), sentence


@pytest.mark.parametrize("target", [torch.zeros(3, 16, 13).long(), torch.zeros(3, 16, 12)])
def test_a_target_has_the_shape_of_the_query(target):
    parts = {"support": Support(**SUPPORT), "query": Query(**QUERY), "target": target}
    assert "episode: target does not fit" in refusal(Episode, parts)


def test_the_message_shows_a_support_and_a_query_that_are_right():
    image, mask, images = torch.zeros(9, 8), torch.ones(9, 8), torch.zeros(4, 9, 8)
    names = {"image": image, "mask": mask, "images": images, "torch": torch}
    for cls, parts in ((Support, SUPPORT | {"images": None}), (Query, QUERY | {"images": None})):
        sentence = refusal(cls, parts)
        example = sentence[sentence.rindex(f"{cls.__name__}(") :]
        value = eval(example, {cls.__name__: cls, **names})
        assert value.images.shape[-2:] == (9, 8)


def test_nothing_looks_at_a_value():
    """Tensors without any, for which a device would otherwise be waited for."""
    support = Support(**SUPPORT).to(torch.device("meta"))
    query = Query(**QUERY).to(torch.device("meta")).part([0, 2])
    Episode(support, query, torch.zeros(2, 16, 12, dtype=torch.long, device="meta"))
    Prototypes(**{name: part.to("meta") for name, part in PROTOTYPES.items()})
    assert query.images.shape == (2, 16, 12)


def test_examples_in_docstrings():
    ran = doctest.testmod(fsseg.types)
    assert ran.attempted > 2 and ran.failed == 0
