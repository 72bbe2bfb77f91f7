"""Components that stand for classes of torch: their options are the arguments of that class."""

import collections.abc
import functools
import inspect
import operator
from collections.abc import Callable, Collection, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field
from torch import Tensor

Options = dict[str, Any]


def constructor_of(
    torch_class: type,
    left_out: Collection[str],
    meanings: Mapping[str, str],
    changes: Mapping[str, tuple[Any, Any]],
    keep: Callable[[Any, Options], None],
) -> Callable[..., None]:
    """A component's constructor with the arguments of a class of torch, each by name.

    Args:
        torch_class: The class of torch.
        left_out: Its arguments that are no options.
        meanings: What the options mean, by name.
        changes: By option, another type than torch's and another default; `...` for the same default.
        keep: Is given the component and the options that were written.
    """
    constructor: Callable[..., None] = vars(torch_class)["__init__"]
    types = get_type_hints(constructor, localns=vars(collections.abc))
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for name, argument in list(inspect.signature(constructor).parameters.items())[1:]:
        if name in left_out:
            continue
        kind, default = changes.get(name, (None, ...))
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=argument.default if default is ... else default,
                annotation=Annotated[
                    kind or _type_in_recipes(types[name]),
                    Field(description=meanings.get(name, "")),
                ],
            )
        )

    def __init__(self: Any, **options: Any) -> None:
        keep(self, options)

    written: Any = __init__
    written.__signature__ = inspect.Signature(parameters)
    written.__annotations__ = {each.name: each.annotation for each in parameters[1:]}
    return __init__


def _type_in_recipes(annotation: Any) -> Any:
    """The part of an annotation of torch's that a recipe can hold: `float | Tensor` is a number."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin in (Union, UnionType):
        left = [part for part in arguments if part is not Tensor]
        if (
            float in left
        ):  # a list of rates has one for each group of weights, and there is one group
            left = [part for part in left if get_origin(part) is not list]
        return functools.reduce(operator.or_, [_type_in_recipes(part) for part in left])
    if origin is collections.abc.Iterable:
        return list[arguments]  # type: ignore[valid-type]
    if origin is None or origin is Literal:
        return annotation
    return origin[tuple(_type_in_recipes(part) for part in arguments)]
