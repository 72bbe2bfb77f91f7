"""Makes the cases of a plan: in parallel, restartable, and so that a reader never sees half of anything."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from fsseg.errors import DataError, FssegError
from fsseg.prepare.manifest import (
    FILE_NAME,
    Manifest,
    Record,
    is_current,
    open_manifest,
    result_of,
    source_of,
)
from fsseg.prepare.plan import CasePlan, Plan, Prepared
from fsseg.prepare.save import checksum, remove_unfinished, write_nifti
from fsseg.system.files import replacing, write_text, writing
from fsseg.system.locks import holding, is_held, read_holder
from fsseg.system.parallel import in_processes, processors
from fsseg.system.progress import Progress, Silent

DESCRIPTION = "dataset.toml"


@dataclass(frozen=True)
class Task:
    """What a worker process needs to make one case."""

    plan: CasePlan
    make: Any
    source: Path
    out: Path
    image: str
    label: str
    record: Record | None


@dataclass(frozen=True)
class Done:
    """A case after its turn: its record, or what was wrong with it."""

    case: str
    record: Record | None = None
    skipped: bool = False
    problem: str | None = None


@dataclass
class Outcome:
    """What a run has done.

    Attributes:
        out: The dataset's folder.
        manifest: Its manifest.
        made: Cases made in this run.
        skipped: Cases that were there already.
        problems: A sentence for each case that could not be made.
    """

    out: Path
    manifest: Manifest
    made: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def raise_problems(self) -> None:
        """Raises one DataError with everything that went wrong."""
        if self.problems:
            count = len(self.made) + len(self.skipped) + len(self.problems)
            listed = [problem for _, problem in sorted(self.problems.items())]
            raise DataError(
                f"{len(self.problems)} of {count} cases could not be prepared; correct them and run the same command "
                "again, finished cases are not repeated\n" + "\n".join(listed)
            )


def prepare(
    plan: Plan, out: Path, *, jobs: int | None = None, progress: Progress | None = None
) -> Outcome:
    """Makes the dataset of a plan in a folder, or what is missing of it.

    A case is skipped if its source files, options and the version of this code are those in the manifest and its
    files are as they were written. Bad cases do not stop the others: see Outcome.raise_problems.

    Args:
        plan: From a layout's `plan`.
        out: The dataset's folder.
        jobs: Cases at a time; one per processor unless given.
        progress: Follows the cases.

    Raises:
        DataError: The folder cannot be written, is in use by another run, or is not one of this layout.
    """
    progress = progress or Silent()
    for note in plan.notes:
        progress.note(note)
    _refuse_sources_in(plan, out)
    with writing(out / FILE_NAME):
        out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        remove_unfinished(out)
        outcome = Outcome(out, open_manifest(plan, out))
        outcome.manifest.save()  # from here on, what lies in the folder is ours
        tasks = [
            Task(
                case,
                plan.make,
                plan.source,
                out,
                plan.image,
                plan.label,
                outcome.manifest.cases.get(case.case),
            )
            for case in plan.cases
        ]
        results = in_processes(prepare_case, tasks, jobs or processors(), progress, "prepare")
        with _cleaning_up(out), closing(results):
            for _, done in results:
                _record(done, outcome)
        _describe(plan, outcome, progress)
        outcome.manifest.save()
    return outcome


def prepare_case(task: Task) -> Done:
    """Makes one case and writes its files, unless it is there already; runs in a worker process."""
    case = task.plan.case
    try:
        source = source_of(task.plan, task.source)
        if is_current(task.record, source, task.out):
            return Done(case, task.record, skipped=True)
        names = [pattern.format(case=case) for pattern in (task.image, task.label)]
        # Neither a bad case nor half a pair may be taken for the new one.
        for name in names:
            with writing(task.out / name):
                (task.out / name).unlink(missing_ok=True)
        prepared = task.make(task.plan)
        return Done(case, source | result_of(prepared, _write(prepared, task.out, names)))
    except FssegError as error:
        return Done(case, problem=str(error))
    except OSError as error:
        where = error.filename or task.source
        return Done(
            case,
            problem=f"{where}: cannot be read ({error.strerror or error}); expected a readable file",
        )
    except MemoryError:
        return Done(
            case, problem=f"{task.source}: case {case} does not fit into memory; use fewer --jobs"
        )


def _write(prepared: Prepared, out: Path, names: list[str]) -> dict[str, str]:
    with replacing(out / names[0]) as image, replacing(out / names[1]) as label:
        with writing(out / names[0]):  # or the error would name the label map
            write_nifti(image, prepared.image)
        write_nifti(label, prepared.label)
        return {names[0]: checksum(image), names[1]: checksum(label)}


@contextmanager
def _cleaning_up(out: Path) -> Iterator[None]:
    """Removes what worker processes that were ended have left, on any exception."""
    try:
        yield
    except BaseException:
        remove_unfinished(out)
        raise


def _record(done: Done, outcome: Outcome) -> None:
    if done.problem is not None:
        outcome.problems[done.case] = done.problem
        changed = outcome.manifest.cases.pop(done.case, None) is not None
    else:
        (outcome.skipped if done.skipped else outcome.made).append(done.case)
        outcome.manifest.cases[done.case] = done.record
        changed = not done.skipped
    if changed:
        outcome.manifest.save()


def _describe(plan: Plan, outcome: Outcome, progress: Progress) -> None:
    """Writes the dataset.toml, unless there is one that somebody else has written or changed."""
    manifest, path = outcome.manifest, outcome.out / DESCRIPTION
    cases = [manifest.cases[case.case] for case in plan.cases if case.case in manifest.cases]
    orphans = sorted(set(manifest.cases) - {case.case for case in plan.cases})
    if orphans:
        progress.note(
            f"{outcome.out}: {', '.join(orphans)} of an earlier run are not in {plan.source} any more; they are kept, "
            "remove their files if they should not be used"
        )
    if not cases:
        return
    values = sorted({int(value) for record in cases for value in record["voxels"]} - {0})
    description, notes = plan.describe(len(cases), values)
    for note in notes:
        progress.note(note)
    manifest.classes = description["classes"]
    text = tomli_w.dumps(description)
    if path.exists() and path.read_bytes() == text.encode():
        manifest.description = checksum(path)
    elif path.exists() and checksum(path) != manifest.description:
        progress.note(
            f"{path}: is not as fsseg prepare wrote it and is left as it is; remove it to have it written anew"
        )
    else:
        write_text(path, text)
        manifest.description = checksum(path)


def _refuse_sources_in(plan: Plan, out: Path) -> None:
    place = out.resolve()
    inside = next(
        (
            path
            for case in plan.cases
            for path in case.image + case.label
            if place in path.resolve().parents
        ),
        None,
    )
    if inside is not None:
        raise DataError(
            f"{out}: holds the source file {inside}, expected a folder of its own; choose another --out"
        )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keeps two runs out of one folder."""
    lock = out / ".prepare.lock"
    if is_held(lock):
        raise DataError(
            f"{out}: another fsseg prepare is writing into it, {read_holder(lock)}; wait for it, or choose another --out"
        )
    with holding(lock):
        yield
