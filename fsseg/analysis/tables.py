"""Tables for people to read: numbers, intervals and p-values as text, in Markdown and in LaTeX."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas

NOTHING = "–"
"""What stands for a number that is undefined."""

LATEX = {"±": r"$\pm$", NOTHING: "--", "<": "$<$"}
"""Characters that LaTeX has other words for."""


def number(value: float, sign: str = "") -> str:
    """A number with one decimal; with the sign "+", also the plus is written.

    Example:
        >>> number(2.345, "+"), number(float("nan"))
        ('+2.3', '–')
    """
    return NOTHING if value != value else f"{value:{sign}.1f}"


def interval(test: Mapping[str, Any]) -> str:
    """The difference of a line of `Comparison.tests` with its interval, as far as there are pairs.

    Example:
        >>> interval({"pairs": 19, "difference": 6.73, "low": 3.0, "high": 9.47})
        '+6.7 [+3.0, +9.5]'
    """
    if not test["pairs"]:
        return NOTHING
    difference = number(test["difference"], "+")
    if test["pairs"] == 1:
        return difference
    return f"{difference} [{number(test['low'], '+')}, {number(test['high'], '+')}]"


def p_value(p: float) -> str:
    """A p-value behind the letter, such as "= 0.012" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def starred(names: Iterable[str], oracles: Collection[str]) -> list[str]:
    """Names of variants, an asterisk behind those that used the ground truth."""
    return [f"{name} *" if name in oracles else name for name in names]


def as_markdown(shown: "pandas.DataFrame") -> str:
    """A table of text in Markdown: names to the left, the rest to the right; bars in names are no borders."""
    alignment = ["left", *["right"] * len(shown.columns)]
    escaped = shown.map(_in_cell).rename(index=_in_cell, columns=_in_cell)
    return escaped.to_markdown(disable_numparse=True, colalign=alignment)


def _in_cell(text: object) -> str:
    return str(text).replace("\\", "\\\\").replace("|", "\\|")


def as_latex(shown: "pandas.DataFrame") -> str:
    """A table of text in LaTeX; needs the package booktabs and nothing else."""
    from pandas.io.formats.style import Styler

    style = Styler(shown.reset_index())
    style.format(escape="latex")
    style.format_index(escape="latex", axis=1)
    style.hide(axis="index")
    columns = "l" + "r" * len(shown.columns)
    text = style.to_latex(hrules=True, column_format=columns)
    return text.translate(str.maketrans(LATEX))


def records(table: "pandas.DataFrame") -> list[dict[str, Any]]:
    """The lines of a table as plain values, those of its index included; NaN becomes None."""
    text = table.reset_index().to_json(orient="records")
    return json.loads(text)
