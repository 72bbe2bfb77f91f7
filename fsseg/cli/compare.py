"""The command that compares runs: `fsseg compare`."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fsseg.cli.console import follow, print_text, table_of_frame, wide_console
from fsseg.cli.options import Device
from fsseg.errors import FssegError
from fsseg.system.pictures import require_picture, save_picture

if TYPE_CHECKING:
    from fsseg.analysis.comparison import Comparison
    from fsseg.analysis.supports import Sensitivity
    from fsseg.analysis.wrong_voxels import ErrorTable

Format = Literal["text", "md", "latex", "csv", "json"]

RunsOrRecipes = Annotated[
    list[Path],
    typer.Argument(
        help="Run directories, such as runs/table1-20261123-120000, or recipes, which are run.",
        metavar="RUN...",
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The variant to compare with [default: the first]."),
]
MetricName = Annotated[str, typer.Option(metavar="NAME", help="dice, or a metric.")]
FormatName = Annotated[
    Format,
    typer.Option(
        "--format",
        help="A table as text, Markdown or LaTeX; every score as CSV; all tests as JSON.",
    ),
]
ByClass = Annotated[
    bool, typer.Option("--by-class", help="The tests of every class, not only of the mean.")
]
AcrossProtocols = Annotated[
    bool,
    typer.Option(
        "--across-protocols", help="Show runs side by side that were not evaluated alike."
    ),
]
Supports = Annotated[
    Literal["as-run", "all"],
    typer.Option(
        help="all: segment again from every slice that could be the support, and show how Dice spreads."
    ),
]
Errors = Annotated[
    bool,
    typer.Option("--errors", help="Where the lost Dice is: the wrong voxels of each run by kind."),
]
PlotFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw every scan (or support) as a dot, into a PNG or PDF."),
]


def compare_command(
    runs: RunsOrRecipes,
    baseline: Baseline = None,
    metric: MetricName = "dice",
    format: FormatName = "text",
    by_class: ByClass = False,
    across_protocols: AcrossProtocols = False,
    supports: Supports = "as-run",
    errors: Errors = False,
    device: Device = "auto",
    plot: PlotFile = None,
) -> None:
    """Compare the rows of runs with one of them: differences with their intervals, and paired tests.

    The unit is the scan, averaged over folds, seeds and supports. Intervals are of the paired bootstrap; p-values are of
    Wilcoxon's signed-rank test, corrected by Holm over all tests. Nothing is called better without a test.
    """
    if plot is not None:
        require_picture(plot)
    if errors:
        if supports != "as-run":
            raise FssegError("compare: got --errors and --supports all, expected one of them")
        _show_errors(runs, format, plot)
        return
    if supports == "all":
        if baseline or metric != "dice" or by_class or (plot and len(runs) > 1):
            raise FssegError(
                "compare: --supports all shows the Dice of every row by itself, expected no --baseline, "
                "--metric or --by-class, and a single run with --plot"
            )
        _show_supports(runs, format, device, plot)
        return
    from fsseg.analysis.comparison import compare

    with follow() as bars:
        how: dict[str, Any] = {
            "across_protocols": across_protocols,
            "progress": bars,
            "device": device,
        }
        comparison = compare(runs, baseline, metric=metric, **how)
        scores = _every_score(comparison, bars.note) if format == "csv" else ""
    _plot(comparison, plot)
    if format == "csv":
        print_text(scores)
    elif format == "json":
        print(json.dumps(comparison.dumps(), indent=2))
    elif format == "text":
        _print_comparison(comparison, by_class)
    else:
        _print_formatted(comparison, format)


def _every_score(comparison: "Comparison", note: Callable[[str], None]) -> str:
    """The scores as CSV; what could not be measured is told of in a line, as everything else on standard error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        scores = comparison.to_csv()
    for warning in caught:
        note(f"warning: {warning.message}")
    return scores


def _show_supports(runs: list[Path], format: Format, device: str, plot: Path | None) -> None:
    """Prints how the Dice of each run depends on its support."""
    from fsseg.analysis.supports import support_sensitivity

    with follow() as bars:
        of_runs = [support_sensitivity(run, device=device, progress=bars) for run in runs]
    _plot(of_runs[0], plot)
    if format != "text":
        _print_tables(of_runs, format)
        return
    console = wide_console()
    for sensitivity in of_runs:
        title = "Dice in percent, from every slice that could be the support"
        console.print(f"{sensitivity.results.path}: {title}\n", soft_wrap=True)
        console.print(table_of_frame(sensitivity.shown()))


def _show_errors(runs: list[Path], format: Format, plot: Path | None) -> None:
    """Prints where the lost Dice of each run is."""
    from fsseg.analysis.wrong_voxels import LEGEND, error_table

    if plot is not None and len(runs) > 1:
        raise FssegError(
            f"compare --errors: --plot draws one run, got {len(runs)}; give one of them"
        )
    with follow() as bars:
        of_runs = [error_table(run, progress=bars) for run in runs]
    _plot(of_runs[0], plot)
    if format != "text":
        _print_tables(of_runs, format)
        return
    console = wide_console()
    for errors in of_runs:
        console.print(f"{errors.results.path}\n", soft_wrap=True)
        console.print(table_of_frame(errors.shown()))
        console.print(f"\n{LEGEND}", soft_wrap=True)
        if errors.results.oracles:
            console.print("\n* uses the ground truth of the query")


def _plot(drawable: Any, file: Path | None) -> None:
    if file is not None:
        save_picture(drawable.plot(), file, dpi=150)


def _print_tables(of_runs: "Sequence[Sensitivity | ErrorTable]", format: Format) -> None:
    """Prints tables in a format for other programs: of each run one, but in CSV all in one."""
    if format == "csv":
        import pandas

        frames = [each.frame.assign(run=each.results.path.name) for each in of_runs]
        print_text(pandas.concat(frames).to_csv(index=False))
    elif format == "json":
        print(json.dumps([each.dumps() for each in of_runs], indent=2))
    else:
        for each in of_runs:
            _print_formatted(each, format)


def _print_formatted(table: "Comparison | Sensitivity | ErrorTable", format: Format) -> None:
    """Prints a table in Markdown or LaTeX."""
    if format == "md":
        print_text(table.to_markdown())
    else:
        print_text(table.to_latex())


def _print_comparison(comparison: "Comparison", by_class: bool) -> None:
    console = wide_console()
    for run in comparison.runs:
        protocol = f"protocol {run.about['protocol']} {run.about['protocol_hash']}"
        about = f"{run.about['dataset']}, {protocol}, {run.cases} cases"
        console.print(f"{run.path}: {about}", soft_wrap=True)
    in_unit = {"%": " in percent", "": ""}.get(comparison.unit, f", {comparison.unit}")
    title = "differences of the mean over classes with 95 % intervals"
    console.print(f"\n{comparison.metric}{in_unit}; {title}\n", soft_wrap=True)
    console.print(table_of_frame(comparison.shown()))
    if by_class:
        console.print("\nby class\n")
        console.print(table_of_frame(comparison.shown_tests()))
    for note in comparison.notes:
        console.print(f"\n{note}", soft_wrap=True)
    if comparison.oracles:
        console.print("\n* uses the ground truth of the query")
