"""Makes the cases of a plan: in parallel, restartable, and so that a reader never sees half of anything."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from fsseg.errors import DataError, FssegError
from fsseg.prepare.manifest import (
    FILE_NAME,
    Manifest,
    Record,
    checksum,
    is_current,
    open_manifest,
    result_of,
    source_of,
)
from fsseg.prepare.plan import CasePlan, Plan, Prepared
from fsseg.prepare.scan import write_nifti
from fsseg.system.files import replacing, write_text, writing
from fsseg.system.locks import holding, is_held, read_holder
from fsseg.system.parallel import in_processes, processors
from fsseg.system.progress import Progress, Silent
from fsseg.system.unfinished import UNFINISHED

DESCRIPTION = "dataset.toml"


@dataclass(frozen=True)
class Task:
    """All that a worker process needs to make one case.

    Attributes:
        plan: The case.
        make: Makes it.
        source: The folder with the raw scans.
        out: The dataset's folder.
        image: Path of an output image below it, with `{case}`.
        label: Path of an output label map, likewise.
        record: What an earlier run has recorded of it, if one did.
    """

    plan: CasePlan
    make: Callable[[CasePlan], Prepared]
    source: Path
    out: Path
    image: str
    label: str
    record: Record | None


@dataclass(frozen=True)
class Done:
    """A case after its turn.

    Attributes:
        case: Its id.
        record: What it was made of and how; None for one that could not be made.
        skipped: Whether it was there already.
        problem: A sentence for what was wrong with it.
        notes: What the user should know of it, a sentence each.
    """

    case: str
    record: Record | None = None
    skipped: bool = False
    problem: str | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Outcome:
    """A dataset's folder after a run, and what the run has done.

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
        if not self.problems:
            return
        count = len(self.made) + len(self.skipped) + len(self.problems)
        lines = [
            f"{len(self.problems)} of {count} cases could not be prepared; correct them and run the same command "
            "again, finished cases are not repeated"
        ]
        lines += [self.problems[case] for case in sorted(self.problems)]
        raise DataError("\n".join(lines))


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
    _require_replaceable(out / DESCRIPTION)
    with writing(out / FILE_NAME):
        out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        _remove_unfinished(out)
        outcome = Outcome(out, open_manifest(plan, out))
        outcome.manifest.save()  # from here on, what lies in the folder is ours
        tasks = [_task(case, plan, outcome) for case in plan.cases]
        results = in_processes(prepare_case, tasks, jobs or processors(), progress, "prepare")
        with _cleaning_up(out), closing(results):
            for _, done in results:
                _record(done, outcome)
                for note in done.notes:
                    progress.note(note)
        _describe(plan, outcome, progress)
        outcome.manifest.save()
    return outcome


def _task(case: CasePlan, plan: Plan, outcome: Outcome) -> Task:
    return Task(
        plan=case,
        make=plan.make,
        source=plan.source,
        out=outcome.out,
        image=plan.image,
        label=plan.label,
        record=outcome.manifest.cases.get(case.case),
    )


def prepare_case(task: Task) -> Done:
    """Makes one case and writes its files, unless it is there already; runs in a worker process."""
    case = task.plan.case
    try:
        source = source_of(task.plan, task.source)
        image = task.image.format(case=case)
        label = task.label.format(case=case)
        if is_current(task.record, source, task.out, {image, label}):
            return Done(case, task.record, skipped=True)
        # Neither a bad case nor half a pair may be taken for the new one.
        for path in (task.out / image, task.out / label):
            _require_replaceable(path)
            with writing(path):
                path.unlink(missing_ok=True)
        prepared = task.make(task.plan)
        outputs = _write(prepared, task.out, image, label)
        return Done(case, source | result_of(prepared, outputs), notes=prepared.notes)
    except FssegError as error:
        return Done(case, problem=str(error))
    except OSError as error:
        where = error.filename or task.source
        reason = error.strerror or error
        return Done(case, problem=f"{where}: cannot be read ({reason}); expected a readable file")
    except MemoryError:
        return Done(
            case, problem=f"{task.source}: case {case} does not fit into memory; use fewer --jobs"
        )


def _write(prepared: Prepared, out: Path, image: str, label: str) -> dict[str, str]:
    """Writes both files, and returns their checksums by their names."""
    with replacing(out / image) as new_image, replacing(out / label) as new_label:
        with writing(out / image):  # or the error would name the label map
            write_nifti(new_image, prepared.image)
        write_nifti(new_label, prepared.label)
        return {image: checksum(new_image), label: checksum(new_label)}


def _remove_unfinished(folder: Path) -> None:
    """Removes what runs that died have left in a folder and the folders in it."""
    for pattern in (f".*{UNFINISHED}", f"*/.*{UNFINISHED}"):
        for path in folder.glob(pattern):
            with writing(path):
                path.unlink(missing_ok=True)


@contextmanager
def _cleaning_up(out: Path) -> Iterator[None]:
    """Removes what worker processes that were ended have left, on any exception."""
    try:
        yield
    except BaseException:
        _remove_unfinished(out)
        raise


def _record(done: Done, outcome: Outcome) -> None:
    cases = outcome.manifest.cases
    if done.skipped:
        outcome.skipped.append(done.case)
    elif done.problem is None:
        outcome.made.append(done.case)
        cases[done.case] = done.record or {}
        outcome.manifest.save()
    else:
        outcome.problems[done.case] = done.problem
        if cases.pop(done.case, None) is not None:
            outcome.manifest.save()


def _describe(plan: Plan, outcome: Outcome, progress: Progress) -> None:
    """Writes the dataset.toml for what is in the folder."""
    manifest = outcome.manifest
    planned = [case.case for case in plan.cases]
    orphans = sorted(set(manifest.cases) - set(planned))
    if orphans:
        progress.note(
            f"{outcome.out}: {', '.join(orphans)} of an earlier run are not in {plan.source} any more; they are kept, "
            "remove their files if they should not be used"
        )
    records = [manifest.cases[case] for case in planned if case in manifest.cases]
    if not records:
        return
    values: set[int] = set()
    for record in records:
        values |= {int(value) for value in record["voxels"]}
    description, notes = plan.describe(len(records), sorted(values - {0}))
    for note in notes:
        progress.note(note)
    manifest.classes = description["classes"]
    _write_description(tomli_w.dumps(description), outcome, progress)


def _write_description(text: str, outcome: Outcome, progress: Progress) -> None:
    """Writes the dataset.toml, unless there is one that somebody else has written or changed."""
    path = outcome.out / DESCRIPTION
    manifest = outcome.manifest
    is_ours = not path.exists() or checksum(path) == manifest.description
    is_same = path.exists() and path.read_bytes() == text.encode()
    if not is_ours and not is_same:
        progress.note(
            f"{path}: is not as fsseg prepare wrote it and is left as it is; remove it to have it written anew"
        )
        return
    if not is_same:
        write_text(path, text)
    manifest.description = checksum(path)


def _require_replaceable(path: Path) -> None:
    """Raises DataError for what is neither a file nor a link, and would be lost."""
    if path.is_file() or path.is_symlink() or not path.exists():
        return
    kind = "a folder" if path.is_dir() else "a pipe or a device"
    raise DataError(
        f"{path}: is {kind}, expected a file that fsseg prepare may replace; remove it, or choose another --out"
    )


def _refuse_sources_in(plan: Plan, out: Path) -> None:
    folder = Path(os.path.realpath(out))
    for case in plan.cases:
        for path in case.image + case.label:
            if folder in Path(os.path.realpath(path)).parents:
                raise DataError(
                    f"{out}: holds the source file {path}, expected a folder of its own; choose another --out"
                )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keeps two runs out of one folder."""
    lock = out / ".prepare.lock"
    if is_held(lock):
        holder = read_holder(lock)
        raise DataError(
            f"{out}: another fsseg prepare is writing into it, {holder}; wait for it, or choose another --out"
        )
    with holding(lock):
        yield
