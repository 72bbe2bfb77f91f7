"""Checks of all kinds."""

import json
import random
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import safetensors.torch
import tomli_w
import torch
from torch import Tensor, nn

from fsseg.errors import FssegError, PluginError
from fsseg.interfaces import FittedThreshold
from fsseg.plugins.options import checks_options, schema, validate
from fsseg.plugins.registry import KINDS
from fsseg.system.devices import is_accelerator, pick_device
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.exercises import (
    COMPUTING_KINDS,
    TENSOR_KINDS,
    converted,
    copied,
    fit,
    inputs_of,
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
    options = schema(subject.component)(**validate(subject.component, subject.options)).model_dump(
        mode="json"
    )
    told = {key: value for key, value in options.items() if value is not None}
    try:
        back = validate(subject.component, tomllib.loads(tomli_w.dumps(told)))
    except Exception as error:
        subject.fail(
            f"expected options that TOML can hold, got {told} ({type(error).__name__}: {error}); use numbers, strings, "
            "booleans, and lists or tables of these"
        )
    if back != {key: value for key, value in validate(subject.component, told).items()}:
        subject.fail(
            f"expected the options {told}, got {back} from their TOML; give them types that TOML keeps"
        )
    subject.component(**back)


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
            outputs.append(use(subject, subject.build(), inputs_of(subject.kind)))
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
        moved = [name for name, state in _ambient_state().items() if state != before[name]]
    if moved:
        subject.fail(
            f"expected the ambient random state untouched, got a move in {', '.join(moved)}; use a generator"
        )


@check(*TENSOR_KINDS, "supervoxels", "metric")
def check_inputs_not_modified(subject: Subject) -> None:
    """It leaves its inputs as they were."""
    inputs = inputs_of(subject.kind)
    kept = copied(inputs)
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
    if subject.kind == "backbone":
        with torch.autocast("cpu", torch.bfloat16):
            half = use(subject, subject.build(), inputs)
    else:
        instance = subject.build()
        if isinstance(instance, nn.Module):
            instance.to(torch.bfloat16)
        half = use(subject, instance, converted(inputs, _to_bfloat16))
    for name, result in (("float32", full), ("bfloat16", half)):
        if not _all_finite(result):
            subject.fail(
                f"expected finite numbers, got some that are not in {name}; compute sums in float32"
            )
    if not same(
        converted(full, torch.zeros_like),
        converted(half, lambda tensor: torch.zeros_like(tensor).float()),
    ):
        subject.fail("expected the same shapes in float32 and bfloat16, got different ones")


@check(*TENSOR_KINDS)
def check_cpu_and_gpu_agree(subject: Subject) -> None:
    """On a GPU, where there is one, it gives what it gives on the CPU, to a thousandth."""
    device = pick_device("auto")
    if not is_accelerator(device):
        raise NotApplicable("there is no GPU here")
    inputs = inputs_of(subject.kind)
    here, there = subject.build(), subject.build()
    if isinstance(there, nn.Module):
        there.to(device)
    if isinstance(there, FittedThreshold):
        fit(here)
        fit(there)
    expected = use(subject, here, inputs)
    got = use(subject, there, converted(inputs, lambda tensor: tensor.to(device)))
    if not same(expected, got, 1e-3):
        subject.fail("expected the same on the CPU and on the GPU, got different numbers")


@check("backbone", "head", "prototypes", "threshold")
def check_state_without_pickle(subject: Subject) -> None:
    """What it learned passes through safetensors (a module) or JSON (a fitted policy), and a new instance that takes it
    gives the same."""
    instance, inputs = subject.build(), inputs_of(subject.kind)
    if isinstance(instance, nn.Module):
        _refuse_loose_tensors(subject, instance)
        _disturb(instance)
        state = safetensors.torch.load(
            safetensors.torch.save(
                {name: value.contiguous() for name, value in instance.state_dict().items()}
            )
        )
        restored = subject.build()
        restored.load_state_dict(state)
    elif isinstance(instance, FittedThreshold):
        fit(instance)
        try:
            state = json.loads(json.dumps(instance.state(), allow_nan=False))
        except (TypeError, ValueError) as error:
            subject.fail(
                f"expected state() to be plain numbers, strings and lists that JSON holds, got {error}"
            )
        restored = subject.build()
        restored.load_state(state)
    else:
        raise NotApplicable("it learns nothing")
    if not same(use(subject, instance, inputs), use(subject, restored, inputs), 1e-6):
        subject.fail(
            "expected the same output after its state was saved and loaded, got another; save all that it learns"
        )


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


def _all_finite(value: object) -> bool:
    found = []
    converted(value, lambda tensor: found.append(bool(tensor.isfinite().all())) or tensor)
    return all(found)


@contextmanager
def _ambient(seed: int) -> Iterator[None]:
    """Ambient random states of this seed within the block, the caller's after it."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.random.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])


def _ambient_state() -> dict[str, object]:
    numpy_state = np.random.get_state()
    # A type checker may draw from Python's own generator to look at a list's items; that is not the component's doing.
    watched = {} if "beartype" in sys.modules else {"random": random.getstate()}
    return watched | {
        "numpy.random": (numpy_state[1].tobytes(), *numpy_state[2:]),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
