"""Jobs where a [launcher] table says: here, or on a Slurm cluster."""

from collections.abc import Callable

from fsseg.jobs.job import JobSet, Show
from fsseg.jobs.local import run_here
from fsseg.jobs.slurm import run_on_slurm
from fsseg.recipe.tables import LauncherTable


def launch(jobs: JobSet, table: LauncherTable, show: Show, note: Callable[[str], None]) -> None:
    """Runs jobs where the table says.

    Args:
        jobs: The jobs.
        table: Where, and how many at a time.
        show: Called again and again with how far they are.
        note: Called with what is said in passing.

    Raises:
        FssegError: A job did not end well, or Slurm is not here or refuses.
        Stopped: A signal asked to stop.
    """
    note(f"{len(jobs.jobs)} jobs: fsseg status {jobs.folder}")
    if table.name == "slurm":
        run_on_slurm(jobs, table, show, note)
    else:
        run_here(jobs, table.jobs or 1, [{}], 1, show)
    jobs.require_done()
