"""Reading files with transformers: one load at a time, quietly, with errors of our own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils import logging

from ..core.errors import (
    BacoError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    PairError,
    UnsafeWeightsError,
)
from ..core.threads import fork_safe
from .files import ModelFiles
from .hub import shows_progress
from .options import LoadOptions

Bar = Callable[[int, int], None]
"""Shows progress: it is called with how many items are done, and how many there are."""
LOADING = fork_safe(threading.RLock())
"""Held while transformers reads: default dtype, progress bars and log level are process-wide."""


@contextmanager
def reading(files: ModelFiles, what: str, bar: Bar | None = None) -> Iterator[None]:
    """Let transformers read a folder, and turn whatever it raises into an error of ours.

    Args:
        files: The folder.
        what: What is read, such as ``weights``, for messages.
        bar: Shows the progress over weights.

    Raises:
        PairError: Something is missing or damaged, needs code of its own, or fits no memory.
    """
    try:
        with LOADING, quiet_transformers(bar), quiet_gguf(bar) if files.gguf else nullcontext():
            yield
    except torch.OutOfMemoryError as error:
        raise NotEnoughMemoryError(
            f"{files.name} did not fit into the device's memory. Load with dtype='bfloat16' or "
            "quantization='8bit', or spread it with device_map='auto'."
        ) from error
    except BacoError:
        raise
    except Exception as error:  # Loaders raise whatever their files make them stumble over.
        if "trust_remote_code" in str(error):
            raise UnsafeWeightsError(
                f"{files.name} wants to run code of its own. Read that code, then pass "
                "trust_remote_code=True, or choose another pair."
            ) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])
        kind = ModelNotFoundError if what == "tokenizer" else PairError
        raise kind(
            f"The {what} of {files.name} could not be read from {files.path}: "
            f"{said or type(error).__name__}{'. Is it whole?' if files.gguf else ''}"
        ) from error


@contextmanager
def quiet_transformers(bar: Bar | None) -> Iterator[None]:
    """Silence the log and the progress bars of transformers; `bar` is shown instead of them."""
    settings: Any = logging

    def silent_bar(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if bar is None or not args:
            return settings.EmptyTqdm(*args, **kwargs)
        return settings.EmptyTqdm(counted([*args[0]], bar))

    verbosity = settings.get_verbosity()
    settings.set_verbosity_error()
    hook = settings.set_tqdm_hook(silent_bar)
    try:
        yield
    finally:
        settings.set_tqdm_hook(hook)
        settings.set_verbosity(verbosity)


@contextmanager
def quiet_gguf(bar: Bar | None) -> Iterator[None]:
    """Show `bar` instead of the progress bar over a GGUF file, which no setting silences."""
    from transformers import modeling_gguf_pytorch_utils

    reader: Any = modeling_gguf_pytorch_utils
    shown = reader.tqdm
    reader.tqdm = lambda items, **_: counted(items, bar) if bar else items
    try:
        yield
    finally:
        reader.tqdm = shown


def counted(items: list[Any], bar: Bar) -> Iterator[Any]:
    """Yield items, and show after each how many are done."""
    for done, item in enumerate(items, start=1):
        yield item
        bar(done, len(items))


@contextmanager
def progress_bars(options: LoadOptions) -> Iterator[Callable[[str], Bar]]:
    """Open one display of progress, and give a function that adds a bar with a label to it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    shown = Progress(*columns, console=Console(stderr=True))

    def add_bar(label: str) -> Bar:
        task = shown.add_task(label, total=None)
        return lambda done, total: shown.update(task, completed=done, total=total)

    with shown if shows_progress(options) else nullcontext():
        yield add_bar
