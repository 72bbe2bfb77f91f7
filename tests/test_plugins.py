"""Options from constructors, registries, and what goes wrong with plugins."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Annotated, Literal

import pytest
from pydantic import Field

from fsseg import FssegError, hookimpl
from fsseg.plugins import hookspecs
from fsseg.plugins import manager as plugins
from fsseg.plugins import sources as plugin_sources
from fsseg.plugins.manager import choose_plugins, registry
from fsseg.plugins.options import _type_name, nearest, options_of, schema, validate
from fsseg.plugins.registry import KINDS, Component, Registry
from fsseg.plugins.sources import Plugin


class Sample:
    """A component to look at."""

    def __init__(
        self,
        *,
        width: Annotated[int, Field(ge=1, description="how wide")],
        pair: tuple[float, float] = (0.5, 1.5),
        mode: Literal["a", "b"] = "a",
        limit: Annotated[float | None, Field(description="none for no limit")] = None,
    ) -> None:
        self.values = (width, pair, mode, limit)


def test_the_constructor_is_the_schema():
    shown = [(o.name, o.type, o.default, o.meaning) for o in options_of(Sample)]
    assert shown == [
        ("width", "int", "required", "how wide"),
        ("pair", "tuple[float, float]", "[0.5, 1.5]", ""),
        ("mode", "'a' | 'b'", '"a"', ""),
        ("limit", "float | none", "none", "none for no limit"),
    ]
    assert schema(Sample).model_json_schema()["properties"]["width"]["minimum"] == 1
    assert Sample(**validate(Sample, {"width": 3, "pair": [1, 2]})).values == (
        3,
        (1.0, 2.0),
        "a",
        None,
    )


@pytest.mark.parametrize(
    "options, key, sentence",
    [
        ({}, "width", "is missing"),
        ({"width": "3"}, "width", "expected a valid integer, got '3'"),
        ({"width": 0}, "width", "greater than or equal to 1"),
        ({"width": 1, "mode": "c"}, "mode", "expected 'a' or 'b', got 'c'"),
        ({"width": 1, "widht": 2}, "widht", "did you mean 'width'?"),
        ({"width": 1, "limit": "x"}, "limit", "expected a valid number, got 'x'"),
    ],
)
def test_wrong_options(options, key, sentence):
    found = Registry()
    found.add(Component("head", "sample", "test_plugins:Sample", "tests", "1"))
    problems = dict(found.problems("head", "sample", options))
    assert list(problems) == [key] and sentence in problems[key]


@pytest.mark.parametrize(
    "annotation, text",
    [
        (Literal["a", "b"] | tuple[float, float], "'a' | 'b' | tuple[float, float]"),
        (list[int] | None, "list[int] | none"),
        (Annotated[int, Field(ge=1)], "int"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Annotated[str | None, "x"] | bool, "str | none | bool"),
    ],
)
def test_types_as_people_write_them(annotation, text):
    assert _type_name(annotation) == text


def test_constructors_that_cannot_be_a_schema():
    class Positional:
        def __init__(self, width: int = 1):
            pass

    class Unannotated:
        def __init__(self, *, width=1):
            pass

    with pytest.raises(FssegError, match="argument 'width' is not keyword-only"):
        schema(Positional)
    with pytest.raises(
        FssegError, match="Unannotated .*: the constructor's argument 'width' is unannotated"
    ):
        schema(Unannotated)


def test_every_registered_component_has_a_schema_a_docstring_and_meanings():
    for component in registry():
        loaded = component.load()
        assert loaded.__doc__, component
        for option in options_of(loaded):
            assert option.meaning, (component, option.name)


def test_built_ins_and_strangers_come_through_the_same_door():
    found = {(c.kind, c.name): c.distribution for c in registry()}
    assert found["threshold", "lin_est"] == "fsseg"
    assert found["threshold", "otsu"] == "fsseg-otsu"
    assert {kind for kind, _ in found} | {"segmenter", "tracker"} == set(KINDS)


def test_every_hook_is_a_kind_and_every_kind_a_hook():
    hooks = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert hooks == set(KINDS.values())


def load(*modules):
    return plugins.load(
        [Plugin("x", f"dist{number}", "1.0", module) for number, module in enumerate(modules)]
    )


class PluginA:
    @hookimpl
    def register_heads(self, register):
        register("mine", "test_plugins:Sample")


class PluginB:
    @hookimpl
    def register_heads(self, register):
        register("mine", "elsewhere:Other")


def test_two_components_of_one_name_are_an_error_naming_both_and_their_lines():
    assert load(PluginA()).registry.find("head", "mine").distribution == "dist0"
    line = r"test_plugins.py:\d+\)"
    both = rf"'mine' is registered twice: by dist0 \(test_plugins:Sample, .*{line} and by dist1 \(elsewhere:Other, .*{line}"
    with pytest.raises(FssegError, match=f"{both}; rename one of them, or .* --no-plugin dist1"):
        load(PluginA(), PluginB())


class Misspelt:
    @hookimpl
    def register_haeds(self, register):
        pass


class WrongArgument:
    @hookimpl
    def run_started(self, recipes):
        pass


class NoImportString:
    @hookimpl
    def register_heads(self, register):
        register("mine", "Sample")


class Failing:
    @hookimpl
    def register_heads(self, register):
        raise ZeroDivisionError("by what?")


@pytest.mark.parametrize(
    "module, sentence",
    [
        (Misspelt(), "there is no hook 'register_haeds'; did you mean 'register_heads'\\?"),
        (
            WrongArgument(),
            r"Argument\(s\) {'recipes'} are declared in the hookimpl but can not be found in the hookspec, which is "
            r"run_started\(recipe, name, runs_dir\)",
        ),
        (NoImportString(), "head 'mine': expected \"package.module:Class\", got 'Sample'"),
        (Failing(), "register_heads failed \\(ZeroDivisionError: by what\\?\\)"),
    ],
)
def test_a_hook_that_is_none_is_an_error_naming_the_line(module, sentence):
    where = r"plugin 'x' of dist0 1.0, .*test_plugins.py:\d+: "
    with pytest.raises(FssegError, match=where + sentence + ".*--no-plugin x"):
        load(module)


def test_a_hook_takes_the_arguments_it_asks_for():
    class Counting:
        calls = []

        @hookimpl
        def variant_evaluated(self, variant, seed):
            self.calls.append((variant, seed))

    load(Counting()).manager.hook.variant_evaluated(variant="TPM", fold=0, seed=3, scores=[])
    assert Counting.calls == [("TPM", 3)]


class Unannotated:
    def __init__(self, *, width=1):
        pass


def test_a_constructor_without_annotations_names_the_distribution_and_the_line():
    component = Component("head", "mine", "test_plugins:Unannotated", "some-dist", "2.0")
    where = r"head 'mine' of some-dist 2.0: test_plugins:Unannotated \(.*test_plugins.py:\d+\): "
    with pytest.raises(
        FssegError, match=where + "the constructor's argument 'width' is unannotated"
    ):
        component.load()


def test_a_target_that_cannot_be_imported_names_the_distribution():
    with pytest.raises(
        FssegError, match="head 'mine' of dist0 1.0: elsewhere:Other cannot be imported"
    ):
        load(PluginB()).registry.find("head", "mine").load()


@pytest.mark.parametrize(
    "text, reason",
    [
        ("x = 1\n\nraise RuntimeError('boom')\n", r"\(RuntimeError: boom, .*bad_module.py:3\)"),
        ("x = (", r"SyntaxError.*line 1"),
    ],
)
def test_a_plugin_that_fails_to_import_names_the_distribution_and_the_line(
    tmp_path, monkeypatch, text, reason
):
    (tmp_path / "bad_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("bad", "bad_module", "fsseg")
    sentence = (
        f"plugin 'bad' of some-dist 2.0: bad_module cannot be imported .*{reason}.*--no-plugin bad"
    )
    with pytest.raises(FssegError, match=sentence):
        plugin_sources.import_entry(entry, "some-dist", "2.0")


@pytest.fixture
def chosen():
    yield choose_plugins
    choose_plugins([], [])


def test_an_installed_plugin_can_be_left_out(chosen):
    for name in ("otsu", "fsseg-otsu"):
        chosen(without=[name])
        assert "otsu" not in registry().names("threshold") and "lin_est" in registry().names(
            "threshold"
        )
    chosen(without=[])
    assert "otsu" in registry().names("threshold")


@pytest.mark.parametrize("name", ["ootsu", "fsseg", "builtin"])
def test_only_plugins_can_be_left_out(chosen, name):
    chosen(without=[name])
    with pytest.raises(FssegError, match=f"--no-plugin {name}: there is no such plugin"):
        registry()


IDEA = """
from typing import ClassVar
from fsseg import hookimpl

class Idea:
    oracle: ClassVar[bool] = False
    def __init__(self, *, shift: float = 0.0) -> None:
        self.shift = shift
    def __call__(self, evidence):
        return evidence.query_location * 0 + self.shift

@hookimpl
def register_thresholds(register):
    register("idea", Idea)
"""


def test_a_single_file_is_a_plugin(chosen, tmp_path):
    file = tmp_path / "idea_in_a_file.py"
    file.write_text(IDEA)
    chosen(files=[file])
    found = registry().find("threshold", "idea")
    assert (found.distribution, found.target) == ("idea_in_a_file.py", "idea_in_a_file:Idea")
    assert (
        found.sources() == [file]
        and registry().build("threshold", "idea", {"shift": 2.0}).shift == 2.0
    )


@pytest.mark.parametrize(
    "name, text, sentence",
    [
        ("not_there.py", None, "expected a Python file"),
        ("two-words.py", IDEA, "expected a Python file whose name can be imported"),
        ("json.py", IDEA, "there is another module 'json'"),
        ("no_hook.py", "x = 1", "it has no hook, expected a function such as register_thresholds"),
        (
            "unmarked.py",
            "def register_heads(register): pass",
            r"unmarked.py:1: the hook register_heads is not marked",
        ),
        (
            "failing.py",
            "\n\n1 / 0",
            r"it cannot be imported \(ZeroDivisionError: division by zero, .*failing.py:3\)",
        ),
    ],
)
def test_files_that_are_no_plugins(chosen, tmp_path, name, text, sentence):
    if text is not None:
        (tmp_path / name).write_text(text)
    chosen(files=[tmp_path / name])
    with pytest.raises(FssegError, match=sentence):
        registry()


def test_nearest_names():
    assert nearest("lin_set", ["lin_est", "avg_est"]) == "did you mean 'lin_est'?"
    assert nearest("zzz", ["lin_est", "avg_est"]) == "valid are lin_est, avg_est"


@pytest.mark.processes
def test_listing_imports_nothing_heavy():
    code = (
        "import sys, fsseg; from fsseg.plugins.manager import registry; list(registry());"
        "print([m for m in ('torch', 'timm', 'pandas', 'numba', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
