"""Exports that nobody wrote with `fsseg export`: a whole one with one thing changed, each by its name."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

Change = Callable[[dict, dict], None]
"""Changes tensors and words in place."""


def read(path: Path) -> tuple[dict, dict]:
    """The tensors and the words of an export."""
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata())  # noqa: SIM118


def first(tensors, part="backbone"):
    """The name of a weight of a part."""
    return next(name for name, value in tensors.items() if name.startswith(part) and value.ndim)


def word(name, value) -> Change:
    """Another word."""

    def change(tensors, words):
        words[name] = value if isinstance(value, str) else json.dumps(value)

    return change


def no_word(name) -> Change:
    """A word less."""
    return lambda tensors, words: words.pop(name)


def in_recipe(old, new) -> Change:
    """Another text in the recipe."""

    def change(tensors, words):
        assert old in words["recipe"], old
        words["recipe"] = words["recipe"].replace(old, new)

    return change


def tensor(make, part="backbone") -> Change:
    """Another tensor in the place of one."""

    def change(tensors, words):
        name = first(tensors, part)
        tensors[name] = make(tensors[name].clone())

    return change


def filled(value) -> Change:
    return tensor(lambda weights: weights.fill_(value))


def renamed(to) -> Change:
    def change(tensors, words):
        tensors[to] = tensors.pop(first(tensors))

    return change


def more(name, value) -> Change:
    return lambda tensors, words: tensors.update({name: value})


def every(part, make) -> Change:
    def change(tensors, words):
        for name in [name for name in tensors if name.startswith(part)]:
            tensors[name] = make(tensors[name])

    return change


def state(**values) -> Change:
    return word("threshold", values)


def scaling(**values) -> Change:
    return word("scaling", {"subtract": 1.0, "divide": 2.0, "bounded": True} | values)


DEEP = "[" * 100_000

CHANGES: dict[str, Change] = {
    "weights that are not numbers": filled(float("nan")),
    "weights without end": filled(float("inf")),
    "weights beyond single precision": tensor(lambda w: torch.full_like(w.double(), 1e300)),
    "weights of whole numbers": every("backbone", lambda w: w.to(torch.int8)),
    "one weight of whole numbers": tensor(lambda w: w.to(torch.int64)),
    "one weight of truths": tensor(lambda w: w > 0),
    "a weight of another shape": tensor(lambda w: w[:1]),
    "a weight without elements": tensor(lambda w: w[:0]),
    "a weight that is one number": tensor(lambda w: w.sum()),
    "a weight under another name": renamed("backbone.x"),
    "a weight without a part": renamed("x"),
    "a weight of another part": renamed("optimiser.x"),
    "a weight too many": more("backbone.extra", torch.zeros(3)),
    "no backbone": lambda tensors, words: [
        tensors.pop(name) for name in list(tensors) if name.startswith("backbone")
    ],
    "no head": lambda tensors, words: [
        tensors.pop(name) for name in list(tensors) if name.startswith("head")
    ],
    "a head that is not finite": every("head", lambda w: w * float("nan")),
    "a head of whole numbers": every("head", lambda w: w.to(torch.int32)),
    "a head too many": more("head.extra", torch.zeros(3)),
    "no words": lambda tensors, words: words.clear(),
    "another format": word("fsseg_format", "2"),
    "no recipe": no_word("recipe"),
    "no variant": no_word("variant"),
    "no threshold": no_word("threshold"),
    "no scaling": no_word("scaling"),
    "a word too many": word("run_me", "import os"),
    "a recipe that is no TOML": word("recipe", "seed = = 1"),
    "a recipe nested without end": word("recipe", f"x = {DEEP}"),
    "a recipe of one key": word("recipe", "seed = 1"),
    "a recipe with another component": in_recipe('name = "light"', 'name = "no_such"'),
    "a recipe with numbers that are not": in_recipe("learning_rate = 0.001", "learning_rate = inf"),
    "a variant that the recipe has not": word("variant", "no such row"),
    "a variant that is an oracle": word("variant", "OCP"),
    "a variant that is not fitted": word("variant", "CE-T"),
    "a threshold that is no JSON": word("threshold", "{"),
    "a threshold nested without end": word("threshold", DEEP),
    "a threshold that is a list": word("threshold", [1, 2, 3]),
    "a threshold that is nothing": word("threshold", None),
    "a threshold of no numbers": word("threshold", '{"coefficients": [NaN, 0.0, 0.0]}'),
    "a threshold without end": word("threshold", '{"coefficients": [1e999, 0.0, 0.0]}'),
    "a threshold of texts": state(coefficients=["a", "b", "c"]),
    "a threshold of truths": state(coefficients=[True, False, True]),
    "a threshold of too few numbers": state(coefficients=[1.0]),
    "a threshold of too many numbers": state(coefficients=[1.0] * 9),
    "a threshold that is a text": state(coefficients="abc"),
    "a threshold of another policy": state(prior=0.5),
    "a threshold with half a background": state(coefficients=[0.0] * 3, background=[1.0]),
    "a scaling that is a number": word("scaling", 3),
    "a scaling by nothing": scaling(divide=0.0),
    "a scaling by less than nothing": scaling(divide=-1.0),
    "a scaling without end": word(
        "scaling", '{"subtract": Infinity, "divide": 1.0, "bounded": true}'
    ),
    "a scaling of no number": word("scaling", '{"subtract": NaN, "divide": 1.0, "bounded": true}'),
    "a scaling of texts": scaling(subtract="1"),
    "a scaling with a key too many": scaling(rule="zscore"),
    "a scaling without a key": word("scaling", {"subtract": 0.0, "divide": 1.0}),
}
"""Changes by name; the export is of a row that LinEst decides."""

BYTES: dict[str, Callable[[bytes], bytes]] = {
    "an empty file": lambda content: b"",
    "half a file": lambda content: content[: len(content) // 2],
    "a header that claims more than there is": lambda content: b"\xff" * 8 + content[8:],
    "a header of no length": lambda content: b"\0" * 8 + content[8:],
    "a header that is no JSON": lambda content: content[:9] + b"?" + content[10:],
    "a pickle": lambda content: b"cos\nsystem\n(S'echo'\ntR.",
    "a file with more at its end": lambda content: content + b"more",
}


def crafted(export: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Writes every crafted export; gives its name and its file."""
    for number, (name, change) in enumerate(CHANGES.items()):
        tensors, words = read(export)
        change(tensors, words)
        path = folder / f"changed_{number}.safetensors"
        path.write_bytes(save({key: value.contiguous() for key, value in tensors.items()}, words))
        yield name, path
    for number, (name, spoil) in enumerate(BYTES.items()):
        path = folder / f"spoilt_{number}.safetensors"
        path.write_bytes(spoil(export.read_bytes()))
        yield name, path
