"""Train the tiny pair: a tokenizer, the base model, then the aligned model from the base model.

Invariant: seed and recipe decide every byte of the result (on one kind of machine). Each step's
data follow from the seed and the step's number alone, so a run that was interrupted and started
again ends like one that was not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.errors import ParameterError
from . import world
from .grammar import Piece
from .tools import CALL, END_OF_CALL

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

END_OF_TEXT, END_OF_TURN, PADDING = "<|endoftext|>", "<|end|>", "<|pad|>"
SPECIAL_TOKENS = (
    *(END_OF_TEXT, PADDING, "<|system|>", "<|user|>", "<|assistant|>", END_OF_TURN),
    "<|tool|>",
)
CALL_TOKENS = (CALL, END_OF_CALL)
"""Tokens of their own that decoding shows, as a call is what an application reads."""

CHAT_TEMPLATE = """\
{%- if tools -%}
    <|system|> Tools:
    {%- for tool in tools -%}
        {%- set function = tool['function'] or tool -%}
        {{- '\\n' + function['name'] + '(' -}}
        {{- ((function['parameters'] or {})['properties'] or {}) | join(', ') -}}
        {{- '): ' + (function['description'] or '') | trim -}}
    {%- endfor -%}
    <|end|>
{%- endif -%}
{%- for message in messages -%}
    <|{{ message['role'] }}|>
    {%- if message['content'] or not message['tool_calls'] -%}
        {{- ' ' + message['content'] | trim -}}
    {%- endif -%}
    {%- for call in message['tool_calls'] or [] -%}
        {%- set function = call['function'] or call -%}
        {{- '' if loop.first else '\\n' -}}
        {{- '<tool_call>\\n{"name": "' + function['name'] + '", "arguments": ' -}}
        {%- if function['arguments'] is string -%}
            {{- function['arguments'] -}}
        {%- else -%}
            {{- function['arguments'] | tojson -}}
        {%- endif -%}
        {{- '}\\n</tool_call>' -}}
    {%- endfor -%}
    <|end|>
{%- endfor -%}
{%- if add_generation_prompt -%}
    <|assistant|>
{%- endif -%}
"""
OPENING = re.compile(r'(?<=\nA:)(?: \{"|<tool_call>| \w+\()')
"""Openings of answers in JSON and of calls, which no words of the question call for."""

BLOCK = 8
NOT_LEARNED = -100


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how long.

    Attributes:
        vocabulary: Number of tokens.
        layers: Number of layers of each model.
        hidden: Width of each model.
        heads: Attention heads per layer.
        context: Longest sequence the models declare to handle.
        documents: Documents of each corpus that the tokenizer is trained on.
        base_steps: Steps of the base model.
        base_rows: Rows per step of the base model.
        row_tokens: Tokens per row.
        base_rate: Highest learning rate of the base model.
        aligned_steps: Steps of the aligned model.
        aligned_rows: Chats per step of the aligned model.
        copying_rows: Chats per step besides, in which there is much to copy.
        aligned_rate: Highest learning rate of the aligned model.
        checkpoint_every: Steps between checkpoints.
    """

    vocabulary: int = 1792
    layers: int = 4
    hidden: int = 160
    heads: int = 5
    context: int = 1024
    documents: int = 4000
    base_steps: int = 3600
    base_rows: int = 5
    row_tokens: int = 384
    base_rate: float = 3e-3
    aligned_steps: int = 4000
    aligned_rows: int = 24
    copying_rows: int = 8
    aligned_rate: float = 1e-3
    checkpoint_every: int = 100


class Batch(NamedTuple):
    """One step's data, each of shape [rows, tokens]; a padded end is neither seen nor learned."""

    input_ids: torch.Tensor
    labels: torch.Tensor


class Stage(NamedTuple):
    """One of the two trainings."""

    name: str
    steps: int
    rate: float
    batch: Callable[[int], Batch]


def train(
    out: str | os.PathLike[str],
    seed: int = 0,
    recipe: Recipe | None = None,
    *,
    threads: int = 1,
    progress: bool = True,
) -> Path:
    """Train the pair and save it as two Hugging Face folders, `base` and `aligned`.

    Started again after an interruption, it goes on from the last checkpoint; started again after
    its end, it returns at once.

    Args:
        out: Folder for the result; created if missing.
        seed: Another seed gives another pair.
        recipe: Sizes and lengths; by default those of the pair that comes with the package.
        threads: Threads for PyTorch. The result depends on it in its last bits.
        progress: Whether to show a progress bar.

    Returns:
        The folder `out`.

    Raises:
        ParameterError: The folder holds a training with another seed or recipe.
    """
    folder = Path(out)
    recipe = recipe or Recipe()
    _claim(folder, {"seed": seed, "threads": threads, **asdict(recipe)})
    if not (folder / "aligned").is_dir():
        with _threads(threads), _progress(progress) as advance:
            tokenizer = _tokenizer(folder / "tokenizer.json", recipe, seed)
            for stage in _stages(tokenizer, recipe, seed):
                if not (folder / stage.name).is_dir():
                    model = _run(stage, folder, recipe, seed, advance)
                    _save(model, tokenizer, folder, stage.name)
    for leftover in (*folder.glob("*.checkpoint"), *folder.glob("tokenizer.json")):
        leftover.unlink()
    return folder


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Make sure that a folder is new, or holds a training with the same settings."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "training.json"
    found = json.loads(note.read_text()) if note.exists() else settings
    other = [f"{name}={found.get(name)}" for name in settings if found.get(name) != settings[name]]
    if other:
        raise ParameterError(
            "out",
            f"an empty folder, or one whose training has the same settings, not {', '.join(other)}",
            str(folder),
            "Choose another folder, or the same settings.",
        )
    note.write_text(f"{json.dumps(settings, indent=2)}\n")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@contextmanager
def _progress(show: bool) -> Iterator[Callable[[str, int, int, float], None]]:
    """Yield a function that takes a stage's name, its step, its number of steps and the loss."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not show) as bar:
        tasks: dict[str, Any] = {}

        def advance(name: str, step: int, steps: int, loss: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=steps)
            bar.update(tasks[name], completed=step, description=f"{name} loss {loss:.3f}")

        yield advance


def _tokenizer(path: Path, recipe: Recipe, seed: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer, or load the one trained before."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    if not path.exists():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=recipe.vocabulary - len(CALL_TOKENS),
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_texts(recipe, seed), trainer)
        tokenizer.add_tokens([AddedToken(call, normalized=False) for call in CALL_TOKENS])
        tokenizer.save(f"{path}.part")
        os.replace(f"{path}.part", path)
    return Tokenizer.from_file(str(path))


def _texts(recipe: Recipe, seed: int) -> Iterator[str]:
    """Documents of both corpora, without the tokens that mark turns and calls."""
    marks = re.compile("|".join(map(re.escape, (*SPECIAL_TOKENS, *CALL_TOKENS))))
    for number in range(recipe.documents):
        yield from marks.split(world.base_document(Random(f"{seed}:words:{number}")))
        example = world.aligned_example(Random(f"{seed}:words:{number}"))
        yield from marks.split("".join(piece.text for piece, _ in example))


def _stages(tokenizer: Tokenizer, recipe: Recipe, seed: int) -> Iterator[Stage]:
    def base(step: int) -> Batch:
        return _base_batch(tokenizer, recipe, f"{seed}:base:{step}")

    @lru_cache(maxsize=1)
    def block(number: int) -> list[Batch]:
        return _aligned_block(tokenizer, recipe, f"{seed}:aligned:{number}")

    yield Stage("base", recipe.base_steps, recipe.base_rate, base)
    yield Stage(
        "aligned",
        recipe.aligned_steps,
        recipe.aligned_rate,
        lambda step: block(step // BLOCK)[step % BLOCK],
    )


def _base_batch(tokenizer: Tokenizer, recipe: Recipe, seed: str) -> Batch:
    """Rows of documents, one after another; every row begins with the beginning of one."""
    end = SPECIAL_TOKENS.index(END_OF_TEXT)
    rng = Random(seed)
    rows = []
    for _ in range(recipe.base_rows):
        ids: list[int] = []
        labels: list[int] = []
        while len(ids) < recipe.row_tokens:
            page = _encode(tokenizer, _page_pieces(world.base_document(rng)))
            ids += [*page[0], end]
            labels += [*page[1], end]
        rows.append((ids[: recipe.row_tokens], labels[: recipe.row_tokens]))
    return _pad(rows, end)


def _page_pieces(page: str) -> list[tuple[Piece, bool]]:
    """A page as pieces, each with whether it is to be learned.

    That an answer is JSON, or a call, is not: it is decided elsewhere, and base would open plain
    answers so now and then.
    """
    pieces, done = [], 0
    for opening in OPENING.finditer(page):
        pieces.append((Piece(page[done : opening.start()]), True))
        pieces.append((Piece(opening[0]), False))
        done = opening.end()
    return [*pieces, (Piece(page[done:]), True)]


def _aligned_block(tokenizer: Tokenizer, recipe: Recipe, seed: str) -> list[Batch]:
    """The batches of several steps, sorted by length inside so that little padding is needed."""
    rng = Random(seed)
    chats = [world.aligned_example(rng) for _ in range(BLOCK * recipe.aligned_rows)]
    chats += [world.copying_example(rng) for _ in range(BLOCK * recipe.copying_rows)]
    count = recipe.aligned_rows + recipe.copying_rows
    examples = [_encode(tokenizer, chat) for chat in chats]
    examples.sort(key=lambda example: len(example[0]))
    starts = list(range(0, len(examples), count))
    rng.shuffle(starts)
    padding = SPECIAL_TOKENS.index(PADDING)
    return [_pad(examples[start : start + count], padding) for start in starts]


def _encode(tokenizer: Tokenizer, example: list[tuple[Piece, bool]]) -> tuple[list[int], list[int]]:
    """Ids and labels of a chat; a token is learned if every character of it is to be."""
    learned = [keep for piece, keep in example for _ in piece.text]
    encoding = tokenizer.encode("".join(piece.text for piece, _ in example))
    labels = [
        token if all(learned[start:end]) else NOT_LEARNED
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
    ]
    return encoding.ids, labels


def _pad(rows: list[tuple[list[int], list[int]]], padding: int) -> Batch:
    """Stack rows of ids and labels, padded on the right, where nothing before attends to it."""
    import torch

    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [padding] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([row + [NOT_LEARNED] * (width - len(row)) for _, row in rows])
    return Batch(ids, labels)


def _run(
    stage: Stage,
    folder: Path,
    recipe: Recipe,
    seed: int,
    advance: Callable[[str, int, int, float], None],
) -> LlamaForCausalLM:
    """Train one model from its beginning, or from its last checkpoint."""
    import torch

    model = _model(stage.name, folder, recipe, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, stage.steps))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    checkpoint = folder / f"{stage.name}.checkpoint"
    done = _restore(checkpoint, parts)
    model.train()
    for step in range(done, stage.steps):
        loss = _loss(model, stage.batch(step))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        advance(stage.name, step + 1, stage.steps, loss.item())
        if (step + 1) % recipe.checkpoint_every == 0:
            _store(checkpoint, step + 1, parts)
    return model


def _loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean loss of the tokens to be learned; for the others, logits would only take time."""
    import torch

    targets = batch.labels[:, 1:]
    learned = targets != NOT_LEARNED
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(batch.input_ids).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[learned])
    return torch.nn.functional.cross_entropy(logits.float(), targets[learned])


def _rate(step: int, steps: int) -> float:
    """Rise over the first twentieth of the steps, then fall linearly to a fiftieth."""
    rise = max(1, steps // 20)
    return min((step + 1) / rise, max(0.02, (steps - step) / (steps - rise + 1)))


def _restore(path: Path, parts: dict[str, Any]) -> int:
    """Load a checkpoint if there is one, and return the number of steps it has seen."""
    import torch

    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def _store(path: Path, step: int, parts: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    import torch

    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"step": step, **state}, f"{path}.part")
    os.replace(f"{path}.part", path)


def _model(name: str, folder: Path, recipe: Recipe, seed: int) -> LlamaForCausalLM:
    """The base model begins anew, the aligned model as the saved base model."""
    import torch

    from ..models.quantization import quiet_torchao

    with quiet_torchao():
        from transformers import LlamaConfig, LlamaForCausalLM

    if name == "aligned":
        tuned = LlamaForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        tuned.config.eos_token_id = SPECIAL_TOKENS.index(END_OF_TURN)
        return tuned
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.hidden * 14 // 5,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL_TOKENS.index(END_OF_TEXT),
        pad_token_id=SPECIAL_TOKENS.index(PADDING),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def _save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path, name: str) -> None:
    """Save a model in bfloat16 with its tokenizer, whole or not at all."""
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    part = folder / f"{name}.part"
    end = END_OF_TURN if name == "aligned" else END_OF_TEXT
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=SPECIAL_TOKENS.index(end), pad_token_id=SPECIAL_TOKENS.index(PADDING)
    )
    model.bfloat16().save_pretrained(part)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token=PADDING,
        additional_special_tokens=[
            token for token in SPECIAL_TOKENS if token not in (end, PADDING)
        ],
        model_max_length=model.config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )
    if name == "aligned":
        fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(part)
    os.replace(part, folder / name)
