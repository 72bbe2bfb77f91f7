"""The shell's command that compares runs: `fsseg compare`."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from fsseg.cli.console import Device, follow, plain, wide_console
from fsseg.errors import FssegError

if TYPE_CHECKING:
    import pandas

    from fsseg.analysis.comparison import Comparison


def compare_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run directories, such as runs/table1-20261123-120000, or recipes, which are run.",
            metavar="RUN...",
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The variant to compare with [default: the first]."),
    ] = None,
    metric: Annotated[str, typer.Option(metavar="NAME", help="dice, or a metric.")] = "dice",
    format: Annotated[
        Literal["text", "md", "latex", "csv", "json"],
        typer.Option(
            "--format",
            help="A table as text, Markdown or LaTeX; every score as CSV; all tests as JSON.",
        ),
    ] = "text",
    by_class: Annotated[
        bool, typer.Option("--by-class", help="The tests of every class, not only of the mean.")
    ] = False,
    across_protocols: Annotated[
        bool,
        typer.Option(
            "--across-protocols", help="Show runs side by side that were not evaluated alike."
        ),
    ] = False,
    supports: Annotated[
        Literal["as-run", "all"],
        typer.Option(
            help="all: segment again from every slice that could be the support, and show how Dice spreads."
        ),
    ] = "as-run",
    errors: Annotated[
        bool,
        typer.Option(
            "--errors", help="Where the lost Dice is: the wrong voxels of each run by kind."
        ),
    ] = False,
    device: Device = "auto",
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw every scan (or support) as a dot, into a PNG or PDF."
        ),
    ] = None,
) -> None:
    """Compare the rows of runs with one of them: differences with their intervals, and paired tests.

    The unit is the scan, averaged over folds, seeds and supports. Intervals are of the paired bootstrap; p-values are of
    Wilcoxon's signed-rank test, corrected by Holm over all tests. Nothing is called better without a test.
    """
    if errors:
        _show_errors(runs, format, plot, other=supports != "as-run")
        return
    if supports == "all":
        if baseline or metric != "dice" or by_class or (plot and len(runs) > 1):
            raise FssegError(
                "compare: --supports all shows the Dice of every row by itself, expected no --baseline, --metric or --by-class, "
                "and a single run with --plot"
            )
        _compare_supports(runs, format, device, plot)
        return
    from fsseg.analysis.comparison import compare

    with follow() as bars:
        found = compare(
            runs, baseline, metric=metric, across_protocols=across_protocols, progress=bars, device=device
        )  # fmt: skip
        scores = _every_score(found, bars.note) if format == "csv" else None
    if plot is not None:
        found.plot().savefig(plot, dpi=150)
    if format == "json":
        print(json.dumps(found.dumps(), indent=2))
    elif scores is not None:
        print(scores, end="")
    elif format == "md":
        print(found.to_markdown())
    elif format == "latex":
        print(found.to_latex(), end="")
    else:
        _print(found, by_class)


def _every_score(found: "Comparison", note: Callable[[str], None]) -> str:
    """The scores as CSV; what could not be measured is told of in a line, as everything else on standard error."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        scores = found.to_csv()
    for warning in told:
        note(f"warning: {warning.message}")
    return scores


def _compare_supports(runs: list[Path], format: str, device: str, plot: Path | None) -> None:
    """Prints how the Dice of each run depends on its support."""
    import pandas

    from fsseg.analysis.comparison import as_latex, as_markdown
    from fsseg.analysis.supports import support_sensitivity

    with follow() as bars:
        found = [support_sensitivity(run, device=device, progress=bars) for run in runs]
    if plot is not None:
        found[0].plot().savefig(plot, dpi=150)
    if format == "csv":
        print(
            pandas.concat([one.frame.assign(run=one.results.path.name) for one in found]).to_csv(
                index=False
            ),
            end="",
        )
        return
    if format == "json":
        rows = [json.loads(one.table().reset_index().to_json(orient="records")) for one in found]
        print(
            json.dumps(
                [{"run": str(one.results.path), "rows": each} for one, each in zip(found, rows)],
                indent=2,
            )
        )
        return
    console = wide_console()
    for one in found:
        shown = one.shown()
        if format == "md":
            print(as_markdown(shown))
        elif format == "latex":
            print(as_latex(shown), end="")
        else:
            console.print(
                f"{one.results.path}: Dice in percent, from every slice that could be the support\n",
                soft_wrap=True,
            )
            console.print(_table(shown))


def _show_errors(runs: list[Path], format: str, plot: Path | None, *, other: bool) -> None:
    """Prints where the lost Dice of each run is; `other` says that another view was asked for as well."""
    from fsseg.analysis.wrong_voxels import LEGEND, error_table

    if other:
        raise FssegError("compare: got --errors and --supports all, expected one of them")
    if plot is not None and len(runs) > 1:
        raise FssegError(
            f"compare --errors: --plot draws one run, got {len(runs)}; give one of them"
        )
    with follow() as bars:
        found = [error_table(run, progress=bars) for run in runs]
    if plot is not None:
        found[0].plot().savefig(plot, dpi=150)
    if format == "json":
        print(json.dumps([one.dumps() for one in found], indent=2))
        return
    if format == "csv":
        import pandas

        print(
            pandas.concat([one.frame.assign(run=one.results.path.name) for one in found]).to_csv(
                index=False
            ),
            end="",
        )
        return
    console = wide_console()
    for one in found:
        if format == "md":
            print(one.to_markdown())
        elif format == "latex":
            print(one.to_latex(), end="")
        else:
            console.print(f"{one.results.path}\n", soft_wrap=True)
            console.print(_table(one.shown()))
            console.print(f"\n{LEGEND}", soft_wrap=True)
            if one.results.oracles:
                console.print("\n* uses the ground truth of the query")


def _print(found: "Comparison", by_class: bool) -> None:
    console = wide_console()
    for run in found.runs:
        about = run.about
        told = f"{about['dataset']}, protocol {about['protocol']} {about['protocol_hash']}, {run.cases} cases"
        console.print(f"{run.path}: {told}", soft_wrap=True)
    unit = " in percent" if found.unit == "%" else f", {found.unit}" if found.unit else ""
    console.print(
        f"\n{found.metric}{unit}; differences of the mean over classes with 95 % intervals\n",
        soft_wrap=True,
    )
    console.print(_table(found.shown()))
    if by_class:
        console.print("\nby class\n")
        console.print(_table(found.shown_tests()))
    for note in found.notes:
        console.print(f"\n{note}", soft_wrap=True)
    if any(run.oracles for run in found.runs):
        console.print("\n* uses the ground truth of the query")


def _table(frame: "pandas.DataFrame") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(frame.index.name or "")
    for column in frame.columns:
        table.add_column(plain(column), justify="right")
    for name, row in frame.iterrows():
        table.add_row(plain(name), *[plain(cell) for cell in row])
    return table
