"""Evaluation protocols and fold schemes as data: which cases are support, query and training, and what is scored.

Published numbers of this field differ by protocol more than by method, so a protocol has a name and a hash, and both
are printed with every table.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fsseg.data.folds import FoldScheme, SupportChoice
from fsseg.errors import FssegError
from fsseg.interfaces import Assigner
from fsseg.plugins.options import nearest

Classes = dict[int, str]
"""Names of a dataset's classes by label value."""


@dataclass(frozen=True)
class Protocol:
    """The rules by which a fold is evaluated.

    A subclass with a method `choose` (`fsseg.interfaces.Assigner`) has logic of its own: it says itself who segments what
    from which slices. Its fields and the name of its class enter the protocol's hash.

    Attributes:
        name: The protocol's name.
        support: Which case gives the support; None where the fold scheme says.
        support_parts: Parts of a class that have supports of their own.
        shots: Labelled slices of a support scan. With n parts, the slices that show a class fall into n * shots equal
            shares, and the middle one of each is taken: the first `shots` of them for the first part, and so on.
        together: All classes are segmented at once, from slices that show most of them, drawn with the seed.
        query_slices: "all"; those "labelled" with the class; or the "range" from its first to its last one.
        score: What is counted, and over which voxels.
        undefined: What happens to a case without the class in truth and prediction.
        average: How scores become a table's numbers.
        supports: Support scans whose labelled slices are the shots of one support.
        drawn: Of each share one slice is drawn with the seed, in place of the middle one.

    Example:
        >>> protocol = Protocol("three_scans", supports=3, query_slices="range")
        >>> protocol.uses_truth, protocol.has_logic
        (True, False)
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
    supports: int = 1
    drawn: bool = False

    @property
    def uses_truth(self) -> bool:
        """True if the query's ground truth decides which of its slices are segmented; tables say so."""
        return self.query_slices != "all"

    @property
    def has_logic(self) -> bool:
        """True for a subclass that chooses slices itself."""
        return isinstance(self, Assigner)

    def definition(self) -> dict[str, Any]:
        """Plain values that stand for the protocol.

        What was added to protocols later is left out where it changes nothing, so that the hashes of results stay.
        """
        values = asdict(self)
        for later, nothing in LATER.items():
            if values[later] == nothing:
                del values[later]
        if self.has_logic:
            values["logic"] = f"{type(self).__module__}:{type(self).__qualname__}"
        return values


LATER = {"supports": 1, "drawn": False}
"""Fields that the first protocols did not have, with the values that change nothing."""


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
    definition = {
        "protocol": {**protocol.definition(), "support": support},
        "folds": scheme.definition(support),
        "classes": {str(value): classes[value] for value in classes},
    }
    text = json.dumps(definition, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
