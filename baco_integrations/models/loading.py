"""Models and tokenizers from folders or the Hugging Face hub: safetensors only, and quietly.

Files of the hub are fetched into its cache first, small ones before weights. Everything else reads
local folders, so nothing but `_snapshot` touches the network or sees a token.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ..core.errors import (
    BacoError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    PairError,
    ParameterError,
    UnsafeWeightsError,
    shorten,
)
from ..core.threads import fork_safe
from .architecture import require_plausible, require_sizes
from .memory import Parameters, build_empty, count_parameters
from .options import LoadOptions, Side, plain
from .weights import (
    INDEX,
    WHOLE,
    count_layers,
    fingerprint,
    read_shapes,
    require_own_file,
    weight_files,
)

_SMALL = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py"]
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
CONFIG = "config.json"
ADAPTER = "adapter_config.json"
_SHOWN = 3
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
Bar = Callable[[int, int], None]
# transformers builds models under a process-wide default dtype, and its bars and log level are
# process-wide too; so one load at a time. Downloads stay outside.
_LOADING = fork_safe(threading.RLock())


class ModelFiles(NamedTuple):
    """Where a model is.

    `revision` is the commit of a hub model, and a fingerprint of the files of a local one.
    """

    name: str
    folder: Path
    revision: str
    remote: bool = False

    @property
    def label(self) -> str:
        """What it is called in an identity: its id, or its folder's own name, wherever that is."""
        return self.name if self.remote else self.folder.name


def locate(model: str | Path, side: Side, options: LoadOptions, config: str = CONFIG) -> ModelFiles:
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
    try:
        folder = Path(model).expanduser().resolve()
        revision = fingerprint(folder) if folder.is_dir() else ""
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such home, a loop of links
        raise ModelNotFoundError(
            f"{side}: {shorten(_told(model))} cannot be looked at ({type(error).__name__}). Give a "
            f"readable folder with {config}, or an id on the Hugging Face hub."
        ) from error
    if revision:
        source = ModelFiles(str(model), folder, revision)
    elif isinstance(model, Path) or not _HUB_ID.fullmatch(model):
        raise ModelNotFoundError(
            f"{side}: there is no folder {_told(folder)!r}. Give a folder with {config}, "
            "tokenizer.json and safetensors weights, or an id on the Hugging Face hub."
        )
    else:
        folder = _snapshot(model, options.of(side).revision, options, _SMALL)
        source = ModelFiles(model, folder, folder.name, remote=True)
    if not (source.folder / config).is_file():
        remedy = (
            "A model is a folder with config.json, tokenizer.json and safetensors weights; with "
            "its adapter it is loaded by ModelPair.from_adapter(model, adapter)."
            if config == CONFIG
            else "An adapter is a folder that PEFT has saved; whole models are loaded by "
            "ModelPair.from_pretrained(base, aligned)."
        )
        looked_for = source.folder / config
        raise ModelNotFoundError(f"{source.name} has no {config} ({looked_for}). {remedy}")
    if config != ADAPTER and (source.folder / ADAPTER).is_file():
        # With PEFT installed transformers would apply it, and without leave it out.
        raise PairError(
            f"{source.folder} holds a whole model and an adapter ({ADAPTER}). Put the adapter into "
            "a folder of its own, and load the two by ModelPair.from_adapter(model, adapter)."
        )
    return source


def _told(model: str | Path) -> str:
    """Return a path as it may be shown: an address may hold somebody's password."""
    return re.sub("[^/]*:[^/]*@", "", str(model))


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
    file: object = None
    with suppress(OSError, RuntimeError, ValueError):  # `locate` says what is wrong
        folder = Path(model).expanduser()
        file = folder / CONFIG
        if not folder.is_dir() and _HUB_ID.fullmatch(model):
            from huggingface_hub import try_to_load_from_cache

            file = try_to_load_from_cache(model, CONFIG, revision=options.of(side).revision)
    if fetch and not (isinstance(file, str | Path) and Path(file).is_file()):
        file = locate(model, side, options).folder / CONFIG
    try:
        config = json.loads(Path(file).read_text()) if isinstance(file, str | Path) else {}
    except (OSError, RecursionError, ValueError):
        return {}
    if not isinstance(config, dict):
        return {}
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def fetch_weights(source: ModelFiles, options: LoadOptions, adapter: str | None = None) -> None:
    """Make sure that a model's safetensors are in its folder.

    Args:
        source: Where the model is.
        options: How to load.
        adapter: The name of an adapter's weights, which are one file.

    Raises:
        UnsafeWeightsError: There are only pickled weights, or weights of another folder.
        ModelNotFoundError: There are none, or they are out of reach.
        PairError: Their index is damaged.
    """
    from huggingface_hub.constants import is_offline_mode

    if source.remote:
        _snapshot(source.name, source.revision, options, [adapter or "model*.safetensors"])
    if adapter and (source.folder / adapter).is_file():
        require_own_file(source, adapter)
        return
    if not adapter and weight_files(source):
        return
    pickled = any(file.suffix in _PICKLES for file in source.folder.iterdir())
    if pickled or (source.remote and not options.local_files_only and not is_offline_mode()):
        raise UnsafeWeightsError(
            f"{source.name} has no safetensors weights, and pickled ones can run code when "
            "they are read. Choose a revision with model.safetensors, or convert weights that you "
            "trust: load them with use_safetensors=False, then call save_pretrained(folder)."
        )
    files = adapter or f"{WHOLE}, or its shards and {INDEX},"
    raise ModelNotFoundError(f"{source.name} has no weights. Put {files} into {source.folder}.")


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


def load_config(source: ModelFiles, options: LoadOptions) -> Any:
    """Read a model's configuration.

    Raises:
        PairError: It is damaged, or asks for what no model has.
    """
    from transformers import AutoConfig, PreTrainedConfig

    with reading(source, "configuration"):
        told, _ = PreTrainedConfig.get_config_dict(source.folder, local_files_only=True)
    # Before anything is made of it: some kinds list all of their layers.
    require_plausible(source.folder, told)
    with reading(source, "configuration"):
        config = AutoConfig.from_pretrained(source.folder, **_local(options))
    require_sizes(source.folder, config)
    return config


def load_modules(source: ModelFiles, config: Any, options: LoadOptions) -> Any:
    """Build a model's modules, without weights."""
    with reading(source, "configuration"):
        return build_empty(config, options.trust_remote_code)


def require_stored(source: ModelFiles, config: Any, options: LoadOptions) -> None:
    """Refuse a configuration that the weights beside it belie, before anything is made of it.

    Weights that are not at hand, quantised, called otherwise than the model's or of remote code are
    left to the loader.

    Raises:
        PairError: With the fields that are wrong.
    """
    try:
        shapes = read_shapes(source.name, weight_files(source))
    except ModelNotFoundError:
        return
    text = config.get_text_config()
    layers, asked = count_layers(shapes), getattr(text, "num_hidden_layers", 0)
    if layers is not None and asked > layers:
        raise PairError(
            f"{source.folder / CONFIG} says num_hidden_layers is {asked}, but the weights beside "
            f"it have {layers}. Fetch the files again, or check that they belong together."
        )
    quantised = getattr(config, "quantization_config", None)
    if shapes and not quantised and not options.trust_remote_code:
        modules = load_modules(source, config, options).named_parameters()
        made = {name: tuple(parameter.shape) for name, parameter in modules}
        others = [
            (name, shapes[name], made[name])
            for name in sorted(made.keys() & shapes.keys())
            if sorted(shapes[name]) != sorted(made[name])  # some are transposed when they are read
        ]
        _require_fit(source, text, others)


def load_tokenizer(source: ModelFiles, options: LoadOptions, config: Any = None) -> Any:
    """Read a tokenizer; a configuration tells whose it is where the folder has none."""
    from transformers import AutoTokenizer

    with reading(source, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source.folder, config=config, **_local(options))
        float(tokenizer.model_max_length)  # what it is compared with at every prompt
        return tokenizer


def load_generation_config(source: ModelFiles) -> Any:
    """Read a model's generation settings; None where it has none."""
    from transformers import GenerationConfig

    if not (source.folder / "generation_config.json").is_file():
        return None
    with reading(source, "generation settings"):
        return GenerationConfig.from_pretrained(source.folder, local_files_only=True)


def load_parameters(source: ModelFiles, config: Any, options: LoadOptions) -> Parameters:
    """Count a model's parameters, from its configuration."""
    with reading(source, "configuration"):
        return count_parameters(config, options.trust_remote_code)


def load_bytes(source: ModelFiles, config: Any, options: LoadOptions) -> int:
    """Return the bytes that a model will take once loaded."""
    quantization = options.quantization or getattr(config, "quantization_config", None)
    return load_parameters(source, config, options).bytes(
        options.dtype_of(config), plain(quantization)
    )


def load_model(
    source: ModelFiles, config: Any, options: LoadOptions, quantizer: Any, bar: Bar | None = None
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
    require_stored(source, config, options)
    load_generation_config(source)  # transformers would pass over one that is damaged
    with reading(source, "weights", bar):
        model, info = read(
            source.folder,
            config=config,
            dtype=options.dtype,
            device_map=options.placement,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # `_require_fit` tells them
            output_loading_info=True,
            **_local(options),
            **{name: value for name, value in given.items() if value is not None},
        )
    # Of several towers, only the one that decodes is read; quantisers keep tensors of their own.
    whole = config.get_text_config() is config and not getattr(config, "quantization_config", None)
    # transformers would go on with random numbers in place of what is missing.
    _require_fit(
        source,
        config,
        sorted(info["mismatched_keys"]),
        info["missing_keys"],
        info["unexpected_keys"] if whole else (),
    )
    model.requires_grad_(False)
    return model.eval()


def _require_fit(
    source: ModelFiles,
    config: Any,
    others: Iterable[tuple[str, Any, Any]],
    missing: Collection[str] = (),
    unused: Collection[str] = (),
) -> None:
    """Refuse weights that do not fit their configuration, with the names of some."""
    sizes = {field: value for field, value in config.to_dict().items() if type(value) is int}
    wrong = []
    for name, stored, made in others:
        fields = [field for field, size in sizes.items() if size in {*made} - {*stored}]
        of = f", by {' or '.join(fields)}" if fields else ""
        wrong.append(f"{name}: {tuple(stored)} instead of {tuple(made)}{of}")
    kinds = {
        f"has {len(wrong)} of other shapes": wrong,
        f"lacks {len(missing)}": sorted(missing),
        f"has {len(unused)} that would be left unused": sorted(unused),
    }
    told = [f"{kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if told:
        raise PairError(
            f"The weights of {source.name} are not what {source.folder / CONFIG} asks for: it "
            f"{'; it '.join(told)}. Fetch the files again, or check that they belong together."
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _local(options: LoadOptions) -> dict[str, bool]:
    return {"local_files_only": True, "trust_remote_code": options.trust_remote_code}


@contextmanager
def reading(source: ModelFiles, what: str, bar: Bar | None = None) -> Iterator[None]:
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
    except BacoError:
        raise
    except Exception as error:  # Loaders raise whatever their files make them stumble over.
        if "trust_remote_code" in str(error):
            raise UnsafeWeightsError(
                f"{source.name} wants to run code of its own. Read that code, then pass "
                "trust_remote_code=True, or choose another pair."
            ) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])
        kind = ModelNotFoundError if what == "tokenizer" else PairError
        raise kind(
            f"The {what} of {source.name} could not be read from {source.folder}: "
            f"{said or type(error).__name__}"
        ) from error


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
