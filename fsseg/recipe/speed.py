"""The table of what makes a run fast."""

from typing import Literal

from pydantic import Field

from fsseg.recipe.components import Table
from fsseg.recipe.values import NumberOrAuto


class SpeedTable(Table):
    """Ways to make a run fast. Results differ by round-off only, except for the precision."""

    determinism: Literal["fast", "deterministic"] = Field(
        default="fast",
        description="deterministic: a GPU uses only operations whose digits are the same each time; those of a CPU always "
        "are",
    )
    threads: NumberOrAuto = Field(
        default="auto",
        description="threads that a CPU computes with, on which digits depend; auto: one for each core",
    )

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of the network in training; auto: bfloat16 where the device is faster with it",
    )
    capture: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="steps of fixed shapes, recorded once and replayed; auto: on GPUs",
    )
    channels_last: bool = Field(
        default=True, description="the network's weights and features with their channels last"
    )
    fused: bool = Field(default=True, description="the optimiser's update of all weights in one go")
    together: NumberOrAuto = Field(
        default="auto",
        description="trainings (of folds and seeds) at a time; auto: as many as a GPU has room for, else 1",
    )
    checkpoint_every: NumberOrAuto = Field(
        default="auto",
        description="steps after which training saves its state, from which it goes on should it be killed; "
        "auto: every half minute, less often where writing takes more than a fiftieth of the time",
    )
