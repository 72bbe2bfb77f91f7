"""Evaluation protocols and fold schemes as data: which cases are support, query and training, and what is scored.

Published numbers of this field differ by protocol more than by method, so a protocol has a name and a hash, and both
are printed with every table.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from fsseg.data.folds import FoldScheme, SupportChoice, find_named
from fsseg.errors import FssegError
from fsseg.plugins.options import nearest

Classes = dict[int, str]
"""Names of a dataset's classes by label value."""


@dataclass(frozen=True)
class Protocol:
    """The rules by which a fold is evaluated.

    Attributes:
        name: The protocol's name.
        support: Which case gives the support; None where the fold scheme says.
        support_parts: Parts of a class that have supports of their own.
        shots: Labelled slices of a support. With n parts, the slices that show a class fall into n * shots equal shares,
            and the middle one of each is taken: the first `shots` of them for the first part, and so on.
        together: All classes are segmented at once, from slices that show most of them, drawn with the seed.
        query_slices: "all"; those "labelled" with the class; or the "range" from its first to its last one.
        score: What is counted, and over which voxels.
        undefined: What happens to a case without the class in truth and prediction.
        average: How scores become a table's numbers.
    """

    name: str
    support: SupportChoice | None = None
    support_parts: int = 1
    shots: int = 1
    together: bool = False
    query_slices: Literal["all", "labelled", "range"] = "all"
    score: str = "Dice over the voxels of the query slices"
    undefined: str = "left out of the mean"
    average: str = "over cases, then over classes; folds and seeds are kept apart"

    @property
    def uses_truth(self) -> bool:
        """True if the query's ground truth decides which of its slices are segmented; tables say so."""
        return self.query_slices != "all"


PROTOCOLS = {
    "ep2": Protocol("ep2"),
    "ep1": Protocol("ep1", support_parts=3, query_slices="labelled"),
    "alp_3chunk": Protocol("alp_3chunk", support_parts=3, query_slices="range"),
    "ep2_multi": Protocol("ep2_multi", support="each", together=True),
}
"""`ep2`: one middle slice of one scan segments every slice of the others (Hansen et al., 2022; the TPM paper). `ep1`: three
slices segment the thirds of those that show the class (Hansen et al., 2022). `alp_3chunk`: three slices segment the thirds
of the class's extent (Ouyang et al., 2020). `ep2_multi`: as `ep2`, for all classes at once, each case in turn the support
(the TPM paper's multi-class evaluation, without its slip of scoring supports)."""


def find_protocol(name: str) -> Protocol:
    """The protocol of this name; raises FssegError for one that there is not, with the nearest."""
    return find_named(PROTOCOLS, name, "protocol")


def choose_classes(classes: Classes, names: list[str] | None) -> Classes:
    """The classes that are evaluated: those named, in the dataset's order, or all where none are.

    Raises FssegError for a name that the dataset does not have.
    """
    if not names:
        return dict(classes)
    known = list(classes.values())
    for name in names:
        if name not in known:
            raise FssegError(
                f"protocol.classes: the dataset has no class {name!r}; {nearest(name, known)}"
            )
    return {value: name for value, name in classes.items() if name in names}


def protocol_hash(protocol: Protocol, scheme: FoldScheme, classes: Classes) -> str:
    """Eight hexadecimal digits that differ whenever anything that defines the evaluation does.

    A scheme counts by the folds that it gives and not by its name: `hansen2022` with circular supports is
    `hansen2022_circular`.
    """
    support = protocol.support or scheme.support
    overlap = 0 if support == "circular" else scheme.overlap
    definition = {
        "protocol": {**asdict(protocol), "support": support},
        "folds": scheme.lists or [scheme.folds, overlap],
        "classes": {str(value): classes[value] for value in classes},
    }
    text = json.dumps(definition, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
