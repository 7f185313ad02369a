"""Finding a model's files: in a local folder, or on the Hugging Face hub and in its cache.

Only `download` touches the network or is given the token.
"""

from __future__ import annotations

import json
import re
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import is_offline_mode
from huggingface_hub.utils.tqdm import silent_tqdm
from rich.console import Console

from ..core.errors import (
    BacoError,
    MissingExtraError,
    ModelNotFoundError,
    PairError,
    ParameterError,
    UnsafeWeightsError,
    shorten,
)
from .files import CONFIG, INDEX, WHOLE, ModelFiles, fingerprint, require_own_file, weight_files
from .gguf import context_length, read_metadata
from .options import LoadOptions, Side

ADAPTER_CONFIG = "adapter_config.json"
SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py"]
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
NAME = r"[\w-][\w.-]*"
HUB_ID = re.compile(rf"(?P<model>{NAME}(/{NAME})?)(?<!\.gguf)(:(?P<gguf>{NAME}\.gguf))?")
"""A model on the hub, or a GGUF file in a model's repository: ``org/model:file.gguf``."""
REASONS = {
    "GatedRepoError": "is gated. Accept its licence at https://huggingface.co/{model}, then run "
    "`hf auth login` or pass token=...",
    "RepositoryNotFoundError": "does not exist on the hub, or is private. Check the spelling; for "
    "a private model run `hf auth login` or pass token=...",
    "RevisionNotFoundError": "has no revision {revision!r}. Leave revision out for the newest.",
    "LocalEntryNotFoundError": "is not all in the local cache, and the hub is out of reach or was "
    "not to be asked. Connect (check HF_HUB_OFFLINE and local_files_only), run `hf download` "
    "beforehand, or give a local folder.",
    "Exception": "could not be fetched ({kind}: {said}). Try again, or give a local folder.",
}
"""Why a model could not be fetched and what to do, by the name of the error's class."""


def locate(model: str | Path, side: Side, options: LoadOptions, config: str = CONFIG) -> ModelFiles:
    """Find a model's folder, or fetch its small files from the hub; a GGUF file is fetched whole.

    Args:
        model: A folder, an id on the hub, or a GGUF file (``org/model:file.gguf`` on the hub).
        side: Which side of the pair it is.
        options: How to load.
        config: The file that the folder must have; for an adapter it is `ADAPTER_CONFIG`.

    Raises:
        ParameterError: `model` is neither a path nor an id.
        ModelNotFoundError: There is no such model, or it is out of reach.
        PairError: The folder holds both a model and an adapter, or the GGUF file cannot be read.
        MissingExtraError: The package that transformers reads GGUF files with is not installed.
    """
    if not isinstance(model, str | Path) or not str(model).strip():
        remedy = "For example 'Qwen/Qwen2.5-0.5B', or a folder with config.json."
        allowed = "a folder or an id on the Hugging Face hub, or a GGUF file"
        raise ParameterError(side, allowed, model, remedy)
    password = re.compile("[^/]*:[^/]*@")  # which an address may hold
    gguf = is_gguf(model)
    if gguf and find_spec("gguf") is None:
        raise MissingExtraError(f"{Path(model).name}, a GGUF file,", "gguf")
    try:
        path = Path(model).expanduser()
        # Where a GGUF file is a link, what it leads to may have another ending.
        path = path.parent.resolve() / path.name if gguf else path.resolve()
        revision = fingerprint(path) if path.is_dir() or (gguf and path.is_file()) else ""
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such home, a loop of links
        raise ModelNotFoundError(
            f"{side}: {shorten(password.sub('', str(model)))} cannot be looked at "
            f"({type(error).__name__}). Give a readable folder with {config}, or an id on the "
            "Hugging Face hub."
        ) from error
    on_hub = None if isinstance(model, Path) else HUB_ID.fullmatch(model)
    if revision and path.is_dir():
        files = ModelFiles(str(model), path, revision)
    elif revision:
        files = ModelFiles(str(model), path.parent, revision, gguf=path.name)
    elif on_hub:
        file = on_hub["gguf"] or ""
        patterns = [file] if file else SMALL_FILES
        folder = download(on_hub["model"], options.of(side).revision, options, patterns)
        files = ModelFiles(str(model), folder, folder.name, remote=True, gguf=file)
    else:
        raise ModelNotFoundError(
            f"{side}: there is no {'file' if gguf else 'folder'} "
            f"{password.sub('', str(path))!r}. Give a folder with {config}, tokenizer.json and "
            "safetensors weights, an id on the Hugging Face hub, or a GGUF file, which on the hub "
            "is 'org/model:file.gguf'."
        )
    require_config(files, config)
    return files


def is_gguf(model: str | Path) -> bool:
    """Tell whether what a model is called is a GGUF file, here or on the hub."""
    return str(model).lower().endswith(".gguf")


def require_config(files: ModelFiles, config: str) -> None:
    """Refuse a folder without its configuration, or with both a model and an adapter."""
    file = files.config if config == CONFIG else files.path / config
    if not file.is_file():
        remedy = (
            "A model is a folder with config.json, tokenizer.json and safetensors weights, or a "
            "GGUF file (folder/file.gguf, or org/model:file.gguf on the hub); with its adapter it "
            "is loaded by ModelPair.from_adapter(model, adapter)."
            if config == CONFIG
            else "An adapter is a folder that PEFT has saved; whole models are loaded by "
            "ModelPair.from_pretrained(base, aligned)."
        )
        raise ModelNotFoundError(f"{files.name} has no {file.name} ({file}). {remedy}")
    if files.gguf:
        read_metadata(file)
    if config == CONFIG and (files.folder / ADAPTER_CONFIG).is_file():
        # With PEFT installed transformers would apply it, and without leave it out.
        raise PairError(
            f"{files.folder} holds a whole model and an adapter ({ADAPTER_CONFIG}). Put the "
            "adapter into a folder of its own, and load the two by "
            "ModelPair.from_adapter(model, adapter)."
        )


def configuration(model: str, side: Side, options: LoadOptions, fetch: bool) -> dict[str, Any]:
    """Return the fields of a model's config.json and of its text part; empty if not at hand.

    Of a GGUF file it is the context window alone.

    With `fetch`, a file that is not at hand is fetched, with the arguments and errors of `locate`.
    """
    if is_gguf(model):
        with nullcontext() if fetch else suppress(BacoError):
            at_hand = options if fetch else options.replace(local_files_only=True)
            return {"max_position_embeddings": context_length(locate(model, side, at_hand).path)}
        return {}
    file: object = None
    with suppress(OSError, RuntimeError, ValueError):  # `locate` says what is wrong
        folder = Path(model).expanduser()
        file = folder / CONFIG
        if not folder.is_dir() and HUB_ID.fullmatch(model):
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


def fetch_weights(files: ModelFiles, options: LoadOptions, adapter: str | None = None) -> None:
    """Make sure that a folder has safetensors weights, fetching those of a hub model.

    Those of a GGUF file are there once it is located.

    `adapter` is the name of an adapter's one file of weights.

    Raises:
        PairError: There are no safetensors, or they cannot be used; see `weight_files`.
    """
    if files.gguf:
        return
    if files.remote:
        download(files.name, files.revision, options, [adapter or "model*.safetensors"])
    if adapter and (files.folder / adapter).is_file():
        require_own_file(files, adapter)
        return
    if not adapter and weight_files(files):
        return
    pickled = any(file.suffix in PICKLES for file in files.folder.iterdir())
    if pickled or (files.remote and not options.local_files_only and not is_offline_mode()):
        raise UnsafeWeightsError(
            f"{files.name} has no safetensors weights, and pickled ones can run code when "
            "they are read. Choose a revision with model.safetensors, or convert weights that you "
            "trust: load them with use_safetensors=False, then call save_pretrained(folder)."
        )
    needed = adapter or f"{WHOLE}, or its shards and {INDEX},"
    raise ModelNotFoundError(f"{files.name} has no weights. Put {needed} into {files.folder}.")


def download(model: str, revision: str | None, options: LoadOptions, patterns: list[str]) -> Path:
    """Fetch files of a hub model; return their folder, in the cache.

    Raises:
        ModelNotFoundError: They could not be fetched; the message says why and what to do.
    """
    try:
        folder = snapshot_download(
            model,
            revision=revision,
            token=options.token,
            local_files_only=options.local_files_only,
            allow_patterns=patterns,
            ignore_patterns=["*/*"],
            tqdm_class=None if shows_progress(options) else silent_tqdm,
        )
    except Exception as error:  # Of http, cache, disk and validation: the hub has no common base.
        kinds = [kind.__name__ for kind in type(error).__mro__]
        reason = next(REASONS[kind] for kind in kinds if kind in REASONS)
        said = (str(error).splitlines() or [""])[0]
        reason = reason.format(model=model, revision=revision, kind=kinds[0], said=said)
        raise ModelNotFoundError(f"{model} {reason}") from error
    return Path(folder)


def shows_progress(options: LoadOptions) -> bool:
    """Tell whether progress is shown: as the options say, else only on a terminal."""
    return Console(stderr=True).is_terminal if options.progress is None else options.progress
