"""A model with a low-rank adapter that is switched on for some rows of a batch and off for others.

One reading of the weights so gives the logits of both. Modules of the model are replaced by ones
that switch; for a row without the adapter they return exactly what the replaced module returns.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

ALL_ROWS = slice(None)


class LowRank(NamedTuple):
    """What the adapter adds to a linear layer or an embedding.

    Attributes:
        down: ``(rank, in)``; of an embedding ``(rank, ids)``.
        up: ``(out, rank)``, with the adapter's scale.
        bias: ``(out,)``, what it adds to the bias.
    """

    down: Tensor
    up: Tensor
    bias: Tensor | None = None


Own = dict[str, Tensor]
"""Parameters by name that replace those of a module while the adapter is on."""


class Switch(threading.local):
    """Which rows of the running forward have the adapter on, and which off; None is none.

    Each thread has its own values, so that several may run the model at once.
    """

    on: slice | None = None
    off: slice | None = ALL_ROWS

    @contextmanager
    def set(self, on: slice | None, off: slice | None) -> Iterator[None]:
        """Set the rows for the time of a ``with`` block."""
        before = self.on, self.off
        self.on, self.off = on, off
        try:
            yield
        finally:
            self.on, self.off = before


class SwitchedModule(nn.Module):
    """Takes the place of a module of the model, and has all of its attributes."""

    plain: nn.Module

    def __init__(self, plain: nn.Module, switch: Switch) -> None:
        super().__init__()
        self.plain = plain
        self.switch = switch

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("plain"), name)


class SwitchedLinear(SwitchedModule):
    """A linear layer, to whose output a low-rank product is added where the adapter is on."""

    def __init__(self, plain: nn.Module, switch: Switch, change: LowRank) -> None:
        super().__init__(plain, switch)
        self.down, self.up = constant(change.down), constant(change.up)
        self.bias_change = None if change.bias is None else constant(change.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer, ``(..., in)`` to ``(..., out)``."""
        y: Tensor = self.plain(x)
        if (on := self.switch.on) is not None:
            rows = x[on]
            change = linear(linear(rows.flatten(0, -2), self.down), self.up, self.bias_change)
            y[on].add_(change.view(*rows.shape[:-1], -1))
        return y


class SwitchedEmbedding(SwitchedModule):
    """An embedding, to whose output a low-rank one is added where the adapter is on."""

    def __init__(self, plain: nn.Embedding, switch: Switch, change: LowRank) -> None:
        super().__init__(plain, switch)
        # Some families scale what they look up.
        scale = getattr(plain, "embed_scale", torch.ones(()))
        self.down = constant(change.down.T)
        self.up = constant(change.up * scale.to(change.up))

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ids, ``(...)`` to ``(..., out)``."""
        y: Tensor = self.plain(ids)
        if (on := self.switch.on) is not None:
            y[on].add_(linear(embedding(ids[on], self.down), self.up))
        return y


class ReplacedModule(SwitchedModule):
    """A module that has other parameters where the adapter is on."""

    def __init__(self, plain: nn.Module, switch: Switch, own: Own) -> None:
        super().__init__(plain, switch)
        self.own = copy.copy(plain)
        self.own._parameters = {**plain._parameters}
        self.own._parameters.update({name: constant(value) for name, value in own.items()})

    def forward(self, x: Tensor) -> Tensor:
        """Apply the module, with other parameters to the rows that have the adapter on."""
        on, off = self.switch.on, self.switch.off
        if on is None or off is None:
            y: Tensor = self.plain(x) if on is None else self.own(x)
            return y
        first = self.plain(x[off])
        y = first.new_empty((x.shape[0], *first.shape[1:]))
        y[off], y[on] = first, self.own(x[on])
        return y


def constant(value: Tensor) -> nn.Parameter:
    """Return a tensor as a parameter that is not trained."""
    return nn.Parameter(value, requires_grad=False)


class SwitchableLora:
    """A model with an adapter that can be switched by row; both share all other weights.

    Args:
        model: A Hugging Face causal language model; its modules are replaced in place.
        changes: What the adapter changes, by the names of linear layers, embeddings and (only
            replaced) other modules. Tensors have the model's dtype and device.

    Attributes:
        model: The model; outside of `switch.set` the adapter is off.
        switch: Says which rows have the adapter on.
    """

    def __init__(self, model: Any, changes: Mapping[str, LowRank | Own]) -> None:
        self.model, self.switch = model, Switch()
        for name, change in changes.items():
            parent, _, child = name.rpartition(".")
            plain = model.get_submodule(name)
            switched: nn.Module
            if isinstance(change, dict):
                switched = ReplacedModule(plain, self.switch, change)
            elif isinstance(plain, nn.Embedding):
                switched = SwitchedEmbedding(plain, self.switch, change)
            else:
                switched = SwitchedLinear(plain, self.switch, change)
            setattr(model.get_submodule(parent), child, switched)


class SwitchedModel:
    """A `SwitchableLora` with its adapter on, or off, for all rows; used like a model.

    Args:
        lora: The model and its adapter.
        adapted: Whether the adapter is on.
        generation_config: Generation settings; left out, those of the model.
    """

    def __init__(self, lora: SwitchableLora, adapted: bool, generation_config: Any = None) -> None:
        self.lora, self.adapted = lora, adapted
        self.generation_config = generation_config or lora.model.generation_config
        self.config = lora.model.config
        if generation_config is not None:  # its end tokens, and not the other side's
            self.config = copy.copy(self.config)
            self.config.eos_token_id = generation_config.eos_token_id

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a forward, as the model does."""
        with self.switched():
            return self.lora.model(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate, as the model does, with this side's generation settings."""
        with self.switched():
            settings = {"generation_config": self.generation_config} | kwargs
            return self.lora.model.generate(*args, **settings)

    def switched(self) -> AbstractContextManager[None]:
        """Switch the adapter on, or off, for the time of a ``with`` block in this thread."""
        on, off = (ALL_ROWS, None) if self.adapted else (None, ALL_ROWS)
        return self.lora.switch.set(on, off)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lora.model, name)
