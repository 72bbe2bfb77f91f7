"""The shell's commands around components and plugins: `fsseg list`, `fsseg plugin new`, `list` and `check`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fsseg.cli.console import LeftOut, PluginFiles, parse_change, plain, wide_console
from fsseg.errors import FssegError

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

plugin_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Write a plugin, see which are installed, and check that they keep what their kind promises.",
)


def list_command(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[KIND[/NAME]]", help="A kind of component, or one component."),
    ] = None,
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
    as_json: AsJson = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a page with all options.")
    ] = False,
) -> None:
    """List components and the distributions they come from, or the options of one (KIND/NAME)."""
    kind, _, name = (what or "").partition("/")
    if as_markdown:
        from fsseg.cli.pages import components_page
        from fsseg.plugins.manager import registry

        print(components_page(registry()))
    elif name:
        _list_options(kind, name, as_json)
    else:
        _list_components(kind, as_json)


def _list_components(kind: str, as_json: bool) -> None:
    from fsseg.plugins.manager import registry
    from fsseg.plugins.options import nearest
    from fsseg.plugins.registry import KINDS

    if kind and kind not in KINDS:
        raise FssegError(f"there is no kind of component {kind!r}; {nearest(kind, list(KINDS))}")
    found = [component for component in registry() if kind in ("", component.kind)]
    if as_json:
        print(json.dumps([component.dumps() for component in found], indent=2))
        return
    table = Table("kind", "name", "from", "where", box=None, pad_edge=False, header_style="bold")
    for component in found:
        origin = f"{component.distribution} {component.version}"
        table.add_row(component.kind, component.name, origin, component.target)
    wide_console().print(table)


def _list_options(kind: str, name: str, as_json: bool) -> None:
    import inspect

    from fsseg.plugins.manager import registry
    from fsseg.plugins.options import options_of

    component = registry().find(kind, name)
    loaded = component.load()
    options = options_of(loaded)
    if as_json:
        print(
            json.dumps(
                {**component.dumps(), "options": [vars(option) for option in options]}, indent=2
            )
        )
        return
    console = wide_console()
    console.print(
        f"[bold]{kind}/{name}[/]  {component.distribution} {component.version}, {component.target}\n"
    )
    console.print(plain(inspect.getdoc(loaded) or ""), "\n")
    if not options:
        console.print("It has no options.")
        return
    table = Table(
        "option", "type", "default", "meaning", box=None, pad_edge=False, header_style="bold"
    )
    for option in options:
        table.add_row(option.name, plain(option.type), plain(option.default), plain(option.meaning))
    console.print(table)


@plugin_app.command("new")
def new_command(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="threshold, head, ...: see fsseg list.")
    ],
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The component's name in recipes, such as my_policy."),
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Where to write it [default: fsseg-NAME]."),
    ] = None,
) -> None:
    """Write a package with a component that works, its test and its README, ready to be changed.

    `uv run pytest` inside it runs the contract checks of its kind. Nothing that exists is overwritten.
    """
    from fsseg.plugins.scaffold import write_plugin

    made = write_plugin(kind, name, folder)
    console = wide_console()
    for file in made.files:
        console.print(f"  {file}")
    console.print(
        f"\n{made.distribution}: the {kind} {name!r}, in {made.folder}\n\n"
        f"    cd {made.folder}\n    uv run pytest                        # the contract checks\n"
        f"    uv run fsseg list {kind}/{name}",
        soft_wrap=True,
    )


@plugin_app.command("list")
def list_plugins_command(
    plugin: PluginFiles = None, no_plugin: LeftOut = None, as_json: AsJson = False
) -> None:
    """List the installed plugins with what they bring, also those that cannot be loaded.

    Exits with 1 if there are any of these.
    """
    from fsseg.plugins.manager import survey

    found = survey()
    if as_json:
        print(json.dumps([vars(line) for line in found], indent=2))
    else:
        table = Table(
            "plugin", "from", "brings", "listens to", box=None, pad_edge=False, header_style="bold"
        )
        for line in found:
            brings = (
                ", ".join(line.components)
                if line.problem is None
                else f"[red]{plain(line.problem)}[/]"
            )
            table.add_row(
                line.name, f"{line.distribution} {line.version}", brings, ", ".join(line.listens)
            )
        wide_console().print(table)
    raise typer.Exit(1 if any(line.problem for line in found) else 0)


@plugin_app.command("check")
def check_plugin_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH",
            help="A plugin, its distribution, KIND/NAME, a file, or its folder.",
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KIND/NAME.OPTION=VALUE",
            help="An option to build the component with; may be given again.",
        ),
    ] = None,
    no_plugin: LeftOut = None,
    as_json: AsJson = False,
) -> None:
    """Run the contract checks of every component of a plugin. Exits with 1 if one fails."""
    from fsseg.plugins.manager import components_of
    from fsseg.testing import run_checks

    options: dict[str, dict[str, object]] = {}
    for change in changes or []:
        key, value = parse_change(change)
        where, _, option = key.rpartition(".")
        options.setdefault(where, {})[option] = value
    lines = []
    for component in components_of(what):
        label = f"{component.kind}/{component.name}"
        results = run_checks(label, options=options.pop(label, {}))
        lines += [{"component": label, **vars(result)} for result in results]
    if options:
        raise FssegError(
            f"--set {next(iter(options))}: that component is not part of {what}, expected KIND/NAME.OPTION=VALUE"
        )
    failed = [line for line in lines if line["status"] == "failed"]
    if as_json:
        print(json.dumps(lines, indent=2))
    else:
        _print_checks(lines)
    raise typer.Exit(1 if failed else 0)


COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}


def _print_checks(lines: list[dict[str, str]]) -> None:
    console = wide_console()
    table = Table("component", "check", "", box=None, pad_edge=False, header_style="bold")
    for line in lines:
        told = "" if line["status"] == "passed" else f": {plain(line['sentence'])}"
        table.add_row(
            line["component"], line["name"], f"[{COLOURS[line['status']]}]{line['status']}[/]{told}"
        )
    console.print(table)
    counts = [f"{sum(line['status'] == status for line in lines)} {status}" for status in COLOURS]
    console.print(f"\n{', '.join(counts)}")
