"""Making an adapter of the difference of two models, by truncated singular value decomposition.

The change of each tensor is kept in a folder beside the
target until all is done, so an interrupted run can be continued and ends with the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from transformers import GenerationConfig

from ...core.errors import BacoError, PairError, ParameterError
from ...core.settings import Checked, Integer, param
from ..checkpoint import Checkpoint, load_generation_config, load_tokenizer
from ..hub import ADAPTER_CONFIG, locate
from ..options import LoadOptions, Side, check_exact
from .compare import StoredTensors, require_comparable
from .read import CARD, PREFIX, WEIGHTS, require_peft

BIG = 1024
"""Matrices whose smaller side is longer are decomposed by random projection if the rank is small;
all others exactly."""
ITERATIONS, SPARE = 4, 16
"""Power iterations of the random projection, and its directions beyond the rank."""
FACTOR_NAMES = {
    "linear": {"down": "lora_A.weight", "up": "lora_B.weight"},
    "embedding": {"down": "lora_embedding_A", "up": "lora_embedding_B"},
}
"""PEFT's names of the two factors, by the kind of module."""


@dataclass(frozen=True)
class Extraction:
    """An adapter that has been made.

    Attributes:
        folder: Where it is.
        model: The folder or id of the model that it goes with.
        exact: Which side that model is.
        ranks: The rank of each matrix that it changes.
        error: Frobenius norm of what it leaves out, relative to that of the whole difference.
        bytes: Size of its weights.
    """

    folder: Path
    model: str
    exact: Side
    ranks: dict[str, int]
    error: float
    bytes: int


def extract(
    base: str | Path,
    aligned: str | Path,
    out: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    exact: Side = "aligned",
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Extraction:
    """Make a LoRA adapter that turns one model of a pair into nearly the other.

    Linear layers and embeddings get a low-rank change; biases, norms and whatever else has one
    dimension are kept whole. Embedding rows that only the approximated model has are left out, as
    they must be padding; those that it lacks stay as they are.

    Args:
        base: The base model's folder or id.
        aligned: The aligned model's.
        out: The folder to make.
        rank: Rank of each matrix's change.
        energy: Instead of a rank, the share of each change's squared norm to keep.
        exact: The side that stays as it is; the other one is approximated.
        progress: Called with how many tensors are done, and how many there are.
        options: Settings of `LoadOptions`: where to find the models, and ``dtype`` for the
            adapter, which is otherwise the exact model's.

    Raises:
        ParameterError: A setting is not allowed, or `out` exists.
        PairError: The models differ in more than their weights, or their files are damaged.
        MissingExtraError: PEFT is not installed.
    """
    require_peft("Extracting an adapter")
    if (rank is None) == (energy is None):
        given = {"rank": rank, "energy": energy}
        raise ParameterError("rank", "given, or else energy", given, "For example rank=32.")
    amount = Amount(rank=rank, energy=energy)
    check_exact(exact)
    if not callable(progress):
        remedy = "Leave it out to be told nothing."
        raise ParameterError("progress", "a function of two whole numbers", progress, remedy)
    checked = LoadOptions(**options)
    if not isinstance(out, str | Path):
        raise ParameterError("out", "the path of a new folder", out, "For example 'adapter'.")
    out = Path(out)
    with making(out):
        if not out.name or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise ParameterError("out", "a new folder", str(out), "Choose another name.")
    models = [
        Checkpoint(locate(base, "base", checked), checked),
        Checkpoint(locate(aligned, "aligned", checked), checked),
    ]
    require_comparable(*models)
    plain, other = models if exact == "base" else reversed(models)
    extractor = Extractor(plain, other, out, amount, exact)
    total = len(extractor.kinds)
    for done, name in enumerate(extractor.kinds):
        progress(done, total)
        extractor.work_on(name)
    progress(total, total)
    return extractor.finish()


class Amount(Checked):
    """How much of each matrix's change is kept: a rank, or a share of its squared norm."""

    rank: Annotated[Integer, Field(ge=1)] | None = param(None, "at least 1", "For example 32.")
    energy: Annotated[float, Field(gt=0, le=1)] | None = param(
        None, "above 0 and at most 1", "For example 0.9."
    )


@contextmanager
def making(out: Path) -> Iterator[None]:
    """Turn errors of the file system about the folder `out` into a `ParameterError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, BacoError):
            raise
        remedy = f"The system says: {error}."
        raise ParameterError("out", "a folder that can be made", str(out), remedy) from error


class Extractor:
    """Makes an adapter in two stages: the change of each tensor, then one file of all changes.

    Args:
        plain: The model that stays as it is.
        other: The model that is approximated.
        out: The folder to make.
        amount: How much of each change is kept.
        exact: Which side `plain` is.

    Attributes:
        kinds: Of each parameter, what its module is: ``linear``, ``embedding`` or ``other``.
    """

    def __init__(
        self, plain: Checkpoint, other: Checkpoint, out: Path, amount: Amount, exact: Side
    ) -> None:
        self.plain, self.other, self.out = plain, other, out
        self.amount, self.exact = amount, exact
        self.plain_tensors, self.other_tensors = StoredTensors(plain), StoredTensors(other)
        classes = {"linear": nn.Linear, "embedding": nn.Embedding}
        self.kinds = {
            f"{name}.{key}": next((k for k, c in classes.items() if isinstance(module, c)), "other")
            for name, module in self.plain_tensors.model.named_modules(remove_duplicate=False)
            for key, _ in module.named_parameters(recurse=False)
        }
        dtype = plain.options.dtype
        dtype = str(plain.config.dtype or "float32") if dtype == "auto" else dtype
        self.dtype: torch.dtype = getattr(torch, dtype.removeprefix("torch."))
        self.tokenizer = load_tokenizer(other.files, other.options)
        rows = self.plain_tensors.model.get_input_embeddings().num_embeddings
        if len(self.tokenizer) > rows:
            raise PairError(
                f"{other.files.name} has {len(self.tokenizer)} tokens, but {plain.files.name} "
                f"only {rows} rows for them. Take the one with more as the exact side."
            )
        self.folder = out.with_name(f"{out.name}.partial")
        plan = {
            "exact": exact,
            "sources": [[*map(str, model.files)] for model in (plain, other)],
            "amount": repr(amount),
            "dtype": str(self.dtype),
        }
        file, text = self.folder / "plan.json", json.dumps(plan, indent=2)
        with making(out):
            # What is there may be of another extraction.
            if not file.is_file() or file.read_text() != text:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
                write_file(file, text.encode())

    def file_of(self, name: str) -> Path:
        """Return the file for the change of a parameter."""
        return self.folder / f"{[*self.kinds].index(name):05}.safetensors"

    def work_on(self, name: str) -> None:
        """Compute the change of a parameter and write it, unless that is done."""
        file = self.file_of(name)
        if not file.is_file():
            write_file(file, save(self.change(name)))

    def change(self, name: str) -> dict[str, Tensor]:
        """Compute the change of a parameter.

        Returns:
            The factors ``down`` and ``up`` of the difference, or as ``own`` all of the other
            model's values; and ``norms``, ``(2,)``: the squared norms of what is left out and of
            the whole difference.
        """
        plain, other = self.plain_tensors.read(name), self.other_tensors.read(name)
        wide = torch.promote_types(torch.promote_types(plain.dtype, other.dtype), torch.float32)
        kind = self.kinds[name]
        low_rank = kind != "other" and name.endswith(".weight")
        skipped = 1 if low_rank else 0  # Models may be padded to different numbers of rows.
        if plain.shape[skipped:] != other.shape[skipped:]:
            raise PairError(
                f"{name} is {tuple(plain.shape)} in {self.plain.files.name} and "
                f"{tuple(other.shape)} in {self.other.files.name}. Choose two stages of one model."
            )
        if not low_rank:
            if plain.dim() > 1 and not torch.equal(plain, other):
                raise PairError(f"{name} is neither a linear layer nor an embedding.")
            total = (other.to(wide) - plain.to(wide)).double().square().sum()
            return {"own": other.to(self.dtype), "norms": torch.stack([total * 0, total])}
        difference = torch.zeros_like(plain, dtype=wide)
        rows = min(len(plain), len(other))
        difference[:rows] = other[:rows].to(wide) - plain[:rows].to(wide)
        amount = self.amount.rank, self.amount.energy or 1.0
        up, down = (factor.to(self.dtype) for factor in factors(difference, *amount))
        left_out = difference - up.to(wide) @ down.to(wide)
        norms = torch.stack([m.double().square().sum() for m in (left_out, difference)])
        if kind == "embedding":
            up, down = down.T, up.T
        return {"up": up.contiguous(), "down": down.contiguous(), "norms": norms}

    def finish(self) -> Extraction:
        """Put the changes together, in a folder that appears complete or not at all."""
        changes = {name: load_file(self.file_of(name)) for name in self.kinds}
        norms = {name: change.pop("norms").tolist() for name, change in changes.items()}
        left_out, total = map(sum, zip(*norms.values(), strict=True))
        if not total:
            raise PairError("The two models are the same. Choose two stages of one model.")
        ranks = {
            name.removesuffix(".weight"): len(change["down"])
            for name, change in changes.items()
            if "down" in change and len(change["down"])
        }
        differing = {name for name, (_, norm) in norms.items() if norm and "own" in changes[name]}
        biases = {name for name in differing if self.kinds[name] != "other"}
        # PEFT takes modules by the ends of their names, and all biases or none.
        whole = sorted({name.split(".")[-2] for name in differing - biases})
        error = float((left_out / total) ** 0.5)
        staged = self.folder / "adapter"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        tensors = dict(self.named_tensors(changes, ranks, whole, bool(biases)))
        save_file(tensors, staged / WEIGHTS, metadata={"format": "pt"})
        self.describe(staged, ranks, whole, bool(biases), error)
        size = (staged / WEIGHTS).stat().st_size
        os.replace(staged, self.out)
        shutil.rmtree(self.folder)
        return Extraction(self.out, self.plain.files.name, self.exact, ranks, error, size)

    def named_tensors(
        self,
        changes: Mapping[str, Mapping[str, Tensor]],
        ranks: Mapping[str, int],
        whole: list[str],
        biases: bool,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the adapter's tensors with the names that PEFT has for them.

        Args:
            changes: The change of each parameter.
            ranks: The rank of each module with a low-rank change.
            whole: Ends of the names of modules that are saved whole.
            biases: Whether biases are saved.
        """
        for name, change in changes.items():
            module, kind = name.rpartition(".")[0], self.kinds[name]
            if "own" not in change:
                for factor, its_name in FACTOR_NAMES[kind].items():
                    if module in ranks:
                        yield f"{PREFIX}{module}.{its_name}", change[factor]
            elif kind != "other" and biases:
                inner = ".base_layer" if module in ranks else ""
                yield f"{PREFIX}{module}{inner}.bias", change["own"]
            elif kind == "other" and module.endswith(tuple(whole)):
                yield f"{PREFIX}{name}", change["own"]

    def describe(
        self, folder: Path, ranks: dict[str, int], whole: list[str], biases: bool, error: float
    ) -> None:
        """Write all but the weights: configuration, card, tokenizer and generation settings."""
        from peft import LoraConfig

        usual = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
        others = {name: rank for name, rank in ranks.items() if rank != usual}
        config: Any = LoraConfig(
            r=usual,
            lora_alpha=usual,
            rank_pattern=others,
            alpha_pattern=others,
            target_modules=sorted(ranks),
            modules_to_save=whole or None,
            bias="all" if biases else "none",
            ensure_weight_tying=bool(self.plain.config.get_text_config().tie_word_embeddings),
            base_model_name_or_path=self.plain.files.name,
            task_type="CAUSAL_LM",
            inference_mode=True,
        )
        # PEFT keeps the targets as a set.
        fields = {**config.to_dict(), "target_modules": sorted(ranks)}
        card = {
            "exact": self.exact,
            "model": self.plain.files.name,
            "approximated": self.other.files.name,
            "error": error,
        }
        for name, content in ((ADAPTER_CONFIG, fields), (CARD, card)):
            text = json.dumps(content, indent=2, sort_keys=True, default=str)
            write_file(folder / name, f"{text}\n".encode())
        self.tokenizer.save_pretrained(folder)
        settings = load_generation_config(self.other.files)
        (settings or GenerationConfig.from_model_config(self.other.config)).save_pretrained(folder)


def factors(matrix: Tensor, rank: int | None, energy: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return ``up`` and ``down``, whose product is the best approximation of a matrix.

    The matrix is projected onto its first right singular vectors (left ones of a wide matrix).
    They are the eigenvectors of its Gram matrix in float64; for a big matrix and a small rank they
    come from `torch.svd_lowrank`.

    Args:
        matrix: The matrix, ``(out, in)``.
        rank: Number of vectors; None for as many as `energy` takes.
        energy: The share of the squared norm to keep.
    """
    if matrix.shape[0] < matrix.shape[1]:
        up, down = factors(matrix.T, rank, energy)
        return down.T, up.T
    if not matrix.any():
        return matrix[:, :0], matrix[:0]
    size = matrix.shape[1]
    if rank is not None and size > BIG and rank + SPARE < size // 8:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            *_, vectors = torch.svd_lowrank(matrix, q=rank + SPARE, niter=ITERATIONS)
        vectors = vectors[:, :rank]
    else:
        values, vectors = torch.linalg.eigh(matrix.double().T @ matrix.double())
        kept = values.flip(0).clamp(min=0).cumsum(0)
        count = int((kept < energy * kept[-1]).sum()) + 1 if rank is None else rank
        vectors = vectors.flip(1)[:, :count].to(matrix.dtype)
    return matrix @ vectors, vectors.T


def write_file(file: Path, content: bytes) -> None:
    """Write a file that is complete or not there."""
    unfinished = file.with_name(f"{file.name}.tmp")
    unfinished.write_bytes(content)
    os.replace(unfinished, file)
