"""Models and tokenizers from folders or the Hugging Face hub: safetensors only, and quietly.

Files of the hub are fetched into its cache first, small ones before weights. Everything else reads
local folders, so nothing but `_snapshot` touches the network or sees a token.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ..core.errors import (
    ModelNotFoundError,
    NotEnoughMemoryError,
    PairError,
    ParameterError,
    UnsafeWeightsError,
)
from ..core.threads import fork_safe
from .memory import Parameters, count_parameters
from .options import LoadOptions, Side, plain

_SMALL = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py"]
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
Bar = Callable[[int, int], None]
# transformers builds models under a process-wide default dtype, and its bars and log level are
# process-wide too; so one load at a time. Downloads stay outside.
_LOADING = fork_safe(threading.RLock())


class Source(NamedTuple):
    """Where a model is.

    `revision` is the commit of a hub model, and a fingerprint of the files of a local one.
    """

    name: str
    folder: Path
    revision: str
    remote: bool = False


def locate(
    model: str | Path, side: Side, options: LoadOptions, config: str = "config.json"
) -> Source:
    """Find a model's configuration and tokenizer, fetching them from the hub if need be.

    Args:
        model: A folder, or an id on the hub.
        side: Which of the pair it is.
        options: How to load.
        config: Name of the configuration, which an adapter has another one of.

    Raises:
        ParameterError: `model` is neither a path nor an id.
        ModelNotFoundError: There is no such model, or it is out of reach.
    """
    if not isinstance(model, str | Path) or not str(model).strip():
        remedy = "For example 'Qwen/Qwen2.5-0.5B', or a folder with config.json."
        raise ParameterError(side, "a folder or an id on the Hugging Face hub", model, remedy)
    folder = Path(model).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        source = Source(str(model), folder, _fingerprint(folder))
    elif isinstance(model, Path) or not _HUB_ID.fullmatch(model):
        raise ModelNotFoundError(
            f"{side}: there is no folder {str(model)!r}. Give a folder with {config}, "
            "tokenizer.json and safetensors weights, or an id on the Hugging Face hub."
        )
    else:
        folder = _snapshot(model, options.of(side).revision, options, _SMALL)
        source = Source(model, folder, folder.name, remote=True)
    if not (source.folder / config).is_file():
        remedy = (
            "A model is a folder with config.json, tokenizer.json and safetensors weights; with "
            "its adapter it is loaded by ModelPair.from_adapter(model, adapter)."
            if config == "config.json"
            else "An adapter is a folder that PEFT has saved; whole models are loaded by "
            "ModelPair.from_pretrained(base, aligned)."
        )
        raise ModelNotFoundError(f"{source.name} has no {config}. {remedy}")
    return source


def configuration(model: str, side: Side, options: LoadOptions, fetch: bool) -> dict[str, Any]:
    """Return a model's configuration as its file has it, empty where that is not at hand.

    Args:
        model: A folder, or an id on the hub.
        side: Which of the pair it is.
        options: How to load.
        fetch: Whether to ask the hub for what is not at hand.

    Raises:
        ModelNotFoundError: There is no such model, or it is out of reach; only where `fetch`.
    """
    folder = Path(model).expanduser()
    file: object = folder / "config.json"
    if not folder.is_dir() and _HUB_ID.fullmatch(model):
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        with suppress(HFValidationError):  # `locate` says what is wrong with the id
            file = try_to_load_from_cache(model, "config.json", revision=options.of(side).revision)
    if fetch and not (isinstance(file, str | Path) and Path(file).is_file()):
        file = locate(model, side, options).folder / "config.json"
    try:
        config = json.loads(Path(file).read_text()) if isinstance(file, str | Path) else {}
    except (OSError, ValueError):
        return {}
    return {**config, **(config.get("text_config") or {})} if isinstance(config, dict) else {}


def _fingerprint(folder: Path) -> str:
    """Tell the states of a local folder apart, without reading the weights."""
    files = [(file.name, file.stat()) for file in sorted(folder.iterdir()) if file.is_file()]
    state = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in files])
    return hashlib.sha256(state.encode()).hexdigest()[:12]


def fetch_weights(
    source: Source, options: LoadOptions, pattern: str = "model*.safetensors"
) -> None:
    """Make sure that a model's safetensors, of such names, are in its folder.

    Raises:
        UnsafeWeightsError: There are only pickled weights.
        ModelNotFoundError: There are none, or they are out of reach.
    """
    from huggingface_hub.constants import is_offline_mode

    if source.remote:
        _snapshot(source.name, source.revision, options, [pattern])
    if any(source.folder.glob(pattern)):
        return
    pickled = any(file.suffix in _PICKLES for file in source.folder.iterdir())
    if pickled or (source.remote and not options.local_files_only and not is_offline_mode()):
        raise UnsafeWeightsError(
            f"{source.name} has no safetensors weights, and pickled ones can run code when "
            "they are read. Choose a revision with model.safetensors, or convert weights that you "
            "trust: load them with use_safetensors=False, then call save_pretrained(folder)."
        )
    raise ModelNotFoundError(
        f"{source.name} has no weights. Put {pattern.replace('*', '')}, or its shards and their "
        f"index, into {source.folder}."
    )


def _snapshot(model: str, revision: str | None, options: LoadOptions, files: list[str]) -> Path:
    """Fetch files of a hub model; return the folder of its commit in the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import silent_tqdm

    try:
        folder = snapshot_download(
            model,
            revision=revision,
            token=options.token,
            local_files_only=options.local_files_only,
            allow_patterns=files,
            ignore_patterns=["*/*"],
            tqdm_class=None if shows_progress(options) else silent_tqdm,
        )
    except Exception as error:  # Of http, cache, disk and validation: the hub has no common base.
        _raise_out_of_reach(model, revision, error)
    return Path(folder)


def _raise_out_of_reach(model: str, revision: str | None, error: Exception) -> NoReturn:
    from huggingface_hub import errors

    reasons: list[tuple[type[Exception], str, str]] = [
        (
            errors.GatedRepoError,
            "is gated",
            f"Accept its licence at https://huggingface.co/{model}, then run `hf auth login` or "
            "pass token=...",
        ),
        (
            errors.RepositoryNotFoundError,
            "does not exist on the hub, or is private",
            "Check the spelling; for a private model run `hf auth login` or pass token=...",
        ),
        (
            errors.RevisionNotFoundError,
            f"has no revision {revision!r}",
            "Leave revision out for the newest.",
        ),
        (
            errors.LocalEntryNotFoundError,
            "is not all in the local cache, and the hub is out of reach or was not to be asked",
            "Connect (check HF_HUB_OFFLINE and local_files_only), run `hf download` beforehand, or "
            "give a local folder.",
        ),
    ]
    for kind, reason, remedy in reasons:
        if isinstance(error, kind):
            raise ModelNotFoundError(f"{model} {reason}. {remedy}") from error
    said = str(error).splitlines() or [""]
    raise ModelNotFoundError(
        f"{model} could not be fetched ({type(error).__name__}: {said[0]}). Try again, or give a "
        "local folder."
    ) from error


def load_config(source: Source, options: LoadOptions) -> Any:
    """Read a model's configuration."""
    from transformers import AutoConfig

    with reading(source, "configuration"):
        return AutoConfig.from_pretrained(source.folder, **_local(options))


def load_tokenizer(source: Source, options: LoadOptions, config: Any = None) -> Any:
    """Read a tokenizer; a configuration tells whose it is where the folder has none."""
    from transformers import AutoTokenizer

    with reading(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(source.folder, config=config, **_local(options))


def load_generation_config(source: Source) -> Any:
    """Read a model's generation settings; None where it has none."""
    from transformers import GenerationConfig

    if not (source.folder / "generation_config.json").is_file():
        return None
    with reading(source, "generation settings"):
        return GenerationConfig.from_pretrained(source.folder, local_files_only=True)


def load_parameters(source: Source, config: Any, options: LoadOptions) -> Parameters:
    """Count a model's parameters, from its configuration."""
    with reading(source, "configuration"):
        return count_parameters(config, options.trust_remote_code)


def load_bytes(source: Source, config: Any, options: LoadOptions) -> int:
    """Return the bytes that a model will take once loaded."""
    quantization = options.quantization or getattr(config, "quantization_config", None)
    return load_parameters(source, config, options).bytes(
        options.dtype_of(config), plain(quantization)
    )


def load_model(
    source: Source, config: Any, options: LoadOptions, quantizer: Any, bar: Bar | None = None
) -> Any:
    """Read a model's weights, onto its device, for inference only.

    Args:
        source: A folder whose weights were fetched.
        config: The model's configuration.
        options: How to load.
        quantizer: What `quantizer` made of the options.
        bar: Is told how many weights of how many were read.

    Raises:
        PairError: The weights are damaged or incomplete.
        NotEnoughMemoryError: The device ran out of memory.
    """
    from transformers import AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained
    given = {
        "attn_implementation": options.attn_implementation,
        "quantization_config": quantizer,
    }
    with reading(source, "weights", bar):
        model, info = read(
            source.folder,
            config=config,
            dtype=options.dtype,
            device_map=options.placement,
            use_safetensors=True,
            output_loading_info=True,
            **_local(options),
            **{name: value for name, value in given.items() if value is not None},
        )
    if missing := sorted(info["missing_keys"]):
        # transformers would go on with random numbers in their place.
        raise PairError(
            f"{source.name} lacks {len(missing)} weights, {missing[0]} among them. Fetch the files "
            "again, or check that config.json belongs to them."
        )
    model.requires_grad_(False)
    return model.eval()


def _local(options: LoadOptions) -> dict[str, bool]:
    return {"local_files_only": True, "trust_remote_code": options.trust_remote_code}


@contextmanager
def reading(source: Source, what: str, bar: Bar | None = None) -> Iterator[None]:
    """Let transformers read a local folder, quietly; say in our words what goes wrong."""
    import torch

    try:
        with _LOADING, _quietly(bar):
            yield
    except torch.OutOfMemoryError as error:
        raise NotEnoughMemoryError(
            f"{source.name} did not fit into the device's memory. Load with dtype='bfloat16' or "
            "quantization='8bit', or spread it with device_map='auto'."
        ) from error
    except Exception as error:  # Loaders raise whatever their files make them stumble over.
        if "trust_remote_code" in str(error):
            raise UnsafeWeightsError(
                f"{source.name} wants to run code of its own. Read that code, then pass "
                "trust_remote_code=True, or choose another pair."
            ) from error
        said = next(filter(str.strip, str(error).splitlines()), type(error).__name__).strip()
        kind = ModelNotFoundError if what == "tokenizer" else PairError
        raise kind(f"The {what} of {source.name} could not be read: {said}") from error


@contextmanager
def _quietly(bar: Bar | None) -> Iterator[None]:
    """Silence transformers, whose complaints come back as errors; its bar may feed ours."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    hook = logging.set_tqdm_hook(partial(_feed, bar))
    try:
        yield
    finally:
        logging.set_tqdm_hook(hook)
        logging.set_verbosity(verbosity)


def _feed(bar: Bar | None, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Take the place of the bar that transformers would show around what it iterates."""
    from transformers.utils import logging

    silent: Any = logging.EmptyTqdm
    return silent(_counted(list(args[0]), bar)) if bar and args else silent(*args, **kwargs)


def _counted(items: list[Any], bar: Bar) -> Iterator[Any]:
    for done, item in enumerate(items, start=1):
        yield item
        bar(done, len(items))


def shows_progress(options: LoadOptions) -> bool:
    """Tell whether progress is to be shown."""
    from rich.console import Console

    return Console(stderr=True).is_terminal if options.progress is None else options.progress


@contextmanager
def progress_bars(options: LoadOptions) -> Iterator[Callable[[str], Bar]]:
    """Open one display of progress; it gives a bar, fed with (done, total), for each label."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    shown = Progress(*columns, console=Console(stderr=True))

    def bar(label: str) -> Bar:
        task = shown.add_task(label, total=None)
        return lambda done, total: shown.update(task, completed=done, total=total)

    with shown if shows_progress(options) else nullcontext():
        yield bar
