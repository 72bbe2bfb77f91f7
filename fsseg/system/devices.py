"""Which device computes, and what is particular about it. The only module that names a kind of accelerator."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fsseg.errors import FssegError

PLAIN_RUNS = 3
"""Runs of a function before it is recorded: libraries choose algorithms in them, and optimisers make their state."""

MOST_TRAININGS = 8
"""Trainings at a time at most on a GPU."""

ROOM_FOR_TRAINING = 8 * 2**30
"""Bytes to allow for each of them: generous for a ResNet-101 and two slices."""

HOST_MEMORY = 5 * 2**25
"""Bytes that one pass of a network may take on a CPU: four slices of 256 x 256 in the paper's network. Fewer are slower, more
hardly faster."""

USUAL_THREADS = 128
"""Threads that any machine may be asked for, so that the digits of a larger one can be had."""

MOST_FOR_EACH = 4
"""Threads for each processor at most, where that is more."""

SHARE_FOR_DATA = 0.5
"""Of a device's free memory, the share that scans may take."""


def pick_device(name: str) -> torch.device:
    """Returns the device for "auto", "cpu" or "cuda".

    Raises FssegError for another name, or an accelerator that is not there.
    """
    if name not in {"auto", "cpu", "cuda"}:
        raise FssegError(f"device: got {name!r}, expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise FssegError(
            "device: cuda was asked for, but torch finds no GPU; use auto or cpu, or install a matching driver"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def threads_for(asked: int | Literal["auto"]) -> int:
    """Returns the threads that a CPU computes with, where a recipe may leave it open.

    Raises:
        FssegError: They are more than this machine can be asked for, which would end the process.
    """
    if asked == "auto":
        return torch.get_num_threads()
    processors = os.cpu_count() or 1
    most = max(USUAL_THREADS, MOST_FOR_EACH * processors)
    if asked > most:
        raise FssegError(
            f"speed.threads: is {asked}, expected at most {most} on this machine of {processors} processors; "
            'lower it, or leave it at "auto"'
        )
    return asked


@contextmanager
def computing(device: torch.device, threads: int, deterministic: bool) -> Iterator[None]:
    """Sets how many threads a CPU computes with in this block, and whether operations must give the same digits each time.

    Raises:
        FssegError: The device's memory is full, or it cannot do an operation with fixed digits.
    """
    with _settings_kept():
        torch.set_num_threads(threads)
        if deterministic:
            # Without it matrix products refuse.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            # Not use_deterministic_algorithms, which loads a compiler for seconds.
            torch.set_deterministic_debug_mode("error")
            torch.backends.cudnn.deterministic = True
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise FssegError(
                f"{name_device(device)}: its memory is full ({_first_line(error)}); expected room for the network and "
                "its slices: lower speed.together or grid.max_size, take a smaller backbone, or stop what else is on the "
                "device. The same command goes on from what was saved"
            ) from None
        except RuntimeError as error:
            if "deterministic" not in str(error) or not deterministic:
                raise
            raise FssegError(
                f'speed.determinism: is "deterministic", but a component needs what the device cannot do so '
                f'({_first_line(error)}); take another component, or set it to "fast"'
            ) from None


@contextmanager
def _settings_kept() -> Iterator[None]:
    threads = torch.get_num_threads()
    debug_mode = torch.get_deterministic_debug_mode()
    deterministic = torch.backends.cudnn.deterministic
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(debug_mode)
        torch.backends.cudnn.deterministic = deterministic


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def describe_device(device: torch.device) -> dict[str, Any]:
    """Returns what digits may depend on in the device, for the record."""
    about: dict[str, Any] = {"name": name_device(device)}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        about["capability"] = f"{major}.{minor}"
        about["cuda"] = torch.version.cuda
        about["cudnn"] = torch.backends.cudnn.version()
        about["driver"] = _driver()
    return about


def _driver() -> str | None:
    """The version of the graphics driver, where it tells."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return None


def send(values: Tensor, device: torch.device) -> Tensor:
    """Returns the same values on a device, without waiting for it; themselves where they are there already."""
    if device.type == "cuda" and values.device.type == "cpu":
        # Of memory that is not pinned the copy would wait for the device.
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def is_accelerator(device: torch.device) -> bool:
    """Returns whether the host hands work over to the device and should not wait for it."""
    return device.type != "cpu"


def has_room(size: int, device: torch.device) -> bool:
    """Returns whether data of so many bytes should lie on the device; those of the CPU stay where they are."""
    return device.type == "cuda" and size < SHARE_FOR_DATA * _free_memory(device)


def working_memory(device: torch.device) -> int:
    """Returns the bytes that one pass of a network may take."""
    return HOST_MEMORY if device.type == "cpu" else _free_memory(device) // 4


def _free_memory(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free


def gains_from_bfloat16(device: torch.device, network: nn.Module) -> bool:
    """Returns whether the network's arithmetic is faster in bfloat16 there.

    On a CPU it needs instructions of its own, and dense convolutions: those of single channels become slower.
    """
    if device.type == "cuda":
        return has_bfloat16(device)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    return has_bfloat16(device) and all(layer.groups == 1 for layer in convolutions)


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def trainings_at_once(device: torch.device) -> int:
    """Returns how many trainings to do at a time there."""
    if device.type != "cuda":
        return 1  # the network keeps all cores busy already
    return _trainings_in(_free_memory(device))


def _trainings_in(memory: int) -> int:
    return max(1, min(MOST_TRAININGS, memory // ROOM_FOR_TRAINING))


def places_for_trainings(name: str) -> list[dict[str, str]]:
    """Returns, for each training that the accelerators of this machine have room for, the environment of its process.

    The accelerators take turns. There is one empty environment on a machine without, or where a CPU was asked for. The
    driver's tool is asked, since asking torch would take memory on every device.
    """
    free_memory = {} if name == "cpu" else _free_memory_by_index()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    indices = list(free_memory) if visible is None else visible.split(",")
    rooms = {index: _trainings_in(free_memory[index]) for index in indices if index in free_memory}
    places: list[dict[str, str]] = []
    for turn in range(MOST_TRAININGS):
        for index, room in rooms.items():
            if turn < room:
                places.append({"CUDA_VISIBLE_DEVICES": index})
    return places or [{}]


def _free_memory_by_index() -> dict[str, int]:
    """Free bytes by the driver's number of an accelerator; empty where no driver answers."""
    question = ["nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            question, capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = re.findall(r"^(\d+), (\d+)$", answer, re.MULTILINE)
    return {index: int(mebibytes) * 2**20 for index, mebibytes in lines}


def new_stream(device: torch.device) -> Any:
    """Returns a queue of work that goes on from what the device has been given so far; None on a CPU."""
    if device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


def on_stream(stream: Any) -> AbstractContextManager:
    """Puts the work of this block into the queue; nothing changes for None."""
    return nullcontext() if stream is None else torch.cuda.stream(stream)


def join_stream(stream: Any) -> None:
    """Lets what follows come after the queue's work."""
    if stream is not None:
        torch.cuda.current_stream(stream.device).wait_stream(stream)


def finish_work(device: torch.device) -> None:
    """Waits until the device has done all that it was given; for clocks."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_state(device: torch.device) -> Tensor | None:
    """Returns the state of the device's own generator; None for a CPU, which has torch's."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(state: Tensor | None, device: torch.device) -> None:
    """Puts the state of the device's own generator back, where it has one."""
    if state is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state, device)


def name_device(device: torch.device) -> str:
    """Returns what people call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return "CPU, 1 thread" if threads == 1 else f"CPU, {threads} threads"


def wait_free(device: torch.device) -> AbstractContextManager:
    """Lets whatever makes the host wait for the device raise RuntimeError in this block. For tests."""
    return _NoWaiting() if device.type == "cuda" else nullcontext()


class Recorded:
    """A function that works on the same tensors each time: plain at first, then recorded and replayed.

    A step of training is hundreds of small operations, and a GPU is done with them faster than the host can ask for
    them; as a recording the host asks once. A function that cannot be recorded, because a part of it waits for the
    device, runs plain.

    Attributes:
        problem: Why the function could not be recorded; None if it was, or has not been tried.
    """

    def __init__(
        self,
        function: Callable[[], None],
        device: torch.device,
        record: Callable[[Callable[[], None]], Callable[[], None]] | None = None,
    ) -> None:
        """Takes a function that works on the same tensors each time.

        Args:
            function: The function.
            device: Where it works.
            record: Makes a function that replays; the device's own when omitted.
        """
        self.problem: str | None = None
        self._function = function
        self._run = function
        self._plain_left = PLAIN_RUNS
        self._record = record or (_record_graph if device.type == "cuda" else None)

    def __call__(self, objection: str | None = None) -> None:
        """Runs the function.

        Args:
            objection: Why it cannot be recorded, if that is known; from then on it runs plain.
        """
        if self._record is not None and self.problem is None:
            if objection is not None:
                self.problem = objection
                self._run = self._function
            elif self._plain_left == 0:
                self._try_to_record(self._record)
        self._plain_left -= 1
        self._run()

    def _try_to_record(self, record: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        try:
            self._run = record(self._function)
        except RuntimeError as error:
            self.problem = _first_line(error)


def _record_graph(function: Callable[[], None]) -> Callable[[], None]:
    """Recording does not run the function; its replay does."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        function()
    return graph.replay


class _NoWaiting:
    def __enter__(self) -> None:
        torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")
