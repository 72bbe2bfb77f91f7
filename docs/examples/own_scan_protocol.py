"""Label one slice, get the scan: a labelled slice at a third of the organ segments the others of the same scan."""

from dataclasses import dataclass

from fsseg import Choice, Protocol, hookimpl


@dataclass(frozen=True)
class OwnScan(Protocol):
    share: float = 1 / 3

    def choose(self, fold, shown, classes, rng):
        choices = []
        for case in fold.evaluated:
            slices = range(len(shown[case]))
            for way in classes.items():
                organ = [number for number in slices if way[0] in shown[case][number]]
                if organ:
                    labelled = organ[int(self.share * (len(organ) - 1))]
                    others = [number for number in slices if number != labelled]
                    choices.append(Choice((way,), case, (labelled,), case, others))
        return choices


class OwnScanAt:
    """A labelled slice of each scan segments the others of the same scan, one class at a time."""

    def __init__(self, *, share: float = 1 / 3) -> None:
        self.share = share

    def __call__(self):
        return OwnScan("own_scan_at", support="own", share=self.share)


@hookimpl
def register_protocols(register):
    register("own_scan_at", OwnScanAt)
