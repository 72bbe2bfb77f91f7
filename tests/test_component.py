"""Components that are built from Python: their options are checked, and shown."""

import inspect
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import nn

import fsseg
from fsseg import FssegError, registry
from fsseg.errors import OptionsError
from fsseg.plugins.options import component
from fsseg.plugins.registry import Component, Registry


@component
class Mixed:
    """A component with options of many kinds."""

    def __init__(
        self,
        *,
        count: Annotated[int, Field(ge=1, description="how many")],
        scale: float = 1.0,
        pair: tuple[float, float] = (0.5, 1.5),
        file: str | None = None,
        names: list[str] | None = None,
    ) -> None:
        self.values = (count, scale, pair, file, names)


@component
class Layered(nn.Module):
    """A component that is a module."""

    def __init__(self, *, channels: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(channels, channels)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"count": 0}, "Mixed: count: expected greater than or equal to 1, got 0"),
        ({"count": "3"}, "Mixed: count: expected a valid integer, got '3'"),
        ({"count": True}, "Mixed: count: expected a valid integer, got True"),
        ({"count": 2.0}, "Mixed: count: expected a valid integer, got 2.0"),
        ({"count": np.float64(2.5)}, "Mixed: count: expected a valid integer, got 2.5"),
        ({"cuont": 3, "count": 1}, "Mixed: cuont: unknown key; did you mean 'count'?"),
        ({"self": 3, "count": 1}, "Mixed: self: unknown key; .*"),
        ({}, "Mixed: count: is missing; give it a value"),
        ({"count": 1, "pair": (1, 2, 3)}, "Mixed: pair: expected .*"),
        ({"count": 1, "file": np}, "Mixed: file: expected a number, a text, .*, got <module.*"),
        ({"count": 1, "names": {(1, 2): "x"}}, "Mixed: names: expected a number, a text, .*"),
        ({"count": 0, "scale": "x"}, "Mixed: count: .*, got 0\nMixed: scale: .*, got 'x'"),
    ],
)
def test_options_from_python_are_held_against_the_signature(options, sentence):
    with pytest.raises(FssegError, match=f"^{sentence}$".replace("?", r"\?")):
        Mixed(**options)


@pytest.mark.parametrize(
    "options, values",
    [
        ({"count": 2}, (2, 1.0, (0.5, 1.5), None, None)),
        ({"count": np.int64(2), "scale": 3}, (2, 3.0, (0.5, 1.5), None, None)),
        ({"count": torch.tensor(2), "scale": np.float32(0.5)}, (2, 0.5, (0.5, 1.5), None, None)),
        ({"count": 2, "pair": [1, 2], "names": ("a",)}, (2, 1.0, (1.0, 2.0), None, ["a"])),
        ({"count": 2, "pair": np.array([1.0, 2.0])}, (2, 1.0, (1.0, 2.0), None, None)),
        ({"count": 2, "file": Path("a/b")}, (2, 1.0, (0.5, 1.5), "a/b", None)),
        ({"count": 2, "scale": 0.1 + 0.2}, (2, 0.1 + 0.2, (0.5, 1.5), None, None)),
    ],
)
def test_values_of_python_are_taken_for_what_they_are(options, values):
    built = Mixed(**options).values
    assert built == values
    assert [type(value) for value in built] == [type(value) for value in values]


def test_arguments_have_names():
    with pytest.raises(FssegError, match=r"expected options by name, such as Mixed\(count=5\)"):
        Mixed(5)


def test_the_repr_shows_every_option():
    assert repr(Mixed(count=2, file="x")) == (
        "Mixed(count=2, scale=1.0, pair=(0.5, 1.5), file='x', names=None)"
    )
    assert repr(Layered(channels=3)) == "Layered(channels=3)"
    assert "(0): Layered(channels=2)" in repr(nn.Sequential(Layered()))


def test_a_repr_of_its_own_is_kept():
    @component
    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()

        def __repr__(self) -> str:
            return "told"

    assert repr(Told()) == "told"


class Bare(Mixed):
    """A subclass without the decorator, with arguments of its own."""

    def __init__(self, count) -> None:
        super().__init__(count=count)


@component
class Derived(Layered):
    """A subclass with the decorator and options of its own."""

    def __init__(self, *, width: int = 3) -> None:
        super().__init__(channels=2 * width)


class Same(Mixed):
    """A subclass with the constructor of its base."""


def test_subclasses_call_the_constructor_of_their_base():
    assert Bare(2).values[0] == 2
    assert "Bare object at" in repr(Bare(2))
    with pytest.raises(OptionsError, match="^Mixed: count: expected greater"):
        Bare(0)
    assert repr(Derived(width=4)) == "Derived(width=4)"
    assert Derived(width=4).layer.in_features == 8
    with pytest.raises(OptionsError, match="^Derived: channels: unknown key"):
        Derived(channels=4)
    assert repr(Same(count=2)).startswith("Same(count=2, ")
    with pytest.raises(OptionsError, match="^Same: count: "):
        Same(count=0)


class Plain:
    """A component without the decorator."""

    def __init__(self, *, width: int = 1) -> None:
        self.width = width


def test_the_registry_checks_what_it_loads():
    found = Registry()
    found.add(Component("head", "plain", f"{__name__}:Plain", "tests", "1"))
    built = found.build("head", "plain", {"width": 2})
    assert repr(built) == "Plain(width=2)"
    with pytest.raises(FssegError, match="^head plain: width: expected a valid integer, got '2'$"):
        found.build("head", "plain", {"width": "2"})
    with pytest.raises(OptionsError, match="^Plain: width: expected a valid integer"):
        Plain(width="2")


class Whole:
    """A component that builds another, with options that do not fit."""

    def __init__(self, *, count: int = 0) -> None:
        self.part = Mixed(count=count)


def test_a_component_within_another_is_named():
    found = Registry()
    found.add(Component("head", "whole", f"{__name__}:Whole", "tests", "1"))
    with pytest.raises(OptionsError, match="^Mixed: count: expected greater"):
        found.build("head", "whole", {})


def test_options_are_checked_once(monkeypatch):
    model = fsseg.plugins.options.schema(registry().find("threshold", "fixed").load())
    calls = []
    check = model.model_validate_json
    monkeypatch.setattr(
        model, "model_validate_json", lambda *a, **k: calls.append(a) or check(*a, **k)
    )
    registry().build("threshold", "fixed", {"prior": 0.5})
    assert len(calls) == 1


def test_every_component_of_fsseg_refuses_what_a_recipe_would():
    for found in registry():
        loaded = found.load()
        with pytest.raises(OptionsError, match="no_such_option: unknown key"):
            loaded(no_such_option=1)


def test_help_shows_types_and_meanings():
    """Not pydantic's metadata, nor the docstring of the class above."""
    assert str(inspect.signature(Mixed)).startswith(
        "(*, count: int, scale: float = 1.0, pair: tuple["
    )
    assert Mixed.__init__.__doc__ == (
        "Takes the options.\n\nArgs:\n    count: how many.\n    scale\n    pair\n    file\n    names"
    )
    assert inspect.getdoc(Layered.__init__) == "Takes the options.\n\nArgs:\n    channels"
    assert fsseg.CeT.__init__.__doc__ == "Takes no options."

    @component
    class Told:
        def __init__(self, *, size: int = 1) -> None:
            """Says it itself."""

    assert Told.__init__.__doc__ == "Says it itself."
