"""Checks of intensity rules."""

import json
from typing import Any

import numpy as np

from fsseg.testing import samples
from fsseg.testing.contract import Subject, check


@check("intensity")
def check_statistics_are_declared(subject: Subject) -> None:
    """`statistics` says where it is measured: "training" on the training scans, "dataset" as the dataset says."""
    statistics = getattr(subject.component, "statistics", None)
    if statistics not in ("dataset", "training"):
        subject.fail(
            f"expected a class attribute statistics of 'dataset' or 'training', got {statistics!r}"
        )


@check("intensity")
def check_measured_values_are_plain(subject: Subject) -> None:
    """What it measures is a dictionary of plain, finite values, and scales alike after a way through JSON."""
    rule = subject.build()
    image = samples.intensities()
    measured = _measured(subject, rule, [image])
    try:
        again = json.loads(json.dumps(measured, allow_nan=False))
    except (TypeError, ValueError) as error:
        subject.fail(f"expected finite numbers, texts and lists that JSON holds, got {error}")
    if not np.array_equal(rule.scale(image, measured), subject.build().scale(image, again)):
        subject.fail(
            "expected a new instance to scale alike with the measured values, got another image; return from measure all "
            "that scale needs"
        )


@check("intensity")
def check_scaled_image(subject: Subject) -> None:
    """A scaled image has the shape of the image and finite numbers, also where the rule was measured on other scans."""
    rule = subject.build()
    images = [samples.intensities(), samples.intensities(1) * 2]
    image = samples.intensities(2)[:1]
    for measured_on in (images, [image]):
        scaled = rule.scale(image, _measured(subject, rule, measured_on))
        shape = getattr(scaled, "shape", None)
        if shape != image.shape or not np.isfinite(scaled).all():
            subject.fail(
                f"expected finite numbers of shape {image.shape}, got {shape}, or some that are not finite"
            )


@check("intensity")
def check_one_intensity(subject: Subject) -> None:
    """Scaled as among the training scans, an image of one intensity alone gives finite numbers."""
    rule = subject.build()
    flat = np.full((2, 8, 8), 7, dtype=np.float32)
    measured = _measured(subject, rule, [samples.intensities(), flat])
    if not np.isfinite(rule.scale(flat, measured)).all():
        subject.fail("expected finite numbers for an image of one intensity, got others")


@check("intensity")
def check_order_of_scans(subject: Subject) -> None:
    """What it measures of several scans does not depend on their order."""
    rule = subject.build()
    images = [samples.intensities(), samples.intensities(1)[:2] * 3 + 50]
    forward = rule.scale(images[0], _measured(subject, rule, images))
    backward = rule.scale(images[0], _measured(subject, rule, images[::-1]))
    if not np.allclose(forward, backward, rtol=1e-4, atol=1e-5):
        subject.fail("expected the same scaling for scans in another order, got another")


def _measured(subject: Subject, rule: Any, images: list[np.ndarray]) -> dict[str, Any]:
    measured = rule.measure(images)
    if not isinstance(measured, dict):
        subject.fail(f"expected measure to return a dictionary, got {type(measured).__name__}")
    return measured
