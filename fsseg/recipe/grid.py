"""The table of the working grid."""

from pydantic import Field

from fsseg.recipe.components import Table


class GridTable(Table):
    """The working grid: the pixels on which slices are segmented. Predictions return to the scan's own grid."""

    max_size: int = Field(
        default=256,
        ge=16,
        description="larger slices are resized to fit, unless spacing or size says something else",
    )
    spacing: float | None = Field(
        default=None, gt=0, description="pixel size to resize slices to, mm"
    )
    size: int | None = Field(
        default=None,
        ge=16,
        description="height and width to crop or pad slices to, about the centre",
    )
