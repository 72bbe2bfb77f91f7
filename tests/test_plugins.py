"""Options from constructors, registries, and what goes wrong with plugins."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Annotated, Literal

import pluggy
import pytest
from pydantic import Field

from fsseg import FssegError, hookimpl, hookspecs, plugins
from fsseg.options import _type_name, nearest, options_of, schema, validate
from fsseg.plugins import KINDS, Component, Registry, collect, registry


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
    assert Sample(**validate(Sample, {"width": 3, "pair": [1, 2]})).values == (3, (1.0, 2.0), "a", None)


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
    with pytest.raises(FssegError, match="Unannotated: the constructor's argument 'width' is unannotated"):
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
    assert {kind for kind, _ in found} == set(KINDS)


def test_every_hook_is_a_kind_and_every_kind_a_hook():
    hooks = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert hooks == set(KINDS.values())


def make_registry(*modules):
    manager = pluggy.PluginManager("fsseg")
    manager.add_hookspecs(hookspecs)
    origins = {}
    for number, module in enumerate(modules):
        name = manager.register(module, f"dist{number}:x")
        origins[name] = (f"dist{number}", "1.0")
    plugins._check_names(manager)
    return collect(manager, origins)


class PluginA:
    @hookimpl
    def register_heads(self, register):
        register("mine", "test_plugins:Sample")


class PluginB:
    @hookimpl
    def register_heads(self, register):
        register("mine", "elsewhere:Other")


class Misspelt:
    @hookimpl
    def register_haeds(self, register):
        pass


def test_two_components_of_one_name_are_an_error_naming_both():
    assert make_registry(PluginA()).find("head", "mine").distribution == "dist0"
    with pytest.raises(FssegError, match=r"'mine' is registered twice: by dist0 \(test_plugins:Sample\) and by dist1"):
        make_registry(PluginA(), PluginB())


def test_a_misspelt_hook_is_an_error():
    with pytest.raises(FssegError, match="register_haeds.*the hooks are .*register_heads"):
        make_registry(Misspelt())


def test_a_target_that_cannot_be_imported_names_the_distribution():
    with pytest.raises(FssegError, match="head 'mine' of dist0 1.0: elsewhere:Other cannot be imported"):
        make_registry(PluginB()).find("head", "mine").load()


def test_a_plugin_that_fails_to_import_names_the_distribution(tmp_path, monkeypatch):
    (tmp_path / "bad_module.py").write_text("raise RuntimeError('boom')\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("bad", "bad_module", "fsseg")
    with pytest.raises(
        FssegError, match=r"plugin 'bad' of some-dist 2.0: bad_module cannot be imported \(RuntimeError: boom\)"
    ):
        plugins._import(entry, ("some-dist", "2.0"))


def test_nearest_names():
    assert nearest("lin_set", ["lin_est", "avg_est"]) == "did you mean 'lin_est'?"
    assert nearest("zzz", ["lin_est", "avg_est"]) == "valid are lin_est, avg_est"


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, fsseg; from fsseg.plugins import registry; list(registry());"
        "print([m for m in ('torch', 'timm', 'pandas', 'numba', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
