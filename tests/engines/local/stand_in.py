"""A stand-in for an accelerator, which notes whenever the host has to wait for it.

An accelerator works through what it is told while the host goes on, until the host asks for
something that is not there yet. `Accelerator` computes on the CPU, with tensors that say that they
lie elsewhere, and takes note of all that makes the host wait:

- a copy to the host;
- a copy from the host that is not `non_blocking`, whatever memory it comes from;
- an operation whose numbers Python has to know, or their count: `item`, `nonzero`, a bool index;
- an index that lies on the host: it is copied first.
"""

from __future__ import annotations

import copy
import linecache
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

import baco_integrations
from baco_integrations import Decoder, ModelPair

PACKAGE = f"{Path(baco_integrations.__file__).parent}/"

DEVICE = torch.device("privateuseone", 0)
"""Where stand-ins say that they lie: the type that torch leaves to others."""

# Without hooks, neither torch nor transformers takes it for an accelerator to choose by itself.
torch._register_device_module(DEVICE.type, backend_registration._DummyBackendModule())
torch._C._acc.register_python_privateuseone_device_guard(backend_registration._DummyDeviceGuard())

ATEN = torch.ops.aten
AWAITED = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class StandIn(Tensor):
    """A tensor that says that it lies on `DEVICE`; its numbers are in `host`."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor) -> StandIn:
        layout = {"strides": host.stride(), "storage_offset": host.storage_offset()}
        tensor = Tensor._make_wrapper_subclass(
            cls, host.shape, **layout, dtype=host.dtype, device=DEVICE
        )
        tensor.host = host
        return tensor

    def tolist(self) -> Any:
        return self.cpu().tolist()  # torch's own refuses subclasses

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} came where this thread has entered no Accelerator")


class Accelerator(TorchDispatchMode):
    """While a thread has entered it, tensors can be on `DEVICE`, and what that costs is noted.

    Attributes:
        waits: Of each time that the host waited, the line of the package that made it wait.
        uploads: Copies from the host, whether it waited or not.
        kernels: Operations on the accelerator, all but views.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.uploads, self.kernels = list[str](), 0, 0

    def __enter__(self) -> Accelerator:
        # From now on, torch.tensor(..., device=...) shows its copy in this thread.
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # There is nothing to pin memory with.
        kwargs = {name: each for name, each in (kwargs or {}).items() if name != "pin_memory"}
        if func.overloadpacket in (ATEN.pin_memory, ATEN._pin_memory):
            return args[0]
        leaves = list[Any]()
        mapped(leaves.append, [*args, *kwargs.values()])
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        here = any(isinstance(tensor, StandIn) for tensor in tensors)
        if not here and DEVICE not in [leaf for leaf in leaves if isinstance(leaf, torch.device)]:
            return func(*args, **kwargs)
        if func is not ATEN.scaled_dot_product_attention.default and func._can_decompose():
            with self:  # there may be waits in it
                return func.decompose(*args, **kwargs)
        target = args[0].device if func is ATEN.copy_.default else kwargs.get("device")
        there = target == DEVICE if target else here
        self.note(func, args, kwargs, tensors, there)
        known = {id(on_host(tensor)): tensor for tensor in tensors}  # what works in place
        options = {name: on_host(each) for name, each in kwargs.items()}
        result = func(*mapped(on_host, args), **options)

        def placed(part: Any) -> Any:
            new = there and isinstance(part, Tensor) and id(part) not in known
            return StandIn(part) if new else known.get(id(part), part)

        return mapped(placed, result)

    def note(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor], there: bool) -> None:
        """Take note of an operation whose result is on the accelerator, or on the host."""
        self.kernels += not func.is_view
        waits = bool(AWAITED & {*func.tags})
        if func.overloadpacket in (ATEN._to_copy, ATEN.copy_):
            source = args[func is ATEN.copy_.default]
            upload = there and source.device != DEVICE
            self.uploads += upload
            waits = not there or (upload and not (kwargs.get("non_blocking") or True in args[2:]))
        elif func.overloadpacket in (ATEN.index, ATEN.index_put, ATEN.index_put_):
            indices = [index for index in args[1] if index is not None]
            masks = (torch.bool, torch.uint8)
            waits = any(index.dtype in masks or index.device != DEVICE for index in indices)
        elif any(tensor.dim() and tensor.device != DEVICE for tensor in tensors):
            raise RuntimeError(f"{func} got tensors of the host and of the accelerator")
        if waits:
            self.waits.append(f"{place()} ({func})")


def mapped(change: Callable[[Any], Any], part: Any) -> Any:
    """Change what is in lists and tuples."""
    if isinstance(part, list | tuple):
        return type(part)([mapped(change, each) for each in part])
    return change(part)


def on_host(part: Any) -> Any:
    """Return an argument as the CPU takes it."""
    if isinstance(part, torch.device):
        return torch.device("cpu")
    return part.host if isinstance(part, StandIn) else part


def place() -> str:
    """Return the line of the package that runs now."""
    for frame, line in traceback.walk_stack(sys._getframe()):
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            return f"{file.removeprefix(PACKAGE)}:{line} {linecache.getline(file, line).strip()}"
    return "elsewhere"


def decoder_on_device(pair: ModelPair, **settings: Any) -> tuple[Decoder, list[Accelerator]]:
    """Open a decoder of a pair's models on `DEVICE`.

    Returns:
        The decoder, and a list for what each iteration costs that reads nothing of a prompt.
    """
    iterations: list[Accelerator] = []
    with Accelerator():
        models: Any = [copy.deepcopy(model).to(DEVICE) for model in (pair.base, pair.aligned)]
        moved = ModelPair(*models, pair.base_tokenizer, pair.aligned_tokenizer)
        decoder = Decoder(moved, graphs="off", prefix_bytes=0, **settings)
    engine: Any = decoder.engine
    iterate, metrics = engine.iterate, engine.metrics

    def watched() -> None:
        before = metrics.iterations + 1, metrics.admitted, metrics.prefilled
        with Accelerator() as accelerator:  # which holds for one thread: the worker's
            iterate()
        if (metrics.iterations, metrics.admitted, metrics.prefilled) == before:
            iterations.append(accelerator)

    engine.iterate = watched
    return decoder, iterations
