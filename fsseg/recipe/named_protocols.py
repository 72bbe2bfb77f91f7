"""Protocols by the names that recipes know them by: the components of the kind `protocol`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fsseg.plugins.options import component
from fsseg.recipe.protocols import Protocol


class Published:
    """A protocol without options.

    Attributes:
        rules: Its rules.
    """

    rules: ClassVar[Protocol]

    def __init__(self) -> None:
        pass

    def __call__(self) -> Protocol:
        """The rules."""
        return self.rules


@component
class Ep2(Published):
    """One class at a time: the middle labelled slice of one scan segments every slice of the others.

    Reference: evaluation protocol 2 of Hansen et al. (2022), and Table 1 of the TPM paper.
    """

    rules = Protocol("ep2")


@component
class Ep1(Published):
    """One class at a time: three labelled slices segment the thirds of those slices that show the class.

    It looks at the query's ground truth. Reference: evaluation protocol 1 of Hansen et al. (2022).
    """

    rules = Protocol("ep1", support_parts=3, query_slices="labelled")


@component
class Alp3Chunk(Published):
    """One class at a time: three labelled slices segment the thirds of the class's extent.

    It looks at the query's ground truth. Reference: Ouyang et al. (2020), SSL-ALPNet.
    """

    rules = Protocol("alp_3chunk", support_parts=3, query_slices="range")


@component
class Ep2Multi(Published):
    """All classes at once, from a slice that shows most of them, drawn with the seed; each case in turn is the support.

    Reference: the multi-class evaluation of the TPM paper, without its slip of scoring supports.
    """

    rules = Protocol("ep2_multi", support="each", together=True)


@component
class Ep2Pooled:
    """As `ep2`, from several scans: the middle labelled slice of each is a shot of one support.

    The fold's last cases give the supports, or the next fold's first ones. Ours: published evaluations with several
    labelled scans take each in turn (`support = "each"`), or let their decisions vote (Tomasetti et al., 2023).
    """

    def __init__(
        self, *, supports: Annotated[int, Field(ge=1, description="support scans")] = 3
    ) -> None:
        self.supports = supports

    def __call__(self) -> Protocol:
        """The rules."""
        return Protocol("ep2_pooled", supports=self.supports)


@component
class OwnSlice:
    """One class at a time: a labelled slice of each scan segments the other slices of the same scan.

    Label one slice, get the scan. The labelled slice is not scored, and a scan that does not show the class is left out.
    Every case of the fold is a query. The defaults are ours; with `query_slices = "labelled"` and `drawn = true` it is,
    as far as its abstract tells, the evaluation of Balasundaram et al. (Diagnostics, 2023), which looks at the query's
    ground truth. Numbers are no match for those of other protocols: support and query are one patient.
    """

    def __init__(
        self,
        *,
        query_slices: Annotated[
            Literal["all", "labelled", "range"],
            Field(
                description="which other slices are scored: all, those that show the class, or those of its extent"
            ),
        ] = "all",
        drawn: Annotated[
            bool,
            Field(
                description="the labelled slice is drawn with the seed among those that show the class; else the middle one"
            ),
        ] = False,
    ) -> None:
        self.query_slices = query_slices
        self.drawn = drawn

    def __call__(self) -> Protocol:
        """The rules."""
        return Protocol(
            "own_slice", support="own", query_slices=self.query_slices, drawn=self.drawn
        )
