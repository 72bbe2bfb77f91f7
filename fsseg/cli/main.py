"""The shell `fsseg`: where its commands are, and how it ends."""

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from fsseg.cli.commands import Shell
from fsseg.cli.compare import compare_command
from fsseg.cli.console import errors_console, styled
from fsseg.cli.data import check_command, supervoxels_command
from fsseg.cli.jobs import job_command, status_command
from fsseg.cli.plugins import list_command, plugin_app
from fsseg.cli.predict import export_command, predict_command
from fsseg.cli.prepare import prepare_app
from fsseg.cli.recipe import explain_command, schema_command
from fsseg.cli.report import report_command
from fsseg.cli.reproduce import reproduce_command
from fsseg.cli.run import bench_command, run_command
from fsseg.errors import FssegError
from fsseg.system.files import FULL
from fsseg.system.signals import Stopped

app = typer.Typer(
    cls=Shell,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # reflows the paragraphs of docstrings
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Prototype-based few-shot medical image segmentation, from a recipe to a table.",
)


def main() -> None:
    """Runs the command line; a user's mistake is one message and exit code 2, a bug keeps its traceback."""
    errors = errors_console()
    try:
        _call()
    except FssegError as error:
        errors.print(styled("Error:", "bold red"), str(error), soft_wrap=True)
        sys.exit(2)
    except Stopped as stop:
        errors.print(str(stop), soft_wrap=True)
        sys.exit(128 + stop.number)
    except OSError as error:
        if error.errno not in FULL or error.filename is not None:
            raise
        errors.print(
            styled("Error:", "bold red"),
            f"the output cannot be written ({error.strerror}), expected room for it; make room or write elsewhere",
            soft_wrap=True,
        )
        _forget_output()
        sys.exit(2)
    except Exception as error:
        from fsseg.plugins.blame import name_plugin  # for the traceback, which Python prints

        name_plugin(error)
        raise


def _call() -> None:
    """Runs a command, and says what it printed: what cannot be written should not come up when Python has ended."""
    try:
        app()
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def _forget_output() -> None:
    """Lets what was not written go, which Python would try to write once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"fsseg {version('fsseg')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


app.command("run")(run_command)
app.command("bench")(bench_command)
app.command("status")(status_command)
app.command("job", hidden=True)(job_command)
app.command("reproduce")(reproduce_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.command("predict")(predict_command)
app.command("export")(export_command)
app.command("list")(list_command)
app.command("explain")(explain_command)
app.command("schema")(schema_command)
app.add_typer(plugin_app, name="plugin")
app.add_typer(prepare_app, name="prepare")
app.command("check")(check_command)
app.command("supervoxels")(supervoxels_command)
