"""How fast a pair decodes, as ratios measured in one run.

What is compared runs alternately in one process, and a ratio is the median of the rounds' own
ratios, so that a machine whose speed drifts slows both sides of it alike.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import MissingExtraError, ParameterError
from ..core.params import SamplingParams

if TYPE_CHECKING:
    from ..models.pair import ModelPair

Name = TypeVar("Name", bound=Hashable)

SMOLLM2_135M = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
"""Shape of SmolLM2-135M, for a pair with random weights."""


def random_pair(
    shape: dict[str, Any] = SMOLLM2_135M,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    name: str = "random-135m",
) -> ModelPair:
    """Make a pair of two random Llama models of one shape, with a byte-level tokenizer of its size.

    Args:
        shape: Settings of a ``LlamaConfig``.
        dtype: Name of the weights' dtype.
        device: Where the models are made, and stay.
        name: What to call it.
    """
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from ..models.pair import ModelPair
    from ..models.quantization import quiet_torchao

    def model(seed: int) -> Any:
        config = LlamaConfig(**shape, bos_token_id=0, eos_token_id=0)
        build: Any = AutoModelForCausalLM.from_config
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(seed)
            return build(config, dtype=getattr(torch, dtype))

    base, aligned = (_tokenizer(shape["vocab_size"], template) for template in (None, _TEMPLATE))
    with quiet_torchao():  # the first model that is made imports torchao too
        models = model(0), model(1)
    return ModelPair(*models, base, aligned, name=name)


_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def _tokenizer(size: int, template: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [f"Ġw{number}" for number in range(size - len(pieces))]
    vocabulary = {piece: token_id for token_id, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, eos_token="<end>"
    )
    tokenizer.chat_template = template
    return tokenizer


def widened_pair(width: int = 8192) -> ModelPair:
    """Make the embedded pair heavy: its layers get hidden units of zeros, which change no logit.

    So a pair that agrees as trained pairs do can be measured where a forward is bound by reading
    weights.

    Args:
        width: Hidden units of each layer.
    """
    import torch

    from ..models.pair import ModelPair

    def widened(model: Any) -> Any:
        config = type(model.config)(**{**model.config.to_dict(), "intermediate_size": width})
        heavy = type(model)(config).to(model.dtype).eval()
        with torch.no_grad():
            for name, target in heavy.state_dict().items():
                weight = model.state_dict()[name]
                target.zero_()
                target[tuple(slice(size) for size in weight.shape)] = weight
        return heavy

    pair = ModelPair.tiny(progress=False)
    base, aligned = widened(pair.base), widened(pair.aligned)
    tokenizers = pair.base_tokenizer, pair.aligned_tokenizer
    return ModelPair(base, aligned, *tokenizers, name=f"tiny-{width}")


GAMMAS = (0.0, 0.3, 0.6, 0.9)
_PROMPT = "Name a place that is worth a visit, and say in a sentence why."
_ASKED = (
    "Name a city to visit and tell me why.",
    "Tell me a short story about a fox.",
    "What could I cook tonight?",
    "Suggest a hobby for my sister.",
)

Progress = Callable[[str], None]


def measure(
    pair: ModelPair,
    *,
    tokens: int = 64,
    batches: Sequence[int] = (1, 4, 16),
    gammas: Sequence[float] = GAMMAS,
    prefix: int = 400,
    rounds: int = 5,
    progress: Progress = lambda name: None,
) -> dict[str, Any]:
    """Measure one pair.

    Args:
        pair: The pair; its models are used as they are.
        tokens: Tokens per completion.
        batches: Samples of one prompt that are decoded together.
        gammas: Where lookahead is measured.
        prefix: Words of the prompt whose first token is timed.
        rounds: How often everything is measured; medians are reported.
        progress: Told what is measured next.

    Returns:
        ``speeds``: tokens per second by way of decoding and batch size. ``ratios``:
        ``lockstep_to_harmonic_sum`` (1 means: as fast as the two models one after the other) and
        ``batch_to_sequential``. ``lookahead``: by gamma, forwards per token, share of right
        drafted, and how many times as fast as lockstep with the same text. ``first_token``:
        seconds until it comes, with its prompt new and with all but the end known. ``overhead``:
        share of lockstep's time outside of forwards. ``memory``: bytes of weights and of caches.
    """
    speeds, ratios, overhead, cache = _decoding(pair, tokens, batches, rounds, progress)
    weights = pair.memory_bytes()
    return {
        "pair": pair.name,
        "tokens": tokens,
        "batches": list(batches),
        "rounds": rounds,
        "speeds": speeds,
        "ratios": ratios,
        "overhead": overhead,
        "lookahead": {str(g): _lookahead(pair, g, tokens, rounds, progress) for g in gammas},
        "first_token": _first_token(pair, prefix, rounds, progress),
        "memory": {"weights": weights, "caches": cache, "peak": _peak()},
        **machine(),
    }


def _decoding(
    pair: ModelPair, tokens: int, batches: Sequence[int], rounds: int, progress: Progress
) -> tuple[dict[str, dict[str, float]], dict[str, float], float, int]:
    """Time both models alone and lockstep, with answers of one length."""
    from ..decoder.decoder import Decoder

    decoder = Decoder(_Endless(pair), max_rows=max(batches), lookahead="off", prefix_bytes=0)
    params = SamplingParams(gamma=0.5, max_tokens=tokens, seed=1)
    runs: dict[tuple[str, int], Callable[[], object]] = {}
    for n in batches:
        runs["base alone", n] = partial(_generate, pair.base, pair.render_base, tokens, n)
        runs["aligned alone", n] = partial(_generate, pair.aligned, pair.render_aligned, tokens, n)
        runs["lockstep", n] = partial(decoder.generate, _PROMPT, params, n=n)
    with decoder:
        clock = _Clock(decoder)
        seconds = _alternate(runs, rounds, progress, "decoding")
        inside = clock.seconds
        cache = sum(side.cache.bytes for side in clock.sides)
    first, most = min(batches), max(batches)
    both = [
        base + aligned
        for base, aligned in zip(
            seconds["base alone", first], seconds["aligned alone", first], strict=True
        )
    ]
    lockstep = seconds["lockstep", first]
    one_by_one = [most // first * each for each in lockstep]
    ratios = {
        "lockstep_to_harmonic_sum": _ratio(both, lockstep),
        "batch_to_sequential": _ratio(one_by_one, seconds["lockstep", most]),
    }
    speeds: dict[str, dict[str, float]] = {}
    for (name, n), times in seconds.items():
        speeds.setdefault(name, {})[str(n)] = round(n * tokens / statistics.median(times), 1)
    busy = decoder.metrics.busy_s
    return speeds, ratios, round(1 - inside / busy, 3), cache


def _lookahead(
    pair: ModelPair, gamma: float, tokens: int, rounds: int, progress: Progress
) -> dict[str, float | bool]:
    """Compare lookahead with lockstep where both say the same."""
    from ..decoder.decoder import Decoder

    texts: dict[str, list[str]] = {"off": [], "auto": []}
    with (
        Decoder(pair, lookahead="off", prefix_bytes=0) as off,
        Decoder(pair, lookahead="auto", prefix_bytes=0) as auto,
    ):

        def run(name: str, decoder: Decoder) -> None:
            texts[name] = [
                decoder.generate(asked, gamma=gamma, seed=seed, max_tokens=tokens)[0].text
                for seed, asked in enumerate(_ASKED)
            ]

        runs = {name: partial(run, name, each) for name, each in (("off", off), ("auto", auto))}
        seconds = _alternate(runs, rounds, progress, f"lookahead at gamma {gamma:g}")
        metrics = auto.metrics
    return {
        "forwards_per_token": round(metrics.forwards / max(metrics.tokens, 1), 3),
        "right": round(metrics.right / max(metrics.drafted, 1), 3),
        "gain": _ratio(seconds["off"], seconds["auto"]),
        "same_text": texts["off"] == texts["auto"],
    }


def _first_token(
    pair: ModelPair, words: int, rounds: int, progress: Progress
) -> dict[str, float | int]:
    """Time the first token of prompts that share all but their end."""
    from ..decoder.decoder import Decoder

    def ask(decoder: Decoder, number: int) -> None:
        document = " ".join(f"word {word % 10}" for word in range(words))
        decoder.generate(f"{document}. What about {number}?", max_tokens=1, seed=1)

    words = min(words, min(pair.context) // 12)  # a token may be as short as a letter
    numbers = iter(range(10**6))
    with Decoder(pair, prefix_bytes=0) as forgetful, Decoder(pair) as decoder:
        runs: dict[str, Callable[[], object]] = {
            "new": lambda: ask(forgetful, next(numbers)),
            "known": lambda: ask(decoder, next(numbers)),
        }
        seconds = _alternate(runs, rounds, progress, "first token")
        length = forgetful.metrics.prefilled // (2 * (rounds + 1))
    return {
        "prompt_tokens": length,
        "new_s": round(statistics.median(seconds["new"]), 4),
        "known_s": round(statistics.median(seconds["known"]), 4),
        "ratio": _ratio(seconds["known"], seconds["new"]),
    }


def _alternate(
    runs: Mapping[Name, Callable[[], object]], rounds: int, progress: Progress, what: str
) -> dict[Name, list[float]]:
    """Run everything in turn, round by round; the first round warms up and does not count."""
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        progress(f"{what}, round {number} of {rounds}")
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    pairs = zip(numerators, denominators, strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


class _Clock:
    """Counts the seconds that a decoder spends in forwards, reading and decoding."""

    def __init__(self, decoder: Any) -> None:
        self.seconds = 0.0
        self.sides = decoder._engine._sides
        for side in self.sides:
            side.advance, side.read = self._timed(side.advance), self._timed(side.read)

    def _timed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            started = time.perf_counter()
            try:
                return run(*args)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def _generate(model: Any, render: Callable[..., Any], tokens: int, samples: int) -> object:
    import torch

    ids = torch.tensor([render(_PROMPT, tokenize=True)], device=model.device)
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        num_return_sequences=samples,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
    )


class _Endless:
    """A pair whose turns never end, so that every completion has the same length."""

    def __init__(self, pair: ModelPair) -> None:
        self._pair = pair
        self.base_eos = self.aligned_eos = frozenset[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pair, name)


def _peak() -> int:
    """Return the most bytes of device memory that were in use; on a CPU, of the process."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def require_plot(file: Path) -> None:
    """Make sure that a plot can be drawn into a file, before anything is measured for it.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ParameterError: The file has another ending than ``.png`` or ``.svg``, or no folder.
    """
    if file.suffix not in (".png", ".svg") or not file.parent.is_dir():
        allowed = "a file that ends in .png or .svg, in a folder that exists"
        raise ParameterError("plot", allowed, str(file), "Rename it, or make the folder.")
    if find_spec("matplotlib") is None:
        raise MissingExtraError("A plot", "eval")


def draw(results: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw tokens per second by batch size, and what lookahead gains by gamma.

    Args:
        results: What `measure` returned, for one pair or more.
        file: Where to, ``.png`` or ``.svg``.

    Raises:
        MissingExtraError, ParameterError: As `require_plot` raises them.
    """
    require_plot(file)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8 * len(results)), layout="constrained")
    panels = figure.subplots(len(results), 2, squeeze=False)
    colours = {"base alone": "#d55e00", "aligned alone": "#0072b2", "lockstep": "#444444"}
    for result, (speeds, gains) in zip(results, panels, strict=True):
        sizes = [str(n) for n in result["batches"]]
        for name, colour in colours.items():
            values = [result["speeds"][name][n] for n in sizes]
            speeds.plot(sizes, values, "o-", color=colour)
            speeds.annotate(
                f" {name}", (sizes[-1], values[-1]), color=colour, va="center", clip_on=False
            )
        speeds.set(title=result["pair"], xlabel="answers together", ylabel="tokens per second")
        speeds.set_ylim(bottom=0)
        ahead = result["lookahead"]
        gains.plot([*ahead], [each["gain"] for each in ahead.values()], "o-", color="#444444")
        gains.axhline(1, color="#bbbbbb", linewidth=1, zorder=0)
        gains.set(title="lookahead against lockstep", xlabel="gamma", ylabel="times as fast")
        gains.set_ylim(0, max(1.5, *(each["gain"] + 0.1 for each in ahead.values())))
        for panel in (speeds, gains):
            panel.spines[["top", "right"]].set_visible(False)
        speeds.margins(x=0.25)
    figure.savefig(file, dpi=150)


def machine() -> dict[str, Any]:
    """Return what a figure depends on: processor, threads and versions."""
    import torch
    import transformers

    from .. import __version__

    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "baco_integrations": __version__,
    }


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text()
        return next(line for line in told.splitlines() if "model name" in line).split(": ")[1]
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
