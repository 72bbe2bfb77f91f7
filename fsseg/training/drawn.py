"""The augmentations of an episode as they are drawn on the host: what is done to which slice, with which numbers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np
from jaxtyping import Float

from fsseg.errors import PluginError
from fsseg.plugins.blame import described

SUPPORT = 0
QUERY = 1
"""The two slices of an episode, by number."""

Numbers = Float[np.ndarray, "number"]


@dataclass(frozen=True)
class SliceFacts:
    """All that an augmentation knows of a slice when it draws its numbers.

    Attributes:
        shape: The shape of its image: height and width, behind the number of channels where there are several.
        fill: The mean intensity of its scan, for what is moved in from outside.
        is_query: True for an episode's query, False for its support.
    """

    shape: tuple[int, ...]
    fill: float = 0.0
    is_query: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.shape[-2:]
        return height, width

    @property
    def channels(self) -> int:
        """The number of channels; 1 for an image without an axis of them."""
        return self.shape[0] if len(self.shape) > 2 else 1


@dataclass(frozen=True)
class Entry:
    """An augmentation in the list of a recipe.

    Attributes:
        name: Its name.
        augmentation: The component.
        slices: The slices that it is applied to: "support", "query", "either" (one of the two, by a coin) or "both".
        chance: The chance that it is applied, for each slice by itself.
    """

    name: str
    augmentation: Any
    slices: str = "either"
    chance: float = 1.0

    def refusal(self, fault: str, expected: str) -> PluginError:
        """The error that tells what is wrong with the augmentation, and whose it is."""
        return PluginError(
            f"{described('augmentation', self.augmentation)}: it {fault}, expected {expected}; correct it, or leave it "
            "out of episodes.augmentations"
        )


@dataclass(frozen=True)
class Applied:
    """An augmentation of one slice with everything that was drawn for it.

    Attributes:
        number: The augmentation, by its place in the list.
        on: The slice, 0 for the support and 1 for the query.
        is_applied: False where the chance has it that nothing is done.
        numbers: The augmentation's numbers.
    """

    number: int
    on: int
    is_applied: bool
    numbers: Numbers = field(repr=False, compare=False)


class AugmentationDraws:
    """Draws the numbers of a list of augmentations.

    Each draws from a generator of its own, which follows from the episode, its name, and how many of its name there are
    before it. So one that is added, left out or moved changes no other's numbers, nor which slices an episode is of.
    Those of the published code draw where they draw there.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        """Takes the list."""
        self._entries = entries
        self._lengths: dict[tuple[int, tuple[int, ...]], int] = {}

    def draw(
        self, rng: np.random.Generator, facts: tuple[SliceFacts, SliceFacts]
    ) -> tuple[Applied, ...]:
        """Draws what is done to the support and to the query.

        Args:
            rng: The episode's generator, from which as much is taken whatever the list.
            facts: What is known of the support and of the query.

        Raises:
            PluginError: An augmentation draws no numbers, or not as many as before.
        """
        drawn = []
        for number, stream in enumerate(self._streams(rng, facts)):
            entry = self._entries[number]
            for on in stream.slices(entry.slices):
                happens = stream.happens(entry.chance)
                numbers = stream.take(entry.augmentation, facts[on])
                numbers = self._checked(number, numbers, facts[on])
                drawn.append(Applied(number, on, happens, numbers))
        return tuple(drawn)

    def _streams(
        self, rng: np.random.Generator, facts: tuple[SliceFacts, SliceFacts]
    ) -> list["_Stream"]:
        """Where each entry draws from.

        In the order of the published code the exponent of gamma, a coin for it and one for the warp, and the warp's seed
        come from the episode's generator.
        """
        names = [entry.name for entry in self._entries]
        exponent = None
        if "gamma" in names:
            gamma = self._entries[names.index("gamma")].augmentation
            exponent = gamma.draw(rng, facts[SUPPORT])
        else:
            rng.random()
        coin_of_gamma = rng.random()
        coin_of_warp = rng.random()
        seed = int(rng.integers(2**62))
        streams = []
        met: Counter[str] = Counter()
        for name in names:
            key = (seed, crc32(name.encode()), met[name])
            stream = _Stream(key)
            if name == "gamma" and not met[name]:
                stream = _Stream(key, coin_of_gamma, first=exponent)
            if name == "warp" and not met[name]:
                stream = _Stream(key, coin_of_warp, seed=seed)
            met[name] += 1
            streams.append(stream)
        return streams

    def _checked(self, number: int, drawn: Any, facts: SliceFacts) -> Numbers:
        """The numbers in single precision, of which there are as many each time."""
        entry = self._entries[number]
        numbers = np.asarray(drawn, dtype=np.float32)
        if numbers.ndim != 1:
            raise entry.refusal(
                f"draws numbers of shape {numbers.shape}", "an array with one axis, flattened"
            )
        before = self._lengths.setdefault((number, facts.shape), len(numbers))
        if len(numbers) != before:
            raise entry.refusal(
                f"draws {len(numbers)} numbers after {before} for a slice of the same size",
                "as many each time, also those that are not needed",
            )
        return numbers


@dataclass
class _Stream:
    """Where an entry draws from.

    Attributes:
        key: The episode and the entry as numbers.
        coin: The coin between support and query, if it is drawn already.
        seed: The seed of the numbers' generator, if it is not that of the key.
        first: The numbers of the first slice, if they are drawn already.
    """

    key: tuple[int, int, int]
    coin: float | None = None
    seed: int | None = None
    first: Numbers | None = None

    @cached_property
    def _choices(self) -> np.random.Generator:
        return np.random.default_rng([*self.key, 1])

    @cached_property
    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([*self.key, 0] if self.seed is None else self.seed)

    def slices(self, which: str) -> list[int]:
        """The numbers of the slices to augment."""
        if which == "both":
            return [SUPPORT, QUERY]
        if which != "either":
            return [QUERY if which == "query" else SUPPORT]
        coin = self._choices.random() if self.coin is None else self.coin
        return [QUERY if coin < 0.5 else SUPPORT]

    def happens(self, chance: float) -> bool:
        """Draws whether a slice is augmented."""
        return chance >= 1 or self._choices.random() < chance

    def take(self, augmentation: Any, facts: SliceFacts) -> Any:
        """Draws the numbers for a slice."""
        if self.first is not None:
            first, self.first = self.first, None
            return first
        return augmentation.draw(self._rng, facts)
