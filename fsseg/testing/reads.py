"""Operations for which the host would have to wait for a device, which recorded steps may not have."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class HostReads(TorchDispatchMode):
    """Counts the operations for which the host would have to wait for a device.

    Attributes:
        seen: Their names.
    """

    waiting = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "is_nonzero",
        "unique",
        "index.Tensor",
    )

    def __init__(self) -> None:
        """Has seen nothing yet."""
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Notes an operation, and does it."""
        if any(name in str(function) for name in self.waiting):
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))
