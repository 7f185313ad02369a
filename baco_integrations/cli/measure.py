"""`baco bench`: how fast a pair decodes, compared with its two models on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ParameterError
from . import options

if TYPE_CHECKING:
    from rich.console import Console

    from ..models.pair import ModelPair


_VERSIONS = ("baco_integrations", "torch", "transformers", "python")


class Measured(str, Enum):
    """Pairs that can be measured anywhere."""

    tiny = "tiny"
    wide = "wide"
    random = "135m"


def bench(
    pair: Annotated[
        list[Measured] | None,
        typer.Option(
            help="'wide' is the tiny pair made heavy; '135m' has random weights in the shape of "
            "SmolLM2-135M. May be given several times.",
            show_default="all three",
        ),
    ] = None,
    base: options.Base = None,
    aligned: options.Aligned = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens per answer.")] = 64,
    samples: Annotated[int, typer.Option(min=2, help="Answers in the largest batch.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Medians are taken over these.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch.", show_default="torch's own")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the results into this .png or .svg file.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure speed, as ratios between runs that alternate in one process.

    Your own pair: [bold]baco bench --base org/model --aligned org/model-instruct[/].
    """
    from .display import busy, console, print_json

    with busy("Starting"):
        import torch

        from ..evaluation.bench import draw, measure, require_plot
    for option, value in {"dtype": dtype, "device": device}.items():
        if value is not None and not (base or aligned):
            remedy = "The pairs that come along are measured as they are, on the CPU."
            raise ParameterError(option, "left out without --base and --aligned", value, remedy)
    if plot is not None:
        require_plot(plot)
    if threads is not None:
        torch.set_num_threads(threads)
    opened = [_open(name) for name in pair or ([] if base else list(Measured))]
    if base or aligned:
        opened.append(options.open_pair(None, base, aligned, dtype, device))
    batches = sorted({1, max(samples // 4, 1), samples})
    results = []
    for each in opened:
        with busy(f"Measuring {each.name}") as update:
            results.append(
                measure(each, tokens=tokens, batches=batches, rounds=rounds, progress=update)
            )
    if plot is not None:
        draw(results, plot)
    if as_json:
        print_json({"results": results})
    else:
        _show(results, console())


def _open(name: Measured) -> ModelPair:
    from ..evaluation.bench import random_pair, widened_pair
    from ..models.pair import ModelPair

    if name is Measured.tiny:
        return ModelPair.tiny(progress=False)
    return widened_pair() if name is Measured.wide else random_pair()


def _show(results: list[dict[str, Any]], out: Console) -> None:
    from .display import quiet_table

    first = results[0]
    table = quiet_table("")
    for result in results:
        table.add_column(result["pair"], justify="right")
    for section in (_speeds, _ratios, _gains, _others):
        for label, cell in section(first):
            table.add_row(label, *map(cell, results), style=_STYLES.get(section))
        table.add_section()
    out.print(table)
    out.print(
        "\nLockstep: two forwards a token. Against both alone, × 1 means that a token of BACo "
        "takes as long as one of each model. More is faster; only for the first token, less is."
    )
    out.print(
        f"\nMedians of {first['rounds']} rounds of {first['tokens']} tokens. {first['device']}, "
        f"{first['cores']} cores, threads {first['threads']}, "
        + ", ".join(f"{name} {first[name]}" for name in _VERSIONS),
        style="dim",
    )


# Each section of the table: a line's label, and what it says of one pair's result.
_Line = tuple[str, Callable[[dict[str, Any]], str]]


def _speeds(first: dict[str, Any]) -> Iterator[_Line]:
    for name in first["speeds"]:
        for n in first["batches"]:
            label = f"{name}, " + ("one answer" if n == 1 else f"{n} together")
            yield label, partial(_speed, name=name, n=n)


def _speed(result: dict[str, Any], name: str, n: int) -> str:
    return f"{result['speeds'][name][str(n)]:,.0f} tok/s"


def _ratios(first: dict[str, Any]) -> Iterator[_Line]:
    labels = {
        "lockstep_to_harmonic_sum": "lockstep against both alone, one after the other",
        "batch_to_sequential": f"{max(first['batches'])} together against one by one",
    }
    for key, label in labels.items():
        yield label, partial(_ratio, key=key)


def _ratio(result: dict[str, Any], key: str) -> str:
    return f"× {result['ratios'][key]:.2f}"


def _gains(first: dict[str, Any]) -> Iterator[_Line]:
    def cell(result: dict[str, Any], gamma: str) -> str:
        found = result["lookahead"][gamma]
        same = "" if found["same_text"] else ", OTHER TEXT"
        return f"× {found['gain']:.2f}, {found['forwards_per_token']:.2f} forwards{same}"

    for gamma in first["lookahead"]:
        yield f"lookahead against lockstep, gamma {gamma}", partial(cell, gamma=gamma)


def _others(first: dict[str, Any]) -> Iterator[_Line]:
    from ..models.memory import readable

    def first_token(result: dict[str, Any]) -> str:
        found = result["first_token"]
        return f"× {found['ratio']:.2f} ({found['prompt_tokens']} tokens)"

    yield "first token, prompt known against new", first_token
    yield "time outside of forwards", lambda r: f"{r['overhead']:.0%}"
    yield "memory: weights", lambda r: readable(r["memory"]["weights"])
    rows = max(first["batches"])
    yield f"memory: caches of {rows} rows", lambda r: readable(r["memory"]["caches"])


_STYLES = {_ratios: "bold"}
