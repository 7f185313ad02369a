"""An adapter from the difference of two models, by truncated singular value decomposition.

What is finished is kept beside the target until all is, so an interrupted run goes on where it
was, and ends with the same bytes.
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
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ...core.errors import BacoError, PairError, ParameterError
from ...core.settings import Checked, Integer, param
from ..loading import load_generation_config
from ..options import LoadOptions, check_exact
from .checkpoint import Checkpoint, checkpoints
from .read import CARD, CONFIG, PREFIX, WEIGHTS, require_peft

if TYPE_CHECKING:
    from torch import Tensor

BIG = 1024
"""Matrices whose smaller side is longer are decomposed by random projection, if the rank is small
(see `ITERATIONS`); all others exactly."""

ITERATIONS = 4
"""Power iterations of the random projection, with as many spare directions as `SPARE`."""

SPARE = 16
"""Directions that the random projection looks at beyond the rank."""

Progress = Callable[[int, int], None]


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
    exact: Literal["base", "aligned"]
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
    exact: Literal["base", "aligned"] = "aligned",
    progress: Progress = lambda done, total: None,
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
        progress: Is told how many tensors of how many are done.
        options: Settings of `LoadOptions`: where to find the models, and ``dtype`` for the
            adapter, which is otherwise the exact model's.

    Raises:
        ParameterError: A setting is not allowed, or `out` exists.
        PairError: The models differ in more than their weights, or their files are damaged.
        MissingExtraError: PEFT is not installed.
    """
    require_peft("Extracting an adapter")
    amount = _amount(rank, energy)
    check_exact(exact)
    if not callable(progress):
        remedy = "Leave it out to be told nothing."
        raise ParameterError("progress", "a function of two whole numbers", progress, remedy)
    checked = LoadOptions(**options)
    if not isinstance(out, str | Path):
        raise ParameterError("out", "the path of a new folder", out, "For example 'adapter'.")
    out = Path(out)
    with _making(out):
        if not out.name or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise ParameterError("out", "a new folder", str(out), "Choose another name.")
    other, plain = checkpoints(base, aligned, checked)
    if exact == "base":
        other, plain = plain, other
    job = _Job(plain, other, out, amount, exact, checked)
    for done, name in enumerate(job.names):
        progress(done, len(job.names))
        job.work_on(name)
    progress(len(job.names), len(job.names))
    return job.finish()


class _Amount(Checked):
    rank: Annotated[Integer, Field(ge=1)] | None = param(None, "at least 1", "For example 32.")
    energy: Annotated[float, Field(gt=0, le=1)] | None = param(
        None, "above 0 and at most 1", "For example 0.9."
    )


def _amount(rank: int | None, energy: float | None) -> float:
    """Return a rank as a whole number, or an energy as a share."""
    if (rank is None) == (energy is None):
        given = {"rank": rank, "energy": energy}
        raise ParameterError("rank", "given, or else energy", given, "For example rank=32.")
    amount = _Amount(rank=rank, energy=energy)
    return float(amount.energy or 0) if amount.rank is None else amount.rank


@contextmanager
def _making(out: Path) -> Iterator[None]:
    """Say that a folder cannot be made, whatever the system has against it."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, BacoError):
            raise
        remedy = f"The system says: {error}."
        raise ParameterError("out", "a folder that can be made", str(out), remedy) from error


class _Job:
    """One extraction: pieces of one tensor each, and what is made of them."""

    def __init__(
        self,
        plain: Checkpoint,
        other: Checkpoint,
        out: Path,
        amount: float,
        exact: Literal["base", "aligned"],
        options: LoadOptions,
    ) -> None:
        import torch

        self.plain, self.other, self.out = plain, other, out
        self.amount, self.exact = amount, exact
        model = plain.open()
        other.open()
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.names = [
            f"{name}.{key}"
            for name, module in self.modules.items()
            for key, _ in module.named_parameters(recurse=False)
        ]
        dtype = options.dtype if options.dtype != "auto" else plain.config.dtype or "float32"
        self.dtype = getattr(torch, str(dtype).removeprefix("torch."))
        self._require_rows(model.get_input_embeddings().num_embeddings)
        self.folder = out.with_name(f"{out.name}.partial")
        self._resume()

    def _require_rows(self, rows: int) -> None:
        if len(self.other.tokenizer) > rows:
            raise PairError(
                f"{self.other.source.name} has {len(self.other.tokenizer)} tokens, but "
                f"{self.plain.source.name} only {rows} rows for them. Take the one with more as "
                "the exact side."
            )

    def _resume(self) -> None:
        """Keep the pieces of an interrupted run, unless they belong to another one."""
        plan = {
            "exact": self.exact,
            "sources": [[*map(str, model.source)] for model in (self.plain, self.other)],
            "amount": repr(self.amount),
            "dtype": str(self.dtype),
        }
        file, text = self.folder / "plan.json", json.dumps(plan, indent=2)
        with _making(self.out):
            if not file.is_file() or file.read_text() != text:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
                _write(file, text.encode())

    def work_on(self, name: str) -> None:
        """Make the piece of one tensor, unless it is there."""
        from safetensors.torch import save

        file = self._piece(name)
        if not file.is_file():
            _write(file, save(self._change(name)))

    def _piece(self, name: str) -> Path:
        return self.folder / f"{self.names.index(name):05}.safetensors"

    def _change(self, name: str) -> dict[str, Tensor]:
        """Return what the adapter has of a tensor, and squared norms: left out, and in all."""
        import torch

        plain, other = self.plain.tensor(name), self.other.tensor(name)
        wide = torch.promote_types(torch.promote_types(plain.dtype, other.dtype), torch.float32)
        kind = self._kind(name)
        if kind == "other" or not name.endswith(".weight"):
            if plain.shape != other.shape:
                self._refuse(name, plain, other)
            if plain.dim() > 1 and not torch.equal(plain, other):
                raise PairError(f"{name} is neither a linear layer nor an embedding.")
            difference = other.to(wide) - plain.to(wide)
            return {"own": other.to(self.dtype), "norms": _norms(difference * 0, difference)}
        if plain.shape[1:] != other.shape[1:]:
            self._refuse(name, plain, other)
        difference = torch.zeros_like(plain, dtype=wide)
        rows = min(len(plain), len(other))
        difference[:rows] = other[:rows].to(wide) - plain[:rows].to(wide)
        up, down = (factor.to(self.dtype) for factor in _factors(difference, self.amount))
        norms = _norms(difference - up.to(wide) @ down.to(wide), difference)
        if kind == "embedding":
            up, down = down.T, up.T
        return {"up": up.contiguous(), "down": down.contiguous(), "norms": norms}

    def _refuse(self, name: str, plain: Tensor, other: Tensor) -> None:
        raise PairError(
            f"{name} is {tuple(plain.shape)} in {self.plain.source.name} and {tuple(other.shape)} "
            f"in {self.other.source.name}. Choose two stages of one model."
        )

    def finish(self) -> Extraction:
        """Put the pieces together, in a folder that appears at once."""
        from safetensors.torch import load_file, save_file

        pieces = {name: load_file(self._piece(name)) for name in self.names}
        norms = {name: piece.pop("norms").tolist() for name, piece in pieces.items()}
        left, total = map(sum, zip(*norms.values(), strict=True))
        if not total:
            raise PairError("The two models are the same. Choose two stages of one model.")
        ranks = {
            name.removesuffix(".weight"): len(piece["down"])
            for name, piece in pieces.items()
            if "down" in piece and len(piece["down"])
        }
        differing = {name for name, (_, norm) in norms.items() if norm and "own" in pieces[name]}
        biases = {name for name in differing if self._kind(name) != "other"}
        # PEFT takes modules by the ends of their names, and all biases or none.
        whole = sorted({name.split(".")[-2] for name in differing - biases})
        error = float((left / total) ** 0.5)
        staged = self.folder / "adapter"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        tensors = dict(self._tensors(pieces, ranks, whole, bool(biases)))
        save_file(tensors, staged / WEIGHTS, metadata={"format": "pt"})
        self._describe(staged, ranks, whole, bool(biases), error)
        size = (staged / WEIGHTS).stat().st_size
        os.replace(staged, self.out)
        shutil.rmtree(self.folder)
        return Extraction(self.out, self.plain.source.name, self.exact, ranks, error, size)

    def _tensors(
        self,
        pieces: Mapping[str, Mapping[str, Tensor]],
        ranks: Mapping[str, int],
        whole: list[str],
        biases: bool,
    ) -> Iterator[tuple[str, Tensor]]:
        """Give the adapter's tensors the names that PEFT has for them."""
        for name, piece in pieces.items():
            module, kind = name.rpartition(".")[0], self._kind(name)
            if "own" not in piece:
                if module in ranks:
                    down, up = _FACTORS[kind]
                    yield f"{PREFIX}{module}.{down}", piece["down"]
                    yield f"{PREFIX}{module}.{up}", piece["up"]
            elif kind != "other" and biases:
                inner = ".base_layer" if module in ranks else ""
                yield f"{PREFIX}{module}{inner}.bias", piece["own"]
            elif kind == "other" and module.endswith(tuple(whole)):
                yield f"{PREFIX}{name}", piece["own"]

    def _kind(self, name: str) -> str:
        """Tell what a parameter belongs to."""
        from torch.nn import Embedding, Linear

        module = self.modules[name.rpartition(".")[0]]
        if isinstance(module, Linear):
            return "linear"
        return "embedding" if isinstance(module, Embedding) else "other"

    def _describe(
        self, folder: Path, ranks: dict[str, int], whole: list[str], biases: bool, error: float
    ) -> None:
        """Write everything but the weights."""
        from peft import LoraConfig
        from transformers import GenerationConfig

        usual = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
        others = {name: rank for name, rank in ranks.items() if rank != usual}
        tied = self.plain.config.get_text_config().tie_word_embeddings
        config: Any = LoraConfig(
            r=usual,
            lora_alpha=usual,
            rank_pattern=others,
            alpha_pattern=others,
            target_modules=sorted(ranks),
            modules_to_save=whole or None,
            bias="all" if biases else "none",
            ensure_weight_tying=bool(tied),
            base_model_name_or_path=self.plain.source.name,
            task_type="CAUSAL_LM",
            inference_mode=True,
        )
        # PEFT keeps the targets as a set.
        _write(folder / CONFIG, _json({**config.to_dict(), "target_modules": sorted(ranks)}))
        card = {
            "exact": self.exact,
            "model": self.plain.source.name,
            "approximated": self.other.source.name,
            "error": error,
        }
        _write(folder / CARD, _json(card))
        self.other.tokenizer.save_pretrained(folder)
        settings = load_generation_config(self.other.source)
        (settings or GenerationConfig.from_model_config(self.other.config)).save_pretrained(folder)


_FACTORS = {
    "linear": ("lora_A.weight", "lora_B.weight"),
    "embedding": ("lora_embedding_A", "lora_embedding_B"),
}


def _factors(matrix: Tensor, amount: float) -> tuple[Tensor, Tensor]:
    """Return ``up`` and ``down`` whose product is the best one of a rank, or of an energy.

    The matrix is projected onto its first right singular vectors (left ones of a wide matrix),
    which are the eigenvectors of its Gram matrix in float64; or, of big matrices at a small rank,
    come from `torch.svd_lowrank` with `ITERATIONS` power iterations.
    """
    import torch

    if matrix.shape[0] < matrix.shape[1]:
        up, down = _factors(matrix.T, amount)
        return down.T, up.T
    if not matrix.any():
        return matrix[:, :0], matrix[:0]
    size = matrix.shape[1]
    if isinstance(amount, int) and size > BIG and amount + SPARE < size // 8:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            *_, vectors = torch.svd_lowrank(matrix, q=amount + SPARE, niter=ITERATIONS)
        vectors = vectors[:, :amount]
    else:
        values, vectors = torch.linalg.eigh(matrix.double().T @ matrix.double())
        kept = values.flip(0).clamp(min=0).cumsum(0)
        rank = amount if isinstance(amount, int) else int((kept < amount * kept[-1]).sum()) + 1
        vectors = vectors.flip(1)[:, :rank].to(matrix.dtype)
    return matrix @ vectors, vectors.T


def _norms(left: Tensor, difference: Tensor) -> Tensor:
    """Return the squared norms of what is left out and of a difference, ``(2,)``."""
    import torch

    return torch.stack([left.double().square().sum(), difference.double().square().sum()])


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, default=str) + "\n").encode()


def _write(file: Path, content: bytes) -> None:
    """Write a file that is whole or not there."""
    unfinished = file.with_name(f"{file.name}.tmp")
    unfinished.write_bytes(content)
    os.replace(unfinished, file)
