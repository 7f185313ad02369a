"""Train the tiny pair: a tokenizer, the base model, then the aligned model from the base model.

Run from the repository's root; on one CPU core it takes about an hour:

    python -m cookbook.tiny_pair.train --out my-pair
    baco chat --base my-pair/base --aligned my-pair/aligned

Invariant: seed and recipe decide every byte of the result (on one kind of machine). Each step's
data follow from the seed and the step's number alone, so a run that was interrupted and started
again ends like one that was not.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from baco_integrations.core.errors import BacoError, ParameterError
from cookbook.tiny_pair.batches import (
    BLOCK,
    END_OF_TEXT,
    END_OF_TURN,
    NOT_LEARNED,
    PADDING,
    SPECIAL_TOKENS,
    Batch,
    Recipe,
    aligned_block,
    base_batch,
    trained_tokenizer,
)

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
    claim(folder, {"seed": seed, "threads": threads, **asdict(recipe)})
    if not (folder / "aligned").is_dir():
        with torch_threads(threads), progress_bar(progress) as advance:
            tokenizer = trained_tokenizer(folder / "tokenizer.json", recipe, seed)
            for stage in stages(tokenizer, recipe, seed):
                if not (folder / stage.name).is_dir():
                    model = run(stage, folder, recipe, seed, advance)
                    save(model, tokenizer, folder, stage.name)
    for leftover in (*folder.glob("*.checkpoint"), *folder.glob("tokenizer.json")):
        leftover.unlink()
    return folder


def claim(folder: Path, settings: dict[str, Any]) -> None:
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
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@contextmanager
def progress_bar(show: bool) -> Iterator[Callable[[str, int, int, float], None]]:
    """Yield a function that takes a stage's name, its step, its number of steps and the loss."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not show) as bar:
        tasks: dict[str, Any] = {}

        def advance(name: str, step: int, steps: int, loss: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=steps)
            bar.update(tasks[name], completed=step, description=f"{name} loss {loss:.3f}")

        yield advance


def stages(tokenizer: Tokenizer, recipe: Recipe, seed: int) -> Iterator[Stage]:
    """Yield both trainings, in their order."""

    def base(step: int) -> Batch:
        return base_batch(tokenizer, recipe, f"{seed}:base:{step}")

    @lru_cache(maxsize=1)
    def block(number: int) -> list[Batch]:
        return aligned_block(tokenizer, recipe, f"{seed}:aligned:{number}")

    yield Stage("base", recipe.base_steps, recipe.base_rate, base)
    yield Stage(
        "aligned",
        recipe.aligned_steps,
        recipe.aligned_rate,
        lambda step: block(step // BLOCK)[step % BLOCK],
    )


def run(
    stage: Stage,
    folder: Path,
    recipe: Recipe,
    seed: int,
    advance: Callable[[str, int, int, float], None],
) -> LlamaForCausalLM:
    """Train one model from its beginning, or from its last checkpoint."""
    model = new_model(stage.name, folder, recipe, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.rate, betas=(0.9, 0.95))
    factor = partial(rate_factor, steps=stage.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    checkpoint = folder / f"{stage.name}.checkpoint"
    done = restore(checkpoint, parts)
    model.train()
    for step in range(done, stage.steps):
        loss = mean_loss(model, stage.batch(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        advance(stage.name, step + 1, stage.steps, loss.item())
        if (step + 1) % recipe.checkpoint_every == 0:
            store(checkpoint, step + 1, parts)
    return model


def mean_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean loss of the tokens to be learned; for the others, logits would only take time."""
    targets = batch.labels[:, 1:]
    learned = targets != NOT_LEARNED
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(batch.input_ids).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[learned])
    return torch.nn.functional.cross_entropy(logits.float(), targets[learned])


def rate_factor(step: int, steps: int) -> float:
    """Rise over the first twentieth of the steps, then fall linearly to a fiftieth."""
    rise = max(1, steps // 20)
    return min((step + 1) / rise, max(0.02, (steps - step) / (steps - rise + 1)))


def restore(path: Path, parts: dict[str, Any]) -> int:
    """Load a checkpoint if there is one, and return the number of steps it has seen."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def store(path: Path, step: int, parts: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"step": step, **state}, f"{path}.part")
    os.replace(f"{path}.part", path)


def new_model(name: str, folder: Path, recipe: Recipe, seed: int) -> LlamaForCausalLM:
    """The base model begins anew, the aligned model as the saved base model."""
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


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path, name: str) -> None:
    """Save a model in bfloat16 with its tokenizer, whole or not at all."""
    part = folder / f"{name}.part"
    end = END_OF_TURN if name == "aligned" else END_OF_TEXT
    model.generation_config = GenerationConfig(
        eos_token_id=SPECIAL_TOKENS.index(end), pad_token_id=SPECIAL_TOKENS.index(PADDING)
    )
    model.bfloat16().save_pretrained(part)
    fast = PreTrainedTokenizerFast(
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the two models")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another pair")
    parser.add_argument("--base-steps", type=int, default=Recipe.base_steps)
    parser.add_argument("--aligned-steps", type=int, default=Recipe.aligned_steps)
    parser.add_argument(
        "--threads", type=int, default=1, help="the result depends on it in its last bits"
    )
    chosen = parser.parse_args()
    recipe = Recipe(base_steps=chosen.base_steps, aligned_steps=chosen.aligned_steps)
    try:
        train(chosen.out, chosen.seed, recipe, threads=chosen.threads)
    except BacoError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
