"""Intensities: what a rule measured of scans, and the scaling that follows from it, whatever the rule."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from fsseg.data.on_demand import InTurn
from fsseg.data.volume import channels_of
from fsseg.errors import DataError, FssegError, RecipeError
from fsseg.interfaces import Intensity
from fsseg.plugins.blame import described
from fsseg.plugins.manager import registry
from fsseg.plugins.numbers import are_finite

Images = Sequence  # of arrays of three axes and any size; a checker of types would read a scan to see that

Measured = dict[str, Any]
"""What a rule measured, as plain values that JSON holds."""


@dataclass(frozen=True)
class Scaling:
    """A rule with what it measured: it scales the scans that it was measured of, or others in the same way.

    Attributes:
        rule: The intensity rule.
        measured: What it measured; of scans with several channels a list, with what it measured of each.
    """

    rule: Intensity
    measured: Measured | list[Measured]

    def apply(
        self, image: Float[np.ndarray, "slice *channel height width"], case: str = ""
    ) -> Float[np.ndarray, "slice *channel height width"]:
        """Returns the scaled image, in single precision; each channel is scaled by itself.

        Args:
            image: The image.
            case: Its case, for messages.

        Raises:
            DataError: What a network would see is not finite: the image is not, or its intensities are too far apart; or
                the rule does not give an image, or was measured on scans with other channels.
        """
        channels = channels_of(image)
        measured = self.measured if isinstance(self.measured, list) else [self.measured]
        if len(channels) != len(measured):
            raise DataError(
                f"case {case}: it has {len(channels)} channel(s), expected {len(measured)} as the scans that its intensities "
                "are scaled by; give a scan with the same channels"
            )
        scaled = [self._scaled(*each, case) for each in zip(channels, measured)]
        return scaled[0] if image.ndim == 3 else np.stack(scaled, axis=1)

    def _scaled(
        self, image: Float[np.ndarray, "slice height width"], measured: Measured, case: str
    ) -> Float[np.ndarray, "slice height width"]:
        """One channel."""
        scaled = self.rule.scale(image, measured)
        if not isinstance(scaled, np.ndarray) or scaled.shape != image.shape:
            got = getattr(scaled, "shape", type(scaled).__name__)
            raise DataError(
                f"case {case}: {described('intensity', self.rule)} gave {got} for an image of shape {image.shape}, "
                "expected an array of that shape; correct its scale"
            )
        with np.errstate(over="ignore"):
            single = scaled.astype(np.float32)
        if not np.isfinite(single).all():
            raise DataError(
                f"case {case}: its scaled intensities are not finite ({self}), "
                "expected numbers of single precision; repair the image, or clip it with [intensity] window in dataset.toml"
            )
        return single

    def __str__(self) -> str:
        values = str(self.measured).translate(str.maketrans("", "", "{}'"))
        return ", ".join([repr(self.rule), values])


def measure(rule: str | Intensity, images: Images) -> Scaling:
    """Returns the scaling that a rule makes of these images.

    Args:
        rule: The rule, or its name; it then has its default options.
        images: One scan, or the training scans of a fold; each may be read from disk when it is looked at. Of scans with
            several channels each channel is measured by itself.

    Raises:
        DataError: There is no such rule, or it measured what cannot be kept.
    """
    if isinstance(rule, str):
        rule = rule_of(rule)
    first = images[0]
    if first.ndim == 3:
        return Scaling(rule, _measured(rule, images))
    measured = []
    for channel in range(first.shape[1]):
        read = partial(_channel_of, images, channel)
        measured.append(_measured(rule, InTurn(read, range(len(images)))))
    return Scaling(rule, measured)


def _channel_of(
    images: Images, channel: int, number: int
) -> Float[np.ndarray, "slice height width"]:
    """One channel of the image of this number."""
    return channels_of(images[number])[channel]


def _measured(rule: Intensity, images: Images) -> Measured:
    """What a rule measures of one channel."""
    measured = rule.measure(images)
    problem = problem_of(measured)
    if problem:
        raise DataError(f"{described('intensity', rule)}: measured {problem}; correct its measure")
    return measured


def rule_of(name: str) -> Intensity:
    """Returns the rule of this name, with its default options; raises DataError for an unknown one."""
    try:
        return registry().build("intensity", name, {})
    except RecipeError as error:
        raise DataError(f"intensity rule {name!r}: the backbone asks for it, but {error}") from None


def problem_of(measured: Any) -> str | None:
    """Returns what keeps measured values from being kept, as the end of a sentence; None for those that can be."""
    if not isinstance(measured, dict):
        return f"a {type(measured).__name__}, expected a dictionary"
    try:
        json.dumps(measured)
    except (TypeError, ValueError) as error:
        return f"what JSON does not hold ({error}), expected plain numbers, texts and lists"
    if not are_finite(measured):
        return "a number that is not finite, expected finite ones"
    return None


def load_scaling(rule: Intensity, measured: Any, source: str) -> Scaling:
    """Returns the scaling of a rule from what it measured in another process, which anybody may have changed since.

    Args:
        rule: The rule.
        measured: What was kept of it.
        source: Where that was kept, for messages.

    Raises:
        FssegError: The rule could not have measured that.
    """
    ramp = np.linspace(0, 1, 4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    example = rule.measure([ramp])
    several = isinstance(measured, list) and len(measured) > 1
    for of_channel in measured if several else [measured]:
        problem = problem_of(of_channel) or _other_form(of_channel, example)
        if problem is None:
            try:
                Scaling(rule, of_channel).apply(ramp, "of an example")
            except (DataError, ValueError, TypeError, KeyError, IndexError) as error:
                problem = f"values that cannot be applied: {error}"
        if problem:
            raise FssegError(
                f"{source}: scaling: holds {problem}; run the recipe again with --fresh, or export it again"
            )
    return Scaling(rule, measured)


def _other_form(value: Any, example: Any, where: str = "") -> str | None:
    """Says where a value has another form than an example; lists may have other lengths."""
    if isinstance(example, dict) and isinstance(value, dict):
        if value.keys() != example.keys():
            return f"the keys {sorted(map(str, value))}, expected {sorted(example)}"
        for key, inner in example.items():
            problem = _other_form(value[key], inner, f"{where}{key}: ")
            if problem:
                return problem
        return None
    if isinstance(example, list) and isinstance(value, list):
        for item in value if example else []:
            problem = _other_form(item, example[0], where)
            if problem:
                return problem
        return None
    if _form(value) != _form(example):
        return f"{where}{value!r}, expected a {_form(example)}"
    return None


def _form(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__
