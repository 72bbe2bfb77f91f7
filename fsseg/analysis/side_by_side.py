"""Runs side by side: whether they were evaluated alike, and one frame of all their scores."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fsseg.errors import FssegError
from fsseg.runs.folder import RunFolder
from fsseg.runs.records import read_environment
from fsseg.runs.results import Results
from fsseg.system.names import told

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas

FIRST_COLUMNS = (
    "dataset",
    "run",
    "fold",
    "seed",
    "case",
    "class_name",
    "variant",
    "support_case",
    "support_slices",
)
"""The columns of a joined frame that say what a score is of."""


def check_alike(runs: list[Results]) -> None:
    """Raises FssegError for runs whose numbers differ by more than their methods."""
    first, *others = runs
    for other in others:
        difference = _difference(first, other)
        if difference:
            raise FssegError(
                f"compare: {first.path} and {other.path} were evaluated with different {difference}, "
                "so that their difference is not that of their methods; evaluate them alike, or show "
                "them side by side with --across-protocols (across_protocols=True)"
            )


def _difference(first: Results, other: Results) -> str | None:
    """How the evaluations of two runs differ; None where they are alike."""
    hashes = [run.about.get("protocol_hash") for run in (first, other)]
    if hashes[0] != hashes[1]:
        return f"protocols, folds or classes ({hashes[0]} and {hashes[1]})"
    first_data = first.about.get("data", {})
    other_data = other.about.get("data", {})
    shared = sorted(first_data.keys() & other_data.keys())
    if not shared:
        return f"folds ({', '.join(first_data) or 'none'} and {', '.join(other_data) or 'none'})"
    for fold in shared:
        if first_data[fold] != other_data[fold]:
            return f"scans or a different grid in fold {fold}"
    return None


def notes_of(runs: list[Results]) -> Iterator[str]:
    """Sentences about runs whose means are over other folds or seeds than those of the first."""
    first, *others = runs
    for run in others:
        for key in ("folds", "seeds"):
            of_run, of_first = _listed(run, key), _listed(first, key)
            if of_run != of_first:
                yield (
                    f"{run.path.name} has {key} {of_run}, {first.path.name} {of_first}: means are "
                    "over what each has, differences over the scans that both have"
                )


def _listed(run: Results, key: str) -> str:
    values = run.about.get(key, [])
    return ", ".join(map(str, values))


def joined(runs: list[Results]) -> "pandas.DataFrame":
    """The frames of runs below each other, with the columns `dataset` and `run`, their variants told apart."""
    import pandas

    parts = []
    told_apart = zip(runs, distinct_names(runs), dataset_names(runs))
    for run, names, dataset in told_apart:
        part = run.frame.assign(dataset=dataset, run=run.path.name)
        part["variant"] = part["variant"].map(names)
        parts.append(part)
    frame = pandas.concat(parts, ignore_index=True)
    others = [column for column in frame.columns if column not in FIRST_COLUMNS]
    return frame[[*FIRST_COLUMNS, *others]]


def distinct_names(runs: list[Results]) -> list[dict[str, str]]:
    """The names of each run's variants beside those of the others: with the run's name where several have them."""
    counts = Counter(name for run in runs for name in run.variants)
    told_apart = []
    for run, run_name in zip(runs, _names_of_runs(runs)):
        names = {}
        for name in run.variants:
            names[name] = name if counts[name] == 1 else f"{name} ({run_name})"
        told_apart.append(names)
    taken = [name for names in told_apart for name in names.values()]
    twice = [name for name in taken if taken.count(name) > 1]
    if twice:
        raise FssegError(
            f"compare: two rows would be called {told(twice[0])}, expected every run once and names that tell rows "
            "apart; leave a run out, or rename its directory"
        )
    return told_apart


def _names_of_runs(runs: list[Results]) -> list[str]:
    """What tells runs apart: the names of their directories, or their paths where several have one name."""
    counts = Counter(run.path.name for run in runs)
    names = []
    for run in runs:
        is_alone = counts[run.path.name] == 1
        names.append(run.path.name if is_alone else str(run.path.absolute()))
    return names


def dataset_names(runs: list[Results]) -> list[str]:
    """The name of each run's dataset: another one where an earlier run has other scans under the same names."""
    names: list[str] = []
    seen: dict[str, dict[str, str]] = {}
    for run, run_name in zip(runs, _names_of_runs(runs)):
        name = run.about.get("dataset", "")
        keys = _keys_of_scans(run)
        earlier = seen.get(name, {})
        if any(earlier.get(case, key) != key for case, key in keys.items()):
            name = f"{name} ({run_name})"
        seen[name] = keys | seen.get(name, {})
        names.append(name)
    return names


def _keys_of_scans(run: Results) -> dict[str, str]:
    """The key of the content of each of a run's scans, by case; empty where the run does not say."""
    file = RunFolder(run.path).environment
    if not file.is_file():
        return {}
    return read_environment(file).get("data", {})
