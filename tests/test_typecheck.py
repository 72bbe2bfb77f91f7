"""Shapes are checked in every test: the first calls of each function, and anew in the next test."""

import pytest
import torch
import typecheck

from fsseg.model.ops import resize


def call_with_a_wrong_shape():
    resize(torch.zeros(4), (2, 2))


@pytest.mark.parametrize("turn", ["first", "second"])
def test_the_first_calls_are_checked_in_every_test(turn):
    with pytest.raises(Exception, match="resize"):
        call_with_a_wrong_shape()
    right = torch.zeros(1, 1, 4, 4)
    for _ in range(typecheck.MOST_CALLS):
        resize(right, (2, 2))
    with pytest.raises(Exception) as later:
        call_with_a_wrong_shape()
    assert "Type-check error" not in str(later.value)
