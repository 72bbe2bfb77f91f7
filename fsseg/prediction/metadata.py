"""What stands beside the tensors of an export, checked before any of it is used."""

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fsseg.errors import FssegError
from fsseg.plugins.numbers import are_finite
from fsseg.plugins.options import explain
from fsseg.recipe.reading import parse_recipe
from fsseg.recipe.tables import Recipe, VariantTable

AGAIN = "export the run again with fsseg export"


class Metadata(BaseModel):
    """The words beside the tensors of an export, with the values that they stand for.

    Attributes:
        recipe: The run's recipe.
        variant: The name of the variant.
        threshold: What calibration left in the variant's threshold; None for one that is not fitted.
        scaling: What the intensity rule measured of the training scans; None where each scan is measured by itself.
    """

    model_config = ConfigDict(extra="forbid")
    recipe: dict[str, Any]
    variant: str
    threshold: dict[str, Any] | None
    scaling: dict[str, Any] | list[dict[str, Any]] | None


def read_metadata(path: Path, words: Mapping[str, str]) -> tuple[Recipe, VariantTable, Metadata]:
    """Reads the words beside the tensors of an export.

    Args:
        path: The export, for messages.
        words: The words by name, without the format.

    Returns:
        The recipe, the variant of it that was exported, and all of them.

    Raises:
        FssegError: A word is missing or not what `Trained.save` writes, or a number is not finite.
    """
    values: dict[str, Any] = dict(words)
    parsers = {"recipe": tomllib.loads, "threshold": json.loads, "scaling": json.loads}
    for name, parse in parsers.items():
        if name in values:
            values[name] = _parsed(path, name, values[name], parse)
    try:
        metadata = Metadata.model_validate(values, strict=True)
    except ValidationError as error:
        [(where, sentence), *_] = explain(error, lambda _: list(Metadata.model_fields))
        raise FssegError(f"{path}: {where}: {sentence}; {AGAIN}") from None
    if not are_finite(metadata.threshold):
        raise FssegError(
            f"{path}: threshold: holds a number that is not finite, expected numbers; {AGAIN}"
        )
    recipe = parse_recipe(metadata.recipe, str(path))
    for table in recipe.variants:
        if table.name == metadata.variant:
            return recipe, table, metadata
    raise FssegError(f"{path}: variant: its recipe has no row {metadata.variant!r}; {AGAIN}")


def _parsed(path: Path, name: str, text: str, parse: Callable[[str], Any]) -> Any:
    """The value that a text stands for."""
    try:
        return parse(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0] or "nested too deep"
        raise FssegError(f"{path}: {name}: cannot be read ({reason}); {AGAIN}") from None
