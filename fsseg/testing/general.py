"""Checks of all kinds."""

import copy
import json
import random
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import safetensors.torch
import tomli_w
import torch
from torch import Tensor, nn

from fsseg.errors import FssegError, PluginError
from fsseg.interfaces import FittedThreshold
from fsseg.plugins.options import checks_options, schema, validate
from fsseg.plugins.registry import KINDS
from fsseg.recipe.components import own_keys_of
from fsseg.system.devices import is_accelerator, pick_device
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.exercises import (
    COMPUTING_KINDS,
    TENSOR_KINDS,
    converted,
    fit,
    inputs_of,
    numbers,
    same,
    use,
)


@check(*KINDS)
def check_constructor(subject: Subject) -> None:
    """Its constructor has annotated keyword-only arguments and takes the options; the class says what it is."""
    try:
        schema(subject.component)
    except PluginError as error:
        subject.fail(str(error))
    if not (subject.component.__doc__ or "").strip():
        subject.fail(
            "expected a docstring, got none; its first line is what `fsseg list` and recipes show"
        )
    subject.build()


@check(*KINDS)
def check_options_round_trip(subject: Subject) -> None:
    """Its options are the same after a way through TOML, and it can be built with them."""
    model = schema(subject.component)
    options = model(**validate(subject.component, subject.options)).model_dump(mode="json")
    written = {key: value for key, value in options.items() if value is not None}
    try:
        read = validate(subject.component, tomllib.loads(tomli_w.dumps(written)))
    except Exception as error:
        subject.fail(
            f"expected options that TOML can hold, got {written} ({type(error).__name__}: {error}); use numbers, "
            "strings, booleans, and lists or tables of these"
        )
    if read != validate(subject.component, written):
        subject.fail(
            f"expected the options {written}, got {read} from their TOML; give them types that TOML keeps"
        )
    subject.component(**read)


@check("augmentation", "loss")
def check_names_of_options(subject: Subject) -> None:
    """None of its options has the name of a key that a recipe's list has for all of its kind, such as a loss's weight."""
    taken = {"name", *own_keys_of(subject.kind)} & set(schema(subject.component).model_fields)
    if taken:
        subject.fail(
            f"expected options of other names than those of the list, got {sorted(taken)[0]!r}"
        )


@check(*KINDS)
def check_options_from_python(subject: Subject) -> None:
    """Built from Python it refuses an option that it does not have, and its `repr` shows those that it has."""
    if not checks_options(subject.component):
        raise NotApplicable("it does not check its options; write @fsseg.component above the class")
    try:
        subject.component(no_such_option=1)
    except FssegError:
        pass
    else:
        subject.fail("expected an FssegError for an option that it does not have, got an instance")
    shown = repr(subject.build())
    names = [subject.component.__name__, *schema(subject.component).model_fields]
    hidden = [name for name in names if name not in shown]
    if hidden:
        subject.fail(
            f"expected a repr with its class and options, got {shown!r} without {hidden[0]}; leave the repr to "
            "@fsseg.component"
        )


@check(*COMPUTING_KINDS)
def check_same_seed_same_output(subject: Subject) -> None:
    """Built twice with the same options, it makes the same of the same input, whatever the ambient random state."""
    outputs = []
    for seed in (1, 2):
        with _ambient(seed):
            inputs = inputs_of(subject.kind)
            outputs.append(use(subject, subject.build(), inputs))
    if not same(*outputs):
        subject.fail(
            "expected the same output from two instances with the same options, got two; draw from a generator that is "
            "seeded by an option, and initialise layers within torch.random.fork_rng"
        )


@check(*COMPUTING_KINDS)
def check_ambient_randomness_untouched(subject: Subject) -> None:
    """Neither building nor using it moves the random state of Python, NumPy or torch."""
    with _ambient(3):
        before = _ambient_state()
        use(subject, subject.build(), inputs_of(subject.kind))
        after = _ambient_state()
    moved = [name for name, state in after.items() if state != before[name]]
    if moved:
        subject.fail(
            f"expected the ambient random state untouched, got a move in {', '.join(moved)}; use a generator"
        )


@check(*TENSOR_KINDS, "loss", "supervoxels", "intensity", "augmentation", "metric")
def check_inputs_not_modified(subject: Subject) -> None:
    """It leaves its inputs as they were."""
    inputs = inputs_of(subject.kind)
    kept = copy.deepcopy(inputs)
    use(subject, subject.build(), inputs)
    if not same(inputs, kept):
        subject.fail(
            "expected its inputs unchanged, got changed ones; copy before you write (no in-place operations)"
        )


@check(*TENSOR_KINDS)
def check_float32_and_bfloat16(subject: Subject) -> None:
    """It works on float32 and on bfloat16 (a backbone under autocast), and gives finite numbers of the same shape."""
    inputs = inputs_of(subject.kind)
    full = use(subject, subject.build(), inputs)
    half = _in_bfloat16(subject, inputs)
    for name, result in (("float32", full), ("bfloat16", half)):
        if not all(np.isfinite(array).all() for array in numbers(result)):
            subject.fail(
                f"expected finite numbers, got some that are not in {name}; compute sums in float32"
            )
    shapes = [array.shape for array in numbers(full)]
    if shapes != [array.shape for array in numbers(half)]:
        subject.fail("expected the same shapes in float32 and bfloat16, got different ones")


def _in_bfloat16(subject: Subject, inputs: tuple[Any, ...]) -> Any:
    """The result of a component with tensors of bfloat16, of a backbone under autocast."""
    instance = subject.build()
    if subject.kind == "backbone":
        with torch.autocast("cpu", torch.bfloat16):
            return use(subject, instance, inputs)
    if isinstance(instance, nn.Module):
        instance.to(torch.bfloat16)
    return use(subject, instance, converted(inputs, _to_bfloat16))


@check(*TENSOR_KINDS, "loss", "augmentation")
def check_cpu_and_gpu_agree(subject: Subject) -> None:
    """On a GPU, where there is one, it gives what it gives on the CPU, to a thousandth."""
    device = pick_device("auto")
    if not is_accelerator(device):
        raise NotApplicable("there is no GPU here")
    inputs = inputs_of(subject.kind)
    on_cpu = subject.build()
    on_gpu = subject.build()
    if isinstance(on_gpu, nn.Module):
        on_gpu.to(device)
    if isinstance(on_gpu, FittedThreshold):
        fit(on_cpu)
        fit(on_gpu)
    moved = converted(inputs, lambda tensor: tensor.to(device))
    expected = use(subject, on_cpu, inputs)
    if not same(expected, use(subject, on_gpu, moved), 1e-3):
        subject.fail("expected the same on the CPU and on the GPU, got different numbers")


@check("backbone", "head", "segmenter", "prototypes", "loss", "threshold")
def check_state_without_pickle(subject: Subject) -> None:
    """What it learned passes through safetensors (a module) or JSON (a fitted policy), and a new instance that takes it
    gives the same."""
    instance = subject.build()
    restored: Any
    if isinstance(instance, nn.Module):
        restored = _through_safetensors(subject, instance)
    elif isinstance(instance, FittedThreshold):
        restored = _through_json(subject, instance)
    else:
        raise NotApplicable("it learns nothing")
    inputs = inputs_of(subject.kind)
    expected = use(subject, instance, inputs)
    if not same(expected, use(subject, restored, inputs), 1e-6):
        subject.fail(
            "expected the same output after its state was saved and loaded, got another; save all that it learns"
        )


def _through_safetensors(subject: Subject, module: nn.Module) -> nn.Module:
    """A new module with the state of this one, whose weights are moved before."""
    _refuse_loose_tensors(subject, module)
    _disturb(module)
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    restored = subject.build()
    restored.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)))
    return restored


def _through_json(subject: Subject, policy: FittedThreshold) -> FittedThreshold:
    """A new policy with the state of this one, which is fitted before."""
    fit(policy)
    try:
        state = json.loads(json.dumps(policy.state(), allow_nan=False))
    except (TypeError, ValueError) as error:
        subject.fail(
            f"expected state() to be plain numbers, strings and lists that JSON holds, got {error}"
        )
    restored = subject.build()
    restored.load_state(state)
    return restored


def _refuse_loose_tensors(subject: Subject, module: nn.Module) -> None:
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, Tensor):
                where = f"{name}.{key}".lstrip(".")
                subject.fail(
                    f"expected tensors to be parameters or buffers, got {where}, which is neither saved nor moved"
                )


def _disturb(module: nn.Module) -> None:
    """Moves weights a little, as training does, so that a new instance differs."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=generator))


def _to_bfloat16(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


@contextmanager
def _ambient(seed: int) -> Iterator[None]:
    """Ambient random states of this seed within the block, the caller's after it."""
    of_python = random.getstate()
    of_numpy = np.random.get_state()
    of_torch = torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)


def _ambient_state() -> dict[str, object]:
    of_numpy: Any = np.random.get_state()
    name, keys, *rest = of_numpy
    states: dict[str, object] = {
        "numpy.random": (name, keys.tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    # A type checker may draw from Python's own generator to look at a list's items; that is not the component's doing.
    if "beartype" not in sys.modules:
        states["random"] = random.getstate()
    return states
