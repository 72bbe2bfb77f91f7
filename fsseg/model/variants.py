"""Variants: what one trained backbone is evaluated with. They share everything that does not depend on them."""

from dataclasses import dataclass

from fsseg.model.segmenter import Segmenter


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: The row's name.
        segmenter: The trained backbone and head with the row's own prototypes and threshold.
        scoring: Equal for variants with the same prototypes and head, whose logits are therefore the same.
        margins: Equal for variants that decide on the same margins: those of one scoring that nothing refines.
    """

    name: str
    segmenter: Segmenter
    scoring: str

    @property
    def margins(self) -> str:
        return f"{self.scoring} {self.name}" if self.segmenter.refiners else self.scoring


def by_scoring(variants: list[Variant]) -> dict[str, list[Variant]]:
    """The variants that share logits, in order."""
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(variant.scoring, []).append(variant)
    return groups
