"""The table `[protocol]` of a recipe: how what was trained is evaluated."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from fsseg.data.folds import SupportChoice
from fsseg.plugins.manager import registry
from fsseg.plugins.options import refusal
from fsseg.recipe.components import ComponentTable, Kind, Named, OptionsOf, Table


class ProtocolTable(Table):
    """The evaluation of the trained segmenter: cases, classes, supports, and what is written."""

    name: Annotated[str, Named("protocol")] = Field(
        default="ep2", description="the evaluation protocol"
    )
    options: Annotated[dict[str, Any], OptionsOf("protocol")] = Field(
        default={}, description="options of the protocol: see fsseg list protocol/NAME"
    )
    folds: Annotated[ComponentTable, Kind("folds")] = Field(
        default=ComponentTable(name="dataset"),
        description="how cases are divided into folds; dataset: as the dataset says",
    )
    fold: int | Literal["all"] = Field(default=0, description="which fold to run")
    support: SupportChoice | None = Field(
        default=None,
        description="which case gives the support: the fold's last, the next fold's first (circular), each in turn, or "
        "each for itself (own); when omitted, as the protocol or the folds say",
    )
    shots: int = Field(
        default=1, ge=1, description="labelled slices of a support scan; 1: as the protocol says"
    )
    supports: int = Field(
        default=1,
        ge=1,
        description="support scans whose labelled slices are the shots of one support; 1: as the protocol says",
    )
    classes: list[str] | None = Field(
        default=None,
        min_length=1,
        description="which of the dataset's classes are evaluated; all when omitted",
    )
    save_labels: bool = Field(default=True, description="write the predicted label maps")
    save_margins: bool = Field(
        default=True,
        description="write what decided each slice, at feature resolution, which a report lets one explore",
    )

    @property
    def component(self) -> ComponentTable:
        """The protocol with its options, as other components are written."""
        return ComponentTable(**{**self.options, "name": self.name})

    @model_validator(mode="after")
    def _options_fit(self, info: ValidationInfo) -> Self:
        """Checks the protocol's options, once its name is known to be one; assigning to a field does not come here."""
        if info.context is not None:
            problems = registry().problems("protocol", self.name, self.options)
            if problems:
                raise refusal([(f"options.{key}", sentence) for key, sentence in problems])
        return self
