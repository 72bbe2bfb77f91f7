"""The order of the packages: an import goes to the same package or an earlier one; and who alone imports what."""

import ast
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "fsseg"

ORDER = [
    "errors",
    "system",
    "score_scale",
    "types",
    "interfaces",
    "plugins",
    "data",
    "recipe",
    "model",
    "training",
    "evaluation",
    "runs",
    "prediction",
    "analysis",
    "report",
    "jobs",
    "prepare",
    "testing",
    "cli",
]

UPWARDS = {
    # The name that loads a segmenter from a run is documented as a method of Segmenter.
    ("fsseg.model.segmenter", "fsseg.prediction.predictor"),
    # `Comparison.plot()` and its like: whoever holds what was found asks it for its figure.
    ("fsseg.analysis.drawing", "fsseg.report"),
    # `Results.compare`, the older form of `fsseg.compare`: the project has one test.
    ("fsseg.runs.results", "fsseg.analysis.statistics"),
}

WITHOUT_TORCH = ("fsseg.system", "fsseg.plugins", "fsseg.data", "fsseg.recipe")
WITH_TORCH = ("fsseg.system.devices", "fsseg.system.random")
TORCH = ("torch", "torchvision", "timm", "safetensors.torch")

ONLY_IN = {
    "matplotlib": {"fsseg.report", "fsseg.data.datasets.contact_sheet"},
    "jinja2": {"fsseg.report"},
    "typer": {"fsseg.cli"},
    "rich": {"fsseg.cli"},
    "submitit": {"fsseg.jobs"},
    # Beside jobs: git and the driver's tool are asked, which says nothing of a run.
    "subprocess": {"fsseg.jobs", "fsseg.runs.identity", "fsseg.system.devices"},
}


def inside(module, place):
    """Is the module this one, or in this package?"""
    return f"{module}.".startswith(f"{place}.")


def imports_of(path):
    """The modules that a file imports, and which of them it imports when it is loaded."""
    pending = [(node, True) for node in ast.parse(path.read_text()).body]
    for node, at_once in pending:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, at_once
            yield from ((f"{node.module}.{alias.name}", at_once) for alias in node.names)
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        pending += [(child, at_once and not later) for child in ast.iter_child_nodes(node)]


IMPORTS = {
    ".".join(("fsseg", *path.relative_to(FOLDER).with_suffix("").parts)): set(imports_of(path))
    for path in FOLDER.rglob("*.py")
    if path.parent != FOLDER or path.stem in ORDER
}


def loads_torch(module, seen):
    """Does an import of the module, or of what it imports, load torch?"""
    seen.add(module)
    loaded = [name for name, at_once in IMPORTS[module] if at_once]
    if any(inside(name, library) for name in loaded for library in TORCH):
        return True
    return any(loads_torch(name, seen) for name in loaded if name in IMPORTS and name not in seen)


def test_every_import_goes_to_the_same_package_or_an_earlier_one():
    for module, imported in IMPORTS.items():
        rank = ORDER.index(module.split(".")[1])
        assert ("fsseg", True) not in imported, f"{module} imports the public names"
        for name, _ in imported:
            if not name.startswith("fsseg.") or name.split(".")[1] not in ORDER:
                continue
            allowed = any(inside(module, low) and inside(name, high) for low, high in UPWARDS)
            assert allowed or ORDER.index(name.split(".")[1]) <= rank, f"{module} imports {name}"
    assert len(UPWARDS) <= 3


def test_scans_and_recipes_are_read_without_torch():
    """What reads and cuts scans stays small, and so do the processes that do nothing else."""
    for module in IMPORTS:
        if any(inside(module, place) for place in WITHOUT_TORCH) and module not in WITH_TORCH:
            assert not loads_torch(module, set()), module


def test_each_library_has_its_package():
    for module, imported in IMPORTS.items():
        for name, _ in imported:
            homes = ONLY_IN.get(name.split(".")[0], {module})
            assert any(inside(module, home) for home in homes), f"{module} imports {name}"


def test_one_module_names_the_accelerator():
    for path in FOLDER.rglob("*.py"):
        names = {
            getattr(node, "attr", getattr(node, "value", None))
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute | ast.Constant)
        }
        assert "cuda" not in names or path == FOLDER / "system/devices.py", path
