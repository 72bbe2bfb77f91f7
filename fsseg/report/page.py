"""The report of a run: one HTML file with tables, figures, and slices whose prior can be dragged."""

import io
import json
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import escape

from fsseg.analysis.comparison import Comparison, compare
from fsseg.errors import FssegError
from fsseg.report import plots
from fsseg.report.viewer import as_json, choose_exhibits, keeps_margins, show
from fsseg.runs.results import Results, load_results
from fsseg.system.files import write_text
from fsseg.system.progress import Progress

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"

CASES = 4
"""Cases in the viewer: half of them the worst ones."""


def write_report(
    run: Results | str | Path,
    path: str | Path | None = None,
    *,
    baseline: str | None = None,
    cases: int = CASES,
    scans: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Writes the report of a finished run, all or nothing.

    Args:
        run: The run, or its directory.
        path: The HTML file; `report.html` in the run directory when omitted.
        baseline: The row that the others are compared with; the first one when omitted.
        cases: Cases to show slices of: the worst half and the best.
        scans: Whether slices of scans may stand in the file. Without them it holds numbers and names only.
        progress: Follows the cases.

    Returns:
        The file's path.

    Raises:
        FssegError: There is no such run or row, or its scans are not there any more.
    """
    results = run if isinstance(run, Results) else load_results(run)
    if cases < 1:
        raise FssegError(
            f"report: got {cases} cases, expected at least one; leave pictures out with --no-scans"
        )
    compared = compare([results], baseline)
    viewer, notes = None, []
    if scans and keeps_margins(results):
        viewer = show(results, choose_exhibits(results, cases), progress)
    elif scans:
        notes.append(
            "This run keeps no margins (protocol.save_margins), so there are no slices to look at."
        )
    target = Path(path) if path is not None else results.path / "report.html"
    write_text(target, _page(results, compared, viewer, notes))
    return target


def _page(
    results: Results, compared: Comparison, viewer: dict[str, Any] | None, notes: list[str]
) -> str:
    if results.oracles:
        notes = [*notes, "* uses the ground truth of the query"]
    if results.about["uses_truth"]:
        notes = [
            *notes,
            f"Protocol {results.about['protocol']} chooses the query's slices by its ground truth.",
        ]
    several = len(results.variants) > 1
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True
    )
    return templates.get_template("page.html").render(
        title=results.path.name,
        about=_about(results),
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "viewer.js").read_text(encoding="utf-8"),
        means=[
            _means(results, metric) for metric in ([] if several else ["dice"]) + results.metrics
        ],
        comparison=_table(
            compared.shown(),
            f"3-D Dice, percent: means, and differences from {compared.baseline} with 95 % intervals",
        )
        if several
        else None,
        tests=_table(compared.shown_tests(), f"Every class against {compared.baseline}")
        if several
        else None,
        notes=notes,
        viewer=as_json(viewer) if viewer else None,
        scores=[
            _svg(plots.scores(results, name), f"Dice, {name or 'mean'}")
            for name in [None, *results.classes]
        ],
        in_turn=results.frame["support_case"].nunique() > results.frame["fold"].nunique(),
        seeds=len(results.about["seeds"]),
        training=_training(results),
        calibrations=[
            (name, _svg(figure, f"Calibration, {name}"))
            for name, figure in plots.calibrations(results).items()
        ],
        recipe=results.recipe.toml(),
        environment=_environment(results),
        version=version("fsseg"),
    )


def _about(results: Results) -> str:
    about = results.about
    parts = [
        str(about["dataset"]),
        f"protocol {about['protocol']} {about['protocol_hash']}",
        *about["options"],
        f"folds {about['fold_scheme']} ({', '.join(map(str, about['folds']))})",
        f"seeds {', '.join(map(str, about['seeds']))}",
        f"{results.cases} cases",
    ]
    return ", ".join(parts)


def _training(results: Results) -> str | None:
    """The figure of the training, if it was long enough to leave a log."""
    trainings = [training for _, fold in results.folder.folds() for training in fold.trainings()]
    if not any(training.log.stat().st_size for training in trainings):
        return None
    return _svg(plots.training_curves(results), "Losses and score threshold by step")


def _environment(results: Results) -> str:
    path = results.folder.environment
    return path.read_text(encoding="utf-8") if path.is_file() else json.dumps({})


def _means(results: Results, metric: str) -> dict[str, Any]:
    table, unit = results.table(metric), results.unit(metric)
    table.columns = [str(name).replace("sd_", "± over ") for name in table.columns]
    table.index = [f"{name} *" if name in results.oracles else name for name in table.index]
    shown = table.map(lambda value: "–" if value != value else f"{value:.1f}")
    shown.index.name = "variant"
    name = "3-D Dice" if metric == "dice" else metric
    return _table(
        shown, f"{name}{', percent' if unit == '%' else f', {unit}' if unit else ''}: means"
    )


def _table(frame: "pandas.DataFrame", caption: str) -> dict[str, Any]:
    rows: Iterable[tuple[Any, ...]] = frame.itertuples(name=None)
    columns = [str(name).replace("_", " ") for name in frame.columns]
    return {"caption": caption, "columns": [frame.index.name or "", *columns], "rows": list(rows)}


def _svg(figure: "Figure", title: str) -> str:
    """A figure as an element of the page: as wide as there is room, in the page's colours, read out by its title."""
    from matplotlib import rc_context

    file = io.StringIO()
    # The salt makes the ids inside the picture its own; text stays text, which a page can colour.
    with rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = text.replace("#000000", "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
