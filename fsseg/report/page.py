"""The report of a run: one HTML file with tables, figures, and slices whose prior can be dragged."""

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from fsseg.analysis.comparison import Comparison, compare
from fsseg.analysis.tables import number, starred
from fsseg.errors import FssegError
from fsseg.report import run_plots
from fsseg.report.figures import with_unit
from fsseg.report.viewer import as_json, choose_exhibits, keeps_margins, viewer_data
from fsseg.runs.results import Results, load_results
from fsseg.system.files import write_text
from fsseg.system.progress import Progress
from fsseg.system.targets import end_of_links, require_file

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
        baseline: The variant that the others are compared with; the first one when omitted.
        cases: Cases to show slices of: the worst half and the best.
        scans: Whether slices of scans may stand in the file. Without them it holds numbers and names only.
        progress: Follows the cases.

    Returns:
        The file's path.

    Raises:
        FssegError: There is no such run or variant, or its scans are not there any more.

    Example:
        fsseg.write_report("runs/table1-20261123-120000", "report.html", scans=False)
    """
    results = run if isinstance(run, Results) else load_results(run)
    target = _target(results, path)
    if cases < 1:
        raise FssegError(
            f"report: got {cases} cases, expected at least one; leave pictures out with --no-scans"
        )
    compared = compare([results], baseline)
    viewer = None
    if scans and keeps_margins(results):
        viewer = viewer_data(results, choose_exhibits(results, cases), progress)
    notes = list(_notes(results, without_slices=scans and viewer is None))
    write_text(target, _page(results, compared, viewer, notes))
    return target


def _target(results: Results, path: str | Path | None) -> Path:
    """The file of the page; a link that leads out of a run directory is followed only where it is given by name."""
    if path is not None:
        require_file(Path(path))
        return Path(path)
    target = results.path / "report.html"
    require_file(target)
    if not end_of_links(target).is_relative_to(results.path.resolve()) and target.is_symlink():
        raise FssegError(
            f"{target}: is a link out of the run directory, expected a file or nothing; say where to write with --out"
        )
    return target


def _page(
    results: Results,
    compared: Comparison,
    viewer: dict[str, Any] | None,
    notes: list[str],
) -> str:
    """The text of the page."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
    )
    script = (TEMPLATES / "viewer.js").read_text(encoding="utf-8")
    return templates.get_template("page.html").render(
        title=results.path.name,
        about=_about(results),
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_source=_source_of(script) if viewer else Markup("'none'"),
        **_tables(results, compared),
        notes=notes,
        viewer=as_json(viewer) if viewer else None,
        **_figures(results),
        in_turn=_several_supports(results),
        seeds=len(results.about["seeds"]),
        recipe=results.recipe.toml(),
        environment=_environment(results),
        version=version("fsseg"),
    )


def _source_of(script: str) -> Markup:
    """The words of a content security policy that let this script run and no other."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Markup(f"'sha256-{digest}'")


def _notes(results: Results, *, without_slices: bool) -> Iterator[str]:
    """Sentences that stand below the tables."""
    if without_slices:
        yield "This run keeps no margins (protocol.save_margins), so there are no slices to look at."
    if results.oracles:
        yield "* uses the ground truth of the query"
    if results.about["uses_truth"]:
        protocol = results.about["protocol"]
        yield f"Protocol {protocol} chooses the query's slices by its ground truth."


def _tables(results: Results, compared: Comparison) -> dict[str, Any]:
    """The tables of the page: a single variant has means, several have a comparison."""
    if len(results.variants) == 1:
        means = [_means(results, metric) for metric in ("dice", *results.metrics)]
        return {"means": means, "comparison": None, "tests": None}
    baseline = compared.baseline
    caption = f"3-D Dice, percent: means, and differences from {baseline} with 95 % intervals"
    return {
        "means": [_means(results, metric) for metric in results.metrics],
        "comparison": _table(compared.shown(), caption),
        "tests": _table(compared.shown_tests(), f"Every class against {baseline}"),
    }


def _figures(results: Results) -> dict[str, Any]:
    """The figures of the page."""
    scores = []
    for name in (None, *results.classes):
        figure = run_plots.scores(results, name)
        scores.append(_svg(figure, f"Dice, {name or 'mean'}"))
    calibrations = []
    for name, figure in run_plots.calibrations(results).items():
        calibrations.append((name, _svg(figure, f"Calibration, {name}")))
    return {
        "scores": scores,
        "training": _training(results),
        "calibrations": calibrations,
    }


def _several_supports(results: Results) -> bool:
    """Whether scans were segmented from more than one support."""
    frame = results.frame
    return frame["support_case"].nunique() > frame["fold"].nunique()


def _about(results: Results) -> str:
    """What was evaluated, in a line."""
    about = results.about
    folds = ", ".join(map(str, about["folds"]))
    seeds = ", ".join(map(str, about["seeds"]))
    parts = [
        str(about["dataset"]),
        f"protocol {about['protocol']} {about['protocol_hash']}",
        *about["options"],
        f"folds {about['fold_scheme']} ({folds})",
        f"seeds {seeds}",
        f"{results.cases} cases",
    ]
    return ", ".join(parts)


def _training(results: Results) -> str | None:
    """The figure of the training, if it was long enough to leave a log."""
    sizes = []
    for _, fold in results.folder.folds():
        sizes += [training.log.stat().st_size for training in fold.trainings()]
    if not any(sizes):
        return None
    figure = run_plots.training_curves(results)
    return _svg(figure, "Losses and score threshold by step")


def _environment(results: Results) -> str:
    """The file of the environment; nothing in an old run without one."""
    path = results.folder.environment
    return path.read_text(encoding="utf-8") if path.is_file() else "{}"


def _means(results: Results, metric: str) -> dict[str, Any]:
    """The table of means of a metric."""
    table = results.table(metric)
    table.columns = [str(name).replace("sd_", "± over ") for name in table.columns]
    shown = table.map(number)
    shown.index = starred(table.index, results.oracles)
    shown.index.name = "variant"
    unit = results.unit(metric)
    name = "3-D Dice" if metric == "dice" else metric
    caption = with_unit(name, "percent" if unit == "%" else unit)
    return _table(shown, f"{caption}: means")


def _table(shown: "pandas.DataFrame", caption: str) -> dict[str, Any]:
    """A table of text as the template takes it."""
    columns = [str(name).replace("_", " ") for name in shown.columns]
    return {
        "caption": caption,
        "columns": [shown.index.name or "", *columns],
        "rows": list(shown.itertuples(name=None)),
    }


def _svg(figure: "Figure", title: str) -> str:
    """A figure as an element of the page: as wide as there is room, in the page's colours, read out by its title."""
    from matplotlib import rc_context

    file = io.StringIO()
    # The salt makes the ids inside the picture its own; text stays text, which a page can colour.
    with rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            metadata={"Date": None},
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = text.replace("#000000", "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
