"""Which device computes, and what is particular about it. The only module that names a kind of accelerator."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fsseg.errors import FssegError

PLAIN_RUNS = 3
"""Runs of a function before it is recorded: libraries choose algorithms in them, and optimisers make their state."""

MOST_TRAININGS, ROOM_FOR_TRAINING = 8, 8 * 2**30
"""Trainings at a time at most on a GPU, and bytes to allow for each: generous for a ResNet-101 and two slices."""

HOST_MEMORY = 5 * 2**25
"""Bytes that one pass of a network may take on a CPU: four slices of 256 x 256 in the paper's network. Fewer are slower, more
hardly faster."""

SHARE_FOR_DATA = 0.5
"""Of a device's free memory, the share that scans may take."""


def pick_device(name: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda"; raises FssegError for another name or an accelerator that is not there."""
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
    """The threads that a CPU computes with, where a recipe may leave it open."""
    return torch.get_num_threads() if asked == "auto" else asked


@contextmanager
def computing(device: torch.device, threads: int, deterministic: bool) -> Iterator[None]:
    """In this block a CPU computes with so many threads, and only with operations whose digits never change if asked.

    What the device cannot do there is told as FssegError: memory that is full, and operations without fixed digits.
    """
    before = (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.deterministic,
    )
    torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # without it matrix products refuse
        # Not use_deterministic_algorithms, which loads a compiler for seconds.
        torch.set_deterministic_debug_mode("error")
        torch.backends.cudnn.deterministic = True
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FssegError(
            f"{name_device(device)}: its memory is full ({str(error).splitlines()[0]}); expected room for the network and "
            "its slices: lower speed.together or grid.max_size, take a smaller backbone, or stop what else is on the "
            "device. The same command goes on from what was saved"
        ) from None
    except RuntimeError as error:
        if "deterministic" not in str(error) or not deterministic:
            raise
        raise FssegError(
            f'speed.determinism: is "deterministic", but a component needs what the device cannot do so '
            f'({str(error).splitlines()[0]}); take another component, or set it to "fast"'
        ) from None
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        torch.backends.cudnn.deterministic = before[2]


def describe_device(device: torch.device) -> dict[str, Any]:
    """What digits may depend on in the device, for the record."""
    found: dict[str, Any] = {"name": name_device(device)}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        found |= {
            "capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return found


def _driver() -> str | None:
    """The version of the graphics driver, where it tells."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return None


def send(values: Tensor, device: torch.device) -> Tensor:
    """The same values on a device, without waiting for it; themselves where they are there already."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(
            device, non_blocking=True
        )  # of other memory the copy would wait for the device
    return values.to(device)


def is_accelerator(device: torch.device) -> bool:
    """Whether the host hands work over to the device and should not wait for it."""
    return device.type != "cpu"


def has_room(size: int, device: torch.device) -> bool:
    """Whether data of so many bytes should lie on the device; those of the CPU stay where they are."""
    return device.type == "cuda" and size < SHARE_FOR_DATA * torch.cuda.mem_get_info(device)[0]


def working_memory(device: torch.device) -> int:
    """Bytes that one pass of a network may take."""
    return HOST_MEMORY if device.type == "cpu" else torch.cuda.mem_get_info(device)[0] // 4


def gains_from_bfloat16(device: torch.device, network: nn.Module) -> bool:
    """Whether the network's arithmetic is faster in bfloat16 there.

    On a CPU it needs instructions of its own, and dense convolutions: those of single channels become slower.
    """
    dense = all(layer.groups == 1 for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return has_bfloat16(device) and (dense or device.type == "cuda")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def trainings_at_once(device: torch.device) -> int:
    """How many trainings to do at a time there."""
    if device.type != "cuda":
        return 1  # the network keeps all cores busy already
    return max(1, min(MOST_TRAININGS, torch.cuda.mem_get_info(device)[0] // ROOM_FOR_TRAINING))


def places_for_trainings(name: str) -> list[dict[str, str]]:
    """For each training that the accelerators of this machine have room for, the environment of its process, in turns.

    One empty environment on a machine without, or where a CPU was asked for. The driver's tool is asked, since asking
    torch would take memory on every device.
    """
    if name == "cpu":
        return [{}]
    question = ["nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(
            question, capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return [{}]
    free = dict(line.split(", ") for line in told.splitlines() if line.count(", ") == 1)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = list(free) if seen is None else [index for index in seen.split(",") if index in free]
    rooms = {
        i: max(1, min(MOST_TRAININGS, int(free[i]) * 2**20 // ROOM_FOR_TRAINING)) for i in chosen
    }
    turns = range(max(rooms.values(), default=0))
    return [{"CUDA_VISIBLE_DEVICES": i} for turn in turns for i in chosen if turn < rooms[i]] or [
        {}
    ]


def new_stream(device: torch.device) -> Any:
    """A queue of work of its own, which goes on from what the device has been given so far; None on a CPU."""
    if device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


def on_stream(stream: Any) -> AbstractContextManager:
    """Work in this block goes into the queue; nothing changes for None."""
    return nullcontext() if stream is None else torch.cuda.stream(stream)


def join_stream(stream: Any) -> None:
    """What follows comes after the queue's work."""
    if stream is not None:
        torch.cuda.current_stream(stream.device).wait_stream(stream)


def finish_work(device: torch.device) -> None:
    """Waits until the device has done all that it was given; for clocks."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_state(device: torch.device) -> Tensor | None:
    """The state of the device's own generator; None for a CPU, which has torch's."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(state: Tensor | None, device: torch.device) -> None:
    """Puts it back, where the device has one."""
    if state is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state, device)


def name_device(device: torch.device) -> str:
    """What people call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread" + "s" * (torch.get_num_threads() != 1)


def wait_free(device: torch.device) -> AbstractContextManager:
    """In this block, whatever makes the host wait for the device raises RuntimeError. For tests."""
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
        """`record` makes a function that replays; the device's own when omitted."""
        self._run, self._plain_left, self.problem = function, PLAIN_RUNS, None
        self._record = record or (_record_graph if device.type == "cuda" else None)

    def __call__(self) -> None:
        if self._record is not None and self._plain_left == 0:
            record, self._record = self._record, None
            try:
                self._run = record(self._run)
            except RuntimeError as error:
                self.problem = str(error).splitlines()[0]
        self._plain_left -= 1
        self._run()


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
