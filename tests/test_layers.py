"""The layers of docs/design.md: every module has a rank, and every import at its top level goes to a lower one."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fsseg"


def ranks():
    """Rank of each module, read from the table in docs/design.md: its row, and its place in the row."""
    text = (ROOT / "docs" / "design.md").read_text()
    found = {}
    for row in re.findall(r"^\| (\d+) \| (.+?) \|", text, flags=re.M):
        for place, group in enumerate(row[1].split("→")):
            for module in re.findall(r"`([a-z_./]+)`", group):
                found["fsseg." + module.replace("/", ".").rstrip(".")] = (int(row[0]), place)
    return found


def modules():
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }


def imports_of(path):
    tree = ast.parse(path.read_text())
    for node in tree.body:  # what is imported within functions, or for type checkers, loads later
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fsseg"):
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names if alias.name.startswith("fsseg"))


def test_every_module_has_a_rank():
    assert set(modules()) == set(ranks())


def test_imports_go_down():
    table, known = ranks(), modules()
    for module, path in modules().items():
        for target, names in imports_of(path):
            targets = [target] if target in known else [f"{target}.{name}" for name in names]
            for imported in targets:
                if imported in known:
                    assert table[imported] < table[module], (
                        f"{module} {table[module]} imports {imported} {table[imported]}"
                    )


def test_one_module_names_the_accelerator():
    naming = [
        path.name for path in PACKAGE.rglob("*.py") if re.search(r"\bcuda\b", path.read_text())
    ]
    passing_on = {"console.py", "reproduction.py", "run_jobs.py", "runs.py"}  # what the user typed
    assert set(naming) - passing_on == {"devices.py"}


def test_scans_are_read_and_cut_without_torch():
    """Worker processes that compute supervoxels or prepare scans stay small."""
    modules = "fsseg.runs.precompute, fsseg.data.datasets.check, fsseg.data.supervoxels.slic, fsseg.data.datasets.phantom.dataset, fsseg.prepare.engine"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
