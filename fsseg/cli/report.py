"""The command that makes a page of a run: `fsseg report`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fsseg.cli.console import follow, print_size
from fsseg.cli.options import LeftOut, PluginFiles, RunDirectory

PageFile = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="FILE", help="The page [default: report.html in RUN]."),
]
Baseline = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The row to compare the others with [default: the first]."),
]
CaseCount = Annotated[
    int, typer.Option(metavar="N", help="Cases to show slices of: the worst half and the best.")
]
NoScans = Annotated[
    bool,
    typer.Option("--no-scans", help="Leave out all pictures of scans: numbers and names only."),
]


def report_command(
    run: RunDirectory,
    out: PageFile = None,
    baseline: Baseline = None,
    cases: CaseCount = 4,
    no_scans: NoScans = False,
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
) -> None:
    """Make one HTML page of a run: tables, figures, and slices whose prior can be dragged.

    The page loads nothing else and can be sent as it is. It holds slices of the shown cases' scans unless --no-scans is given.
    """
    from fsseg.report.page import write_report

    with follow() as bars:
        how: dict[str, Any] = {
            "baseline": baseline,
            "cases": cases,
            "scans": not no_scans,
            "progress": bars,
        }
        path = write_report(run, out, **how)
    print_size(path)
