"""Fold schemes by the names that recipes and `dataset.toml` know them by: the components of the kind `folds`."""

from typing import Annotated, ClassVar

from pydantic import Field

from fsseg.data.folds import FOLD_SCHEMES, FoldScheme, listed_folds
from fsseg.interfaces import Dataset
from fsseg.plugins.options import component


class Published:
    """Folds that are the same for every dataset that they take.

    Attributes:
        scheme: The folds.
    """

    scheme: ClassVar[FoldScheme]

    def __init__(self) -> None:
        pass

    def __call__(self, dataset: Dataset) -> FoldScheme:
        """The scheme; `make_fold` refuses a dataset of another number of cases than it was published for."""
        return self.scheme


@component
class OfDataset:
    """As the dataset says: the folds it was published with, those of its `dataset.toml`, or up to five disjoint ones."""

    def __init__(self) -> None:
        pass

    def __call__(self, dataset: Dataset) -> FoldScheme:
        """The dataset's own scheme."""
        return dataset.folds


@component
class Hansen2022(Published):
    """The published folds of CHAOS (20 cases) and CMR (35), which overlap by one case; the support is the last in order.

    So rank 0 is a query twice, and the last rank never (Hansen et al., 2022).
    """

    scheme = FOLD_SCHEMES["hansen2022"]


@component
class Hansen2022Circular(Published):
    """The repair of `hansen2022`: the support is the next fold's first case, so every case is a query once.

    These are ALPNet's folds (Ouyang et al., 2020), for 20, 30 or 35 cases.
    """

    scheme = FOLD_SCHEMES["hansen2022_circular"]


@component
class RptSabs(Published):
    """As `hansen2022`, for the 30 scans of SABS (RPT, GMRD, CAT-Net, Q-Net)."""

    scheme = FOLD_SCHEMES["rpt_sabs"]


@component
class TpmSabs(Published):
    """Disjoint sixes of the 30 scans of SABS, the last of each gives the support (TPM)."""

    scheme = FOLD_SCHEMES["tpm_sabs"]


@component
class Disjoint2(Published):
    """Two folds as equal as possible, the last case of each gives the support; for any dataset."""

    scheme = FOLD_SCHEMES["disjoint2"]


@component
class Disjoint3(Published):
    """Three folds as equal as possible, the last case of each gives the support; for any dataset."""

    scheme = FOLD_SCHEMES["disjoint3"]


@component
class Disjoint5(Published):
    """Five folds as equal as possible, the last case of each gives the support; for any dataset."""

    scheme = FOLD_SCHEMES["disjoint5"]


@component
class Disjoint:
    """Any number of folds as equal as possible, the last case of each gives the support.

    Example:
        >>> Disjoint(count=4)(None).folds
        4
    """

    def __init__(self, *, count: Annotated[int, Field(ge=2, description="folds")] = 5) -> None:
        self.count = count

    def __call__(self, dataset: Dataset) -> FoldScheme:
        """The scheme of so many folds."""
        return FoldScheme(f"disjoint{self.count}", folds=self.count)


@component
class Listed:
    """Folds whose cases the recipe lists; the last case of each list gives the support.

    Example:
        >>> Listed(lists=[["a", "b"], ["c", "d"]])(None).divide(["a", "b", "c", "d"], 1)
        ['c', 'd']
    """

    def __init__(
        self,
        *,
        lists: Annotated[
            list[Annotated[list[str], Field(min_length=2)]],
            Field(min_length=1, description="the cases of each fold, the support last"),
        ],
    ) -> None:
        self.lists = lists

    def __call__(self, dataset: Dataset) -> FoldScheme:
        """The scheme of these lists."""
        return listed_folds(self.lists)
