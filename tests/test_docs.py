"""The docs say what is so: pages are current, commands and snippets run, paths exist."""

import importlib.metadata
import importlib.util
import json
import math
import re
import shlex
import tomllib
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest
import torch
import typer

import fsseg
from fsseg import registry
from fsseg.cli.main import app
from fsseg.cli.pages import components_page, contract_page
from fsseg.data.folds import SupportChoice
from fsseg.prediction.predictor import Prediction
from fsseg.recipe.reading import parse_recipe
from fsseg.recipe.sweep import expand
from fsseg.recipe.tables import EpisodeTable, ProtocolTable, Recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_page_of_components_is_current():
    """Made by `uv run fsseg list --markdown > docs/components.md`."""
    page = components_page(c for c in registry() if c.distribution in ("fsseg", "fsseg-otsu"))
    assert (ROOT / "docs" / "components.md").read_text().strip() == page.strip()


def test_the_page_of_contracts_is_current():
    """Made by `uv run python -c "from fsseg.cli.pages import contract_page; print(contract_page(), end='')" > docs/contract.md`."""
    assert (ROOT / "docs" / "contract.md").read_text() == contract_page()


def test_the_first_snippet_of_the_readme_runs():
    code = re.findall(r"```python\n(.*?)```", README, flags=re.S)[0]
    names = {}
    exec(code, names)  # noqa: S102 (our own documentation)
    assert names["result"].labels.shape == (24, 192, 192)
    assert names["result"].probabilities.shape == (24, 2, 192, 192)


def test_the_second_snippet_of_the_readme_runs(monkeypatch):
    """With the run itself replaced: `tests/test_runs.py` runs recipes."""
    monkeypatch.chdir(ROOT)
    seen = []

    class Nothing:
        frame = None

        def table(self):
            return None

    def compare(runs, baseline):
        assert isinstance(runs[0], Nothing) and baseline in [
            variant.name for variant in seen[0].variants
        ]
        return Nothing()

    monkeypatch.setattr("fsseg.runs.run.run", lambda recipe: seen.append(recipe) or Nothing())
    monkeypatch.setattr("fsseg.analysis.comparison.compare", compare)
    exec(re.findall(r"```python\n(.*?)```", README, flags=re.S)[1], {})  # noqa: S102
    assert seen[0].training.steps == 500 and seen[0].variants[0].prototypes.options == {"count": 3}
    seen[0].check()


COMMANDS = re.findall(r"uv run (fsseg .+)", README + (ROOT / "docs/data.md").read_text())
for name in ("scaling", "comparing", "looking"):
    page = (ROOT / f"docs/{name}.md").read_text()
    COMMANDS += re.findall(r"^ *(?:uv run )?(fsseg .+)", page, flags=re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_docs_are_ones(command):
    """Every option exists, what has to be given is, and every recipe is there and valid with what the command changes."""
    words = shlex.split(command.split("`")[0], comments=True)[1:]
    found = typer.main.get_command(app)
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    known = {name for parameter in found.params for name in parameter.opts}
    required = {
        parameter.opts[0]
        for parameter in found.params
        if parameter.required and parameter.opts[0][0] == "-"
    }
    given = {word for word in words if word.startswith("--")}
    assert required <= given <= known
    if found.name == "run":
        changes = dict(
            words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--set"
        )
        if "--data" in words:
            changes |= {"dataset.name": "nifti", "dataset.root": "DIR"}
        files = [ROOT / words[i + 1] for i, word in enumerate(words) if word == "--plugin"]
        fsseg.choose_plugins(files=files, without=[])
        try:
            fsseg.load_recipe(ROOT / words[0], changes)
        finally:
            fsseg.choose_plugins(files=[], without=[])


def test_the_page_about_comparing(monkeypatch):
    """Its snippets, with the runs replaced, and its tables of recipes."""
    page = (ROOT / "docs" / "comparing.md").read_text()
    seen = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        "fsseg.analysis.comparison.compare", lambda sources, **how: seen.append((sources, how))
    )
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page, flags=re.S):
        exec(code, names)  # noqa: S102 (our own documentation)
    assert all((ROOT / source).is_file() for source in seen[0][0])
    tables = tomllib.loads((ROOT / "recipes" / "tpm_mp5_linest.toml").read_text())
    for block in re.findall(r"```toml\n(.*?)```", page, flags=re.S):
        tables |= tomllib.loads(block)
    recipe = parse_recipe(tables)
    assert len(recipe.metrics) == 5 and len(expand(recipe).variants) == 9 * len(recipe.variants)
    recipe.sweep = names["grid"]
    assert len(expand(recipe).variants) == 6 * len(recipe.variants)


def test_the_page_about_looking(monkeypatch, tmp_path):
    """Its figures are drawn, and its snippet of Python is a prediction (of a stand-in for a trained run)."""
    import nibabel
    import numpy as np

    class Standing:
        """Finds what is brighter than the support's labelled voxels on average."""

        def fit(self, support):
            self.least = support.image[support.labels > 0].mean()
            return self

        def predict(self, scan):
            inside = scan.image > self.least
            return Prediction(
                inside.astype(np.uint8), {1: np.where(inside, 1.0, -1.0).astype(np.float32)}
            )

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "fsseg.prediction.predictor.load_predictor", lambda run, **choice: Standing()
    )
    voxels = np.random.default_rng(0).normal(size=(8, 7, 4)).astype(np.float32)
    for name, data in (("a", voxels), ("a_labels", (voxels > 0).astype(np.uint8)), ("b", voxels)):
        nibabel.save(nibabel.Nifti1Image(data, np.diag([-1.5, 2.0, 5.0, 1.0])), f"{name}.nii.gz")
    figures, snippet = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "looking.md").read_text(), flags=re.S
    )
    exec(figures, {})  # noqa: S102 (our own documentation)
    assert Path("theory.pdf").read_bytes()[:4] == Path("curves.pdf").read_bytes()[:4] == b"%PDF"
    names = {}
    exec(snippet, names)  # noqa: S102
    back = names["scan"].grid.to_file(names["found"].labels)
    assert np.array_equal(back, voxels > voxels[voxels > 0].mean())


def test_the_components_of_the_readme_are_all_there():
    table = README.split("## Components")[1].split("##")[0]
    for component in registry():
        if component.distribution in ("fsseg", "fsseg-otsu"):
            assert f"`{component.name}`" in table, component


def test_what_the_page_of_the_theory_asserts():
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "theory.md").read_text(), flags=re.S)
    assert len(code) > 5
    with torch.random.fork_rng(devices=[]):
        exec("\n".join(code), {})  # noqa: S102


@pytest.fixture(scope="module")
def figure():
    """The script of the page's figure, as a module."""
    spec = importlib.util.spec_from_file_location(
        "figure", ROOT / "docs/figures/cross_entropy_and_dice.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_curves_of_the_figure_by_hand(figure):
    """Four pixels with margins 1, 1, -1, -1, of which the first and the third are foreground."""
    margins = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    truth = torch.tensor([[True, False, True, False]])
    priors = torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)
    found = figure.curves(figure.sums(margins, truth, priors))
    assert found["dice"][0].tolist() == pytest.approx([0, 0.5, 2 * 2 / (4 + 2)])
    assert found["ratio"][0].tolist() == [0, 1, 2]
    near, far = (
        math.log1p(math.exp(x)) for x in (-1, 1)
    )  # of a right and of a wrong pixel at an even prior
    assert found["cross_entropy"][0, 1].item() == pytest.approx((near + far) / 2)
    assert found["weighted_cross_entropy"][0, 1].item() == pytest.approx(1.1 * (near + far) / 2.2)
    assert found["cross_entropy"][0, 0].item() == pytest.approx(
        sum(math.log1p(math.exp(x)) for x in (1, -1, 3, -3)) / 4
    )


def test_the_choices_of_the_figure_by_hand(figure):
    """Two slices with three true pixels of ten each; in the first, the largest margin is that of a wrong pixel."""
    margins = torch.tensor([[3.0, 2.0, 1.0, 4.0, *[-3.0] * 6], [3.0, 2.0, 1.5, -1.0, *[-3.0] * 6]])
    truth = torch.tensor([[True] * 3 + [False] * 7, [True] * 3 + [False] * 7])
    numbers, drawn = figure.analyse({"organ": (margins, truth), "other": (margins, truth)})
    organ = numbers["organ"]["pooled"]
    assert organ["ideal_proportion"] == {
        "prior": -1.25,
        "dice": pytest.approx(2 * 5 / (6 + 6)),
    }  # 4 3 3 2 2 1.5 | 1
    assert organ["dice"]["dice"] == pytest.approx(2 * 6 / (7 + 6))
    assert numbers["mean"]["pooled"] == organ  # two equal classes
    assert numbers["organ"]["per_slice"]["ideal_proportion"] == pytest.approx((2 * 2 / 6 + 1) / 2)
    assert drawn["mean"]["ratio"][0, 60].item() == pytest.approx(7 / 6)  # an even prior
    losses = drawn["organ"]["cross_entropy"], drawn["organ"]["weighted_cross_entropy"]
    soft = torch.sigmoid(margins + figure.PRIORS[losses[0][0].argmin()]).sum().item()
    assert soft == pytest.approx(
        6, abs=0.2
    )  # at its minimum the sum of probabilities is the true count
    assert losses[1].argmin() > losses[0].argmin()  # light backgrounds let more in


def test_the_numbers_of_the_theory_are_those_of_the_figure():
    page = (ROOT / "docs" / "theory.md").read_text()
    found = json.loads((ROOT / "docs/figures/cross_entropy_and_dice.json").read_text())
    order = ["weighted_cross_entropy", "cross_entropy", "ideal_proportion", "dice"]
    names = {"all classes": "mean", "right kidney": "right_kidney", "left kidney": "left_kidney"}
    for row in ("all classes", "liver", "right kidney", "left kidney", "spleen"):
        pooled = found[names.get(row, row)]["pooled"]
        values = " | ".join(f"{100 * pooled[key]['dice']:.1f}" for key in order)
        assert f"| {row} | {values} |" in page, (row, values)
    values = " | ".join(f"{100 * found['mean']['per_slice'][key]:.1f}" for key in order)
    assert f"| every slice (mean) | {values} |" in page, values


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(
            f"docs/{name}.md"
            for name in (
                "data",
                "protocols",
                "results",
                "scaling",
                "theory",
                "tour",
                "design",
                "looking",
                "comparing",
                "dependencies",
            )
        ),
    ],
)
def test_paths_exist(page):
    text = (ROOT / page).read_text()
    paths = re.findall(r"`((?:fsseg|docs|recipes|plugins|tests)/[\w/.-]+?)/?`", text)
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    for path in [ROOT / path for path in paths] + [(ROOT / page).parent / link for link in links]:
        assert path.exists(), path


def test_the_tour_names_functions_that_exist():
    text = (ROOT / "docs" / "tour.md").read_text()
    for name, path in re.findall(r"`([a-z_A-Z.]+)` in `(fsseg/\w+\.py)`", text):
        assert re.search(rf"(def|class) {name.split('.')[-1]}\b", (ROOT / path).read_text()), (
            name,
            path,
        )


def test_every_protocol_and_fold_scheme_has_its_line():
    page = (ROOT / "docs" / "protocols.md").read_text()
    for name in [*registry().names("protocol"), *registry().names("folds")]:
        assert f"`{name}`" in page, name


def test_every_choice_of_the_protocol_is_explained():
    """Each option, each of its values, and snippets that are valid as they stand."""
    page = (ROOT / "docs" / "protocols.md").read_text()
    snippets = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", page, flags=re.S)]
    written = {key for tables in snippets for key in tables.get("protocol", {})}
    assert written == set(ProtocolTable.model_fields) - {"save_labels", "save_margins"}
    for tables in snippets:
        for name, table in tables.items():
            Recipe.model_fields[name].annotation.model_validate(table)
    for choice in get_args(SupportChoice):
        assert f'`support = "{choice}"`' in page
    for setting in get_args(EpisodeTable.model_fields["setting"].annotation):
        assert re.search(f"^In setting {setting}|In setting {setting} ", page, flags=re.M)


def _required():
    """The packages that fsseg and its plugins ask for."""
    projects = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
    wanted = set()
    for project in projects:
        table = tomllib.loads(project.read_text())["project"]
        groups = [table["dependencies"], *table.get("optional-dependencies", {}).values()]
        for requirement in chain.from_iterable(groups):
            wanted.add(re.match(r"[\w.-]+", requirement)[0].lower())
    return {name for name in wanted if not name.startswith("fsseg")}


def test_every_dependency_has_its_purpose_and_its_licence():
    """As far as metadata tell the licence, it is of that family."""
    page = (ROOT / "docs/dependencies.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    licences = {row[0]: row[-1] for row in rows if row[0] != "package"}
    assert set(licences) == _required() and all(len(row) >= 3 and all(row) for row in rows)
    for name, licence in licences.items():
        try:
            about = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed
        classifiers = [text for text in about.get_all("Classifier", []) if "License ::" in text]
        told = " ".join(
            [about.get("License-Expression") or about.get("License") or "", *classifiers]
        )
        family = re.match("MIT|BSD|Apache|PSF", licence)[0]
        other_words = {"PSF": "Python Software Foundation", "BSD": "BSD"}
        if told.strip() not in ("", "UNKNOWN"):
            assert other_words.get(family, family) in told, (name, licence, told[:200])
