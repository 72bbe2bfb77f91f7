import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fsseg.model.ops import decide, ideal_prior, nth_by_counting, nth_by_partition, raise_foreground
from fsseg.types import margin

values = st.floats(-30, 30, width=32)


@settings(deadline=None, max_examples=200)
@given(
    hnp.arrays(np.float32, (3, 4, 5), elements=values),
    st.lists(st.integers(0, 20), min_size=3, max_size=3),
)
def test_the_ideal_prior_marks_the_wanted_count(margins, counts):
    """Exactly k pixels, except that pixels tied at the boundary fall to the background."""
    margins = torch.from_numpy(margins)
    prior = ideal_prior(margins, torch.tensor(counts))
    logits = torch.stack([torch.zeros_like(margins), margins], dim=1)
    marked = (decide(logits, prior) > 0).sum(dim=(1, 2)).tolist()
    for row, count, got in zip(margins.flatten(1), counts, marked):
        ordered = row.sort(descending=True).values
        tied = 0 < count < 20 and ordered[count - 1] == ordered[count]
        expected = (ordered > ordered[count]).sum().item() if tied else count
        assert got == expected


def test_the_ideal_prior_is_the_midpoint():
    margins = torch.tensor([[[3.0, 1.0], [-2.0, -4.0]]])
    assert ideal_prior(margins, torch.tensor([1])).tolist() == [-2.0]
    assert ideal_prior(margins, torch.tensor([2])).tolist() == [0.5]


def test_neighbouring_floats_are_told_apart():
    """The midpoint of two adjacent floats rounds to one of them; the count must still be exact."""
    low = torch.tensor(1.0)
    high = torch.nextafter(low, torch.tensor(2.0))
    for first, second in [(high, low), (torch.nextafter(high, torch.tensor(2.0)), high)]:
        margins = torch.stack([first, second]).view(1, 1, 2)
        logits = torch.stack([torch.zeros_like(margins), margins], dim=1)
        assert decide(logits, ideal_prior(margins, torch.tensor([1]))).sum() == 1


@settings(deadline=None, max_examples=100)
@given(hnp.arrays(np.float32, (2, 4, 3, 3), elements=values), st.floats(-5, 5), st.floats(0, 5))
def test_a_larger_prior_never_loses_foreground(logits, prior, more):
    logits = torch.from_numpy(logits)
    before = decide(logits, torch.full((2,), prior)) > 0
    after = decide(logits, torch.full((2,), prior + more)) > 0
    assert (after | ~before).all()


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(np.float64, (2, 4, 3, 3), elements=st.floats(-30, 30)),
    hnp.arrays(np.float64, (2, 3), elements=st.floats(-5, 5)),
)
def test_the_decision_is_the_largest_raised_logit(logits, prior):
    """Per-way priors too; compared in float64, where rounding cannot flip a pixel that is clearly decided."""
    logits, prior = torch.from_numpy(logits), torch.from_numpy(prior)
    raised = raise_foreground(logits, prior)
    top = raised.topk(2, dim=1).values
    clear = (top[:, 0] - top[:, 1]) > 1e-9
    assert (decide(logits, prior) == raised.argmax(dim=1))[clear].all()


def test_an_exact_tie_is_background():
    logits = torch.zeros(1, 3, 2, 2)
    assert decide(logits, torch.zeros(1)).sum() == 0
    assert margin(logits).abs().max() == 0


@settings(deadline=None, max_examples=200)
@given(
    hnp.arrays(
        np.float32,
        (3, 12),
        elements=st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, 1.0, -1.0]),
    ),
    st.lists(st.integers(1, 12), min_size=3, max_size=3),
)
def test_both_selections_are_those_of_a_sort(rows, rank):
    """The one for the CPU and the one for other devices; ties, infinities, denormals and both zeros included."""
    rows, rank = torch.from_numpy(rows), torch.tensor(rank)
    expected = rows.sort(dim=1, descending=True).values.gather(1, rank[:, None] - 1)[:, 0]
    assert torch.equal(nth_by_partition(rows, rank), expected)
    assert torch.equal(nth_by_counting(rows, rank), expected)


def test_the_selections_at_the_size_of_a_slice():
    rows = torch.randn(3, 256 * 256, generator=torch.Generator().manual_seed(0)).round(decimals=2)
    rank = torch.tensor([1, 20_000, 256 * 256])
    expected = rows.sort(dim=1, descending=True).values.gather(1, rank[:, None] - 1)[:, 0]
    assert torch.equal(nth_by_partition(rows, rank), expected) and torch.equal(
        nth_by_counting(rows, rank), expected
    )


@settings(deadline=None, max_examples=200)
@given(
    hnp.arrays(np.float32, (2, 3, 4), elements=values),
    st.lists(st.integers(0, 12), min_size=2, max_size=2),
)
def test_the_ideal_prior_is_that_of_a_sort(margins, counts):
    margins = torch.from_numpy(margins)
    expected = []
    for row, count in zip(margins.flatten(1), counts):
        ordered = row.sort(descending=True).values
        if count in (0, 12):
            expected.append(-(ordered[0] if count == 0 else ordered[-1] - 1))
            continue
        above, below = ordered[count - 1], ordered[count]
        middle = below + (above - below) / 2
        expected.append(-(middle if middle < above else below))
    assert torch.equal(ideal_prior(margins, torch.tensor(counts)), torch.stack(expected))
