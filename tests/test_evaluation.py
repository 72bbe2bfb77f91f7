"""What evaluation shares, and that sharing changes nothing."""

from dataclasses import replace

import pytest
import torch
from helpers import PROTOCOLS, TinyBackbone
from test_assignments import FOLD, scan_with

from fsseg import AdNet, AvgEst, CeT, EmGmm, MaskedAverage, Ocp, Segmenter, Tpm
from fsseg.evaluation.assignments import assign
from fsseg.evaluation.evaluate import evaluate
from fsseg.model import segmenter
from fsseg.model.segmenter import encode_in_parts
from fsseg.model.variants import Variant
from fsseg.types import Query

CLASSES = {1: "one", 2: "two"}
CPU = torch.device("cpu")


def scans():
    return {case: scan_with(case, {1: [2, 3, 4, 5], 2: [3, 4, 8]}) for case in "sqr"}


def rows(backbone):
    """Five rows of three kinds of scoring."""
    average = AvgEst()
    average.load_state({"prior": 0.2})
    plain, mixture = (MaskedAverage(), Tpm(), "plain"), (EmGmm(count=2), Tpm(), "mixture")
    asked = [
        (AdNet(), CeT(), MaskedAverage(), "adnet"),
        *[(h, t, p, s) for p, h, s in (plain, mixture) for t in (average, Ocp())],
    ]
    return [
        Variant(
            f"{scoring} {type(threshold).__name__}",
            Segmenter(backbone, prototypes, head, threshold).eval(),
            scoring,
        )
        for head, threshold, prototypes, scoring in asked
    ]


def results_of(backbone, protocol, variants, made):
    assigned = assign(protocol, FOLD, made, CLASSES, seed=0)
    return assigned, list(evaluate(backbone, variants, assigned, made, FOLD, seed=0, device=CPU))


class Counting(TinyBackbone):
    """Notes every slice that passes."""

    def __init__(self):
        super().__init__()
        self.passed = []

    def forward(self, images):
        self.passed += [image.numpy().tobytes() for image in images[:, 0]]
        return super().forward(images)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_each_slice_passes_the_backbone_once(name):
    """Whatever the number of organs, rows and supports; slices that nobody needs do not pass at all."""
    backbone, made = Counting(), scans()
    made = {
        case: replace(scan, images=scan.images + number)
        for number, (case, scan) in enumerate(made.items())
    }
    variants = rows(backbone) if not PROTOCOLS[name].together else rows(backbone)[1:]
    assigned, _ = results_of(backbone, PROTOCOLS[name], variants, made)
    needed = {(a.support_case, n) for a in assigned for n in a.support_slices}
    for a in assigned:
        needed |= {
            (a.query_case, n) for n in (a.query_slices if a.query_slices is not None else range(12))
        }
    assert len(backbone.passed) == len(set(backbone.passed)) == len(needed)


@pytest.mark.parametrize("name", ["ep2", "ep1", "ep2_multi"])
def test_rows_together_are_rows_by_themselves(name):
    """Against the plain path: one segmenter, one support, one part of a query."""
    backbone, made = TinyBackbone(), scans()
    variants = rows(backbone)[1:]
    assigned, results = results_of(backbone, PROTOCOLS[name], variants, made)
    for result in results:
        [variant] = [v for v in variants if v.name == result.scores[0].variant]
        names = tuple(score.class_name for score in result.scores)
        parts = [
            a for a in assigned
            if a.query_case == result.scores[0].case and a.support_case == result.scores[0].support_case
            and tuple(name for _, name in a.classes) == names
        ]  # fmt: skip
        expected = torch.zeros(12, 16, 16, dtype=torch.uint8)
        for part in parts:
            at = list(range(12) if part.query_slices is None else part.query_slices)
            scan = made[part.query_case]
            target = sum(
                (way + 1) * (scan.labels[at] == value).long()
                for way, (value, _) in enumerate(part.classes)
            )
            with torch.no_grad():
                alone = variant.segmenter(
                    part.support, Query(scan.images[at], scan.location[at]), target
                ).labels
            for way, (value, _) in enumerate(part.classes):
                chosen = alone == way + 1
                expected[at] = torch.where(
                    chosen, value if len(part.classes) > 1 else 1, expected[at]
                )
        assert torch.equal(torch.from_numpy(result.labels), expected)


@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_results_do_not_depend_on_how_many_slices_pass_at_a_time(monkeypatch, at_once):
    """Labels are equal; features to round-off, because libraries choose their algorithm by the number of slices."""
    backbone, made = TinyBackbone(), scans()
    images = made["q"].images
    with torch.no_grad():
        whole, parts = (
            encode_in_parts(backbone, images, at_once=number) for number in (12, at_once)
        )
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)
    _, usual = results_of(backbone, PROTOCOLS["ep2"], rows(backbone), made)
    monkeypatch.setattr(
        segmenter, "working_memory", lambda _: at_once * 16 * 16 * segmenter.BYTES_PER_PIXEL
    )
    _, chunked = results_of(backbone, PROTOCOLS["ep2"], rows(backbone), made)
    for one, other in zip(usual, chunked):
        assert (one.labels == other.labels).all() and one.scores == other.scores


def test_thresholds_of_one_scoring_share_its_logits():
    """Per part of a query, the head runs once per kind of scoring: 2 organs x 2 queries x 3 kinds."""
    backbone, made, calls = TinyBackbone(), scans(), []
    variants = rows(backbone)
    for head in {variant.segmenter.head for variant in variants}:
        head.register_forward_hook(lambda module, *_: calls.append(module))
    results_of(backbone, PROTOCOLS["ep2"], variants, made)
    assert len(calls) == 2 * 2 * 3
