"""The table of a recipe that says how training episodes are drawn and augmented."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, model_validator

from fsseg.plugins.manager import registry
from fsseg.plugins.options import refusal, schema
from fsseg.recipe.components import ComponentTable, Kind, OneOrMany, Table
from fsseg.recipe.values import Range

OF_AUGMENTATIONS = ("gamma", "angle", "shift", "shear", "zoom", "elastic", "elastic_sigma")
"""Keys of [episodes] that are options of the published augmentations."""

OF_SOURCES = ("min_pixels", "min_slice_pixels")
"""Keys of [episodes] that are options of the source of episodes."""

PUBLISHED = ("gamma", "warp")
"""The augmentations of the published code."""


class AugmentationTable(ComponentTable):
    """A table that names an augmentation, and says to which slices it is applied."""

    kind: ClassVar[str] = "augmentation"
    slices: Literal["support", "query", "either", "both"] = Field(
        default="either",
        description="the slices that it is applied to; either: one of the two, by a coin",
    )
    chance: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="chance that it is applied, for each slice by itself",
    )


class EpisodeTable(Table):
    """The rules for drawing training episodes: two slices that show the same region, augmented."""

    setting: Literal[1, 2] = Field(
        default=1,
        description="2 leaves out the slices of training scans that show an evaluated class; 1 trains on all",
    )
    source: Annotated[ComponentTable, Kind("episodes")] = Field(
        default=ComponentTable(name="supervoxel_pairs"),
        description="where pairs of slices and their regions come from",
    )
    min_pixels: int | None = Field(
        default=None,
        ge=1,
        description="pixels of the region in the first slice of the pair, at least; when omitted, "
        "200 of 256 x 256 scaled to the slice",
    )
    min_slice_pixels: int | None = Field(
        default=None,
        ge=0,
        description="slices with no more pixels of the region are passed over; when omitted, 20 of 256 x 256, likewise",
    )
    gamma: Range = Field(
        default=(0.5, 1.5),
        description="range of the exponent of the intensity change, where gamma's own table says nothing",
    )
    angle: float = Field(
        default=5.0,
        ge=0,
        le=180,
        description="largest rotation, degrees; this and what follows where warp's own table says nothing",
    )
    shift: float = Field(default=5.0, ge=0, description="largest translation, pixels")
    shear: float = Field(default=5.0, ge=0, lt=90, description="largest shear, degrees")
    zoom: Range = Field(default=(0.9, 1.2), description="range of the zoom")
    elastic: float = Field(default=10.0, ge=0, description="strength of the elastic deformation")
    elastic_sigma: float = Field(
        default=5.0, gt=0, le=1000, description="smoothness of the elastic deformation, pixels"
    )
    augmentations: Annotated[
        list[Annotated[AugmentationTable, Kind("augmentation")]], OneOrMany()
    ] = Field(
        default=[AugmentationTable(name=name) for name in PUBLISHED],
        description="what is done to the two slices, in this order; [] leaves them as they are",
    )

    def source_in_full(self) -> ComponentTable:
        """The source of episodes with the options that this table's other keys give it."""
        return with_pixels(self.source, self.min_pixels, self.min_slice_pixels)

    def written_out(self) -> list[AugmentationTable]:
        """The augmentations with the options that this table's other keys give them."""
        tables = []
        for table in self.augmentations:
            options = self._options_for(table) | table.model_dump()
            tables.append(AugmentationTable(**options))
        return tables

    def in_full(self, key: str) -> Any:
        """The value of a key; of source and augmentations with the options that the other keys give them."""
        if key == "source":
            return self.source_in_full()
        return self.written_out() if key == "augmentations" else getattr(self, key)

    def _options_for(self, table: ComponentTable) -> dict[str, Any]:
        """The options that this table has for an augmentation."""
        if table.name not in PUBLISHED:
            return {}
        component = registry().find("augmentation", table.name).load()
        options = schema(component).model_fields
        return {key: getattr(self, key) for key in OF_AUGMENTATIONS if key in options}

    @model_validator(mode="after")
    def _each_key_counts(self, info: ValidationInfo) -> "EpisodeTable":
        """Refuses, where a whole recipe is checked, a key of an augmentation or a source that does not take it."""
        if info.context is None:
            return self
        names = {table.name for table in self.augmentations}
        for key in OF_AUGMENTATIONS:
            owner = "gamma" if key == "gamma" else "warp"
            is_changed = getattr(self, key) != type(self).model_fields[key].default
            if is_changed and owner not in names:
                sentence = f"expected {owner!r} among episodes.augmentations, whose option it is, got {sorted(names)}; "
                raise refusal([(key, sentence + "leave the key out, or list it")])
        source = registry().find("episodes", self.source.name).load()
        for key in OF_SOURCES:
            if getattr(self, key) is not None and key not in schema(source).model_fields:
                sentence = f"expected a source of episodes that has this option, got {self.source.name!r}; "
                raise refusal([(key, sentence + "leave the key out")])
        return self


def with_pixels(
    source: ComponentTable, min_pixels: int | None, min_slice_pixels: int | None
) -> ComponentTable:
    """The table of a source of episodes with these options, where it has them and says nothing else of them."""
    component = registry().find("episodes", source.name).load()
    known = schema(component).model_fields
    options = {"min_pixels": min_pixels, "min_slice_pixels": min_slice_pixels}
    given = {key: value for key, value in options.items() if key in known and value is not None}
    return ComponentTable(**given | source.model_dump())
