"""The commands around data: `fsseg check`, `fsseg supervoxels`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsseg.cli.console import follow, new_table, styled, wide_console
from fsseg.cli.jobs import launch_this
from fsseg.cli.options import DatasetFolder, Launch, Launcher, parse_changes
from fsseg.system.names import file_name
from fsseg.system.pictures import require_picture

if TYPE_CHECKING:
    from fsseg.data.datasets.check import Checked
    from fsseg.runs.precompute import Computed

SheetFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where to draw the contact sheet [default: check-NAME.png]."),
]
FindingsAsJson = Annotated[bool, typer.Option("--json", help="Print findings and table as JSON.")]
MinSize = Annotated[
    int | None,
    typer.Option(metavar="N", help="Voxels of a region at least; the dataset's own when omitted."),
]
Method = Annotated[
    str, typer.Option(metavar="NAME", help="The method: see fsseg list supervoxels.")
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option of the method; may be given again."),
]
MethodOfRecipe = Annotated[
    Path | None,
    typer.Option(metavar="RECIPE", help="Take the method and the working grid from a recipe."),
]
ScansAtOnce = Annotated[
    int | None,
    typer.Option(metavar="N", help="Scans at a time; one per processor when omitted."),
]
Parts = Annotated[int, typer.Option(metavar="N", min=1, help="With --launcher: how many jobs.")]
Part = Annotated[str | None, typer.Option(hidden=True)]


def check_command(
    folder: DatasetFolder,
    sheet: SheetFile = None,
    no_sheet: Annotated[bool, typer.Option("--no-sheet", help="Draw none.")] = False,
    as_json: FindingsAsJson = False,
) -> None:
    """Look at every file of a dataset and list all that is wrong with it.

    Exits with 1 if a problem would stop a run. Warnings would not, but might spoil it. The contact sheet is a picture
    with one labelled slice of every scan: look at it once before you trust a table.
    """
    from fsseg.data.datasets.check import check_folder
    from fsseg.data.datasets.contact_sheet import write_contact_sheet

    if sheet is not None:
        require_picture(sheet)
    with follow() as bars:
        checked = check_folder(folder, bars)
    drawn = None
    if checked.cases and not no_sheet:
        drawn = sheet or Path(f"check-{file_name(checked.name)}.png")
        write_contact_sheet(checked, drawn)
    if as_json:
        findings = [vars(finding) for finding in checked.findings]
        tables = {"dataset": checked.name, "findings": findings, "classes": checked.table()}
        print(json.dumps(tables, indent=2))
    else:
        _print_checked(checked, drawn)
    raise typer.Exit(0 if checked.usable else 1)


def _print_checked(checked: "Checked", sheet: Path | None) -> None:
    """Prints findings, the table of classes, and the verdict."""
    console = wide_console()
    for finding in checked.findings:
        colour = "red" if finding.severity == "problem" else "yellow"
        console.print(styled(f"{finding.severity:<8}", colour), finding.text, soft_wrap=True)
    if checked.cases:
        table = new_table("class", numbers=["cases", "slices", "ml", "smallest", "largest"])
        for row in checked.table():
            cells = [f"{row['cases']}"]
            for key in ("slices", "ml", "ml_min", "ml_max"):
                number = row.get(key)
                cells.append("–" if number is None else f"{number:.4g}")
            table.add_row(row["class"], *cells)
        console.print()
        console.print(table)
        console.print("\nslices and ml: medians over the cases that show the class")
    verdict = "ready to run" if checked.usable else "not ready: solve the problems first"
    counts = []
    for severity in ("problem", "warning"):
        count = sum(finding.severity == severity for finding in checked.findings)
        counts.append(f"{count} {severity}{'s' * (count != 1)}")
    usable = f"{checked.name}: {len(checked.cases)} usable cases"
    console.print(f"\n{usable}, {', '.join(counts)}; {verdict}", soft_wrap=True)
    if sheet is not None:
        console.print(f"Contact sheet: {sheet}", soft_wrap=True)


def supervoxels_command(
    folder: DatasetFolder,
    min_size: MinSize = None,
    method: Method = "felzenszwalb",
    changes: MethodOptions = None,
    recipe: MethodOfRecipe = None,
    jobs: ScansAtOnce = None,
    launcher: Launcher = None,
    launch: Launch = None,
    parts: Parts = 8,
    part: Part = None,
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

    table = ComponentTable(name=method)
    grid = GridTable()
    if recipe is not None:
        loaded = load_recipe(recipe)
        table = loaded.supervoxels
        grid = loaded.grid
    options = table.model_dump() | parse_changes(changes)
    if min_size is not None:
        options["min_size"] = min_size
    with follow() as bars:
        how: dict[str, Any] = {"grid": grid, "jobs": jobs, "part": part, "progress": bars}
        computed = compute_supervoxels(folder, ComponentTable(**options), **how)
    _print_computed(computed)


def _print_computed(computed: "list[Computed]") -> None:
    table = new_table("case", numbers=["regions", "median size", "seconds"])
    for of_case in computed:
        seconds = "kept" if of_case.seconds is None else f"{of_case.seconds:.1f}"
        sizes = (f"{of_case.regions}", f"{of_case.median_size:.0f}")
        table.add_row(of_case.case, *sizes, seconds)
    wide_console().print(table)
