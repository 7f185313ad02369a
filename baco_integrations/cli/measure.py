"""`baco bench`: how fast a pair decodes, compared with its two models on their own."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options

if TYPE_CHECKING:
    from rich.console import Console

    from ..pair.model_pair import ModelPair


_VERSIONS = ("baco_integrations", "torch", "transformers", "python")


class Measured(str, Enum):
    """Pairs that can be measured anywhere."""

    tiny = "tiny"
    random = "135m"


def bench(
    pair: Annotated[
        list[Measured] | None,
        typer.Option(
            help="'135m' has random weights in the shape of SmolLM2-135M.",
            show_default="both",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens per answer.")] = 64,
    samples: Annotated[int, typer.Option(min=1, help="Answers in a batch.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Medians are taken over these.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch.", show_default="torch's own")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure speed, as ratios between runs that alternate in one process."""
    from .screen import busy, console, print_json

    with busy("Starting"):
        import torch

        from ..bench import measure
    if threads is not None:
        torch.set_num_threads(threads)
    results = []
    for name in pair or list(Measured):
        with busy(f"Measuring {name.value}") as update:
            results.append(
                measure(_open(name), tokens=tokens, samples=samples, rounds=rounds, progress=update)
            )
    if as_json:
        print_json({"results": results})
    else:
        _show(results, console())


def _open(name: Measured) -> ModelPair:
    from ..bench import random_pair
    from ..pair.model_pair import ModelPair

    return ModelPair.tiny(progress=False) if name is Measured.tiny else random_pair()


def _show(results: list[dict[str, Any]], out: Console) -> None:
    from .screen import quiet_table

    first = results[0]
    count = first["samples"]
    speeds = {
        "generate_base": "base alone, by its own generate",
        "generate_aligned": "aligned alone, by its own generate",
        "lockstep": "BACo, one answer",
        "batch": f"BACo, {count} answers in a batch",
    }
    ratios = {
        "lockstep_to_harmonic_sum": "BACo against both alone, one after the other",
        "batch_to_sequential": f"{count} answers in a batch against one by one",
    }
    table = quiet_table("tokens per second")
    for result in results:
        table.add_column(result["pair"], justify="right")
    for key, label in speeds.items():
        table.add_row(label, *(f"{result['tokens_per_second'][key]:,.0f}" for result in results))
    table.add_section()
    for key, label in ratios.items():
        table.add_row(f"[bold]{label}", *(f"[bold]× {result[key]:.2f}" for result in results))
    out.print(table)
    out.print(
        "\nAgainst both alone: × 1 means that a token of BACo takes as long as one of each model; "
        "more is faster."
    )
    out.print(
        f"In a batch: × {count} would mean that {count} answers together take no longer than one."
    )
    out.print(
        f"\nMedians of {first['rounds']} rounds of {first['tokens']} tokens. {first['device']}, "
        f"{first['cores']} cores, threads {first['threads']}, "
        + ", ".join(f"{name} {first[name]}" for name in _VERSIONS),
        style="dim",
    )
