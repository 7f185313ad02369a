"""Two models in one: a plain model, and the same with a low-rank adapter on.

Each row of a forward is read with the adapter or without it, so one reading of the weights gives
the logits of both. What is switched lies in place of the plain model's modules; a row without the
adapter gets the plain module's output and nothing else.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from .cuda_graphs import Mode
from .products import product, suits
from .runner import ModelRunner, Saved

_ALL = slice(None)
_EVEN, _ODD = slice(0, None, 2), slice(1, None, 2)


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
"""Parameters that a module has of its own while the adapter is on."""


class Switch(threading.local):
    """Which rows of the running forward have the adapter on, and which off; None is none.

    Each thread has its own, as a model may be asked from several.
    """

    on: slice | None = None
    off: slice | None = _ALL

    @contextmanager
    def set(self, on: slice | None, off: slice | None) -> Iterator[None]:
        """Switch rows for a while."""
        before = self.on, self.off
        self.on, self.off = on, off
        try:
            yield
        finally:
            self.on, self.off = before


class _Switched(nn.Module):
    """Stands in a plain module's place, and has its attributes."""

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


class _Linear(_Switched):
    def __init__(self, plain: nn.Linear, switch: Switch, change: LowRank | None) -> None:
        super().__init__(plain, switch)
        self.plainly = suits(plain)
        self.change = change is not None
        if change is not None:
            self.down, self.up = _constant(change.down), _constant(change.up)
            self.more = None if change.bias is None else _constant(change.bias)

    def forward(self, x: Tensor) -> Tensor:
        layer: Any = self.plain
        y: Tensor = product(layer.weight, layer.bias, x) if self.plainly else layer(x)
        if self.change and (on := self.switch.on) is not None:
            chosen = x[on]
            change = linear(linear(chosen.flatten(0, -2), self.down), self.up, self.more)
            y[on].add_(change.view(*chosen.shape[:-1], -1))
        return y


class _Embedding(_Switched):
    def __init__(self, plain: nn.Embedding, switch: Switch, change: LowRank) -> None:
        super().__init__(plain, switch)
        # Some families scale what they look up.
        scale = getattr(plain, "embed_scale", torch.ones(()))
        self.down = _constant(change.down.T)
        self.up = _constant(change.up * scale.to(change.up))

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.plain(ids)
        if (on := self.switch.on) is not None:
            y[on].add_(linear(embedding(ids[on], self.down), self.up))
        return y


class _Replaced(_Switched):
    """Two modules, each for its own rows."""

    def __init__(self, plain: nn.Module, switch: Switch, own: Own) -> None:
        super().__init__(plain, switch)
        self.own = copy.copy(plain)
        self.own._parameters = plain._parameters | {
            name: _constant(value) for name, value in own.items()
        }

    def forward(self, x: Tensor) -> Tensor:
        on, off = self.switch.on, self.switch.off
        if on is None or off is None:
            y: Tensor = self.plain(x) if on is None else self.own(x)
            return y
        first = self.plain(x[off])
        y = first.new_empty((x.shape[0], *first.shape[1:]))
        y[off], y[on] = first, self.own(x[on])
        return y


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


class SwitchableLora:
    """A plain model and its adapted twin, sharing all weights but the adapter's.

    Args:
        model: A Hugging Face causal language model; its modules are replaced in place.
        changes: What the adapter changes, by the names of linear layers, embeddings and (only
            replaced) other modules. Tensors have the model's dtype and device.

    Attributes:
        model: The model; outside of `switched` it is the plain one.
        switch: Says which rows have the adapter on.
    """

    def __init__(self, model: Any, changes: Mapping[str, LowRank | Own]) -> None:
        self.model, self.switch = model, Switch()
        modules = dict(model.named_modules(remove_duplicate=False))
        for name, plain in modules.items():
            if name in changes or isinstance(plain, nn.Linear):
                parent, _, child = name.rpartition(".")
                switched = self._switched(plain, changes.get(name))
                setattr(model.get_submodule(parent), child, switched)

    def _switched(self, plain: Any, change: LowRank | Own | None) -> nn.Module:
        if isinstance(change, dict):
            return _Replaced(plain, self.switch, change)
        if isinstance(plain, nn.Embedding) and change is not None:
            return _Embedding(plain, self.switch, change)
        return _Linear(plain, self.switch, change)


class SwitchedModel:
    """One side of a twin, used like a model of its own.

    Args:
        twin: The twin.
        adapted: Whether this is the side with the adapter on.
        generation_config: This side's; the model's own if left out.
    """

    def __init__(self, twin: SwitchableLora, adapted: bool, generation_config: Any = None) -> None:
        self.twin, self.adapted = twin, adapted
        self.generation_config = generation_config or twin.model.generation_config
        self.config = twin.model.config
        if generation_config is not None:  # its end tokens, and not the other side's
            self.config = copy.copy(self.config)
            self.config.eos_token_id = generation_config.eos_token_id

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a forward, as the model does."""
        with self.switched():
            return self.twin.model(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate, as the model does."""
        with self.switched():
            return self.twin.model.generate(
                *args, **{"generation_config": self.generation_config} | kwargs
            )

    def switched(self) -> AbstractContextManager[None]:
        """Switch all rows to this side for a while."""
        on, off = (_ALL, None) if self.adapted else (None, _ALL)
        return self.twin.switch.set(on, off)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.twin.model, name)

    def eval(self) -> SwitchedModel:
        """Put the model in evaluation mode."""
        self.twin.model.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> SwitchedModel:
        """Switch the gradients of all weights."""
        self.twin.model.requires_grad_(requires_grad)
        return self


class SharedWeightsRunner(ModelRunner):
    """One side of a twin; both sides share one cache.

    The base row of a pair of rows has the cache's slot ``2 i`` and the aligned one ``2 i + 1``, so
    those of both sides lie together.

    Args:
        model: The side's model.
        aligned: Whether this is the aligned side.
        device: Where the logits are wanted.
        max_rows: Most rows of each side that will run at once.
        max_length: Most positions that a row will take.
        graphs: As for `ModelRunner`.
    """

    def __init__(
        self,
        model: SwitchedModel,
        aligned: bool,
        device: torch.device | str | None = None,
        *,
        max_rows: int,
        max_length: int,
        graphs: Mode = "off",
    ) -> None:
        super().__init__(
            model.twin.model,
            device,
            max_rows=2 * max_rows,
            max_length=max_length,
            graphs=graphs,
        )
        self._view, self._place = model, int(aligned)

    @classmethod
    def pair(
        cls, base: SwitchedModel, aligned: SwitchedModel, **settings: Any
    ) -> tuple[SharedWeightsRunner, SharedWeightsRunner]:
        """Return both sides, with one cache."""
        sides = cls(base, False, **settings), cls(aligned, True, **settings)
        sides[1].cache, sides[1].graphs = sides[0].cache, sides[0].graphs
        return sides

    @torch.inference_mode()
    def advance_both(
        self, tokens: Sequence[tuple[int, int]], positions: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Feed a token each to base and aligned of all rows, at (base, aligned) positions.

        It is the base side that is asked.

        Returns:
            The logits of base and of aligned, ``(r, v)`` each.
        """
        ids = torch.tensor(tokens).reshape(-1, 1)
        first = [position for both in positions for position in both]
        on, off = (_EVEN, _ODD) if self._view.adapted else (_ODD, _EVEN)
        with self._view.twin.switch.set(on, off):
            logits = self._logits(range(len(first)), ids, first)
        return logits[0::2, 0], logits[1::2, 0]

    def read(self, start: int, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> None:
        """Feed some tokens to each of the slots ``start ..``, from a position on."""
        with self._view.switched():
            super().read(start, tokens, positions)

    def advance(self, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> Tensor:
        """Feed ``q`` tokens to each of the slots ``0 ..``, from a position on."""
        with self._view.switched():
            return super().advance(tokens, positions)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let one slot have seen the first `length` tokens of another."""
        super().copy(self._slot(source), self._slot(target), length)

    def save(self, slot: int, length: int) -> Saved:
        """Keep what a slot has seen of its first `length` tokens."""
        return super().save(self._slot(slot), length)

    def load(self, saved: Saved, slot: int, length: int) -> None:
        """Let a slot have seen the first `length` of the tokens that were kept."""
        super().load(saved, self._slot(slot), length)

    def _slot(self, slot: int) -> int:
        return 2 * slot + self._place

    def _slots(self, start: int, count: int) -> range:
        return range(self._slot(start), self._slot(start + count), 2)
