"""Runners: a model with the rows it is decoding, which reads tokens and gives logits.

A runner never decides anything; it turns what a row has seen into the logits of what comes next.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ...core.errors import OutOfMemoryError, ParameterError
from ...models.memory import free_bytes, readable
from ...models.products import use_fast_products
from ...models.sizing import USABLE
from ...policy.transfer import upload
from ..base import EngineSettings
from ..base import Graphs as GraphMode
from .cuda_graphs import Graphs, padded
from .kv_cache import KVCache, page_bytes_of
from .paged_attention import PAGE, Group, groups_of, use_paged_attention

VIEW = 256
"""Fewest positions that a forward of fixed shape sees."""


Rows = Sequence[list[int]]
"""What is known of rows; only their runner knows what that is."""

Tokens = Sequence[Sequence[int]]
"""What each of some rows reads."""


class Runner(Protocol):
    """What the engine asks of one model.

    Attributes:
        page: How many tokens an item of a row stands for.
        page_bytes: Bytes of such an item.
        most_pages: Most items of all rows together.
    """

    page: int
    page_bytes: int
    most_pages: int

    def prefill(self, rows: Rows, tokens: Tokens, positions: Sequence[int]) -> Tensor:
        """Read some tokens in each of some rows, from a position on.

        Returns:
            The logits behind each row's last token, ``(r, v)``.
        """

    def forward(
        self,
        rows: Rows,
        tokens: Tokens,
        positions: Sequence[int],
        drafted: Sequence[Tensor] = (),
    ) -> Tensor:
        """Read ``q`` tokens in each of some rows, from a position on.

        Args:
            rows: The rows.
            tokens: The first tokens that each reads.
            positions: Where each begins to read.
            drafted: Those that it reads then, ``(r,)`` each, which the host need not know.

        Returns:
            The logits behind each token, ``(r, q, v)``.
        """

    def share(self, row: list[int], length: int) -> list[int]:
        """Return a row that begins with the first `length` tokens of another one."""

    def release(self, row: list[int]) -> None:
        """Let go of a row."""

    def reset(self) -> None:
        """Let go of all rows, and free their memory."""


class ForwardBoth(Protocol):
    """A forward that gives the logits of both models at once."""

    def __call__(
        self,
        rows: Sequence[Sequence[list[int]]],
        tokens: Sequence[tuple[int, int]],
        positions: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """Read a token each in base and aligned of all rows, at (base, aligned) positions.

        Returns:
            The logits of base and of aligned, ``(r, v)`` each.
        """


class PairRunner(NamedTuple):
    """The two models of a pair.

    Attributes:
        base: Base's runner.
        aligned: Aligned's runner.
        device: Where the logits meet.
        forward_both: Both models' forward, where one forward gives the logits of both.
        dtype: What the logits are compared in: their own type, but at least float32.
    """

    base: Runner
    aligned: Runner
    device: torch.device | str = "cpu"
    forward_both: ForwardBoth | None = None
    dtype: torch.dtype = torch.float64


class ModelRunner:
    """A Hugging Face causal language model with the keys and values of its rows.

    Args:
        model: Any decoder-only model whose attention takes a 4-D mask (``sdpa`` or ``eager``).
        device: Where the logits are wanted; the model's own device if left out.
        max_rows: Most rows that will run at once.
        max_length: Most positions that a row will take.
        most_pages: Most pages of keys and values to hold.
        graphs: Whether `forward` keeps to few shapes and replays them as CUDA graphs: ``auto`` on a
            CUDA device, ``on`` everywhere, ``off`` nowhere.

    Attributes:
        fixed: Whether it does.
        cache: The keys and values of all rows.

    Raises:
        ParameterError: `graphs` is ``on`` for a model that is spread over several devices.
    """

    page = PAGE

    def __init__(
        self,
        model: Any,
        device: torch.device | str | None = None,
        *,
        max_rows: int = 32,
        max_length: int = 8192,
        most_pages: int = 2**31,
        graphs: GraphMode = "off",
    ) -> None:
        config = model.config.get_text_config()
        use_fast_products(model)
        self.model = model
        self.device = torch.device(device) if device is not None else model.device
        self.graphs = Graphs(model.device)
        self.fixed = has_fixed_shapes(model, graphs)
        self.limits = max_rows, max_length
        paged = use_paged_attention(model)
        self.cache = KVCache(
            config.num_hidden_layers,
            page_bytes_of(model),
            most_pages,
            self.graphs.clear if self.fixed else None,
            paged and not self.fixed,
        )
        self.page_bytes, self.most_pages = self.cache.page_bytes, self.cache.most_pages - 1
        self._input_device = model.get_input_embeddings().weight.device
        self._window = getattr(config, "sliding_window", None)
        self._layer_types = set(getattr(config, "layer_types", None) or ())
        self._cache_argument = cache_argument(model)
        # A token that only the other side has is fed as this side's last: it is a control token.
        self._last_token = model.get_input_embeddings().weight.shape[0] - 1

    @torch.inference_mode()
    def prefill(self, rows: Rows, tokens: Tokens, positions: Sequence[int]) -> Tensor:
        """Read some tokens in each of some rows, from a position on.

        Returns:
            The logits behind each row's last token, ``(r, v)``.
        """
        return self.run(rows, tokens, positions, 1)[:, 0].to(self.device)

    @torch.inference_mode()
    def forward(
        self,
        rows: Rows,
        tokens: Tokens,
        positions: Sequence[int],
        drafted: Sequence[Tensor] = (),
    ) -> Tensor:
        """Read ``q`` tokens in each of some rows, from a position on.

        Args:
            rows: The rows.
            tokens: The first tokens that each reads.
            positions: Where each begins to read.
            drafted: Those that it reads then, ``(r,)`` each, which the host need not know.

        Returns:
            The logits behind each token, ``(r, q, v)``.
        """
        if self.fixed:
            # A copy, because the next replay writes to the same place.
            return self.replay(rows, tokens, positions, drafted).to(self.device, copy=True)
        keep = len(tokens[0]) + len(drafted)
        return self.run(rows, tokens, positions, keep, drafted).to(self.device)

    def share(self, row: list[int], length: int) -> list[int]:
        """Return a row that begins with the first `length` tokens of another one."""
        return self.cache.share(row, length)

    def release(self, row: list[int]) -> None:
        """Let go of a row."""
        self.cache.release(row)

    def reset(self) -> None:
        """Let go of all rows, and free their memory."""
        self.graphs.clear()
        self.cache.clear()

    def run(
        self,
        rows: Rows,
        tokens: Tokens,
        positions: Sequence[int],
        keep: int,
        drafted: Sequence[Tensor] = (),
    ) -> Tensor:
        """Read tokens in some rows; return the logits behind the last ones ``(r, keep, v)``."""
        counts = [len(read) + len(drafted) for read in tokens]
        width, pages = max(counts), self.cache.reserve(rows, positions, counts)
        inputs = self.inputs(rows, tokens, positions, (len(rows), width, max(pages)), drafted)
        whole = not self.cache.paged
        table = inputs[:, 3 * width :]
        groups = [Group(None, table)] if whole else groups_of(rows, pages, table)
        return self.call_model(inputs, width, groups, keep)

    def replay(
        self, rows: Rows, tokens: Tokens, positions: Sequence[int], drafted: Sequence[Tensor]
    ) -> Tensor:
        """Read ``q`` tokens in some rows, in a forward of one of few shapes.

        The rows are padded to a power of two, the columns to one more than that, the pages that
        are seen to a power of two. What pads a batch is a token at position 0, which sees what its
        row holds there, and page 0 where there is no row; its own keys go where nobody looks.
        """
        width, (most_rows, most_seen) = len(tokens[0]) + len(drafted), self.limits
        pages = max(self.cache.reserve(rows, positions, [width] * len(rows)))
        size = (
            padded(len(rows), most_rows),
            1 + padded(width - 1, 2 * width) if width > 1 else 1,
            padded(max(pages, VIEW // PAGE), -(-most_seen // PAGE)),
        )
        inputs = self.inputs(rows, tokens, positions, size, drafted)
        return self.graphs(self.run_graph, inputs, size[1], id(self))[: len(rows), -width:]

    def run_graph(self, inputs: Tensor, width: int) -> Tensor:
        """Read what `inputs` says, all that varies, in a batch of so many columns."""
        return self.call_model(inputs, width, [Group(None, inputs[:, 3 * width :])], width)

    def inputs(
        self,
        rows: Rows,
        tokens: Tokens,
        positions: Sequence[int],
        size: tuple[int, int, int],
        drafted: Sequence[Tensor] = (),
    ) -> Tensor:
        """Bring all that a forward is told to the model's device, in one tensor.

        Args:
            rows: The rows.
            tokens: What each reads.
            positions: Where each begins to read.
            size: So many rows, columns and pages, padded in front of the tokens, and behind the
                rows and the pages, with zeros.
            drafted: What each reads behind `tokens`, ``(r,)`` each.

        Returns:
            Ids, positions and places to write to, ``(r, q)`` each, and tables of pages ``(r, p)``,
            side by side.
        """
        all_rows, width, pages = size
        values = [[0] * (3 * width + pages) for _ in range(all_rows)]
        for line, row, read, at in zip(values, rows, tokens, positions, strict=False):
            places = range(at, at + len(read) + len(drafted))
            padding = [0] * (width - len(places))
            ids = [*(min(token, self._last_token) for token in read), *[0] * len(drafted)]
            own = [row[place // PAGE] * PAGE + place % PAGE for place in places]
            line[: 3 * width] = [*padding, *ids, *padding, *places, *padding, *own]
            seen = row[:pages]
            line[3 * width : 3 * width + len(seen)] = seen
        inputs = upload(values, self._input_device)
        if drafted:
            read_last = torch.stack([*drafted], -1).clamp(0, self._last_token)
            inputs[: len(rows), width - len(drafted) : width] = read_last
        return inputs

    def call_model(self, inputs: Tensor, width: int, groups: list[Group], keep: int) -> Tensor:
        """Run the model's forward on such `inputs`; return the last logits ``(r, keep, v)``."""
        ids, positions, places = inputs[:, : 3 * width].view(-1, 3, width).unbind(1)
        self.cache.set_reading(places, groups, (inputs.shape[1] - 3 * width) * PAGE)
        output = self.model(
            input_ids=ids,
            attention_mask=self.attention_mask(positions),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=keep,
            **{self._cache_argument: self.cache},
        )
        return output.logits  # type: ignore[no-any-return]

    def attention_mask(self, positions: Tensor) -> Tensor | dict[str, Tensor]:
        """Return who attends to whom, ``(r, 1, q, view)``, by layer type if there are several."""
        key = torch.arange(self.cache.view, device=positions.device)
        query = positions[:, None, :, None]
        full = key <= query
        if self._window is None or self._layer_types == {"full_attention"}:
            return self.additive(full)
        sliding = self.additive(full & (key > query - self._window))
        if not self._layer_types:
            return sliding
        return {"full_attention": self.additive(full), "sliding_attention": sliding}

    def additive(self, mask: Tensor) -> Tensor:
        """Return a bool mask as what is added to scores."""
        dtype = self.model.dtype
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def require_room(runner: Runner, length: int) -> None:
    """Raise an `OutOfMemoryError` if a prompt of so many tokens can never be read."""
    most = runner.most_pages
    if length > most * runner.page:
        raise OutOfMemoryError(
            f"a prompt of {length} tokens came, but keys and values have room for "
            f"{most * runner.page} tokens ({readable(most * runner.page_bytes)}) in each model. "
            "Shorten the conversation, or raise kv_bytes."
        )


def cache_argument(model: Any) -> str:
    """Name the argument that takes the cache: transformers has renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def has_fixed_shapes(model: Any, graphs: GraphMode) -> bool:
    """Tell whether a model's forwards are to have fixed shapes."""
    if graphs == "off" or (graphs == "auto" and model.device.type != "cuda"):
        return False
    devices = sorted({str(weight.device) for weight in model.parameters()})
    if len(devices) > 1 and graphs == "on":
        raise ParameterError(
            "graphs",
            f"'auto' or 'off' for a model that is spread over {' and '.join(devices)}",
            graphs,
            "A CUDA graph belongs to one device.",
        )
    return len(devices) == 1


def run_pair(
    base: Any, aligned: Any, context: tuple[int, int], settings: EngineSettings
) -> PairRunner:
    """Return the runners of two models, whose logits meet where the aligned model is.

    Args:
        base: The base model.
        aligned: The aligned model.
        context: Their context windows, in tokens.
        settings: How the engine is opened.
    """
    pages = most_pages([base, aligned], settings)
    first, second = (
        ModelRunner(
            model,
            aligned.device,
            max_rows=settings.max_rows,
            max_length=window,
            most_pages=pages,
            graphs=settings.graphs,
        )
        for model, window in zip((base, aligned), context, strict=True)
    )
    dtype = torch.promote_types(torch.promote_types(base.dtype, aligned.dtype), torch.float32)
    return PairRunner(first, second, second.device, dtype=dtype)


def most_pages(models: Sequence[Any], settings: EngineSettings) -> int:
    """Return how many pages of each model fit into what there is for keys and values."""
    devices = {str(weight.device) for model in models for weight in model.parameters()}
    budget = settings.kv_bytes or USABLE * free_bytes(frozenset(devices))
    return int(budget / sum(map(page_bytes_of, models)))
