"""The page of the components, made from their docstrings and constructors: `fsseg list --markdown`."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from itertools import groupby

from fsseg.plugins.options import options_of
from fsseg.plugins.registry import KINDS, Component

HEADER = """# Components

Each can be named in a recipe and called from Python; the options below are its recipe table and its constructor's
arguments. This page is made by `fsseg list --markdown`, which also shows the plugins you have installed.
"""


def components_page(components: Iterable[Component]) -> str:
    """A Markdown page with every component's docstring and options."""
    parts = [HEADER]
    for kind, group in groupby(components, key=lambda component: component.kind):
        parts.append(f"## {kind}\n")
        parts += [_section(component) for component in group]
    return "\n".join(parts)


def _section(component: Component) -> str:
    loaded = component.load()
    lines = [
        f"### {component.name}\n",
        f"`{component.target}`, from {component.distribution}\n",
        _in_markdown(inspect.getdoc(loaded) or ""),
        "",
    ]
    options = options_of(loaded)
    if options:
        lines += ["| option | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{o.name}` | {_cell(o.type)} | {_cell(o.default)} | {_cell(o.meaning)} |"
            for o in options
        ]
        lines.append("")
    return "\n".join(lines)


def _in_markdown(docstring: str) -> str:
    """A docstring whose example is a block of code and whose other sections are lists."""
    parts = re.split(r"^(\w+):\n((?:(?: +.*)?\n?)+)", docstring, flags=re.M)
    page = parts[0].strip()
    for title, body, after in zip(parts[1::3], parts[2::3], parts[3::3]):
        lines = textwrap.dedent(body).strip()
        if title.startswith("Example"):
            page += f"\n\n```pycon\n{lines}\n```"
        else:
            entries = re.sub(r"^(?=\S)", "* ", lines, flags=re.M)
            page += f"\n\n{title}:\n\n{entries}"
        page += f"\n\n{after.strip()}" if after.strip() else ""
    return page


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


CONTRACT_HEADER = """# What a component promises

The same checks guard our components and yours. In a test of a plugin:

```python
from fsseg.testing import parametrize_with_checks


@parametrize_with_checks("threshold/my_policy", options={"share": 0.1})
def test_contract(check):
    check()
```

pytest shows them by name. A check that a component fails for a good reason is marked with it, and turns red on the day
it passes: `expected_failures={"check_order_of_pixels": "pools over windows"}`. A component that is not registered is
given as a class, with `kind="threshold"`. Without pytest: `fsseg plugin check my_policy`, or `fsseg.testing.run_checks`.

Inputs are small and made up: 32 x 32 pixels, 8 x 8 cells of 16 channels, five query slices. What the checks say nothing about is
whether an idea is any good; that is what a recipe is for.
"""


CLOSED = """
## What cannot be changed from outside

A plugin changes components, not what holds them together. What stays closed, and why:

| what | why |
|---|---|
| the ground truth stays out of what methods see; only a policy that says it is an oracle gets it | a table would compare methods with and without the answer, and nothing would say so |
| a labelled slice is not scored, whichever protocol chose it | it is the answer |
| Dice is always counted, on the scan's own grid, from voxel counts first | every table has one number that all runs share |
| what a protocol's hash is made of: its rules, the folds and the classes | numbers are compared where hashes are equal, so no plugin may leave something out |
| the shell's own commands | what a page or a colleague says about `fsseg run` has to be so everywhere; further commands are `fsseg.commands` |
| the order of the stages, their keys and the layout of a run's folder | finished stages are found by them, and results of others are read by them |"""
"""The end of the page of contracts."""


def contract_page() -> str:
    """A Markdown page with every contract check and what it looks at."""
    from fsseg.testing import (
        check_functions,
        meaning_of,
    )  # torch loads with the page, not with a listing

    shared = [
        f
        for f in check_functions("threshold")
        if all(f in check_functions(k) for k in ("head", "prototypes"))
    ]
    parts = [
        CONTRACT_HEADER,
        "## All kinds\n",
        "As far as they apply: a metric has no state, a dataset no bfloat16.\n",
    ]
    parts += _check_table(shared, meaning_of)
    for kind in KINDS:
        own = [function for function in check_functions(kind) if function not in shared]
        parts += [f"\n## {kind}\n", *_check_table(own, meaning_of)]
    return "\n".join([*parts, CLOSED]) + "\n"


def _check_table(functions: list[Callable], meaning_of: Callable[[Callable], str]) -> list[str]:
    rows = [f"| `{function.__name__}` | {_cell(meaning_of(function))} |" for function in functions]
    return ["| check | what it looks at |", "|---|---|", *rows]
