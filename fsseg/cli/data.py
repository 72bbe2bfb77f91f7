"""The shell's commands around data: `fsseg check`, `fsseg supervoxels`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fsseg.cli.console import follow, parse_change, plain, wide_console
from fsseg.cli.jobs import Launch, Launcher, launch_this

if TYPE_CHECKING:
    from fsseg.data.datasets.check import Checked


def check_command(
    folder: Annotated[Path, typer.Argument(help="A dataset's folder.", metavar="DIR")],
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to draw the contact sheet [default: check-NAME.png]."
        ),
    ] = None,
    no_sheet: Annotated[bool, typer.Option("--no-sheet", help="Draw none.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print findings and table as JSON.")
    ] = False,
) -> None:
    """Look at every file of a dataset and list all that is wrong with it.

    Exits with 1 if a problem would stop a run. Warnings would not, but might spoil it. The contact sheet is a picture
    with one labelled slice of every scan: look at it once before you trust a table.
    """
    from fsseg.data.datasets.check import check_folder
    from fsseg.data.datasets.contact_sheet import write_contact_sheet

    with follow() as bars:
        checked = check_folder(folder, bars)
    drawn = None if no_sheet or not checked.cases else sheet or Path(f"check-{checked.name}.png")
    if drawn is not None:
        write_contact_sheet(checked, drawn)
    if as_json:
        findings = [vars(finding) for finding in checked.findings]
        print(
            json.dumps(
                {"dataset": checked.name, "findings": findings, "classes": checked.table()},
                indent=2,
            )
        )
    else:
        print_checked(checked, drawn)
    raise typer.Exit(0 if checked.usable else 1)


def print_checked(checked: "Checked", sheet: Path | None) -> None:
    """Prints findings, the table of classes, and the verdict."""
    console = wide_console()
    for finding in checked.findings:
        colour = "red" if finding.severity == "problem" else "yellow"
        console.print(f"[{colour}]{finding.severity:<8}[/] {plain(finding.text)}", soft_wrap=True)
    if checked.cases:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("class")
        for column in ("cases", "slices", "ml", "smallest", "largest"):
            table.add_column(column, justify="right")
        for row in checked.table():
            numbers = (row.get(key) for key in ("slices", "ml", "ml_min", "ml_max"))
            cells = ["–" if number is None else f"{number:.4g}" for number in numbers]
            table.add_row(plain(row["class"]), f"{row['cases']}", *cells)
        console.print()
        console.print(table)
        console.print("\nslices and ml: medians over the cases that show the class")
    counts = {
        kind: sum(f.severity == kind for f in checked.findings) for kind in ("problem", "warning")
    }
    verdict = "ready to run" if checked.usable else "not ready: solve the problems first"
    told = ", ".join(f"{count} {kind}{'s' * (count != 1)}" for kind, count in counts.items())
    console.print(
        f"\n{plain(checked.name)}: {len(checked.cases)} usable cases, {told}; {verdict}",
        soft_wrap=True,
    )
    if sheet is not None:
        console.print(f"Contact sheet: {sheet}", soft_wrap=True)


def supervoxels_command(
    folder: Annotated[Path, typer.Argument(help="A dataset's folder.", metavar="DIR")],
    min_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Voxels of a region at least; the dataset's own when omitted."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="The method: see fsseg list supervoxels.")
    ] = "felzenszwalb",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="An option of the method; may be given again."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="RECIPE", help="Take the method and the working grid from a recipe."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Scans at a time; one per processor when omitted."),
    ] = None,
    launcher: Launcher = None,
    launch: Launch = None,
    parts: Annotated[
        int, typer.Option(metavar="N", min=1, help="With --launcher: how many jobs.")
    ] = 8,
    part: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Compute the supervoxels of a dataset ahead of a run, several scans at a time.

    They are kept by content in the user's cache, where runs with the same options find them. A run computes what it
    lacks by itself; this is for large datasets, and for looking at what an option does. On a cluster, the cache must lie
    where all machines see it: set FSSEG_CACHE.
    """
    if launcher is not None:
        launch_this("supervoxels", launcher, launch, parts)
        return
    from fsseg.recipe.reading import load_recipe
    from fsseg.recipe.tables import ComponentTable, GridTable
    from fsseg.runs.precompute import compute_supervoxels

    table, grid = ComponentTable(name=method), GridTable()
    if recipe is not None:
        loaded = load_recipe(recipe)
        table, grid = loaded.supervoxels, loaded.grid
    options = table.model_dump() | dict(parse_change(change) for change in changes or [])
    if min_size is not None:
        options["min_size"] = min_size
    with follow() as bars:
        computed = compute_supervoxels(
            folder, ComponentTable(**options), grid=grid, jobs=jobs, part=part, progress=bars
        )
    shown = Table("case", box=None, pad_edge=False, header_style="bold")
    for column in ("regions", "median size", "seconds"):
        shown.add_column(column, justify="right")
    for line in computed:
        seconds = "kept" if line.seconds is None else f"{line.seconds:.1f}"
        shown.add_row(plain(line.case), f"{line.regions}", f"{line.median_size:.0f}", seconds)
    wide_console().print(shown)
