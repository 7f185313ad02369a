"""Forwards of few shapes, recorded once as CUDA graphs and replayed from then on.

Launching a forward's kernels one by one takes longer than running them for few rows. A graph is
launched as a whole, but only for the shapes and addresses that it was recorded with: whatever
varies from one forward to the next must come in one tensor of integers, and what a graph writes to
must not move while the graph is kept.

A graph runs the very kernels that the model runs without it, and any code that does not wait for
the device can be recorded, so no model needs to be rewritten or compiled for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...core.threads import fork_safe
from ..faults import out_of_memory

Shape = tuple[int, torch.Size, int]
"""Whose forward it is, the shape of its integers, and how many columns of tokens are among them."""

_LOG = logging.getLogger(__name__)
_RECORDING = fork_safe(threading.Lock())
"""CUDA allows a process one recording at a time."""


def padded(size: int, most: int) -> int:
    """Return the next power of two, or `most` if that is less and large enough."""
    return max(size, min(1 << (size - 1).bit_length(), most))


class Graphs:
    """A model's forwards by shape, and their recordings.

    The first forward of a shape is an ordinary one, which loads its kernels. The second is
    recorded: so none waits for more than one recording, and rare shapes take no memory.

    Args:
        device: Where the model is.

    Attributes:
        shapes: The shapes that were seen since everything was last dropped, and their inputs.
        replays: The recordings by shape; None where a shape could not be recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self.shapes: dict[Shape, Tensor] = {}
        self._device = device
        self.replays: dict[Shape, Callable[[], Tensor] | None] = {}
        self._refused = False
        self._stream: Any = None  # of all recordings, as is the memory that they share
        self._pool: Any = None

    def __call__(
        self, run: Callable[[Tensor, int], Tensor], values: Tensor, width: int, owner: int = 0
    ) -> Tensor:
        """Return a forward's output, which holds until the next one.

        Args:
            run: The forward. What it does depends on nothing but the shape and the content of its
                first argument, and on the other one.
            values: The first argument; it is brought to the device.
            width: The other one, how many columns of tokens there are.
            owner: Whose forward it is: the same shape may be another forward for someone else.

        Raises:
            torch.OutOfMemoryError: There is no memory for it, or for recording it.
        """
        shape = (owner, values.shape, width)
        inputs = self.shapes.get(shape)
        if inputs is None:
            self.shapes[shape] = inputs = values.to(self._device)
            return run(inputs, width)
        inputs.copy_(values)
        if shape not in self.replays:
            self.replays[shape] = self._recorded(partial(run, inputs, width))
        replay = self.replays[shape]
        return replay() if replay else run(inputs, width)

    def clear(self) -> None:
        """Drop all recordings and their memory, as what they write to is about to move."""
        self.shapes.clear()
        self.replays.clear()
        self._pool = None  # one that was emptied cannot be filled again

    def _recorded(self, run: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
        """Return what replays a call, None if it cannot be recorded."""
        if self._refused:
            return None
        try:
            return self._record(run)
        except Exception as error:  # of the driver, or of whatever code the model brings
            if memory := _shortage(error):
                raise memory from None
            self._refused = True
            _LOG.warning(
                "A model's forward cannot be recorded as a CUDA graph and goes on without, which "
                "is slower for few rows: %s: %s",
                type(error).__name__,
                str(error).partition("\n")[0],
            )
            return None

    def _record(self, run: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
        if self._device.type != "cuda":
            return None
        graph = torch.cuda.CUDAGraph()
        with _RECORDING, torch.cuda.device(self._device):
            self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            recording = torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                capture_error_mode="thread_local",  # others may use the device meanwhile
            )
            # A recording that fails leaves its stream in place; the outer block does not.
            with torch.cuda.stream(self._stream), recording:
                output = run()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay


def _shortage(error: BaseException | None) -> BaseException | None:
    """Return the out-of-memory error that caused an error, None if there is none."""
    while error is not None and not out_of_memory(error):
        error = error.__cause__ or error.__context__
    if error is None or isinstance(error, torch.OutOfMemoryError | MemoryError):
        return error
    return torch.OutOfMemoryError(str(error))
